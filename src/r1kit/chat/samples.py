"""Conversations as training samples, with the same token ids as in sampling, end token included."""

from __future__ import annotations

from typing import Any

from r1kit.chat.format import ChatFormat
from r1kit.chat.turn import continuation, end_ids
from r1kit.types import Conversation, Prompt, Sample


def to_samples(
    conversation: Conversation,
    chat: ChatFormat,
    tokenizer: Any,
    ends: tuple[int, ...] = (),
    *,
    close_reasoning: bool = False,
) -> list[Sample]:
    """A conversation as training samples, with the loss on the assistant's turns and on the end token after each.

    Each turn follows exactly the prompt ids of sampling, prefill included, and ends where sampling would stop: `ends`
    are the policy's, by default those of the tokenizer. A turn continues what its prompt has opened (see
    `turn.continuation`, also for `close_reasoning`). Some templates render earlier turns differently once later turns
    follow (without reasoning, or without an end token). Then the turns cannot share a row, and each starts a sample of
    its own. Raises ValueError that names the turn if a conversation cannot be trained on.
    """
    ends = ends or end_ids(tokenizer)
    samples: list[tuple[list[int], list[bool]]] = []
    for index, turn in enumerate(conversation.messages):
        if turn.role != "assistant":
            continue
        if index == 0 or conversation.messages[index - 1].role != "user":
            raise ValueError(f"turn {index} is the assistant's but does not follow a user's turn")
        prompt = chat.prompt(conversation.messages[:index], tokenizer)
        try:
            reply = _reply_ids(turn.content, prompt, chat, tokenizer, ends, close_reasoning)
        except ValueError as error:
            raise ValueError(f"turn {index} {error}") from None
        if not samples or list(prompt.token_ids[: len(samples[-1][0])]) != samples[-1][0]:
            samples.append(([], []))
        token_ids, mask = samples[-1]
        mask += [False] * (len(prompt.token_ids) - len(token_ids)) + [True] * len(reply)
        token_ids += [*prompt.token_ids[len(token_ids) :], *reply]
    if not samples:
        raise ValueError("the conversation has no assistant turn to train on")
    return [Sample(token_ids=tuple(ids), loss_mask=tuple(mask)) for ids, mask in samples]


def _reply_ids(
    content: str, prompt: Prompt, chat: ChatFormat, tokenizer: Any, ends: tuple[int, ...], close_reasoning: bool
) -> list[int]:
    """The ids that a policy would have sampled for a turn: the text behind all that the prompt opened, then the end."""
    if template_opened := prompt.opened.removesuffix(chat.prefill):
        content = continuation(content, template_opened, close=close_reasoning)
    if not content.startswith(chat.prefill):
        raise ValueError(f"does not begin with the format's prefill {chat.prefill!r}, as sampling would")
    ids = list(tokenizer.encode(content.removeprefix(chat.prefill), add_special_tokens=False))
    if not ids:
        raise ValueError("is empty: it would teach the model to answer nothing")
    if any(token in ends for token in ids):
        raise ValueError("has an end token inside its text, where sampling would have stopped")
    return [*ids, ends[0]]
