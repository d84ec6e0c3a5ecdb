"""Trains once for each function of the package that runs in a training process, in a fork in which it raises whenever it is called.

python every_call.py URL FOLDER      # a line for each: module, name, what the training computed, its status
"""

import errno
import hashlib
import os
import random
import signal
import sys
import types
import warnings

import holter
import holter.advice
import holter.garbage
import holter.launch
import holter.row_writer
import holter.run
import holter.scalars
import holter.sections
import holter.start

ERRORS = [MemoryError("broken"), RecursionError("broken"), OSError(errno.EMFILE, "too many open files"), ValueError("broken")]
FACE = {"holter", "holter.errors"}
CALLED_BY_THE_USER = {
    "holter.start.init",
    "holter.row_writer.RowWriter.step",  # `run.step` itself, guard and all, where the C part was not built
    *(f"holter.sections.{kind}.{name}" for kind in ("Section", "Pause") for name in ("__enter__", "__exit__")),
}
FALLBACK = {"holter.run.Run.__init__", "holter.recorder.Recorder.__init__", "holter.row_writer.RowWriter.__init__"}
"""What is left when all else fails: a run that records nothing is made of these."""


def targets():
    """`(owner, name, full name)` of every function, method and property, but for what the user calls and what a guard is around already."""
    for module_name, module in sorted(sys.modules.items()):
        if not module_name.startswith("holter") or module_name in FACE:
            continue
        for name, found in sorted(vars(module).items()):
            if getattr(found, "__module__", None) != module_name:
                continue
            if isinstance(found, types.FunctionType):
                yield module, name, f"{module_name}.{name}"
            elif isinstance(found, type) and not issubclass(found, BaseException):
                for inner, method in sorted(vars(found).items()):
                    is_called = isinstance(method, types.FunctionType | classmethod | staticmethod | property) and not hasattr(
                        method, "__wrapped__"
                    )
                    if is_called and (found is not holter.run.Run or (inner.startswith("_") and inner not in ("__enter__", "__exit__"))):
                        yield found, inner, f"{module_name}.{found.__name__}.{inner}"


def break_it(owner, name, error):
    def broken(*_words, **_values):
        raise error

    was = vars(owner)[name]
    kind = {property: property, classmethod: classmethod, staticmethod: staticmethod}.get(type(was), lambda function: function)
    setattr(owner, name, kind(broken))


def train(url, folder):
    run = holter.init(project="p", name="n", url=url, directory=folder, config={"lr": 0.1})
    random.seed(7)
    weights = [random.random() for _ in range(20)]
    for step, _ in enumerate(run.batches([0] * 12)):
        with run.section("forward"):
            weights = [w - 0.01 * (w + random.gauss(0, 1)) for w in weights]
        run.step(step, loss=sum(w * w for w in weights), **({"new": 1.0, "text": "no number"} if step % 3 == 0 else {}))
    run.event("mark", at=1)
    with run.checkpoint("a path", 3):
        pass
    with run.evaluation(4, {"accuracy": 0.5}):
        pass
    assert not run.advice.stop
    assert not run.agreed_advice().stop
    run.finish()
    return hashlib.sha256(repr(weights).encode()).hexdigest()


def main():
    warnings.filterwarnings("ignore")
    found = [(None, "", "nothing"), *(target for target in targets() if target[2] not in CALLED_BY_THE_USER | FALLBACK)]
    for number, (owner, name, full) in enumerate(found):
        sys.stdout.flush()
        pid = os.fork()
        if not pid:
            signal.alarm(20)
            if owner is not None:
                break_it(owner, name, ERRORS[number % len(ERRORS)])
            print(full, train(sys.argv[1], sys.argv[2]), flush=True)
            sys.exit(5)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print("status", full, status)


main()
