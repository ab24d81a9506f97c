"""Samples as reviewers see them: read from rows, and written back with an edited text."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from r1kit.curate import formats
from r1kit.data.errors import DataError
from r1kit.data.messages import parse_messages

TEXTS = ("problem", "prompt", "reasoning", "summary", "response", "reference", "answer", "source", "language")
KNOWN = (*TEXTS, "id", "messages", "verdicts", "filters", "metadata", "form")


class ReviewError(ValueError):
    """A row, a file, a name or a decision that the queue cannot accept; the message says how to fix it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """The part of a sample that reviewers can edit: `Text(reasoning="2 + 2 is 4.", summary="The answer is 4.")`."""

    reasoning: str
    summary: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One verdict or filter result as a reviewer sees it; `passed` is None if it is unknown."""

    name: str
    passed: bool | None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewItem:
    """A sample as a reviewer sees it. `id` never changes; `form` is the format of the response in its row.

    `ReviewItem(id="gsm8k/train/17/0", problem="Tom has 3 apples ...", reasoning="He ...", summary="72",
    reference="72", verdicts={"math": {"correct": True, "extracted": "72"}}, filters={"readable": True})`
    `verdicts` and `filters` map a name to true, false, null, or an object with `correct` or `passed` and a `detail`.
    """

    id: str
    problem: str
    reasoning: str
    summary: str
    reference: str = ""
    verdicts: Mapping[str, Any] = field(default_factory=dict)
    filters: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    language: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    form: str | None = None

    @property
    def text(self) -> Text:
        return Text(reasoning=self.reasoning, summary=self.summary)


def parse_item(row: Mapping[str, Any], where: str = "") -> ReviewItem:
    """A sample from a row of plain data; raises `ReviewError` that starts with `where` and names the field.

    The text is in `reasoning` and `summary`, in `response`, or in the last of `messages`; the last two can have any
    format of `curate.formats`. Unknown columns become metadata. A row without an `id` gets a hash of its content.
    """
    at = f"{where}: " if where else ""
    row = {**row, **_conversation(row.get("messages"), at)}
    for name in TEXTS:
        if not isinstance(row.get(name) or "", str):
            raise ReviewError(f"{at}{name} is {row[name]!r:.60}: it must be text")
    problem = row.get("problem") or row.get("prompt") or ""
    if not problem.strip():
        raise ReviewError(f"{at}there is no question: give it as text in 'problem', or as a user's turn in 'messages'")
    text, form = _text(row, at)
    if not (text.reasoning.strip() or text.summary.strip()):
        raise ReviewError(f"{at}there is no response: give 'reasoning' and 'summary', or both as one 'response'")
    for name, results in (("verdicts", row.get("verdicts") or {}), ("filters", row.get("filters") or {})):
        if not isinstance(results, Mapping):
            raise ReviewError(f"{at}{name} is {results!r:.60}: it must be an object of names and results")
        for key, result in results.items():
            if not isinstance(_passed(result), bool | None):
                reason = "it must be true, false, null or an object with 'passed'"
                raise ReviewError(f"{at}{name}.{key} is {result!r:.60}: {reason}")
    metadata = row.get("metadata") or {}
    metadata = metadata if isinstance(metadata, Mapping) else {"metadata": metadata}
    others = {name: value for name, value in row.items() if name not in KNOWN and value not in (None, "", [], {})}
    key = row.get("id")
    if key is None:
        content = "\0".join((problem, text.reasoning, text.summary)).encode("utf-8", "surrogatepass")
        key = hashlib.sha256(content).hexdigest()[:16]
    if isinstance(key, bool) or not isinstance(key, str | int) or not (str(key).strip() and str(key).isprintable()):
        raise ReviewError(f"{at}id is {key!r:.60}: it must be a whole number or text that can be printed")
    return ReviewItem(
        id=str(key),
        problem=problem,
        reasoning=text.reasoning,
        summary=text.summary,
        reference=row.get("reference") or row.get("answer") or "",
        verdicts=dict(row.get("verdicts") or {}),
        filters=dict(row.get("filters") or {}),
        source=row.get("source") or "",
        language=row.get("language") or "",
        metadata={**others, **metadata},
        form=form,
    )


def with_text(row: Mapping[str, Any], text: Text) -> dict[str, Any]:
    """The row with another text, in the same columns and format as before.

    Raises `ReviewError` for a text that the format cannot hold, such as one without reasoning or with tags inside.
    """
    item = parse_item(row)
    if text == item.text:
        return dict(row)
    if "messages" not in row and "response" not in row:
        return dict(row) | {"reasoning": text.reasoning, "summary": text.summary}
    response = text.summary
    if item.form or text.reasoning.strip():
        try:
            response = formats.render(text.reasoning, text.summary, item.form or "think_answer")
        except ValueError as error:
            raise ReviewError(str(error)) from None
    if "messages" not in row:
        return dict(row) | {"response": response}
    return dict(row) | {"messages": [*row["messages"][:-1], {**row["messages"][-1], "content": response}]}


def _conversation(turns: Any, at: str) -> dict[str, Any]:
    """The problem, the response and the earlier turns of a conversation."""
    if turns is None:
        return {}
    try:
        messages = parse_messages(turns)
    except DataError as error:
        raise ReviewError(f"{at}{error}") from None
    if [turn.role for turn in messages[-2:]] != ["user", "assistant"]:
        raise ReviewError(f"{at}messages must end with a user's turn and the assistant's")
    earlier = [f"{turn.role}: {turn.content}" for turn in messages[:-2]]
    return {"problem": messages[-2].content, "response": messages[-1].content, "earlier turns": earlier}


def _text(row: Mapping[str, Any], at: str) -> tuple[Text, str | None]:
    if "response" not in row:
        return Text(reasoning=row.get("reasoning") or "", summary=row.get("summary") or ""), None
    if "reasoning" in row or "summary" in row:
        raise ReviewError(f"{at}the row has a whole response and reasoning or summary: give one or the other")
    response = row["response"] or ""
    if parts := formats.split(response):
        return Text(reasoning=parts.reasoning, summary=parts.summary), parts.form
    head, closed, tail = response.rpartition("</think>")  # a broken response keeps all its words, for people to fix
    bare = [part.replace("<think>", "").replace("<answer>", "").replace("</answer>", "") for part in (head, tail)]
    return Text(reasoning=bare[0].strip() if closed else "", summary=bare[1].strip()), None


def _passed(result: Any) -> Any:
    if not isinstance(result, Mapping):
        return result
    return result.get("passed", result.get("correct"))


def checks(results: Mapping[str, Any]) -> list[Check]:
    """Verdicts or filter results for the page; the extracted answer and the detail become one text."""
    lines = []
    for name, result in results.items():
        parts = [result.get("extracted"), result.get("detail")] if isinstance(result, Mapping) else []
        lines.append(Check(name=name, passed=_passed(result), detail=" · ".join(str(part) for part in parts if part)))
    return lines
