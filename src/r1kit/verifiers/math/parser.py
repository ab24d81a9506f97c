r"""Parses a formula in LaTeX or plain notation into a tree: `parse("2x") == ("times", ("number", 2), ("symbol", "x"))`.

A tree is a tuple of an operation and its operands; `evaluation` computes it. The grammar is closed: an unknown command,
a word, or notation with two readings raises `Unreadable`, so prose never becomes a product of letters. A number divides
only itself (`2/3x` is (2/3)x), a letter the letters behind it (`1/xy` is 1/(xy)); `1/\sqrt{2}x` has two readings.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from typing import Any

Tree = tuple[Any, ...]

_MAX_DEPTH = 80  # of atoms inside atoms: brackets, fractions, functions of functions
_MAX_TOKENS = 500
TRIGONOMETRIC = ("sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh")
_FUNCTIONS = (*TRIGONOMETRIC, "ln", "log", "lg", "exp")
_MANY = ("gcd", "lcm", "max", "min")
_WORDS = (*_FUNCTIONS, *_MANY, "sqrt", "mod", "pi", "infty", "infinity")
_GREEK_NAMES = """
    alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau upsilon
    phi varphi chi psi omega Gamma Delta Theta Lambda Xi Sigma Upsilon Phi Psi Omega ell imath hbar
"""
_GREEK = frozenset(_GREEK_NAMES.split())
_TOKEN = re.compile(
    r"\s*(?:"
    r"(?P<number>[1-9]\d{0,2}(?:,\d{3})+(?![\d,])(?:\.\d+)?|\d+(?:\.\d*)?|\.\d+)"
    r"|(?P<index>_\s*(?:\{(?:[^{}]|\{[^{}]*\})*\}|\d+|[A-Za-z]|\\[A-Za-z]+))"
    r"|(?P<prime>'+|\^\s*\{\s*(?:\\prime\s*|')+\}|\^\s*\\prime(?![A-Za-z]))"
    r"|(?P<degree>\^\s*\{?\s*\\circ(?![A-Za-z])\s*\}?|\\degree(?![A-Za-z]))"
    r"|\\(?:text|textrm|textbf|mathrm|mathbf|mathit|operatorname|mbox|boldsymbol|bm)\s*\{(?P<text>[^{}]*)\}"
    r"|\\(?P<name>(?:overline|bar|vec|hat|overrightarrow|widehat|tilde|mathcal|mathbb)\s*(?:\{[^{}\\]*\}|[A-Za-z])"
    r"|(?:angle|triangle)\s*\{?\s*[A-Z]{1,3}(?![A-Za-z])\s*\}?)"
    r"|\\frac\s*\{\s*(?P<derivative>d(?:\^\{?\d\}?)?\s*[A-Za-z]?\s*\}\s*\{\s*d\s*[A-Za-z](?:\^\{?\d\}?)?)\s*\}"
    r"|\\?(?P<word>(?<![A-Za-z])(?:" + "|".join(_WORDS) + r")(?![A-Za-z]))"
    r"|(?P<command>\\[A-Za-z]+)"
    r"|(?P<letters>[A-Za-z]+)"
    r"|(?P<sign>\*\*|\\[|%]|[-+*/^!|(){}\[\],%]))"
)
_SHORT_WORDS = {"or", "and", "not", "but", "the", "is", "if", "to", "vs", "no", "of", "it", "at", "by", "are", "for"}
_UNKNOWN_FUNCTIONS = frozenset("fghFGH")
_TIMES = ("\\cdot", "\\times", "\\ast", "*")
_EXPONENTS = ("{", "(", "\\frac", "sqrt", "pi")  # other tokens that may begin an exponent
_CLOSING = {"(": ")", "[": "]", "{": "}"}
_BRACKETS = {"\\lfloor": ("\\rfloor", "floor"), "\\lceil": ("\\rceil", "ceiling"), "\\lvert": ("\\rvert", "abs")}
_REPEATING = re.compile(r"(\d*)\.(\d*)\\overline\s*\{(\d{1,18})\}")
_VARIABLE = re.compile(r"\s*[A-Za-z]\s*")
BINDERS = ("sum", "prod", "int", "lim", "derivative")  # operations whose first operand is the variable that they bind


class Unreadable(ValueError):
    """The text is no formula of this grammar."""


@lru_cache(maxsize=4096)
def parse(text: str, *, imaginary: bool = True) -> Tree:
    """The tree of a formula. `imaginary` says whether the letter i is the imaginary unit or a variable."""
    parser = _Parser(_tokens(_REPEATING.sub(_repeating, text)), imaginary)
    tree = parser.whole()
    if parser.kind:
        raise Unreadable(f"{parser.text!r} is not expected here")
    return tree


def symbols(tree: Tree) -> frozenset[str]:
    """The names of the free variables."""
    if tree[0] == "symbol":
        return frozenset([tree[1]])
    parts = list(map(symbols, _operands(tree)))
    if tree[0] in BINDERS:
        body = parts.pop()
        return frozenset().union(*parts, body if tree[0] == "derivative" else body - {tree[1]})
    return frozenset().union(*parts)


def operations(tree: Tree) -> frozenset[str]:
    """The names of all operations in a tree."""
    return frozenset([tree[0]]).union(*map(operations, _operands(tree)))


def _operands(tree: Tree) -> list[Tree]:
    """The operands that are trees themselves."""
    return [part for part in tree[1:] if isinstance(part, tuple)]


def number(value: int | Fraction) -> Tree:
    """The tree of a number."""
    return ("number", Fraction(value))


def _repeating(match: re.Match[str]) -> str:
    r"""`0.1\overline{6}` as a fraction."""
    whole, fixed, cycle = match.groups()
    value = (int(whole + fixed or "0") + Fraction(int(cycle), 10 ** len(cycle) - 1)) / 10 ** len(fixed)
    return f"(\\frac{{{value.numerator}}}{{{value.denominator}}})"


def _tokens(text: str) -> list[tuple[str, str]]:
    """Kind and text of each token; letters are single."""
    tokens: list[tuple[str, str]] = []
    position, text = 0, text.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise Unreadable(f"{text[position : position + 10]!r} is not part of a formula")
        position, kind = match.end(), str(match.lastgroup)
        token = match[kind]
        if kind == "text":
            kind = "word" if token.strip() in _WORDS else "letters"
            token = token.strip()
            if not token:
                continue
            if token.isdigit():
                kind = "number"
            elif kind == "letters" and (len(token) > 1 or not token.isalpha()):
                raise Unreadable(f"{token!r} is a word")
        if kind == "letters":
            if len(token) > 3 or (token.casefold() in _SHORT_WORDS and not token.isupper()):
                raise Unreadable(f"{token!r} is a word")
            tokens.extend(("letter", char) for char in token)
        else:
            tokens.append((kind, "^" if token == "**" else token))
    if not tokens or len(tokens) > _MAX_TOKENS:
        raise Unreadable("the formula is empty or too long")
    return tokens


class _Parser:
    """Recursive descent over the tokens."""

    def __init__(self, tokens: list[tuple[str, str]], imaginary: bool) -> None:
        self._tokens, self._imaginary = [*tokens, ("", ""), ("", "")], imaginary
        self._place = self._depth = self._bars = 0
        self._differential = False  # inside an integral, `dx` ends the integrand

    @property
    def kind(self) -> str:
        return self._tokens[self._place][0]

    @property
    def text(self) -> str:
        return self._tokens[self._place][1]

    def whole(self) -> Tree:
        r"""A sum, or two with \over or \choose between them."""
        tree = self.sum()
        if self.text in ("\\over", "\\choose"):
            return ("over" if self._take() == "\\over" else "binomial", tree, self.sum())
        return tree

    def sum(self) -> Tree:
        """Terms joined by + and -."""
        tree = self._signed()
        while self.text in ("+", "-") and self.kind == "sign":
            sign = self._take()
            term = self._signed()
            tree = ("plus", tree, term if sign == "+" else ("minus", term))
        return tree

    def _signed(self) -> Tree:
        return self._negated(self._signs(), self._product())

    def _signs(self) -> bool:
        """Takes signs; whether what follows is negative."""
        negative = False
        while self.text in ("+", "-"):
            negative ^= self._take() == "-"
        return negative

    def _negated(self, negative: bool, tree: Tree) -> Tree:
        return ("minus", tree) if negative else tree

    def _product(self) -> Tree:
        tree = self._juxtaposed()
        while True:
            if self.text in _TIMES:
                self._take()
                tree = ("times", tree, self._negated(self._signs(), self._juxtaposed()))
            elif self.text in ("/", "\\div"):
                self._take()
                tree = self._divided(tree)
            elif self.text in ("mod", "\\bmod"):
                self._take()
                tree = ("mod", tree, self._juxtaposed())
            elif self._starts_factor():
                tree = ("times", tree, self._juxtaposed())
            else:
                return tree

    def _divided(self, tree: Tree) -> Tree:
        """The quotient of `tree` and the denominator that follows; see the module on juxtaposition."""
        negative, kind = self._signs(), self.kind
        below = self._power()
        if kind == "letter":
            while self.kind == "letter":
                below = ("times", below, self._power())
        if kind != "number" and self._starts_factor():
            raise Unreadable("a slash before a product has two readings")
        return ("over", tree, self._negated(negative, below))

    def _juxtaposed(self) -> Tree:
        """Factors without a sign between them. A number comes first, has a power, or follows one or an index."""
        tree = self._power()
        while self._starts_factor():
            before = tree[-1] if tree[0] == "times" else tree
            raised = self._tokens[self._place + 1][1] == "^" and before[0] != "number"  # (n+1)2^n
            indexed = before[0] == "symbol" and "_" in before[1]
            if self.kind == "number" and not (raised or indexed or before[0] == "power"):
                raise Unreadable("a number after its factor")
            tree = ("times", tree, self._power())
        return tree

    def _starts_factor(self) -> bool:
        kind, text = self.kind, self.text
        if self._differential and text == "d" and self._tokens[self._place + 1][0] == "letter":
            return False
        if kind == "sign":
            return text in ("(", "[", "{") or (text in ("|", "\\|") and not self._bars)
        if kind == "command":
            return text not in (*_TIMES, "\\div", "\\bmod", "\\rfloor", "\\rceil", "\\rvert", "\\over", "\\choose")
        return kind in ("number", "name", "letter", "derivative") or (kind == "word" and text != "mod")

    def _power(self) -> Tree:
        tree = self._postfix(self._atom())
        if self.text == "^":
            self._take()
            exponent = self._script()
            if self.kind == "index" and tree[0] == "symbol" and "_" not in tree[1]:  # v^2_0
                tree = ("symbol", tree[1] + _index(self._take()))
            tree = _selections(tree, exponent) or ("power", tree, exponent)
            if self.text == "^":
                raise Unreadable("two exponents")
            tree = self._postfix(tree)
        return tree

    def _postfix(self, tree: Tree) -> Tree:
        while True:
            if self.text == "!" and self.kind == "sign":
                self._take()
                if self.text == "!":
                    raise Unreadable("a double factorial")
                tree = ("factorial", tree)
            elif self.kind == "degree":
                self._take()
                tree = ("times", tree, ("over", ("constant", "pi"), number(180)))
            elif self.text in ("%", "\\%"):
                self._take()
                tree = ("over", tree, number(100))
            else:
                return tree

    def _script(self) -> Tree:
        """The exponent: a group, or one signed number, letter or command."""
        negative, text = self._signs(), self.text
        if self.kind in ("number", "letter", "name") or text in _EXPONENTS or text[1:] in _GREEK:
            return self._negated(negative, self._atom())
        raise Unreadable("no exponent")

    def _atom(self) -> Tree:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise Unreadable("nested too deeply")
        tree = self._innermost(self.kind, self._take())
        self._depth -= 1
        return tree

    def _innermost(self, kind: str, text: str) -> Tree:
        match kind:
            case "number":
                return self._number(text)
            case "letter":
                return self._letter(text)
            case "name":
                return self._named(re.sub(r"[\s{}]+", " ", text).strip())
            case "derivative":
                return self._derivative(text)
            case "word":
                return self._word(text)
            case "command":
                return self._command(text)
            case "sign" if text in _CLOSING:
                return self._bracketed(_CLOSING[text])
            case "sign" if text in ("|", "\\|"):
                return self._absolute(text)
        raise Unreadable(f"{text!r} is not expected here" if text else "the formula breaks off")

    def _number(self, text: str) -> Tree:
        value = Fraction(text.replace(",", "").removesuffix("."))
        place = self._place
        if self.text == "\\frac" and value.denominator == 1:  # 1\frac{3}{4}
            part = self._atom()
            if part[0] == "over" and part[1][0] == part[2][0] == "number" and 0 < part[1][1] < part[2][1]:
                return number(value + part[1][1] / part[2][1])
            self._place = place
        return number(value)

    def _letter(self, letter: str) -> Tree:
        if letter == "e" and self.kind != "index":
            return ("constant", "e")
        if letter == "i" and self._imaginary and self.kind != "index":
            return ("imaginary",)
        if letter == "C" and self.text == "(":
            place = self._place
            arguments = self._arguments()
            if len(arguments) == 2:
                return ("binomial", *arguments)
            self._place = place
        return self._named(letter)

    def _named(self, name: str) -> Tree:
        """A variable with its index and primes, or an unknown function and its argument."""
        while self.kind in ("index", "prime"):
            kind, text = self.kind, self._take()
            name += _index(text) if kind == "index" else "'" * (text.count("'") + text.count("prime"))
        if ((name[0] in _UNKNOWN_FUNCTIONS and len(name) == 1) or name[-1:] == "'") and self.text == "(":
            return ("apply", name, *self._arguments())
        return ("symbol", name)

    def _derivative(self, text: str) -> Tree:
        above, below = (re.sub(r"[\s{}^]", "", part) for part in re.split(r"\}\s*\{", text))
        order = int(above[1]) if above[1:2].isdigit() else 1
        subject = above.lstrip("d123456789")
        if subject or (above == "d" and self.text not in ("(", "[", "{") and not self._starts_factor()):
            return ("symbol", f"{above}/{below}")  # dy/dx
        return ("derivative", below[1], number(order), self._juxtaposed())

    def _word(self, word: str) -> Tree:
        if word == "pi":
            return ("constant", "pi")
        if word == "sqrt":
            index = number(2)
            if self.text == "[":
                self._take()
                index = self._bracketed("]")
            return ("root", self._argument(whole=True), index)
        if word in _MANY:
            return (word, *self._arguments())
        if word in _FUNCTIONS:
            return self._function(word)
        raise Unreadable(f"{word} is no value")

    def _function(self, name: str) -> Tree:
        base, exponent = None, None
        while self.kind == "index" or self.text == "^":
            if self.kind == "index":
                base = parse(_inside(self._take()), imaginary=self._imaginary)
            else:
                self._take()
                exponent = self._script()
        if base is not None and name != "log":
            raise Unreadable(f"{name} has no base")
        if exponent == ("minus", number(1)):
            name, exponent = f"arc{name}", None
            if name not in _FUNCTIONS:
                raise Unreadable(f"{name} is no function")
        tree: Tree = (name, self._argument_of_function())
        if name in ("log", "lg"):
            tree = ("over", ("ln", tree[1]), ("ln", base or number(10)))
        return tree if exponent is None else ("power", tree, exponent)

    def _argument_of_function(self) -> Tree:
        r"""`\sin 2x`: all factors up to the next function or bracket; brackets enclose the whole argument."""
        if self.text == "(":
            self._take()
            return self._bracketed(")")
        if self.kind == "word" and self.text in _FUNCTIONS:
            return self._power()
        tree = self._power()
        while self._starts_factor() and self.kind != "number" and self.text not in ("(", "["):
            if self.kind == "word" and self.text in _FUNCTIONS:
                break
            tree = ("times", tree, self._power())
        return tree

    def _command(self, command: str) -> Tree:
        name = command[1:]
        if name == "frac":
            above = self._argument()
            return ("over", above, self._argument())
        if name in ("binom", "dbinom", "tbinom"):
            above = self._argument()
            return ("binomial", above, self._argument())
        if command in _BRACKETS:
            closing, operation = _BRACKETS[command]
            return (operation, self._bracketed(closing))
        if name in ("sum", "prod", "int"):
            return self._over_range(name)
        if name == "lim" and self.kind == "index":
            variable, arrow, target = _inside(self._take()).partition("\\to")
            if arrow and _VARIABLE.fullmatch(variable):
                goal = ("constant", "oo") if "infty" in target else parse(target.strip(), imaginary=self._imaginary)
                return ("lim", variable.strip(), goal, self._juxtaposed())
        if name in _GREEK:
            return self._named(name)
        raise Unreadable(f"{command} is unknown")

    def _over_range(self, name: str) -> Tree:
        """A sum, a product or an integral with both ends."""
        lower, last = "", None
        while self.kind == "index" or self.text == "^":
            if self.kind == "index":
                lower = _inside(self._take())
            else:
                self._take()
                last = self._script()
        if not lower or last is None:
            raise Unreadable(f"{name} without a range")
        if name == "int":
            first, self._differential = parse(lower, imaginary=self._imaginary), True
            body = self.sum()
            self._differential = False
            if self.text != "d" or self._tokens[self._place + 1][0] != "letter":
                raise Unreadable("an integral without its variable")
            self._take()
            return ("int", self._take(), first, last, body)
        variable, _, start = lower.partition("=")
        if not _VARIABLE.fullmatch(variable):
            raise Unreadable("a range without its variable")
        imaginary = self._imaginary
        self._imaginary = imaginary and variable.strip() != "i"
        tree = (name, variable.strip(), parse(start, imaginary=False), last, self._product())
        self._imaginary = imaginary
        return tree

    def _argument(self, *, whole: bool = False) -> Tree:
        r"""A group, a letter, or one digit (`\frac12`) unless `whole` (`\sqrt 12`)."""
        kind, text = self.kind, self.text
        if kind == "letter":
            return self._letter(self._take())
        if kind == "number" and text.isdigit() and len(text) > 1 and not whole:
            self._tokens[self._place] = ("number", text[1:])
            return number(int(text[0]))
        if kind in ("number", "name", "word", "command") or text in ("{", "("):
            return self._atom()
        raise Unreadable("an argument is missing")

    def _arguments(self) -> list[Tree]:
        """`(a, b)` after the name of a function."""
        closing = _CLOSING.get(self._take())
        if closing is None:
            raise Unreadable("arguments are missing")
        arguments = [self.sum()]
        while self.text == ",":
            self._take()
            arguments.append(self.sum())
        if self._take() != closing:
            raise Unreadable("a bracket is not closed")
        return arguments

    def _bracketed(self, closing: str) -> Tree:
        bars, self._bars = self._bars, 0
        differential, self._differential = self._differential, False
        tree = self.whole() if closing == "}" else self.sum()
        self._bars, self._differential = bars, differential
        if self.text != closing:
            raise Unreadable("a bracket is not closed")
        self._take()
        return tree

    def _absolute(self, bar: str) -> Tree:
        self._bars += 1
        tree = self.sum()
        self._bars -= 1
        if self._take() != bar:
            raise Unreadable("a bar is not closed")
        return ("abs", tree)

    def _take(self) -> str:
        text = self.text
        if self.kind:
            self._place += 1
        return text


def _selections(base: Tree, exponent: Tree) -> Tree | None:
    """`C_{10}^{3}` counts choices, `A_5^2` and `P_5^2` permutations; None for other powers."""
    name, _, total = base[1].partition("_") if base[0] == "symbol" else ("", "", "")
    if name == "C" and re.fullmatch(r"\d*[a-z]", total):
        return ("binomial", parse(total), exponent)
    if name not in ("C", "A", "P") or not total.isdigit() or exponent[0] != "number":
        return None
    if not 0 <= exponent[1] <= int(total):
        return None
    return ("binomial" if name == "C" else "permutations", number(int(total)), exponent)


def _inside(index: str) -> str:
    """The text of an index without its braces."""
    text = index.lstrip("_").strip()
    return text[1:-1] if text.startswith("{") else text


def _index(text: str) -> str:
    r"""The index of a variable in one spelling: `_{\text{max}}`, `_{\max}` and `_{max}` are the same."""
    return "_" + re.sub(r"\\(?:text|textrm|mathrm|mathbf|operatorname)|[\s{}\\_]", "", text)
