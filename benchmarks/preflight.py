"""Does `r1kit preflight` name what is broken, and is it silent on healthy set-ups?

python benchmarks/preflight.py                    # all set-ups on the tiny world; a few seconds of one core each
python benchmarks/preflight.py --only stale-weights packing-leak
python benchmarks/preflight.py --model smollm2-135m --only grpo stale-weights    # another model, by name or folder

Each broken set-up is a recipe of one stage with one fault: in its settings and data as a user would make it, or in the
code of engine, learner or model. It counts as named if its line fails. It also counts how many other lines fail.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from r1kit.chat import samples as chat_samples
from r1kit.engines.local import LocalEngine
from r1kit.evaluate.table import align
from r1kit.models import packed
from r1kit.models.known import resolve
from r1kit.models.load import Policy, frozen_copy
from r1kit.models.policy_net import LossOutput
from r1kit.pipeline import External, Kind, Recipe, Stage
from r1kit.recipes.preflight import preflight
from r1kit.recipes.scales.tiny import ZERO
from r1kit.stages.distill import DISTILL
from r1kit.stages.evaluate import EVALUATE
from r1kit.stages.on_policy import ON_POLICY
from r1kit.stages.rl import RL
from r1kit.stages.sft import SFT
from r1kit.tasks import load_task
from r1kit.tasks.task_spec import TaskSpec
from r1kit.tiny.frame import TINY_CHAT
from r1kit.train.learner import Learner
from r1kit.train.rl import reference
from r1kit.types import SamplingParams

PROBLEMS = [{"name": "tiny/reasoning", "limit": 2000}]
Plant = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True)
class SetUp:
    """A stage's settings as changes to R1-Zero's on the tiny world, and what is broken in its code.

    `line` is the check that must fail; empty if the set-up is healthy.
    """

    line: str = ""
    changes: Mapping[str, Any] = field(default_factory=dict)
    kind: Kind = RL
    plant: Plant = nullcontext
    evaluation: Mapping[str, Any] | None = None


def constant(completions: Sequence[Any], **columns: Any) -> list[float]:
    return [1.0 for _ in completions]


def inverted(completions: Sequence[str], answer: Sequence[str], **columns: Any) -> list[float]:
    return [-float(right in text) for text, right in zip(completions, answer, strict=True)]


def broken(completions: Sequence[str], answer: Sequence[str], **columns: Any) -> list[float]:
    return [float(int(text.split("####")[1]) == int(right)) for text, right in zip(completions, answer, strict=True)]


def counting(completions: Sequence[str], **columns: Any) -> list[float]:
    """Rewards that depend on how often they were asked for: a resumed run gets others."""
    counting.calls += 1  # type: ignore[attr-defined]
    return [(len(text) + counting.calls) % 7 for text in completions]  # type: ignore[attr-defined]


counting.calls = 0  # type: ignore[attr-defined]


def own_batch(settings: Any) -> Callable[..., LossOutput]:
    """A policy gradient that divides by the tokens of its own batch, and not by those of the update."""
    return lambda logprobs, targets, totals: LossOutput(-(logprobs * targets.advantages).mean(), {})


class Stale(LocalEngine):
    """Samples with the weights of the start for ever."""

    def load_weights(self, named_tensors: object, version: int) -> None:
        self.version = version


class Cold(LocalEngine):
    """Samples at another temperature than the settings say."""

    def generate(self, prompts: Any, params: SamplingParams, report: Any = None) -> Any:
        return super().generate(prompts, replace(params, temperature=0.7 * params.temperature), report)


def engine(make: Callable[[Any, Policy], LocalEngine]) -> Plant:
    return lambda: patch("r1kit.stages.shared.sampling_loop.open_policy_engine", make)


def copied(policy: Policy) -> Policy:
    return replace(policy, model=frozen_copy(policy.model))


def without_end(policy: Policy) -> Policy:
    """Its completions end at the padding token, which the model never writes."""
    return replace(policy, end_ids=(policy.tokenizer.pad_token_id,), end_texts=())


@contextmanager
def end_masked() -> Iterator[None]:
    """Rows of SFT whose end token is not trained on."""
    joined = chat_samples._joined

    def masked(turns: Any, ends: Any) -> Any:
        return [replace(sample, loss_mask=(*sample.loss_mask[:-1], False)) for sample in joined(turns, ends)]

    with patch.object(chat_samples, "_joined", masked):
        yield


@contextmanager
def other_reference() -> Iterator[None]:
    """A reference that is not the policy of the start."""

    def other(model: Any) -> Any:
        copy = frozen_copy(model)
        with torch.no_grad():
            for weight in copy.parameters():
                weight.mul_(1.01)
        return copy

    with patch.object(reference, "frozen_copy", other):
        yield


@contextmanager
def leak() -> Iterator[None]:
    """Tokens of a packed row see others 128 places before, which the short rows of the check at load do not have."""
    attend = packed.PackedLayout.attend

    def leaking(self: Any, layer: int, q: Any, k: Any, v: Any, softmax: Any) -> Any:
        if v.shape[2] > 128:
            v = v + 0.1 * v.roll(128, dims=2)
        return attend(self, layer, q, k, v, softmax)

    with patch.object(packed.PackedLayout, "attend", leaking):
        yield


@contextmanager
def moments_lost() -> Iterator[None]:
    """A checkpoint whose optimizer state is not restored."""
    load = Learner.load

    def without_moments(self: Learner, folder: Path, *rest: Any) -> Any:
        before = self.optimizer.state_dict()
        state = load(self, folder, *rest)
        self.optimizer.load_state_dict(before)
        return state

    with patch.object(Learner, "load", without_moments):
        yield


def reward(name: str) -> dict[str, Any]:
    return {"rewards": [{"name": f"preflight:{name}"}]}


BROKEN = {
    "template-mismatch": SetUp(
        "prompts as the model knows them", {"chat": TINY_CHAT.replace(plain="{system}\n{history}Q: {question}\nA:")}
    ),
    "evaluation-prompt": SetUp("prompts of eval", evaluation={"chat": TINY_CHAT.replace(system="Be brief.")}),
    "end-token-masked": SetUp("masks", kind=SFT, plant=end_masked),
    "wrong-stop": SetUp("end of completions", plant=engine(lambda settings, p: LocalEngine(without_end(p)))),
    "constant-reward": SetUp("rewards on your references", reward("constant")),
    "inverted-reward": SetUp("rewards on your references", reward("inverted")),
    "broken-reward": SetUp("rewards on your references", reward("broken")),
    "reference-format": SetUp("form of the references", {"tasks": "worked.jsonl"}),
    "leaked-answers": SetUp("answers in the prompts", {"tasks": "leaked.jsonl"}),
    "stale-weights": SetUp("weights reach the sampler", plant=engine(lambda settings, p: Stale(copied(p)))),
    "temperature": SetUp("sampler-trainer gap", plant=engine(lambda settings, p: Cold(p))),
    "wrong-reference": SetUp("KL at step 0", {"algorithm": "paper"}, plant=other_reference),
    "packing-leak": SetUp("gradient by split and packing", plant=leak),
    "own-batch-loss": SetUp("gradient by split and packing", {"algorithm": {"loss": "preflight:own_batch"}}),
    "prompt-too-long": SetUp("settings, data and prompts", {"max_tokens": 1020}),
    "moments-lost": SetUp("three steps, resumed", plant=moments_lost),
    "counting-reward": SetUp("three steps, resumed", reward("counting")),
}
HEALTHY = {
    "grpo": SetUp(),
    "paper": SetUp(changes={"algorithm": "paper", "minibatches": 4}),
    "dapo": SetUp(changes={"algorithm": "dapo"}),
    "gspo": SetUp(changes={"algorithm": "gspo"}),
    "lora": SetUp(changes={"lora_rank": 8, "algorithm": "paper"}),
    "top-p": SetUp(changes={"top_p": 0.9, "temperature": 0.8}),
    "recomputed": SetUp(changes={"recompute_old_logprobs": True, "algorithm": {"truncated_importance": 2.0}}),
    "long-prompts": SetUp(changes={"max_tokens": 800}),
    "sft": SetUp(kind=SFT),
    "distill": SetUp(kind=DISTILL),
    "on-policy": SetUp(kind=ON_POLICY),
    "control-random": SetUp(changes={"rewards": [{"name": "random"}]}),
    "control-majority": SetUp(changes={"rewards": [{"name": "majority"}]}),
    "control-format": SetUp(changes={"rewards": [{"name": "format"}]}),
}
SETUPS = {**BROKEN, **HEALTHY}
ROWS = ("epochs", "batch_size", "tokens_per_batch", "chat", "optimizer")  # of R1-Zero's settings, for rows


def write_rows(folder: Path) -> None:
    """`rows.jsonl`, conversations for SFT; `worked.jsonl`, whose references are sentences; and `leaked.jsonl`."""
    task = load_task(TaskSpec(name="tiny/reasoning", split="train", seed=3, limit=64))
    problems = [task[index] for index in range(len(task))]
    solved = [f"<think> {problem.prompt} </think> <answer> {problem.answer} </answer>" for problem in problems]
    rows = {
        "rows.jsonl": [
            {"messages": [{"role": "user", "content": problem.prompt}, {"role": "assistant", "content": text}]}
            for problem, text in zip(problems, solved, strict=True)
        ],
        "leaked.jsonl": [
            {"question": f"{problem.prompt} ({problem.answer})", "answer": problem.answer} for problem in problems
        ],
        "worked.jsonl": [
            {"question": problem.prompt, "answer": f"Counted one by one, it is {problem.answer}."}
            for problem in problems
        ],
    }
    for name, lines in rows.items():
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))


def recipe(name: str, setup: SetUp, model: str, folder: Path) -> Recipe:
    """The set-up as a recipe of one stage, and an evaluation if that is what is broken."""
    base = External(resolve(model))
    if setup.kind in (SFT, DISTILL):
        values = {"chat": TINY_CHAT, "batch_size": 16, "max_tokens": None}
        inputs = {"model": base, "data": External(folder / "rows.jsonl")}
    else:
        values = dict(ZERO) | {"tasks": PROBLEMS}
        values |= {} if setup.kind is ON_POLICY else {"rewards": ["accuracy", {"name": "format", "weight": 0.2}]}
        inputs = {"model": base}
    if setup.kind in (DISTILL, ON_POLICY):
        inputs["teacher"] = base
    values |= setup.changes
    if isinstance(values.get("tasks"), str):
        values["tasks"] = [{"name": str(folder / values["tasks"]), "verifier": "exact"}]
    stage = Stage("train", setup.kind, setup.kind.settings.parse(values), inputs)
    if setup.evaluation is None:
        return Recipe(name, (stage,))
    settings = EVALUATE.settings.parse({"tasks": PROBLEMS, **setup.evaluation})
    return Recipe(name, (Stage("eval", EVALUATE, settings, {"model": stage / "model"}),))


def check(name: str, setup: SetUp, model: str, folder: Path) -> dict[str, Any]:
    """The lines that fail, and the seconds that it took."""
    wall, processor = time.perf_counter(), time.process_time()
    with setup.plant():
        checked = preflight(recipe(name, setup, model, folder), folder / "runs")
    lines = [line for stage in checked for line in stage.lines]
    failing = [line.check for line in lines if line.verdict == "fails"]
    right = setup.line in failing if setup.line else not failing
    seconds = {"wall_s": time.perf_counter() - wall, "processor_s": time.process_time() - processor}
    return {"set-up": name, "planted": setup.line, "right": right, "failing": failing, **seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=SETUPS, default=list(SETUPS), metavar="NAME")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_rows(folder)
        results = []
        for setup in options.only:
            print(setup, file=sys.stderr)
            results.append(check(setup, SETUPS[setup], options.model, folder))
    if options.json:
        print(json.dumps(results, indent=2))
        return
    head = ["set-up", "planted", "lines that fail", "right", "processor s"]
    rows = [
        [row["set-up"], row["planted"], ", ".join(row["failing"]), str(row["right"]), f"{row['processor_s']:.1f}"]
        for row in results
    ]
    print(align([head, *rows]))
    for title, names in (("broken set-ups named", BROKEN), ("healthy set-ups silent", HEALTHY)):
        own = [row for row in results if row["set-up"] in names]
        print(f"{sum(row['right'] for row in own)} of {len(own)} {title}")


if __name__ == "__main__":
    sys.modules["preflight"] = sys.modules["__main__"]  # where stages look for rewards and losses
    main()
