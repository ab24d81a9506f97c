"""Preference pairs and labelled responses for a reward model: samples, updates, measures."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

from r1kit import ranks
from r1kit.data.conversations import Labelled
from r1kit.data.pair_lengths import balanced
from r1kit.data.prepare import SamplesOrError, one_by_one, refuse_long
from r1kit.data.tokens import TokenFile, Tokenised, key_of
from r1kit.models.batch import Totals
from r1kit.models.classify import RewardModel
from r1kit.train.learner import Learner
from r1kit.train.losses.scores import bradley_terry, safety
from r1kit.train.packing import pack, pack_together
from r1kit.train.reward_metrics import label_metrics, pair_metrics
from r1kit.train.supervised import Update
from r1kit.types import Message, PreferencePair, Sample

ROWS_AT_ONCE = 256  # rows scored at once


def prompt_key(prompt: Sequence[Message]) -> str:
    """A hash of the prompt, 16 hex digits: answers to the same prompt are not independent."""
    return hashlib.sha256(repr([(turn.role, turn.content) for turn in prompt]).encode()).hexdigest()[:16]


def pair_samples(model: RewardModel, limit: int) -> Callable[[Sequence[PreferencePair]], list[SamplesOrError]]:
    """`Reading.make` for pairs: two samples of each, the chosen one first."""

    def make(pair: PreferencePair) -> list[Tokenised]:
        samples = [model.sample(pair.prompt, answer) for answer in (pair.chosen, pair.rejected)]
        if samples[0].token_ids == samples[1].token_ids:
            raise ValueError("the judged parts of the two answers are equal")
        refuse_long(samples, limit)
        # the key goes with both: answers to one prompt are not independent
        return [Tokenised(sample, notes={"prompt": prompt_key(pair.prompt)}) for sample in samples]

    return one_by_one(make)


def labelled_sample(model: RewardModel, limit: int) -> Callable[[Sequence[Labelled]], list[SamplesOrError]]:
    """`Reading.make` for labelled responses: one sample of each, with its label."""

    def make(row: Labelled) -> list[Tokenised]:
        samples = [model.sample(row.prompt, row.response)]
        refuse_long(samples, limit)
        return [Tokenised(sample, notes={"label": row.label, "prompt": prompt_key(row.prompt)}) for sample in samples]

    return one_by_one(make)


class Pairs:
    """Preference pairs as updates and as a measure.

    Pair p of the file is its samples 2p (chosen) and 2p + 1 (rejected); row r is pair `kept[r]`. With the seed
    `balance`, only pairs remain in which length does not predict the label.
    """

    def __init__(self, tokens: TokenFile, balance: int | None = None) -> None:
        self.tokens, lengths = tokens, tokens.lengths()
        assert len(lengths) % 2 == 0, "a pair is two samples"
        differences = [chosen - rejected for chosen, rejected in zip(lengths[::2], lengths[1::2], strict=True)]
        self.kept = list(range(len(differences))) if balance is None else balanced(differences, balance)

    def __len__(self) -> int:
        return len(self.kept)

    def refuse_useless(self) -> None:
        """Raise ValueError if balancing left no pair."""
        if not self.kept:
            raise ValueError(
                f"in all {len(self.tokens) // 2} pairs the answers differ in length in one direction, so only length "
                "would be learned: add pairs, or set balance_lengths to false"
            )

    def contradictions(self) -> int:
        """The number of pairs that also occur with the answers swapped."""
        sides = {tuple(map(key_of, self._pair(row))) for row in range(len(self))}  # (chosen, rejected)
        return sum(side[::-1] in sides for side in sides)

    def lengths(self) -> list[int]:
        """Tokens of both answers of each row, with a prompt each."""
        lengths = self.tokens.lengths()
        return [lengths[2 * pair] + lengths[2 * pair + 1] for pair in self.kept]

    def _pair(self, row: int) -> list[Sample]:
        place = 2 * self.kept[row]
        return self.tokens[place : place + 2]

    def update(self, rows: Sequence[int], learner: Learner, tokens_per_batch: int, center: float) -> Update:
        every = [self._pair(row) for row in rows]
        pairs = ranks.share_rows(every, lambda pair: sum(len(each.token_ids) for each in pair))
        batches = pack_together(pairs, tokens_per_batch, learner.model)  # the two answers stay neighbours, in order
        return Update(batches, Totals(0, len(rows)), bradley_terry(center))  # the loss divides by pairs, not tokens

    def measure(self, scores: Sequence[float]) -> dict[str, Any]:
        """`pair_metrics` of the scores of all samples."""
        lengths = self.tokens.lengths()
        sizes = list(zip(lengths[::2], lengths[1::2], strict=True))
        return pair_metrics(list(zip(scores[::2], scores[1::2], strict=True)), sizes)

    def right(self, scores: Sequence[float]) -> list[float]:
        """1.0 for each pair that the scores order correctly, 0.5 for a tie."""
        return [(a > b) + 0.5 * (a == b) for a, b in zip(scores[::2], scores[1::2], strict=True)]

    def prompts(self) -> list[str]:
        """The key of each pair's prompt."""
        return [row["prompt"] for row in self.tokens.rows()][::2]

    def held_out_rows(self, scores: Sequence[float]) -> list[dict[str, Any]]:
        """A row per pair for held_out.jsonl."""
        return [
            {"file": row["file"], "row": row["row"], "chosen": scores[2 * n], "rejected": scores[2 * n + 1]}
            for n, row in enumerate(list(self.tokens.rows())[::2])
        ]


class Responses:
    """Labelled responses, with the interface of `Pairs`."""

    def __init__(self, tokens: TokenFile) -> None:
        self.tokens = tokens
        self.labels = [bool(row["label"]) for row in tokens.rows()]

    def __len__(self) -> int:
        return len(self.tokens)

    def refuse_useless(self) -> None:
        """Raise ValueError if all labels are equal: a model would learn to always give the same answer."""
        if len(set(self.labels)) < 2:
            kind = "safe" if self.labels[0] else "unsafe"
            raise ValueError(f"all {len(self)} responses to train on are {kind}: add some of the other kind")

    def lengths(self) -> list[int]:
        """Tokens of each row."""
        return self.tokens.lengths()

    def contradictions(self) -> int:
        """The number of responses that occur with both labels."""
        sides = {(key_of(sample), label) for sample, label in zip(self.tokens, self.labels, strict=True)}
        return sum(label and (key, False) in sides for key, label in sides)

    def update(self, rows: Sequence[int], learner: Learner, tokens_per_batch: int, center: float) -> Update:
        own = ranks.share_rows(rows, lambda row: len(self.tokens[row].token_ids))
        batches = pack([self.tokens[row] for row in own], tokens_per_batch, learner.model)
        # labels in the order of the packed rows; the loss finds them by the batch's `order`
        return Update(batches, Totals(0, len(rows)), safety([self.labels[row] for row in own]))

    def measure(self, scores: Sequence[float]) -> dict[str, Any]:
        """`label_metrics` of the scores."""
        return label_metrics(scores, self.labels, self.tokens.lengths())

    def right(self, scores: Sequence[float]) -> list[float]:
        """1.0 for each response whose label the score predicts."""
        return [float((score > 0) == label) for score, label in zip(scores, self.labels, strict=True)]

    def prompts(self) -> list[str]:
        """The key of each response's prompt."""
        return [row["prompt"] for row in self.tokens.rows()]

    def held_out_rows(self, scores: Sequence[float]) -> list[dict[str, Any]]:
        """A row per response for held_out.jsonl."""
        return [
            {"file": row["file"], "row": row["row"], "label": row["label"], "score": score}
            for row, score in zip(self.tokens.rows(), scores, strict=True)
        ]


def score_all(model: RewardModel, tokens: TokenFile, tokens_per_batch: int) -> list[float]:
    """The score of every sample, read from disk in parts; each rank scores its share."""
    own_scores: list[float] = []
    own_rows = ranks.share(range(len(tokens)), tokens.lengths().__getitem__)
    for start in range(0, len(own_rows), ROWS_AT_ONCE):
        token_ids = [tokens[row].token_ids for row in own_rows[start : start + ROWS_AT_ONCE]]
        own_scores += model.scores(token_ids, tokens_per_batch)
    # shares are neighbours, so those of all ranks one after another are in the order of the rows
    return [score for scores in ranks.gather(own_scores) for score in scores]
