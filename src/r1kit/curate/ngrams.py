"""Texts as numbers: a normal form, words, and hashed n-grams of words, equal on every machine and in every run.

A word is a run of letters, digits and marks. In scripts without spaces (Han, kana, Thai), each character is a word, so
n-grams work for Chinese too. Punctuation is skipped. Everything is numpy over code points, at about 10 million
characters a second.
"""

from __future__ import annotations

import functools
import hashlib
import re
import unicodedata
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
MAX_CHARS = 2**20  # the rest is ignored: no real text is longer, and memory stays bounded

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
_BARE_POINT = re.compile(r"\.(?<![\w.]\.)(?=\d)")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_DELIMITERS = re.compile(r"\\[()\[\],;:! ]|\\(?:left|right|displaystyle)(?![a-z])|\$|\s+")


@dataclass(frozen=True, slots=True)
class Words:
    """The words of a normal-form text: per word its hash, start and end in `text`, and whether it is one character."""

    text: str
    hashes: Hashes
    starts: NDArray[np.intp]
    ends: NDArray[np.intp]
    single: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.hashes)

    def excerpt(self, first: int, count: int) -> str:
        """The text of `count` words from word `first` on."""
        return self.text[self.starts[first] : self.ends[min(first + count, len(self)) - 1]]


def normal(text: str, *, mask_numbers: bool = False) -> str:
    """One form for equal readings: `normal("Ｘ is 1,080.50") == "x is 1080.5"`; `mask_numbers` turns numbers into 0."""
    text = text[:MAX_CHARS]
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)[:MAX_CHARS]
    text = text.casefold()
    if mask_numbers:
        return _NUMBER.sub("0", _THOUSANDS.sub("", text))
    if "," in text:
        text = _THOUSANDS.sub("", text)
    if "." in text:
        text = _ZEROS.sub(r".\1", _NO_FRACTION.sub("", _BARE_POINT.sub("0.", text)))
    return text


def key(text: str) -> int:
    """A hash of the text without white space, LaTeX delimiters and final punctuation, to match whole texts."""
    return stable_hash(_DELIMITERS.sub("", normal(text)).rstrip(".?!:;。？！：；"))


def numbers(text: str) -> tuple[str, ...]:
    """The numbers of a text in order: `numbers("1,080 apples, 3.0 pears") == ("1080", "3")`."""
    return tuple(_NUMBER.findall(normal(text)))


def stable_hash(text: str) -> int:
    """A 64-bit hash that is the same in every process, unlike `hash`."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def words(text: str) -> Words:
    """The words of a text that is in normal form."""
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
    return Words(text, hash_spans(codes.astype(np.uint64), starts, ends), starts, ends, single[starts])


@functools.lru_cache(maxsize=4)
def words_of(text: str) -> Words:
    """The words of any text; the last few are cached, because several steps read the same text in turn."""
    return words(normal(text))


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
