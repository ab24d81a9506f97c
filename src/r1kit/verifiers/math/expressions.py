r"""Extracts mathematics from an answer, as LaTeX that the parser reads; prose never reaches the parser.

`formulas("The answer is $x+1$.") == "x+1"`; `formulas("$x$ or maybe $y$") is None`, because it does not commit.
"""

from __future__ import annotations

import math
import re

from r1kit.verifiers import number_words, prose, spelling, units

_FORMULA = re.compile(r"\$\$?([^$]{1,400})\$\$?|\\\((.{1,400}?)\\\)")
_JOINED = re.compile(r"\s*(?:,|;|and|or|,\s*and|,\s*or)?\s*", re.IGNORECASE)
_NAMES = """
    sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln lg exp sqrt pi infty gcd lcm max min det mod
    bmod pmod deg arg Re Im dim ker lim sup inf frac cdot times div pm mp le leq ge geq lt gt ne neq cup cap in
    emptyset varnothing setminus subset to binom choose over sum prod int lfloor rfloor lceil rceil lvert rvert left
    right mid langle rangle lbrace rbrace begin end overline underline vec hat bar widehat mathbb mathbf mathrm mathcal
    operatorname text mbox circ degree angle triangle prime partial nabla ldots cdots alpha beta gamma delta epsilon
    varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau upsilon phi varphi chi psi omega Gamma
    Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega ell imath dot wedge
"""
_COMMANDS = frozenset(_NAMES.split())
_STOP = {"or", "and", "not", "but", "the", "is", "if", "to", "vs", "no", "of", "it", "at", "by", "are", "for", "all"}
_BARRED = re.compile(r"^\[|[?@#%&~\"$:;]|\.\.|\\ldots|\\cdots|\d\s+\d|\\\s|\\$|[^\x20-\x7e]|<[a-z/]|//")
# Numbers with too many digits to compute. Those that this misses run into the limit on processor time.
_EXPLOSIVE = re.compile(
    r"\d{6,}\s*!|\^\s*\{?\s*\d{6,}|(?:\^\s*\{?\s*\d+\s*){3}|(?:_\s*\{?\s*\w\s*){4}|\d[eE][+-]?\d{4}"
)
_TOWER = re.compile(r"\d\s*\^\s*\{?\s*(\d{1,6})\s*\^\s*\{?\s*(\d{1,6})")  # 2^{3^3} can be computed, 9^{9^9} cannot
_DATE = re.compile(r"(?<![\d.])(?:\d{4}-\d{2}-\d{2}|\d{1,2}/\d{1,2}/\d{4})(?![\d.])")  # no subtraction or fraction
_BASE_DIGITS = re.compile(r"(?<![A-Za-z\\])\d+\s*_")
_COMMAND = re.compile(r"\\(?:begin|end)\s*\{[a-z]+\}|\\[A-Za-z]+")
_PERCENT = re.compile(r"\s*\\?%$")
_SUBJECT = re.compile(r"(?:[A-Za-z]+\s+){1,8}?(?:is|was|are|equals)\s+(?=[\d\\$(\[+.-])")
_BARE_NAME = re.compile(
    r"\s*(?:\\(?:angle|triangle|overline)\s*)?\{?(?:[A-Za-z](?:_\{?\w\}?)?|[A-Z]{2,3}|[a-z]\(\w\))\}?\s*"
)
_IS = re.compile(r"(?:\b(?:is|are|was|equals)|=|:)\s*$")
_MONEY = re.compile(r"\$(?=\d)")
_SIMPLE = re.compile(
    r"(?<![A-Za-z\\])(sqrt|pi|infinity|infty|sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan|log|ln|exp)(?![A-Za-z])"
)
_ROOT = re.compile(r"\\sqrt\s*\(")
_BARE_ROOT = re.compile(r"\\sqrt\s*(\d+|[A-Za-z])")
_PIECE = r"(\{[^{}]*\}|\\[a-z]+|[A-Za-z0-9])"
_SHORT_FRACTION = re.compile(rf"\\frac\s*{_PIECE}\s*{_PIECE}")
_SCIENTIFIC = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)[eE]([+-]?\d{1,3})(?!\w)")
_SUBSCRIPT = re.compile(r"_\s*(?:\{[^{}]*\}|\w)")
_TEXT = re.compile(r"\\(?:text|mbox|mathrm|operatorname|textbf)\s*\{([^{}]*)\}")


def formulas(text: str) -> str | None:
    """The formula of an answer without its prose; None if there are several or its meaning is in doubt.

    Formulas joined only by commas, "and" and "or" count as one list.
    """
    text = spelling.plain(text)
    subject = _SUBJECT.match(text)
    if subject and prose.before(subject[0]) is not None:
        text = spelling.plain(text[subject.end() :])
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


def expression(text: str) -> str | None:
    """The text as LaTeX for the parser; None for prose, unknown commands and numbers that are too large."""
    text = _as_latex(number_words.digits(text)) if not text.isdigit() else text
    bare = _TEXT.sub(lambda match: match[1] if len(match[1].strip()) <= 1 else "?", text)
    if _BASE_DIGITS.search(bare) or explosive(bare) or _DATE.search(bare):
        return None
    bare = _SUBSCRIPT.sub("", bare)
    if _BARRED.search(bare) or not any(char.isalnum() for char in bare):
        return None
    if any(command not in _COMMANDS for command in re.findall(r"\\([A-Za-z]+)", bare)):
        return None
    runs = re.findall(r"[A-Za-z]+", _COMMAND.sub(" ", bare))
    if any(len(run) > 3 or run.casefold() in _STOP for run in runs) or len(runs) > 40:
        return None
    return text


def explosive(text: str) -> bool:
    """Whether a text looks as if it has a number with too many digits to compute."""
    if _EXPLOSIVE.search(text):
        return True
    return any(int(top) * math.log10(int(middle) or 1) > 5 for middle, top in _TOWER.findall(text))


def _as_latex(text: str) -> str:
    """Plain-text notation as LaTeX: `sqrt(2)/2`, `2*pi`, `x**2`."""
    text = _PERCENT.sub(r" \\cdot \\frac{1}{100}", text.replace("**", "^"))
    text = _SCIENTIFIC.sub(r"(\1 \\cdot 10^{\2})", text)
    text = _SIMPLE.sub(lambda match: "\\" + ("infty" if match[1] == "infinity" else match[1]) + " ", text)
    text = _SHORT_FRACTION.sub(lambda match: f"\\frac{{{match[1].strip('{}')}}}{{{match[2].strip('{}')}}}", text)
    while opening := _ROOT.search(text):
        depth, end = 1, opening.end()
        while depth and end < len(text):
            depth += (text[end] == "(") - (text[end] == ")")
            end += 1
        if depth:
            return text
        text = f"{text[: opening.start()]}\\sqrt{{{text[opening.end() : end - 1]}}}{text[end:]}"
    return _BARE_ROOT.sub(r"\\sqrt{\1}", text).replace("*", "\\cdot ")
