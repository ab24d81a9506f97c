"""Reads reference answers in the forms data sets use: `#### 1,080`, the last \\boxed{}, floats for integers, money."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from decimal import Decimal, localcontext
from typing import Any, Literal

from r1kit.data.columns import is_empty
from r1kit.data.errors import DataError, encodable, shown
from r1kit.verifiers import STRUCTURED, THINKING
from r1kit.verifiers.alternatives import any_of
from r1kit.verifiers.extract import MAX_ANSWER_CHARS
from r1kit.verifiers.extract import boxed as last_box
from r1kit.verifiers.number import of_reference, parse_number

Several = Literal["", "any", "all"]  # a list of answers: not allowed, alternatives, or parts of one answer
PLAIN_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")
CALCULATOR = re.compile(r"<<[^<>]*>>")


def clean_number(text: str) -> str | None:
    """One spelling for one number, or None: `clean_number("$1,080.50") == "1080.5"`, `clean_number("1,08") is None`.

    Values without a finite decimal form (thirds) and percentages stay as written.
    """
    number = parse_number(text)
    if number is None:
        return None
    with localcontext(prec=MAX_ANSWER_CHARS):
        spelled = f"{Decimal(number.value.numerator) / number.value.denominator:f}"
    return spelled if parse_number(spelled) == number else text.strip()


def reference_for(verifier: str, value: Any, several: Several = "", parse: Callable[[Any], str] | None = None) -> str:
    """A value of a data set as the reference of a verifier.

    `several` says how a list is meant: each item is a right answer ("any"), or they are parts of one answer ("all").
    Raises `DataError` for a value that is no reference, such as a list of which neither is known.
    """
    verifier, parse = verifier.removesuffix(THINKING), parse or reference
    if several == "any" and isinstance(value, list) and value:
        return any_of([reference_for(verifier, each, parse=parse) for each in value])
    if several == "all" and isinstance(value, list) and value:
        parts = [parse(part) for part in value]
        if any("," in re.sub(r"[(\[{].*[)\]}]", "", part) for part in parts) and len(parts) > 1:
            raise DataError("wrong type", f"a part of {shown(value)} holds a comma, which separates the parts")
        return ", ".join(parts)
    if verifier in STRUCTURED and not is_empty(value):
        return encodable(value.strip()) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if verifier == "choice" and isinstance(value, bool):
        return str(value).lower()
    return canonical(parse(value), verifier)


def canonical(answer: str, verifier: str) -> str:
    """The answer, spelled one way if it is a number. The verifier `number` requires a number."""
    if verifier == "number":
        if of_reference(answer) is None:
            raise DataError("unparsed answer", f"{shown(answer)} is not a number, as the verifier 'number' needs")
        return clean_number(answer) or answer
    # A comma may separate thousands or list members, so only an unmistakable number is respelled (AIME's 025).
    if verifier == "math" and PLAIN_NUMBER.fullmatch(answer):
        return clean_number(answer) or answer
    return answer


def reference(value: Any) -> str:
    """A reference answer as text, from any of the forms data sets use; raises `DataError` if there is none.

    `reference(72.0) == "72"`, `reference("so\\n#### 1,080") == "1080"`, `reference(["7"]) == "7"`.
    """
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    if is_empty(value):
        raise DataError("empty answer", "the answer is empty: drop the row or fill it in")
    if isinstance(value, list | tuple):
        meanings = "answers=... in columns if any of them is right, answer_parts=... if they are parts of one answer"
        raise DataError("wrong type", f"the answer is a list, {shown(value)}: name its column as {meanings}")
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise DataError("wrong type", f"the answer is {shown(value)}: expected text or a number")
    if not isinstance(value, str):
        return number_text(value)
    if "####" in value:
        return after_marker(value)
    return boxed(value) if "\\boxed" in value else encodable(value.strip())


def number_text(value: int | float) -> str:
    """A JSON number as people write it: 72.0 is "72"."""
    if isinstance(value, float) and not math.isfinite(value):
        raise DataError("wrong type", f"the answer is {value}: expected a finite number")
    return str(int(value)) if value == int(value) else repr(value)


def after_marker(value: Any) -> str:
    """GSM8K's form: the number after the last `####`."""
    if not isinstance(value, str) or "####" not in value:
        raise DataError("unparsed answer", f"no '#### number' in {shown(value)}")
    tail = value.rpartition("####")[2]
    number = clean_number(tail)
    if number is None:
        raise DataError("unparsed answer", f"{shown(tail.strip())} after '####' is not a number")
    return number


def boxed(value: Any) -> str:
    """MATH's form: the last \\boxed{} of a worked solution."""
    if not isinstance(value, str):
        raise DataError("wrong type", f"the solution is {shown(value)}: expected text with a \\boxed{{}}")
    content = last_box(value)
    if content is None:
        raise DataError("unparsed answer", f"no closed, non-empty \\boxed{{}} in {shown(value[-80:])}")
    return encodable(content)


def gold(value: Any) -> str:
    """TRL's `solution`: a worked solution with a \\boxed{}, or the bare answer on one line."""
    if isinstance(value, str) and "\\boxed" not in value and "\n" in value.strip():
        raise DataError("unparsed answer", "a solution of several lines needs a \\boxed{} around its answer")
    return reference(value)


def without_calculator(answer: str) -> str:
    """GSM8K's worked answer as prose, without `<<48/2=24>>` and `#### 24`."""
    return CALCULATOR.sub("", answer).rpartition("####")[0].strip()
