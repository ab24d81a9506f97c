r"""Normalises the spelling of answers: digits of any script, invisible characters, markup, LaTeX and leading phrases.

The meaning never changes: `plain("The answer is **７２**.") == "72"`, `plain("x²≤½") == "x^{2}\\le \\frac{1}{2}"`.
Every function takes time linear in the length, and raises for no text.
"""

from __future__ import annotations

import re
import unicodedata

DOLLAR = "\1"  # placeholder for the currency sign, because dollars also enclose formulas
_OVERRIDES = "\u202d\u202e"  # these display text in another order; they are kept, so that such text stays unreadable
_CHARACTERS = str.maketrans(
    dict.fromkeys("−‐‑‒–—﹣－", "-")
    | dict.fromkeys("＋﹢", "+")
    | dict.fromkeys("⁄∕／", "/")
    | dict.fromkeys("×✕", "\\times ")
    | dict.fromkeys("·⋅∙", "\\cdot ")
    | dict.fromkeys("％٪﹪", "%")
    | dict.fromkeys("\u00a0\u2007\u2009\u202f\u3000\u2028\u2029", " ")
    | dict.fromkeys("“”„«»「」", '"')
    | dict.fromkeys("≤⩽≦", "\\le ")
    | dict.fromkeys("≥⩾≧", "\\ge ")
    | {"，": ",", "、": ",", "٬": ",", "．": ".", "٫": ".", "。": ".", "；": ";", "：": ":", "＝": "=", "≠": "\\ne "}
    | {"（": "(", "）": ")", "［": "[", "］": "]", "｛": "{", "｝": "}", "＄": "$", "￥": "¥", "’": "'", "‘": "'"}
    | {"π": "\\pi ", "∞": "\\infty ", "√": "\\sqrt ", "∛": "\\sqrt[3] ", "°": "^\\circ ", "÷": "\\div ", "±": "\\pm "}
    | {"∪": "\\cup ", "∩": "\\cap ", "∈": "\\in ", "∅": "\\emptyset ", "≈": "\\approx ", "θ": "\\theta "}
    | {"＜": "<", "＞": ">", "α": "\\alpha ", "β": "\\beta ", "ℝ": "\\mathbb{R}", "⟨": "\\langle ", "⟩": "\\rangle "}
)
# Traditional Chinese characters that occur in phrases of answers and in numerals.
_SIMPLIFIED = str.maketrans(
    "選擇認為應該項對錯確題個這還會說無與過據證實覺見綜並則後終處當種樣誤況從來們結論萬億兩負總計",
    "选择认为应该项对错确题个这还会说无与过据证实觉见综并则后终处当种样误况从来们结论万亿两负总计",
)
_HIGH = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿˣ", "0123456789+-nx")
_LOW = str.maketrans("₀₁₂₃₄₅₆₇₈₉ₙ", "0123456789n")
_RAISED = re.compile(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿˣ]+")
_LOWERED = re.compile(r"[₀₁₂₃₄₅₆₇₈₉ₙ]+")
# Pairs that may enclose the whole answer, and a mark that must not occur in between.
_WRAPPERS = (
    ("$$", "$$", "$"),
    ("$", "$", "$"),
    ("\\(", "\\)", "\\("),
    ("\\[", "\\]", "\\["),
    *((mark, mark, mark) for mark in ("**", "__", "`", "*", '"', "'")),
)
_BOLD = re.compile(r"(?<![\w)\]}*])\*\*(?=\S)([^*\n]{1,200})(?<=\S)\*\*(?![\w(*])")
_FENCED = re.compile(r"```(?:[a-z]*\n)?\s*([^`]+?)\s*```")
_CONTROL_SPACE = re.compile(r"(?<!\\)\\(?:\s+|$)")
_COMMAND = re.compile(r"\\(?:boxed|fbox|mathbf|mathrm|mathit|textbf|textit|text|mbox|bm|boldsymbol|underline)\s*(?=\{)")
_COLOUR = re.compile(r"\\(?:textcolor|color)\s*\{[a-zA-Z]{1,20}\}\s*(?=\{)")
_LEAD = re.compile(
    r"(?i:(?:so|thus|hence|therefore|finally|and|,|:|\*\*|\s)*"
    r"(?:(?:(?:the|our|my|your|this|that)\s+)?(?:final\s+|correct\s+)*(?:answer|result|solution|value|total)s?\b"
    r"(?:\s*(?:\*\*)?\s*(?:is|are|equals|was|:|=)(?![A-Za-z]))+"
    r"|(?:it|this|that)(?:\s+is|'s)(?![A-Za-z])|we\s+(?:get|have|find|obtain)(?![A-Za-z])|=(?!=))"
    r"|(?:所以|因此)?(?:最终|正确)?答案(?:是|为|：|:)*|答\s*:|(?:よって|したがって)?(?:答え|正解)\s*(?:は|:))\s*[:=]?\s*"
)
_SPACES = re.compile(
    r"(?<!\\)\\[,;:> ]|(?<=\S)~|\\q?quad(?![A-Za-z])|\\(?:thin|med|thick)space(?![A-Za-z])|\\hspace\{[^{}]*\}"
)
_DRESS = re.compile(
    r"\\(?:left|right|[bB]igg?[lrm]?|displaystyle|textstyle|scriptstyle|large|Large|small|normalsize|limits)"
    r"(?![A-Za-z])\s*|\\[hv]?phantom\s*(?:\{[^{}]*\}|[^\s{}\\])|(?<!\\)\\!"
)
_THOUSANDS = re.compile(r",\s*\\!\s*(?=\d{3})")
_FRACTION = re.compile(r"\\[dtc]frac(?![A-Za-z])")


def characters(text: str) -> str:
    r"""Characters of other scripts and symbols as ASCII and LaTeX, without invisible ones: `characters("½\u200b")`."""
    if text.isascii():
        return text
    text = _RAISED.sub(lambda run: "^{" + run[0].translate(_HIGH) + "}", text)
    text = _LOWERED.sub(lambda run: "_{" + run[0].translate(_LOW) + "}", text)
    return "".join(map(_character, text)).translate(_CHARACTERS)


def simplified(text: str) -> str:
    """The text with the traditional characters of answers as simplified ones: `simplified("選擇") == "选择"`."""
    return text.translate(_SIMPLIFIED)


def plain(text: str) -> str:
    """An answer without wrappers, leading phrases and final punctuation, for texts of a few thousand characters."""
    text = _FENCED.sub(r"\1", characters(text).strip())
    text = _BOLD.sub(r"\1", _CONTROL_SPACE.sub(" ", text)).replace("\\$", DOLLAR).strip()
    before = None
    while text != before:  # each round takes at least one character away
        before = text
        text = unwrapped(text.lstrip("#").strip()).removesuffix("です").removesuffix("である")
        lead = _LEAD.match(text)
        text = text[lead.end() :] if lead else text
        if text.endswith(".") and not text.endswith(".."):
            text = text[:-1]
        if text.endswith(",") and text.count(",") == 1:
            text = text[:-1]
        while text.endswith("\\\\"):
            text = text[:-2].rstrip()
        text = text.strip()
    return text.replace(DOLLAR, "\\$")


def unwrapped(text: str) -> str:
    r"""The text without quotes, dollars, asterisks or a command around all of it: `\boxed{72}`, `**72**`."""
    for opening, closing, barred in _WRAPPERS:
        if text.startswith(opening) and text.endswith(closing) and len(text) > len(opening + closing):
            inner = text[len(opening) : -len(closing)]
            if barred not in inner and inner.strip():
                return inner.strip()
    text = _COLOUR.sub("", text)
    command = _COMMAND.match(text)
    start = command.end() if command else 0
    if text.startswith("{", start) and closing_brace(text, start) == len(text) - 1:
        words = command is not None and command[0].startswith(("\\text", "\\mbox", "\\math"))
        inner = text[start + 1 : -1].strip()
        # \text{east} marks a word, so it stays
        if not words or not re.search(r"[A-Za-z]{2}", inner) or inner[:1].isdigit():
            return inner if "," not in inner or command else text  # {1,2} is a set
    return text


def undressed(text: str) -> str:
    r"""LaTeX without sizes and spacing, with one kind of fraction: `\left(\dfrac12,\,3\right)` is `(\frac12, 3)`."""
    if "\\" not in text and "~" not in text and "{,}" not in text:
        return text
    text = _DRESS.sub("", _THOUSANDS.sub(",", text.replace("{,}", ",")))
    return _FRACTION.sub(r"\\frac", _SPACES.sub(" ", text))


def closing_brace(text: str, start: int) -> int:
    r"""The index of the brace that closes the one at `start`, or -1; `\{` and `\}` do not count."""
    depth, position = 0, start
    while position < len(text):
        char = text[position]
        if char == "\\":
            position += 1
        elif char == "{":
            depth += 1
        elif char == "}":
            depth -= 1
            if depth == 0:
                return position
        position += 1
    return -1


def _character(char: str) -> str:
    """Digits of any script and full-width or mathematical letters as ASCII, ½ as a LaTeX fraction."""
    if char.isascii():
        return char
    digit = unicodedata.decimal(char, None)
    if digit is not None:
        return str(digit)
    kind = unicodedata.category(char)
    if kind == "Cf":
        return char if char in _OVERRIDES else ""
    compatible = unicodedata.normalize("NFKC", char)
    if kind == "No" and "⁄" in compatible:
        top, _, bottom = compatible.partition("⁄")
        return f"\\frac{{{top}}}{{{bottom}}}"
    if len(compatible) == 1 and compatible.isascii() and compatible.isalpha():
        return compatible
    return char
