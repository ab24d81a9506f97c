"""Reference answers as data sets write them: `#### 1,080`, the last \\boxed{}, floats for whole numbers, money."""

from __future__ import annotations

import math
import re
import unicodedata
from typing import Any

from r1kit.tasks.base import TaskError

# Groups of three behind commas or (also narrow) spaces, or plain digits; then an optional fraction.
NUMBER = re.compile(r"([+-]?)(\d{1,3}(?:[,\u0020\u00a0\u202f]\d{3})+|\d+)?(?:\.(\d*))?")
PLAIN_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")
BOX_PARTS = re.compile(r"\\(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)
BARE_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*([^\s{}$.,]+)")
CALCULATOR = re.compile(r"<<[^<>]*>>")


def clean_number(text: str) -> str | None:
    """One spelling for one number, or None: `clean_number("$1,080.50") == "1080.5"`, `clean_number("1,08") is None`.

    Currency signs, thousands separators, leading and trailing zeros and a full stop at the end go; digits become ASCII.
    """
    text = text.strip().replace("\u2212", "-").replace("\\$", "$")
    text = re.sub(r"^([+-]?)\s*[$€£¥]\s*|\s*[$€£¥]$", r"\1", text)
    match = NUMBER.fullmatch(text)
    if not match or not (match[2] or match[3]):
        return None
    whole = "".join(ascii_digit(char) for char in match[2] or "" if char.isdigit()).lstrip("0") or "0"
    fraction = "".join(ascii_digit(char) for char in match[3] or "").rstrip("0")
    sign = "-" if match[1] == "-" and (whole != "0" or fraction) else ""
    return f"{sign}{whole}.{fraction}" if fraction else f"{sign}{whole}"


def ascii_digit(char: str) -> str:
    """Any script's decimal digit as 0-9."""
    return str(unicodedata.decimal(char))


def last_boxed(text: str) -> str | None:
    """What the last \\boxed{} or \\fbox{} holds, or None where there is none or it is cut off; linear in the length.

    `last_boxed(r"so \\boxed{\\frac{1}{2}}") == r"\\frac{1}{2}"`. Escaped braces do not count: `\\boxed{\\{1, 2\\}}`.
    """
    found, found_at = None, -1
    open_braces: list[int] = []  # where a box's content starts, or -1 for a plain brace
    for part in BOX_PARTS.finditer(text):
        if part[0].endswith("{") and part[0] != "\\{":
            open_braces.append(part.end() if part[0].startswith("\\") else -1)
        elif part[0] == "}" and open_braces and (start := open_braces.pop()) >= 0:
            found, found_at = text[start : part.start()].strip(), start
    if any(start > found_at for start in open_braces):
        return None
    bare = None if found is not None else BARE_BOX.findall(text)
    return bare[-1] if bare else found


def reference(value: Any) -> str:
    """A reference answer as text, from any of the forms data sets use; raises `TaskError` where there is none.

    `reference(72.0) == "72"`, `reference("so\\n#### 1,080") == "1080"`, `reference(["7"]) == "7"`.
    """
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    if value is None or (isinstance(value, str) and not value.strip()):
        raise TaskError("empty answer", "the answer is empty: drop the row or fill it in")
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise TaskError("wrong type", f"the answer is {shown(value)}: expected text or a number")
    if not isinstance(value, str):
        return number_text(value)
    if "####" in value:
        return after_marker(value)
    return boxed(value) if "\\boxed" in value else encodable(value.strip())


def number_text(value: int | float) -> str:
    """A JSON number as people write it: 72.0 is "72"."""
    if isinstance(value, float) and not math.isfinite(value):
        raise TaskError("wrong type", f"the answer is {value}: expected a finite number")
    return str(int(value)) if value == int(value) else repr(value)


def after_marker(value: Any) -> str:
    """GSM8K's form: the number after the last `####`."""
    if not isinstance(value, str) or "####" not in value:
        raise TaskError("unparsed answer", f"no '#### number' in {shown(value)}")
    tail = value.rpartition("####")[2]
    number = clean_number(tail)
    if number is None:
        raise TaskError("unparsed answer", f"{shown(tail.strip())} after '####' is not a number")
    return number


def boxed(value: Any) -> str:
    """MATH's form: the last \\boxed{} of a worked solution."""
    if not isinstance(value, str):
        raise TaskError("wrong type", f"the solution is {shown(value)}: expected text with a \\boxed{{}}")
    found = last_boxed(value)
    if found is None:
        raise TaskError("unparsed answer", f"no closed \\boxed{{}} in {shown(value[-80:])}")
    if not found:
        raise TaskError("empty answer", "the last \\boxed{} is empty")
    return encodable(found)


def gold(value: Any) -> str:
    """TRL's `solution`: a worked solution with a \\boxed{}, or the bare gold answer on one line."""
    if isinstance(value, str) and "\\boxed" not in value and "\n" in value.strip():
        raise TaskError("unparsed answer", "a solution of several lines needs a \\boxed{} around its answer")
    return reference(value)


def without_calculator(answer: str) -> str:
    """GSM8K's worked answer as prose: no `<<48/2=24>>`, no `#### 24`."""
    return CALCULATOR.sub("", answer).rpartition("####")[0].strip()


def encodable(text: str) -> str:
    """The same text; lone surrogates, which JSON allows and no tokenizer takes, are refused here."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        reason = f"{shown(text)} holds half a surrogate pair at character {error.start}"
        raise TaskError("invalid UTF-8", reason) from None
    return text


def shown(value: Any) -> str:
    """A value for an error message, cut short."""
    text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
