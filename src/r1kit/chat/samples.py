"""Conversations as training samples: what is trained is what would be sampled, end token included."""

from __future__ import annotations

from typing import Any

from r1kit.chat.format import ChatFormat, apply_template
from r1kit.types import Conversation, Sample


def end_ids(tokenizer: Any) -> tuple[int, ...]:
    """The ids that end a completion, in sampling and in training; the first is the one that SFT teaches.

    A chat template that closes the assistant's turn with a special token of its own adds that token, in first place:
    a model that is trained on one end token and sampled until another never stops (open-r1 and TRL users' most
    frequent report). Raises ValueError where there is no end token at all.
    """
    ends = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    if tokenizer.chat_template:
        turns = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A7A"}]
        closing = apply_template(tokenizer, turns, "it must take a question and an answer").rpartition("A7A")[2]
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
