"""A log through the same engine that serves a live run: records in, incidents out, with what a report needs to show them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from holter_monitor import imports
from holter_monitor.detector import DetectorMaker
from holter_monitor.detectors import DETECTORS
from holter_monitor.diagnosis import Case, diagnose
from holter_monitor.diagnosis.leads import leads
from holter_monitor.diagnosis.remedy import remedy
from holter_monitor.engine import Engine
from holter_monitor.findings import Finding
from holter_monitor.imports.files import LogFile, find
from holter_monitor.imports.records import Importer, LogError
from holter_monitor.imports.sequence import Sequence as StepSequence
from holter_monitor.imports.sequence import SequenceError
from holter_monitor.offline.episodes import Episodes, Trouble
from holter_monitor.offline.traces import SHOWN, Trace
from holter_monitor.reference import Reference
from holter_monitor.stream.steps import RunFacts, Step

BESIDE_STEPS = 200
"""Incidents whose onsets are no further apart are each other's context."""
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
    reference: Reference | None = None
    """The run that the scanned ones are held against (`log_reference.read`)."""
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
    num_attempts: int = 1
    num_ranks: int = 1
    seconds: float | None = None
    """How long the run took, where the log tells the time."""
    broken: int = 0
    """Lines that could not be used, of the whole file."""
    notes: list[str] = field(default_factory=list)
    trace: Trace = field(default_factory=Trace)

    @property
    def is_judged(self) -> bool:
        """Whether the log had anything to go by: of columns that nobody knows it must not be said that they are healthy."""
        return bool(self.trace.metrics.keys() & set(SHOWN) or self.troubles)


@dataclass(slots=True)
class _Follower:
    """One run while it is read: the engine and what is kept for the report."""

    scanned: Scanned
    engine: Engine
    episodes: Episodes
    started: float = 0.0
    attempt: str = ""

    def take(self, step: Step) -> None:
        scanned = self.scanned
        if step.attempt != self.attempt:
            scanned.num_attempts += bool(self.attempt)
            self.attempt = step.attempt
        if scanned.first_step is None:
            scanned.first_step, self.started = step.number, step.time
        scanned.records += 1
        scanned.last_step = step.number
        scanned.num_ranks = max(scanned.num_ranks, len(step.ranks))
        if step.time > self.started:
            scanned.seconds = step.time - self.started
        findings = self.engine.feed_step(step)
        for event in step.events:
            findings += self.engine.hear(event)
        scanned.trace.add(step)
        if findings:
            self._say(findings)

    def _say(self, findings: list[Finding]) -> None:
        for trouble in self.episodes.say(findings, max(0, self.scanned.records - 1), self.scanned.source):
            self.scanned.trace.frame(trouble)

    def finish(self) -> Scanned:
        self._say(self.engine.finish())
        self.scanned.trace.finish()
        self.scanned.troubles = self.episodes.all
        for trouble in self.scanned.troubles:
            _diagnose(trouble, self.scanned)
        return self.scanned


def _diagnose(trouble: Trouble, scanned: Scanned) -> None:
    """The causes that a live incident would carry, from what the log tells."""
    incident, frame = trouble.incident, scanned.trace.frames.get(trouble.place)
    if frame is None:
        return
    beside = [
        other.incident for other in scanned.troubles if other is not trouble and abs(other.onset_step - trouble.onset_step) <= BESIDE_STEPS
    ]
    signals = {metric: signal for metric, move in frame.moves.items() if (signal := move.signal) is not None}
    case = Case(incident=incident, signals=signals, events=list(scanned.trace.events), others=beside, world_size=scanned.num_ranks)
    incident.causes = diagnose(case)
    incident.evidence = {**incident.evidence, **remedy(case), **leads(case, incident.causes)}


def scan(paths: Iterable[str | Path], settings: ScanSettings) -> Iterator[Scanned | LogError]:
    """Each run of each log, as soon as it is scanned; and each log that could not be read, or only in part. Streams: memory is bounded by
    what the engine keeps of a run, and by `imports.sequence` for logs whose order must be mended."""
    if settings.is_one_run:
        yield from _scan_attempts(paths, settings)
        return
    for log in opened(paths, settings):
        if isinstance(log, LogError):
            yield log
        else:
            yield from _scan_log(*log, settings)


def opened(paths: Iterable[str | Path], settings: ScanSettings) -> Iterator[tuple[LogFile, Importer] | LogError]:
    """The logs under `paths` and who reads them; a path that cannot be read is an answer too, and ends nothing. A file that was named
    itself must be a log; what is no log in a folder is passed over."""
    for path in map(Path, paths):
        found = False
        for answer in _opened(path, settings):
            found = True
            yield answer
        if not found:
            # To be told that an empty folder is healthy would be to look away.
            yield LogError(str(path), "no log in it", expected=f"at least one of {', '.join(imports.FORMATS)}")


def _opened(path: Path, settings: ScanSettings) -> Iterator[tuple[LogFile, Importer] | LogError]:
    try:
        logs = find(path)
    except LogError as error:
        yield error
        return
    for log in logs:
        try:
            importer = _importer(log, settings, is_named=path.is_file())
        except LogError as error:
            yield error
            continue
        if importer is not None:
            yield log, importer


def _importer(log: LogFile, settings: ScanSettings, *, is_named: bool) -> Importer | None:
    if settings.format is not None:
        return imports.FORMATS[settings.format]
    head = log.head()
    importer = imports.recognise(head) if head.start else None
    if importer is None and is_named:
        reason = "no log that Holter knows" if head.start else "empty"
        raise log.failed(reason, f"one of {', '.join(imports.FORMATS)}; or say --format and --map")
    return importer


def steps(log: LogFile, importer: Importer, settings: ScanSettings) -> Iterator[tuple[str, Step]]:
    """`(run, step)` of all runs in a log, "" where it names none. Raises `LogError` at the end, when what could be read was read."""
    sequences: dict[str, StepSequence] = {}
    failure: LogError | None = None
    try:
        for record in importer.read(log, settings.columns):
            sequence = sequences.get(record.run)
            if sequence is None:
                if len(sequences) >= MAX_RUNS:
                    raise log.failed(f"over {MAX_RUNS} runs", "a run's name in the column that is read as one; or say --map COLUMN=ignored")
                sequence = sequences[record.run] = StepSequence()
            for step in sequence.add(record):
                yield record.run, step
    except SequenceError as error:
        failure = log.failed(str(error), "a log sorted by step")
        sequences.clear()
    except LogError as error:
        failure = error
    for run, sequence in sequences.items():
        for step in sequence.finish():
            yield run, step
    if failure is None and not sequences:
        failure = log.failed(log.broken.named[0] if log.broken.named else "no records", f"records of the format {importer.name}")
    if failure is not None:
        raise failure


def source_of(log: LogFile, run: str) -> str:
    """What a run of a log is called: `path`, or `path#run`."""
    return f"{log}#{run}" if run else str(log)


def _scan_log(log: LogFile, importer: Importer, settings: ScanSettings) -> Iterator[Scanned | LogError]:
    followers: dict[str, _Follower] = {}
    failure: LogError | None = None
    try:
        for run, step in steps(log, importer, settings):
            follower = followers.get(run)
            if follower is None:
                follower = followers[run] = _follower(source_of(log, run), importer, settings)
            follower.take(step)
    except LogError as error:
        failure = error
    for follower in followers.values():
        scanned = follower.finish()
        scanned.broken, scanned.notes = log.broken.count, _notes(log, scanned, failure)
        yield scanned
    if failure is not None:
        yield failure


def _notes(log: LogFile, scanned: Scanned, failure: LogError | None) -> list[str]:
    notes = [*log.broken.named, *log.notes]
    if failure is not None:
        notes.append("read only in part")
    if not scanned.is_judged:
        notes.append("no column that Holter has a word for; name them with --map COLUMN=METRIC")
    elif "loss" not in scanned.trace.metrics:
        notes.append("no loss among its columns, so the training itself was not judged; name it with --map COLUMN=loss")
    return notes


def _follower(source: str, importer: Importer, settings: ScanSettings) -> _Follower:
    scanned = Scanned(source, importer.name)
    scanned.trace.is_whole = settings.with_plots
    return _Follower(scanned, Engine(RunFacts(run=source, name=source, reference=settings.reference), settings.detectors), Episodes(source))


def _scan_attempts(paths: Iterable[str | Path], settings: ScanSettings) -> Iterator[Scanned | LogError]:
    """All logs as one run. Of several runs in one file each is an attempt, in the order in which they begin: such a file is held whole."""
    whole: _Follower | None = None
    attempts = 0
    for log in opened(paths, settings):
        if isinstance(log, LogError):
            yield log
            continue
        runs: dict[str, list[Step]] = {}
        try:
            for run, step in steps(*log, settings):
                runs.setdefault(run, []).append(step)
        except LogError as error:
            yield error
        for run, of_run in runs.items():
            whole = whole or _follower(source_of(log[0], run), log[1], settings)
            whole.scanned.source = source_of(log[0], run)
            before, attempts = attempts, attempts + int(of_run[-1].attempt)
            for step in of_run:
                step.attempt = str(before + int(step.attempt))
                whole.take(step)
        if whole is not None:
            whole.scanned.broken += log[0].broken.count
            whole.scanned.notes += [f"{log[0]}: {note}" for note in (*log[0].broken.named, *log[0].notes)]
    if whole is not None:
        yield whole.finish()
