"""The parameters are kept in another dtype than they should be: a wrapper's mixed precision, a new library, a changed default."""

from __future__ import annotations

from holter_monitor.diagnosis.cause import Cause, Clue, says

OTHER_PRECISION = Cause(
    name="other_precision",
    explains=("reference_gap",),
    sentence="the parameters are kept in another dtype than they were, and gradients and optimizer states with them",
    action="look at the data-parallel wrapper's mixed-precision settings and the library's defaults; keep weights, gradients and reduction in the old dtype, "
    "and start again or from {rewind}",
    clues=(
        Clue(4.5, says("reference_dtype", bool, "they were kept in {value}")),
        Clue(1.0, says("dtype", lambda dtype: dtype in ("bfloat16", "float16"), "they are kept in {value} now")),
    ),
)
