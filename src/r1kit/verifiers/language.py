"""Words by Unicode script: which language a text is written in, without a model.

Code, LaTeX, links, tags, digits, single letters and identifiers are masked first: they belong to no language. A word
of an alphabet is a run of letters; in scripts without spaces (Chinese, Japanese, Thai) each character counts as one.
"""

from __future__ import annotations

import re
from collections import Counter

_LATIN = r"A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u1e00-\u1eff"
# One pattern per script: words of at least two letters, or single characters where a script has no spaces.
_SCRIPTS = {
    "latin": rf"[{_LATIN}][{_LATIN}\u0300-\u036f'’]+",
    "han": r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af]",
    "kana": r"[\u3041-\u3096\u30a1-\u30fa\uff66-\uff9d]",
    "hangul": r"[\uac00-\ud7a3\u1100-\u11ff\u3131-\u318e]+",
    "cyrillic": r"[\u0400-\u052f]{2,}",
    "greek": r"[\u0370-\u03ff\u1f00-\u1fff]{2,}",
    "arabic": r"[\u0620-\u065f\u066e-\u06d3\u06d5-\u06ef\u06fa-\u06ff\u0750-\u077f]{2,}",
    "hebrew": r"[\u0590-\u05ff]{2,}",
    "devanagari": r"[\u0900-\u0963\u0970-\u097f]{2,}",
    "bengali": r"[\u0980-\u09e5\u09f0-\u09ff]{2,}",
    "tamil": r"[\u0b80-\u0be5]{2,}",
    "telugu": r"[\u0c00-\u0c65]{2,}",
    "thai": r"[\u0e01-\u0e2e]",  # consonants only: vowel and tone marks belong to them
}
LANGUAGES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("en", "de", "es", "fr", "it", "nl", "pl", "pt", "sv", "sw", "tr", "vi", "id"), ("latin",)),
    **dict.fromkeys(("ru", "uk", "bg"), ("cyrillic",)),
    **dict.fromkeys(("ar", "fa", "ur"), ("arabic",)),
    **dict.fromkeys(("hi", "mr", "ne"), ("devanagari",)),
    "zh": ("han",),
    "ja": ("kana", "han"),
    "ko": ("hangul",),
    "el": ("greek",),
    "he": ("hebrew",),
    "bn": ("bengali",),
    "ta": ("tamil",),
    "te": ("telugu",),
    "th": ("thai",),
}
_WORD = re.compile("|".join(f"(?P<{name}>{pattern})" for name, pattern in _SCRIPTS.items()))
_FENCES = (("```", "```"), ("$$", "$$"), ("\\[", "\\]"), ("\\(", "\\)"))
# Atomic and bounded, so that no text makes them slow. $...$ is LaTeX only without bare words: "$5 for an apple and $6".
_MASKED = re.compile(
    r"`[^`\n]{1,200}`"
    r"|\$(?>(?:\\[A-Za-z]+(?:\{[^{}$\n]{0,80}\})?|\\[^A-Za-z\n]|[ -#%-@\[\]-`{-~]|[A-Za-z](?![A-Za-z])){1,300})\$"
    r"|\\[A-Za-z]+(?:\{[A-Za-z]{0,40}\})?"
    r"|https?://[^\s\u3000-\uffff]{1,300}"
    r"|</?[a-z]{1,16}>"
    r"|(?<![A-Za-z0-9_])(?=[A-Za-z0-9]{0,40}[_0-9])[A-Za-z0-9_]{1,80}(?![A-Za-z0-9_])"
)


def count_words(text: str) -> Counter[str]:
    """Words by script: `count_words("so 答案 is x") == {"latin": 2, "han": 2}`."""
    return Counter(str(match.lastgroup) for match in _WORD.finditer(mask(text)))


def share(text: str, language: str) -> float | None:
    """Words of the language's script over all words (paper, equation 7); None for a text without words.

    Languages that share a script are not told apart. Raises ValueError for a language that is not in `LANGUAGES`.
    """
    if language not in LANGUAGES:
        raise ValueError(f"language {language!r} is not known; known are {', '.join(sorted(LANGUAGES))}")
    counts = count_words(text)
    total = counts.total()
    return sum(counts[script] for script in LANGUAGES[language]) / total if total else None


def is_mixed(text: str, *, min_share: float = 0.05) -> bool:
    """Whether Latin words and Han characters both make up at least `min_share` of the two together."""
    counts = count_words(text)
    minority, both = min(counts["latin"], counts["han"]), counts["latin"] + counts["han"]
    return minority > 0 and minority >= min_share * both


def mask(text: str) -> str:
    """The text with everything that belongs to no language replaced by spaces; time is linear in the length."""
    for opening, closing in _FENCES:
        text = _cut(text, opening, closing)
    return _MASKED.sub(" ", text)


def _cut(text: str, opening: str, closing: str) -> str:
    """Drop what stands between the marks; an opening that is never closed stays, since what follows it is text."""
    kept, position = [], 0
    while (start := text.find(opening, position)) >= 0:
        end = text.find(closing, start + len(opening))
        if end < 0:
            break
        kept.append(text[position:start])
        position = end + len(closing)
    return " ".join([*kept, text[position:]])
