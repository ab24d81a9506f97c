"""The worker process for algebra: `python -m r1kit.verifiers.math.worker PROCESSOR_SECONDS WALL_SECONDS`.

It reads JSON lines `{"reference", "prediction"}`. For each it writes one or two JSON lines: first whether the reference
is usable, then (unless the prediction is null) whether the prediction equals it. So the parent knows which of the two
used up the time. A process that fails on its own examples replies {"broken"}, so that no reference is blamed for it.

A kernel timer limits processor time; it ends the process even inside C code.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

_MEMORY_BYTES = 2 << 30
_EXAMPLES = (  # answer, reference, whether they are equal
    ("\\frac12", "0.5", True),
    ("x^2-1", "(x-1)(x+1)", True),
    ("\\cos x", "\\sin x", False),
    ("\\{1,2\\}", "\\{1,3\\}", False),
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
        import r1kit.verifiers.math.comparison  # noqa: F401
    except ImportError as error:
        print(json.dumps({"missing": str(error)}), file=replies, flush=True)
        return
    state: dict[str, Any] = {"ready": True}
    for answer, reference, same in _EXAMPLES:
        *_, reply = _answer({"reference": reference, "prediction": answer})
        if reply.get("correct") is not same:
            state = {"broken": f"{answer} and {reference}: {reply}"}
    print(json.dumps(state), file=replies, flush=True)
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


def _answer(question: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The replies to one question.

    Text that cannot be read or computed is an outcome. Any exception is a fault of this program, not of the text, so
    nothing can be said about the question.
    """
    from r1kit.verifiers.math import comparison

    reference, prediction = question["reference"], question["prediction"]
    try:
        problem = _problem(reference)
        yield {"reference": problem or "ok"}
        if problem is None and prediction is not None:
            correct, detail = comparison.compare(prediction, reference)
            yield {"correct": correct, "detail": detail}
    except Exception as error:
        yield {"broken": f"{type(error).__name__}: {error}"[:200]}


@lru_cache(maxsize=4096)
def _problem(reference: str) -> str | None:
    from r1kit.verifiers.math import comparison

    return comparison.problem(reference)


if __name__ == "__main__":
    main()
