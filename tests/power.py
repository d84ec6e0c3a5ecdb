"""A disk whose power can be cut: `with disk(folder) as it:` mounts `tests/faults/losefs.py`; `it.cut(writer)` leaves in `it.durable` what was fsynced."""

import ctypes.util
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

LOSEFS = Path(__file__).parent / "faults" / "losefs.py"
os.environ.setdefault("FUSE_LIBRARY_PATH", ctypes.util.find_library("fuse3") or "")  # mfusepy itself looks for version 2 only


def fuse_is_missing() -> str | None:
    if not os.path.exists("/dev/fuse"):
        return "no /dev/fuse here"
    if not os.access("/dev/fuse", os.W_OK):
        return "/dev/fuse is not ours to use"
    try:
        import mfusepy  # noqa: F401
    except (ImportError, OSError, AttributeError) as error:
        return f"mfusepy cannot be used: {error}"
    return None


@dataclass
class Disk:
    mount: Path
    durable: Path
    process: subprocess.Popen

    def cut(self, writer: subprocess.Popen) -> list[bytes]:
        """The power goes; the whole lines that the writer had said until then."""
        self.process.send_signal(signal.SIGKILL)
        writer.send_signal(signal.SIGKILL)
        said = writer.stdout.read().splitlines(keepends=True)
        writer.wait(20)
        writer.stdout.close()
        return [line for line in said if line.endswith(b"\n")]


@contextmanager
def disk(folder: Path):
    for name in ("live", "durable", "mount"):
        (folder / name).mkdir(parents=True)
    mount = folder / "mount"
    process = subprocess.Popen([sys.executable, LOSEFS, folder / "live", folder / "durable", mount], stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 20
        while not os.path.ismount(mount):
            assert process.poll() is None, process.stderr.read().decode()
            assert time.monotonic() < deadline, "the file system did not come up"
            time.sleep(0.05)
        yield Disk(mount, folder / "durable", process)
    finally:
        process.kill()
        process.wait(20)
        process.stderr.close()
        subprocess.run(["fusermount3", "-uz", mount], check=False, capture_output=True)
        subprocess.run(["umount", "-l", mount], check=False, capture_output=True)
