"""Compiles `holter/_hot.c` where there is a compiler; without one the wheel is pure Python and the same tests pass."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_FLAGS = ["-O2", "-shared", "-fPIC", "-fvisibility=hidden"]


class HotPath(BuildHookInterface):  # type: ignore[type-arg]
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        built = compile_hot_path(Path(self.root) / "holter")
        if built is None:
            return
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        build_data["artifacts"].append(f"holter/{built.name}")


def compile_hot_path(folder: Path) -> Path | None:
    """The extension beside its source, or None where it cannot be built (the reason goes to standard error)."""
    compiler = shlex.split(sysconfig.get_config_var("CC") or "cc")
    if shutil.which(compiler[0]) is None:
        compiler = ["cc"]
    target = folder / f"_hot{sysconfig.get_config_var('EXT_SUFFIX')}"
    draft = target.with_suffix(".draft")
    command = [*compiler, *_FLAGS, f"-I{sysconfig.get_path('include')}", str(folder / "_hot.c"), "-o", str(draft)]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    except (OSError, subprocess.SubprocessError) as error:
        sys.stderr.write(f"holter: the hot path stays in Python ({error})\n")
        return None
    # Renamed into place: a training that runs from this checkout keeps the file it has mapped.
    draft.replace(target)
    return target


if __name__ == "__main__":
    sys.exit(0 if compile_hot_path(Path(__file__).parent / "holter") else 1)
