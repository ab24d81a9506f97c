r"""The verifiers `number` and `last-number`: exact comparison of numbers."""

from __future__ import annotations

import operator
import re

from r1kit.types import Verdict
from r1kit.verifiers import extract, number_words, prose, spelling
from r1kit.verifiers.number import Number, equal, of_reference, parse_in_prose, parse_number, reference_words

_EQUATION = re.compile(r"([^=]+?)\s*=\s*([^=]+)")
_OPERATIONS = {"+": operator.add, "-": operator.sub, "/": operator.truediv, "\\div": operator.truediv}
_VARIABLE = re.compile(r"[A-Za-z](?:_\{?\w\}?)?")
_CALCULATION = re.compile(r"(.*?[\d)}])\s*([-+*/x]|\\times|\\cdot|\\div)\s*([$(\d-].*)")


def verify_number(response: str, reference: str) -> Verdict:
    """Exact comparison of the answer ("72", "x = 72", "8 * 9 = 72") with a numeric reference; fast."""
    return _judge(extract.extract(response), reference)


def verify_last_number(response: str, reference: str) -> Verdict:
    """As `number`; without an answer section and a box, the last number after `</think>` counts."""
    return _judge(extract.extract(response, last_number=True), reference)


def _judge(prediction: str | None, reference: str) -> Verdict:
    text = extract.reference(reference)
    expected = of_reference(text)
    if expected is None:
        detail = f"the reference is not a number: {reference[:80]!r}"
        return Verdict(outcome="unknown", extracted=prediction, detail=detail)
    if prediction is None:
        return Verdict(outcome="wrong", detail="no answer found")
    value = parse_in_prose(prediction, reference_words(text)) or equation_value(prediction)
    if value is None:
        return Verdict(outcome="wrong", extracted=prediction, detail="the answer is not a number")
    same = equal(value, expected)
    return Verdict.of(same, extracted=prediction, detail="equal as numbers" if same else "different numbers")


def equation_value(text: str) -> Number | None:
    """The right side of an equation that names it or calculates it correctly: "x = 72", "8 * 9 = 72"."""
    sides = _EQUATION.fullmatch(spelling.plain(text)) if len(text) <= extract.MAX_ANSWER_CHARS else None
    value = parse_in_prose(sides[2]) if sides else None
    if sides is None or value is None:
        return None
    if _VARIABLE.fullmatch(sides[1]) or (number_words.digits(sides[1]) == sides[1] and prose.names(sides[1])):
        return value
    calculation = _CALCULATION.fullmatch(sides[1])
    left, right = (parse_number(calculation[1]), parse_number(calculation[3])) if calculation else (None, None)
    if calculation is None or left is None or right is None:
        return None
    operation = _OPERATIONS.get(calculation[2], operator.mul)
    if operation is operator.truediv and not right.value:
        return None
    return value if operation(left.value, right.value) == value.value else None
