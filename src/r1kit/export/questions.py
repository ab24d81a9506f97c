"""The questions of a proof, and the answers to them: the trained model and the exported file get the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from r1kit.chat import ChatFormat
from r1kit.types import Message, Problem

# contractions, digits, runs of white space, capitals, other scripts, code and tags: rules that cut texts differ there
TEXTS = (
    "The quick brown fox jumps over 13 lazy dogs; it's 3.14 times faster!",
    "don't  I'LL we've   'quoted'\r\n\r\nA1B2C3 1234567890",
    "def f(x):\n    return x ** 2  # square\n\n\n\tprint(f(10000))",
    "Übergrößen, naïve café – 北京 2024年…  and a last space ",
    "<think>\nSteps: 3 + 8 = 11, 11 - 4 = 7.\n</think>\n<answer>7</answer>",
    "What is 3+8-4? think step by step,   then answer.",
)
_QUESTIONS = (
    "What is {a}+{b}-{c}?",
    "Tom has {a} apples and gets {b} more. Then he eats {c}. How many apples are left?",
    "Which number is larger: {a} or {b}?",
    "Write one sentence about the number {a}.",
    "Name {c} animals that live in the sea.",
    "Is {a} a prime number? Say why.",
    "Write a Python function that adds {b} to its argument.",
    "Which day comes {c} days after Monday?",
    "How do I boil {c} eggs?",
    "Continue the series: {a}, {b}, ...",
)
_EARLIER = (Message(role="user", content="What is 1+2?"), Message(role="assistant", content="3"))
PASSAGE = 64  # tokens of a text whose log-probs are compared


@dataclass(frozen=True)
class Questions:
    """`texts` become token ids, `chats` text by the chat template, `prompts` are answered greedily with at most
    `max_tokens`, `passages` get the log-probs of all tokens but the first, and each of `ends` has to end an answer.
    Answers are cut at the first of `marks`, the special tokens: llama.cpp stops at some that end nothing for us.
    `begin` is the BOS token if the tokenizer adds it to a text: llama.cpp and Ollama take it off a prompt and add it
    themselves."""

    texts: list[str]
    chats: list[list[dict[str, str]]]
    prompts: list[list[int]]
    passages: list[list[int]]
    ends: list[int]
    marks: list[int]
    begin: str
    max_tokens: int


@dataclass(frozen=True)
class Answers:
    """One entry for each question; a log-prob that a runner does not report is None.

    `answers` and their `logprobs` end before the first special token; `stopped` says whether there was one. `ended`
    says for each end token whether it ends an answer.
    """

    texts: list[list[int]]
    chats: list[str]
    answers: list[list[int]]
    logprobs: list[list[float | None]]
    stopped: list[bool]
    passages: list[list[float | None]]
    ended: list[bool]


def questions_for(chat: ChatFormat, tokenizer: Any, ends: Sequence[int], prompts: int, max_tokens: int) -> Questions:
    """The questions for a model; texts with characters that its vocabulary lacks are left out."""
    candidates = [
        template.format(a=(17 * number) % 89 + 3, b=(29 * number) % 83 + 2, c=number % 7 + 2)
        for number in range(-(-prompts // len(_QUESTIONS)) * 2)
        for template in _QUESTIONS
    ]
    chosen = [question for question in candidates if known(question, tokenizer)][:prompts]
    texts = [text for text in TEXTS if known(text, tokenizer)]
    rendered = [chat.render(Problem(id="", prompt=question, answer=""), tokenizer) for question in chosen]
    plain = [[turn(Message(role="user", content=question))] for question in chosen[:2]]
    longer = [[*map(turn, _EARLIER), *chat] for chat in plain]
    system = [[turn(Message(role="system", content="be short.")), *chat] for chat in (plain[0], longer[0])]
    return Questions(
        texts=texts,
        chats=[*plain, *longer, *system],
        prompts=[list(prompt.token_ids) for prompt in rendered],
        passages=[tokenizer.encode(text, add_special_tokens=False)[:PASSAGE] for text in texts],
        ends=list(ends),
        marks=sorted({*ends, *tokenizer.all_special_ids}),
        begin=begin_of(tokenizer),
        max_tokens=max_tokens,
    )


def begin_of(tokenizer: Any) -> str:
    """The BOS token, if the tokenizer adds it to each text; otherwise ""."""
    return str(tokenizer.bos_token) if tokenizer("a").input_ids[0] == tokenizer.bos_token_id else ""


def known(text: str, tokenizer: Any) -> bool:
    """Whether a tokenizer has all parts of a text."""
    return tokenizer.unk_token_id not in tokenizer.encode(text, add_special_tokens=False)


def turn(message: Message) -> dict[str, str]:
    """A message as chat templates take it."""
    return {"role": message.role, "content": message.content}
