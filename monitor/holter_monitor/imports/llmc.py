"""llm.c, modded-nanogpt, and nanoGPT before them: five ways to print a step on one line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import ClassVar

from holter_monitor.imports.files import LogFile
from holter_monitor.imports.records import Head, Record
from holter_monitor.imports.text import Fields, plain, records

_NUMBER = r"[-+]?(?:[\d.]+(?:e[-+]?\d+)?|nan|inf)"


class LlmcLog:
    """`main.log` of llm.c: one quantity kind a line, `s:<step> tel:<eval loss>` or `s:<step> trl:<train loss> lr:… norm:…`."""

    name: ClassVar[str] = "llmc"
    _LINE: ClassVar[re.Pattern[str]] = re.compile(r"^s:(\d+)\s+((?:tel|trl|eval):.*)$")
    _FIELD: ClassVar[re.Pattern[str]] = re.compile(rf"(\w+):\s*({_NUMBER})", re.IGNORECASE)

    def recognises(self, head: Head) -> bool:
        return any(self._LINE.match(line) for line in head.text.splitlines() if line.startswith("s:"))

    def read(self, log: LogFile, columns: Mapping[str, str]) -> Iterator[Record]:
        def parse(line: str, found: re.Match[str]) -> Record | None:
            return _fields(columns, int(found[1]), self._FIELD.findall(found[2]))

        return records(log, self._LINE, parse)


class LlmcOutput:
    """llm.c's standard output: `step    1/18865 | loss 11.009 (+nanz)| norm 15.18 (+nanz)| lr 2e-06 | 812.50 ms | 52.1% bf16 MFU | 645277 tok/s`."""

    name: ClassVar[str] = "llmc-output"
    _LINE: ClassVar[re.Pattern[str]] = re.compile(r"^step\s+(\d+)\s*/\s*\d+\s*\|(.*)")
    _PART: ClassVar[re.Pattern[str]] = re.compile(rf"^(?:(\w[\w ]*?)\s+)?({_NUMBER})\s*(ms|s|tok/s|%)?", re.IGNORECASE)
    _UNITS: ClassVar[dict[str, str]] = {"ms": "step_time_ms", "tok/s": "tokens_per_second", "%": "mfu_percent"}

    def recognises(self, head: Head) -> bool:
        return any(self._LINE.match(line) and "loss" in line for line in head.text.splitlines() if line.startswith("step"))

    def read(self, log: LogFile, columns: Mapping[str, str]) -> Iterator[Record]:
        def parse(line: str, found: re.Match[str]) -> Record | None:
            pairs = []
            for part in found[2].split("|"):
                said = self._PART.match(part.strip(" ()"))
                if said is None:
                    raise ValueError(f"{part.strip()[:40]!r}; expected a name and a number")
                name = said[1] or self._UNITS.get(said[3] or "", "")
                pairs.append((name, said[2]))
            return _fields(columns, int(found[1]), [pair for pair in pairs if pair[0]])

        return records(log, self._LINE, parse)


class ModdedNanogpt:
    """modded-nanogpt's logs, which open with the whole script: `step:125/6200 val_loss:6.4 train_time:24ms step_avg:…` and `train_loss:`."""

    name: ClassVar[str] = "modded-nanogpt"
    _LINE: ClassVar[re.Pattern[str]] = re.compile(r"^step:(\d+)/\d+ ((?:train_loss|val_loss|train_time):.*)$")
    _FIELD: ClassVar[re.Pattern[str]] = re.compile(rf"(\w+):({_NUMBER})(ms|s)?", re.IGNORECASE)

    def recognises(self, head: Head) -> bool:
        return any(self._LINE.match(line) for line in head.text.splitlines() if line.startswith("step:"))

    def read(self, log: LogFile, columns: Mapping[str, str]) -> Iterator[Record]:
        def parse(_line: str, found: re.Match[str]) -> Record | None:
            said = {name: (text, unit) for name, text, unit in self._FIELD.findall(found[2])}
            elapsed = said.pop("train_time", None)
            # The running mean of the step time smooths what is to be found; the time itself tells it.
            said.pop("step_avg", None)
            made = _fields(columns, int(found[1]), [(name, text) for name, (text, _) in said.items()])
            if elapsed is not None:
                made.time = float(elapsed[0]) * (1e-3 if elapsed[1] == "ms" else 1.0)
            return made

        return records(log, self._LINE, parse)


class NanoGpt:
    """nanoGPT and llama2.c: `iter 1631: loss 4.0863, time 561.94ms, mfu 0.01%`; `490 | loss 5.75 | lr 4.9e-05 | 8060.78ms | mfu 0.21%`."""

    name: ClassVar[str] = "nanogpt"
    _LINE: ClassVar[re.Pattern[str]] = re.compile(r"^(?:iter (\d+): |(\d+) \| )(loss .*)$|^step (\d+): train loss (\S+), val loss (\S+)")
    _FIELD: ClassVar[re.Pattern[str]] = re.compile(rf"(?:(loss|lr|time|mfu)\s+)?({_NUMBER})(ms|%)?", re.IGNORECASE)

    def recognises(self, head: Head) -> bool:
        return any(self._LINE.match(plain(line)) for line in head.text.splitlines())

    def read(self, log: LogFile, columns: Mapping[str, str]) -> Iterator[Record]:
        names = {"ms": "step_time_ms", "%": "mfu_percent"}

        def parse(_line: str, found: re.Match[str]) -> Record | None:
            if found[4]:
                return _fields(columns, int(found[4]), [("eval_loss", found[6].rstrip(","))])
            pairs = [(names.get(unit, name), text) for name, text, unit in self._FIELD.findall(found[3])]
            return _fields(columns, int(found[1] or found[2]), [pair for pair in pairs if pair[0]])

        return records(log, self._LINE, parse)


class BuildNanogpt:
    """`log.txt` of build-nanogpt: `250 val 6.1`, `250 hella 0.25`, `250 train 6.09`, a quantity a line and nothing else."""

    name: ClassVar[str] = "build-nanogpt"
    _LINE: ClassVar[re.Pattern[str]] = re.compile(rf"^(\d+) (train|val|hella) ({_NUMBER})\s*$", re.IGNORECASE)
    _NAMES: ClassVar[dict[str, str]] = {"train": "loss", "val": "eval_loss", "hella": "eval_hellaswag"}

    def recognises(self, head: Head) -> bool:
        return sum(1 for line in head.text.splitlines() if self._LINE.match(line)) >= 3

    def read(self, log: LogFile, columns: Mapping[str, str]) -> Iterator[Record]:
        def parse(_line: str, found: re.Match[str]) -> Record | None:
            return _fields(columns, int(found[1]), [(self._NAMES[found[2].lower()], found[3])])

        return records(log, self._LINE, parse)


def _fields(columns: Mapping[str, str], step: int, pairs: list[tuple[str, str]]) -> Record:
    fields = Fields(columns)
    for name, text in pairs:
        fields.take(name, text)
    return Record(fields.values, step=step)
