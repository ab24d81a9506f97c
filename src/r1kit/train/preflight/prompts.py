"""Prompts, end tokens and masks: what training shows a model is what sampling and evaluation show it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from r1kit.chat import ChatFormat, saved, to_samples
from r1kit.models.load import Policy
from r1kit.train.preflight.lines import Line, line, unclear
from r1kit.types import Conversation, Message, Problem, Sample

ROWS = 64  # of a data set whose masks are looked at
FIELDS = ("template", "plain", "prefill", "options", "system")  # a template's date may differ, and so may exemplars
KNOWN = "prompts as the model knows them"
QUESTION, ANSWER = "What is 3+4?", "<think> 3+4=7 </think> <answer> 7 </answer>"


def own_format_line(chat: ChatFormat, policy: Policy, folder: Path) -> list[Line]:
    """Prompts are those that the model was trained on, by the format beside its weights; nothing without one."""
    if not (folder / saved.FILE).is_file():
        return []
    return [same_prompts_line(chat, saved.read(folder), policy.tokenizer, "where the model was trained")]


def same_prompts_line(chat: ChatFormat, other: ChatFormat, tokenizer: Any, place: str, check: str = KNOWN) -> Line:
    """Two formats give a question the same ids; `place` is that of the other one.

    A system prompt that training changes may be meant; one that an evaluation changes is not.
    """
    difference = prompts_differ(chat, other, tokenizer)
    if difference is None:
        return line(check, f"the same ids {place}", True, "")
    name, here, there = difference
    value = f"{name} is {here} here, {there} {place}"
    if name == "system" and check == KNOWN:
        return unclear(check, value)
    remedy = "use one format (chat) for a model's training, sampling and evaluation, or train it on the new one (sft)"
    return line(check, value, False, remedy)


def prompts_differ(chat: ChatFormat, other: ChatFormat, tokenizer: Any) -> tuple[str, str, str] | None:
    """The field that makes two formats' prompts differ, and its two values; None if the ids are the same."""
    question = Problem(id="", prompt=QUESTION, answer="7")
    ids = [each.replace(exemplars=()).render(question, tokenizer).token_ids for each in (chat, other)]
    if ids[0] == ids[1]:
        return None
    name = next((name for name in FIELDS if getattr(chat, name) != getattr(other, name)), "date")
    return name, f"{getattr(chat, name)!r:.40}", f"{getattr(other, name)!r:.40}"


def turn_line(chat: ChatFormat, policy: Policy) -> Line:
    """A row of SFT begins with the ids of the sampling prompt, and only the answer and its end token are trained on."""
    check, tokenizer = "template and end token", policy.tokenizer
    question = Message(role="user", content=QUESTION)
    prompt = chat.replace(exemplars=()).prompt((question,), tokenizer)
    text = ANSWER if "</think>" not in prompt.opened else "7"  # a closed block leaves no reasoning to the model
    text = text if text.startswith(chat.prefill) else chat.prefill + text
    answer = Message(role="assistant", content=text)
    try:
        (sample,) = to_samples(Conversation(messages=(question, answer)), chat, tokenizer, policy.end_ids)
    except ValueError as error:
        return line(check, str(error), False, "change the format (chat), so that it takes a question and an answer")
    size = len(prompt.token_ids)
    is_prompt = tuple(sample.token_ids[:size]) == prompt.token_ids and not any(sample.loss_mask[:size])
    fault = "" if is_prompt else "a training row does not begin with the prompt of sampling"
    fault = fault or _fault(sample, policy.end_ids)
    marks = tokenizer.convert_ids_to_tokens(list(policy.end_ids[:1]))
    remedy = "training would teach another turn than sampling asks for: correct the chat template or tokenizer"
    return line(check, fault or f"{size} prompt ids as in sampling, then the answer and {marks[0]}", not fault, remedy)


def rows_line(rows: Sequence[Sample], policy: Policy) -> Line:
    """The first rows of the data are masked up to their first answer, and end with a trained end token."""
    faults = [fault for row in islice(rows, ROWS) if (fault := _fault(row, policy.end_ids))]
    looked = min(ROWS, len(rows))
    value = f"{len(faults)} of {looked} rows: {faults[0]}" if faults else f"{looked} rows end with a trained end token"
    remedy = "a model that never learns the end does not stop: see mask.json, and r1kit data show FILE --model MODEL"
    return line("masks", value, not faults, remedy, "0")


def _fault(sample: Sample, ends: Sequence[int]) -> str:
    if sample.loss_mask[0]:
        return "the prompt is trained on"
    if not sample.loss_mask[-1]:
        return "the last token is not trained on"
    return "" if sample.token_ids[-1] in ends else "the last token is no end token"
