"""Ask a judge: several votes per question, unreadable replies asked for again, all of it counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, Self

from pydantic import Field, model_validator

from r1kit.chat import final_answer
from r1kit.engines import Engine, StructuredEngine
from r1kit.engines.ask import ask
from r1kit.judges.forms import F, read_form
from r1kit.judges.quoting import Question, size
from r1kit.settings import Settings, Temperature
from r1kit.types import Message, Prompt, SamplingParams


def check_shows(shows: str) -> str:
    """Return `shows` if it is "answer" or "response". Otherwise raise ValueError."""
    if shows not in ("answer", "response"):
        raise ValueError(f"shows is {shows!r}: it must be 'answer' or 'response'")
    return shows


def judged_part(response: str, shows: str) -> str:
    """The part of a response that the judge reads: its final answer ("" if it has none), or all of it."""
    return (final_answer(response) or "") if shows == "answer" else response.strip()


def too_long(response: str, others: str, limit: int) -> Literal["response", "others", ""]:
    """Which text makes a question longer than `limit` characters; "" if it is not longer.

    A policy chooses how much it writes, so the response is to blame unless the other texts take more than half of the
    limit.
    """
    others_size = size(others)
    if size(response) + others_size <= limit:
        return ""
    return "others" if others_size > limit / 2 else "response"


class JudgeSettings(Settings):
    """How to ask a judge. `votes` replies decide together; an unreadable reply is asked for again `retries` times."""

    votes: int = Field(3, ge=1, description="replies per question")
    threshold: float = Field(
        0.5, ge=0.5, le=1, description="share of the votes that a verdict needs; 0.5 means more than half"
    )
    retries: int = Field(2, ge=0, description="rounds for unreadable replies, each with another seed")
    temperature: Temperature = 0.6
    top_p: float = Field(0.95, gt=0, le=1)
    max_tokens: int = Field(2048, ge=1)
    max_chars: int = Field(
        60_000, ge=1, description="longest text for the judge, limited by its context; longer responses count as wrong"
    )
    accept_suspicious: bool = Field(
        False, description="keep a good verdict on a text that addresses its judge, instead of `cannot tell`"
    )
    seed: int = 0

    @model_validator(mode="after")
    def _votes_differ(self) -> Self:
        if self.temperature == 0 and (self.votes > 1 or self.retries > 0):
            now = f"with votes {self.votes} and retries {self.retries}"
            remedy = "set it above 0, or set votes to 1 and retries to 0"
            raise ValueError(f"temperature 0 gives the same reply each time: {now}, {remedy}")
        return self

    def sampling(self, n: int, attempt: int) -> SamplingParams:
        return SamplingParams(
            n=n, temperature=self.temperature, top_p=self.top_p, max_tokens=self.max_tokens, seed=self.seed + attempt
        )


@dataclass
class Tally:
    """Counts since the judge was created: distinct questions, replies, unreadable replies, refused questions."""

    questions: int = 0
    replies: int = 0
    unreadable: int = 0
    refused: int = 0


@dataclass(frozen=True)
class Replies(Generic[F]):
    """The readable replies to one question, at most `votes`; `refused` is the engine's reason if it refused."""

    forms: tuple[F, ...] = ()
    refused: str = ""

    @property
    def missing(self) -> str:
        """Why there is no reply, for `detail`."""
        return f"the judge could not be asked: {self.refused}" if self.refused else "no reply of the judge is readable"


@dataclass
class Panel(Generic[F]):
    """A judge that fills in one kind of form."""

    engine: Engine
    settings: JudgeSettings
    form: type[F]
    tally: Tally = field(default_factory=Tally)

    def __post_init__(self) -> None:
        if isinstance(self.engine, StructuredEngine):
            self.engine = self.engine.structured(self.form.model_json_schema())

    def ask(self, questions: Sequence[Question]) -> list[Replies[F]]:
        """Replies in the order of the questions; equal questions are asked once. Raises `EngineError` if the engine
        fails."""
        left = {question.id: question for question in questions}
        forms: dict[str, list[F]] = {name: [] for name in left}
        refused: dict[str, str] = {}
        self.tally.questions += len(left)
        for attempt in range(1 + self.settings.retries):
            # questions with the same number of missing votes share a call
            for missing in range(1, self.settings.votes + 1):
                batch = [q for q in left.values() if self.settings.votes - len(forms[q.id]) == missing]
                refused |= self._round(batch, missing, attempt, forms)
            left = {name: question for name, question in left.items() if name not in refused}
        return [Replies(tuple(forms[question.id]), refused.get(question.id, "")) for question in questions]

    def _round(self, questions: Sequence[Question], n: int, attempt: int, forms: dict[str, list[F]]) -> dict[str, str]:
        """Ask for `n` replies to each question and add the readable ones to `forms`. Returns the engine's refusals."""
        refused = {}
        prompts = []
        for question in questions:
            message = Message(role="user", content=question.text)
            prompts.append(Prompt(problem_id=question.id, messages=(message,), token_ids=()))
        answers = ask(self.engine, prompts, self.settings.sampling(n, attempt)) if prompts else []
        for question, completions in zip(questions, answers, strict=True):
            if isinstance(completions, str):
                refused[question.id] = completions
                self.tally.refused += 1
                continue
            for completion in completions:
                # the end of a reply that was cut off is unknown, so it is unreadable
                text = completion.text if completion.finish_reason == "stop" else ""
                form = read_form(text, question.code, self.form)
                self.tally.replies += 1
                self.tally.unreadable += form is None
                forms[question.id] += [] if form is None else [form]
        return refused
