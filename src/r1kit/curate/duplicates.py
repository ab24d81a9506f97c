"""Near-duplicates by MinHash and locality-sensitive hashing, within a problem or over the whole set.

A text is the set of its shingles (runs of n words). The similarity of two texts is the Jaccard index of their sets,
which a signature of 128 values estimates: the smallest hash in each of 128 ranges, with empty ranges filled from others
(one-permutation hashing with optimal densification, Shrivastava 2017). Eight bits of each value are stored (b-bit
minwise hashing, Li and Koenig 2010). Only rows that agree in one band of values are compared. A row takes 200 bytes.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from r1kit.curate import ngrams
from r1kit.curate.record import CuratedSample
from r1kit.settings import Settings

VALUES = 128
_BITS = 7  # of a hash that choose its range: 2**7 == VALUES
_EMPTY = np.uint64(2**64 - 1)  # a range without a hash
_RECALL = 0.98  # share of the pairs at the threshold that are compared
_CHANCE = 1 / 256  # that eight bits of different values agree
_MAX_COMPARED = 64  # kept rows per bucket to compare with: bounds the time for sets made from a few templates


class NearDuplicates(Settings):
    """One search for near-duplicates.

    `within="problem"` compares samples of one problem; `"numbers"` compares samples whose questions have the same
    numbers in the same order, since other numbers make another problem; `"everything"` compares all samples.
    """

    within: Literal["problem", "numbers", "everything"] = "problem"
    text: Literal["question", "response", "both"] = "response"
    threshold: float = Field(default=0.8, ge=0.3, lt=1, description="similarity from which the later row is dropped")
    shingle: int = Field(default=5, ge=1, description="words (in Chinese: characters) in a row")

    @property
    def title(self) -> str:
        return f"near-duplicates ({self.text}, within {self.within})"


@dataclass(frozen=True, slots=True)
class NearestKept:
    """For each row, the kept row that it duplicates (-1: none), and their similarity."""

    partner: NDArray[np.int64]
    similarity: NDArray[np.float32]


@functools.cache
def shape(threshold: float) -> tuple[int, int]:
    """Bands and values per band: the most selective choice that finds 98 % of the pairs at the threshold."""
    for rows in range(VALUES, 1, -1):
        bands = VALUES // rows
        if 1 - (1 - threshold**rows) ** bands >= _RECALL:
            return bands, rows
    return VALUES, 1


def sketches(
    samples: Sequence[CuratedSample], settings: NearDuplicates
) -> tuple[list[int], NDArray[np.uint32], NDArray[np.uint8]]:
    """The stored facts of samples: the groups that they are compared within, their bands, and their signatures."""
    hashes = []
    for sample in samples:
        texts = {"question": sample.question_with_history, "response": sample.response}
        chosen = texts.values() if settings.text == "both" else [texts[settings.text]]
        hashes.append(np.concatenate([ngrams.words_of(text).hashes for text in chosen]))
    values = minhash(hashes, settings.shingle)
    groups = [group(sample, settings.within) for sample in samples]
    return groups, bands(values, settings.threshold), values.astype(np.uint8)


def group(sample: CuratedSample, within: str) -> int:
    """Only rows of the same group are compared; a sample without a problem has a group of its own."""
    if within == "problem":
        return ngrams.stable_hash(f"problem {sample.problem_id}" if sample.problem_id else f"sample {sample.id}")
    if within == "numbers":
        return ngrams.stable_hash("numbers " + " ".join(ngrams.numbers(sample.question_with_history)))
    return 0


def minhash(texts: Sequence[ngrams.Hashes], shingle: int) -> ngrams.Hashes:
    """The signatures of texts, from the hashes of their words; a text shorter than a shingle is one shingle."""
    sizes = np.array([len(hashes) for hashes in texts], dtype=np.intp)
    row = np.repeat(np.arange(len(texts)), sizes)  # per word, as are starts and ends
    starts = np.arange(len(row))
    ends = starts + np.minimum(shingle, sizes)[row]
    fits = ends <= sizes.cumsum()[row]
    shingles = ngrams.hash_spans(np.concatenate(texts), starts[fits], ends[fits])
    values = np.full((len(texts), VALUES), _EMPTY)  # [texts, ranges]
    ranges = (shingles >> np.uint64(64 - _BITS)).astype(np.intp)
    np.minimum.at(values.reshape(-1), row[fits] * VALUES + ranges, shingles)
    return ngrams.mix(_densified(values))


def _densified(values: ngrams.Hashes) -> ngrams.Hashes:
    """Fill each empty range from the first filled one in its order; a text without words has zeros."""
    filled = np.where((values == _EMPTY).all(axis=1, keepdims=True), np.uint64(0), values).reshape(-1)
    empty = (filled == _EMPTY).nonzero()[0]
    for order in _orders():
        if not len(empty):
            break
        ranges = empty % VALUES
        source = values.reshape(-1)[empty - ranges + order[ranges]]
        known = source != _EMPTY
        filled[empty[known]] = source[known]
        empty = empty[~known]
    return filled.reshape(-1, VALUES)


def bands(values: ngrams.Hashes, threshold: float) -> NDArray[np.uint32]:
    """One hash per band of each signature."""
    count, rows = shape(threshold)
    starts = np.arange(len(values))[:, None] * VALUES + np.arange(count) * rows  # [signatures, bands]
    return ngrams.hash_spans(values.reshape(-1), starts, starts + rows).astype(np.uint32)


def similarity(signature: NDArray[np.uint8], others: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Estimated Jaccard similarity of one signature with each of several, corrected for chance."""
    equal = (others == signature).mean(axis=1, dtype=np.float32)
    return np.asarray((equal - _CHANCE) / (1 - _CHANCE), dtype=np.float32)


def find_near(
    order: NDArray[np.int64],
    groups: NDArray[np.uint64],
    banded: NDArray[np.uint32],
    signatures: NDArray[np.uint8],
    threshold: float,
) -> NearestKept:
    """Go through the rows in `order`; a row is dropped if an earlier kept row is at least `threshold` similar.

    `order` holds row numbers, best first; the result does not depend on the order of the rows in the file.
    """
    nearest = NearestKept(np.full(len(groups), -1, dtype=np.int64), np.zeros(len(groups), dtype=np.float32))
    buckets = _shared_buckets(groups[order], banded, order)
    kept: dict[int, list[int]] = defaultdict(list)
    for place in np.flatnonzero((buckets >= 0).any(axis=1)):
        row = int(order[place])
        mine = buckets[place][buckets[place] >= 0].tolist()
        candidates = sorted({other for bucket in mine for other in kept.get(bucket, ())})
        if candidates:
            alike = similarity(signatures[row], signatures[candidates])
            best = int(np.argmax(alike))
            if alike[best] >= threshold:
                nearest.partner[row], nearest.similarity[row] = candidates[best], alike[best]
                continue
        for bucket in mine:
            if len(kept[bucket]) < _MAX_COMPARED:
                kept[bucket].append(row)
    return nearest


def _shared_buckets(
    groups: NDArray[np.uint64], banded: NDArray[np.uint32], order: NDArray[np.int64]
) -> NDArray[np.int32]:
    """A bucket number per row and band, shared by rows that agree in the band; -1 for a row that is alone."""
    buckets = np.full((len(order), banded.shape[1]), -1, dtype=np.int32)
    used = 0
    for band in range(banded.shape[1]):
        keys = ngrams.mix(ngrams.mix(groups + np.uint64(band)) ^ banded[order, band].astype(np.uint64))
        _, place, counts = np.unique(keys, return_inverse=True, return_counts=True)
        number = np.cumsum(counts > 1) - 1 + used
        shared = counts[place] > 1
        buckets[shared, band] = number[place[shared]]
        used += int((counts > 1).sum())
    return buckets


@functools.cache
def _orders() -> NDArray[np.int64]:
    """For each range (column), the order in which the other ranges are tried if it is empty."""
    orders = np.argsort(ngrams.mix(np.arange(VALUES * VALUES, dtype=np.uint64)).reshape(VALUES, VALUES), axis=1)
    return np.ascontiguousarray(orders.T)
