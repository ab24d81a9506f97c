r"""Computes the trees of `parser` exactly or to 60 digits, and compares them: as values, or as equations.

Numbers stay exact fractions as long as they can. Expressions with variables are compared at fixed points, the same for
both sides: positive, negative, mixed and whole ones. Nothing here takes long: values with too many digits, long sums
and undefined operations raise `Incomputable`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import mpmath
from mpmath import mp

from r1kit.verifiers.math.parser import Tree, number, operations, symbols

Value = Fraction | Any  # an exact fraction, or a real or complex number of mpmath

mp.dps = 60
_CLOSE = mpmath.mpf(10) ** -50
_ROUGH = mpmath.mpf(10) ** -15  # for limits, integrals and derivatives, which are approximated
_SMALL = mpmath.mpf(10) ** -3  # rounding makes \sin\pi about 10^-60, which is no value of its own
_APPROXIMATED = frozenset(("lim", "int", "derivative"))
_MAX_BITS = 20_000
_MAX_TERMS = 2000
_ENOUGH = 6  # points at which two expressions must agree, if that many are in their domain; three must be
# Values of the variables, far from the usual zeros and poles of answers.
_POINTS = [
    [Fraction(pair) for pair in points.split()]
    for points in (
        "17/13 23/7 5/19",
        "-19/11 29/17 -7/23",
        "31/5 -37/23 11/3",
        "5/17 2/11 3/7",
        "-3/7 -41/29 -8/5",
        "7 4 3",
        "11 2 6",
        "8/11 9/19 1/5",
        "2/53 101/3 12/7",
        "12 5 9",
        "13/29 6/31 7/41",
        "9 3 8",
    )
]


class Incomputable(ValueError):
    """The value is undefined, or too large to compute."""


class _Elsewhere(Incomputable):
    """The value is defined only at whole numbers."""


def compute(tree: Tree, variables: Mapping[str, Value] | None = None) -> Value:
    """The value of a tree; raises `Incomputable`."""
    try:
        return _value(tree, variables or {})
    except (ArithmeticError, ValueError, RecursionError, MemoryError) as error:
        if isinstance(error, Incomputable):
            raise
        raise Incomputable(f"{type(error).__name__} in a computation") from None


def constant(tree: Tree) -> Value | None:
    """The value of a tree without variables; None if it has variables or no value."""
    try:
        return None if symbols(tree) else compute(tree)
    except Incomputable:
        return None


def equal(left: Tree, right: Tree) -> bool:
    """Whether two expressions have the same value, at every point of the variables; raises `Incomputable`."""
    names, used = sorted(symbols(left) | symbols(right)), operations(left) | operations(right)
    tolerance = _ROUGH if used & _APPROXIMATED else _CLOSE
    if not names:
        if not close(compute(left), compute(right), tolerance):
            return False
        if tolerance is _ROUGH:
            return True
        with mp.workdps(3 * mp.dps):  # constants may be close without being equal
            return close(compute(left), compute(right), _CLOSE**3)
    agreed = 0
    for place, point in enumerate(points(names)):
        values = [_at(tree, point, "imaginary" in used) for tree in (left, right)]
        if isinstance(values[0], str) or isinstance(values[1], str):
            if len(names) == 1 and values.count("not real") == 1 and "undefined" not in values:
                return False  # like \ln x and \ln|x| at -1
            continue
        if not close(values[0], values[1], tolerance):
            return False
        agreed += 1
        if agreed >= _ENOUGH and place >= _ENOUGH:
            break
    if agreed < 3:
        raise Incomputable("the values at too few points are defined")
    return True


def ratio(left: Tree, right: Tree) -> Value | None:
    """The constant c with `left == c * right` at all points; None if there is none."""
    if symbols(left) != symbols(right):
        return None
    ratios: list[Value] = []
    for point in points(sorted(symbols(left))):
        values = [_at(tree, point, True) for tree in (left, right)]
        if isinstance(values[0], str) or isinstance(values[1], str):
            continue
        zeros = sum(abs(floating(value)) < _CLOSE for value in values)
        if zeros == 1:
            return None
        if zeros:
            continue
        ratios.append(divide(*values))
        if not close(ratios[0], ratios[-1], _CLOSE):
            return None
        if len(ratios) >= _ENOUGH:
            break
    return ratios[0] if len(ratios) >= 3 else None


def is_zero(tree: Tree) -> bool:
    """Whether an expression is zero everywhere; raises `Incomputable`."""
    return equal(tree, number(0))


def close(left: Value, right: Value, tolerance: Any = _CLOSE) -> bool:
    """Whether two values are equal: exactly if both are fractions, otherwise to the given relative tolerance."""
    if isinstance(left, Fraction) and isinstance(right, Fraction):
        return left == right
    a, b = floating(left), floating(right)
    return bool(abs(a - b) <= tolerance * max(abs(a), abs(b), _SMALL))


def real(tree: Tree) -> Value | None:
    """The value of a tree that is a real constant, otherwise None."""
    value = constant(tree)
    if value is None or isinstance(value, Fraction):
        return value
    return value.real if abs(value.imag) <= _CLOSE * (1 + abs(value)) else None


def numerator(tree: Tree) -> Tree:
    """The numerator of an expression over a common denominator, so that it is zero where the expression is."""
    return _fraction(tree)[0]


def _fraction(tree: Tree) -> tuple[Tree, Tree]:
    unit = number(1)
    match tree:
        case ("plus", left, right):
            (a, b), (c, d) = _fraction(left), _fraction(right)
            if b == d:
                return ("plus", a, c), b
            return ("plus", _times(a, d), _times(c, b)), _times(b, d)
        case ("minus", inner):
            a, b = _fraction(inner)
            return ("minus", a), b
        case ("times", left, right):
            (a, b), (c, d) = _fraction(left), _fraction(right)
            return _times(a, c), _times(b, d)
        case ("over", left, right) if symbols(right):
            (a, b), (c, d) = _fraction(left), _fraction(right)
            return _times(a, d), _times(b, c)
        case ("power", base, ("minus", exponent)):
            return unit, ("power", base, exponent)
    return tree, unit


def _times(left: Tree, right: Tree) -> Tree:
    unit = number(1)
    return right if left == unit else left if right == unit else ("times", left, right)


def points(names: list[str]) -> list[dict[str, Value]]:
    """Values for the variables, all different; one empty point for none."""
    rows = _POINTS if names else _POINTS[:1]
    return [{name: row[place % 3] + 13 * (place // 3) for place, name in enumerate(names)} for row in rows]


def nearest(value: Any) -> Any:
    """The nearest whole number to the real part of a number of mpmath."""
    return mpmath.nint(value.real)


def renamed(tree: Tree, name: str, to: str) -> Tree:
    """The tree with another name for a variable."""
    if tree == ("symbol", name):
        return ("symbol", to)
    return tuple(renamed(part, name, to) if isinstance(part, tuple) else part for part in tree)


def _at(tree: Tree, point: Mapping[str, Value], complex_: bool) -> Value | str:
    """The value at a point, or "not real", "undefined" or "elsewhere"."""
    try:
        value = compute(tree, point)
    except _Elsewhere:
        return "elsewhere"
    except Incomputable:
        return "undefined"
    if isinstance(value, mpmath.mpc) and not complex_:
        return "not real" if abs(value.imag) > _CLOSE * (1 + abs(value)) else value.real
    return value


def floating(value: Value) -> Any:
    """The value as a number of mpmath."""
    if isinstance(value, Fraction):
        return mpmath.mpf(value.numerator) / value.denominator
    return value


def _checked(value: Value) -> Value:
    """The value, unless it is infinite or has too many digits."""
    if isinstance(value, Fraction):
        if max(value.numerator.bit_length(), value.denominator.bit_length()) > _MAX_BITS:
            raise Incomputable("too many digits")
        return value
    if not mpmath.isfinite(value) or any(
        abs(mpmath.mag(part)) > _MAX_BITS for part in (value.real, value.imag) if part
    ):
        raise Incomputable("infinite, or too many digits")
    return value


def _value(tree: Tree, variables: Mapping[str, Value]) -> Value:
    operation = tree[0]
    match tree:
        case ("number", value):
            return value
        case ("symbol", name):
            if name not in variables:
                raise Incomputable(f"{name} has no value")
            return variables[name]
        case ("constant", "pi" | "e"):
            return +getattr(mp, tree[1])
        case ("imaginary",):
            return mpmath.mpc(0, 1)
        case ("apply", name, *arguments):
            return _unknown_function(name, [_value(argument, variables) for argument in arguments])
        case ("sum" | "prod", name, first, last, body):
            return _series(operation == "sum", name, _value(first, variables), _value(last, variables), body, variables)
        case ("int", name, first, last, body):
            ends = [floating(_value(end, variables)) for end in (first, last)]
            with mp.workdps(25):  # more than `_ROUGH` needs
                return _checked(mp.quad(_function_of(name, body, variables), ends))
        case ("derivative", name, order, body):
            if name not in variables:
                raise Incomputable(f"{name} has no value")
            return mp.diff(_function_of(name, body, variables), floating(variables[name]), int(order[1]))
        case ("lim", name, goal, body):
            return _limit(_function_of(name, body, variables), goal, variables)
        case ("power", base, exponent):
            moving = bool(symbols(exponent)) and not symbols(base)
            return _power(_value(base, variables), _value(exponent, variables), moving)
    return _checked(_OPERATIONS[operation](*(_value(part, variables) for part in tree[1:])))


def _function_of(name: str, body: Tree, variables: Mapping[str, Value]) -> Callable[[Any], Any]:
    return lambda value: floating(_value(body, {**variables, name: value}))


def _unknown_function(name: str, arguments: list[Value]) -> Value:
    """A value that depends on the name and the arguments alone, as if the function were a random one."""
    values = ",".join(mpmath.nstr(floating(argument), 40) for argument in arguments)
    return Fraction(int.from_bytes(hashlib.sha256(f"{name}({values})".encode()).digest()[:4]), 10**9 + 7)


def _whole(value: Value) -> int:
    if isinstance(value, Fraction) and value.denominator == 1:
        return value.numerator
    raise _Elsewhere("defined for whole numbers only")


def _series(summed: bool, name: str, first: Value, last: Value, body: Tree, variables: Mapping[str, Value]) -> Value:
    start, stop = _whole(first), _whole(last)
    if stop - start > _MAX_TERMS:
        raise Incomputable("too many terms")
    total: Value = Fraction(not summed)
    for index in range(start, stop + 1):
        term = _value(body, {**variables, name: Fraction(index)})
        total = add(total, term) if summed else _multiply(total, term)
    return total


def _limit(function: Callable[[Any], Any], goal: Tree, variables: Mapping[str, Value]) -> Value:
    tiny = mpmath.mpf(10) ** -20
    if goal == ("constant", "oo"):
        sides = [function(1 / tiny), function(10 / tiny)]
    else:
        target = floating(_value(goal, variables))
        sides = [function(target + tiny), function(target - tiny)]
    if not close(sides[0], sides[1], _ROUGH) and max(map(abs, sides)) > _ROUGH:
        raise Incomputable("no limit found")
    return _checked(sides[0])


def add(left: Value, right: Value) -> Value:
    """left + right"""
    if isinstance(left, Fraction) and isinstance(right, Fraction):
        return left + right
    return floating(left) + floating(right)


def _multiply(left: Value, right: Value) -> Value:
    if isinstance(left, Fraction) and isinstance(right, Fraction):
        return left * right
    return floating(left) * floating(right)


def divide(left: Value, right: Value) -> Value:
    """left / right; raises `Incomputable` for zero."""
    if not right:
        raise Incomputable("division by zero")
    if isinstance(left, Fraction) and isinstance(right, Fraction):
        return left / right
    if abs(floating(right)) < _CLOSE * mpmath.mpf(10) ** -5:
        raise Incomputable("division by zero")
    return floating(left) / floating(right)


def _power(base: Value, exponent: Value, moving: bool = False) -> Value:
    """A power; odd roots of negative numbers are real. `moving`: only the exponent has variables, as in (-1)^n."""
    if isinstance(exponent, Fraction):
        if not base and exponent <= 0:
            if exponent or moving:
                raise Incomputable("a power of zero")
            return Fraction(1)
        if exponent.denominator == 1:
            if isinstance(base, Fraction):
                bits = max(base.numerator.bit_length(), base.denominator.bit_length())
                if bits > 1 and bits * abs(exponent) > _MAX_BITS:
                    raise Incomputable("too many digits")
                return base**exponent.numerator
            return _checked(_checked_power(floating(base), exponent.numerator))
        negative = isinstance(base, Fraction | mpmath.mpf) and base < 0
        if negative and moving:
            raise _Elsewhere("defined for whole numbers only")
        if negative and exponent.denominator % 2:
            root = _power(-base, exponent)
            return -root if exponent.numerator % 2 else root
        if isinstance(base, Fraction) and base > 0 and exponent.denominator <= 12:
            over, under = (_exact_root(part, exponent.denominator) for part in (base.numerator, base.denominator))
            if over is not None and under is not None:
                return _power(Fraction(over, under), Fraction(exponent.numerator))
    return _checked(_checked_power(floating(base), floating(exponent)))


def _checked_power(base: Any, exponent: Any) -> Any:
    """base ** exponent, unless the result has a huge magnitude."""
    size = abs(mpmath.mag(base)) if base else 0
    if abs(exponent) * max(size, 1) > _MAX_BITS:
        raise Incomputable("too many digits")
    return base**exponent


def _exact_root(value: int, index: int) -> int | None:
    """The root of a whole number that has a whole root."""
    root = math.isqrt(value) if index == 2 else round(mpmath.nthroot(value, index)) if value else 0
    return root if root**index == value else None


def _factorial(value: Value) -> Value:
    if isinstance(value, Fraction) and value.denominator == 1:
        if not 0 <= value <= 2000:
            raise Incomputable("a factorial of a negative or large number")
        return Fraction(math.factorial(value.numerator))
    if abs(floating(value)) > 10**4:
        raise Incomputable("a factorial of a large number")
    return mpmath.gamma(floating(value) + 1)


def _binomial(above: Value, below: Value) -> Value:
    if all(isinstance(value, Fraction) and value.denominator == 1 for value in (above, below)):
        if not 0 <= above <= 5000 or not -5000 <= below <= 5000:
            raise Incomputable("a binomial coefficient of large or negative numbers")
        return Fraction(math.comb(int(above), int(below)) if below >= 0 else 0)
    if max(abs(floating(above)), abs(floating(below))) > 10**4:
        raise Incomputable("a binomial coefficient of large numbers")
    return mpmath.binomial(floating(above), floating(below))


def _modulo(value: Value, modulus: Value) -> Value:
    if not isinstance(value, Fraction) or not isinstance(modulus, Fraction) or not modulus:
        raise Incomputable("a remainder of numbers that are not exact")
    return value % modulus


def _rounded(value: Value, up: bool) -> Value:
    if isinstance(value, Fraction):
        return Fraction(math.ceil(value) if up else math.floor(value))
    if value.imag:
        raise Incomputable("a complex number is not rounded")
    nearest = mpmath.nint(value.real)
    if abs(value - nearest) < _CLOSE * (1 + abs(nearest)):
        return Fraction(int(nearest))
    return Fraction(int(mpmath.ceil(value.real) if up else mpmath.floor(value.real)))


def _plain(name: str) -> Callable[[Value], Value]:
    """A function of mpmath for arguments of a moderate size."""
    function = getattr(mpmath, name)

    def of(value: Value) -> Value:
        argument = floating(value)
        if abs(argument) > 10**9 and name != "log":
            raise Incomputable("too large an argument")
        return function(argument)

    return of


def _chosen(choose: Callable[..., Any]) -> Callable[..., Value]:
    def of(*values: Value) -> Value:
        if any(not isinstance(value, Fraction | mpmath.mpf) for value in values):
            raise Incomputable("no order")
        return choose(values, key=floating)

    return of


_ARITHMETIC: dict[str, Callable[..., Value]] = {
    "plus": add,
    "minus": lambda value: -value,
    "times": _multiply,
    "over": divide,
    "root": lambda value, index: _power(value, divide(Fraction(1), index)),
    "abs": abs,
    "mod": _modulo,
    "factorial": _factorial,
    "binomial": _binomial,
    "permutations": lambda total, chosen: _multiply(_binomial(total, chosen), _factorial(chosen)),
    "floor": lambda value: _rounded(value, up=False),
    "ceiling": lambda value: _rounded(value, up=True),
    "gcd": lambda *values: Fraction(math.gcd(*map(_whole, values))),
    "lcm": lambda *values: Fraction(math.lcm(*map(_whole, values))),
    "max": _chosen(max),
    "min": _chosen(min),
    "ln": _plain("log"),
}
_OPERATIONS = _ARITHMETIC | {
    name: _plain(of)
    for name, of in (
        *((name, name) for name in ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh", "exp")),
        *((f"arc{name}", f"a{name}") for name in ("sin", "cos", "tan")),
    )
}
