"""`holter preflight` with real folders, a real collector, a real receiver, and a libnvidia-ml.so that plays a script."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from holter.cli import main
from holter_monitor.preflight.check import size
from sink import Sink

FAKE = Path(__file__).parent.parent / "agent" / "nvml" / "fake_nvml.c"
HEALTHY = ["-1 cards 2"] + [
    f"{card} {key} {value}"
    for card in (0, 1)
    for key, value in {
        "memory_used": 1 << 28,
        "temperature": 41,
        "sm_clock_max": 1980,
        "throttle": 0,
        "ecc_uncorrected": 0,
        "remapped": 0,
    }.items()
]


def told(capsys, *arguments: object) -> tuple[int, list[dict]]:
    status = main(["preflight", *map(str, arguments), "--json"])
    return status, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("text", "count"), [("24TB", 24 * 10**12), ("512MiB", 512 << 20), ("800g", 800 * 10**9), ("17", 17), ("1.5 kB", 1500), ("2Ti", 2 << 40)]
)
def test_sizes(text, count):
    assert size(text) == count


@pytest.mark.parametrize("text", ["", "TB", "12X", "1e", "-"])
def test_no_sizes(text):
    with pytest.raises(ValueError, match="is no size"):
        size(text)


def test_storage_is_written_read_back_and_left_clean(tmp_path, capsys):
    status, checks = told(capsys, "--storage", tmp_path, "--probe", "4MiB", "--needs", "1MB")
    assert status == 0 and [check["mark"] for check in checks][:2] == ["ok", "ok"]
    assert checks[1]["measured"]["read_bytes_per_second"] > 0 and checks[2]["measured"]["read_p99_seconds"] > 0
    assert list(tmp_path.iterdir()) == []


def test_what_storage_cannot_give(tmp_path, capsys):
    status, checks = told(
        capsys, "--storage", tmp_path, "--storage", tmp_path / "nowhere", "--probe", "1MiB", "--needs", "900PB", "--bandwidth", "90PB"
    )
    failed = [check["found"] for check in checks if check["mark"] == "fail"]
    assert status == 3 and len(failed) == 3
    assert "the run needs 900000.0 TB" in failed[0] and "are needed" in failed[1] and "No such file" in failed[2]


def test_a_spare_node_without_all_of_the_dataset(tmp_path, capsys):
    dataset, manifest = tmp_path / "data", tmp_path / "manifest.json"
    (dataset / "deep").mkdir(parents=True)
    for name, length in (("a", 300_000), ("deep/b", 500_000), ("c", 200_000)):
        (dataset / name).write_bytes(os.urandom(length))
    assert main(["preflight", "--dataset", str(dataset), "--write-manifest", str(manifest)]) == 0
    capsys.readouterr()
    assert told(capsys, "--dataset", dataset, "--manifest", manifest)[0] == 0
    (dataset / "deep/b").unlink()
    stale = bytearray((dataset / "c").read_bytes())
    stale[100_000] ^= 1  # the same length, another content
    (dataset / "c").write_bytes(stale)
    status, [check] = told(capsys, "--dataset", dataset, "--manifest", manifest, "--copy-rate", "100B")
    assert status == 3 and check["measured"].items() >= {"held_bytes": 300_000.0, "whole_bytes": 1_000_000.0}.items()
    assert check["found"].startswith("30 % of it (700.0 kB to come); a restart on this node would wait 1.9 h")
    assert "1 missing (deep/b)" in check["found"] and "1 not as in the manifest (c)" in check["found"]


def test_s5_the_spare_node_says_what_it_lacks_and_how_long_a_restart_on_it_would_wait(tmp_path, capsys):
    dataset, manifest = tmp_path / "data", tmp_path / "manifest.json"
    dataset.mkdir()
    for number in range(100):
        (dataset / f"shard_{number:03d}").write_bytes(os.urandom(10_000))
    main(["preflight", "--dataset", str(dataset), "--write-manifest", str(manifest)])
    capsys.readouterr()
    for number in range(61, 100):
        (dataset / f"shard_{number:03d}").unlink()
    status, [check] = told(capsys, "--dataset", dataset, "--manifest", manifest, "--copy-rate", "57B")
    assert status == 3 and check["mark"] == "fail"
    assert check["found"].startswith(
        "61 % of it (390.0 kB to come); a restart on this node would wait 1.9 h for it: 39 missing (shard_061,"
    )


def test_a_manifest_that_is_too_old_and_a_dataset_that_has_grown_since(tmp_path, capsys):
    dataset, manifest = tmp_path / "data", tmp_path / "manifest.json"
    dataset.mkdir()
    (dataset / "a").write_bytes(b"x" * 10)
    main(["preflight", "--dataset", str(dataset), "--write-manifest", str(manifest)])
    capsys.readouterr()
    assert told(capsys, "--dataset", dataset, "--manifest", manifest, "--fresh", "7d")[0] == 0
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(content | {"written": content["written"] - 10 * 86400}))
    (dataset / "b").write_bytes(b"y")
    status, [whole, aged, grown] = told(capsys, "--dataset", dataset, "--manifest", manifest, "--fresh", "7d")
    assert (status, whole["mark"], aged["mark"], grown["mark"]) == (3, "ok", "fail", "note")
    assert (
        "the manifest is 240.0 h old, 168.0 h are allowed" in aged["found"]
        and "1 files that the manifest does not have (b)" in grown["found"]
    )
    with pytest.raises(SystemExit):
        main(["preflight", "--fresh", "soon"])
    assert "'soon' is no time" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "[]", '{"files": {"a": 1}, "written": 1}', '{"files": {}}'])
def test_nonsense_for_a_manifest(tmp_path, capsys, content):
    (tmp_path / "m").write_text(content)
    assert main(["preflight", "--dataset", str(tmp_path), "--manifest", str(tmp_path / "m")]) == 2
    assert "no manifest" in capsys.readouterr().err


def test_a_metric_goes_the_whole_way(served, capsys):
    status, checks = told(capsys, "--collector", "--url", served.url)
    assert status == 0 and {check["what"]: check["mark"] for check in checks} == {"clock": "ok", "metrics": "ok"}
    assert told(capsys, "--collector", "--url", served.url)[0] == 0, "and again: a new attempt of the same run"


def test_no_collector(capsys):
    status, [check] = told(capsys, "--collector", "--url", "http://127.0.0.1:9")
    assert status == 3 and "no collector answers" in check["found"]


def test_receivers_are_sent_a_message_that_says_it_is_a_test(capsys, monkeypatch):
    monkeypatch.setenv("HOLTER_ALLOW_PRIVATE_RECEIVERS", "1")
    with Sink() as sink:
        monkeypatch.setenv("HOLTER_WEBHOOK_URL", sink.url)
        monkeypatch.setenv("HOLTER_WEBHOOK_SECRET", "s3cret")
        status, checks = told(capsys, "--receivers", "webhook")
        assert status == 0 and [check["found"] for check in checks] == ["took a test message"]
        assert "This is a test" in str(sink.calls[0].body)
    status, [check] = told(capsys, "--receivers", "webhook")
    assert status == 3 and check["mark"] == "fail" and "s3cret" not in str(check)
    assert told(capsys, "--receivers", "nobody")[0] == 3
    assert "none of this name" in str(told(capsys, "--receivers", "all", "nobody")), "a wrong name beside `all` is said, too"


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    if shutil.which("cc") is None:
        pytest.skip("no C compiler: the fake libnvidia-ml.so cannot be built (install gcc)")
    folder = tmp_path_factory.mktemp("nvml")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(folder / "libnvidia-ml.so.1"), str(FAKE)], check=True)
    return folder


@pytest.mark.parametrize(
    ("lines", "expected", "status", "words"),
    [
        ([], 2, 0, "not slowed down, 41 °C"),
        ([], 8, 3, "2 of 8"),
        (["1 throttle 64"], 2, 3, "hardware thermal slowdown"),
        (["1 ecc_uncorrected 3"], 2, 3, "3 uncorrected ECC errors"),
        (["1 lost 1"], 2, 3, "does not answer"),
        (["1 temperature 91"], 2, 0, "91 °C before any work"),
        (["1 memory_used 30000000000"], 2, 0, "30.0 GB in use"),
        (["1 sm_clock_max 1410"], 2, 0, "clock at most 1410 MHz, others 1980"),
    ],
)
def test_the_cards_of_a_node(library, tmp_path, lines, expected, status, words):
    script = tmp_path / "script"
    script.write_text("\n".join(HEALTHY + lines) + "\n")
    done = subprocess.run(
        [sys.executable, "-m", "holter.cli", "preflight", "--gpus", str(expected)],
        env={**os.environ, "LD_LIBRARY_PATH": str(library), "FAKE_NVML": str(script)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == status and words in done.stdout, done.stdout + done.stderr
