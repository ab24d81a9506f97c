"""The stage `preferences`: pairs for a reward model, by a judge that is asked several times with the sides swapped.

Inputs: `rows` or `rows/NAME`, samples with several responses to each request (samples.jsonl or kept.jsonl of the stage
`generate`), and the folder of a local model `judge` (or the setting of that name). Leaves `judged.jsonl` (every pair
with all that the judge said), `preferences.jsonl` (what `reward-model` reads, each pair with the judge's reasons, as V3
keeps them), `dropped.jsonl` (the others, with why) and `funnel.json`, which also counts the judge's replies and those
that could not be read. A run that is killed asks no whole batch again.

The paper's helpfulness pairs (V2, section 3.1): four replies, sides swapped, a margin above 1. Their lengths are
balanced where they are trained on: `reward-model` with `balance_lengths`.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from r1kit.chat import final_answer
from r1kit.collect.requests import row_files
from r1kit.collect.teachers import Engines
from r1kit.curate.funnel import FunnelStep
from r1kit.curate.record import CuratedSample, asked, from_row
from r1kit.data.journal import Journal
from r1kit.data.jsonl import RowWriter, read_rows
from r1kit.engines.engine_settings import EngineSettings, LocalEngineSettings
from r1kit.judges import JudgeSettings, PairwiseJudge, Preference, to_pair
from r1kit.pipeline import Context, Kind
from r1kit.settings import Settings
from r1kit.store import write_json

BATCH = 64  # pairs between two looks at the disk: what a kill can lose


class PreferencesSettings(Settings):
    """Which pairs are made, who judges them, and by how much a response must win. Margins go from 0 to 2."""

    judge: EngineSettings | None = Field(None, description="None: the local model of the input 'judge'")
    judging: JudgeSettings = JudgeSettings(votes=4)
    shows: Literal["answer", "response"] = Field("answer", description="what the judge reads of a response")
    min_margin: float = Field(1.0, ge=0, lt=2, description="a pair is kept above it")
    pairs_per_request: int = Field(1, ge=1)
    seed: int = 0


@dataclass(frozen=True)
class Candidate:
    """Two different responses to one request."""

    first: CuratedSample
    second: CuratedSample


def check(context: Context) -> None:
    """Refuse a stage without rows, without a judge or with two, before any work starts."""
    row_files(context)
    settings: PreferencesSettings = context.settings
    if ("judge" in context.paths) == (settings.judge is not None):
        raise ValueError(f"stage {context.stage} needs one judge: give the input 'judge' or the setting judge")
    if settings.judging.votes % 2:
        raise ValueError(f"judging.votes is {settings.judging.votes}: half of them swap the sides, give an even number")


def run(context: Context) -> Mapping[str, Any]:
    """Judge all pairs and write those with a clear winner. Raises ValueError where none has one."""
    settings: PreferencesSettings = context.settings
    with Journal(context.folder / "judged.jsonl") as journal:
        if not journal.done:
            with Engines(context.progress.say) as engines:
                engine = engines.open(settings.judge or LocalEngineSettings(model=str(context.input("judge"))))
                _judge_all(context, PairwiseJudge(engine, settings.judging, shows=settings.shows), journal)
        return _sorted(context, journal.counts)


def candidates(files: Iterable[Path], settings: PreferencesSettings) -> Iterator[list[Candidate]]:
    """The pairs of each request: drawn by its id, of responses that differ in what the judge reads; often none."""
    rows = (from_row(row, file=str(path)) for path in files for row in read_rows(path))
    for name, group in groupby(rows, key=lambda row: row.problem_id or row.question):
        different = list({_shown(one.response, settings.shows): one for one in group}.values())
        pairs = [Candidate(one, other) for place, one in enumerate(different) for other in different[place + 1 :]]
        chance = random.Random(f"preferences/{settings.seed}/{name}")
        yield chance.sample(pairs, min(settings.pairs_per_request, len(pairs)))


def _shown(response: str, shows: str) -> str:
    return response if shows == "response" else final_answer(response) or ""


def _judge_all(context: Context, judge: PairwiseJudge, journal: Journal) -> None:
    """Add batches to the journal, after those that are whole."""
    settings: PreferencesSettings = context.settings
    found = (pair for pairs in candidates(row_files(context).values(), settings) for pair in pairs)
    left = islice(found, journal.rows, None)
    while batch := list(islice(left, BATCH)):
        before = _counts(judge)
        told = judge.compare(
            [asked(one.first.messages[:-1]) for one in batch],
            [one.first.response for one in batch],
            [one.second.response for one in batch],
        )
        journal.append([_row(*one) for one in zip(batch, told, strict=True)], _counts(judge) - before)
        context.progress.say(f"{journal.rows} pairs judged")
    journal.finish()


def _counts(judge: PairwiseJudge) -> Counter[str]:
    tally = judge.tally
    return Counter({f"judge {name}": getattr(tally, name) for name in ("replies", "unreadable", "refused")})


def _row(pair: Candidate, told: Preference) -> dict[str, Any]:
    return {
        "id": f"{pair.first.id} {pair.second.id}",
        "prompt": [asdict(turn) for turn in pair.first.messages[:-1]],
        "source": pair.first.source,
        "first": pair.first.response,
        "second": pair.second.response,
        "preference": asdict(told),
    }


def _sorted(context: Context, counts: Mapping[str, int]) -> Mapping[str, Any]:
    """Write preferences.jsonl, dropped.jsonl and funnel.json from what was judged and counted; the metrics."""
    settings: PreferencesSettings = context.settings
    kept, dropped = (context.folder / f"{name}.jsonl" for name in ("preferences", "dropped"))
    reasons, longer = Counter[str](), 0
    for path in (kept, dropped):
        path.unlink(missing_ok=True)
    with RowWriter(kept) as good, RowWriter(dropped) as bad:
        for row in read_rows(context.folder / "judged.jsonl"):
            pair, why = _decided(row, settings.min_margin)
            if pair is None:
                bad.append({**row, "dropped": {"step": "margin", "reason": why}})
                reasons[why] += 1
            else:
                good.append(pair)
                longer += len(pair["chosen"]) > len(pair["rejected"])
                reasons["kept"] += 1
    count, total = reasons.pop("kept", 0), sum(reasons.values())
    asked = sum(1 for _ in candidates(row_files(context).values(), settings))
    step = FunnelStep(name="margin", rows_in=count + total, rows_out=count, reasons=dict(reasons))
    facts = {"asked": asked, "samples": count + total, "kept": count}
    write_json(context.folder / "funnel.json", {**facts, "funnel": [step.to_json()], "counts": counts})
    if not count:
        raise ValueError(f"none of {total} pairs has a clear winner ({dict(reasons)}): lower min_margin, or ask others")
    return {**facts, "longer_wins": longer / count, **reasons, **counts}


def _decided(row: Mapping[str, Any], min_margin: float) -> tuple[dict[str, Any] | None, str]:
    """The pair to train on, or None and why there is none."""
    told = row["preference"]
    preference = Preference(**{name: _tuple(value) for name, value in told.items()})
    if preference.preferred is None:
        return None, "judge cannot tell"
    prompt = from_row({"id": row["id"], "messages": [*row["prompt"], {"role": "assistant", "content": row["first"]}]})
    pair = to_pair(prompt.messages[:-1], row["first"], row["second"], preference, min_margin=min_margin)
    if pair is None:
        return None, "margin too small"
    return {"id": row["id"], "source": row["source"], **asdict(pair)}, ""


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else value


PREFERENCES = Kind(name="preferences", run=run, settings=PreferencesSettings, version=2, check=check)
