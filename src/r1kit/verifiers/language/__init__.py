"""Which language a text is written in, word by word.

Two layers: `scripts` counts words by Unicode script and costs next to nothing; `words` tells the languages of one
script apart, by a small model inside the script, at about a millisecond for fifty words.
"""

from __future__ import annotations

from r1kit.verifiers.language.per_word import main_language, place
from r1kit.verifiers.language.scripts import LANGUAGES, count_words, is_mixed, known, mask, share

__all__ = ["LANGUAGES", "count_words", "is_mixed", "known", "main_language", "mask", "place", "share"]
