"""The share of GRPO steps that waits for verdicts, on real problems.

    R1KIT_DATA=path/to/data python benchmarks/reward_wait.py --model smollm2-135m --task math
    python benchmarks/reward_wait.py --model tiny --task tiny/reasoning --prompts 16 --group 16

Trains with the reward `accuracy` and prints the loop's own metrics: `time/rewards_share` of each step. The first step
also starts the verifier's processes. Writes benchmarks/results/reward_wait.json, an entry for each model and task.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from r1kit.chat import saved
from r1kit.engines.local import LocalEngine
from r1kit.models.known import resolve
from r1kit.models.load import load
from r1kit.rewards import RewardSpec, build
from r1kit.tasks import TaskSpec, load_task
from r1kit.train.learner import Learner, OptimizerSettings
from r1kit.train.rl.loop import RLLoop
from r1kit.train.rl.loop_settings import LoopSettings
from r1kit.train.rl.objective import PolicyGradient


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--task", default="tiny/reasoning")
    parser.add_argument("--prompts", type=int, default=6)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--max-tokens", type=int, default=96)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args(argv)
    policy = load(options.model, device="cpu")
    chat, _ = saved.choose(None, resolve(options.model), policy.tokenizer)
    settings = LoopSettings(
        steps=options.steps,
        prompts_per_step=options.prompts,
        group_size=options.group,
        max_tokens=options.max_tokens,
        checkpoint_every=0,
    )
    learner = Learner(policy.model, OptimizerSettings(learning_rate=1e-6), steps=options.steps)
    rows: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        RLLoop(
            learner,
            PolicyGradient(learner, settings),
            LocalEngine(policy),
            load_task(TaskSpec(name=options.task, limit=500)),
            chat,
            build((RewardSpec(name="accuracy"),)),
            settings,
            folder=Path(folder),
            log=lambda _, row: rows.append(
                {k: v for k, v in row.items() if k.startswith(("time/", "reward/accuracy"))}
            ),
            note=print,
        ).train()
    for step, row in enumerate(rows, 1):
        print(f"step {step}: {row['time/step_s']:.2f} s, of which {row['time/rewards_share']:.2%} waits for verdicts")
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "reward_wait.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    sizes = {"prompts": options.prompts, "group": options.group, "max_tokens": options.max_tokens}
    results[f"{options.model} on {options.task}"] = {**sizes, "cores": os.cpu_count(), "steps": rows}
    file.write_text(json.dumps(results, indent=1) + "\n")
    print(file)


if __name__ == "__main__":
    main()
