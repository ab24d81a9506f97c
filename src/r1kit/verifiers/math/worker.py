"""The worker process for algebra: `python -m r1kit.verifiers.math.worker PROCESSOR_SECONDS WALL_SECONDS`.

It reads JSON lines `{"reference", "prediction", "kind"}` with the kind "value", "equation" or "set". For each it writes
one or two JSON lines: first whether the reference is usable, then (unless the prediction is null) whether the
prediction equals it. So the parent knows which of the two used up the time. math-verify's parser reads the expressions,
with decimals as exact fractions. They are compared to 60 digits at exact points; math-verify decides the remaining
cases. A process that fails on its own examples replies {"broken"}, so that no reference is blamed for it.

A kernel timer limits processor time; it ends the process even inside C code. An error during the comparison is the
prediction's fault only if the reference still equals itself afterwards. Otherwise this process is broken, says so and
ends.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from functools import lru_cache
from typing import Any

_MEMORY_BYTES = 2 << 30
_DIGITS = 60
_CLOSE = 10.0**-50
_PROBES = ("\\frac{1}{7919}", "x+1")  # a reference that cannot be compared with these in time is unusable
_EXAMPLES = (  # answer, reference, kind, whether they are equal
    ("\\frac12", "0.5", "value", True),
    ("x^2-1", "(x-1)(x+1)", "value", True),
    ("\\{1,2\\}", "\\{1,3\\}", "set", False),
)
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


def main() -> None:
    """Serve until standard input ends; the output of libraries goes to standard error."""
    replies = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)
    processor_s, wall_s = float(sys.argv[1]), float(sys.argv[2])
    _restrict()
    try:
        fault = _fault()  # also imports the libraries, so that the first question is not slow
    except ImportError as error:
        print(json.dumps({"missing": str(error)}), file=replies, flush=True)
        return
    print(json.dumps({"broken": fault} if fault else {"ready": True}), file=replies, flush=True)
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_REAL, wall_s + 1)  # ends this process if the parent died
        signal.setitimer(signal.ITIMER_PROF, processor_s)
        for reply in _answer(json.loads(line)):
            print(json.dumps(reply), file=replies, flush=True)
            if "broken" in reply:
                return
            signal.setitimer(signal.ITIMER_PROF, processor_s)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)


class _Broken(Exception):
    """This process cannot judge anything, whatever the reference."""


def _answer(question: dict[str, Any]) -> Any:
    reference, prediction, kind = question["reference"], question["prediction"], question["kind"]
    try:
        problem = _problem(reference, kind)
    except _Broken as broken:
        yield {"broken": str(broken)}
        return
    yield {"reference": problem or "ok"}
    if problem is not None or prediction is None:
        return
    try:
        yield {"correct": equal(prediction, reference, kind), "detail": "by math-verify"}
    except Exception as error:  # sympy raises almost every type of error on hostile text
        yield _blame(reference, kind, type(error).__name__)


def _blame(reference: str, kind: str, error: str) -> dict[str, Any]:
    """The reply after an error: the prediction's fault if the reference still equals itself."""
    _read.cache_clear()
    try:
        sound = equal(reference, reference, kind)
    except Exception as again:
        return {"broken": f"{error}, and {type(again).__name__} on the reference itself"}
    if not sound:
        return {"broken": f"{error}, and the reference does not equal itself any more"}
    return {"correct": False, "detail": f"the answer could not be compared ({error})"}


@lru_cache(maxsize=4096)
def _problem(reference: str, kind: str) -> str | None:
    """Why a reference is unusable (it does not parse, or does not equal itself), or None."""
    try:
        _parse(reference, reference)
        for probe in _PROBES:
            equal(probe, reference, kind)
        return None if equal(reference, reference, kind) else "the reference is not equal to itself"
    except Exception as error:
        fault = str(error) if isinstance(error, ImportError) else _fault()
        if fault:
            raise _Broken(fault) from None
        return f"the reference could not be parsed ({type(error).__name__})"


def _fault() -> str | None:
    """The fault of the libraries on examples that use each of them, or None; raises ImportError if one is missing."""
    _read.cache_clear()
    try:
        for left, right, kind, same in _EXAMPLES:
            if equal(left, right, kind) is not same:
                return f"{left} and {right} are judged {'different' if same else 'equal'}"
    except ImportError:
        raise
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:200]
    return None


def equal(prediction: str, reference: str, kind: str = "value") -> bool:
    """Whether two texts are the same value, equation or set; raises whatever the parser and algebra raise."""
    from math_verify import verify
    from sympy import Basic, Eq

    context = reference + prediction
    answer, expected = _parse(prediction, context), _parse(reference, context)
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
        if not _comparable(answer, expected):
            return False
    if isinstance(answer, Basic) and answer == expected:
        return True
    # The order of arguments matters. math-verify's own time limits use signals; here the process has limits instead.
    return bool(verify(expected, answer, float_rounding=12, timeout_seconds=None, raise_on_error=True))


def _comparable(left: Any, right: Any) -> bool:
    """Whether two objects can be equal at all: an equation is not a number, a set not an expression."""
    from sympy import Expr, MatrixBase, Set
    from sympy.core.relational import Relational

    return all(isinstance(left, kind) == isinstance(right, kind) for kind in (Relational, Set, MatrixBase, Expr))


def _same_everywhere(left: Any, right: Any) -> bool | None:
    """Whether two expressions have the same values at rational points; None if that cannot be computed."""
    from sympy import Expr, Product, Sum

    if not isinstance(left, Expr) or not isinstance(right, Expr):
        return None
    names = sorted(left.free_symbols | right.free_symbols, key=str)
    if names and left.has(Sum, Product):
        left = left.doit()
    if names and right.has(Sum, Product):
        right = right.doit()
    if names and (left.has(Sum, Product) or right.has(Sum, Product)):
        return None  # sums and products need integers, and the points are not
    agreed = 0
    for point in _points(names):
        pair = _value(left, point), _value(right, point)
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
    from sympy import Number, Pow, im

    if (values[0] is None) is (values[1] is None) or any(expression.has(_unit()) for expression in pair):
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
        pair = _value(left, point), _value(right, point)
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


def _value(expression: Any, point: Any) -> Any:
    """The value of an expression at a point, to 60 digits; None if it is not finite or, at a point, not real."""
    from sympy import Number, im
    from sympy import re as real

    value = expression.subs(point).doit().evalf(_DIGITS, maxn=400)
    parts = real(value), im(value)
    if not all(isinstance(part, Number) and part.is_finite for part in parts):
        return None
    if point and abs(parts[1]) > _CLOSE and not expression.has(_unit()):
        return None  # outside the domain
    return parts[0] + parts[1] * _unit()


def _unit() -> Any:
    from sympy import I

    return I


def _close(a: Any, b: Any) -> bool:
    from sympy import Abs

    size = max(Abs(a).evalf(_DIGITS), Abs(b).evalf(_DIGITS))
    return bool(Abs(a - b).evalf(_DIGITS) <= _CLOSE * max(size, 10.0**-30))


def _parse(text: str, context: str) -> Any:
    """The text as math-verify's parser reads it; `context` decides whether i is the imaginary unit."""
    return _read(text, imaginary=bool(_IMAGINARY.search(context)) and not _INDEXED.search(context))


@lru_cache(maxsize=1024)  # parsing is most of the work, and a reference is parsed for every answer
def _read(text: str, *, imaginary: bool) -> Any:
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


def _restrict() -> None:
    """Limit memory and forbid core files, if the system can; time is limited in any case."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, ValueError, OSError):
        pass


if __name__ == "__main__":
    main()
