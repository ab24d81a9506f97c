"""Writes the completions of a step to disk, for people to read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from r1kit.chat import whole_response
from r1kit.data.jsonl import RowWriter
from r1kit.train.rl.collect import ScoredGroup


def write_rollouts(folder: Path, step: int, scored: Sequence[ScoredGroup]) -> None:
    """Write `rollouts/step-NNNNNN.jsonl`."""
    path = folder / "rollouts" / f"step-{step:06d}.jsonl"
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    with RowWriter(path) as rows:
        for entry in scored:
            for rollout, advantage in zip(entry.group.rollouts, entry.advantages, strict=True):
                notes = dict(rollout.reward.notes)
                # functions may log notes of these names too: the reward's verdict is the one that counts
                if (verdict := rollout.reward.verdict) is not None:
                    extracted = verdict.extracted or ""
                    notes |= {"verdict": verdict.outcome, "extracted": extracted, "detail": verdict.detail}
                rows.append(
                    {
                        "step": step,
                        "problem_id": entry.group.problem.id,
                        "question": entry.group.problem.prompt,
                        "completion": whole_response(rollout.prompt, rollout.completion),
                        "answer": entry.group.problem.answer,
                        "reward": rollout.reward.total,
                        "parts": dict(rollout.reward.parts),
                        "advantage": advantage,
                        "notes": notes,
                        "finish_reason": rollout.completion.finish_reason,
                        "tokens": len(rollout.completion.token_ids),
                    }
                )
