r"""Whether one side of an equation merely names the value: x, f(x), AB, S_{\triangle ABC}, m + n, "total cost".

"twice x", x^2, 2x and \ln x do not: who writes 2x = 10 has not said what x is. An expression in several variables does
if the value is a number, because it is what the problem asks for (`ab = 6`), unless it may be a curve (`2x + 3y = 12`).
"""

from __future__ import annotations

import re

from r1kit.verifiers import prose, units
from r1kit.verifiers.math.parser import TRIGONOMETRIC, Tree, Unreadable, operations, parse, symbols

VARIABLE = re.compile(r"[A-Za-z](?:_\{?\w\}?)?|\\[a-z]{2,7}", re.ASCII)
VARIABLES = re.compile(rf"\\[A-Za-z]{{8,}}|{VARIABLE.pattern}", re.ASCII)
_TEXT = re.compile(r"\\(?:text|mathrm|operatorname|mbox|textbf)\s*\{([^{}]*)\}")
_COMMAND = re.compile(r"\\[A-Za-z]+")
_CALL = r"(?:[A-Za-z]{1,3}|\\text\{[A-Za-z ]+\}|\\mathrm\{[A-Za-z]+\})'*(?:_\{?\w\}?)?\([A-Za-z0-9 ,|]{1,20}\)"
_WORDED = re.compile(
    rf"{_CALL}|\{{?[A-Z]{{2,4}}\}}?"
    r"|(?:\\(?:text|mathrm|operatorname|mbox|textbf)\s*\{)?\s*[A-Za-z][A-Za-z ]{2,30}\}?"
)
_SPECIAL = re.compile(
    r"[A-Za-z]|(?:\\sigma|s)\s*\^\s*\{?2\}?|\([fgh]\s*\\circ\s*[fgh]\)\s*\([^()]*\)"
    r"|(?:P|E|\\?Pr|Var|\\(?:text|mathrm|operatorname|mathbb)\{(?:P|E|Var|Pr)\})\s*[(\[][^()\[\]]{1,30}[)\]]"
    r"|\\(?:max|min|gcd|lcm|deg|det|dim|phi|varphi|sigma|tau)(?![A-Za-z])[^=\d]*(?:\(\d+\))?"
    r"|\(\s*[A-Za-z](?:_\d)?\s*(?:,\s*[A-Za-z](?:_\d)?\s*){1,3}\)"  # (x, y)
    r"|[^=\d:]{1,30}(?:_\d)?(?::[^=\d:]{1,30}(?:_\d)?)+"  # S_1 : S_2
    r"|[A-Zf]\s*\^\s*\{\s*(?:-\s*1|T)\s*\}(?:\([a-z]\))?|[A-Z]\s*\^\s*T"
)


def names(side: str, value: str = "0") -> bool:
    """Whether a side of an equation merely names the `value` on its other side."""
    side = side.strip()
    if _SPECIAL.fullmatch(side):
        return True
    if _WORDED.fullmatch(side):
        words = re.findall(r"[A-Za-z]+", _TEXT.sub(r" \1 ", side))
        if max(map(len, words)) < 2:  # f(x), but not the product x y
            return "(" in side
        return prose.names(" ".join(words))
    try:
        letters = set(re.findall(r"[A-Za-z]", _COMMAND.sub(" ", _TEXT.sub("", units.split_unit(value)[0]))))
        return _is_name(parse(side, imaginary=False), constant=letters <= {"e", "i"})
    except Unreadable:
        return False


def _is_name(tree: Tree, *, constant: bool) -> bool:
    match tree:
        case ("symbol" | "apply", *_) | ("lim", _, _, ("symbol" | "apply", *_)):
            return True
        case ("power", (operation, _), _) if operation in TRIGONOMETRIC:
            return _is_name(tree[1], constant=constant)
        case ("abs", ("symbol", name)):  # |z| and |\vec a|, but |x| = 5 is to be solved
            return name in ("z", "w") or len(name) > 1
        case (operation, ("symbol", _)) if operation in TRIGONOMETRIC:
            return True
        case (operation, _) if operation in TRIGONOMETRIC:  # of an angle: \sin 2\theta
            return bool(symbols(tree)) and not symbols(tree) & {"x", "y", "z"}
    free = symbols(tree)
    curve = free & {"x", "y", "z"} and not operations(tree) <= {"plus", "minus", "symbol"}
    return constant and len(free) > 1 and not curve
