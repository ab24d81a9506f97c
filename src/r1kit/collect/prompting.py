"""How to prompt a model for training data, and how its reply becomes a response.

The cold start (V1, section 2.3.1) uses few-shot prompting with long chains of thought (`FewShot`) and direct prompting
for detailed answers with reflection and verification (`Reflect`). A trained policy gets the prompt it was trained with
(`Own`). For general requests, hard ones get a chain of thought and simple ones none (`General`; V1, section 2.3.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from r1kit.chat import ChatFormat
from r1kit.curate import formats
from r1kit.curate.ngrams import words_of
from r1kit.settings import Settings
from r1kit.types import Message, Problem

Form = Literal["think_answer", "special_token", "think"]  # names in `formats.FORMATS`

FEW_SHOT_SYSTEM = (
    "Solve the problem as the examples do: first the whole reasoning, step by step and with checks, then a summary "
    "that gives the solution. Use the language of the question, and exactly the form of the examples."
)
REFLECT_SYSTEM = (
    "Solve the problem in detail. First make sure that you understand what is asked. Then reason step by step, in the "
    "first person and in the language of the question. Look back at what you have found, verify it in another way, "
    "and where you notice a slip say so and mend it. Write all of this between <think> and </think>. Then write, "
    "between <answer> and </answer>, a clear summary of the solution that ends with the final answer in \\boxed{}."
)
THINK_SYSTEM = (
    "Think before you answer, in the first person and in the language of the request: what does the person want, in "
    "what situation, and what do they need without saying so? Use short paragraphs, as in speech, and no markup. Write "
    "this between <think> and </think>, and then the answer for the person between <answer> and </answer>."
)
PLAIN_SYSTEM = "Answer the request directly and helpfully, in its language."


class Exemplar(Settings):
    """An example for few-shot prompting. If some examples are in the question's language, only those are used."""

    question: str
    reasoning: str
    summary: str
    language: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A problem to solve, or a user's request as one, with the turns before it.

    `hard`: whether it needs a chain of thought; None if the data does not say.
    """

    problem: Problem
    history: tuple[Message, ...] = ()
    hard: bool | None = None


class Prompting(Protocol):
    """One way to prompt: the turns that the model sees, and the training response made from its raw reply."""

    def messages(self, request: Request) -> tuple[Message, ...]: ...

    def response(self, request: Request, reply: str) -> str: ...


@dataclass(frozen=True)
class Own:
    """The prompt that the policy was trained with: its own system prompt, exemplars and prefill."""

    chat: ChatFormat
    form: Form

    def messages(self, request: Request) -> tuple[Message, ...]:
        before = self.chat.messages(request.problem)[:-1]
        return turns(self.chat.system, request, [turn for turn in before if turn.role != "system"])

    def response(self, request: Request, reply: str) -> str:
        return in_form(reply, self.form)


@dataclass(frozen=True)
class FewShot:
    """Exemplars as earlier turns, with responses in `reply_form`, the form that the reply should have too."""

    exemplars: tuple[Exemplar, ...]
    reply_form: Form
    form: Form
    system: str = FEW_SHOT_SYSTEM

    def messages(self, request: Request) -> tuple[Message, ...]:
        same_language = [shot for shot in self.exemplars if shot.language == request.problem.language]
        examples = []
        for shot in same_language or self.exemplars:
            response = formats.render(shot.reasoning, shot.summary, self.reply_form)
            examples += [Message(role="user", content=shot.question), Message(role="assistant", content=response)]
        return turns(self.system, request, examples)

    def response(self, request: Request, reply: str) -> str:
        return in_form(reply, self.form)


@dataclass(frozen=True)
class Reflect:
    """A system prompt that asks for a detailed solution with reflection and verification."""

    form: Form
    system: str = REFLECT_SYSTEM

    def messages(self, request: Request) -> tuple[Message, ...]:
        return turns(self.system, request)

    def response(self, request: Request, reply: str) -> str:
        return in_form(reply, self.form)


@dataclass(frozen=True)
class General:
    """Requests without a checkable answer: the model thinks about hard ones and answers simple ones at once.

    A request is hard if it has at least `hard_words` words (a Chinese character is a word), unless the data says.
    """

    form: Form
    hard_words: int
    system: str = THINK_SYSTEM

    def is_hard(self, request: Request) -> bool:
        if request.hard is not None:
            return request.hard
        return len(words_of(request.problem.prompt)) >= self.hard_words

    def messages(self, request: Request) -> tuple[Message, ...]:
        return turns(self.system if self.is_hard(request) else PLAIN_SYSTEM, request)

    def response(self, request: Request, reply: str) -> str:
        if self.is_hard(request):
            return in_form(reply, self.form)
        parts = formats.split(reply)  # some models always think: a simple answer keeps none of it
        return parts.summary if parts else reply.strip()


def in_form(reply: str, form: str) -> str:
    """The reply in another format; unchanged if it already has that format or has none that can be read."""
    reply = without_own_thoughts(reply)
    parts = formats.split(reply)
    if parts is None or parts.form == form:
        return reply.strip()
    return formats.convert(reply, form) or reply.strip()


def without_own_thoughts(reply: str) -> str:
    """Drop the native thoughts of a reasoning model before the requested form, and a <think> that its template opens
    before `special_token`."""
    thoughts, closed, rest = reply.partition("</think>")
    in_requested_form = "<think>" in rest or rest.lstrip().startswith(formats.SPECIAL_TOKEN)
    if closed and thoughts.lstrip().startswith("<think>") and in_requested_form:
        return rest
    after_opening = reply.lstrip().removeprefix("<think>").lstrip()
    return after_opening if after_opening.startswith(formats.SPECIAL_TOKEN) else reply


def turns(system: str, request: Request, examples: Sequence[Message] = ()) -> tuple[Message, ...]:
    """One system message (ours, then the request's own), the examples, the earlier turns, and the question."""
    own_system = [turn.content for turn in request.history if turn.role == "system"]
    text = "\n\n".join(part for part in (system, *own_system) if part)
    before = [turn for turn in request.history if turn.role != "system"]
    question = Message(role="user", content=request.problem.prompt)
    return (*([Message(role="system", content=text)] if text else []), *examples, *before, question)
