"""Metrics of a step: of its completions, and of its updates."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, pstdev

from r1kit.train.rl.collect import Collected, reward_totals, varies

METRIC_NAMES = {  # of the sums of losses, in metrics.jsonl
    "loss": "optim/loss",
    "entropy": "policy/entropy",
    "kl": "policy/kl",
    "ratio": "policy/ratio_mean",
    "clip_fraction": "policy/clip_fraction",
    "masked": "policy/masked_fraction",
    "importance": "sampler/importance_mean",
    "capped": "sampler/importance_capped",
    "logprob_gap": "sampler/logprob_gap_mean",
    "divergence": "distill/divergence",
}


def group_metrics(collected: Collected, *, compares: bool) -> dict[str, float]:
    """Rewards and lengths of a step's completions; shares are from 0 to 1, lengths are in tokens.

    `compares`: training compares the rewards of a group.
    """
    # a reward of None (no part could judge) counts in no mean
    by_group = [[total for total in reward_totals(group) if total is not None] for group in collected.groups]
    totals = [total for group_totals in by_group for total in group_totals]
    rollouts = [rollout for group in collected.groups for rollout in group.rollouts]
    lengths = [len(rollout.completion.token_ids) for rollout in rollouts]
    row = {"reward/mean": fmean(totals)} if totals else {}
    if compares:
        # within a group: what the advantages are divided by, so 0 means that nothing is learned
        row["reward/std"] = fmean(pstdev(group_totals or [0.0]) for group_totals in by_group)
        row["groups/zero_variance"] = fmean(not varies(group) for group in collected.groups)
    row |= {
        "completion/length_mean": fmean(lengths),
        "completion/length_max": float(max(lengths)),
        "completion/truncated": fmean(rollout.completion.finish_reason == "length" for rollout in rollouts),
        "tokens/rollout": float(sum(lengths)),
    }
    for name in rollouts[0].reward.parts:  # every rollout has the same parts
        values = [value for rollout in rollouts if (value := rollout.reward.parts[name]) is not None]
        if values:
            row[f"reward/{name}"] = fmean(values)
    return row | collected.reported


def update_metrics(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """One row for all updates of a step.

    Tokens are summed. The learning rate is that of the last update, and the sampler's gap that of the first, before
    the weights moved. All others are means over the updates, of which each holds means over tokens.
    """
    if not rows:
        return {"tokens/train": 0.0}
    names = {name: None for row in rows for name in row}  # an update without batches lacks the means
    merged = {METRIC_NAMES.get(name, name): fmean(row[name] for row in rows if name in row) for name in names}
    if "logprob_gap" in rows[0]:
        merged["sampler/logprob_gap_mean"] = rows[0]["logprob_gap"]
    merged["optim/learning_rate"] = rows[-1]["optim/learning_rate"]
    merged["tokens/train"] = sum(row["tokens/train"] for row in rows)
    return merged


def merge_parts(means: Sequence[dict[str, float]], tokens: Sequence[int]) -> dict[str, float]:
    """The metrics of an update whose parts have losses of their own: these add up, all others are means over tokens."""
    if len(means) == 1:
        return means[0]
    names = {name: None for row in means for name in row}
    merged = {}
    for name in names:
        known = [(row[name], count) for row, count in zip(means, tokens, strict=True) if name in row]
        total = sum(value if name == "loss" else value * count for value, count in known)
        merged[name] = total if name == "loss" else total / max(1, sum(count for _, count in known))
    return merged
