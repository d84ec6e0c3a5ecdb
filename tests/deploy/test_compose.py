"""docker-compose.yml without a Docker engine: the specification's model, the paths, the tags, the ports, the secrets, and the scripts really run."""

from __future__ import annotations

import argparse
import copy
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from holter_monitor.commands import serve

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def resolved(text: str) -> str:
    """`${NAME:-default}` as it stands when nothing is set."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def validate(document: dict[str, Any]) -> None:
    spec = pytest.importorskip("compose_viz.spec.compose_spec", reason="compose-viz is not installed: no check against the specification")
    # The model is generated from the specification's JSON schema; extension fields are allowed there and unknown to it.
    spec.ComposeSpecification.model_validate({key: value for key, value in document.items() if not key.startswith("x-")})


def test_the_file_follows_the_compose_specification() -> None:
    validate(COMPOSE)


@pytest.mark.parametrize("change", [{"portz": []}, {"restart": 5}, {"healthcheck": {"tests": []}}, {"secrets": "all"}])
def test_a_mistake_would_be_found(change: dict[str, Any]) -> None:
    broken = copy.deepcopy(COMPOSE)
    broken["services"]["grafana"].update(change)
    with pytest.raises(ValueError):
        validate(broken)


def test_every_image_is_pinned_to_a_release() -> None:
    images = [service["image"] for service in SERVICES.values()]
    bases = re.findall(r"^FROM (\S+)", (ROOT / "deploy" / "Dockerfile").read_text(), re.MULTILINE)
    assert all(re.search(r":v?\d+\.\d+(\.\d+)?(-\w+)*$", image) for image in [*images, *bases]), images + bases
    assert SERVICES["holter"]["image"].endswith(":" + re.search(r'version = "(.*)"', (ROOT / "pyproject.toml").read_text())[1])  # type: ignore[index]


def test_every_mounted_path_exists_and_every_volume_is_declared() -> None:
    for name, service in SERVICES.items():
        for volume in service.get("volumes", []):
            source, target, *mode = volume.split(":")
            if source.startswith("."):
                assert (ROOT / source).exists(), f"{name} mounts {source}"
                assert mode == ["ro"], f"{name} may write into the checkout: {volume}"
            else:
                assert source in COMPOSE["volumes"], f"{name}: {volume}"
            assert target.startswith("/")
    copied = re.findall(r"^COPY (?!--from)(?:--\S+ )*(.+) \S+$", (ROOT / "deploy" / "Dockerfile").read_text(), re.MULTILINE)
    assert all((ROOT / path).exists() for line in copied for path in line.split()), copied


def test_nothing_is_reachable_from_outside_by_default() -> None:
    ports = [resolved(port) for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(ports) == 4 and all(port.startswith("127.0.0.1:") for port in ports), ports
    assert "ports" not in SERVICES["postgres"]


def test_no_service_has_more_rights_or_memory_than_it_needs() -> None:
    for name, service in SERVICES.items():
        assert service["read_only"] and service["cap_drop"] == ["ALL"] and "/tmp" in service["tmpfs"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert re.fullmatch(r"\d+[mg]", resolved(service["mem_limit"])) and service["pids_limit"] > 0, name
        assert not service.get("cap_add") or name == "postgres", f"{name} adds capabilities"
        assert name == "tokens" or (service["restart"] == "unless-stopped" and "test" in service["healthcheck"]), name


def test_no_password_stands_in_the_file() -> None:
    for service in SERVICES.values():
        for key, value in service.get("environment", {}).items():
            if re.search("PASSWORD|TOKEN|SECRET|KEY", key):
                assert key.endswith("_FILE") and value.startswith("/run/secrets/"), f"{key}={value}"
    wanted = {secret for service in SERVICES.values() for secret in service.get("secrets", [])}
    assert wanted == COMPOSE["secrets"].keys()
    assert all(entry["file"] == f"./secrets/{name}" for name, entry in COMPOSE["secrets"].items())


def test_who_waits_for_health_waits_for_somebody_with_a_health_check() -> None:
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[other], f"{name} waits for {other}"


def test_the_collector_s_command_line_is_one_that_it_understands() -> None:
    parser = argparse.ArgumentParser()
    serve.add_arguments(parser)
    verb, *words = [resolved(word) for word in SERVICES["holter"]["command"]]
    parsed = parser.parse_args(words)
    assert (verb, parsed.host, parsed.port) == ("serve", "0.0.0.0", 8787) and parsed.behind_proxy


def test_addresses_in_the_configurations_are_services() -> None:
    sources = yaml.safe_load((ROOT / "dashboards/provisioning/datasources/holter.yml").read_text())["datasources"]
    scrape = yaml.safe_load((ROOT / "alerts/prometheus/prometheus.yml").read_text())
    hosts = [re.sub(r"^\w+://", "", source["url"]).split(":")[0] for source in sources]
    hosts += [target.split(":")[0] for job in scrape["scrape_configs"] for one in job["static_configs"] for target in one["targets"]]
    assert set(hosts) <= SERVICES.keys()
    boards = yaml.safe_load((ROOT / "dashboards/provisioning/dashboards/holter.yml").read_text())["providers"][0]["options"]["path"]
    assert any(volume.split(":")[:2] == ["./dashboards/grafana", boards] for volume in SERVICES["grafana"]["volumes"])
    assert [source["uid"] for source in sources] == ["holter-postgres", "holter-prometheus"]


def test_secrets_are_made_once_random_and_private(tmp_path: Path) -> None:
    (tmp_path / "deploy").mkdir()
    script = shutil.copy(ROOT / "deploy" / "secrets", tmp_path / "deploy" / "secrets")
    subprocess.run([script], check=True, capture_output=True)
    made = {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}
    assert made.keys() == COMPOSE["secrets"].keys()
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
    passwords = [value for name, value in made.items() if name.endswith("password")]
    assert len(set(passwords)) == 3 and all(re.fullmatch("[0-9a-f]{48}", password) for password in passwords)
    subprocess.run([script], check=True, capture_output=True)
    assert {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()} == made
    assert "/secrets/" in (ROOT / ".gitignore").read_text().split()


def test_the_first_tokens_are_made_once_and_open_the_collector(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.mkdir()
    environment = {**os.environ, "TOKENS": str(tokens), "HOLTER_DB": f"--data {tmp_path / 'data'}"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    for _ in range(2):
        subprocess.run([ROOT / "deploy" / "first-tokens"], env=environment, check=True, capture_output=True, timeout=100)
    made = {path.name: path.read_text().strip() for path in tokens.iterdir()}
    assert made.keys() == {"read_token", "write_token", "operate_token"} and len(set(made.values())) == 3
    assert stat.S_IMODE((tokens / "read_token").stat().st_mode) == 0o444, "Prometheus runs as another user"
    listed = subprocess.run(
        ["holter", "token", "list", "--json", "--data", tmp_path / "data"], env=environment, capture_output=True, check=True
    )
    assert listed.stdout.count(b'"name"') == 3
