"""The child process that computes: `python -m r1kit.verifiers.math.worker PROCESSOR_SECONDS WALL_SECONDS`.

One JSON line in: `{"reference", "prediction", "kind"}`, the kind being "value", "equation" or "set". One or two JSON
lines out: first whether the reference is usable, then (for a prediction that is not null) whether it equals the
reference, so that the parent knows on whose side time ran out. Expressions are read by math-verify's parser, with
decimals as exact fractions, and compared at exact numbers to 60 digits; what that leaves open is math-verify's to say.
A process in which not even its own examples come out right says {"broken"}: that is no fault of any reference.

Processor time is limited by a timer of the kernel that ends the process, in C code too. An error while the prediction
is compared is the prediction's fault only if the reference still equals itself right after it; else this process is
broken, says so and ends.
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
_PROBES = ("\\frac{1}{7919}", "x+1")  # a reference that cannot be compared with these in time can never be compared
_EXAMPLES = (  # answers, references, kinds, whether they are equal
    ("\\frac12", "0.5", "value", True),
    ("x^2-1", "(x-1)(x+1)", "value", True),
    ("\\{1,2\\}", "\\{1,3\\}", "set", False),
)
_DECIMAL = re.compile(r"(?<![\d_.^])(\d{0,100})\.(\d{1,100})(?![\d.])")
_DEGREES = re.compile(r"(\d+(?:\.\d+)?)\s*\^\s*\{?\s*\\circ\s*\}?")
_TURNED = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-z])")
_ODD_ROOT = re.compile(r"\\sqrt\s*\[\s*([3579])\s*\]\s*\{\s*-\s*(\d+)\s*\}")  # the real one, not the principal one
_IMAGINARY = re.compile(r"(?<![A-Za-z\\])i(?![A-Za-z])|(?<=[\d)}])i(?![A-Za-z])")
_INDEXED = re.compile(r"_\s*\{?\s*i\b")
# Where functions of real variables are compared: far from zeros and poles that answers like to have.
_POINTS = (
    ("17/13", "23/7"),
    ("-19/11", "29/17"),
    ("31/5", "-37/23"),
    ("-3/7", "-41/29"),
    ("2/53", "101/3"),
    ("7", "9"),
)


def main() -> None:
    """Serve until standard input ends; libraries that print are sent to standard error."""
    replies = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)
    processor_s, wall_s = float(sys.argv[1]), float(sys.argv[2])
    _restrict()
    try:
        fault = _fault()  # imports and warms up, so that the first question is not the slow one
    except ImportError as error:
        print(json.dumps({"missing": str(error)}), file=replies, flush=True)
        return
    print(json.dumps({"broken": fault} if fault else {"ready": True}), file=replies, flush=True)
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_REAL, wall_s + 1)  # ends an orphan
        signal.setitimer(signal.ITIMER_PROF, processor_s)
        for reply in _answer(json.loads(line)):
            print(json.dumps(reply), file=replies, flush=True)
            if "broken" in reply:
                return
            signal.setitimer(signal.ITIMER_PROF, processor_s)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)


class _Broken(Exception):
    """This process cannot judge, whatever the reference is."""


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
    except Exception as error:  # sympy raises nearly every type of error on hostile text; see the module's docstring
        yield _whose_fault(reference, kind, type(error).__name__)


def _whose_fault(reference: str, kind: str, error: str) -> dict[str, Any]:
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
    """Why a reference cannot serve: it does not parse, or is not even equal to itself."""
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
    """What is wrong with the libraries, by examples that use each of them; raises ImportError for a missing one."""
    _read.cache_clear()
    try:
        for given, expected, kind, same in _EXAMPLES:
            if equal(given, expected, kind) is not same:
                return f"{given} and {expected} are judged {'different' if same else 'equal'}"
    except ImportError:
        raise
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:200]
    return None


def equal(prediction: str, reference: str, kind: str = "value") -> bool:
    """Whether two texts say the same value, equation or set; raises whatever parser and algebra raise."""
    from math_verify import verify
    from sympy import Basic, Eq

    given, expected = _parse(prediction, reference + prediction), _parse(reference, reference + prediction)
    if kind == "equation":
        if not isinstance(given, Eq) or not isinstance(expected, Eq):
            return False
        proportional = _proportional(given.lhs - given.rhs, expected.lhs - expected.rhs)
        if proportional is not None:
            return proportional
    elif kind == "value":
        same = _same_everywhere(given, expected)
        if same is not None:
            return same
        if not _kin(given, expected):
            return False
    if isinstance(given, Basic) and given == expected:
        return True
    # the order matters; without time limits of its own: they use signals, here the process is the limit
    return bool(verify(expected, given, float_rounding=12, timeout_seconds=None, raise_on_error=True))


def _kin(given: Any, expected: Any) -> bool:
    """Whether two things can be equal at all: an equation is no number, a set no expression."""
    from sympy import Expr, MatrixBase, Set
    from sympy.core.relational import Relational

    kinds = [
        (isinstance(one, Relational), isinstance(one, Set), isinstance(one, MatrixBase)) for one in (given, expected)
    ]
    return kinds[0] == kinds[1] and isinstance(given, Expr) == isinstance(expected, Expr)


def _same_everywhere(given: Any, expected: Any) -> bool | None:
    """Equality of two expressions by exact values at rational points; None where that cannot be computed."""
    from sympy import Expr, Product, Sum

    if not isinstance(given, Expr) or not isinstance(expected, Expr):
        return None
    names = sorted(given.free_symbols | expected.free_symbols, key=str)
    given, expected = (one.doit() if names and one.has(Sum, Product) else one for one in (given, expected))
    if names and (given.has(Sum, Product) or expected.has(Sum, Product)):
        return None  # the points are no whole numbers
    agreed = 0
    for point in _points(names):
        pair = _value(given, point), _value(expected, point)
        if pair[0] is None or pair[1] is None:
            if not names:
                return None
            if len(names) == 1 and _one_is_off_its_domain((given, expected), pair, point):
                return False
            continue
        if not _close(*pair):
            return False
        agreed += 1
    if agreed < (1 if not names else 3):
        return None
    return True if names else _exactly(given, expected)


def _one_is_off_its_domain(pair: Any, values: Any, point: Any) -> bool:
    """Whether just one of two real functions has no real value here, as \\ln x beside \\ln|x| at -1.

    Poles do not count, since what algebra cancels has none, nor do odd roots, whose principal values are not real.
    """
    from sympy import Number, Pow, im

    if (values[0] is None) is (values[1] is None) or any(one.has(_unit()) for one in pair):
        return False
    off = pair[0] if values[0] is None else pair[1]
    if any(power.exp.is_Rational and power.exp.q % 2 and power.exp.q > 1 for power in off.atoms(Pow)):
        return False
    imaginary = im(off.subs(point).doit().evalf(_DIGITS, maxn=400))
    return isinstance(imaginary, Number) and imaginary.is_finite and bool(abs(imaginary) > _CLOSE)


def _exactly(given: Any, expected: Any) -> bool:
    """Constants that agree to 60 digits are equal unless algebra shows that they differ further down."""
    difference = (given - expected).doit()
    return bool(difference.is_zero is not False)


def _proportional(given: Any, expected: Any) -> bool | None:
    """Whether two expressions have the same zeros because one is a constant multiple of the other; None: not known."""
    names = sorted(given.free_symbols | expected.free_symbols, key=str)
    if not names or given.free_symbols != expected.free_symbols:
        return False if names else None
    ratios = []
    for point in _points(names):
        pair = _value(given, point), _value(expected, point)
        if pair[0] is not None and pair[1] is not None and abs(pair[1]) > _CLOSE:
            ratios.append(pair[0] / pair[1])
    if len(ratios) < 3 or abs(ratios[0]) < _CLOSE:
        return None
    return True if all(_close(ratio, ratios[0]) for ratio in ratios) else None


def _points(names: list[Any]) -> Any:
    """Values for the variables: positive, negative and mixed, all different."""
    from sympy import Rational

    if not names:
        return ({},)
    return [
        {name: Rational(pair[place % 2]) + Rational(place * place, 7 + place) for place, name in enumerate(names)}
        for pair in _POINTS
    ]


def _value(expression: Any, point: Any) -> Any:
    """The number that an expression is at a point, to 60 digits; None where it has no finite (at points: real) one."""
    from sympy import Number, im
    from sympy import re as real

    value = expression.subs(point).doit().evalf(_DIGITS, maxn=400)
    parts = real(value), im(value)
    if not all(isinstance(part, Number) and part.is_finite for part in parts):
        return None
    if point and abs(parts[1]) > _CLOSE and not expression.has(_unit()):
        return None  # off its domain
    return parts[0] + parts[1] * _unit()


def _unit() -> Any:
    from sympy import I

    return I


def _close(a: Any, b: Any) -> bool:
    from sympy import Abs

    size = max(Abs(a).evalf(_DIGITS), Abs(b).evalf(_DIGITS))
    return bool(Abs(a - b).evalf(_DIGITS) <= _CLOSE * max(size, 10.0**-30))


def _parse(text: str, context: str) -> Any:
    """The expression that a text is, as math-verify's parser reads it; `context` tells whether i is imaginary."""
    return _read(text, imaginary=bool(_IMAGINARY.search(context)) and not _INDEXED.search(context))


@lru_cache(maxsize=1024)  # a reference is parsed against probes, itself and every answer: most of the work
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
    found = latex2sympy(
        normalize_latex(text, config),
        is_real=True,
        normalization_config=None,
        conversion_config=ConversionConfig(lowercase_symbols=False),
    )
    if imaginary:
        symbols = [one for one in found.free_symbols if str(one) == "i"]
        found = found.subs(dict.fromkeys(symbols, I)) if symbols else found
    return found.subs({one: Symbol(str(one), real=True) for one in found.free_symbols})


def _restrict() -> None:
    """A bound on memory and no core files; systems that cannot do it go without, since time is bounded anyway."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, ValueError, OSError):
        pass


if __name__ == "__main__":
    main()
