"""The command `data show`: rows of a file as a model's tokens, with those that are trained on marked."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from r1kit.chat import ChatFormat, saved
from r1kit.data.conversations import conversation, read, renamed
from r1kit.data.errors import DataError
from r1kit.data.mask_excerpt import excerpt
from r1kit.data.prepare import ConversationSettings, conversation_samples
from r1kit.data.rows import numbered_rows, stem
from r1kit.models.known import resolve
from r1kit.report.mask_pictures import picture
from r1kit.tasks.check_items import conversation_reader
from r1kit.tasks.from_rows import SAMPLED_ROWS, from_rows, head_of
from r1kit.tasks.recognition import sample_of
from r1kit.terminal import printable
from r1kit.types import Sample

COLOUR, PLAIN = ("\x1b[32m", "\x1b[0m"), ("«", "»")  # what begins and ends trained text, with and without a terminal


def show_data(
    file: Path, model: str, template: str | None, columns: Mapping[str, str], count: int, *, in_colour: bool
) -> dict[str, Any]:
    """The first `count` rows of a file as the stage `sft` trains on them, or as `rl` asks them if they are problems.

    "turn" says what prompts open and what ends a completion, "rows" holds one entry per sample, and "text" is all of it
    for people. Raises ValueError for files and models that cannot be used.
    """
    from r1kit.models.load import outline

    policy = outline(model)
    head, _ = head_of(numbered_rows(file))
    reader = conversation_reader(sample_of(head), columns)
    folder = resolve(model)
    if template is None and reader is not None:
        chat, source = saved.own(folder, policy.tokenizer)
    else:
        chat, source = saved.choose(template, folder, policy.tokenizer)
    turn = policy.turn(chat)
    if reader is None:
        rows = _prompts(file, chat, policy, columns, count)
    elif reader.name == "conversations":
        rows = _conversations(file, chat, policy, columns, count)
    else:
        raise DataError(
            "wrong type", f"{reader.name} have no trained tokens: use `r1kit data check` to show them", str(file)
        )
    lines = [f"{file} with the prompt format of {model}: {source}", turn]
    for row in rows:
        lines += ["", f"row {row['row']}: {row['facts']}"]
        lines += [] if "pieces" not in row else [marked(row["pieces"], *(COLOUR if in_colour else PLAIN))]
    return {"turn": turn, "rows": rows, "text": "\n".join(lines)}


def _conversations(
    file: Path, chat: ChatFormat, policy: Any, columns: Mapping[str, str], count: int
) -> list[dict[str, Any]]:
    """One entry for each sample of each row, or the reason why a row is left out."""
    make = conversation_samples(ConversationSettings(), chat, policy.tokenizer, policy.end_ids, int(policy.context))
    rows: list[dict[str, Any]] = []
    for record in islice(read([file], renamed(conversation, columns) if columns else conversation), count):
        if isinstance(record, DataError):
            raise record
        [samples] = make([record.record])
        if isinstance(samples, ValueError):
            rows.append({"row": record.row, "facts": f"left out: {samples}"})
            continue
        excerpts = excerpt([sample.sample for sample in samples], policy.tokenizer, len(samples))
        rows += [{"row": record.row, **picture(sample)} for sample in excerpts]
    return rows


def _prompts(file: Path, chat: ChatFormat, policy: Any, columns: Mapping[str, str], count: int) -> list[dict[str, Any]]:
    """One entry for each problem: its prompt and its reference."""
    rows = []
    first = islice(numbered_rows(file), max(count, SAMPLED_ROWS))  # by fewer, the columns might be guessed otherwise
    task = from_rows(first, name=stem(file), file=str(file), columns=columns)
    for number, problem in enumerate(task.problems[:count], 1):
        ids = chat.render(problem, policy.tokenizer).token_ids
        [prompt] = excerpt([Sample(token_ids=ids, loss_mask=[False] * len(ids))], policy.tokenizer)
        facts = f"prompt of {len(ids):,} tokens; reference {printable(problem.answer)!r}, verifier {problem.verifier}"
        rows.append({"row": number, **picture(prompt), "facts": facts})
    return rows


def marked(pieces: list[dict[str, Any]], begin: str, end: str) -> str:
    """The text of tokens, with marks around each run of trained ones."""
    text, inside = "", False
    for piece in pieces:
        mark = (begin if piece["trained"] else end) if piece["trained"] != inside else ""
        gap = f" ... {piece['skipped']:,} tokens ... " if piece["skipped"] else ""
        text += mark + gap + printable(piece["text"])
        inside = piece["trained"]
    return text + (end if inside else "")
