r"""Mathematical answers: exact text, then exact numbers, then math-verify in a process that can be killed.

Equality is mathematical: for the reference `4`, `2+2` is right too. Where a task's prompt already shows the expression
to be computed, `number` is the verifier, which takes numbers only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

from r1kit.types import Verdict
from r1kit.verifiers import answers, number
from r1kit.verifiers.workers import WorkerError, WorkerTimeout, pool

SECONDS = 2.0  # wall-clock limit for the reference, and again for the prediction
_MAX_REFERENCE_CHARS = 2048
_WORKER = "r1kit.verifiers.math_worker"
_WRAPPED = re.compile(r"\\(?:text|mbox|textbf|mathrm|mathbf|textit|operatorname)\s*\{([^{}]*)\}")
_LEAD = re.compile(r"(?:so |thus |hence |therefore |the |our |my |final )*answer(?: is)?\s*[:=]?\s*", re.IGNORECASE)
_WORDS = re.compile(r"[A-Za-z][A-Za-z .,'()-]*[A-Za-z]{2}[A-Za-z .,'()-]*|[A-Za-z]{2}[A-Za-z .,'()-]*")
_BASE = re.compile(r"(\d+)\s*_\s*\{?\s*(\d+)\s*\}?")
_UNIT = re.compile(r"(?<=[\d}).\s])\s*([A-Za-z][A-Za-z ./]*?)\s*(?:\^\s*\{?\s*([23])\s*\}?)?\s*\.?$")
_UNITS = {
    **dict.fromkeys(("centimeter", "centimetre"), "cm"),
    **dict.fromkeys(("millimeter", "millimetre"), "mm"),
    **dict.fromkeys(("kilometer", "kilometre"), "km"),
    **dict.fromkeys(("meter", "metre"), "m"),
    **dict.fromkeys(("inch", "inche"), "in"),
    **dict.fromkeys(("foot", "feet"), "ft"),
    **dict.fromkeys(("second", "sec"), "s"),
    **dict.fromkeys(("minute",), "min"),
    **dict.fromkeys(("hour", "hr"), "h"),
    **dict.fromkeys(("gram",), "g"),
    **dict.fromkeys(("kilogram",), "kg"),
    **dict.fromkeys(("degree",), "deg"),
}


def verify_math(response: str, reference: str) -> Verdict:
    """Judge one response. An unusable reference gives None whatever was answered, so `""` checks a reference."""
    return judge(answers.extract(response), answers.reference(reference))


def verify_math_batch(responses: Sequence[str], references: Sequence[str]) -> list[Verdict]:
    """As `verify_math` for each pair; what needs math-verify is spread over all workers, equal pairs once."""
    pairs = [
        (answers.extract(response), answers.reference(reference))
        for response, reference in zip(responses, references, strict=True)
    ]
    verdicts = {pair: quick(*pair) for pair in dict.fromkeys(pairs)}
    slow = [pair for pair, verdict in verdicts.items() if verdict is None]
    if slow:
        with ThreadPoolExecutor(min(len(slow), pool(_WORKER, seconds=SECONDS).size)) as threads:
            verdicts.update(zip(slow, threads.map(lambda pair: judge(*pair), slow), strict=True))
    return [verdict for pair in pairs if (verdict := verdicts[pair]) is not None]


def judge(prediction: str | None, reference: str) -> Verdict:
    """Judge an answer that was already extracted (None: there is none)."""
    verdict = quick(prediction, reference)
    if verdict is not None:
        return verdict
    try:
        return _ask(prediction, reference)
    except WorkerError as error:  # not cached: the next time may go well
        return Verdict(correct=None, extracted=prediction, detail=f"verifier failed: {error}")


def quick(prediction: str | None, reference: str) -> Verdict | None:
    """The verdict where text and exact numbers settle it, else None."""
    if not reference:
        return Verdict(correct=None, extracted=prediction, detail="the reference is empty")
    if prediction is not None and _tidy(prediction) == _tidy(reference):
        return Verdict(correct=True, extracted=prediction, detail="same text")
    if len(reference) > _MAX_REFERENCE_CHARS:
        return Verdict(correct=None, extracted=prediction, detail=f"reference above {_MAX_REFERENCE_CHARS} characters")
    expected = number.parse(reference)
    if expected is not None:
        return _compare_number(prediction, expected)
    words = _words(reference)
    if words is not None:
        same = prediction is not None and _plain_words(prediction) == words
        return Verdict(correct=same, extracted=prediction, detail="same words" if same else "different words")
    return None


def _compare_number(prediction: str | None, expected: number.Number) -> Verdict | None:
    if prediction is None:
        return Verdict(correct=False, detail="no answer found")
    given = number.parse_in_prose(_LEAD.sub("", prediction.strip(), count=1))
    if given is not None:
        same = number.equal(given, expected)
        return Verdict(correct=same, extracted=prediction, detail="equal as numbers" if same else "different numbers")
    if not any(char.isalnum() for char in prediction) or _BASE.search(prediction):
        return Verdict(correct=False, extracted=prediction, detail="the answer is not a number")
    return _too_long(prediction)


@lru_cache(maxsize=65536)
def _ask(prediction: str | None, reference: str) -> Verdict:
    """The verdict of math-verify. Time that runs out counts against the side it ran out on."""
    extracted = prediction
    refused = _too_long(prediction) or _refuse(prediction, reference)
    question = {"reference": reference, "prediction": "" if refused else _align(prediction or "", reference)}
    try:
        replies = pool(_WORKER, seconds=SECONDS).ask(question, 1 if refused else 2)
    except WorkerTimeout as timeout:
        if timeout.replies:
            return Verdict(correct=False, extracted=extracted, detail=f"no result within {SECONDS:g} s on the answer")
        raise WorkerError(f"no result within {SECONDS:g} s on the reference") from None
    if replies[0]["reference"] != "ok":
        return Verdict(correct=None, extracted=extracted, detail=replies[0]["reference"])
    if refused:
        return refused
    return Verdict(correct=replies[1]["correct"], extracted=extracted, detail=replies[1]["detail"])
