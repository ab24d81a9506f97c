"""Filters on language, by script (paper, section 2.3.3: drop chains that mix languages)."""

from __future__ import annotations

import re

from r1kit.curate.filters.protocol import Filter, Rejection, excerpt
from r1kit.curate.record import View
from r1kit.verifiers import language as scripts

_FIRST = {"han": re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]"), "latin": re.compile(r"[A-Za-z]{2,}")}


def get_mixed_languages(*, min_share: float = 0.05) -> Filter:
    """Drop reasoning in which words outside its main script make up at least `min_share`."""
    if not 0 < min_share <= 0.5:
        raise ValueError(f"min_share is {min_share}: it must be above 0 and at most 0.5")

    def mixed_languages(view: View) -> Rejection | None:
        text = view.prose
        if text.isascii() or not scripts.is_mixed(text, min_share=min_share):
            return None
        counts = scripts.count_words(text)
        match = _FIRST["han" if counts["han"] <= counts["latin"] else "latin"].search(text)
        detail = ", ".join(f"{count} {script}" for script, count in counts.most_common()) + " words"
        return Rejection(reason="mixed languages", detail=detail, example=excerpt(text, match.start() if match else 0))

    return mixed_languages


def get_wrong_language(*, min_share: float = 0.8) -> Filter:
    """Drop responses with fewer than `min_share` of their words in the script of the question's language.

    The language is the row's. If it is missing or unknown, the script of most words of the question decides.
    """
    if not 0 < min_share <= 1:
        raise ValueError(f"min_share is {min_share}: it must be above 0 and at most 1")

    def wrong_language(view: View) -> Rejection | None:
        language = view.sample.language
        if language not in scripts.LANGUAGES:
            counts = scripts.count_words(view.sample.question)
            han, latin = counts["han"], counts["latin"]
            language = "zh" if han > latin else "en" if latin > han else ""
            if counts["kana"] or counts["hangul"] or counts.total() > 2 * max(han, latin):
                language = ""  # no script leads
        if not language or (view.response.isascii() and scripts.LANGUAGES[language] == ("latin",)):
            return None
        share = scripts.share(view.response, language)
        if share is None or share >= min_share:
            return None
        detail = f"{share:.0%} of the words are {language}, at least {min_share:.0%} expected"
        return Rejection(reason="not the question's language", detail=detail, example=excerpt(view.response))

    return wrong_language
