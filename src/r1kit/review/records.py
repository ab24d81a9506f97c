"""What a review queue holds: samples, decisions, and the rule that makes an outcome of the decisions."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from random import Random
from typing import Any, Literal

from r1kit.curate import formats
from r1kit.data.errors import DataError
from r1kit.data.messages import parse_messages
from r1kit.store import to_plain

Action = Literal["accept", "edit", "reject", "skip", "undo"]
State = Literal["open", "disputed", "done"]
AUTO = "auto-accept"
TEXTS = ("problem", "prompt", "reasoning", "summary", "response", "reference", "answer", "source", "language")
KNOWN = (*TEXTS, "id", "messages", "verdicts", "filters", "metadata", "form")


class ReviewError(ValueError):
    """A row, a file, a name or a decision that the queue cannot take; the message says how to mend it."""


class LeaseLost(ReviewError):
    """A decision on a sample that is not, or is no longer, this reviewer's; nothing was recorded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """The part of a sample that people may change: `Text(reasoning="2 + 2 is 4.", summary="The answer is 4.")`."""

    reasoning: str
    summary: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One verdict or filter result as a reviewer sees it; `passed` is None where it could not be told."""

    name: str
    passed: bool | None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewItem:
    """A sample as a reviewer sees it. `id` never changes; `form` names the format that its row's response is in.

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A line of the history; an undo names in `undoes` the line that it takes back.

    `role` is "vote", "settle" (of a disagreement), "auto" (nobody's) or "skip"; an undo has that of its line.
    """

    seq: int
    at: str
    who: str
    item: str
    action: Action
    role: str
    reason: str
    before: Text | None
    after: Text | None
    undoes: int | None

    @property
    def accepts(self) -> bool:
        return self.action in ("accept", "edit")

    @property
    def row(self) -> dict[str, Any]:
        """What an exported sample says of it."""
        names = ("who", "at", "action", "role", "reason", "before", "after")
        return {name: to_plain(getattr(self, name)) for name in names}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the decisions on one sample come to; `text` is the accepted one."""

    state: State
    accepted: bool | None = None
    text: Text | None = None


def outcome(decisions: Sequence[Decision], wanted: int) -> Outcome:
    """The outcome of a sample's standing decisions, oldest first, of which `wanted` are needed.

    Reviewers who disagree make it disputed, until one more decision settles it. Of several accepted texts an edited
    one goes before an unedited one, and a later one before an earlier one. Auto-accept never overrules a person.
    """
    settled = [decision for decision in decisions if decision.role == "settle"][-1:]
    people = settled or [decision for decision in decisions if decision.role == "vote"]
    automatic = [decision for decision in decisions if decision.role == "auto"]
    if not settled and not automatic and len(people) < wanted:
        return Outcome(state="open")
    accepting = [decision for decision in people or automatic if decision.accepts]
    if len(accepting) < len(people or automatic):
        disputed = bool(accepting) and not automatic
        return Outcome(state="disputed") if disputed else Outcome(state="done", accepted=False)
    chosen = max(accepting, key=lambda decision: (decision.action == "edit", decision.seq))
    return Outcome(state="done", accepted=True, text=chosen.after)


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How far two reviewers of one sample agree on accept or reject.

    `kappa` sets that against chance: Scott's pi, which is Cohen's kappa for pairs of reviewers who change (1 is
    perfect, 0 is chance); None where it says nothing: no pairs, or all decisions alike.
    """

    pairs: int
    agreed: int
    kappa: float | None


def agreement(pairs: Sequence[tuple[bool, bool]]) -> Agreement:
    """`agreement([(True, True), (True, False)])` has 2 pairs, of which 1 agreed."""
    agreed = sum(first == second for first, second in pairs)
    if not pairs:
        return Agreement(pairs=0, agreed=0, kappa=None)
    share = sum(first + second for first, second in pairs) / (2 * len(pairs))
    chance = share**2 + (1 - share) ** 2
    kappa = (agreed / len(pairs) - chance) / (1 - chance) if chance < 1 else None
    return Agreement(pairs=len(pairs), agreed=agreed, kappa=kappa)


def wants_two(position: int, share: float) -> bool:
    """Whether the sample at a position (from 0) is reviewed twice: one by chance out of every 1 / share in a row.

    Position and share decide alone, so samples that come later change nothing, and the share is met to one sample.
    """
    exact = Fraction(share).limit_denominator(10_000)
    if exact <= 0:
        return False
    stratum = math.floor(position * exact)
    first, after = math.ceil(stratum / exact), math.ceil((stratum + 1) / exact)
    return position - first == Random(f"review/{stratum}").randrange(after - first)


def parse_item(row: Mapping[str, Any], where: str = "") -> ReviewItem:
    """A sample from a row of plain data; raises `ReviewError` with the place and the field.

    The text is in `reasoning` and `summary`, or in `response`, or it is the last of `messages`, where any format of
    `curate.formats` is taken apart. Columns that are not ours are shown as metadata. Without an `id` the content
    names the sample.
    """
    at = f"{where}: " if where else ""
    conversation = _conversation(row.get("messages"), at)
    row = {**row, **conversation}
    for name in TEXTS:
        if not isinstance(row.get(name) or "", str):
            raise ReviewError(f"{at}{name} is {row[name]!r:.60}: it must be text")
    problem = row.get("problem") or row.get("prompt") or ""
    if not problem.strip():
        raise ReviewError(f"{at}no problem: give the question as text in 'problem', or as a user's turn in 'messages'")
    text, form = _text(row, at)
    if not (text.reasoning.strip() or text.summary.strip()):
        raise ReviewError(f"{at}no sample: give 'reasoning' and 'summary', or both as one 'response'")
    verdicts, filters = (_checks(row.get(name) or {}, f"{at}{name}") for name in ("verdicts", "filters"))
    given = row.get("metadata") or {}
    metadata = given if isinstance(given, Mapping) else {"metadata": given}
    others = {name: value for name, value in row.items() if name not in KNOWN and value not in (None, "", [], {})}
    return ReviewItem(
        id=_id(row, (problem, text.reasoning, text.summary), at),
        problem=problem,
        reasoning=text.reasoning,
        summary=text.summary,
        reference=row.get("reference") or row.get("answer") or "",
        verdicts=verdicts,
        filters=filters,
        source=row.get("source") or "",
        language=row.get("language") or "",
        metadata={**others, **metadata},
        form=form,
    )


def with_text(row: Mapping[str, Any], text: Text) -> dict[str, Any]:
    """The row with another text, where and in the format in which it had its own; all else stays.

    Raises `ReviewError` for a text that the format cannot hold, as one without reasoning or with tags inside.
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
    """Problem, response and what came before them, of a conversation."""
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
        raise ReviewError(f"{at}a whole response and reasoning or summary: give one or the other")
    response = row["response"] or ""
    if parts := formats.split(response):
        return Text(reasoning=parts.reasoning, summary=parts.summary), parts.form
    head, closed, tail = response.rpartition("</think>")  # all words of a broken one stay, for people to mend
    bare = [part.replace("<think>", "").replace("<answer>", "").replace("</answer>", "") for part in (head, tail)]
    return Text(reasoning=bare[0].strip() if closed else "", summary=bare[1].strip()), None


def _id(row: Mapping[str, Any], content: tuple[str, ...], at: str) -> str:
    name = row.get("id")
    if name is None:
        return hashlib.sha256("\0".join(content).encode("utf-8", "surrogatepass")).hexdigest()[:16]
    text = str(name)
    if isinstance(name, bool) or not isinstance(name, str | int) or not text.strip() or not text.isprintable():
        raise ReviewError(f"{at}id is {name!r:.60}: it must be a whole number or text that can be printed")
    return text


def _checks(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ReviewError(f"{where} is {value!r:.60}: it must be an object of names and results")
    for name, result in value.items():
        if not isinstance(_passed(result), bool | None):
            raise ReviewError(f"{where}.{name} is {result!r:.60}: true, false, null or an object with 'passed'")
    return dict(value)


def _passed(result: Any) -> Any:
    if not isinstance(result, Mapping):
        return result
    return result.get("passed", result.get("correct"))


def checks(results: Mapping[str, Any]) -> list[Check]:
    """Verdicts or filter results as lines to read: what was extracted and the detail go into one text."""
    found = []
    for name, result in results.items():
        parts = [result.get("extracted"), result.get("detail")] if isinstance(result, Mapping) else []
        found.append(Check(name=name, passed=_passed(result), detail=" · ".join(str(part) for part in parts if part)))
    return found
