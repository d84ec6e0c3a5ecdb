"""What may give as the load on the collector rises, and the table of how it rose. Used by `ingest.py`."""

from __future__ import annotations

LIMITS = {
    "refusals": lambda result: bool(result["refused"]),
    "ack p99 > 250 ms": lambda result: result["ack_ms"]["p99"] > 250,
    "a consumer > 2 s behind": lambda result: max(result["lag_seconds_max"].values(), default=0) > 2,
    "the load generator > 1 s behind": lambda result: result["load_behind_seconds"] > 1,
}
"""What can give. Where the last one gives alone, the load generator is measured and not the collector."""


def gives(result: dict[str, object]) -> list[str]:
    return [name for name, is_over in LIMITS.items() if is_over(result)]


def table(results: list[dict[str, object]]) -> str:
    """The steps of the load up to where something gave, as Markdown."""
    head = ("frames/s", "points/s", "refused", "ack p50", "p99 ms", "CPU of a core", "MiB", "lag s", "load behind s", "what gave")
    rows = [
        (
            f"{result['frames_per_second']:,.0f}",
            f"{result['points_per_second']:,.0f}",
            sum(result["refused"].values()),
            *(result["ack_ms"][name] for name in ("p50", "p99")),
            f"{result['cpu_of_one_core']:.0%}",
            result["resident_mib"],
            max(result["lag_seconds_max"].values(), default=0),
            result["load_behind_seconds"],
            ", ".join(gives(result)) or "nothing",
        )
        for result in results
    ]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in (head, ["---"] * len(head), *rows))
