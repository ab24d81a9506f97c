"""Model text as HTML: everything escaped, formulas as MathML, hidden characters made visible.

The browser renders MathML itself, so formulas need no script and no web font. The converter's output is rebuilt from
lists of allowed elements and attributes, because LaTeX can produce links, styles and raw tags.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from xml.etree.ElementTree import Element

LONGEST = 2000  # characters of a formula: bounds the converter's time and depth
DEEPEST = 40  # nested braces
# A wide formula scrolls in its own box, so the box takes the keyboard's focus and has a name for screen readers.
DISPLAY = '<span class="display" tabindex="0" role="group" aria-label="formula">{}</span>'
_ENVIRONMENTS = "align|aligned|alignat|array|cases|eqnarray|equation|gather|gathered|multline|split|[bBpvV]?matrix"
_OPENERS = re.compile(rf"\\\\|\\\$|\$\$|\$|\\\[|\\\(|\\boxed\s*{{|\\begin{{((?:{_ENVIRONMENTS})\*?)}}")
_BRACE = re.compile("[{}]")
_CLOSERS = {"$$": "$$", "\\[": "\\]", "\\(": "\\)", "$": "$"}
_TAGS = frozenset(
    re.findall(
        r"\w+",
        """math mrow mi mn mo ms mtext mspace mfrac msqrt mroot mstyle mpadded mphantom msub msup msubsup munder mover
        munderover mmultiscripts mprescripts mtable mtr mtd""",
    )
)
_ATTRIBUTES = frozenset(
    re.findall(
        r"\w+",
        """display displaystyle scriptlevel mathvariant stretchy fence separator form accent accentunder linethickness
        lspace rspace minsize maxsize movablelimits largeop symmetric columnalign width height depth voffset""",
    )
)
_VALUE = re.compile(r"[\w .%+-]{1,40}")
_ENVIRONMENT = re.compile(
    r"\\(begin|end)\{(alignat|aligned|align|eqnarray|equation|gathered|gather|multline)\*?\}(\{\d+\})?"
)
_KNOWN_AS = {"equation": "", "gather": "matrix", "gathered": "matrix", "multline": "matrix"}  # all others: align*
# Characters that change the direction of text or have no width: readers do not see them, but models learn them.
_HIDDEN = frozenset("\u061c\u180e\u200b\u200e\u200f\u2028\u2029\u2060\u2061\u2062\u2063\u2064\ufeff\u00ad") | frozenset(
    map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x2070), *range(0xE0000, 0xE0080)))
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_MARKED = re.compile("[" + "".join(sorted(_HIDDEN)) + "]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """Safe HTML of a text, and how many broken formulas and hidden characters it contains."""

    html: str
    broken: int = 0
    hidden: int = 0


def shown(text: str) -> str:
    """The text as a form sends it back unchanged: line ends are LF, control characters are U+FFFD."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n").replace("\r", "\n"))


def render(text: str) -> Rendered:
    """HTML of a text with its formulas: `$...$`, `$$...$$`, `\\(...\\)`, `\\[...\\]`, `\\boxed{...}`, environments."""
    pieces: list[str] = []
    broken, hidden, after_display = 0, 0, False
    for piece, latex, display in split(shown(text)):
        formula = mathml(latex, display) if latex else None
        if display and formula is not None and pieces:  # a display formula has its own margins
            pieces[-1] = pieces[-1].rstrip("\n ")
        if after_display:
            piece = piece.lstrip("\n ")
        after_display = display and formula is not None
        if formula is not None:
            pieces.append(DISPLAY.format(formula) if display else formula)
            broken += 'class="broken"' in formula  # quotes in text are escaped
            continue
        escaped, count = escape(piece)
        hidden += count
        broken += bool(latex)
        title = "this formula cannot be rendered: this is its source"
        pieces.append(f'<span class="broken" title="{title}">{escaped}</span>' if latex else escaped)
    return Rendered(html="".join(pieces), broken=broken, hidden=hidden)


def escape(text: str) -> tuple[str, int]:
    """Escaped text with hidden characters as code points, and their number."""

    def as_code(match: re.Match[str]) -> str:
        name = unicodedata.name(match[0], "hidden character")
        return f'<span class="hidden" title="{name}">U+{ord(match[0]):04X}</span>'

    return _MARKED.subn(as_code, html.escape(text))


def split(text: str) -> Iterator[tuple[str, str, bool]]:
    """Pieces in order: (source, LaTeX or "" for plain text, whether it is a display formula)."""
    done = 0
    for opener in _OPENERS.finditer(text):
        if opener.start() < done:
            continue
        formula = _formula(text, opener)
        if formula is None:
            continue
        latex, end, display = formula
        if opener.start() > done:
            yield text[done : opener.start()], "", False
        yield text[opener.start() : end], latex, display
        done = end
    if done < len(text):
        yield text[done:], "", False


def _formula(text: str, opener: re.Match[str]) -> tuple[str, int, bool] | None:
    """LaTeX, end and display of the formula that starts here, or None."""
    mark, start = opener[0], opener.end()
    if mark in ("\\\\", "\\$"):  # escaped
        return None
    if opener[1]:
        mark, start, closer = "env", opener.start(), f"\\end{{{opener[1]}}}"
        at = text.find(closer, start, start + LONGEST)
        return None if at < 0 else (text[start : at + len(closer)], at + len(closer), True)
    if mark not in _CLOSERS:
        depth = 1
        for brace in _BRACE.finditer(text, start, start + LONGEST):
            depth += 1 if brace[0] == "{" else -1
            if depth == 0:
                return text[opener.start() : brace.end()], brace.end(), False
            if depth > DEEPEST:
                break
        return None
    at = text.find(_CLOSERS[mark], start, start + LONGEST)
    inner, end = text[start:at], at + len(_CLOSERS[mark])
    if at < 0 or not inner.strip() or "\n\n" in inner:
        return None
    if mark == "$":  # "$5 and $10" is money
        if inner != inner.strip() or inner.endswith("\\") or text[end : end + 1].isdigit():
            return None
        return inner, end, False
    return inner.strip(), end, mark != "\\("


@lru_cache(maxsize=4096)
def mathml(latex: str, display: bool) -> str | None:
    """A formula as MathML; None if the converter cannot read it."""
    from latex2mathml.converter import convert_to_element

    def known(match: re.Match[str]) -> str:
        name = _KNOWN_AS.get(match[2], "align*")  # an equivalent that the converter knows, without equation numbers
        return f"\\{match[1]}{{{name}}}" if name else ""

    latex = _ENVIRONMENT.sub(known, latex)
    try:
        element = convert_to_element(latex, display="block" if display else "inline")
        return _written(element)
    except Exception:  # its errors share no base class, and its input can be any text
        return None


def _written(element: Element) -> str:
    """The element as HTML: allowed names only, text escaped."""
    tag = element.tag if element.tag in _TAGS else "mrow"
    kept = {name: value for name, value in element.attrib.items() if name in _ATTRIBUTES and _VALUE.fullmatch(value)}
    text = html.unescape(element.text or "")
    if "box" in element.get("notation", ""):  # menclose, which browsers do not draw
        kept["class"] = "boxed"
    elif tag == "mi" and text.startswith("\\") and len(text) > 1:
        kept["class"] = "broken"  # a command that the converter does not know
    attributes = "".join(f' {name}="{html.escape(value)}"' for name, value in kept.items())
    children = list(element)
    for before, child in zip([None, *children], children, strict=False):
        is_sign = child.tag == "mo" and html.unescape(child.text or "") in ("-", "\N{MINUS SIGN}", "+")
        operator = "" if before is None else html.unescape(before.text or "") if before.tag == "mo" else ")"
        if is_sign and (before is None or operator not in (")", "]", "}", "|", "!", "'", "")):
            child.set("form", "prefix")  # a sign as in -1 has less space than a minus
    inside = escape(shown(text))[0] + "".join(map(_written, children))
    return f"<{tag}{attributes}>{inside}</{tag}>{escape(shown(element.tail or ''))[0]}"
