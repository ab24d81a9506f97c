"""How a model is asked for training data, and how its reply becomes a response.

The paper's ways to a cold start (V1, section 2.3.1): few-shot prompting with long chains of thought (`FewShot`), and
direct prompting for detailed answers with reflection and verification (`Reflect`). A policy that has been trained is
asked as it was trained (`Own`). General requests get a chain of thought where they are hard, and none where they are
simple (`General`; V1, section 2.3.3).
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
    """An example of few-shot prompting. Those in the question's language are shown, where there are any."""

    question: str
    reasoning: str
    summary: str
    language: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked: a problem, or a user's last turn as one, and the turns before it.

    `hard` says whether it needs a chain of thought; None where nobody said.
    """

    problem: Problem
    history: tuple[Message, ...] = ()
    hard: bool | None = None


class Prompting(Protocol):
    """A way to ask: the turns that the model sees, and the response that is trained on in place of its raw reply."""

    def messages(self, request: Request) -> tuple[Message, ...]: ...

    def response(self, request: Request, reply: str) -> str: ...


@dataclass(frozen=True)
class Own:
    """As the policy was trained: its own system prompt, exemplars and prefill."""

    chat: ChatFormat
    form: Form

    def messages(self, request: Request) -> tuple[Message, ...]:
        before = self.chat.messages(request.problem)[:-1]
        return turns(self.chat.system, request, [turn for turn in before if turn.role != "system"])

    def response(self, request: Request, reply: str) -> str:
        return in_form(self.chat.complete(reply), self.form)


@dataclass(frozen=True)
class FewShot:
    """Exemplars as earlier turns, their responses in `reply_form`; the reply is expected in the same."""

    exemplars: tuple[Exemplar, ...]
    reply_form: Form
    form: Form
    system: str = FEW_SHOT_SYSTEM

    def messages(self, request: Request) -> tuple[Message, ...]:
        examples = []
        for one in self._shown(request.problem.language):
            response = formats.render(one.reasoning, one.summary, self.reply_form)
            examples += [Message(role="user", content=one.question), Message(role="assistant", content=response)]
        return turns(self.system, request, examples)

    def _shown(self, language: str) -> Sequence[Exemplar]:
        return [one for one in self.exemplars if one.language == language] or self.exemplars

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
    """Requests that are no problems: thought about where they are hard, else answered at once.

    A request of `hard_words` words or more is hard (a character of Chinese is a word), unless it says itself.
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
        parts = formats.split(reply)  # a model that always thinks: a simple answer shows none of it
        return parts.summary if parts else reply.strip()


def in_form(reply: str, form: str) -> str:
    """The reply in a format, as it is where it has that format already or none that can be read."""
    reply = without_own_thoughts(reply)
    parts = formats.split(reply)
    if parts is None or parts.form == form:
        return reply.strip()
    return formats.convert(reply, form) or reply.strip()


def without_own_thoughts(reply: str) -> str:
    """What a model that always thinks wrote after its own thoughts, where that holds reasoning of its own."""
    own, closed, rest = reply.partition("</think>")
    if closed and own.lstrip().startswith("<think>") and "<think>" in rest:
        return rest
    return reply


def turns(system: str, request: Request, examples: Sequence[Message] = ()) -> tuple[Message, ...]:
    """One system message (a request's own stands behind ours), examples, the earlier turns, and the question."""
    given = [turn.content for turn in request.history if turn.role == "system"]
    text = "\n\n".join(part for part in (system, *given) if part)
    before = [turn for turn in request.history if turn.role != "system"]
    question = Message(role="user", content=request.problem.prompt)
    return (*([Message(role="system", content=text)] if text else []), *examples, *before, question)
