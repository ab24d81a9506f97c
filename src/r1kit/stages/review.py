"""The stage `review`: the pipeline stops at a queue of samples for people, and continues when all are decided.

Inputs: `rows` or `rows/NAME`, such as the kept.jsonl of several generate stages; some can be empty. Leaves `review.db`
(the queue: open it with `r1kit review FOLDER`), `kept.jsonl` (accepted samples with their edits, the input of the stage
`sft`), `dropped.jsonl` (rejected samples with the decisions) and `funnel.json`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

from pydantic import Field

from r1kit.curate.funnel import FunnelStep
from r1kit.data.jsonl import read_rows
from r1kit.pipeline import Context, Kind
from r1kit.review.queue import ReviewQueue
from r1kit.settings import Settings, unhashed
from r1kit.stages.shared.costs import rows_unchanged
from r1kit.stages.shared.input_files import input_files
from r1kit.store import write_json


class ReviewSettings(Settings):
    """`auto_accept` continues without people: undecided samples are accepted, except those that a reviewer rejected.

    It does not change the stage's folder, so it can finish a queue that people have begun.
    """

    auto_accept: bool = unhashed(False)
    double_share: float = Field(0.0, ge=0, le=1, description="share of the samples that two people review")


class ReviewPending(ValueError):
    """Samples wait for people; the message says how to decide them and how to continue."""


def run(context: Context) -> Mapping[str, Any]:
    """Fill the queue; raises `ReviewPending` while samples wait, and exports them when none does.

    Raises ValueError if the inputs have no sample at all.
    """
    settings: ReviewSettings = context.settings
    path = context.folder / "review.db"
    rows = (row for file in input_files(context, "rows").values() for row in read_rows(file))
    with ReviewQueue.create(path, rows, double_share=settings.double_share) as queue:
        if not queue.progress().total:
            raise ValueError(f"stage {context.stage} has no sample to review: no rows in {', '.join(context.paths)}")
        if settings.auto_accept:
            queue.auto_accept()
        if pending := queue.pending():
            raise ReviewPending(
                f"{pending:,} of {queue.progress().total:,} samples wait for review: run `r1kit review "
                f"{context.folder}`, decide them, and run the same command again; or continue without people with "
                f"--set {context.stage}.auto_accept=true"
            )
        queue.export(context.folder / "kept.jsonl", rejected=context.folder / "dropped.jsonl")
        rejected = (row["review"]["decisions"] for row in queue.rows(accepted=False))
        reasons = Counter(
            next(line["reason"] for line in reversed(decisions) if line["action"] == "reject") for decisions in rejected
        )
        progress, people, agreement = queue.progress(), queue.reviewers(), queue.agreement()
    step = FunnelStep(name="review", rows_in=progress.total, rows_out=progress.accepted, reasons=dict(reasons))
    facts = {"samples": progress.total, "kept": progress.accepted, "edited": progress.edited}
    funnel = {"funnel": [step.to_json()], "reviewers": people, "agreement": asdict(agreement)}
    write_json(context.folder / "funnel.json", facts | funnel)
    return {**facts, "rejected": progress.rejected, "agreement": agreement.kappa}


REVIEW = Kind(
    name="review",
    run=run,
    settings=ReviewSettings,
    version=1,
    check=partial(input_files, name="rows"),
    funnel=True,
    cost=rows_unchanged,
)
