"""Near-duplicates by MinHash and locality-sensitive hashing, within a problem or over the whole set.

A text is the set of its shingles (runs of n words). The similarity of two texts is the Jaccard index of their sets,
which a signature of 128 values estimates: the smallest hash in each of 128 ranges, with empty ranges filled from others
(one-permutation hashing with optimal densification, Shrivastava 2017). Eight bits of each value are stored (b-bit
minwise hashing, Li and Koenig 2010). Only rows that agree in one band of values are compared. A row takes 200 bytes.
"""

from __future__ import annotations

import functools
from collections import defaultdict
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
_EDGES = np.append(np.arange(VALUES, dtype=np.uint64) << np.uint64(64 - _BITS), np.uint64(2**64 - 1))
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


def sketch(sample: CuratedSample, settings: NearDuplicates) -> tuple[int, NDArray[np.uint32], NDArray[np.uint8]]:
    """The stored facts of a sample: the group that it is compared within, its bands, and its signature."""
    question, response = ngrams.words_of(sample.question_with_history).hashes, ngrams.words_of(sample.response).hashes
    chosen = {"question": question, "response": response, "both": np.concatenate([question, response])}
    values = minhash(chosen[settings.text], settings.shingle)
    return group(sample, settings.within), bands(values, settings.threshold), values.astype(np.uint8)


def group(sample: CuratedSample, within: str) -> int:
    """Only rows of the same group are compared; a sample without a problem has a group of its own."""
    if within == "problem":
        return ngrams.stable_hash(f"problem {sample.problem_id}" if sample.problem_id else f"sample {sample.id}")
    if within == "numbers":
        return ngrams.stable_hash("numbers " + " ".join(ngrams.numbers(sample.question_with_history)))
    return 0


def minhash(hashes: ngrams.Hashes, shingle: int) -> ngrams.Hashes:
    """The signature of a text, from the hashes of its words; a text shorter than a shingle is one shingle."""
    shingles = np.sort(ngrams.ngrams(hashes, min(shingle, max(1, len(hashes)))))
    if not len(shingles):
        return np.zeros(VALUES, dtype=np.uint64)
    edges = shingles.searchsorted(_EDGES)  # sorted, so the first of a range is its smallest
    first, filled = edges[:-1], edges[1:] > edges[:-1]
    if not filled.all():
        empty = (~filled).nonzero()[0]
        order = _orders()[empty]
        first[empty] = first[order[np.arange(len(order)), filled[order].argmax(axis=1)]]
    return ngrams.mix(shingles[first])


def bands(values: ngrams.Hashes, threshold: float) -> NDArray[np.uint32]:
    """One hash per band of a signature."""
    count, rows = shape(threshold)
    return ngrams.ngrams(values, rows)[: count * rows : rows].astype(np.uint32)


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
    """For each range, the order in which the other ranges are tried if it is empty."""
    return np.argsort(ngrams.mix(np.arange(VALUES * VALUES, dtype=np.uint64)).reshape(VALUES, VALUES), axis=1)
