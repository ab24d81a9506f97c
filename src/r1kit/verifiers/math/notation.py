r"""One spelling for the signs, forms and remarks of an answer, before its shape is parsed.

`normalised("x \\leqslant 1") == "x ≤ 1"`, `normalised("f(x)=1 \\text{ for all } x") == "f(x)=1"`. The meaning is kept.
"""

from __future__ import annotations

import re

from r1kit.verifiers import spelling

_RULES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        # words in text: \text{ or }
        (r"(?<![\u4e00-\u9fff])或者?(?![\u4e00-\u9fff])", " or "),
        (r"(?<![\u4e00-\u9fff])[且和与及](?![\u4e00-\u9fff])", " and "),
        (
            r"\\(?:text|mbox|mathrm|textrm)\s*\{([^{}]*(?<![A-Za-z])(?:and|or|for|where|with|any|all|every|integers?|to|since|except|either"
            r"|because|(?:max|min)(?:imum)?|mod|st|nd|rd|th)(?![A-Za-z])[^{}]*)\}",
            r" \1 ",
        ),
        # signs
        (r"\\leq?(?:q?slant|q)?(?![A-Za-z])|<=", "≤"),
        (r"\\geq?(?:q?slant|q)?(?![A-Za-z])|>=", "≥"),
        (r"\\lt(?![A-Za-z])", "<"),
        (r"\\gt(?![A-Za-z])", ">"),
        (r"\\neq?(?![A-Za-z])|(?<!\d)!=|\\not\s*=", "≠"),  # 5!= may be a factorial
        (r":=|==", "="),
        (r"\\colon(?![A-Za-z])", ":"),
        (r"\\(?:lvert|rvert|vert)(?![A-Za-z])", "|"),
        (r"\\lbrace(?![A-Za-z])", r"\\{"),
        (r"\\rbrace(?![A-Za-z])", r"\\}"),
        (
            r"\\(?:mathbb|mathbf|bf|Bbb)\s*\{?\s*([RZNQC])(?![A-Za-z])\s*\}?|\\([RZNQ])(?:eals)?(?![A-Za-z])",
            r"\\mathbb{\1\2}",
        ),
        (r"\\(?:lor|vee)(?![A-Za-z])", " or "),
        (r"\\(?:land|wedge)(?![A-Za-z])", " and "),
        (r"\\(?:backslash|smallsetminus)(?![A-Za-z])|(?<=[)}\]])\s*-\s*(?=\\\{)", r"\\setminus "),
        (r"\\middle(?![A-Za-z])", ""),
        # forms
        (r"(?:\{\})?\s*[_^]\s*\{?(\d+)\}?\s*([CP])\s*_\s*\{?(\d+)\}?", r"\2_{\1}^{\3}"),  # {}_{10}C_3
        (
            r"^(?:all\s+)?(?:reals?(?:\s+numbers)?|\\mathbb\{R\}),?\s+except\s+(?:for\s+)?([^,]+)$",
            r"\\mathbb{R}\\setminus\\{\1\\}",
        ),
        (r"(\\equiv[^=]*?)\s\\b?mod(?![A-Za-z])", r"\1 \\pmod"),
        (r"\\dot\s*\{(\d)\}(?:(\d*)\\dot\s*\{(\d)\})?", r"\\overline{\1\2\3}"),  # repeating digits
        (r"\\Delta\s*(?=[A-Z]{3})", r"\\triangle "),
        (r"(?<=\d)\s+to\s+(?=\d)", ":"),
        (r"(?<=\d)\s*(?:\^\s*)?\{?\s*(st|nd|rd|th)\s*\}?\s*$", r"\1"),
        # remarks
        (r"^either\s+|^\\forall[^,]*,\s*", ""),
        (r"(?<=\S)[\s,]*(?:for|where|with)(?![A-Za-z])[^=<>]*constants?(?![A-Za-z]).*$", ""),
        (r"(?<=\S)\s*[,(]\s*[a-z]\s*\\in\s*\\mathbb\{[RC]\}\s*\)?$", ""),
        (r"^([^<>≤≥≠]+),\s*[a-z]\s*\\in\s*\\mathbb\{Q\}$", r"\1"),
        (r"\\frac\s*\{\s*\\partial\s*([A-Za-z])\s*\}\s*\{\s*\\partial\s*([A-Za-z])\s*\}", r"\\frac{d\1}{d\2}"),
        (r"\\mathbb\{R\}\s*[\^_]\s*\{?\s*\+\s*\}?$", r"(0,\\infty)"),
        (r"[\s,]*\(?\s*(?:since|because)(?![A-Za-z]).*\)?$", ""),
        (r"(?<=\S)[\s,]*\(?(?:for|where|with)\s+(?:all|any|every|each|arbitrary)(?![A-Za-z])(?!.*integer).*$", ""),
        (r"(?<=\S)[\s,]*\(?\s*\\forall(?![A-Za-z]).*$", ""),
        (r"\s*\(\s*(?:the\s+)?(?:max|min)(?:imum)?(?:\s+value)?\s*\)\s*$", ""),
        (  # (n \in \mathbb{N}) and n ≥ 1 after a formula for n
            r"^([^<>≤≥≠]*[kmn][^<>≤≥≠]*?)\s*[,(]\s*[kmn]\s*(?:\\in\s*\\mathbb\{N\}\S*|[≥>]\s*\d+)\s*\)?$",
            r"\1",
        ),
        (r"^[A-Za-z]\s*:\s*(?=[^:]*=)", ""),  # l: y = 2x + 1
    )
)
_PARAMETER = re.compile(  # k \in \mathbb{Z}, "where k is any integer", "for integers k"
    r"[\s,;]*\(?\s*(?:(?:where|for|with|and)(?![A-Za-z]))?\s*(?:some|any|all|every)?\s*(?:"
    r"\$?(?<![A-Za-z\\])([A-Za-z])\$?\s*\\in\s*(?:\\mathbb\{Z\}|Z)"
    r"|\$?(?<![A-Za-z\\])([A-Za-z])\$?\s*(?:is|being)?\s*(?:an|any|some)?\s*(?:arbitrary\s+)?integer"
    r"|(?<![A-Za-z])(?:an?\s+)?integers?\s+\$?([A-Za-z])\$?)\s*\)?\s*$"
)


def normalised(text: str) -> str:
    """An answer that `spelling.plain` normalised, with one spelling for each sign and form."""
    text = spelling.undressed(text)
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text.strip())
    return text.strip()


def parameter(text: str) -> tuple[str, str] | None:
    """The text before `k \\in \\mathbb{Z}` or words that say so, and the letter; None without them."""
    declared = _PARAMETER.search(text)
    if declared is None:
        return None
    return text[: declared.start()].rstrip(" ,;"), str(declared[1] or declared[2] or declared[3])
