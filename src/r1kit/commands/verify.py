"""What the commands `verify` and `score` do: rows in, verdicts or rewards out, and error rates on labelled cases."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

from r1kit.conformance import CASES, Failure, Rate, Report, measure, measure_rewards, obstacle
from r1kit.data.errors import DataError
from r1kit.data.jsonl import RowWriter
from r1kit.data.rows import numbered_rows
from r1kit.rewards import RewardSpec, Scorer, build
from r1kit.rewards.columns import reference_text
from r1kit.settings import SettingsError
from r1kit.store import StoreError
from r1kit.tasks.references import number_text
from r1kit.verifiers import find, verify_all
from r1kit.verifiers.extract import as_response

BATCH = 256  # rows that are judged side by side, and the most that are in memory
SHOWN = 60  # characters of a text in a list of failures

Row = dict[str, Any]


def verify(file: Path, verifier: str, out: Path | None = None, counts: Counter[str] | None = None) -> Iterator[Row]:
    """The rows of a file with `correct`, `extracted` and `detail` for their `prediction` and `answer`.

    `counts` collects right, wrong and unknown. Raises `DataError` that names file, row and field; what was judged
    before is in `out` then.
    """
    find(verifier)
    counts = Counter() if counts is None else counts
    with _writer(out) as writer:
        for batch in _batches(file):
            responses = [as_response(_prediction(row, file, number), verifier) for number, row in batch]
            references = [_reference(row, file, number) for number, row in batch]
            for (_, row), verdict in zip(batch, verify_all(verifier, responses, references), strict=True):
                judged = row | {"correct": verdict.correct, "extracted": verdict.extracted, "detail": verdict.detail}
                if verdict.correct is False and not _is_text(row["prediction"]):
                    judged["detail"] = f"no text: {row['prediction']!r:.60}"
                counts[{True: "right", False: "wrong", None: "unknown"}[verdict.correct]] += 1
                if writer is not None:
                    writer.append(judged)
                yield judged


def verify_summary(verifier: str, counts: Mapping[str, int]) -> Row:
    """What `verify` found, with the 95 % interval of the share of right answers among those that could be judged."""
    right, wrong, unknown = (counts.get(name, 0) for name in ("right", "wrong", "unknown"))
    rate = Rate.among(right, right + wrong)
    low, high = rate.low, rate.high
    text = f"{right + wrong + unknown} rows by {verifier}: {right} right, {wrong} wrong, {unknown} cannot tell"
    if low is not None and high is not None:
        text += f"; right {rate.share:.1%} [{low:.1%}, {high:.1%}]"
    return {
        "verifier": verifier,
        "right": right,
        "wrong": wrong,
        "unknown": unknown,
        "share": rate.share if rate.of else None,
        "low": low,
        "high": high,
        "text": text,
    }


def score(file: Path, scorer: Scorer, out: Path | None = None) -> Iterator[Row]:
    """The rows of a file with `rewards` (by part) and `total` for their `completion`; other fields are the columns.

    A field that some rows lack is None in them. Raises `DataError` that names file, row and field of a completion, and
    `SettingsError` where the rewards cannot be given for these columns.
    """
    with _writer(out) as writer:
        for batch in _batches(file):
            completions = [_completion(row, file, number) for number, row in batch]
            names = dict.fromkeys(name for _, row in batch for name in row if name != "completion")
            columns = {name: [row.get(name) for _, row in batch] for name in names}
            try:
                rewards = scorer(completions, **columns)
            except (ValueError, TypeError) as error:
                raise SettingsError(f"{error}\nin {file}, rows {batch[0][0]} to {batch[-1][0]}") from error
            for (_, row), reward in zip(batch, rewards, strict=True):
                scored = row | {"rewards": dict(reward.parts), "total": reward.total}
                if writer is not None:
                    writer.append(scored)
                yield scored


def score_summary(rows: Iterator[Row], scorer: Scorer) -> Row:
    """Read all rows, and give the mean of each part and of the total, and how many rows have no value."""
    sums: Counter[str] = Counter()
    known: Counter[str] = Counter()
    count = 0
    for row in rows:
        count += 1
        for name, value in {**row["rewards"], "total": row["total"]}.items():
            if value is not None:
                sums[name] += value
                known[name] += 1
    names = [*(part.label for part in scorer.parts), "total"]
    means = {name: sums[name] / known[name] if known[name] else None for name in names}
    table = [("reward", "mean", "rows", "not applicable")] + [
        (name, "-" if mean is None else f"{mean:.4f}", str(known[name]), str(count - known[name]))
        for name, mean in means.items()
    ]
    return {"rows": count, "means": means, "known": {name: known[name] for name in names}, "text": _table(table)}


def scorer_of(rewards: str, settings: Sequence[tuple[str, Any]] = ()) -> Scorer:
    """A scorer from "accuracy,format" or a JSON list as in recipes, and from options like accuracy.verifier=number.

    `NAME.weight` and `NAME.chat` set those; every other `NAME.OPTION` goes to the reward's maker.
    """
    specs = [_spec(one) for one in _listed(rewards)]
    for path, value in settings:
        name, _, option = path.rpartition(".")
        places = [place for place, spec in enumerate(specs) if name in (spec.get("name"), _label(spec))]
        if not places:
            named = ", ".join(str(spec.get("name")) for spec in specs)
            raise SettingsError(f"{path}: there is no reward {name!r} among {named}")
        spec = specs[places[0]]
        value = _plain(value)
        if option in ("weight", "chat"):
            spec[option] = value
        else:
            spec["options"] = {**spec.get("options", {}), option: value}
    return build([RewardSpec.parse(spec) for spec in specs])


def conformance(verifier: str | None = None, cases: str | None = None) -> tuple[Row, str, bool]:
    """Error rates of a verifier (by name or dotted path), or of all verifiers and rewards that have cases.

    Gives plain data, the text for people, and whether all are good: no false positive and few false negatives. Of all
    verifiers, those that cannot work on this machine are left out, and the reason is told.
    """
    skipped: dict[str, str] = {}
    if verifier is None:
        if cases is not None:
            raise ValueError("cases are given for no verifier: name one")
        skipped = {name: reason for name in CASES if (reason := obstacle(name))}
        verifiers, rewards = [measure(name) for name in CASES if name not in skipped], measure_rewards()
    else:
        source = Path(cases) if cases and cases.endswith(".jsonl") else cases
        verifiers, rewards = [measure(verifier, source)], []
    reports = [*verifiers, *rewards]
    found = {"verifiers": [one.as_dict() for one in verifiers], "rewards": [one.as_dict() for one in rewards]}
    told = [f"{name} is not measured: {reason}" for name, reason in skipped.items()]
    text = "\n\n".join([_report_text(verifiers, rewards), *told])
    return found | {"skipped": skipped}, text, all(report.ok for report in reports)


def _batches(file: Path) -> Iterator[list[tuple[int, Row]]]:
    rows = numbered_rows(file)
    while batch := list(islice(rows, BATCH)):
        good: list[tuple[int, Row]] = []
        for number, row in batch:
            if isinstance(row, DataError):
                raise row
            good.append((number, row))
        yield good


def _writer(out: Path | None) -> Any:
    if out is None:
        return nullcontext()
    if out.exists() and out.stat().st_size:
        raise StoreError(f"{out} holds rows already: name another file or delete it")
    return RowWriter(out)


def _field(row: Row, name: str, file: Path, number: int) -> Any:
    if name not in row:
        reason = f"the row has no field {name!r}, only {', '.join(map(repr, row)) or 'none'}"
        raise DataError("missing column", reason, str(file), number, name)
    return row[name]


def _is_text(value: Any) -> bool:
    """Whether a value is text or a finite number, which is written as text."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, str | int) and not isinstance(value, bool)


def _prediction(row: Row, file: Path, number: int) -> str:
    """What a model answered; null and whatever else is no text is an empty answer, which is wrong."""
    value = _field(row, "prediction", file, number)
    if not _is_text(value):
        return ""
    return value if isinstance(value, str) else number_text(value)


def _reference(row: Row, file: Path, number: int) -> str:
    """The reference; an object, as countdown and code have it, becomes its JSON."""
    value = _field(row, "answer", file, number)
    if isinstance(value, dict | list):
        return reference_text(value)
    if value is None:
        return ""
    if not _is_text(value):
        expected = "a finite number" if isinstance(value, float) else "text or a number"
        raise DataError("wrong type", f"{value!r:.60}: expected {expected}", str(file), number, "answer")
    return value if isinstance(value, str) else number_text(value)


def _completion(row: Row, file: Path, number: int) -> Any:
    value = row.get("completion")
    messages = isinstance(value, list) and all(isinstance(turn, dict) and "content" in turn for turn in value)
    if not isinstance(value, str) and not messages:
        missing = "completion" not in row
        reason = "the row has no field 'completion'" if missing else f"{value!r:.60}: expected text or messages"
        kind = "missing column" if missing else "wrong type"
        raise DataError(kind, reason, str(file), number, "completion")
    return value


def _listed(rewards: str) -> list[Any]:
    if rewards.lstrip()[:1] not in ("[", "{"):
        return [name.strip() for name in rewards.split(",") if name.strip()]
    try:
        value = json.loads(rewards)
    except ValueError as error:
        raise SettingsError(f"rewards look like JSON but are not: {error}") from None
    return value if isinstance(value, list) else [value]


def _spec(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return dict(value)
    if isinstance(value, str):
        return {"name": value}
    raise SettingsError(f"a reward is {value!r:.60}: expected a name or an object with name, weight and options")


def _label(spec: Mapping[str, Any]) -> str:
    return str(spec.get("name")).replace(":", ".").rpartition(".")[2]


def _plain(value: Any) -> Any:
    """`"500"` as 500, `"null"` as None; what is no JSON is text."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _report_text(verifiers: Sequence[Report], rewards: Sequence[Report]) -> str:
    parts = []
    for title, reports, columns in (
        ("verifier", verifiers, ("wrong judged right", "right not judged right")),
        ("reward", rewards, ("too high", "too low")),
    ):
        if reports:
            head = (title, "cases", f"{columns[0]} (95 %)", f"{columns[1]} (95 %)", "cannot tell")
            lines = [
                (one.name, str(one.cases), _rate(one.false_positives), _rate(one.false_negatives), str(one.cannot_tell))
                for one in reports
            ]
            parts.append(_table([head, *lines]))
    failures = [failure for report in (*verifiers, *rewards) for failure in report.failures]
    parts += ["\n".join(map(_line, failures))] if failures else []
    return "\n\n".join(parts)


def _rate(rate: Rate) -> str:
    if rate.low is None or rate.high is None:
        return "-"
    return f"{rate.count}/{rate.of} = {rate.share:.1%} [{rate.low:.1%}, {rate.high:.1%}]"


def _line(failure: Failure) -> str:
    given, reference = (
        ascii(text) if not text.isprintable() else repr(text) for text in (failure.given, failure.reference)
    )
    shown = [text if len(text) <= SHOWN else text[: SHOWN - 3] + "..." for text in (given, reference)]
    said = {True: "right", False: "wrong", None: "cannot tell"}
    expected, found = (
        said[one] if one is None or isinstance(one, bool) else f"{one:g}" for one in (failure.expected, failure.found)
    )
    return f"{failure.case} ({failure.kind}): {shown[0]} for {shown[1]} is {expected}, judged {found}: {failure.detail}"


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
