"""The worker process for algebra: `python -m r1kit.verifiers.math.worker PROCESSOR_SECONDS WALL_SECONDS`.

It reads JSON lines `{"reference", "prediction", "kind"}` with the kind "value", "equation" or "set". For each it writes
one or two JSON lines: first whether the reference is usable, then (unless the prediction is null) whether the
prediction equals it. So the parent knows which of the two used up the time. A process that fails on its own examples
replies {"broken"}, so that no reference is blamed for it.

A kernel timer limits processor time; it ends the process even inside C code. An error during the comparison is the
prediction's fault only if the reference still equals itself afterwards. Otherwise this process is broken, says so and
ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from functools import lru_cache
from typing import Any

from r1kit.verifiers.math import algebra

_MEMORY_BYTES = 2 << 30
_PROBES = ("\\frac{1}{7919}", "x+1")  # a reference that cannot be compared with these in time is unusable
_EXAMPLES = (  # answer, reference, kind, whether they are equal
    ("\\frac12", "0.5", "value", True),
    ("x^2-1", "(x-1)(x+1)", "value", True),
    ("\\{1,2\\}", "\\{1,3\\}", "set", False),
)


def main() -> None:
    """Serve until standard input ends; the output of libraries goes to standard error."""
    replies = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)
    processor_s, wall_s = float(sys.argv[1]), float(sys.argv[2])
    with contextlib.suppress(ImportError, ValueError, OSError):  # the time is limited in any case
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        fault = _fault()  # also imports the libraries, so that the first question is not slow
    except ImportError as error:
        print(json.dumps({"missing": str(error)}), file=replies, flush=True)
        return
    print(json.dumps({"broken": fault} if fault else {"ready": True}), file=replies, flush=True)
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_REAL, wall_s + 1)  # ends this process if the parent died
        signal.setitimer(signal.ITIMER_PROF, processor_s)
        for reply in _answer(json.loads(line)):
            print(json.dumps(reply), file=replies, flush=True)
            if "broken" in reply:
                return
            signal.setitimer(signal.ITIMER_PROF, processor_s)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)


class _Broken(Exception):
    """This process cannot judge anything, whatever the reference."""


def _answer(question: dict[str, Any]) -> Any:
    reference, prediction, kind = question["reference"], question["prediction"], question["kind"]
    try:
        problem = _problem(reference, kind)
    except _Broken as broken:
        yield {"broken": str(broken)}
        return
    yield {"reference": problem or "ok"}
    if problem is not None or prediction is None:
        return
    try:
        yield {"correct": algebra.equal(prediction, reference, kind), "detail": "by math-verify"}
    except Exception as error:  # sympy raises almost every type of error on hostile text
        name = type(error).__name__
        algebra.read_latex.cache_clear()
        try:
            sound = algebra.equal(reference, reference, kind)
        except Exception as again:
            yield {"broken": f"{name}, and {type(again).__name__} on the reference itself"}
            return
        if sound:  # so the error is the prediction's fault
            yield {"correct": False, "detail": f"the answer could not be compared ({name})"}
        else:
            yield {"broken": f"{name}, and the reference does not equal itself any more"}


@lru_cache(maxsize=4096)
def _problem(reference: str, kind: str) -> str | None:
    """Why a reference is unusable (it does not parse, or does not equal itself), or None."""
    try:
        algebra.parse_expression(reference, reference)
        for probe in _PROBES:
            algebra.equal(probe, reference, kind)
        return None if algebra.equal(reference, reference, kind) else "the reference is not equal to itself"
    except Exception as error:
        fault = str(error) if isinstance(error, ImportError) else _fault()
        if fault:
            raise _Broken(fault) from None
        return f"the reference could not be parsed ({type(error).__name__})"


def _fault() -> str | None:
    """The fault of the libraries on examples that use each of them, or None; raises ImportError if one is missing."""
    algebra.read_latex.cache_clear()
    try:
        for left, right, kind, same in _EXAMPLES:
            if algebra.equal(left, right, kind) is not same:
                return f"{left} and {right} are judged {'different' if same else 'equal'}"
    except ImportError:
        raise
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:200]
    return None


if __name__ == "__main__":
    main()
