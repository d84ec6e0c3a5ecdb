"""A log through the same engine that serves a live run: records in, incidents out, with what a report needs to show them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from holter_monitor import imports
from holter_monitor.detector import DetectorMaker
from holter_monitor.detectors import DETECTORS
from holter_monitor.engine import Engine
from holter_monitor.episodes import Episodes, Trouble
from holter_monitor.imports.files import LogFile, find
from holter_monitor.imports.records import Importer, LogError, Record
from holter_monitor.imports.sequence import Sequence as StepSequence
from holter_monitor.imports.sequence import SequenceError
from holter_monitor.steps import RunFacts, Step
from holter_monitor.traces import Trace

MAX_RUNS = 1000
"""Runs in one file; more are a column mistaken for the run's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanSettings:
    """How logs are read and judged."""

    format: str | None = None
    """An importer's name; None: by content."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """What `--map` said: column -> metric or role."""
    is_one_run: bool = False
    """All logs are attempts of one run, in the order given."""
    detectors: Sequence[DetectorMaker] = DETECTORS
    with_plots: bool = False
    """Keep the whole series, thinned, and not only what surrounds an incident."""

    def __post_init__(self) -> None:
        if self.format is not None and self.format not in imports.FORMATS:
            raise ValueError(f"format {self.format!r} is none of {', '.join(sorted(imports.FORMATS))}")


@dataclass(slots=True)
class Scanned:
    """One run of one log, scanned."""

    source: str
    format: str
    troubles: list[Trouble] = field(default_factory=list)
    records: int = 0
    first_step: int | None = None
    last_step: int | None = None
    attempts: int = 1
    seconds: float | None = None
    """How long the run took, where the log tells the time."""
    broken: int = 0
    """Lines that could not be used, of the whole file."""
    notes: list[str] = field(default_factory=list)
    trace: Trace = field(default_factory=Trace)


@dataclass(slots=True)
class _Follower:
    """One run while it is read: the engine and what is kept for the report."""

    scanned: Scanned
    engine: Engine
    sequence: StepSequence = field(default_factory=StepSequence)
    episodes: Episodes = field(default_factory=Episodes)
    started: float | None = None

    def take(self, steps: Iterable[Step]) -> None:
        scanned, engine, trace = self.scanned, self.engine, self.scanned.trace
        for step in steps:
            scanned.records += 1
            if scanned.first_step is None:
                scanned.first_step, self.started = step.number, step.time
            scanned.last_step = step.number
            said = engine.feed_step(step)
            for event in step.events:
                said += engine.hear(event)
            trace.add(step)
            for trouble in self.episodes.say(said, scanned.records - 1, scanned.source) if said else ():
                trace.frame(trouble)
            if step.time and self.started is not None and step.time > self.started:
                scanned.seconds = step.time - self.started

    def finish(self) -> Scanned:
        self.take(self.sequence.finish())
        for trouble in self.episodes.say(self.engine.finish(), max(0, self.scanned.records - 1), self.scanned.source):
            self.scanned.trace.frame(trouble)
        self.scanned.trace.finish()
        self.scanned.attempts = self.sequence.attempt
        self.scanned.troubles = self.episodes.all
        return self.scanned


def logs(paths: Iterable[str | Path]) -> Iterator[tuple[LogFile, bool] | LogError]:
    """The logs under `paths`, each with whether it was named itself; a path that cannot be read is an answer too, and ends nothing."""
    for path in paths:
        try:
            named = Path(path).is_file()
            for log in find(Path(path)):
                yield log, named
        except LogError as error:
            yield error


def scan(paths: Iterable[str | Path], settings: ScanSettings) -> Iterator[Scanned | LogError]:
    """Each run of each log, as soon as it is scanned; and each log that could not be read, or only in part. Streams: memory is bounded by
    what the engine keeps of a run, and by `imports.sequence` for logs whose order must be mended."""
    whole: _Follower | None = None
    for log in logs(paths):
        if isinstance(log, LogError):
            yield log
            continue
        file, named = log
        try:
            importer = _importer(file, settings, named)
            if importer is None:
                continue
            if settings.is_one_run:
                whole = whole or _follower(file, importer, "", settings)
                whole.take(_as_attempt(whole, file, importer, settings))
            else:
                yield from _scan_file(file, importer, settings)
        except LogError as error:
            yield error
    if whole is not None:
        yield whole.finish()


def _importer(file: LogFile, settings: ScanSettings, named: bool) -> Importer | None:
    if settings.format is not None:
        return imports.FORMATS[settings.format]
    head = file.head()
    if not head.start:
        if named:
            raise file.failed("empty", f"a log ({', '.join(imports.FORMATS)})")
        return None
    importer = imports.recognise(head)
    if importer is None and named:
        raise file.failed("no log that Holter knows", f"one of {', '.join(imports.FORMATS)}; or say --format and --map")
    return importer


def _follower(file: LogFile, importer: Importer, run: str, settings: ScanSettings) -> _Follower:
    source = f"{file}#{run}" if run else str(file)
    engine = Engine(RunFacts(run=source, name=run or file.path.name), settings.detectors)
    scanned = Scanned(source, importer.name)
    scanned.trace.is_whole = settings.with_plots
    return _Follower(scanned, engine, episodes=Episodes(source))


def _scan_file(file: LogFile, importer: Importer, settings: ScanSettings) -> Iterator[Scanned | LogError]:
    followers: dict[str, _Follower] = {}
    failure: LogError | None = None
    try:
        _read(file, importer, settings, followers)
    except LogError as error:
        failure = error
    for follower in followers.values():
        try:
            scanned = follower.finish()
        except SequenceError as error:
            failure = file.failed(str(error), "a log sorted by step")
            continue
        scanned.broken, scanned.notes = file.broken.count, [*file.broken.named, *file.notes]
        if failure is not None:
            scanned.notes.append("read only in part")
        if not scanned.trace.metrics:
            scanned.notes.append("no column that Holter has a word for; name them with --map column=metric")
        yield scanned
    if failure is None and not followers:
        first = file.broken.named[0] if file.broken.named else "no records"
        failure = file.failed(first, f"records of the format {importer.name}")
    if failure is not None:
        yield failure


def _read(file: LogFile, importer: Importer, settings: ScanSettings, followers: dict[str, _Follower]) -> None:
    for record in importer.read(file, settings.columns):
        follower = followers.get(record.run)
        if follower is None:
            if len(followers) >= MAX_RUNS:
                raise file.failed(f"over {MAX_RUNS} runs", "a run's name in the column that is read as one; or say --map column=ignored")
            follower = followers[record.run] = _follower(file, importer, record.run, settings)
        try:
            follower.take(follower.sequence.add(record))
        except SequenceError as error:
            raise file.failed(str(error), "a log sorted by step") from error


def _as_attempt(whole: _Follower, file: LogFile, importer: Importer, settings: ScanSettings) -> Iterator[Step]:
    """The steps of one more log of the same run; its first record begins an attempt. Of several runs in it, each is one attempt more."""
    whole.scanned.source = str(file)
    records: Iterator[Record] = importer.read(file, settings.columns)
    for _, run in itertools.groupby(sorted(records, key=lambda record: record.run), key=lambda record: record.run):
        if whole.scanned.records:
            yield from whole.sequence.finish()
            whole.sequence = StepSequence(attempt=whole.sequence.attempt + 1)
        for record in run:
            yield from whole.sequence.add(record)
    whole.scanned.broken += file.broken.count
    whole.scanned.notes += [f"{file}: {note}" for note in (*file.broken.named, *file.notes)]
