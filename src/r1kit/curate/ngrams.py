"""Texts as numbers: a normal form, words, and hashed n-grams of words, equal on every machine and in every run.

A word is a run of letters, digits and marks. In scripts without spaces (Han, kana, Thai), each character is a word, so
n-grams work for Chinese too. Punctuation is skipped. Everything is numpy over code points. A call of numpy costs more
than the arithmetic of a short text, so the texts of many rows are hashed at once.
"""

from __future__ import annotations

import functools
import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Item = TypeVar("Item")
MAX_CHARS = 2**20  # the rest is ignored: no real text is longer, and memory stays bounded
BATCH_CHARS = 2**17  # hashed at once: the arrays stay in the processor's cache

_OTHER, _WORD, _SINGLE = 0, 1, 2
_LAST_LETTER = 0x33480  # no letter comes after the Han extensions
_UNSPACED = (
    (0x0E00, 0x0E7F),
    (0x3041, 0x30FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x323AF),
)
_FACTOR = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2**64
_SHIFTS = tuple(map(np.uint64, (30, 27, 31)))
_MULTIPLIERS = tuple(map(np.uint64, (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)))
# Each pattern starts with a literal character, which makes the search fast.
_THOUSANDS = re.compile(r",(?<=\d,)(?=\d{3}(?!\d))")
_NO_FRACTION = re.compile(r"\.(?<=\d\.)0+(?!\d)")
_ZEROS = re.compile(r"\.(?<=\d\.)(\d*[1-9])0+(?!\d)")
_POINT = re.compile(r"\.(?=\d)")  # a match of the other three begins with one
_BARE_POINT = re.compile(r"\.(?<![\w.]\.)(?=\d)")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_DELIMITERS = re.compile(r"\\[()\[\],;:! ]|\\(?:left|right|displaystyle)(?![a-z])|\$|\s+")


@dataclass(frozen=True, slots=True)
class Batch:
    """The words of several texts, one text after the other: per word its hash, start, end, and if it is a character."""

    hashes: Hashes
    starts: NDArray[np.intp]
    ends: NDArray[np.intp]
    single: NDArray[np.bool_]
    grams: dict[int, Hashes] = field(default_factory=dict)  # by n, also those that run from one text into the next

    def ngrams(self, n: int) -> Hashes:
        """The n-grams of all texts, computed when first needed."""
        if n not in self.grams:
            self.grams[n] = ngrams(self.hashes, n)
        return self.grams[n]


@dataclass(frozen=True, slots=True)
class Words:
    """The words of a normal-form text: those from `first` to `last` of a batch, in which the text is at `offset`."""

    text: str
    batch: Batch
    first: int
    last: int
    offset: int

    def __len__(self) -> int:
        return self.last - self.first

    @property
    def hashes(self) -> Hashes:
        return self.batch.hashes[self.first : self.last]

    @property
    def single(self) -> NDArray[np.bool_]:
        return self.batch.single[self.first : self.last]

    @property
    def starts(self) -> NDArray[np.intp]:
        """Where each word starts in `text`."""
        return self.batch.starts[self.first : self.last] - self.offset

    @property
    def ends(self) -> NDArray[np.intp]:
        return self.batch.ends[self.first : self.last] - self.offset

    def ngrams(self, n: int) -> Hashes:
        """A hash for each run of n words; empty for shorter texts."""
        return self.batch.ngrams(n)[self.first : max(self.first, self.last - n + 1)]

    def excerpt(self, first: int, count: int) -> str:
        """The text of `count` words from word `first` on."""
        return self.text[self.starts[first] : self.ends[min(first + count, len(self)) - 1]]


def normal(text: str, *, mask_numbers: bool = False) -> str:
    """One form for equal readings: `normal("Ｘ is 1,080.50") == "x is 1080.5"`; `mask_numbers` turns numbers into 0."""
    if not mask_numbers and (known := _prepared.get(text)) is not None:
        return known.text
    text = text[:MAX_CHARS]
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)[:MAX_CHARS]
    text = text.casefold()
    if mask_numbers:
        return _NUMBER.sub("0", _THOUSANDS.sub("", text))
    if "," in text:
        text = _THOUSANDS.sub("", text)
    if _POINT.search(text):
        text = _ZEROS.sub(r".\1", _NO_FRACTION.sub("", _BARE_POINT.sub("0.", text)))
    return text


def key(text: str) -> int:
    """A hash of the text without white space, LaTeX delimiters and final punctuation, to match whole texts."""
    text = normal(text)
    bare = _DELIMITERS.sub("", text) if "\\" in text else "".join(text.replace("$", "").split())  # split is fast
    return stable_hash(bare.rstrip(".?!:;。？！：；"))


def numbers(text: str) -> tuple[str, ...]:
    """The numbers of a text in order: `numbers("1,080 apples, 3.0 pears") == ("1080", "3")`."""
    return tuple(_NUMBER.findall(normal(text)))


def stable_hash(text: str) -> int:
    """A 64-bit hash that is the same in every process, unlike `hash`."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def words(texts: Sequence[str]) -> list[Words]:
    """The words of texts that are in normal form, hashed at once."""
    text = " ".join(texts)  # a space ends a word
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    kinds = _kinds()[codes]
    points = (codes[1:-1] == ord(".")).nonzero()[0] + 1
    if len(points):  # a point between digits belongs to the number: 3.5 is one word
        before, after = codes[points - 1] - ord("0"), codes[points + 1] - ord("0")  # below zero wraps to the largest
        kinds[points[(before < 10) & (after < 10)]] = _WORD
    word, single = kinds == _WORD, kinds == _SINGLE
    first, last = word.copy(), word.copy()
    first[1:] &= ~word[:-1]
    last[:-1] &= ~word[1:]
    starts, ends = (first | single).nonzero()[0], (last | single).nonzero()[0] + 1
    batch = Batch(hash_spans(codes.astype(np.uint64), starts, ends), starts, ends, single[starts])
    offsets = np.cumsum([0, *(len(text) + 1 for text in texts)])
    bounds = pairwise(starts.searchsorted(offsets).tolist())
    places = zip(texts, bounds, offsets[:-1].tolist(), strict=True)
    return [Words(text, batch, first, last, offset) for text, (first, last), offset in places]


_prepared: dict[str, Words] = {}  # a cache: the words of a text depend on nothing else, so an old entry is right too


def prepare(texts: Iterable[str]) -> None:
    """Hash the texts of some rows, which several steps then read through `words_of` until the next call."""
    _prepared.clear()
    for group in grouped(dict.fromkeys(texts), len, BATCH_CHARS):
        _prepared.update(zip(group, words([normal(text) for text in group]), strict=True))


def words_of(text: str) -> Words:
    """The words of any text."""
    return _prepared.get(text) or words([normal(text)])[0]


def grouped(items: Iterable[Item], size: Callable[[Item], int], limit: int) -> Iterator[list[Item]]:
    """The items in lists, each closed when the sizes in it sum to `limit`."""
    group: list[Item] = []
    total = 0
    for item in items:
        group.append(item)
        total += size(item)
        if total >= limit:
            yield group
            group, total = [], 0
    if group:
        yield group


def ngrams(hashes: Hashes, n: int) -> Hashes:
    """A hash for each run of n words; empty for shorter texts."""
    count = max(0, len(hashes) - n + 1)
    prefix, inverses = _prefix_sums(hashes)
    return mix((prefix[n : n + count] - prefix[:count]) * inverses[:count])


def hash_spans(values: Hashes, starts: NDArray[np.intp], ends: NDArray[np.intp]) -> Hashes:
    """Polynomial hashes of values[start:end] for all spans at once: differences of prefix sums, at one origin."""
    prefix, inverses = _prefix_sums(values)
    return mix((prefix[ends] - prefix[starts]) * inverses[starts])


def _prefix_sums(values: Hashes) -> tuple[Hashes, Hashes]:
    """Sums of values[i] * factor**i over i < 0, 1, 2 ..., and the powers of the factor's inverse."""
    powers, inverses = _powers(max(10, len(values).bit_length()))
    prefix = np.zeros(len(values) + 1, dtype=np.uint64)
    (values * powers[: len(values)]).cumsum(out=prefix[1:])
    return prefix, inverses


def mix(values: Hashes) -> Hashes:
    """Spread each value over all 64 bits (the finaliser of SplitMix64)."""
    values = values ^ (values >> _SHIFTS[0])
    values *= _MULTIPLIERS[0]
    values ^= values >> _SHIFTS[1]
    values *= _MULTIPLIERS[1]
    values ^= values >> _SHIFTS[2]
    return values


@functools.cache
def _powers(bits: int) -> tuple[Hashes, Hashes]:
    """Powers of the factor and of its inverse, modulo 2**64, for 2**bits values."""
    bases = (_FACTOR, pow(_FACTOR, -1, 2**64))
    first, second = (np.full(2**bits, base, dtype=np.uint64) for base in bases)
    first[0] = second[0] = 1
    return np.multiply.accumulate(first), np.multiply.accumulate(second)


@functools.cache
def _kinds() -> NDArray[np.uint8]:
    """The kind of each code point: part of a word, a word by itself, or neither."""
    table = np.zeros(0x110000, dtype=np.uint8)
    letters = [code for code in range(_LAST_LETTER) if unicodedata.category(chr(code))[0] in "LNM"]
    table[letters] = _WORD
    for low, high in _UNSPACED:
        table[low : high + 1] *= _SINGLE
    return table
