"""Asking a judge: several votes for each question, unreadable replies asked for again, all of it counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, Self

from pydantic import Field, model_validator

from r1kit.chat import final_answer
from r1kit.engines import Engine, StructuredEngine
from r1kit.engines.ask import ask
from r1kit.judges.forms import F, read
from r1kit.judges.quoting import Question, size
from r1kit.settings import Settings
from r1kit.types import Completion, Message, Prompt, SamplingParams

SHOWS = ("answer", "response")


def shown(response: str, shows: str) -> str:
    """What a judge reads of a response: the final answer ("" where there is none), or all of it."""
    return (final_answer(response) or "") if shows == "answer" else response.strip()


def too_long(response: str, others: str, limit: int) -> Literal["response", "others", ""]:
    """Whose fault it is that a judge would have to read more than `limit` characters; "" where it would not.

    A policy chooses how much it writes and with what it pads it, so it is the response's wherever the rest takes no
    more than half of the room.
    """
    rest = size(others)
    if size(response) + rest <= limit:
        return ""
    return "others" if rest > limit / 2 else "response"


def known_part(shows: str) -> str:
    """The same; raises ValueError for a part that no judge reads."""
    if shows not in SHOWS:
        raise ValueError(f"shows is {shows!r}: it must be 'answer' or 'response'")
    return shows


class JudgeSettings(Settings):
    """How a judge is asked. `votes` replies decide together; an unreadable one is asked for again `retries` times."""

    votes: int = Field(3, ge=1, description="replies for each question")
    threshold: float = Field(
        0.5, ge=0.5, le=1, description="share of the votes that a verdict needs; at 0.5, more than half"
    )
    retries: int = Field(2, ge=0, description="rounds, each with another seed, for replies that cannot be read")
    temperature: float = Field(0.6, ge=0)
    top_p: float = Field(0.95, gt=0, le=1)
    max_tokens: int = Field(2048, ge=1)
    max_chars: int = Field(
        60_000, ge=1, description="a judge reads no more, and longer responses are wrong: set what its context holds"
    )
    accept_suspicious: bool = Field(
        False, description="let a good verdict stand on a text that speaks to its judge; else it becomes cannot tell"
    )
    seed: int = 0

    @model_validator(mode="after")
    def _draws(self) -> Self:
        if self.temperature == 0 and (self.votes > 1 or self.retries > 0):
            raise ValueError(
                f"temperature 0 gives the same reply again: with votes {self.votes} and retries {self.retries} set it "
                "above 0, or set votes to 1 and retries to 0"
            )
        return self

    def sampling(self, n: int, attempt: int) -> SamplingParams:
        return SamplingParams(
            n=n, temperature=self.temperature, top_p=self.top_p, max_tokens=self.max_tokens, seed=self.seed + attempt
        )


@dataclass
class Tally:
    """Counts of one judge since it was made: questions asked, replies, those unreadable, questions refused."""

    questions: int = 0
    replies: int = 0
    unreadable: int = 0
    refused: int = 0


@dataclass(frozen=True)
class Replies(Generic[F]):
    """What a judge said to one question: the forms that could be read, at most as many as `votes`."""

    forms: tuple[F, ...] = ()
    refused: str = ""

    @property
    def missing(self) -> str:
        """Why there is no reply at all, for `detail`."""
        return f"the judge could not be asked: {self.refused}" if self.refused else "no reply of the judge is readable"


@dataclass
class Panel(Generic[F]):
    """A judge that fills in one form."""

    engine: Engine
    settings: JudgeSettings
    form: type[F]
    tally: Tally = field(default_factory=Tally)

    def __post_init__(self) -> None:
        if isinstance(self.engine, StructuredEngine):
            self.engine = self.engine.structured(self.form.model_json_schema())

    def ask(self, questions: Sequence[Question]) -> list[Replies[F]]:
        """Replies in the questions' order; equal questions are asked once. Raises `EngineError` of a dead engine."""
        asked = {question.id: question for question in questions}
        forms: dict[str, list[F]] = {name: [] for name in asked}
        refused: dict[str, str] = {}
        self.tally.questions += len(asked)
        for attempt in range(1 + self.settings.retries):
            for count in range(1, self.settings.votes + 1):
                open_ = [one for one in asked.values() if self.settings.votes - len(forms[one.id]) == count]
                for question, completions in self._round(open_, count, attempt, refused):
                    found = [read(_whole(one), question.code, self.form) for one in completions]
                    forms[question.id] += [one for one in found if one is not None]
                    self.tally.replies += len(found)
                    self.tally.unreadable += found.count(None)
            for name in refused:
                asked.pop(name, None)
        return [Replies(tuple(forms[one.id]), refused.get(one.id, "")) for one in questions]

    def _round(
        self, questions: Sequence[Question], n: int, attempt: int, refused: dict[str, str]
    ) -> list[tuple[Question, Sequence[Completion]]]:
        """`n` replies to each question; one that the engine refuses (too long) is left out, the others are asked."""
        prompts = [
            Prompt(problem_id=one.id, messages=(Message(role="user", content=one.text),), token_ids=())
            for one in questions
        ]
        found = []
        answers = ask(self.engine, prompts, self.settings.sampling(n, attempt)) if prompts else []
        for one, answer in zip(questions, answers, strict=True):
            if isinstance(answer, str):
                refused[one.id] = answer
                self.tally.refused += 1
            else:
                found.append((one, answer))
        return found


def _whole(completion: Completion) -> str:
    """The reply, or nothing where it was cut off: what it would have ended with is not known."""
    return completion.text if completion.finish_reason == "stop" else ""
