"""Conversations as training samples, with the same token ids as in sampling, end token included."""

from __future__ import annotations

from typing import Any

from r1kit.chat.format import ChatFormat, apply_template
from r1kit.types import Conversation, Sample


def end_ids(tokenizer: Any) -> tuple[int, ...]:
    """The ids that end a completion, in sampling and in training; SFT teaches the first one.

    If the chat template closes the assistant's turn with a special token, that token comes first: a model that is
    trained on one end token and sampled until another never stops (the most frequent report of open-r1 and TRL users).
    Raises ValueError if there is no end token.
    """
    ends = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    if tokenizer.chat_template:
        turns = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A7A"}]
        closing = apply_template(tokenizer, turns, "it must accept a question and an answer").rpartition("A7A")[2]
        ids = tokenizer.encode(closing, add_special_tokens=False)
        if ids and ids[0] in tokenizer.all_special_ids and ids[0] not in ends:
            ends.insert(0, ids[0])
    if not ends:
        raise ValueError("the tokenizer has no end token: set tokenizer.eos_token to the token that ends an answer")
    return tuple(ends)


def to_samples(conversation: Conversation, chat: ChatFormat, tokenizer: Any) -> list[Sample]:
    """A conversation as training samples, with the loss on the assistant's turns and on the end token after each.

    Each turn follows exactly the prompt ids of sampling, prefill included, and ends where sampling would stop. Some
    templates render earlier turns differently once later turns follow (without reasoning, or without an end token).
    Then the turns cannot share a row, and each starts a sample of its own. Raises ValueError that names the turn if a
    conversation cannot be trained on.
    """
    ends = end_ids(tokenizer)
    samples: list[tuple[list[int], list[bool]]] = []
    for index, turn in enumerate(conversation.messages):
        if turn.role != "assistant":
            continue
        reply = _reply_ids(conversation, index, chat, tokenizer, ends)
        prompt = chat.encode(conversation.messages[:index], tokenizer)
        opens = turn.content.removeprefix(chat.prefill).lstrip().startswith("<think>")
        if opens and chat.text(conversation.messages[:index], tokenizer).rstrip().endswith("<think>"):
            raise ValueError(  # the template of R1's distilled models opens the reasoning
                f"turn {index} begins with <think>, and so does the chat template's start of the turn, so the tag "
                "would be trained twice: use a chat template without the tag, or the format 'plain'"
            )
        if not samples or prompt[: len(samples[-1][0])] != samples[-1][0]:
            samples.append(([], []))
        token_ids, mask = samples[-1]
        mask += [False] * (len(prompt) - len(token_ids)) + [True] * len(reply)
        token_ids += [*prompt[len(token_ids) :], *reply]
    if not samples:
        raise ValueError(f"a conversation of {len(conversation.messages)} messages has no assistant turn to train on")
    return [Sample(token_ids=tuple(ids), loss_mask=tuple(mask)) for ids, mask in samples]


def _reply_ids(
    conversation: Conversation, index: int, chat: ChatFormat, tokenizer: Any, ends: tuple[int, ...]
) -> list[int]:
    """The ids that a policy would have sampled for an assistant's turn: the text after the prefill, then the end."""
    content = conversation.messages[index].content
    if index == 0 or conversation.messages[index - 1].role != "user":
        raise ValueError(f"turn {index} is the assistant's but does not follow a user's turn")
    if not content.startswith(chat.prefill):
        raise ValueError(f"turn {index} does not begin with the format's prefill {chat.prefill!r}, as sampling would")
    ids = list(tokenizer.encode(content.removeprefix(chat.prefill), add_special_tokens=False))
    if not ids:
        raise ValueError(f"turn {index} is empty: it would teach the model to answer nothing")
    if any(token in ends for token in ids):
        raise ValueError(f"turn {index} has an end token inside its text, where sampling would have stopped")
    return [*ids, ends[0]]
