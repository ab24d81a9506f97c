r"""The verifiers `number` and `last-number`: exact comparison of numbers."""

from __future__ import annotations

import re
from fractions import Fraction

from r1kit.types import Verdict
from r1kit.verifiers import extract, number_words, prose, spelling, units
from r1kit.verifiers.number import Number, equal, of_reference, parse_in_prose, reference_words

_EQUATION = re.compile(r"([^=]+?)\s*=\s*([^=]+)")
_VARIABLE = re.compile(r"[A-Za-z](?:_\{?\w\}?)?")
_OPERATOR = re.compile(
    r"(?<=[\w)}%.])\s*(\+|-|\*|/(?!\s*[A-Za-z])|(?<![A-Za-z])x(?![A-Za-z])|\\times|\\cdot|\\div)\s*(?=[$(\d\\.-])"
)
_DIVISION = ("/", "\\div")


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
    calculated = _calculated(sides[1], value)
    return value if calculated == value.value else None


def _calculated(text: str, result: Number) -> Fraction | None:
    """The value of "8 * 9" or "3 apples + 4 apples"; None for other texts, and for sums of units not the result's."""
    operands = [parse_in_prose(operand) for operand in _OPERATOR.split(text)[::2]]
    operators = _OPERATOR.findall(text)
    if not operators or None in operands:
        return None
    first, *others = [operand for operand in operands if operand is not None]
    total, term = Fraction(0), first.value
    for operator, operand in zip(operators, others, strict=True):
        if operator in "+-":
            total, term = total + term, operand.value if operator == "+" else -operand.value
        elif operator in _DIVISION:
            if not operand.value:
                return None
            term /= operand.value
        else:
            term *= operand.value
    only_sums = {"+", "-"}.issuperset(operators)
    same_units = all(units.agree(operand.unit, result.unit) == 1 for operand in (first, *others))
    return total + term if same_units or not only_sums else None
