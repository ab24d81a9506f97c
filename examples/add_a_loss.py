"""A loss and a baseline of your own: two functions that r1kit finds by name, in a two-step R1-Zero run.

Run it: python examples/add_a_loss.py [MODEL]. The model is the tiny base model unless you name another one.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from r1kit.data.jsonl import read_rows
from r1kit.models.policy_net import Loss, LossOutput
from r1kit.pipeline import execute
from r1kit.recipes import RECIPES
from r1kit.train.losses.policy_settings import GRPOSettings


def smooth_clip(settings: GRPOSettings) -> Loss:
    """min(rho A, clip(rho) A) with a ratio that bends towards its bounds instead of stopping there.

    All tensors are [N], one entry per trained token: `logprobs`, and `advantages`, `old_logprobs`, `sampler_logprobs`,
    `ref_logprobs` of the targets. Dividing by `totals` (`num_tokens` or `num_sequences`) makes micro-batches add up to
    one batch. Sums are logged as means over tokens: `ratio` as policy/ratio_mean, a name of your own as loss/NAME.
    """

    def loss(logprobs: Any, targets: Any, totals: Any) -> LossOutput:
        ratio = (logprobs - targets.old_logprobs).exp()
        bent = 1 + settings.clip_high * torch.tanh((ratio - 1) / settings.clip_high)
        per_token = -torch.minimum(ratio * targets.advantages, bent * targets.advantages)
        return LossOutput(per_token.sum() / totals.num_tokens, {"ratio": ratio.detach().sum()})

    return loss


def best_of_group(rewards: list[float | None]) -> list[float | None]:
    """Only the group's best completions are reinforced: advantage 1 for them, 0 for all others."""
    best = max((reward for reward in rewards if reward is not None), default=0.0)
    return [None if reward is None else float(reward == best) for reward in rewards]


def main(model: str = "tiny", runs: Path = Path("runs")) -> list[dict[str, Any]]:
    """Two steps of training; prints the loss and the importance ratio, and returns the rows."""
    here = Path(__file__).stem
    algorithm = {"loss": f"{here}:smooth_clip", "baseline": f"{here}:best_of_group"}
    small = {"steps": 2, "prompts_per_step": 4, "group_size": 4, "max_tokens": 64, "minibatches": 2}
    overrides = {f"rl.{name}": value for name, value in small.items()} | {"rl.algorithm": algorithm}
    overrides["eval.tasks"] = [{"name": "tiny/reasoning", "limit": 4}]  # the base is measured first
    recipe = RECIPES["r1-zero"](scale="tiny", model=model, overrides=overrides)
    rows = list(read_rows(execute(recipe, runs, until="rl") / "metrics.jsonl"))
    for row in rows:
        print(f"step {row['step']}: loss {row['optim/loss']:.4f}, mean ratio {row['policy/ratio_mean']:.4f}")
    return rows


if __name__ == "__main__":
    main(*sys.argv[1:2])
