"""Countdown: an expression that uses each given number exactly once and reaches the target.

The reference is JSON: `{"numbers": [3, 7, 25, 50], "target": 75}`.
"""

from __future__ import annotations

import ast
import operator
import re
import warnings
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from r1kit.types import Verdict
from r1kit.verifiers import extract, spelling

_MARKS = (
    (re.compile(r"\\frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}"), r"((\1)/(\2))"),
    (re.compile(r"\\(?:times|cdot)(?![A-Za-z])"), "*"),
    (re.compile(r"\\div(?![A-Za-z])|(?<=[\d)\s]):(?=[\s\d(])"), "/"),
    (re.compile(r"\\[()\[\]]|[$`\n]"), " "),
    (re.compile(r"\["), "("),
    (re.compile(r"\]"), ")"),
)
_ZEROS = re.compile(r"\.0+$")  # "= 41.0"
_ALLOWED = re.compile(r"[\d\s+*/().-]+", re.ASCII)
_OPERATIONS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def evaluate_expression(expression: str) -> tuple[Fraction, list[int]]:
    """Value and numbers of an expression with + - * / and brackets: those of "(7-5)/2" are 1 and [7, 5, 2].

    Raises ValueError for anything else: other characters, powers, decimals, division by zero, deep nesting.
    """
    if len(expression) > extract.MAX_ANSWER_CHARS:
        raise ValueError(f"longer than {extract.MAX_ANSWER_CHARS} characters")
    if not _ALLOWED.fullmatch(expression):
        raise ValueError("only numbers, + - * / and brackets may be used")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # "5(3)" parses as a call, which is rejected below
            tree = ast.parse(expression.strip(), mode="eval")
        used: list[int] = []
        return _value_of(tree.body, used), used
    except (SyntaxError, MemoryError, RecursionError):
        raise ValueError("not an arithmetic expression") from None
    except ZeroDivisionError:
        raise ValueError("division by zero") from None


def verify_countdown(response: str, reference: str) -> Verdict:
    """Right if the expression (with or without "= target") uses each number once and equals the target."""
    prediction = extract.extract(response)
    puzzle: Any = extract.json_reference(reference, dict) or {}
    numbers, target = puzzle.get("numbers"), puzzle.get("target")
    is_puzzle = type(target) is int and isinstance(numbers, list) and bool(numbers)
    if not is_puzzle or any(type(number) is not int for number in numbers):
        detail = f"the reference is not a puzzle: {reference[:80]!r}"
        return Verdict(outcome="unknown", extracted=prediction, detail=detail)
    if prediction is None:
        return Verdict(outcome="wrong", detail="no answer found")
    if len(prediction) > extract.MAX_ANSWER_CHARS:
        detail = f"the answer is longer than {extract.MAX_ANSWER_CHARS} characters"
        return Verdict(outcome="wrong", extracted=prediction[: extract.MAX_ANSWER_CHARS], detail=detail)
    try:
        value, used = _claim(prediction)
    except ValueError as error:
        return Verdict(outcome="wrong", extracted=prediction, detail=str(error))
    if sorted(used) != sorted(numbers):
        return Verdict(outcome="wrong", extracted=prediction, detail=f"uses {used} instead of {numbers}")
    detail = "reaches the target" if value == target else f"gives {value}, the target is {target}"
    return Verdict.of(value == target, extracted=prediction, detail=detail)


def _claim(answer: str) -> tuple[Fraction, list[int]]:
    """Value and numbers of an answer, "expression", "expression = value" or "value = expression"; raises ValueError."""
    text = spelling.undressed(spelling.characters(answer))
    for pattern, plain in _MARKS:
        text = pattern.sub(plain, text)
    sides = [side.strip().removesuffix(".") for side in text.split("=")]
    if len(sides) > 2:
        raise ValueError("more than one equals sign")
    value, used = evaluate_expression(sides[0])
    if len(sides) == 1:
        return value, used
    claimed, others = evaluate_expression(_ZEROS.sub("", sides[1]))
    if claimed != value:
        raise ValueError("the equation does not hold")
    return (value, used) if len(used) >= len(others) else (value, others)


def _value_of(node: ast.expr, used: list[int]) -> Fraction:
    match node:
        case ast.Constant(value=int() as number):
            used.append(number)
            return Fraction(number)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value_of(operand, used)
        case ast.BinOp(left=left, op=op, right=right):
            a, b = _value_of(left, used), _value_of(right, used)
            if operation := _OPERATIONS.get(type(op)):
                return operation(a, b)
    raise ValueError("only whole numbers, + - * / and brackets may be used")
