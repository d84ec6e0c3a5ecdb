"""What `holter serve` may be told, checked once, before anything is opened."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from holter_monitor.errors import SettingsError


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one request, one client and the whole process may take."""

    body_bytes: int = 1 << 20
    """On the wire; an honest frame of 8 ranks and 50 steps is 40 KB."""
    decompressed_bytes: int = 8 << 20
    """After zstd or gzip: the size of a bomb that cannot hurt."""
    ratio: int = 100
    """Decompressed over wire bytes (from 64 KiB on); noise compresses by 2 to 10."""
    json_depth: int = 32
    header_seconds: float = 10.0
    """From the connection's first moment to the end of the request's head; a socket that says nothing costs a file descriptor."""
    body_seconds: float = 15.0
    in_flight: int = 64
    """Requests that are being read or written at once, beside the ingest of frames."""
    waiting_bytes: int = 64 << 20
    """Frames that wait for their commit; beyond it the answer is 503."""
    connections: int = 4_096
    writes_per_second: float = 4_096.0
    """Frames, points and new runs of one token: the 2,048 agents that share one, twice over. 0 is no limit."""
    requests_per_second: float = 50.0
    """All else that one token asks; a page takes ten when it is opened. 0 is no limit."""
    metrics_per_run: int = 2_000
    memory_bytes: int = 1 << 30
    """Resident bytes beyond those at the start, of which DuckDB's cache may take half; above it only frames with events are taken."""
    free_disk_bytes: int = 256 << 20
    """Below it ingest answers 507, so that the stores can still commit what they hold."""


@dataclass(frozen=True, kw_only=True)
class Retention:
    """How long per-rank points stay; summaries and incidents stay for good."""

    full_days: float = 14.0
    """Every step of every rank; older points are thinned."""
    thin_every: int = 10
    """Of thinned steps, each tenth stays, and all steps around incidents."""
    days: float = 90.0
    """After it the points of a step are dropped, those around incidents too."""
    bytes: int = 64 << 30
    """The sample store's size from which the oldest points go first, whatever their age."""
    around_steps: int = 200
    """Steps before and after an incident that are kept whole."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    host: str = "127.0.0.1"
    port: int = 8787
    data: Path
    db: str | None = None
    """SQLAlchemy URL of the control store; None is a SQLite file in `data`."""
    policies: Path | None = None
    """Folder of alert policies (or one file); None: what the environment says."""
    public_url: str | None = None
    """How people reach this collector; stands in messages. None is http://host:port."""
    behind_proxy: bool = False
    """A proxy in front speaks TLS; without it, or a certificate here, a public address is refused."""
    allowed_hosts: tuple[str, ...] = ()
    """Further names in the Host header that are us."""
    certificate: Path | None = None
    key: Path | None = None
    detect: bool = True
    """False stores only: for `benchmarks/ingest.py`, and for a node that writes while others judge."""
    limits: Limits = field(default_factory=Limits)
    retention: Retention = field(default_factory=Retention)

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65_535:
            raise SettingsError(f"--port {self.port}: a port is 0 to 65535 (0: any free one)")
        for name in ("writes_per_second", "requests_per_second"):
            if not 0 <= getattr(self.limits, name) < float("inf"):
                raise SettingsError(f"--{name.replace('_', '-')} {getattr(self.limits, name)}: a rate is 0 (no limit) or more")
        if (self.certificate is None) != (self.key is None):
            raise SettingsError("--tls-certificate and --tls-key come together")

    @property
    def control_url(self) -> str:
        return self.db or f"sqlite:///{self.data / 'control.sqlite'}"

    @property
    def url(self) -> str:
        scheme = "https" if self.certificate else "http"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (self.public_url or f"{scheme}://{host}:{self.port}").rstrip("/")

    @property
    def is_loopback(self) -> bool:
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False
