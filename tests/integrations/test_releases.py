"""The integrations on other releases than those that `setup` installs: each into a folder of its own, in front of what is there.

Nothing of it may bring another torch, so packages are installed without what they ask for, and what they need besides is named here.
"""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("torch")

pytestmark = [pytest.mark.soak, pytest.mark.torch, pytest.mark.timeout(1_800), pytest.mark.xdist_group("releases")]

HERE = Path(__file__).parent
JAX = ("ml_dtypes==0.6.0", "opt_einsum==3.4.0")
WEB = ("requests", "urllib3", "idna", "certifi", "charset-normalizer")
COMPOSER = (
    "torch_optimizer==0.3.0",
    "pytorch_ranger",
    "coolname",
    "tabulate==0.9.0",
    "py-cpuinfo",
    "importlib-metadata==8.7.0",
    "zipp",
    "torchmetrics==1.7.4",
)
DEEPSPEED = ("einops", "hjson", "msgpack", "py-cpuinfo", "ninja")
TRL = ("datasets", "dill==0.4.1", "xxhash", "multiprocess==0.70.19", *WEB)


@dataclass(frozen=True)
class Release:
    module: str
    version: str
    packages: tuple[str, ...]
    tests: str
    picks: str = ""
    """Which tests of the file."""


RELEASES = [
    Release("transformers", "4.57.6", ("transformers==4.57.6", "huggingface-hub==0.36.0", "tokenizers==0.22.1"), "test_transformers.py"),
    Release(
        "transformers",
        "4.57.6",
        ("transformers==4.57.6", "huggingface-hub==0.36.0", "tokenizers==0.22.1"),
        "test_agreement.py",
        "transformers",
    ),
    Release("lightning", "2.4.0", ("lightning==2.4.0", "pytorch-lightning==2.4.0"), "test_lightning.py"),
    Release("lightning", "2.4.0", ("lightning==2.4.0", "pytorch-lightning==2.4.0"), "test_agreement.py", "lightning"),
    Release("accelerate", "1.0.1", ("accelerate==1.0.1",), "test_accelerate.py"),
    Release("trl", "1.16.0", ("trl==1.16.0", *TRL), "test_trl.py"),
    Release("trl", "0.29.1", ("trl==0.29.1", *TRL), "test_trl.py"),
    Release("deepspeed", "0.19.8", ("deepspeed==0.19.8", *DEEPSPEED), "test_deepspeed.py"),
    Release("composer", "0.32.1", ("mosaicml==0.32.1", *COMPOSER), "test_composer.py"),
    Release("composer", "0.31.0", ("mosaicml==0.31.0", *COMPOSER), "test_composer.py"),
    Release("jax", "0.10.2", ("jax==0.10.2", "jaxlib==0.10.2", *JAX), "test_jax.py"),
    Release("jax", "0.8.3", ("jax==0.8.3", "jaxlib==0.8.3", *JAX), "test_jax.py"),
    Release("ray", "2.60.0", ("ray==2.60.0", "msgpack", *WEB), "test_ray.py"),
    Release("ray", "2.49.2", ("ray==2.49.2", "msgpack", *WEB), "test_ray.py"),
]


@pytest.mark.parametrize("release", RELEASES, ids=lambda one: f"{one.module}-{one.version}-{one.tests}")
def test_an_integration_s_tests_pass_on_another_release(release, tmp_path):
    words = {**os.environ, "DS_BUILD_OPS": "0", "DS_ACCELERATOR": "cpu", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(tmp_path)}
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target", str(tmp_path)]
    installed = subprocess.run([*install, *release.packages], capture_output=True, text=True, env=words, check=False)
    if installed.returncode:
        pytest.skip(f"{release.module} {release.version} cannot be installed here: {installed.stderr[-300:]}")
    versions = [path.name for path in tmp_path.glob("*.dist-info")]
    assert any(release.version in name for name in versions) and not any(name.startswith("torch-") for name in versions)
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "--import-mode=importlib", "-p", "no:cacheprovider", "--timeout", "600"]
    picks = ["-k", release.picks] if release.picks else []
    told = subprocess.run([*command, str(HERE / release.tests), *picks], capture_output=True, text=True, env=words, check=False)
    assert told.returncode == 0, told.stdout[-4_000:] + told.stderr[-1_000:]
    assert "[100%]" in told.stdout and "SKIPPED" not in told.stdout, told.stdout[-2_000:]
