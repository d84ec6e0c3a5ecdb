"""The command `holter`: a verb is a module, found through the entry points `holter.commands`.

The SDK brings its own verbs; installing `holter-monitor` adds the rest. A verb's module has `add_arguments(parser)` and
`run(arguments) -> int`, and its docstring's first line is its help.
"""

from __future__ import annotations

import argparse
import ast
import os
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path

from holter import __version__


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; the answer is the process's exit status. 2 for words that cannot be used."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    verbs = {entry.name: entry for entry in sorted(entry_points(group="holter.commands"), key=lambda entry: entry.name)}
    parser = argparse.ArgumentParser(prog="holter", description="A health monitor for training runs.")
    parser.add_argument("--version", action="version", version=f"holter {__version__}")
    commands = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    # Only the verb that was named is imported: `holter runs` must not wait for matplotlib, nor fail because another verb cannot load.
    named = next((word for word in arguments if not word.startswith("-")), None)
    for name, entry in verbs.items():
        if name == named:
            _add(commands, name, entry)
        else:
            commands.add_parser(name, help=_first_line(entry))
    return _run(parser.parse_args(arguments))


def _add(commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, entry: EntryPoint) -> None:
    module = entry.load()
    parser = commands.add_parser(name, description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    module.add_arguments(parser)
    parser.set_defaults(holter_verb=module.run)


def _first_line(entry: EntryPoint) -> str:
    """The first line of the docstring of the verb's module, which is read and not imported."""
    spec = find_spec(entry.value)
    if spec is None or spec.origin is None:
        return "(cannot be loaded)"
    return (ast.get_docstring(ast.parse(Path(spec.origin).read_bytes())) or "").partition("\n")[0]


def _run(parsed: argparse.Namespace) -> int:
    try:
        return int(parsed.holter_verb(parsed))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # `holter runs | head` closed our output; a second complaint at interpreter exit would only confuse.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


if __name__ == "__main__":
    raise SystemExit(main())
