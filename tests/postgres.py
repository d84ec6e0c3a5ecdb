"""A PostgreSQL of the tests' own, from the system's binaries: on a socket, so that no port is taken."""

import glob
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

BINARIES = sorted(glob.glob("/usr/lib/postgresql/*/bin"))


class Postgres:
    def __init__(self, folder: Path, owner: str | None) -> None:
        self.folder, self._owner = folder, owner
        self.url = f"postgresql://holter@/postgres?host={folder}"

    def call(self, binary: str, *words: str) -> None:
        command = [f"{BINARIES[-1]}/{binary}", *words]
        subprocess.run(command, user=self._owner, check=True, capture_output=True, timeout=60, cwd=self.folder)

    def start(self) -> None:
        options = f"-k {self.folder} -h '' -c fsync=off"
        self.call("pg_ctl", "-D", f"{self.folder}/data", "-l", f"{self.folder}/log", "-w", "-o", options, "start")

    def stop(self) -> None:
        """At once, as a machine that goes down."""
        self.call("pg_ctl", "-D", f"{self.folder}/data", "-m", "immediate", "stop")

    @contextmanager
    def frozen(self):
        """It takes connections (the kernel does) and answers none."""
        head = psutil.Process(int((self.folder / "data" / "postmaster.pid").read_text().split()[0]))
        processes = [head, *head.children(recursive=True)]
        try:
            for process in processes:
                process.send_signal(signal.SIGSTOP)
            yield
        finally:
            for process in processes:
                process.send_signal(signal.SIGCONT)


@contextmanager
def running():
    """Skips loudly where there is none."""
    if not BINARIES:
        pytest.skip("POSTGRESQL NOT TESTED: no binaries under /usr/lib/postgresql")
    owner = None
    if os.geteuid() == 0:  # it refuses to run as root
        owner = "postgres"
        if owner not in {entry.pw_name for entry in pwd.getpwall()}:
            pytest.skip("POSTGRESQL NOT TESTED: it does not run as root, and there is no user postgres")
    folder = Path(tempfile.mkdtemp(prefix="holter-pg-"))  # short: a socket's path has a limit
    if owner:
        shutil.chown(folder, owner)
    server = Postgres(folder, owner)
    try:
        server.call("initdb", "-D", f"{folder}/data", "-U", "holter", "-A", "trust", "-N")
        server.start()
        yield server
        server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
