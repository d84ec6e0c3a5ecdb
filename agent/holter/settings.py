"""What the operator decided: collector, token, folders. Read once, from arguments and a mapping (normally the environment)."""

from __future__ import annotations

import hashlib
import os
import platform
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from holter.errors import SettingsError

DEFAULT_URL = "http://127.0.0.1:8787"
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  only a folder of our own with mode 0700 is made in it
_OFF = {"1", "true", "yes", "on"}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Where the rings and the spool lie, and where frames go."""

    url: str = DEFAULT_URL
    """The collector. One node agent serves each pair of collector and token."""
    token: str = ""
    """Sent as `Authorization: Bearer`. Never written to disk, to a log or to an argument list."""
    token_file: str = ""
    """Read again when the collector answers 401 or 403, so a token can be rotated under a running job."""
    project: str = "default"
    run: str = ""
    """The run's name; restarts of the same training must carry the same one. Empty: taken from the scheduler or the script."""
    directory: str = ""
    """Rings and spool. Empty: rings in shared memory (a step must not touch a disk), the spool on a disk that survives a reboot."""
    disabled: bool = False
    """Everything becomes a no-op that costs nothing."""

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SettingsError(f"HOLTER_URL is {self.url!r}; give the collector's address, for example {DEFAULT_URL}")
        if parts.username or parts.password:
            raise SettingsError("HOLTER_URL holds a password; give a token in HOLTER_TOKEN or HOLTER_TOKEN_FILE")

    @classmethod
    def read(cls, environment: Mapping[str, str], **given: object) -> Settings:
        """Arguments win over the environment. Raises `SettingsError`."""
        found: dict[str, object] = {
            "url": environment.get("HOLTER_URL", ""),
            "token": environment.get("HOLTER_TOKEN", ""),
            "token_file": environment.get("HOLTER_TOKEN_FILE", ""),
            "project": environment.get("HOLTER_PROJECT", ""),
            "run": environment.get("HOLTER_RUN", ""),
            "directory": environment.get("HOLTER_DIR", ""),
            "disabled": environment.get("HOLTER_DISABLED", "").strip().lower() in _OFF,
        }
        found.update({key: value for key, value in given.items() if value is not None})
        return cls(**{key: value for key, value in found.items() if value != ""})  # type: ignore[arg-type]

    def as_dict(self) -> dict[str, object]:
        return asdict(self)

    @property
    def home(self) -> str:
        """The name of this collector's folder: trainings that report to different collectors share no node agent."""
        secret = self.token_file or hashlib.sha256(self.token.encode()).hexdigest()
        return hashlib.sha256(f"{self.url}\n{secret}".encode()).hexdigest()[:12]

    def ring_folders(self) -> list[Path]:
        """Where rings may lie, best first."""
        if self.directory:
            # A folder a node: the directory may lie on a file system that all nodes share.
            return [Path(self.directory) / platform.node() / "rings" / self.home]
        bases = [_SHARED_MEMORY, Path(tempfile.gettempdir())]
        return [base / f"holter-{os.getuid()}" / "rings" / self.home for base in bases]

    def spool_folder(self) -> Path:
        if self.directory:
            return Path(self.directory) / platform.node() / "spool" / self.home
        return Path("/var/tmp") / f"holter-{os.getuid()}" / "spool" / self.home  # noqa: S108  a folder of our own, mode 0700

    def current_token(self) -> str:
        """The token as it is now; the file wins, since it is the one that can be rotated."""
        if self.token_file:
            try:
                return Path(self.token_file).read_text(encoding="utf-8").strip()
            except OSError:
                return self.token
        return self.token


def private_folder(path: Path) -> Path:
    """Make `path` with mode 0700. Raises `OSError`, also when somebody else owns a folder of that name."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    for folder in (path, *path.parents):
        if folder.stat().st_uid == os.getuid():
            break
        if folder.name.startswith("holter-") or folder == path:
            raise PermissionError(f"{folder} belongs to somebody else")
    return path
