"""Policies from `*.yml` files: read, merged, checked; every mistake is named by file, line and remedy."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import yaml
from pydantic import ValidationError

from holter_monitor.alerting.policies import Policy, default_policy

_REFERENCE = re.compile(r"\$\{(\w+)\}")
Check = Callable[[str, Mapping[str, Any]], object]
"""Builds one receiver, to see whether it can be built. Raises `ValueError`."""


class PolicyError(ValueError):
    """A policy that cannot be used: `file:line: where: what is wrong; what to write instead`."""

    def __init__(self, path: Path, line: int, problem: str) -> None:
        super().__init__(f"{path}:{line}: {problem}")
        self.path, self.line, self.problem = path, line, problem


class _File:
    """One file: its facts, and on which line each of them stands."""

    def __init__(self, path: Path, environ: Mapping[str, str]) -> None:
        self.path, self.environ = path, environ
        self.lines: dict[tuple[str | int, ...], int] = {}
        try:
            root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        except OSError as error:
            raise PolicyError(path, 1, f"cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise PolicyError(path, 1, "is not UTF-8 text; save it as UTF-8") from None
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise PolicyError(path, line, f"not YAML: {error.problem}; check indentation, colons and quotes") from None
        except yaml.YAMLError as error:
            raise PolicyError(path, 1, f"not YAML: {' '.join(str(error).split())}") from None
        self.facts = {} if root is None else self._facts(root, ())
        if not isinstance(self.facts, dict):
            raise PolicyError(path, 1, "a policy is a mapping; begin with `receivers:` or `routes:`")

    def _facts(self, node: yaml.Node, place: tuple[str | int, ...]) -> Any:
        self.lines[place] = node.start_mark.line + 1
        if len(place) > 20:
            raise self.error(place, "is nested too deeply")
        if isinstance(node, yaml.MappingNode):
            found: dict[str, Any] = {}
            for key, value in node.value:
                word, line = str(key.value), key.start_mark.line + 1
                inner = (*place, word)
                self.lines[inner] = line
                if word in found:
                    raise PolicyError(self.path, line, f"{word!r} is written twice; keep one of them")
                found[word] = self._facts(value, inner)
                self.lines[inner] = line
            return found
        if isinstance(node, yaml.SequenceNode):
            return [self._facts(value, (*place, number)) for number, value in enumerate(node.value)]
        return self._scalar(node, place)

    def _scalar(self, node: yaml.Node, place: tuple[str | int, ...]) -> Any:
        try:
            value = yaml.SafeLoader("").construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            raise self.error(place, f"cannot be read: {' '.join(str(error).split())}") from None
        return _REFERENCE.sub(lambda match: self._variable(match[1], place), value) if isinstance(value, str) else value

    def _variable(self, name: str, place: tuple[str | int, ...]) -> str:
        if name not in self.environ:
            raise self.error(place, f"the environment has no {name}; set it before `holter serve`, or write the value here")
        return self.environ[name]

    def error(self, place: tuple[str | int, ...], problem: str) -> PolicyError:
        """The error at this place, or at the nearest one around it that has a line."""
        near = place
        while near and near not in self.lines:
            near = near[:-1]
        return PolicyError(self.path, self.lines.get(near, 1), f"{'.'.join(map(str, place)) or 'the policy'}: {problem}")


def chosen(path: Path | None, environ: Mapping[str, str], check: Check) -> Policy:
    """The policy of `path`; what the environment says where there is none. Raises `PolicyError`, `ValueError`."""
    return default_policy(environ) if path is None else load(path, environ, check)


def load(folder: Path, environ: Mapping[str, str], check: Check) -> Policy:
    """The policy of all `*.yml` in the folder (or of one file), in the order of their names: receivers and lists add up, a word that says one
    thing may stand in one file only. A folder without policies gives the default policy. Raises `PolicyError`."""
    paths = [folder] if folder.is_file() else sorted([*folder.glob("*.yml"), *folder.glob("*.yaml")])
    if not paths:
        if not folder.is_dir():
            raise PolicyError(folder, 1, "there is no such file or folder; name one with *.yml in it")
        return default_policy(environ)
    files = [_File(path, environ) for path in paths]
    merged: dict[str, Any] = {"receivers": {}}
    owners: dict[tuple[str | int, ...], tuple[_File, tuple[str | int, ...]]] = {}
    for file in files:
        for word, value in file.facts.items():
            _merge(merged, owners, file, word, value)
    merged["receivers"] = {**default_policy(environ).receivers, **merged["receivers"]}
    _check_receivers(merged["receivers"], owners, check)
    try:
        return Policy.model_validate(merged)
    except ValidationError as error:
        raise _located(error, files, owners) from None


def _merge(merged: dict[str, Any], owners: dict[Any, Any], file: _File, word: str, value: Any) -> None:
    if word == "receivers" and isinstance(value, dict):
        for name, facts in value.items():
            if name in merged["receivers"]:
                raise file.error((word, name), f"the receiver is also defined in {owners[(word, name)][0].path.name}; rename one")
            if not isinstance(facts, dict):
                raise file.error((word, name), "a receiver is a mapping; begin with `type:`")
            merged["receivers"][name] = facts
            owners[(word, name)] = (file, (word, name))
    elif word in ("routes", "maintenance", "reactions") and isinstance(value, list):
        held = merged.setdefault(word, [])
        for number, part in enumerate(value):
            owners[(word, len(held))] = (file, (word, number))
            held.append(part)
    elif word in merged and word != "receivers":
        raise file.error((word,), f"is also said in {owners[(word,)][0].path.name}; keep one of them")
    else:
        merged[word] = value
        owners[(word,)] = (file, (word,))


def _check_receivers(receivers: Mapping[str, Mapping[str, Any]], owners: dict[Any, Any], check: Check) -> None:
    for name, facts in receivers.items():
        try:
            check(name, facts)
        except ValueError as error:
            file, place = owners.get(("receivers", name), (None, ()))
            if file is None:
                raise
            field = str(error).partition(":")[0].removeprefix(f"receivers.{name}.")
            raise file.error((*place, field), str(error).partition(": ")[2]) from None


def _located(error: ValidationError, files: list[_File], owners: dict[Any, Any]) -> PolicyError:
    """The first mistake that pydantic found, at its file and line."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = tuple(first["loc"])
    problem = {"extra_forbidden": "is not a word that a policy knows here; see docs/operating.md"}.get(first["type"], first["msg"])
    for length in (2, 1):
        if place[:length] in owners:
            file, inner = owners[place[:length]]
            return cast(_File, file).error((*inner, *place[length:]), problem.removeprefix("Value error, "))
    where = files[0]
    for file in files:  # a receiver that no route's file defines
        where = file if "routes" in file.facts else where
    return where.error(("routes",), problem.removeprefix("Value error, "))
