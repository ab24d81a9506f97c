"""The command `models MODEL`: what a model's prompts open, and what ends its completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from r1kit.chat import ChatFormat, saved, to_samples
from r1kit.models.known import resolve
from r1kit.types import Conversation, Message, Problem, Sample

QUESTION, REASONED, DIRECT = "1+2?", "<think>1+2=3</think>3", "3"


def model_turns(names: Sequence[str], template: str | None = None) -> list[dict[str, Any]]:
    """One row per model: prompt format, what prompts open, what ends a completion, what becomes of the system message
    and of the reasoning in earlier answers, and the ids of a row of SFT.

    `template` is that of `saved.choose`. Weights are not read. Raises ValueError for a model or format that cannot be
    used.
    """
    from r1kit.models.load import ids_without_token, outline

    rows = []
    for name in names:
        policy = outline(name)
        chat, source = saved.choose(template, resolve(name), policy.tokenizer)
        policy.turn(chat)  # refuses a chat template that the format cannot follow
        opened, sample = chat.opened(policy.tokenizer), example(chat, policy)
        marks = policy.tokenizer.convert_ids_to_tokens(list(policy.end_ids))
        start = list(sample.loss_mask).index(True)
        rows.append(
            {
                "model": name,
                "prompt format": source,
                "opens": repr(opened) if opened else "nothing",
                "ends at": " ".join([*marks, *map(repr, policy.end_texts)]),
                "SFT teaches": marks[0],
                "system message": "in the first question" if chat.folds_system(policy.tokenizer) else "as it is",
                "earlier reasoning": "kept" if chat.keeps_reasoning(policy.tokenizer) else "dropped",
                "ids without a token": len(ids_without_token(policy.tokenizer, policy.model.config.vocab_size)),
                "prompt_ids": list(sample.token_ids[:start]),
                "reply_ids": list(sample.token_ids[start:]),
            }
        )
    return rows


def example(chat: ChatFormat, policy: Any) -> Sample:
    """A row of SFT in a model's format: a short question, and an answer that continues what the prompt opens."""
    answer = DIRECT if "</think>" in chat.opened(policy.tokenizer) else REASONED
    answer = answer if answer.startswith(chat.prefill) else chat.prefill + answer
    question = chat.messages(Problem(id="", prompt=QUESTION, answer=""))
    row = Conversation(messages=(*question, Message(role="assistant", content=answer)))
    return to_samples(row, chat, policy.tokenizer, policy.end_ids)[-1]
