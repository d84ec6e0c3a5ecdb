"""OTLP/HTTP metrics, as Megatron-LM's exporter and others send them, protobuf and JSON."""

import json

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest, ExportMetricsServiceResponse

PATH = "/api/v1/otlp/v1/metrics"


def export(run: str, metrics: dict, *, time_ns: int = 1_700_000_000_000_000_000, **attributes) -> ExportMetricsServiceRequest:
    request = ExportMetricsServiceRequest()
    resource = request.resource_metrics.add()
    for key, value in {"service.name": run, "service.namespace": "smol", "host.name": "gpu-1"}.items():
        resource.resource.attributes.add(key=key).value.string_value = value
    scope = resource.scope_metrics.add()
    for name, value in metrics.items():
        point = scope.metrics.add(name=name).gauge.data_points.add(time_unix_nano=time_ns, as_double=value)
        for key, number in attributes.items():
            point.attributes.add(key=key).value.int_value = number
    return request


def post(served, request, kind="application/x-protobuf"):
    return served.http.post(PATH, content=request.SerializeToString(), headers={"Content-Type": kind})


def run_of(served, name):
    (run,) = served.get("runs", project="smol", name=name)["items"]
    return run["id"]


def test_megatrons_words_become_ours(served):
    metrics = {"megatron.training.loss": 2.5, "megatron.training.step_duration_ms": 1500.0, "megatron.training.learning_rate": 0.1}
    assert post(served, export("megatron", metrics, iteration=7, rank=3)).status_code == 200
    run = run_of(served, "megatron")
    served.until(lambda: sorted(served.get(f"runs/{run}/metrics")["items"]) == ["loss", "lr", "step_time_seconds"])
    found = served.get(f"runs/{run}/ranks", metric="step_time_seconds")
    assert (found["step"], found["rank"], found["value"], found["node"]) == (7, [3], [1.5], ["gpu-1"])


def test_a_repeated_export_is_stored_once_and_steps_are_counted_where_none_is_told(served):
    first = export("counted", {"loss": 2.0}, time_ns=1_000)
    for request in (first, first, export("counted", {"loss": float("nan")}, time_ns=2_000)):
        assert post(served, request).status_code == 200
    run = run_of(served, "counted")
    served.until(lambda: len(served.get(f"runs/{run}/series", metric="loss", rank=0)["step"]) == 2)
    found = served.get(f"runs/{run}/series", metric="loss", rank=0)
    assert (found["step"], found["value"]) == ([0, 1], [2.0, "NaN"])


def test_json_is_taken_too(served):
    point = {"timeUnixNano": "1700000000000000000", "asDouble": 3.0, "attributes": [{"key": "step", "value": {"intValue": "5"}}]}
    metrics = [{"name": "loss", "gauge": {"dataPoints": [point]}}, {"name": "s", "summary": {"dataPoints": [{"count": "1"}]}}]
    names = [{"key": "service.name", "value": {"stringValue": "json"}}, {"key": "service.namespace", "value": {"stringValue": "smol"}}]
    body = {"resourceMetrics": [{"resource": {"attributes": names}, "scopeMetrics": [{"metrics": metrics}]}]}
    answer = served.http.post(PATH, json=body)
    assert answer.json()["partialSuccess"]["rejectedDataPoints"] == "1"
    run = run_of(served, "json")
    served.until(lambda: served.get(f"runs/{run}/series", metric="loss")["step"] == [5])


def test_histograms_give_their_mean_and_empty_points_nothing(served):
    request = export("histogram", {"loss": 1.0}, step=1)
    metrics = request.resource_metrics[0].scope_metrics[0].metrics
    point = metrics.add(name="data_wait_seconds").histogram.data_points.add(count=4, sum=2.0, time_unix_nano=1_700_000_000_000_000_000)
    point.attributes.add(key="step").value.int_value = 1
    metrics.add(name="gone").gauge.data_points.add(flags=1)
    answer = ExportMetricsServiceResponse.FromString(post(served, request).content)
    assert answer.partial_success.rejected_data_points == 0
    run = run_of(served, "histogram")
    served.until(lambda: served.get(f"runs/{run}/series", metric="data_wait_seconds")["value"] == [0.5])
    assert "gone" not in served.get(f"runs/{run}/metrics")["items"]


def test_what_is_no_export_is_refused(served):
    for content, kind, status in (
        (b"\xff\xff", "application/x-protobuf", 400),
        (b'{"resourceMetrics": 5}', "application/json", 400),
        (b"{}", "text/plain", 415),
    ):
        answer = served.http.post(PATH, content=content, headers={"Content-Type": kind})
        assert (answer.status_code, bool(answer.json()["remedy"])) == (status, True), json.dumps(answer.json())
