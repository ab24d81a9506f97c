"""The first layer: counts words by Unicode script, without a model, in microseconds per line.

Code, LaTeX, links, tags, digits, single letters and identifiers belong to no language and are masked first. A word of
an alphabet is a run of letters. In scripts without spaces (Chinese, Japanese, Thai), each character is a word.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

_LATIN = r"A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u1e00-\u1eff"
# One pattern per script: words of at least two letters, or single characters if the script has no spaces.
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
# Scripts that one language mixes form a family: Japanese mixes kana and Han characters.
FAMILIES = {script: "cjk" if script in ("han", "kana") else script for script in _SCRIPTS}
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
_BREAK = re.compile(r"[\n.,;:!?…()\"«»“”。，、；：！？「」（）।؟،۔]")
_FENCES = (("```", "```"), ("$$", "$$"), ("\\[", "\\]"), ("\\(", "\\)"))
# Atomic and bounded, so that no text is slow. $...$ is LaTeX only without plain words: "$5 for an apple and $6".
_MASKED = re.compile(
    r"`[^`\n]{1,200}`"
    r"|\$(?>(?:\\[A-Za-z]+(?:\{[^{}$\n]{0,80}\})?|\\[^A-Za-z\n]|[ -#%-@\[\]-`{-~]|[A-Za-z](?![A-Za-z])){1,300})\$"
    r"|\\[A-Za-z]+(?:\{[A-Za-z]{0,40}\})?"
    r"|https?://[^\s\u3000-\uffff]{1,300}"
    r"|</?[a-z]{1,16}>"
    r"|(?<![A-Za-z0-9_])(?=[A-Za-z0-9]{0,40}[_0-9])[A-Za-z0-9_]{1,80}(?![A-Za-z0-9_])"
)


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a text; `breaks` if there is punctuation before it."""

    text: str
    script: str
    breaks: bool


def known(language: str) -> tuple[str, ...]:
    """The scripts of a language; raises ValueError with the known languages if it is unknown."""
    if language not in LANGUAGES:
        raise ValueError(f"language {language!r} is unknown: known are {', '.join(sorted(LANGUAGES))}")
    return LANGUAGES[language]


def script_words(text: str) -> list[Word]:
    """The words of a text in order, without parts that belong to no language."""
    masked, end, result = mask(text), 0, []
    for match in _WORD.finditer(masked):
        breaks = _BREAK.search(masked, end, match.start()) is not None
        result.append(Word(match[0], str(match.lastgroup), breaks))
        end = match.end()
    return result


def count_words(text: str) -> Counter[str]:
    """Words by script: `count_words("so 答案 is x") == {"latin": 2, "han": 2}`."""
    return Counter(str(match.lastgroup) for match in _WORD.finditer(mask(text)))


def by_family(counts: Mapping[str, int]) -> Counter[str]:
    """Word counts per family of scripts."""
    families: Counter[str] = Counter()
    for script, count in counts.items():
        families[FAMILIES[script]] += count
    return families


def share(text: str, language: str) -> float | None:
    """The share of words in the language's scripts (paper, equation 7); None for a text without words.

    This does not tell languages of one script apart; `per_word.share` does.
    """
    scripts, counts = known(language), count_words(text)
    total = counts.total()
    return sum(counts[script] for script in scripts) / total if total else None


def is_mixed(text: str, *, min_share: float = 0.05) -> bool:
    """Whether a text mixes scripts: all but the main one together have at least `min_share` of the words."""
    counts = by_family(count_words(text))
    others = counts.total() - max(counts.values(), default=0)
    return others > 0 and others >= min_share * counts.total()


def mask(text: str) -> str:
    """The text with all parts that belong to no language replaced by spaces, in linear time.

    An opening mark that is never closed stays in the text.
    """
    for opening, closing in _FENCES:
        kept, position = [], 0
        while (start := text.find(opening, position)) >= 0 and (end := text.find(closing, start + len(opening))) >= 0:
            kept.append(text[position:start])
            position = end + len(closing)
        text = " ".join([*kept, text[position:]])
    return _MASKED.sub(" ", text)
