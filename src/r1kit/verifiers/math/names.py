r"""Whether one side of an equation merely names the value: x, f(x), AB, S_{\triangle ABC}, m + n, "total cost".

"twice x", x^2, 2x and \ln x do not: who writes 2x = 10 has not said what x is.
"""

from __future__ import annotations

import re

from r1kit.verifiers import prose

_INDEX = r"(?:\s*_\s*(?:\{(?:[^{}]|\{[^{}]*\})*\}|\w|\\[a-z]+))?"
VARIABLE = re.compile(r"[A-Za-z](?:_\{?\w\}?)?|\\[a-z]{2,7}", re.ASCII)
VARIABLES = re.compile(rf"\\\\[A-Za-z]{{8,}}|{VARIABLE.pattern}", re.ASCII)
_GREEK = r"\\(?:alpha|beta|gamma|delta|(?:var)?epsilon|theta|lambda|mu|nu|rho|sigma|tau|(?:var)?phi|psi|omega|ell)"
_LETTER = rf"(?:[A-Za-z]|{_GREEK}(?![A-Za-z]))'*{_INDEX}'*"
_MARK = r"\\(?:angle|triangle|overline|vec|mathbf|mathbb|mathcal|widehat|hat|bar|overrightarrow|tilde)\s*"
_MARKED = rf"m?\s*{_MARK}(?:\{{\s*[A-Za-z]{{1,4}}\s*\}}|[A-Z]{{1,3}}|[a-z])"
_POINTS = rf"\{{?\s*[A-Z]{{1,4}}\s*\}}?{_INDEX}"
_THING = rf"(?:{_MARKED}|{_POINTS}|{_LETTER})"
_CALL = (
    r"(?:[A-Za-z]{1,3}|\\text\{[A-Za-z ]+\}|\\mathrm\{[A-Za-z]+\})'*(?:_\{?\w\}?)?(?:\^\{-1\})?\([A-Za-z0-9 ,|]{1,20}\)"
)
_PROBABLE = r"(?:P|E|Pr|Var|\\(?:text|mathrm|operatorname|mathbb)\{(?:P|E|Var|Pr)\})\s*[(\[][^()\[\]]{1,30}[)\]]"
_SYMBOLIC = (
    _LETTER,
    _MARKED,
    r"[A-Z]{2}\s*\^\s*\{?\d\}?",  # AB^2
    _PROBABLE,
    rf"\|\s*(?:[zw]{_INDEX}|[A-Z]{{2}}|{_MARKED}|[zw](?:_\w)?\s*[-+]\s*[zw](?:_\w)?)\s*\|",
    r"\[\s*[A-Z]{3,6}\s*\]",  # an area
    rf"\\(?:sin|cos|tan|cot|sec|csc)\s*(?:\{{?{_THING}\}}?|\(\s*{_THING}\s*\))",
    r"\(\s*[A-Za-z]\s*(?:,\s*[A-Za-z]\s*){1,3}\)",
    r"\\frac\s*\{\s*d(?:\^\{?\d\}?)?\s*[A-Za-z]\s*\}\s*\{\s*d\s*[A-Za-z](?:\^\{?\d\}?)?\s*\}",
    rf"\\frac\s*\{{\s*(?:[A-Z]{{2}}|[A-Za-z]_\S+?|{_MARKED})\s*\}}\s*\{{\s*(?:[A-Z]{{2}}|[A-Za-z]_\S+?|{_MARKED})\s*\}}",
    rf"{_THING}\s*(?::\s*{_THING}\s*)+",
    rf"\\lim{_INDEX}\s*(?:{_CALL}|{_LETTER})",
    r"[A-Zf]\s*\^\s*\{\s*(?:-\s*1|T)\s*\}|[A-Z]\s*\^\s*T",
    rf"{_MARKED}\s*\\cdot\s*{_MARKED}",
)
_WORDED = (_POINTS, _CALL, r"(?:\\(?:text|mathrm|operatorname|mbox|textbf)\s*\{)?\s*[A-Za-z][A-Za-z ]{2,30}\}?")
_SYMBOL = re.compile("|".join(f"(?:{pattern})" for pattern in _SYMBOLIC))
_WORDS = re.compile("|".join(f"(?:{pattern})" for pattern in _WORDED))
_COMBINED = re.compile(r"\s*(\d*)\s*([A-Za-z](?:_\{?\w\}?)?)((?:\s*[-+]\s*\d*\s*[A-Za-z](?:_\{?\w\}?)?)+)\s*")
_TEXT = re.compile(r"\\(?:text|mathrm|operatorname|mbox|textbf)\s*\{([^{}]*)\}")


def names(side: str) -> bool:
    """Whether a side of an equation merely names the value."""
    side = side.strip()
    if combined := _COMBINED.fullmatch(side):
        return _is_combination(side, bool(combined[1]))
    if _SYMBOL.fullmatch(side):
        return True
    if not _WORDS.fullmatch(side):
        return False
    words = re.findall(r"[A-Za-z]+", _TEXT.sub(r" \1 ", side))
    if max(map(len, words)) < 2:  # f(x), but not the product x y
        return "(" in side or len(words) < 2
    return prose.names(" ".join(words))


def _is_combination(side: str, weighted: bool) -> bool:
    """`m + n` and `100m + n` are asked for in problems; `2x + 3y` is half of an equation of a line."""
    letters = re.findall(r"[A-Za-z](?:_\{?\w\}?)?", side)
    return len(set(letters)) == len(letters) and not (
        (weighted or re.search(r"\d\s*[A-Za-z]", side)) and {"x", "y", "z"} & set(letters)
    )
