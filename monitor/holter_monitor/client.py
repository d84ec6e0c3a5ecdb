"""The collector's REST interface for Python programs: `holter runs`, notebooks, scripts.

with Client("http://127.0.0.1:8787") as holter:
    run = holter.find_run("smol/3b")
    frame = pandas.DataFrame(holter.series(run["id"], "loss").columns)
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, TypeAlias

import httpx
import numpy as np

from holter_monitor.errors import ClientError

Row: TypeAlias = dict[str, Any]
DEFAULT_URL = "http://127.0.0.1:8787"
PATIENCE = 30
PAUSE_SECONDS = 1.0
"""What 429 and 503 ask for here (`Retry-After: 1`)."""
NAMES = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}


@dataclass(frozen=True, slots=True)
class Series:
    """One metric of one run. `columns` (step, attempt, time in unix seconds, value as float) fit a pandas or polars frame."""

    run: str
    metric: str
    thinned: bool
    """True: of each bucket the lowest and the highest point; ask with a larger `max_points` for all."""
    columns: dict[str, list[Any]]

    @property
    def value(self) -> list[float]:
        return self.columns["value"]

    @property
    def step(self) -> list[int]:
        return self.columns["step"]

    def __len__(self) -> int:
        return len(self.step)


class Client:
    """One collector. Every method raises `ClientError`, whose sentence says what the collector said."""

    def __init__(self, url: str = DEFAULT_URL, *, token: str | None = None, timeout: float = 30.0) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.url = url.rstrip("/")
        self._http = httpx.Client(base_url=f"{self.url}/api/v1", headers=headers, timeout=timeout)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def back_up(self) -> Row:
        """Have the collector copy its stores: `folder` on its machine, `files` with their bytes. It may take minutes."""
        return self._ask("POST", "/backups", timeout=3_600)

    def create_run(self, project: str, name: str, **facts: Any) -> Row:
        """The run of this project and name, made if there is none. `facts`: world_size, reference, config."""
        return self._ask("POST", "/runs", json={"project": project, "name": name, **facts})

    def runs(self, **filters: Any) -> Iterator[Row]:
        """Newest activity first; `filters`: project, name, state."""
        return self._pages("/runs", filters)

    def find_run(self, word: str) -> Row:
        """The run that `word` means: its id, `project/name`, or a name that only one project has."""
        project, slash, name = word.rpartition("/")
        found = list(self.runs(name=name, **({"project": project} if slash else {})))
        if len(found) == 1:
            return found[0]
        if len(found) > 1:
            projects = ", ".join(sorted(f"{run['project']}/{run['name']}" for run in found))
            raise ClientError(0, f"several runs are called {word}: {projects}")
        return self._ask("GET", f"/runs/{word}")

    def run(self, run: str) -> Row:
        return self._ask("GET", f"/runs/{run}")

    def append(self, run: str, attempt: str, points: list[Row], *, key: str) -> Row:
        """Points and events of a run (at most 10,000); `key` makes a repeat harmless. Waits and tries again where the collector says so."""
        for _ in range(PATIENCE):
            try:
                return self._ask("POST", f"/runs/{run}/points", params={"attempt": attempt}, headers={"Idempotency-Key": key}, json=points)
            except ClientError as error:
                if error.status not in (429, 503):
                    raise
            time.sleep(PAUSE_SECONDS)
        raise ClientError(503, f"the collector at {self.url} has been too busy for {PATIENCE} tries")

    def evaluation(self, run: str, step: int, metrics: Mapping[str, float]) -> Row:
        """What an evaluation job beside the training found for the checkpoint of `step`; a repeat is harmless."""
        body = [{"event": "eval", "step": step, "attrs": {"metrics": dict(metrics)}}]
        key = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        return self._ask("POST", f"/runs/{run}/points", headers={"Idempotency-Key": key}, json=body)

    def silence(self, matchers: Mapping[str, str], reason: str, ends: datetime) -> Row:
        """Hides what matches, until `ends`."""
        return self._ask("POST", "/silences", json={"matchers": dict(matchers), "reason": reason, "ends": ends.isoformat()})

    def attempts(self, run: str) -> list[Row]:
        return list(self._pages(f"/runs/{run}/attempts", {}))

    def events(self, run: str, **filters: Any) -> Iterator[Row]:
        return self._pages(f"/runs/{run}/events", filters)

    def metrics(self, run: str) -> list[str]:
        items: list[str] = self._ask("GET", f"/runs/{run}/metrics")["items"]
        return items

    def series(self, run: str, metric: str, **zoom: Any) -> Series:
        """`zoom`: rank, or agg (mean, min, max, median, sum, count); from_step, to_step, attempt, max_points."""
        answer = self._ask("GET", f"/runs/{run}/series", params={"metric": metric, **zoom})
        return Series(run, metric, answer["thinned"], _columns(answer))

    def ranks(self, run: str, metric: str, step: int | None = None) -> Row:
        """Each rank's value at one step (the newest, if none is named), as columns."""
        answer = self._ask("GET", f"/runs/{run}/ranks", params={"metric": metric} | ({} if step is None else {"step": step}))
        return answer | {"value": [number(value) for value in answer["value"]]}

    def curves(self, run: str, *metrics: str, **zoom: Any) -> Row:
        """What the run's page draws: per metric the columns step, time, mean, min, max, non_finite; tokens so far; time lost. `zoom`: from_step,
        to_step, max_points."""
        return self._ask("GET", f"/runs/{run}/curves", params={"metrics": ",".join(metrics), **zoom})

    def groups(self, run: str, metric: str, by: str, **zoom: Any) -> dict[str, Series]:
        """The metric over the ranks of each group; `by`: node, or a dimension of the mesh (dp, tp, …). `zoom`: agg, from_step, to_step, max_points."""
        answer = self._ask("GET", f"/runs/{run}/groups", params={"metric": metric, "by": by, **zoom})
        return {group["group"]: Series(run, metric, thinned=False, columns=_columns(group)) for group in answer["groups"]}

    def compare(self, runs: Sequence[str], metric: str, **how: Any) -> list[Row]:
        """Several runs on one axis, the columns x, step and value of each; `how`: align (step, tokens, time), agg, max_points."""
        answer = self._ask("GET", "/compare", params={"run": list(runs), "metric": metric, **how})
        return [run | {"value": [number(value) for value in run["value"]]} for run in answer["runs"]]

    def heatmap(self, run: str, metric: str, **window: Any) -> Row:
        """Ranks (or nodes) against steps; `values` is a numpy array, a row a rank or node, NaN where nothing was logged. `window`: from_step, to_step,
        columns, by (node, rank)."""
        answer = self._ask("GET", f"/runs/{run}/heatmap", params={"metric": metric, **window})
        flat = np.frombuffer(base64.b64decode(answer["values"]), "<f4")
        return answer | {"values": flat.reshape(len(answer["rows"]), len(answer["steps"]))}

    def goodput(self, run: str) -> Row:
        """Where the wall time went, in seconds."""
        return self._ask("GET", f"/runs/{run}/goodput")

    def checkpoints(self, run: str) -> Row:
        """What there is to resume from, where the place of the checkpoints is watched."""
        return self._ask("GET", f"/runs/{run}/checkpoints")

    def ask_for_stacks(self, run: str, **about: Any) -> Row:
        """Ask the run's node agents for the stacks of its ranks; `about`: node, incident, reason, actor."""
        return self._ask("POST", f"/runs/{run}/stacks", json=about)

    def stacks(self, run: str) -> Row:
        """Where the ranks stand: the newest stacks, equal ones together, and which nodes have answered the newest request."""
        return self._ask("GET", f"/runs/{run}/stacks")

    def fleet(self, **window: Any) -> Row:
        """The GPU time of all runs by cause, project and run, with failures and the dearest incidents. `window`: since, until (RFC 3339), project,
        gpu_hour_price."""
        return self._ask("GET", "/goodput", params={key: value for key, value in window.items() if value is not None})

    def incidents(self, **filters: Any) -> Iterator[Row]:
        """Newest first; `filters`: run (its id), state, kind, severity, project."""
        return self._pages("/incidents", filters)

    def incident(self, incident: str) -> Row:
        return self._ask("GET", f"/incidents/{incident}")

    def acknowledge(self, incident: str, **remark: Any) -> Row:
        """`remark`: note, actor."""
        return self._ask("POST", f"/incidents/{incident}/acknowledge", json=remark)

    def resolve(self, incident: str, **remark: Any) -> Row:
        return self._ask("POST", f"/incidents/{incident}/resolve", json=remark)

    def note(self, incident: str, note: str, **remark: Any) -> Row:
        return self._ask("POST", f"/incidents/{incident}/note", json={"note": note, **remark})

    def _pages(self, path: str, filters: Mapping[str, Any]) -> Iterator[Row]:
        cursor: str | None = None
        while True:
            more = {} if cursor is None else {"cursor": cursor}
            page = self._ask("GET", path, params={key: value for key, value in filters.items() if value is not None} | more)
            yield from page["items"]
            cursor = page["next"]
            if cursor is None:
                return

    def _ask(self, method: str, path: str, **request: Any) -> Row:
        try:
            answer = self._http.request(method, path, **request)
        except httpx.HTTPError as error:
            raise ClientError(
                0, f"no collector answers at {self.url} ({error}); start one with `holter serve`, or name its --url"
            ) from error
        if answer.is_success:
            document: Row = answer.json()
            return document
        raise ClientError(answer.status_code, sentence(answer))


def _columns(answer: Row) -> dict[str, list[Any]]:
    names = answer["attempts"]
    return {
        "step": answer["step"],
        "attempt": [names[position] for position in answer["attempt"]],
        "time": answer["time"],
        "value": [number(value) for value in answer["value"]],
    }


def sentence(answer: httpx.Response) -> str:
    """What a problem document says, in one line."""
    try:
        problem = answer.json()
        words = [problem["title"], *(str(problem[key]) for key in ("field", "value", "remedy") if key in problem)]
    except (ValueError, KeyError, TypeError):
        words = [answer.reason_phrase or "no reason given"]
    return f"{answer.status_code}: {' · '.join(words)}"


def number(value: float | str) -> float:
    """A value of an answer as a float: `"NaN"` and its like are numbers here."""
    return NAMES[value] if isinstance(value, str) else float(value)
