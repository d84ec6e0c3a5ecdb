"""schemathesis over the whole OpenAPI document: no 5xx, every answer as the document says."""

import json

import httpx
import jsonschema
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance

CHECKS = [schemathesis.checks.not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
ELSEWHERE = ("/api/v1/stream", "/api/v1/frames")
"""Endless, and binary (tests/agent/test_frame.py fuzzes the decoder)."""


@pytest.fixture(scope="module")
def operations(served):
    run = served.new_run("fuzzed")
    served.http.post(f"/api/v1/runs/{run}/points", json=[{"step": step, "rank": 0, "loss": 2.0} for step in range(5)])
    schema = schemathesis.openapi.from_dict(served.http.get("/openapi.json").json())
    found = [result.ok() for result in schema.get_all_operations()]
    return run, [operation for operation in found if operation.path not in ELSEWHERE]


def call(served, case, run: str, answered: list) -> None:
    if "run" in (case.path_parameters or {}) and hash(str(case.path_parameters)) % 2:
        case.path_parameters["run"] = run  # else nearly all requests would end with 404
    asked = case.as_transport_kwargs(base_url=served.url)
    body = {"json": asked["json"]} if "json" in asked else {"content": asked.get("data")}
    headers = {key: value for key, value in (asked.get("headers") or {}).items() if key.lower() != "host"}
    try:
        answer = served.http.request(asked["method"], asked["url"], params=asked.get("params"), headers=headers, **body)
    except (httpx.InvalidURL, httpx.LocalProtocolError, UnicodeEncodeError, TypeError, ValueError):
        return  # what httpx itself cannot say
    case.validate_response(answer, checks=CHECKS)
    answered.append(answer.status_code)


def fuzz(served, run, operation, *, mode, examples, answered):
    @seed(7)
    @settings(max_examples=examples, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def each(case):
        call(served, case, run, answered)

    each()


@pytest.mark.parametrize(
    "examples", [pytest.param(4, id="few"), pytest.param(200, id="many", marks=[pytest.mark.soak, pytest.mark.timeout(3600)])]
)
def test_no_request_breaks_the_api(served, operations, examples):
    run, found = operations
    assert len(found) > 20
    failures, answered = [], []
    for operation in found:
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            try:
                fuzz(served, run, operation, mode=mode, examples=examples, answered=answered)
            except Unsatisfiable:
                continue  # an operation that takes nothing can be sent nothing wrong
            except Exception as error:
                failures.append(f"{operation.method.upper()} {operation.path} ({mode.value}): {str(error)[:1500]}")
    assert len(answered) > 30 * examples
    assert 200 in answered
    assert not failures, "\n\n".join(failures)
    assert served.http.get("/healthz").status_code == 200


def test_the_document_names_the_frames_route(served):
    document = served.http.get("/openapi.json").json()
    assert "application/vnd.holter.frame.v1" in json.dumps(document["paths"]["/api/v1/frames"]["post"]["requestBody"])


def test_every_route_shows_an_example_that_it_could_answer(served):
    """Each JSON answer and each parameter, checked against its own schema."""
    document = served.http.get("/openapi.json").json()
    shown = 0
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            for parameter in operation.get("parameters", []):
                given_ones = parameter["schema"].get("examples") or [parameter["example"]]
                for value in given_ones:
                    jsonschema.validate(value, parameter["schema"] | {"components": document["components"]})
            bodies = [
                answer["content"]["application/json"]
                for answer in operation["responses"].values()
                if answer.get("content", {}).get("application/json", {}).get("schema")
            ]
            for body in bodies:
                jsonschema.validate(body["example"], body["schema"] | {"components": document["components"]})
                assert body["example"] != {} or path.endswith("/metrics"), (method, path)  # free-form
                shown += 1
    assert shown >= 25
