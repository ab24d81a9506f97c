"""The command `score`: rows with completions in, rows with rewards out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from r1kit.commands.judged_rows import Row, batches, open_writer, renamed_columns, with_results
from r1kit.data.errors import DataError
from r1kit.evaluate.table import align
from r1kit.rewards import RewardSpec, Scorer, build
from r1kit.settings import SettingsError


def score_rows(
    file: Path, scorer: Scorer, out: Path | None = None, counts: Counter[str] | None = None
) -> Iterator[Row]:
    """The rows of a file with `rewards` (by part) and `total` for their `completion`; other fields are the columns.

    A field that a row lacks is None in it. A row's own `total` becomes `input_total`, and so on; `counts` collects such
    names. Raises `DataError` that names file, row and field of a bad completion, and `SettingsError` if the rewards
    cannot work with these columns.
    """
    counts = Counter() if counts is None else counts
    with open_writer(out) as writer:
        for batch in batches(file):
            completions = [_completion(row, file, number) for number, row in batch]
            names = dict.fromkeys(name for _, row in batch for name in row if name != "completion")
            columns = {name: [row.get(name) for _, row in batch] for name in names}
            if "prompt" in columns:
                columns.setdefault("prompts", columns["prompt"])  # the name that reward functions know
            try:
                rewards = scorer(completions, **columns)
            except (ValueError, TypeError) as error:
                first, last = batch[0][0], batch[-1][0]
                rows = f"row {first}" if first == last else f"rows {first} to {last}"
                raise SettingsError(f"{error}\nin {file}, {rows}") from error
            for (_, row), reward in zip(batch, rewards, strict=True):
                scored = with_results(row, {"rewards": dict(reward.parts), "total": reward.total}, counts)
                if writer is not None:
                    writer.append(scored)
                yield scored


def score_summary(rows: Iterator[Row], scorer: Scorer, counts: Mapping[str, int] | None = None) -> Row:
    """Read all rows; the mean of each part and of the total, and how many rows have a value.

    `counts` is that of `score_rows`.
    """
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
    table = [["reward", "mean", "rows", "not applicable"]]
    for name, mean in means.items():
        table.append([name, "-" if mean is None else f"{mean:.4f}", str(known[name]), str(count - known[name])])
    return {
        "rows": count,
        "means": means,
        "known": {name: known[name] for name in names},
        "text": align(table) + renamed_columns(counts or {}),
    }


def build_scorer(rewards: str, settings: Sequence[tuple[str, Any]] = ()) -> Scorer:
    """A scorer from "accuracy,format" or a JSON list as in recipes, and from settings like accuracy.verifier=number.

    `NAME.weight` and `NAME.chat` set those fields; any other `NAME.OPTION` is an option of the reward.
    """
    items: Any = [name.strip() for name in rewards.split(",") if name.strip()]
    if rewards.lstrip()[:1] in ("[", "{"):
        try:
            items = json.loads(rewards)
        except ValueError as error:
            raise SettingsError(f"--rewards is not valid JSON: {error}") from None
        items = items if isinstance(items, list) else [items]
    for item in items:
        if not isinstance(item, str | dict):
            raise SettingsError(f"a reward is {item!r:.60}: expected a name or an object with name, weight and options")
    specs: list[dict[str, Any]] = [{"name": item} if isinstance(item, str) else dict(item) for item in items]
    for path, value in settings:
        name, _, option = path.rpartition(".")
        titles = [(spec.get("name"), str(spec.get("name")).replace(":", ".").rpartition(".")[2]) for spec in specs]
        matches = [spec for spec, title in zip(specs, titles, strict=True) if name in title]
        if not matches:
            known = ", ".join(str(spec.get("name")) for spec in specs)
            raise SettingsError(f"{path}: there is no reward {name!r} in --rewards, only {known}")
        if isinstance(value, str):
            with suppress(ValueError):  # plain text stays text
                value = json.loads(value)
        if option in ("weight", "chat"):
            matches[0][option] = value
        else:
            matches[0]["options"] = {**matches[0].get("options", {}), option: value}
    return build([RewardSpec.parse(spec, f"rewards.{number}") for number, spec in enumerate(specs)])


def _completion(row: Row, file: Path, number: int) -> Any:
    value = row.get("completion")
    is_messages = isinstance(value, list) and all(isinstance(turn, dict) and "content" in turn for turn in value)
    if isinstance(value, str) or is_messages:
        return value
    if "completion" not in row:
        raise DataError("missing column", "the row has no field 'completion'", str(file), number, "completion")
    raise DataError(
        "wrong type", f"the value is {value!r:.60}: expected text or messages", str(file), number, "completion"
    )
