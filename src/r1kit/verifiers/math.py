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
_MAX_DEPTH = 30
_WORKER = "r1kit.verifiers.math_worker"
_FORMULA = re.compile(r"\$[^$]{0,512}\$")
_TAKEN_BACK = re.compile(r"\b(?:not|isn't|never|except|wrong|incorrect|either|maybe)\b", re.IGNORECASE)
_TEXT = r"\\(?:text|mbox|textbf|textit|mathrm|mathbf|operatorname)\s*"
_WRAPPED = re.compile(_TEXT + r"\{([^{}]*)\}")
_LEAD = re.compile(r"(?:so |thus |hence |therefore |the |our |my |final )*answer(?: is)?\s*[:=]?\s*", re.IGNORECASE)
_BASE = re.compile(r"\b(\d+)\s*_\s*\{?\s*(\d+)\s*\}?")
_POWER = r"\s*(?:\^\s*\{?\s*([23])\s*\}?)?\s*\.?$"
_WRAPPED_UNIT = re.compile(_TEXT + r"\{\s*([A-Za-z][A-Za-z ./]*?)\s*\}" + _POWER)
_BARE_UNIT = re.compile(r"(?:[\d})]\s*|\s)([A-Za-z]+)" + _POWER)
_UNITS = {
    **dict.fromkeys(("cm", "centimeter", "centimetre"), "cm"),
    **dict.fromkeys(("mm", "millimeter", "millimetre"), "mm"),
    **dict.fromkeys(("km", "kilometer", "kilometre"), "km"),
    **dict.fromkeys(("m", "meter", "metre"), "m"),
    **dict.fromkeys(("in", "inch", "inche"), "in"),
    **dict.fromkeys(("ft", "foot", "feet"), "ft"),
    **dict.fromkeys(("s", "sec", "second"), "s"),
    **dict.fromkeys(("min", "minute"), "min"),
    **dict.fromkeys(("h", "hr", "hour"), "h"),
    **dict.fromkeys(("g", "gram"), "g"),
    **dict.fromkeys(("kg", "kilogram"), "kg"),
    **dict.fromkeys(("mph", "miles per hour", "mile per hour"), "mph"),
    **{name: name for name in ("mile", "yard", "day", "week", "month", "year", "degree", "dollar", "cent", "liter")},
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
    settled = {pair: quick(*pair) for pair in dict.fromkeys(pairs)}
    slow = [pair for pair, verdict in settled.items() if verdict is None]
    judged: dict[tuple[str | None, str], Verdict] = {}
    if slow:
        with ThreadPoolExecutor(min(len(slow), pool(_WORKER, seconds=SECONDS).size)) as threads:
            judged.update(zip(slow, threads.map(lambda pair: judge(*pair), slow), strict=True))
    return [settled[pair] or judged[pair] for pair in pairs]


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
        if prediction is None or len(prediction) > answers.MAX_ANSWER_CHARS:
            return _unusable(prediction)
        same = _plain_words(prediction) == words
        return Verdict(correct=same, extracted=prediction, detail="same words" if same else "different words")
    return None


def _compare_number(prediction: str | None, expected: number.Number) -> Verdict | None:
    if prediction is None:
        return Verdict(correct=False, detail="no answer found")
    if len(prediction) > answers.MAX_ANSWER_CHARS:
        return _unusable(prediction)
    given = number.parse_in_prose(_LEAD.sub("", prediction.strip(), count=1))
    if given is not None:
        same = number.equal(given, expected)
        return Verdict(correct=same, extracted=prediction, detail="equal as numbers" if same else "different numbers")
    if not any(char.isalnum() for char in prediction) or _BASE.search(prediction):
        return Verdict(correct=False, extracted=prediction, detail="the answer is not a number")
    return None


@lru_cache(maxsize=65536)
def _ask(prediction: str | None, reference: str) -> Verdict:
    """The verdict of math-verify. Time that runs out counts against the side it ran out on."""
    extracted = prediction
    refused = _unusable(prediction) or _refuse(prediction or "", reference)
    asked = None if refused or prediction is None else _align(prediction, reference)
    question = {"reference": reference, "prediction": asked}
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


def _unusable(prediction: str | None) -> Verdict | None:
    """The verdict on an answer that is not worth a parser's time."""
    if prediction is None:
        return Verdict(correct=False, detail="no answer found")
    if len(prediction) > answers.MAX_ANSWER_CHARS:
        detail = f"the answer is longer than {answers.MAX_ANSWER_CHARS} characters"
        return Verdict(correct=False, extracted=prediction[: answers.MAX_ANSWER_CHARS], detail=detail)
    if _depth(prediction) > _MAX_DEPTH:
        return Verdict(correct=False, extracted=prediction, detail=f"brackets nested deeper than {_MAX_DEPTH}")
    return None


def _depth(text: str) -> int:
    """The deepest nesting of brackets: parsers take exponential time on text that is nothing but brackets."""
    depth = deepest = 0
    for char in text:
        depth += (char in "([{") - (char in ")]}")
        deepest = max(deepest, depth)
    return deepest


def _refuse(prediction: str, reference: str) -> Verdict | None:
    """Differences that math-verify overlooks: units, number bases, a set given for a tuple or an interval."""
    prediction = _LEAD.sub("", prediction.strip(), count=1)
    sides = [number.parse(side) for side in _bare(prediction).split("=")]
    values = [side for side in sides if side is not None]
    if len(values) > 1 and not all(number.equal(side, values[0]) for side in values):
        return Verdict(correct=False, extracted=prediction, detail="the answer is an equation that does not hold")
    if _TAKEN_BACK.search(_FORMULA.sub(" ", prediction)):
        return Verdict(correct=False, extracted=prediction, detail="the answer does not commit to one value")
    units = _unit(prediction), _unit(reference)
    if all(units) and units[0] != units[1]:
        return Verdict(correct=False, extracted=prediction, detail=f"unit {units[0]}, the reference has {units[1]}")
    bases = _BASE.fullmatch(_bare(prediction)), _BASE.fullmatch(_bare(reference))
    if bases[1]:
        digits = bases[0][1] if bases[0] and bases[0][2] == bases[1][2] else _bare(prediction)
        same = digits == bases[1][1]
        return Verdict(correct=same, extracted=prediction, detail="same digits" if same else "other digits or base")
    kinds = _brackets(prediction), _brackets(reference)
    if all(kinds) and kinds[0] != kinds[1]:
        return Verdict(correct=False, extracted=prediction, detail=f"a {kinds[0]}, the reference is a {kinds[1]}")
    return None


def _align(prediction: str, reference: str) -> str:
    """The answer without a leading phrase, and with the brackets of a tuple where only those are missing."""
    prediction = _LEAD.sub("", prediction.strip(), count=1).strip()
    if _brackets(reference) == "tuple" and "," in prediction and prediction[:1] not in ("(", "[", "\\", "$"):
        return f"({prediction})"
    return prediction


def _brackets(text: str) -> str | None:
    text = re.sub(r"\\left\s*|\\right\s*|\\[!,;]", "", _bare(text))
    if "," in text and text[:1] in ("(", "[") and text[-1:] in (")", "]"):
        return "tuple"
    return "set" if text.startswith("\\{") and text.endswith("\\}") else None


def _unit(text: str) -> str | None:
    """The unit that ends a quantity in one spelling: `_unit("5\\text{ centimeters}^2") == "cm^2"`."""
    text = _bare(text)
    match = _WRAPPED_UNIT.search(text) or _BARE_UNIT.search(text)
    if match is None or not match.start():
        return None
    name, power = " ".join(match[1].casefold().split()), match[2]
    for word, exponent in (("square ", "2"), ("sq ", "2"), ("cubic ", "3")):
        if name.startswith(word):
            name, power = name.removeprefix(word), exponent
    known = _UNITS.get(name) or _UNITS.get(name.rstrip(".s"))
    if known is None and not _WRAPPED_UNIT.search(text):
        return None
    return (known or name.rstrip(".s")) + (f"^{power}" if power else "")


def _bare(text: str) -> str:
    text = text.strip().removesuffix(".")
    return text[1:-1].strip() if len(text) > 2 and text[0] == text[-1] == "$" else text


def _tidy(text: str) -> str:
    return " ".join(_bare(text).split())


def _words(text: str) -> str | None:
    """An answer that is plain words, like `\\text{Friday}`, in one spelling; products of variables are no words."""
    if not _WRAPPED.search(text) and not re.search(r"(?<!\\)\b[A-Za-z]{4}", text):
        return None
    plain = _plain_words(text)
    return plain if re.fullmatch(r"[a-z][a-z .,'-]*[a-z]", plain) else None


def _plain_words(text: str) -> str:
    plain = _WRAPPED.sub(r"\1", _bare(_LEAD.sub("", text.strip(), count=1)))
    return " ".join(plain.strip(" .()").casefold().split())
