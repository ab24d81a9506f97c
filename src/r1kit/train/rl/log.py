"""Rollouts on disk: what a reader sees of a step's completions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from r1kit.data.jsonl import RowWriter
from r1kit.train.rl.collect import ScoredGroup
from r1kit.types import Reward


def write_rollouts(folder: Path, step: int, scored: Sequence[ScoredGroup], complete: Callable[[str], str]) -> None:
    """Write `rollouts/step-NNNNNN.jsonl`; `complete` puts back the text that the prompt prefilled."""
    path = folder / "rollouts" / f"step-{step:06d}.jsonl"
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    with RowWriter(path) as rows:
        for entry in scored:
            for rollout, advantage in zip(entry.group.rollouts, entry.advantages, strict=True):
                rows.append(
                    {
                        "step": step,
                        "problem_id": entry.group.problem.id,
                        "question": entry.group.problem.prompt,
                        "completion": complete(rollout.completion.text),
                        "answer": entry.group.problem.answer,
                        "reward": rollout.reward.total,
                        "parts": dict(rollout.reward.parts),
                        "advantage": advantage,
                        "notes": _notes(rollout.reward),
                        "finish_reason": rollout.completion.finish_reason,
                        "tokens": len(rollout.completion.token_ids),
                    }
                )


def _notes(reward: Reward) -> dict[str, Any]:
    """The notes that reward functions logged; `verdict`, `extracted` and `detail` among them are `reward.verdict`."""
    notes, verdict = dict(reward.notes), reward.verdict
    if verdict is not None:
        notes |= {"verdict": verdict.outcome, "extracted": verdict.extracted or "", "detail": verdict.detail}
    return notes
