"""What a prompt looks like, what a response looks like, and what ends one: one contract for all stages.

A problem is rendered to token ids here and nowhere else; a response is taken apart here and nowhere else. Sampler and
trainer share the same end ids, so a model is trained to stop exactly where sampling stops.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Any

from r1kit.types import Conversation, Message, Problem, Prompt, Sample

# The structure of the paper's Table 1 (R1-Zero): who speaks, what to do, which tags to use, then the question.
R1_ZERO_SYSTEM = (
    "The user asks a question and the assistant solves it. The assistant first reasons about the question, then gives "
    "the final answer. The reasoning goes inside <think> </think> and the answer inside <answer> </answer>, like this: "
    "<think> reasoning here </think> <answer> answer here </answer>"
)
RESPONSE = re.compile(r"\s*<think>(?P<reasoning>.*?)</think>\s*<answer>(?P<answer>.*?)</answer>\s*\Z", re.DOTALL)
TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_BLANK = frozenset("\u115f\u1160\u2800\u3164\uffa0")  # letters and a symbol that show nothing
_STEP = re.compile(r"(Step \d+:|^\d+\.|\n-|\n\*|First,|Second,|Next,|Finally,)", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """A completion taken apart. `well_formed` is the paper's format: both parts, each once, non-empty, nothing else.

    `parse("<think>2+2 is 4</think> <answer>4</answer>")` has reasoning "2+2 is 4" and answer "4". Where the form is
    broken, `reasoning` and `answer` hold what can still be told apart, or None.
    """

    reasoning: str | None
    answer: str | None
    well_formed: bool


def parse(text: str) -> Response:
    """Split a response into reasoning and answer; any text is accepted, and no text raises."""
    # counted first: over many tags the pattern would take quadratic time
    match = RESPONSE.match(text) if all(text.count(tag) == 1 for tag in TAGS) else None
    if match:
        reasoning, answer = _said(match["reasoning"]), _said(match["answer"])
        return Response(reasoning=reasoning, answer=answer, well_formed=None not in (reasoning, answer))
    head, closed, tail = text.rpartition("</think>")
    reasoning = (head if closed else text).split("<think>", 1)[-1] if closed or "<think>" in text else ""
    answer = tail.rsplit("<answer>", 1)[1].split("</answer>", 1)[0] if "<answer>" in tail else ""
    return Response(reasoning=_said(reasoning), answer=_said(answer), well_formed=False)


def _said(part: str) -> str | None:
    """A part without the white space around it; None where nothing in it can be seen (zero-width characters, say)."""
    text = part.strip()
    return text if any(unicodedata.category(mark)[0] in "LNPS" and mark not in _BLANK for mark in text) else None


def final_answer(text: str) -> str | None:
    """What a reader of the answer sees: the answer section, else what follows the reasoning; None where it is empty.

    `final_answer("<think>2+2</think> It is 4.") == "It is 4."` A response without tags is all answer; one that was cut
    off while reasoning has none.
    """
    answer = parse(text).answer
    if answer is not None:
        return answer
    _, closed, tail = text.rpartition("</think>")
    if "<answer>" in tail or (not closed and "<think>" in tail):
        return None
    return _said(tail)


def count_steps(text: str) -> int:
    """Marks of visible steps: "Step 1:", numbered or bulleted lines, "First,", "Next," and their like."""
    return len(_STEP.findall(text))


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatFormat:
    """How a problem becomes a prompt.

    `template="chat"` renders through the tokenizer's own chat template, `"plain"` writes text as for a base model.
    `exemplars` are (question, response) pairs shown before the question. `prefill` is put at the start of the
    assistant's turn: it belongs to the prompt, and `complete` puts it back before a response is judged.
    """

    template: str = "plain"
    system: str = R1_ZERO_SYSTEM
    plain: str = "{system}\n{history}User: {question}\nAssistant: "
    exemplars: tuple[tuple[str, str], ...] = ()
    prefill: str = ""

    def __post_init__(self) -> None:
        if self.template not in ("plain", "chat"):
            raise ValueError(f"template is {self.template!r}: it must be 'plain' (base models) or 'chat'")
        if "{question}" not in self.plain:
            raise ValueError(f"plain is {self.plain!r}: it must contain {{question}}")

    def messages(self, problem: Problem) -> tuple[Message, ...]:
        """System message (if any), exemplars as earlier turns, and the problem's question."""
        turns = [Message(role="system", content=self.system)] if self.system else []
        for question, response in self.exemplars:
            turns += [Message(role="user", content=question), Message(role="assistant", content=response)]
        return (*turns, Message(role="user", content=problem.prompt))

    def render(self, problem: Problem, tokenizer: Any) -> Prompt:
        """The exact ids that the policy continues, for training, sampling and evaluation alike."""
        messages = self.messages(problem)
        return Prompt(problem_id=problem.id, messages=messages, token_ids=tuple(self.encode(messages, tokenizer)))

    def encode(self, messages: tuple[Message, ...], tokenizer: Any) -> list[int]:
        """Token ids of a conversation that ends with the user's turn, plus the start of the assistant's turn."""
        return list(tokenizer.encode(self.text(messages, tokenizer) + self.prefill, add_special_tokens=False))

    def text(self, messages: tuple[Message, ...], tokenizer: Any) -> str:
        """The prompt as text, without the prefill."""
        if self.template == "chat":
            return self._templated(messages, tokenizer)
        system = "\n".join(turn.content for turn in messages if turn.role == "system")
        *history, question = [turn for turn in messages if turn.role != "system"]
        names = {"user": "User", "assistant": "Assistant"}
        shown = "".join(f"{names[turn.role]}: {turn.content}\n" for turn in history)
        filled = self.plain.replace("{system}", system).replace("{history}", shown)
        return (tokenizer.bos_token or "") + filled.replace("{question}", question.content).lstrip("\n")

    @staticmethod
    def _templated(messages: tuple[Message, ...], tokenizer: Any) -> str:
        if not tokenizer.chat_template:
            raise ValueError("the tokenizer has no chat template: set chat.template to 'plain'")
        turns = [{"role": turn.role, "content": turn.content} for turn in messages]
        return _apply(tokenizer, turns, "set chat.system to '' if it takes none", add_generation_prompt=True)

    def complete(self, text: str) -> str:
        """The whole response: what the prompt prefilled and what the policy added."""
        return self.prefill + text


def _apply(tokenizer: Any, turns: list[dict[str, str]], remedy: str, **options: Any) -> str:
    """The chat template's text; raises ValueError where the template fails, which it may do in any way it likes."""
    from jinja2 import TemplateError

    try:
        return str(tokenizer.apply_chat_template(turns, tokenize=False, **options))
    except TemplateError as error:
        raise ValueError(f"the model's chat template refuses these messages ({error}): {remedy}") from error


def end_ids(tokenizer: Any) -> tuple[int, ...]:
    """The ids that end a completion, in sampling and in training; the first is the one that SFT teaches.

    A chat template that closes the assistant's turn with a special token of its own adds that token, in first place:
    a model that is trained on one end token and sampled until another never stops (open-r1 and TRL users' most
    frequent report). Raises ValueError where there is no end token at all.
    """
    ends = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    if tokenizer.chat_template:
        turns = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A7A"}]
        closing = _apply(tokenizer, turns, "it must take a question and an answer").rpartition("A7A")[2]
        ids = tokenizer.encode(closing, add_special_tokens=False)
        if ids and ids[0] in tokenizer.all_special_ids and ids[0] not in ends:
            ends.insert(0, ids[0])
    if not ends:
        raise ValueError("the tokenizer has no end token: set tokenizer.eos_token to the token that ends an answer")
    return tuple(ends)


def to_samples(conversation: Conversation, chat: ChatFormat, tokenizer: Any) -> list[Sample]:
    """A conversation as training samples: loss on the assistant's turns and on the end token after each.

    What is trained is what is sampled: each turn follows the ids that an engine would be given, prefill included, and
    ends where it would stop. Where the template renders earlier turns in another way once later turns follow (it drops
    their reasoning, or writes no end token), turns cannot share a row, and each such turn starts a sample of its own.
    Raises ValueError for a conversation that cannot be trained on, saying which turn and why.
    """
    ends = end_ids(tokenizer)
    samples: list[tuple[list[int], list[bool]]] = []
    for index, turn in enumerate(conversation.messages):
        if turn.role != "assistant":
            continue
        reply = _reply(conversation, index, chat, tokenizer, ends)
        prompt = chat.encode(conversation.messages[:index], tokenizer)
        if turn.content.removeprefix(chat.prefill).lstrip().startswith("<think>"):
            _refuse_open_reasoning(conversation, index, chat, tokenizer)
        if not samples or prompt[: len(samples[-1][0])] != samples[-1][0]:
            samples.append(([], []))
        token_ids, mask = samples[-1]
        mask += [False] * (len(prompt) - len(token_ids)) + [True] * len(reply)
        token_ids += [*prompt[len(token_ids) :], *reply]
    if not samples:
        raise ValueError(f"a conversation of {len(conversation.messages)} messages has no assistant turn to train on")
    return [Sample(token_ids=tuple(ids), loss_mask=tuple(mask)) for ids, mask in samples]


def _reply(
    conversation: Conversation, index: int, chat: ChatFormat, tokenizer: Any, ends: tuple[int, ...]
) -> list[int]:
    """The ids that the policy would have sampled for an assistant's turn: its text after the prefill, and the end."""
    content = conversation.messages[index].content
    if index == 0 or conversation.messages[index - 1].role != "user":
        raise ValueError(f"turn {index} is the assistant's and follows no user's turn: nothing asks for it")
    if not content.startswith(chat.prefill):
        raise ValueError(f"turn {index} does not begin with the format's prefill {chat.prefill!r}, as sampling would")
    ids = list(tokenizer.encode(content.removeprefix(chat.prefill), add_special_tokens=False))
    if not ids:
        raise ValueError(f"turn {index} is empty: it would teach to answer nothing")
    if any(token in ends for token in ids):
        raise ValueError(f"turn {index} holds an end token inside its text, where sampling would have stopped")
    return [*ids, ends[0]]


def _refuse_open_reasoning(conversation: Conversation, index: int, chat: ChatFormat, tokenizer: Any) -> None:
    """R1's distilled models and some others have templates that begin the reasoning, which a turn then begins again."""
    if chat.text(conversation.messages[:index], tokenizer).rstrip().endswith("<think>"):
        raise ValueError(
            f"turn {index} begins with <think>, and so does the chat template's start of it: the tag would be trained "
            "twice; use a chat template that leaves the tag to the model, or the format 'plain'"
        )
