"""Metric names as users of TRL know them.

A name is translated only if TRL's metric is the same quantity. TRL's `reward_std`, for example, is over all
completions of a step, and our `reward/std` within groups. Names without a counterpart stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TRL_NAMES = {
    "reward/mean": "reward",
    "groups/zero_variance": "frac_reward_zero_std",
    "completion/length_mean": "completions/mean_length",
    "completion/length_max": "completions/max_length",
    "completion/truncated": "completions/clipped_ratio",
    "policy/kl": "kl",
    "policy/entropy": "entropy",
    "policy/clip_fraction": "clip_ratio/region_mean",
    "sampler/logprob_gap_mean": "sampling/sampling_logp_difference/mean",
    "optim/loss": "loss",
    "optim/grad_norm": "grad_norm",
    "optim/learning_rate": "learning_rate",
    "time/step_s": "step_time",
    "train/accuracy": "accuracy",  # of a reward model
    "validation/accuracy": "eval_accuracy",
    "validation/loss": "eval_loss",
}
OURS_ONLY = ("reward/std",)


def trl_name(name: str) -> str | None:
    """TRL's name of a metric, or None. Parts of the reward are `rewards/NAME/mean`."""
    part = name.removeprefix("reward/")
    if part == name or name in TRL_NAMES or name in OURS_ONLY:
        return TRL_NAMES.get(name)
    return f"rewards/{part}/mean"


def plain_names(row: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a row of metrics.jsonl without its step, under TRL's own names."""
    return {trl_name(name) or name: value for name, value in _numbers(row).items()}


def trainer_names(row: Mapping[str, Any]) -> dict[str, float]:
    """The same as most callbacks of transformers write them: `train/reward`, `eval/loss`."""
    renamed = {}
    for name, value in _numbers(row).items():
        theirs = trl_name(name)
        if theirs is not None:
            is_eval = theirs.startswith("eval_")
            name = f"eval/{theirs.removeprefix('eval_')}" if is_eval else f"train/{theirs}"
        renamed[name] = value
    return renamed


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in row.items() if name != "step" and isinstance(value, int | float)}
