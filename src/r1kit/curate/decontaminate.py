"""Removes rows that overlap with the evaluation sets, by n-grams of 10 words as in the paper (appendix D.1).

The questions of evaluation problems, and answers that are long enough, are searched for in the question and response of
every row, in all turns, because training reads all of them. In Chinese a word is a character, so n-grams are longer. A
question shorter than an n-gram only matches as a whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from r1kit import store
from r1kit.curate import ngrams
from r1kit.curate.filters.protocol import Rejection
from r1kit.curate.record import CuratedSample
from r1kit.settings import Settings
from r1kit.tasks.base import iterate
from r1kit.tasks.task_spec import TaskSpec, load_task
from r1kit.types import Problem

WHOLE, WORDS, CHARACTERS = "whole question", "words", "characters"


class DecontaminationSettings(Settings):
    """How contamination is detected.

    An n-gram shared by more than `wording` different questions is exam wording ("where m and n are relatively prime
    positive integers. Find m + n") and no evidence. The paper does not mention this; None counts every n-gram.
    """

    ngram: int = Field(default=10, ge=4, description="words in a row")
    ngram_characters: int = Field(default=16, ge=8, description="the same for Chinese, Japanese and Thai")
    wording: int | None = Field(default=3, ge=1, description="questions that may share an n-gram")
    mask_numbers: bool = Field(default=False, description="also find problems that differ in their numbers only")
    look_in: tuple[Literal["question", "response"], ...] = Field(
        default=("question", "response"), min_length=1, description="the user's turns, the assistant's turns"
    )


Piece = tuple[int, ngrams.Hashes]  # a problem's number, and the hashes of its n-grams


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A piece of a row that an evaluation problem contains too; `kind` is `WHOLE`, `WORDS` or `CHARACTERS`."""

    evaluation_set: str
    problem_id: str
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Table:
    """Sorted hashes, each with the number of its problem; `present` is a Bloom filter that rejects most lookups."""

    hashes: ngrams.Hashes
    owners: NDArray[np.uint32]
    present: NDArray[np.bool_]
    mask: np.uint64

    @classmethod
    def of(cls, pieces: Sequence[Piece]) -> Table:
        """From (owner, hashes) pairs."""
        hashes = np.concatenate([np.zeros(0, np.uint64), *(piece for _, piece in pieces)])
        owners = np.repeat(
            np.array([owner for owner, _ in pieces], dtype=np.uint32), [len(piece) for _, piece in pieces]
        )
        order = np.argsort(hashes, kind="stable")
        present = np.zeros(2 ** max(16, (16 * len(hashes)).bit_length()), dtype=np.bool_)
        mask = np.uint64(len(present) - 1)
        present[hashes & mask] = True
        return cls(hashes[order], owners[order], present, mask)

    def places(self, wanted: ngrams.Hashes) -> NDArray[np.intp]:
        """The positions in `wanted` of hashes that are in the table."""
        places: NDArray[np.intp] = self.present[wanted & self.mask].nonzero()[0]
        if len(places):
            known = self.hashes.take(self.hashes.searchsorted(wanted[places]), mode="clip")
            places = places[known == wanted[places]]
        return places

    def find(self, wanted: ngrams.Hashes) -> Iterator[tuple[int, int]]:
        """(position in `wanted`, owner) of every hash that is in the table."""
        places = self.places(wanted)
        lows = np.searchsorted(self.hashes, wanted[places], side="left")
        highs = np.searchsorted(self.hashes, wanted[places], side="right")
        for place, low, high in zip(places, lows, highs, strict=True):
            for owner in self.owners[low:high]:
                yield int(place), int(owner)


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """The index over all evaluation sets; `sets` has the counts per set."""

    settings: DecontaminationSettings
    problems: tuple[tuple[str, str], ...]  # (set, problem id) by owner
    tables: Mapping[str, Table]
    sets: tuple[Mapping[str, Any], ...]

    def digest(self) -> str:
        """A hash of everything that `find` depends on."""
        arrays = {
            kind: hashlib.sha256(table.hashes.tobytes() + table.owners.tobytes()).hexdigest()
            for kind, table in self.tables.items()
        }
        return store.combine({**arrays, "problems": repr(self.problems), "settings": self.settings.model_dump_json()})

    def find(self, sample: CuratedSample) -> list[Hit]:
        """The first hit for each evaluation set that the sample overlaps with."""
        hits: dict[str, Hit] = {}
        for text, name in self._turns(sample):
            if name == "question":
                pieces = _wholes(text)
                wanted = np.array([ngrams.key(piece) for piece in pieces], dtype=np.uint64)
                for place, owner in self.tables[WHOLE].find(wanted):
                    self._note(hits, owner, WHOLE, pieces[place])
            (words,) = _words([text], self.settings)
            for kind, n in _lengths(self.settings).items():
                if kind == WORDS or words.single.any():
                    for place, owner in self.tables[kind].find(words.ngrams(n)):
                        self._note(hits, owner, kind, words.excerpt(place, n))
        return [hits[name] for name in sorted(hits)]

    def find_each(self, samples: Sequence[CuratedSample]) -> list[list[Hit]]:
        """The hits of each sample. All are looked up at once, and only those with a hit one by one."""
        turns = [(row, text, name) for row, sample in enumerate(samples) for text, name in self._turns(sample)]
        keyed = [(row, ngrams.key(whole)) for row, text, name in turns if name == "question" for whole in _wholes(text)]
        keys = np.array([key for _, key in keyed], dtype=np.uint64)
        suspects = {keyed[place][0] for place in self.tables[WHOLE].places(keys).tolist()}
        words = _words([text for _, text, _ in turns], self.settings)
        for kind, n in _lengths(self.settings).items():
            if words and len(self.tables[kind].hashes):
                pieces = [text.ngrams(n) for text in words]
                rows = np.repeat([row for row, _, _ in turns], [len(piece) for piece in pieces])
                suspects.update(rows[self.tables[kind].places(np.concatenate(pieces))].tolist())
        return [self.find(sample) if row in suspects else [] for row, sample in enumerate(samples)]

    def _turns(self, sample: CuratedSample) -> list[tuple[str, str]]:
        """The texts to look in, each with its name in `look_in`."""
        return [
            (turn.content, name)
            for name in self.settings.look_in
            for turn in sample.messages
            if (turn.role == "assistant") == (name == "response")
        ]

    def _note(self, hits: dict[str, Hit], owner: int, kind: str, text: str) -> None:
        name, problem = self.problems[owner]
        hits.setdefault(name, Hit(evaluation_set=name, problem_id=problem, kind=kind, text=text[:200]))


def evaluation_sets(specs: Iterable[TaskSpec]) -> dict[str, Iterable[Problem]]:
    """The problems of evaluation tasks by name, as `build` takes them."""
    return {spec.name: iterate(load_task(spec, "test")) for spec in specs}


def build(sets: Mapping[str, Iterable[Problem]], settings: DecontaminationSettings) -> Index:
    """Read every evaluation set once; the index holds hashes, not problems."""
    problems: list[tuple[str, str]] = []
    pieces: dict[str, list[Piece]] = {WHOLE: [], WORDS: [], CHARACTERS: []}
    for name, members in sets.items():
        _read(name, members, settings, problems, pieces)
    wording = {kind: _wording(pieces[kind], pieces[WHOLE], settings.wording) for kind in (WORDS, CHARACTERS)}
    kept = {WHOLE: pieces[WHOLE]}
    for kind, common in wording.items():
        kept[kind] = [(owner, part[~np.isin(part, common)]) for owner, part in pieces[kind]]
    described = tuple(
        {
            "set": name,
            "problems": sum(problems[owner][0] == name for owner, _ in pieces[WHOLE]),
            "ngrams": sum(len(part) for kind in wording for owner, part in kept[kind] if problems[owner][0] == name),
            "shared_wording": sum(
                len(before) - len(after)
                for kind in wording
                for (owner, before), (_, after) in zip(pieces[kind], kept[kind], strict=True)
                if problems[owner][0] == name
            ),
        }
        for name in sets
    )
    tables = {kind: Table.of(parts) for kind, parts in kept.items()}
    return Index(settings=settings, problems=tuple(problems), tables=tables, sets=described)


def _read(
    name: str,
    members: Iterable[Problem],
    settings: DecontaminationSettings,
    problems: list[tuple[str, str]],
    pieces: dict[str, list[Piece]],
) -> None:
    """Add the hashes of a set by kind; repeated questions are skipped."""
    seen: set[int] = set()
    for group in ngrams.grouped(members, lambda problem: len(problem.prompt), ngrams.BATCH_CHARS):
        texts = [text for problem in group for text in (problem.prompt, problem.solution or problem.answer)]
        ngrams.prepare(texts)
        words = iter(_words(texts, settings))
        for problem, *both in zip(group, words, words, strict=True):
            whole = ngrams.key(problem.prompt)
            if whole in seen or not problem.prompt.strip():
                continue
            seen.add(whole)
            owner = len(problems)
            problems.append((name, problem.id))
            pieces[WHOLE].append((owner, np.array([whole], dtype=np.uint64)))
            own: dict[str, list[ngrams.Hashes]] = {WORDS: [], CHARACTERS: []}
            for text in both:
                kind = CHARACTERS if text.single.sum() * 2 > len(text) else WORDS
                own[kind].append(text.ngrams(_lengths(settings)[kind]))
            for kind, parts in own.items():
                if parts:
                    pieces[kind].append((owner, np.unique(np.concatenate(parts))))


def _wording(pieces: Sequence[Piece], questions: Sequence[Piece], limit: int | None) -> ngrams.Hashes:
    """The n-grams shared by more than `limit` different questions; a question in several sets counts once."""
    first: dict[int, int] = {}
    for owner, whole in questions:
        first.setdefault(int(whole[0]), owner)
    counted = set(first.values())
    once = [piece for owner, piece in pieces if owner in counted]
    if limit is None or not once:
        return np.zeros(0, dtype=np.uint64)
    hashes, counts = np.unique(np.concatenate(once), return_counts=True)
    return hashes[counts > limit]


def _wholes(text: str) -> list[str]:
    """What may be a whole question: the text, its first line and its last line.

    Instructions often surround a question on lines of their own.
    """
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return [text, lines[0], lines[-1]] if len(lines) > 1 else [text]


def _words(texts: Sequence[str], settings: DecontaminationSettings) -> list[ngrams.Words]:
    if settings.mask_numbers:
        return ngrams.words([ngrams.normal(text, mask_numbers=True) for text in texts])
    return [ngrams.words_of(text) for text in texts]


def _lengths(settings: DecontaminationSettings) -> dict[str, int]:
    return {WORDS: settings.ngram, CHARACTERS: settings.ngram_characters}


def rejection(hits: Sequence[Hit]) -> Rejection | None:
    """The hits of a row as a reason to drop it; None without hits."""
    if not hits:
        return None
    detail = "; ".join(f"{hit.evaluation_set} {hit.problem_id} ({hit.kind})" for hit in hits)
    names = tuple(hit.evaluation_set for hit in hits)
    return Rejection(reason=f"in {names[0]}", detail=detail, example=hits[0].text, found_in=names)
