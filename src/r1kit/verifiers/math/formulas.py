r"""Extracts the mathematics from an answer, without the prose around it.

`formulas("The answer is $x+1$.") == "x+1"`; `formulas("$x$ or maybe $y$") is None`, because it does not commit.
"""

from __future__ import annotations

import re

from r1kit.verifiers import prose, spelling, units

_FORMULA = re.compile(r"\$\$?([^$]{1,400})\$\$?|\\\((.{1,400}?)\\\)")
_JOINED = re.compile(r"\s*(?:,|;|and|or|,\s*and|,\s*or)?\s*", re.IGNORECASE)
_SUBJECT = re.compile(r"(?:[A-Za-z]+\s+){1,8}?(?:is|was|are|equals)\s+(?=[\d\\$(\[+.-])")
_CALCULATION = re.compile(  # She sold 48 + 24 = 72 clips
    r"[A-Z][A-Za-z]*(?:\s+[A-Za-z]+){0,8}?[\s:]+(?=[\d\\$(][^=]*\d[^=]*=[^=]*$)"
)
_BARE_NAME = re.compile(
    r"\s*(?:\\(?:angle|triangle|overline)\s*)?\{?(?:[A-Za-z](?:_\{?\w\}?)?|[A-Z]{2,3}|[a-z]\(\w\))\}?\s*"
)
_IS = re.compile(r"(?:\b(?:is|are|was|equals)|=|:)\s*$")
_MONEY = re.compile(r"\$(?=\d)")


def formulas(text: str) -> str | None:
    """The formula of an answer without its prose; None if there are several or its meaning is in doubt.

    Formulas joined only by commas, "and" and "or" count as one list.
    """
    text = spelling.plain(text)
    subject = _SUBJECT.match(text)
    if subject and prose.before(subject[0]) is not None:
        text = spelling.plain(text[subject.end() :])
    elif (calculation := _CALCULATION.match(text)) and prose.before(calculation[0]) is not None:
        text = text[calculation.end() :]
    text = text.replace("\\$", spelling.DOLLAR)
    if "=" in text and text.count("$") == len(_MONEY.findall(text)):  # 9 * 2 = $18: these dollars are money
        text = _MONEY.sub(spelling.DOLLAR, text)
    parts = [match[1] or match[2] for match in _FORMULA.finditer(text)]
    if not parts:
        return None if "$" in text.lstrip("+-$") else text.replace(spelling.DOLLAR, "\\$")
    combined = _combined(text, parts)
    return None if combined is None else combined.replace(spelling.DOLLAR, "\\$")


def _combined(text: str, parts: list[str]) -> str | None:
    """The formulas `parts` of a text as one formula, or None."""
    between = _FORMULA.sub("\0", text).split("\0")
    if len(parts) == 1:
        beside = " ".join(between).strip()
        if any(char.isdigit() or char in "\\=?+<>^*/" for char in beside):
            # a formula that continues in plain text: AB = $5$
            return None if any(char.isdigit() for char in beside) else text.replace("$", "")
        if beside and not between[0].strip() and units.named(beside):
            return f"{parts[0]} {beside}".strip()  # $5$ cm
        harmless = prose.before(between[0]) is not None and units.following(between[1]) is not None
        return parts[0].strip() if harmless else None
    if all(_BARE_NAME.fullmatch(part) for part in parts[:-1]) and _IS.search(between[-2]):  # the value of $k$ is $4$
        harmless = prose.before("it".join(between[:-1])) is not None and units.following(between[-1]) is not None
        return parts[-1].strip() if harmless else None
    if all(_JOINED.fullmatch(gap) for gap in between) and all(gap.strip() for gap in between[1:-1]):
        return ", ".join(part.strip().strip(",") for part in parts)
    return None
