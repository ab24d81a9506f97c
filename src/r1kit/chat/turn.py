"""The assistant's turn of a model: the text that its prompts have opened, and what ends a completion.

Sampling, training, evaluation and the format checks all ask here, so that they agree.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from r1kit.chat.template import END_THINK, THINK, apply_template, rendered
from r1kit.types import Completion, Prompt

_OPENED = re.compile(r"(?:<think>\s*(?:</think>\s*)?|</think>\s*)\Z")
_QUESTION, _ANSWER, _NEXT = "Q7Q", "A7A", "Q8Q"  # texts that no template changes or writes itself


def opened_by(prompt: str) -> str:
    """The reasoning that a prompt opens at its end: "", "<think>", or a block that is closed already.

    R1's distilled models open `<think>`; Qwen3 with `enable_thinking=false` writes an empty block.
    """
    match = _OPENED.search(prompt)
    return match[0] if match else ""


def whole_response(prompt: Prompt, completion: Completion) -> str:
    """The response to judge: what the prompt opened, and the completion.

    A prompt without token ids went to a server, whose template r1kit does not see. Its reply may begin with the tag
    that the template opened or behind it; a reply that only closes the reasoning gets the tag back.
    """
    text = completion.text
    if not prompt.token_ids:
        before, closed, _ = text.partition(END_THINK)
        return THINK + text if closed and THINK not in before else text
    return prompt.opened + text


def continuation(content: str, opened: str, *, close: bool = False) -> str:
    """The part of an assistant's turn that a policy writes behind the text that its prompt has opened.

    Behind `<think>`, a turn loses its own tag, or begins inside the reasoning. With `close`, a turn without reasoning
    ends the block first. Raises ValueError for a turn that does not continue what is open.
    """
    if content.startswith(opened):
        rest = content[len(opened) :]
    elif END_THINK in opened:
        return _behind_a_closed_block(content)
    elif content.lstrip().startswith(THINK):
        rest = content.lstrip().removeprefix(THINK).lstrip()
    elif END_THINK in content:
        rest = content
    elif THINK in content:
        raise ValueError(f"has text before {THINK}, which its prompt has opened already: remove that text")
    elif close:
        return f"\n{END_THINK}\n\n{content}"
    else:
        raise ValueError(
            f"has no reasoning, but its prompt opens {THINK}: give the reasoning, set plain_rows to 'close', which "
            "ends the reasoning before the answer, or use a template or chat.options that open nothing"
        )
    if opened.strip() == THINK and END_THINK not in rest:
        raise ValueError(f"never ends the reasoning that its prompt opens: write {END_THINK} before the answer")
    return rest


def _behind_a_closed_block(content: str) -> str:
    """A turn behind an empty block of reasoning that its prompt has closed: it loses an empty block of its own."""
    reasoning, closed, answer = content.partition(END_THINK)
    if not closed and THINK not in content:
        return content
    if closed and not reasoning.replace(THINK, "").strip():
        return answer.lstrip()
    raise ValueError(
        "has reasoning, but its prompt has closed an empty block of reasoning: set chat.options so that the template "
        "leaves the reasoning to the model (Qwen3: enable_thinking=true), or remove the reasoning"
    )


def end_ids(tokenizer: Any, listed: Sequence[int] = ()) -> tuple[int, ...]:
    """The ids that end a completion, in sampling and in training; SFT teaches the first one.

    First comes the token with which the chat template closes the assistant's turn; if it closes nothing, the one with
    which the user's next turn begins. A model that is trained on one end token and sampled until another never stops
    (the most frequent report of open-r1 and TRL users). Then the tokenizer's own, and those `listed` in the model's
    `generation_config.json`. Raises ValueError if there is none.
    """
    marks, ending = _marks(tokenizer), list[int]()
    if tokenizer.chat_template:
        closing, following = _after_answer(tokenizer)
        closing_marks = [token for token in _encode(tokenizer, closing) if token in marks]
        next_marks = [token for token in _encode(tokenizer, following.strip())[:1] if token in marks]
        ending = (closing_marks or next_marks)[:1]
    # the next turn may begin with BOS, which ends a completion too, but is not to be taught
    taught = [token for token in ending if token != tokenizer.bos_token_id]
    # a default of a configuration class may name an ordinary word of this vocabulary
    candidates = [*taught, tokenizer.eos_token_id, *ending, *(token for token in listed if token in marks)]
    ends = tuple(dict.fromkeys(token for token in candidates if token is not None))
    if not ends:
        raise ValueError("the tokenizer has no end token: set tokenizer.eos_token to the token that ends an answer")
    return ends


def end_texts(tokenizer: Any) -> tuple[str, ...]:
    """The text with which a chat template without tokens for it ends a turn, such as a line "### User:"."""
    if not tokenizer.chat_template:
        return ()
    closing, following = _after_answer(tokenizer)
    mark = closing if closing.strip() else following
    text = mark.strip()
    if not text or not _marks(tokenizer).isdisjoint(_encode(tokenizer, mark)):
        return ()
    return (("\n" if "\n" in mark[: mark.index(text)] else "") + text,)


def describe_turn(opened: str, ids: Sequence[int], texts: Sequence[str], tokenizer: Any) -> str:
    """One line for people: what a prompt opens, what ends a completion, and which end SFT teaches."""
    marks = tokenizer.convert_ids_to_tokens(list(ids))
    ends = ", ".join([*marks, *map(repr, texts)])
    begins = (repr(opened) if opened else "nothing") + (", no reasoning" if END_THINK in opened else "")
    return f"the prompt opens {begins}; a completion ends at {ends}; SFT teaches {marks[0]}"


def _marks(tokenizer: Any) -> set[int]:
    """The ids of special tokens and of all others that were added to the vocabulary."""
    return set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)


def _encode(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False))


def _after_answer(tokenizer: Any) -> tuple[str, str]:
    """The text that the chat template writes after a last answer, and between an answer and the next question."""
    turns = [{"role": "user", "content": _QUESTION}, {"role": "assistant", "content": _ANSWER}]
    remedy = "it must accept a question and an answer"
    text = apply_template(tokenizer, turns, remedy)
    if _ANSWER not in text:
        raise ValueError(f"the chat template does not write the assistant's answer into the conversation: {remedy}")
    closing = text.rpartition(_ANSWER)[2]
    both = apply_template(tokenizer, [*turns, {"role": "user", "content": _NEXT}], remedy)
    return closing, both.rpartition(_ANSWER)[2].partition(_NEXT)[0]


def require_opening(tokenizer: Any, turns: Sequence[dict[str, str]], options: Mapping[str, Any]) -> None:
    """Raise ValueError for a chat template that does not begin the assistant's turn in a prompt.

    A policy would have to write the name of its own role first, and no completion of such a prompt is an answer.
    """
    turns = [*turns[:-1], {**turns[-1], "content": _QUESTION}]
    prompt = rendered(tokenizer, turns, add_generation_prompt=True, **options)
    if prompt != rendered(tokenizer, turns, add_generation_prompt=False, **options):
        return
    missing = _before_answer(tokenizer, turns, prompt, options)
    if missing.strip() and not opened_by(missing):
        raise ValueError(
            f"the chat template ignores add_generation_prompt: a prompt would lack {missing!r}, with which it begins "
            "an answer; add that to the template under add_generation_prompt, or use the format plain"
        )


def lead_of(tokenizer: Any, turns: Sequence[dict[str, str]], options: Mapping[str, Any]) -> str:
    """The white space between a prompt and its answer in the chat template's text; "" if it writes more than that."""
    turns = [*turns[:-1], {**turns[-1], "content": _QUESTION}]
    prompt = rendered(tokenizer, turns, add_generation_prompt=True, **options)
    lead = _before_answer(tokenizer, turns, prompt, options)
    return "" if lead.strip() else lead


def _before_answer(tokenizer: Any, turns: Sequence[dict[str, str]], prompt: str, options: Mapping[str, Any]) -> str:
    """The chat template's text between the prompt and an answer to it; "" if an answer changes the prompt."""
    answered = rendered(tokenizer, [*turns, {"role": "assistant", "content": _ANSWER}], **options)
    # only the text behind the question: some templates write a system message elsewhere once an answer follows
    begun, whole = (text.rpartition(_QUESTION)[2] for text in (prompt, answered.rpartition(_ANSWER)[0]))
    return whole.removeprefix(begun) if whole.startswith(begun) else ""
