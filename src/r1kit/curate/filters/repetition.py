"""The filter for repetitive text: too many repeated n-grams, or a loop."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from r1kit.curate import ngrams
from r1kit.curate.filters.protocol import Filter, Rejection, excerpt
from r1kit.curate.record import View

_START = np.zeros(1, dtype=np.int64)
_LOOP_NGRAM = 4  # words; a loop repeats an n-gram of this length at a constant distance


class Loop(NamedTuple):
    """`times` times the same `period` words, from the word at `start` on."""

    start: int
    period: int
    times: int


def get_repetition(
    *, ngram: int = 10, max_share: float = 0.3, min_words: int = 100, loop_times: int = 5, loop_words: int = 60
) -> Filter:
    """Drop responses with many repeated n-grams, and loops.

    More than `max_share` of the n-grams (of words) occurred before, in a text of at least `min_words` words; or a piece
    is repeated at least `loop_times` times in a row, over at least `loop_words` words in all.
    """
    if ngram < 1 or not 0 < max_share <= 1 or loop_times < 2:
        raise ValueError(f"{ngram=}, {max_share=}, {loop_times=}: expected ngram >= 1, 0 < max_share <= 1, times >= 2")

    def repetition(view: View) -> Rejection | None:
        text = ngrams.words_of(view.response)
        grams = text.ngrams(min(ngram, _LOOP_NGRAM)).tolist()
        if len(set(grams)) == len(grams):  # then no longer one is repeated either
            return None
        loop = find_loop(text.hashes, times=loop_times, length=loop_words)
        if loop is not None:
            detail = f"{loop.times} times the same {loop.period} words"
            return Rejection(reason="loop", detail=detail, example=excerpt(text.text, int(text.starts[loop.start])))
        share = repeated_share(text.hashes, ngram)
        if len(text) < min_words or share <= max_share:
            return None
        detail = f"{share:.0%} of the {ngram}-grams came before, at most {max_share:.0%}"
        return Rejection(reason="repeated n-grams", detail=detail, example=excerpt(view.response))

    return repetition


def repeated_share(hashes: ngrams.Hashes, n: int) -> float:
    """1 - distinct / all n-grams; 0 for fewer than n words. `repeated_share([5, 5, 5, 5, 5], n=2) == 0.75`."""
    grams = ngrams.ngrams(hashes, n)
    return 1 - len(np.unique(grams)) / len(grams) if len(grams) else 0.0


def find_loop(hashes: ngrams.Hashes, *, times: int, length: int) -> Loop | None:
    """The longest run of one piece after itself, at least `times` times and `length` words; None if there is none.

    Each n-gram inside a loop recurs at the distance of the loop's period. One sort gives the positions of all n-grams,
    in which equal distances in a row are a loop.
    """
    if len(hashes) < max(length, _LOOP_NGRAM + 1):
        return None
    grams = ngrams.ngrams(hashes, _LOOP_NGRAM)
    order = np.argsort(grams, kind="stable")  # equal n-grams together, by position
    gaps = order[1:] - order[:-1]
    sorted_grams = grams[order]
    gaps[sorted_grams[1:] != sorted_grams[:-1]] = 0
    starts = np.concatenate([_START, (gaps[1:] != gaps[:-1]).nonzero()[0] + 1])
    repeats = np.concatenate([starts[1:], [len(gaps)]]) - starts + 1
    covered = gaps[starts] * repeats * (repeats >= times)
    best = int(covered.argmax())
    if covered[best] < length:
        return None
    return Loop(start=int(order[starts[best]]), period=int(gaps[starts[best]]), times=int(repeats[best]))
