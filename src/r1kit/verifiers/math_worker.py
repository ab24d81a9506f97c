"""The child process that runs math-verify: `python -m r1kit.verifiers.math_worker LIMIT_SECONDS`.

One JSON line in: `{"prediction", "reference"}`. One or two JSON lines out: first whether the reference is usable, then
(for a prediction that is not null) whether it equals the reference: so the parent knows on whose side time ran out.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from functools import lru_cache
from typing import Any

_MEMORY_BYTES = 2 << 30
_PROBES = ("\\frac{1}{7919}", "x+1")  # a reference that cannot be compared with these in time can never be compared


def main() -> None:
    """Serve until standard input ends; libraries that print are sent to standard error."""
    replies = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)
    limit_s = float(sys.argv[1])
    _restrict()
    try:
        _equal("\\frac12", "0.5")  # imports and warms up, so that the first question is not the slow one
    except ImportError as error:
        print(json.dumps({"missing": str(error)}), file=replies, flush=True)
        return
    print(json.dumps({"ready": True}), file=replies, flush=True)
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_REAL, 3 * limit_s)  # ends an orphan, even one that is lost in C code
        for reply in _answer(json.loads(line)):
            print(json.dumps(reply), file=replies, flush=True)
        signal.setitimer(signal.ITIMER_REAL, 0)


def _answer(question: dict[str, Any]) -> Any:
    reference, prediction = question["reference"], question["prediction"]
    problem = _problem(reference)
    yield {"reference": problem or "ok"}
    if problem is None and prediction is not None:
        try:
            yield {"correct": _equal(prediction, reference), "detail": "by math-verify"}
        except Exception as error:  # sympy raises nearly every type of error on hostile text
            yield {"correct": False, "detail": f"the answer could not be compared ({type(error).__name__})"}


@lru_cache(maxsize=4096)
def _problem(reference: str) -> str | None:
    """Why a reference cannot serve: it does not parse, or is not even equal to itself."""
    try:
        if not any(not isinstance(item, str) for item in _parse(reference)):
            return "the reference does not parse"
        for probe in _PROBES:
            _equal(probe, reference)
        return None if _equal(reference, reference) else "the reference is not equal to itself"
    except Exception as error:
        return f"the reference could not be parsed ({type(error).__name__})"


def _equal(prediction: str, reference: str) -> bool:
    from math_verify import verify

    # The order matters, and without time limits of its own: they use signals, here the process is the limit.
    return bool(verify(_parse(reference), _parse(prediction), timeout_seconds=None, raise_on_error=True))


def _parse(answer: str) -> list[Any]:
    from math_verify import parse

    text = answer if "$" in answer.replace("\\$", "") else f"\\boxed{{{answer}}}"
    return list(parse(text, parsing_timeout=None))


def _restrict() -> None:
    """A bound on memory and no core files; systems that cannot do it go without, since time is bounded anyway."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, ValueError, OSError):
        pass


if __name__ == "__main__":
    main()
