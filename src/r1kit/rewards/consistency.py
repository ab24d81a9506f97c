"""Rewards for language: the consistency reward of R1 (paper, equation 7) and its graded form.

`detect="language"` distinguishes languages of one script (a millisecond for fifty words). `"script"` counts words by
script alone (some microseconds), which is enough for English against Chinese.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from r1kit import chat
from r1kit.rewards.inputs import RewardFunction, configured, names_column, texts
from r1kit.verifiers import language as languages
from r1kit.verifiers.language import per_word, scripts

Detect = Literal["language", "script"]
Part = Literal["reasoning", "response"]
_TAG = re.compile("|".join(map(re.escape, chat.TAGS)))
_MIXED = 0.1  # fraction of words outside the main language; fewer are names, terms and slips of the model


def language_consistency_reward(
    completions: Sequence[Any],
    language: Sequence[str] | None = None,
    *,
    default_language: str = "en",
    detect: Detect = "language",
    part: Part = "reasoning",
    **columns: Any,
) -> list[float]:
    """Fraction of the reasoning's words that are in the problem's language; code, LaTeX and digits do not count.

    0.0 without reasoning; 1.0 for reasoning without words, such as bare formulas, which mixes nothing: None would count
    as 0 beside completions with words, and pay for words where a number is asked for. `part="response"` counts all
    words, for requests that are answered without reasoning. Rows without a language take `default_language`. Raises
    ValueError for an unknown language.
    """
    share = per_word.share if detect == "language" else scripts.share
    values: list[float] = []
    for response, target in _with_languages(completions, language, default_language, "language_consistency_reward"):
        text = chat.parse(response).reasoning if part == "reasoning" else _TAG.sub(" ", response).strip() or None
        fraction = 0.0 if text is None else share(text, target)
        values.append(1.0 if fraction is None else fraction)  # None: no words
    return values


def graded_language_reward(
    completions: Sequence[Any],
    language: Sequence[str] | None = None,
    *,
    default_language: str = "en",
    detect: Detect = "language",
    **columns: Any,
) -> list[float]:
    """1.0 if reasoning and answer are in the question's language, 0.7 if both are in one other, otherwise 0.0.

    A part with more than a tenth of its words outside its main language is mixed, which gives 0.0. A part without words
    (a number, a formula) fits any language. 0.0 without reasoning.
    """
    values: list[float] = []
    for response, target in _with_languages(completions, language, default_language, "graded_language_reward"):
        parsed = chat.parse(response)
        if parsed.reasoning is None:
            values.append(0.0)
            continue
        answer = parsed.answer or ""
        words = f"{parsed.reasoning}\n{answer}"
        if detect == "language":
            labels = [language for _, language in per_word.place(words, target)]
        else:  # all words of a script are the target or one other language
            own = scripts.LANGUAGES[target]
            labels = [target if w.script in own else scripts.FAMILIES[w.script] for w in scripts.script_words(words)]
        split = len(labels) - len(scripts.script_words(answer))
        used = set()  # the main language of each part that has words; "" for a mixed part
        for part in filter(None, (labels[:split], labels[split:])):
            main, count = Counter(part).most_common(1)[0]
            used.add(main if count >= (1 - _MIXED) * len(part) else "")
        values.append(1.0 if used <= {target} else 0.0 if "" in used or len(used) > 1 else 0.7)
    return values


def get_language_consistency_reward(
    *, default_language: str = "en", detect: Detect = "language", part: Part = "reasoning"
) -> RewardFunction:
    """The share of the reasoning's words that are in the problem's language (paper, section 2.3)."""
    languages.known(default_language)
    return configured(language_consistency_reward, default_language=default_language, detect=detect, part=part)


def get_graded_language_reward(*, default_language: str = "en", detect: Detect = "language") -> RewardFunction:
    """1.0 if reasoning and answer are in the question's language, 0.7 if both are in one other, otherwise 0.0."""
    languages.known(default_language)
    return configured(graded_language_reward, default_language=default_language, detect=detect)


def _with_languages(
    completions: Sequence[Any], language: Sequence[str] | None, default: str, reward: str
) -> Iterator[tuple[str, str]]:
    """Pairs of a response and its expected language."""
    responses = texts(completions)
    targets = names_column("language", {"language": language}, len(responses), default, reward)
    for target in set(targets):
        languages.known(target)
    return zip(responses, targets, strict=True)
