"""The stage `preferences`: pairs for a reward model, judged several times with the sides swapped.

Inputs: `rows` or `rows/NAME`, samples with several responses to each request (samples.jsonl or kept.jsonl of the stage
`generate`), and the folder of a local model `judge` (or the setting of that name).

Leaves `judged.jsonl` (every pair with the judge's replies), `preferences.jsonl` (the input of `reward-model`, each pair
with the judge's reasons, as V3 keeps them), `dropped.jsonl` (the others, with reasons) and `funnel.json`, which also
counts the judge's replies and the unreadable ones. A killed run repeats no finished batch.

The paper's helpfulness pairs (V2, section 3.1): four replies, sides swapped, a margin above 1. Training balances their
lengths: `reward-model` with `balance_lengths`.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import combinations, groupby, islice
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from r1kit.chat import final_answer
from r1kit.collect.rating import judge_counts, useless_helpers
from r1kit.collect.responses import Engines
from r1kit.curate.funnel import FunnelStep
from r1kit.curate.record import CuratedSample, from_row, question_text
from r1kit.data.journal import Journal
from r1kit.data.jsonl import RowWriter, read_rows
from r1kit.data.messages import parse_messages
from r1kit.engines.engine_settings import EngineSettings, LocalEngineSettings
from r1kit.judges import JudgeSettings, PairwiseJudge, Preference, to_pair
from r1kit.pipeline import Context, Kind
from r1kit.settings import Settings, unhashed
from r1kit.stages.shared.costs import rows_unchanged
from r1kit.stages.shared.input_files import input_files
from r1kit.stages.shared.sources import answers_on_device, engine_sources
from r1kit.store import write_json

BATCH = 64  # pairs per batch: a kill costs at most one batch


class PreferencesSettings(Settings):
    """Which pairs are compared, the judge, and the margin (0 to 2) by which a response must win."""

    judge: EngineSettings | None = Field(None, description="None: the local model of the input 'judge'")
    judging: JudgeSettings = JudgeSettings(votes=4)
    shows: Literal["answer", "response"] = Field("answer", description="the part of a response that the judge reads")
    min_margin: float = Field(1.0, ge=0, lt=2, description="keep pairs above this margin")
    pairs_per_request: int = Field(1, ge=1)
    may_be_empty: bool = unhashed(
        False, description="continue if no pair has a clear winner, for one of several sources"
    )
    seed: int = 0


@dataclass(frozen=True)
class Candidate:
    """Two different responses to one request."""

    first: CuratedSample
    second: CuratedSample


def check(context: Context) -> None:
    """Raise ValueError unless there are rows and exactly one judge, before any work starts."""
    input_files(context, "rows")
    settings: PreferencesSettings = context.settings
    if ("judge" in context.paths) == (settings.judge is not None):
        raise ValueError(f"stage {context.stage} needs one judge: give the input 'judge' or the setting judge")
    if settings.judging.votes % 2:
        raise ValueError(f"judging.votes is {settings.judging.votes}: half of them swap the sides, give an even number")


def run(context: Context) -> Mapping[str, Any]:
    """Judge all pairs and write those with a clear winner; raises ValueError if there is none and one must be."""
    settings: PreferencesSettings = context.settings
    with Journal(context.folder / "judged.jsonl") as journal:
        if not journal.done:
            with Engines(context.progress.say) as engines:
                engine = engines.open(settings.judge or LocalEngineSettings(model=str(context.input("judge"))))
                _judge_all(context, PairwiseJudge(engine, settings.judging, shows=settings.shows), journal)
    kept, dropped = (context.folder / f"{name}.jsonl" for name in ("preferences", "dropped"))
    reasons, longer = Counter[str](), 0
    for path in (kept, dropped):
        path.unlink(missing_ok=True)
    with RowWriter(kept) as kept_rows, RowWriter(dropped) as dropped_rows:
        for row in read_rows(context.folder / "judged.jsonl"):
            # a preference as it was before JSON, which has no tuples
            judged: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in row["preference"].items()}
            preference, prompt = Preference(**judged), parse_messages(row["prompt"], "prompt")
            pair = to_pair(prompt, row["first"], row["second"], preference, min_margin=settings.min_margin)
            if pair is None:
                reason = "judge cannot tell" if preference.preferred is None else "margin too small"
                dropped_rows.append({**row, "dropped": {"step": "margin", "reason": reason}})
                reasons[reason] += 1
            else:
                kept_rows.append({"id": row["id"], "source": row["source"], **asdict(pair)})
                longer += len(pair.chosen) > len(pair.rejected)
                reasons["kept"] += 1
    count, total = reasons.pop("kept", 0), sum(reasons.values())
    requests = sum(1 for _ in candidates(input_files(context, "rows").values(), settings))
    step = FunnelStep(name="margin", rows_in=count + total, rows_out=count, reasons=dict(reasons))
    for line in useless_helpers(journal.counts):
        context.progress.say(line)
    metrics = {"asked": requests, "samples": count + total, "kept": count}
    write_json(context.folder / "funnel.json", {**metrics, "funnel": [step.to_json()], "counts": journal.counts})
    if not count and not settings.may_be_empty:
        why = ", ".join(f"{reason}: {pairs}" for reason, pairs in reasons.items())
        raise ValueError(f"none of {total} pairs has a clear winner ({why}): lower min_margin, or ask another judge")
    return {**metrics, "longer_wins": longer / count if count else None, **reasons, **journal.counts}


def candidates(files: Iterable[Path], settings: PreferencesSettings) -> Iterator[list[Candidate]]:
    """The pairs of each request, drawn by its id from responses that differ in the part shown; often none."""
    rows = (from_row(row, file=str(path)) for path in files for row in read_rows(path))
    for name, group in groupby(rows, key=lambda row: row.problem_id or row.question):
        whole = settings.shows == "response"
        by_part = {row.response if whole else final_answer(row.response) or "": row for row in group}
        different = list(by_part.values())
        pairs = [Candidate(first, second) for first, second in combinations(different, 2)]
        chance = random.Random(f"preferences/{settings.seed}/{name}")
        yield chance.sample(pairs, min(settings.pairs_per_request, len(pairs)))


def _judge_all(context: Context, judge: PairwiseJudge, journal: Journal) -> None:
    """Add the batches that the journal lacks."""
    settings: PreferencesSettings = context.settings
    files = input_files(context, "rows").values()
    pairs = (pair for pairs_of_request in candidates(files, settings) for pair in pairs_of_request)
    rest = islice(pairs, journal.rows, None)
    while batch := list(islice(rest, BATCH)):
        before = judge_counts(judge)
        preferences = judge.compare(
            [question_text(pair.first.messages[:-1]) for pair in batch],
            [pair.first.response for pair in batch],
            [pair.second.response for pair in batch],
        )
        rows = [
            {
                "id": f"{pair.first.id} {pair.second.id}",
                "prompt": [asdict(turn) for turn in pair.first.messages[:-1]],
                "source": pair.first.source,
                "first": pair.first.response,
                "second": pair.second.response,
                "preference": asdict(preference),
            }
            for pair, preference in zip(batch, preferences, strict=True)
        ]
        journal.append(rows, judge_counts(judge) - before)
        context.progress.say(f"{journal.rows} pairs judged")
    journal.finish()


PREFERENCES = Kind(
    name="preferences",
    run=run,
    settings=PreferencesSettings,
    version=3,
    check=check,
    sources=engine_sources,
    cost=rows_unchanged,
    on_device=answers_on_device,
)
