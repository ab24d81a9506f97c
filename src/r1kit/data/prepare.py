"""From files to tokenised rows on disk; rows that are left out are stored with the reason."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from pydantic import Field

from r1kit import ranks
from r1kit.chat import ChatFormat, to_samples_each
from r1kit.content import require_sealed
from r1kit.data.columns import ColumnMap
from r1kit.data.conversations import Row, read, renamed
from r1kit.data.errors import DataError
from r1kit.data.jsonl import read_rows
from r1kit.data.tokens import TokenFile, Tokenised, write_tokens
from r1kit.settings import Settings
from r1kit.store import StoreError
from r1kit.types import Conversation, Message, Sample

T = TypeVar("T")
SamplesOrError = list[Tokenised] | ValueError  # the samples of a row, or the reason to leave it out
ROWS_AT_ONCE = 32  # rows whose texts are tokenised in one call: enough for all cores, and little memory for long ones


class RowSettings(Settings):
    """`columns` maps our names to the data's ("prompt=q,completion=a" or an object); `skip_invalid` leaves bad rows out
    instead of raising an error."""

    columns: ColumnMap = Field(default_factory=dict)
    skip_invalid: bool = False


class ConversationSettings(RowSettings):
    """How conversations become samples.

    `add_system`: conversations without a system message get that of the prompt format, which every prompt will have.
    `loss_on`: all assistant turns, or the last one. `plain_rows`: replies without reasoning where the prompt opens
    `<think>` (R1's distilled models): left out with the reason, or trained with the reasoning closed before the reply.
    """

    add_system: bool = True
    loss_on: Literal["all", "last"] = "all"
    plain_rows: Literal["refuse", "close"] = "refuse"


@dataclass(frozen=True)
class Split:
    """Holds out the rows whose prompt hashes below `share`, so that no prompt is on both sides."""

    share: float
    seed: int

    def holds_out(self, messages: Sequence[Message]) -> bool:
        question = next((turn.content for turn in messages if turn.role == "user"), "")
        digest = hashlib.sha256(f"split/{self.seed}/{question}".encode()).digest()
        return int.from_bytes(digest[:6]) < self.share * 2**48


@dataclass(frozen=True)
class Reading(Generic[T]):
    """How the rows of files become samples.

    `convert` reads a row. `make` returns the samples of some rows with notes, or an error for a row to leave out.
    """

    settings: RowSettings
    convert: Callable[[Row], T]
    make: Callable[[Sequence[T]], Sequence[SamplesOrError]]

    def tokenise(
        self, paths: Sequence[Path], folder: Path, takes: Callable[[T], bool] = lambda record: True
    ) -> TokenFile:
        """The samples of the rows that `takes` accepts, stored in `folder`; an existing folder is used as it is.

        Raises ValueError if no row is left and `DataError` for the first bad row.
        """
        left_out: list[dict[str, Any]] = []
        with ranks.in_turn():
            if not folder.exists():
                write_tokens(folder, self._samples(paths, takes, left_out), left_out)
            else:
                try:
                    require_sealed(folder)
                except StoreError as error:
                    raise StoreError(f"{error}; delete {folder}, and it is made again") from None
        tokens = TokenFile(folder)
        if not len(tokens):
            reasons = Counter(row["reason"] for row in read_rows(folder / "dropped.jsonl")).most_common(1)
            why = (
                f"the most common reason: {reasons[0][0]}"
                if reasons
                else "no row falls on this side of the split: change validation_share"
            )
            raise ValueError(f"no row of {', '.join(path.name for path in paths)} is usable for {folder.name}: {why}")
        return tokens

    def _samples(
        self, paths: Sequence[Path], takes: Callable[[T], bool], left_out: list[dict[str, Any]]
    ) -> Iterator[Tokenised]:
        columns = self.settings.columns
        every = read(paths, renamed(self.convert, columns) if columns else self.convert)
        rows = (row for row in every if isinstance(row, DataError) or takes(row.record))
        while block := list(islice(rows, ROWS_AT_ONCE)):
            results = iter(self.make([row.record for row in block if not isinstance(row, DataError)]))
            for row in block:
                if isinstance(row, DataError):
                    if not self.settings.skip_invalid:
                        raise row
                    left_out.append({"file": row.file, "row": row.row, "reason": row.reason})
                elif isinstance(samples := next(results), ValueError):
                    left_out.append({"file": row.file, "row": row.row, "reason": str(samples)})
                else:
                    yield from (replace(sample, file=row.file, row=row.row) for sample in samples)


def one_by_one(make: Callable[[T], list[Tokenised]]) -> Callable[[Sequence[T]], list[SamplesOrError]]:
    """`Reading.make` from a function of one record that raises ValueError to leave it out."""

    def make_all(records: Sequence[T]) -> list[SamplesOrError]:
        results: list[SamplesOrError] = []
        for record in records:
            try:
                results.append(make(record))
            except ValueError as error:
                results.append(error)
        return results

    return make_all


def conversation_samples(
    settings: ConversationSettings, chat: ChatFormat, tokenizer: Any, ends: tuple[int, ...], limit: int
) -> Callable[[Sequence[Conversation]], list[SamplesOrError]]:
    """`Reading.make` for supervised training; leaves out rows of more than `limit` tokens. `ends`: the policy's."""
    system = Message(role="system", content=chat.system)

    def finish(pair: tuple[Conversation, list[Sample] | ValueError]) -> list[Tokenised]:
        conversation, samples = pair
        if isinstance(samples, ValueError):
            raise samples
        if settings.loss_on == "last":
            samples = [last_turn_only(samples[-1])]
        refuse_long(samples, limit)
        return [Tokenised(sample, source=conversation.source) for sample in samples]

    def make(conversations: Sequence[Conversation]) -> list[SamplesOrError]:
        if settings.add_system and chat.system:
            conversations = [
                each if each.messages[0].role == "system" else replace(each, messages=(system, *each.messages))
                for each in conversations
            ]
        close = settings.plain_rows == "close"
        samples = to_samples_each(conversations, chat, tokenizer, ends, close_reasoning=close)
        return one_by_one(finish)(list(zip(conversations, samples, strict=True)))

    return make


def refuse_long(samples: Sequence[Sample], limit: int) -> None:
    """Raise ValueError for a sample of more than `limit` tokens."""
    if max(len(sample.token_ids) for sample in samples) > limit:
        raise ValueError(f"it has more than {limit} tokens")


def last_turn_only(sample: Sample) -> Sample:
    """The sample with loss on its last run of trained tokens only, the last assistant turn."""
    start = len(sample.loss_mask)
    while start and sample.loss_mask[start - 1]:
        start -= 1
    mask = [False] * start + list(sample.loss_mask[start:])
    return Sample(token_ids=sample.token_ids, loss_mask=mask)
