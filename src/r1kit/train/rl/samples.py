"""A few completions of a step, for people who watch the run in a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from r1kit.chat import whole_response
from r1kit.train.rl.collect import ScoredGroup, varies

GROUPS = 2  # of each, the completions with the highest and the lowest reward


def sample_table(scored: Sequence[ScoredGroup]) -> list[dict[str, str]]:
    """Rows with question, completion, verdict and reward by part; groups that teach something come first."""
    rows = []
    for entry in sorted(scored, key=lambda entry: not varies(entry.group))[:GROUPS]:
        ranked = sorted(entry.group.rollouts, key=lambda rollout: rollout.reward.total or 0.0, reverse=True)
        for rollout in [ranked[0], ranked[-1]] if varies(entry.group) else ranked[:1]:
            reward = rollout.reward
            parts = {"total": reward.total, **reward.parts}
            numbers = {name: "-" if value is None else f"{value:.3g}" for name, value in parts.items()}
            rows.append(
                {
                    "question": entry.group.problem.prompt,
                    "completion": whole_response(rollout.prompt, rollout.completion),
                    "verdict": reward.verdict.outcome if reward.verdict is not None else "",
                    "reward": ", ".join(f"{name} {number}" for name, number in numbers.items()),
                }
            )
    return rows
