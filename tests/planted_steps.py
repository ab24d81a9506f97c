"""Small RL runs, and faults of one line that work from a step on: for the tests and benchmarks of replay and bisect."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import r1kit
from r1kit.chat import ChatFormat
from r1kit.engines.local.engine import Generation
from r1kit.pipeline import External, Recipe, Stage, execute
from r1kit.rewards.scorer import Scorer
from r1kit.stages.rl import RL
from r1kit.tiny.frame import TINY_CHAT
from r1kit.train import learner
from r1kit.train.losses import policy_gradient
from r1kit.train.rl import objective
from r1kit.train.rl.collect import Draws
from r1kit.train.rl.loop import RLLoop
from r1kit.train.rl.loop_settings import RolloutSettings

BASE = Path(r1kit.__file__).parent / "tiny" / "base"
SETTINGS: dict[str, Any] = {
    "tasks": [{"name": "tiny/sums", "split": "train", "limit": 24}],
    "chat": TINY_CHAT.model_dump(),
    "rewards": [{"name": "accuracy"}, {"name": "format", "weight": 0.2}],
    "steps": 5,
    "prompts_per_step": 4,
    "group_size": 4,
    "minibatches": 2,
    "max_tokens": 48,
    "checkpoint_every": 2,
    "rollouts_every": 1,
    "samples_every": 0,
    "optimizer": {"learning_rate": 1e-3},
}
Change = Callable[[Any], Any]  # of what the original returned


@dataclass(frozen=True)
class Fault:
    """A line that goes wrong: `where.name` returns `change` of what it should; `tensor` shows it first."""

    title: str
    tensor: str
    where: Any
    name: str
    change: Change


def _negative(reward: Any) -> Any:
    return replace(reward, total=1 - reward.total)


def _first_part(reward: Any) -> Any:
    return replace(reward, total=next(iter(reward.parts.values())))


def _halved(rows: Any) -> Any:
    return [[None if value is None else value / 2 for value in row] for row in rows]


def _hotter(completion: Any) -> Any:
    return completion and replace(completion, logprobs=[value * 1.25 for value in completion.logprobs])


FAULTS = (
    Fault("a space at the end of the prompt", "prompts", ChatFormat, "text", lambda text: f"{text} "),
    Fault("problems in another order", "prompts", Draws, "next", lambda problems: problems[::-1]),
    Fault("a seed that forgets the step", "sampled", RolloutSettings, "sampling", lambda p: replace(p, seed=0)),
    Fault("a colder sampler", "sampled", RolloutSettings, "sampling", lambda p: replace(p, temperature=0.6)),
    Fault("log-probs of another temperature", "logprobs", Generation, "finished", _hotter),
    Fault("the reward's sign", "rewards", Scorer, "_combine", _negative),
    Fault("a part missing in the reward", "rewards", Scorer, "_combine", _first_part),
    Fault("advantages of half the size", "advantages", objective, "group_advantages", _halved),
    Fault("the loss's sign", "gradient", policy_gradient, "_objective", lambda loss: -loss),
    Fault("another mean of the loss", "gradient", policy_gradient, "_aggregate", lambda loss: loss * 1.5),
    Fault("ten times the learning rate", "weights", learner.OptimizerSettings, "rate", lambda rate: 10 * rate),
    Fault("no warm-up of the last step", "weights", learner.OptimizerSettings, "rate", lambda rate: rate + 1e-9),
)


@contextmanager
def planted(fault: Fault, first: int) -> Iterator[None]:
    """From step `first` on, the code has the fault."""
    step, original, take_step = 0, getattr(fault.where, fault.name), RLLoop._step

    def counting(loop: RLLoop, number: int, *rest: Any) -> Any:
        nonlocal step
        step = number + 1
        return take_step(loop, number, *rest)

    def faulty(*arguments: Any, **options: Any) -> Any:
        value = original(*arguments, **options)
        return fault.change(value) if step >= first else value

    with patch.object(RLLoop, "_step", counting), patch.object(fault.where, fault.name, faulty):
        yield


def train(runs: Path, settings: Mapping[str, Any] | None = None, name: str = "planted") -> Path:
    """The folder of a run with one RL stage on the tiny base model."""
    stage = Stage("rl", RL, RL.settings.parse({**SETTINGS, **(settings or {})}), {"model": External(BASE)})
    execute(Recipe(name, (stage,)), runs)
    return runs / name
