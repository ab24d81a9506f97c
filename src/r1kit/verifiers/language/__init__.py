"""The language of a text, word by word, in two layers.

`scripts` counts words by Unicode script and costs almost nothing. `per_word` tells the languages of one script apart
with a small model, in about a millisecond per fifty words.
"""

from __future__ import annotations

from r1kit.verifiers.language.per_word import main_language
from r1kit.verifiers.language.scripts import LANGUAGES, count_words, is_mixed, known, share

__all__ = ["LANGUAGES", "count_words", "is_mixed", "known", "main_language", "share"]
