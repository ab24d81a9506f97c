"""Where an answer comes from: the chain of rows and models behind it, each link checked against the one before.

An answer leads over the models that it was sampled from to the rows of its problem that one of them was trained on, and
such a row over mixing, review and selection to the sample, its rejected siblings, and the prompt. Links are found by
ids and row numbers. The checks compare content: hashes of rows, fingerprints of stages, decoded tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from r1kit.report.folders import Row, StageFolder, stage_name
from r1kit.report.live.answers import Answer, answer_of, drop_reason, text_in, texts_of
from r1kit.report.live.data_rows import has, row_at, rows_with
from r1kit.report.live.link_checks import Check, Input, inputs_in, same_model, same_rows, same_tokens
from r1kit.report.live.places import NotThere, RowPlace, stage_folder

TRAINING_ROWS = "tokens/train/rows.jsonl"
MAX_SIBLINGS = 64
MAX_MODELS = MAX_LINKS = 50  # more are a cycle in damaged files
Kind = Literal["answer", "rollout", "model", "training row", "mixed row", "review", "kept row", "sample", "prompt"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sibling:
    """Another completion of the same prompt; `reason` says why it was dropped, or "kept"."""

    at: RowPlace
    text: str
    thinking: tuple[int, int] | None
    verdict: str | None
    facts: Sequence[tuple[str, str]]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One link of the chain; `check` compares it with the link before."""

    kind: Kind
    title: str
    at: RowPlace | None
    where: str
    check: Check
    facts: Sequence[tuple[str, str]] = ()
    text: str = ""
    thinking: tuple[int, int] | None = None
    siblings: Sequence[Sibling] = ()


@dataclass
class Lineage:
    """Follows rows of one run."""

    run: Path
    links: list[Link] = field(default_factory=list)

    def trace(self, place: RowPlace) -> list[Link]:
        """All links behind a row. Raises `NotThere` for a row that does not exist."""
        folder = stage_folder(self.run, place.stage)
        row = row_at(folder, place)
        is_rollout = place.file.startswith("rollouts/")
        if not is_rollout and place.file != "completions.jsonl":
            self._data_row(place, Check("same", "this is the row that was asked for"))
            return self.links
        answer = answer_of(row, place)
        kind: Kind = "rollout" if is_rollout else "answer"
        title = f"{'sampled in training by' if is_rollout else 'measured by'} {stage_name(folder)}"
        check = Check("same", "this is the row that was asked for")
        self._add(kind, title, place, check, answer, siblings=self._siblings(answer))
        if not self._models(folder, answer):
            self._prompt(answer, answer)
        return self.links

    def _models(self, folder: Path, answer: Answer) -> bool:
        """The models behind a stage, up to one that was trained on the answer's problem, and that row's own chain."""
        trained_on_rows = []
        for _ in range(MAX_MODELS):
            source = next((source for source in inputs_in(folder) if source.name == "model"), None)
            if source is None or (parent := folder_of(self.run, source)) is None:
                break
            stage = StageFolder(stage_name(parent), parent)
            title = f"the model of {stage.name} ({stage.kind})"
            self._add("model", title, None, same_model(source, parent), where=str(source))
            place = training_row(parent, answer)
            if place is not None:
                how = "trained on a row of the same problem"
                self._data_row(place, Check("same", how), first=answer)
                return True
            trained_on_rows += [stage.name] if (parent / TRAINING_ROWS).exists() else []
            folder = parent
        if trained_on_rows:
            reason = f"no row that {', '.join(trained_on_rows)} trained on has this problem or this question"
            self._add("training row", "not in the training data", None, Check("not recorded", "", reason))
        return False

    def _data_row(self, place: RowPlace, check: Check, first: Answer | None = None) -> None:
        """A row of data for training, the row that it was made from, and so on to the sample and the prompt."""
        if len(self.links) > MAX_LINKS:
            return
        folder = stage_folder(self.run, place.stage)
        row = row_at(folder, place)
        answer, name = answer_of(row, place), stage_name(folder)
        source: tuple[RowPlace, Check] | None
        if place.file == TRAINING_ROWS:
            facts = [(key, str(row[key])) for key in ("file", "row", "source", "tokens", "trained") if key in row]
            self._add("training row", f"a row that {name} was trained on", place, check, facts=facts)
            source = self._training_source(folder, place, row)
        elif place.file in ("samples.jsonl", "rewritten.jsonl"):
            rewritten = place.file == "rewritten.jsonl"
            title = f"{'rewritten' if rewritten else 'sampled'} by {name}"
            self._add("sample", title, place, check, answer, siblings=self._siblings(answer))
            source = self._origin(folder, row, text_in(row, "parent"), ["samples.jsonl"]) if rewritten else None
        elif isinstance(row.get("review"), dict):
            self._add("review", f"reviewed in {name}", place, check, answer, facts=decisions_of(row))
            source = self._origin(folder, row, text_in(row, "id"), [])
        elif isinstance(inner := row.get("metadata"), dict) and "mixture" in inner:
            self._add("mixed row", f"mixed into the data by {name}", place, check, answer)
            source = self._origin(folder, row, text_in(inner, "id"), [])
        else:
            dropped = place.file == "dropped.jsonl"
            self._add("kept row", f"{'dropped' if dropped else 'kept'} by {name}", place, check, answer)
            own = [file for file in ("rewritten.jsonl", "samples.jsonl") if (folder / file).exists()]
            source = self._origin(folder, row, text_in(row, "id"), own)
        if source is not None:
            self._data_row(*source, first=first)
            return
        if place.file == "samples.jsonl":
            self._sampler(folder)
        self._prompt(answer, first or answer)

    def _add(
        self,
        kind: Kind,
        title: str,
        at: RowPlace | None,
        check: Check,
        answer: Answer | None = None,
        *,
        where: str = "",
        facts: Sequence[tuple[str, str]] = (),
        siblings: Sequence[Sibling] = (),
    ) -> None:
        all_facts = [*facts, *(answer_facts(answer) if answer else ())]
        text, thinking = (answer.text, answer.thinking) if answer else ("", None)
        self.links.append(
            Link(
                kind=kind,
                title=title,
                at=at,
                where=where or str(at or ""),
                check=check,
                facts=all_facts,
                text=text,
                thinking=thinking,
                siblings=siblings,
            )
        )

    def _prompt(self, last: Answer, first: Answer) -> None:
        """The problem as it was asked, compared with that of the answer at the beginning of the chain."""
        same = last.question == first.question
        check = Check("same", "the same question, letter by letter")
        if not same:
            check = Check("differs", "the problem's id", "the question has other words than that of the answer")
        facts = [("problem", last.problem_id), ("reference answer", last.answer)]
        prompt = Link(
            kind="prompt",
            title="the prompt",
            at=last.at,
            where=str(last.at),
            check=check,
            facts=[fact for fact in facts if fact[1]],
            text=last.question,
        )
        self.links.append(prompt)

    def _sampler(self, folder: Path) -> None:
        """The model that a stage sampled from, if it is one of the run."""
        for source in inputs_in(folder):
            if source.name == "model" and (parent := folder_of(self.run, source)) is not None:
                title = f"sampled from the model of {stage_name(parent)}"
                self._add("model", title, None, same_model(source, parent), where=str(source))

    def _training_source(self, folder: Path, place: RowPlace, row: Row) -> tuple[RowPlace, Check] | None:
        """The row of a data file that was tokenised, with the decoded tokens as the check."""
        file, number = str(row.get("file")), row.get("row")
        for source in inputs_in(folder):
            if source.file != file or not isinstance(number, int):
                continue
            if (parent := folder_of(self.run, source)) is None:
                continue
            origin = RowPlace(stage=parent.name, file=source.path, row=number)
            text = answer_of(row_at(parent, origin), origin).text
            return origin, same_tokens(folder, place.row - 1, text)
        return None

    def _origin(self, folder: Path, row: Row, name: str, own: Sequence[str]) -> tuple[RowPlace, Check] | None:
        """The row with an id, in the stage's `own` files or else in those that it reads, and whether it is the same."""
        places = [(folder, file) for file in own]
        if not own:
            read = [(folder_of(self.run, source), source.path) for source in inputs_in(folder)]
            places = [(parent, file) for parent, file in read if parent is not None]
        for stage, file in places if name else ():
            for place, other in rows_with(stage, file, name, has("id", name)):
                return place, same_rows(row, other, is_rewriting=name == row.get("parent"))
        return None

    def _siblings(self, answer: Answer) -> list[Sibling]:
        """The other completions of the prompt, with the reason why each was dropped."""
        folder, at = stage_folder(self.run, answer.at.stage), answer.at
        if not answer.problem_id:
            return []
        dropped = dict(rows_by_id(folder, "dropped.jsonl", answer.problem_id))
        kept = dict(rows_by_id(folder, "kept.jsonl", answer.problem_id))
        siblings = []
        for place, row in rows_with(folder, at.file, answer.problem_id, has("problem_id", answer.problem_id)):
            other = answer_of(row, place)
            if place == at or other.question != answer.question:
                continue
            name = text_in(row, "id")
            reason = "kept" if name in kept else drop_reason(dropped.get(name, {}))
            facts = answer_facts(other)
            siblings.append(
                Sibling(
                    at=place,
                    text=other.text,
                    thinking=other.thinking,
                    verdict=other.verdict,
                    facts=facts,
                    reason=reason,
                )
            )
            if len(siblings) == MAX_SIBLINGS:
                break
        return siblings


def rows_by_id(folder: Path, file: str, problem_id: str) -> Iterator[tuple[str, Row]]:
    for _, row in rows_with(folder, file, problem_id, has("problem_id", problem_id)):
        yield text_in(row, "id"), row


def training_row(folder: Path, answer: Answer) -> RowPlace | None:
    """The row of an SFT stage's tokens that has the answer's problem, or its question; None if there is none."""
    if not (folder / TRAINING_ROWS).exists():
        return None
    searches: list[tuple[str, Callable[[Row], bool]]] = [
        (answer.problem_id, has("problem_id", answer.problem_id)),
        (answer.question, lambda row: texts_of(row)[0] == answer.question),
    ]
    for source in inputs_in(folder):
        parent = folder_of(folder.parent, source) if source.name.startswith("data") else None
        if parent is None:
            continue
        for value, matches in searches:
            for place, _ in rows_with(parent, source.path, value, matches) if value else ():
                if (tokens := tokenised(folder, source.file, place.row)) is not None:
                    return tokens
    return None


def tokenised(folder: Path, file: str, number: int) -> RowPlace | None:
    """The row of tokens that was made from a row of a data file; None if it was left out."""
    rows = rows_with(folder, TRAINING_ROWS, number, lambda row: (row.get("file"), row.get("row")) == (file, number))
    return next((place for place, _ in rows), None)


def folder_of(run: Path, source: Input) -> Path | None:
    """The folder of the stage that an input comes from; None for a file from elsewhere, or if the stage is gone."""
    try:
        return stage_folder(run, source.stage) if source.stage is not None else None
    except NotThere:
        return None


def answer_facts(answer: Answer) -> list[tuple[str, str]]:
    """Verdict, reward by part and the row's own facts, in words."""
    facts = []
    if answer.verdict:
        facts.append(("verdict", f"{answer.verdict}: {answer.why}" if answer.why else answer.verdict))
    amounts = {"reward": answer.reward, **answer.parts, "advantage": answer.advantage}
    facts += [(name, f"{value:.3g}") for name, value in amounts.items() if isinstance(value, int | float)]
    return [*facts, *answer.facts]


def decisions_of(row: Row) -> list[tuple[str, str]]:
    """The decisions of a reviewed row: who did what, and why."""
    decisions = row["review"].get("decisions")
    lines = [line for line in decisions if isinstance(line, dict)] if isinstance(decisions, list) else []
    facts = [("edited", "yes" if row["review"].get("edited") else "no")]
    for line in lines:
        reason = f": {line['reason']}" if line.get("reason") else ""
        facts.append((f"decision of {line.get('who')}", f"{line.get('action')}{reason} ({line.get('at')})"))
    return facts
