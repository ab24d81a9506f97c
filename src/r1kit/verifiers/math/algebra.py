r"""Whether two expressions are equal, by sympy. Only the worker process imports this.

math-verify's parser reads the expressions, with decimals as exact fractions. They are compared to 60 digits at exact
points; math-verify decides the remaining cases. Any function may raise nearly any error on hostile text.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

_DIGITS = 60
_CLOSE = 10.0**-50
_DECIMAL = re.compile(r"(?<![\d_.^])(\d{0,100})\.(\d{1,100})(?![\d.])")
_DEGREES = re.compile(r"(\d+(?:\.\d+)?)\s*\^\s*\{?\s*\\circ\s*\}?")
_TURNED = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-z])")
_ODD_ROOT = re.compile(r"\\sqrt\s*\[\s*([3579])\s*\]\s*\{\s*-\s*(\d+)\s*\}")  # the real root, not the principal one
_IMAGINARY = re.compile(r"(?<![A-Za-z\\])i(?![A-Za-z])|(?<=[\d)}])i(?![A-Za-z])")
_INDEXED = re.compile(r"_\s*\{?\s*i\b")
# Points at which functions of real variables are compared, far from the usual zeros and poles of answers.
_POINTS = (
    ("17/13", "23/7"),
    ("-19/11", "29/17"),
    ("31/5", "-37/23"),
    ("-3/7", "-41/29"),
    ("2/53", "101/3"),
    ("7", "9"),
)


def equal(prediction: str, reference: str, kind: str = "value") -> bool:
    """Whether two texts are the same value, equation or set; raises whatever the parser and algebra raise."""
    from math_verify import verify
    from sympy import Basic, Eq, Expr, MatrixBase, Set
    from sympy.core.relational import Relational

    context = reference + prediction
    answer, expected = parse_expression(prediction, context), parse_expression(reference, context)
    if kind == "equation":
        if not isinstance(answer, Eq) or not isinstance(expected, Eq):
            return False
        proportional = _proportional(answer.lhs - answer.rhs, expected.lhs - expected.rhs)
        if proportional is not None:
            return proportional
    elif kind == "value":
        same = _same_everywhere(answer, expected)
        if same is not None:
            return same
        kinds = (Relational, Set, MatrixBase, Expr)  # an equation is never a number, a set never an expression
        if any(isinstance(answer, kind) != isinstance(expected, kind) for kind in kinds):
            return False
    if isinstance(answer, Basic) and answer == expected:
        return True
    # The order of arguments matters. math-verify's own time limits use signals; here the process has limits instead.
    return bool(verify(expected, answer, float_rounding=12, timeout_seconds=None, raise_on_error=True))


def _same_everywhere(left: Any, right: Any) -> bool | None:
    """Whether two expressions have the same values at rational points; None if that cannot be computed."""
    from sympy import Expr, Product, Sum

    if not isinstance(left, Expr) or not isinstance(right, Expr):
        return None
    names = sorted(left.free_symbols | right.free_symbols, key=str)
    if names:
        left, right = (side.doit() if side.has(Sum, Product) else side for side in (left, right))
        if left.has(Sum, Product) or right.has(Sum, Product):
            return None  # sums and products need integers, and the points are not
    agreed = 0
    for point in _points(names):
        pair = _value_at(left, point), _value_at(right, point)
        if pair[0] is None or pair[1] is None:
            if not names:
                return None
            if len(names) == 1 and _leaves_domain((left, right), pair, point):
                return False
            continue
        if not _close(*pair):
            return False
        agreed += 1
    if agreed < (1 if not names else 3):
        return None
    # Constants that agree to 60 digits are equal, unless algebra shows a difference beyond.
    return True if names else bool((left - right).doit().is_zero is not False)


def _leaves_domain(pair: Any, values: Any, point: Any) -> bool:
    """Whether exactly one of two real functions has no real value at a point, like \\ln x and \\ln|x| at -1.

    Poles do not count, because algebra may cancel them; nor do odd roots, because their principal values are not real.
    """
    from sympy import I, Number, Pow, im

    if (values[0] is None) is (values[1] is None) or any(expression.has(I) for expression in pair):
        return False
    off = pair[0] if values[0] is None else pair[1]
    if any(power.exp.is_Rational and power.exp.q % 2 and power.exp.q > 1 for power in off.atoms(Pow)):
        return False
    imaginary = im(off.subs(point).doit().evalf(_DIGITS, maxn=400))
    return isinstance(imaginary, Number) and imaginary.is_finite and bool(abs(imaginary) > _CLOSE)


def _proportional(left: Any, right: Any) -> bool | None:
    """Whether one expression is a constant multiple of the other, so that their zeros are the same; None: unknown."""
    names = sorted(left.free_symbols | right.free_symbols, key=str)
    if not names or left.free_symbols != right.free_symbols:
        return False if names else None
    ratios = []
    for point in _points(names):
        pair = _value_at(left, point), _value_at(right, point)
        if pair[0] is not None and pair[1] is not None and abs(pair[1]) > _CLOSE:
            ratios.append(pair[0] / pair[1])
    if len(ratios) < 3 or abs(ratios[0]) < _CLOSE:
        return None
    return True if all(_close(ratio, ratios[0]) for ratio in ratios) else None


def _points(names: list[Any]) -> Any:
    """Values for the variables, all different: positive, negative and mixed."""
    from sympy import Rational

    if not names:
        return ({},)
    return [
        {name: Rational(pair[place % 2]) + Rational(place * place, 7 + place) for place, name in enumerate(names)}
        for pair in _POINTS
    ]


def _value_at(expression: Any, point: Any) -> Any:
    """The value of an expression at a point, to 60 digits; None if it is not finite or, at a point, not real."""
    from sympy import I, Number, im
    from sympy import re as real

    value = expression.subs(point).doit().evalf(_DIGITS, maxn=400)
    parts = real(value), im(value)
    if not all(isinstance(part, Number) and part.is_finite for part in parts):
        return None
    if point and abs(parts[1]) > _CLOSE and not expression.has(I):
        return None  # outside the domain
    return parts[0] + parts[1] * I


def _close(a: Any, b: Any) -> bool:
    size = max(abs(a).evalf(_DIGITS), abs(b).evalf(_DIGITS))
    return bool(abs(a - b).evalf(_DIGITS) <= _CLOSE * max(size, 10.0**-30))


def parse_expression(text: str, context: str) -> Any:
    """The text as math-verify's parser reads it; `context` decides whether i is the imaginary unit."""
    return read_latex(text, imaginary=bool(_IMAGINARY.search(context)) and not _INDEXED.search(context))


@lru_cache(maxsize=1024)  # parsing is most of the work, and a reference is parsed for every answer
def read_latex(text: str, *, imaginary: bool) -> Any:
    """The expression of a text; `imaginary` makes i the imaginary unit. Decimals become exact fractions."""
    from latex2sympy2_extended import NormalizationConfig, normalize_latex
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig, latex2sympy
    from sympy import I, Symbol

    text = _DECIMAL.sub(lambda match: f"\\frac{{{match[1]}{match[2]}}}{{1{'0' * len(match[2])}}}", text)
    text = _ODD_ROOT.sub(r"(-\\sqrt[\1]{\2})", text)
    if _TURNED.search(text):
        text = _DEGREES.sub(r"(\\frac{\\pi}{180} \\cdot \1)", text)
    config = NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none", equations=False
    )
    parsed = latex2sympy(
        normalize_latex(text, config),
        is_real=True,
        normalization_config=None,
        conversion_config=ConversionConfig(lowercase_symbols=False),
    )
    if imaginary:
        symbols = [symbol for symbol in parsed.free_symbols if str(symbol) == "i"]
        parsed = parsed.subs(dict.fromkeys(symbols, I)) if symbols else parsed
    return parsed.subs({symbol: Symbol(str(symbol), real=True) for symbol in parsed.free_symbols})
