"""Conversations as training samples, with the same token ids as in sampling, end token included."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from r1kit.chat.format import ChatFormat
from r1kit.chat.turn import continuation, end_ids, opened_by
from r1kit.types import Conversation, Sample

Turn = tuple[int, str, str]  # an assistant's turn: its place in the conversation, its prompt, and what follows that


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
    (samples,) = to_samples_each([conversation], chat, tokenizer, ends, close_reasoning=close_reasoning)
    if isinstance(samples, ValueError):
        raise samples
    return samples


def to_samples_each(
    conversations: Sequence[Conversation],
    chat: ChatFormat,
    tokenizer: Any,
    ends: tuple[int, ...] = (),
    *,
    close_reasoning: bool = False,
) -> list[list[Sample] | ValueError]:
    """`to_samples` of each conversation, or the error that it raises.

    All texts are tokenised in one call, for which fast tokenizers use all processor cores.
    """
    ends = ends or end_ids(tokenizer)
    lead = chat.lead(tokenizer) if _marks_beginnings(tokenizer) else None
    drafts: list[list[Turn] | ValueError] = []
    for conversation in conversations:
        try:
            drafts.append(list(_turns(conversation, chat, tokenizer, close_reasoning)))
        except ValueError as error:
            drafts.append(error)
    turns = [turn for draft in drafts if isinstance(draft, list) for turn in draft]
    ids = _tokenised(turns, tokenizer, lead)
    results: list[list[Sample] | ValueError] = []
    for draft in drafts:
        if isinstance(draft, ValueError):
            results.append(draft)
            continue
        try:
            results.append(_joined([(index, *next(ids)) for index, *_ in draft], ends))
        except ValueError as error:
            results.append(error)
    return results


def _turns(conversation: Conversation, chat: ChatFormat, tokenizer: Any, close_reasoning: bool) -> Iterator[Turn]:
    """The assistant's turns as texts; what follows a prompt is all that a policy would have written behind it."""
    for index, turn in enumerate(conversation.messages):
        if turn.role != "assistant":
            continue
        if index == 0 or conversation.messages[index - 1].role != "user":
            raise ValueError(f"turn {index} is the assistant's but does not follow a user's turn")
        prompt, content = chat.text(conversation.messages[:index], tokenizer), turn.content
        try:
            if opened := opened_by(prompt):
                content = continuation(content, opened, close=close_reasoning)
        except ValueError as error:
            raise ValueError(f"turn {index} {error}") from None
        if not content.startswith(chat.prefill):
            reason = f"does not begin with the format's prefill {chat.prefill!r}, as sampling would"
            raise ValueError(f"turn {index} {reason}")
        yield index, prompt + chat.prefill, content.removeprefix(chat.prefill)


def _marks_beginnings(tokenizer: Any) -> bool:
    """Whether the tokenizer begins each text with a mark of its own, as SentencePiece's do with a space."""
    newline, letter, both = (tokenizer.encode(text, add_special_tokens=False) for text in ("\n", "A", "\nA"))
    return bool(both != newline + letter)


def _tokenised(turns: Sequence[Turn], tokenizer: Any, lead: str | None) -> Iterator[tuple[list[int], list[int]]]:
    """The ids of each turn's prompt and reply.

    With a `lead`, a reply is tokenised behind its prompt and that white space: by itself it would begin with the mark
    that the tokenizer puts at the beginning of a text.
    """
    replies = [reply if lead is None or not reply else prompt + lead + reply for _, prompt, reply in turns]
    texts = [text for (_, prompt, _), reply in zip(turns, replies, strict=True) for text in (prompt, reply)]
    ids = iter(tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else [])
    for (_, _, reply), prompt_ids, reply_ids in zip(turns, ids, ids, strict=True):
        if lead is not None and reply:
            joins = reply_ids[: len(prompt_ids)] == prompt_ids  # not if a token spans both
            reply_ids = reply_ids[len(prompt_ids) :] if joins else tokenizer.encode(reply, add_special_tokens=False)
        yield prompt_ids, reply_ids


def _joined(turns: Sequence[tuple[int, list[int], list[int]]], ends: tuple[int, ...]) -> list[Sample]:
    """The samples of tokenised turns: a turn whose prompt continues the turns before it shares their row."""
    samples: list[tuple[list[int], list[bool]]] = []
    for index, prompt, reply in turns:
        if not reply:
            raise ValueError(f"turn {index} is empty: it would teach the model to answer nothing")
        if not set(ends).isdisjoint(reply):
            raise ValueError(f"turn {index} has an end token inside its text, where sampling would have stopped")
        if not samples or prompt[: len(samples[-1][0])] != samples[-1][0]:
            samples.append(([], []))
        token_ids, mask = samples[-1]
        mask += [False] * (len(prompt) - len(token_ids)) + [True] * (len(reply) + 1)
        token_ids += [*prompt[len(token_ids) :], *reply, ends[0]]
    if not samples:
        raise ValueError("the conversation has no assistant turn to train on")
    return [Sample(token_ids=tuple(ids), loss_mask=tuple(mask)) for ids, mask in samples]
