"""Whether a GPU computes what the CPU computes, and how fast: one command, random weights, no network.

    make gpu-check                                              # less than eight minutes
    python benchmarks/gpu_check.py --device cpu --shapes tiny   # the same checks in miniature, on any machine

Prints a line per check and writes benchmarks/results/gpu_check-CARD.json. The exit status is 1 if numbers differ, the
run learns nothing or one of these checks is left out, and 2 without a GPU. Speed and memory are reported beside their
bars.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from _gpu_models import Clock, Cost, Groups, copied, policy_of, random_model, sample

from r1kit.engines.local import LocalEngine
from r1kit.engines.local.engine import Generation
from r1kit.models.batch import Totals
from r1kit.models.compute import computing
from r1kit.models.devices import device_name
from r1kit.pipeline import execute
from r1kit.recipes import build_recipe
from r1kit.store import read_json
from r1kit.train.learner import Learner, OptimizerSettings
from r1kit.train.losses.policy_gradient import grpo
from r1kit.train.losses.policy_settings import PRESETS
from r1kit.train.packing import pack
from r1kit.types import Sample, SamplingParams

RESULTS = Path(__file__).parent / "results"
DECIDING = ("parity", "gap", "recorded", "run")  # first words of the checks that can fail
LIMIT_S = 400  # no check begins later: the whole command takes less than eight minutes
SETTINGS = OptimizerSettings(learning_rate=1e-6)
# dense bf16 flop/s that the makers state, by a part of the card's name
PEAKS = {"h100-pcie": 756e12, "h100": 989e12, "h200": 989e12, "a100": 312e12, "l40s": 362e12, "l4": 121e12}
BARS = {  # for one H100
    "train qwen3-0.6b": {"tokens_per_s": 13_000, "mfu": 0.2},
    "memory qwen3-0.6b": {"peak_GB": 20},
    "decode": {"bandwidth_share": 0.5},
}


@dataclass(frozen=True)
class Shapes:
    """The models and sizes of one set of checks."""

    parity: str
    models: tuple[str, ...]
    parity_groups: Groups
    gap_groups: Groups
    train: dict[str, Groups]
    memory: Groups  # 8 completions of 512 tokens in the full shapes
    decode: Groups
    run: dict[str, Any]  # settings of R1-Zero
    learns: bool  # whether the run is long enough to


FULL = Shapes(
    parity="smollm2-135m",
    models=("smollm2-135m", "qwen3-0.6b", "qwen3-1.7b"),
    parity_groups=Groups(2, 4, 64, 96),
    gap_groups=Groups(8, 4, 64, 64),
    train={
        "smollm2-135m": Groups(4, 8, 512, 448),  # 16,384 tokens
        "qwen3-0.6b": Groups(4, 8, 512, 448),
        "qwen3-1.7b": Groups(2, 8, 512, 448),  # 8,192, for 80 GB
    },
    memory=Groups(1, 8, 64, 448),
    decode=Groups(16, 8, 128, 256),
    run={"rl.steps": 40, "rl.checkpoint_every": 0, "eval.samples": 2},
    learns=True,
)
TINY = Shapes(
    parity="tiny",
    models=("tiny",),
    parity_groups=Groups(2, 3, 5, 9),
    gap_groups=Groups(2, 2, 5, 6),
    train={"tiny": Groups(2, 3, 5, 9)},
    memory=Groups(1, 3, 5, 9),
    decode=Groups(2, 2, 5, 12),
    run={
        "rl.steps": 1,
        "rl.prompts_per_step": 2,
        "rl.group_size": 2,
        "rl.max_tokens": 16,
        "eval.samples": 1,
        "eval.max_tokens": 16,
        "eval.tasks": [{"name": "tiny/reasoning", "limit": 4}],
    },
    learns=False,
)


class Check:
    """The checks on one device; each returns its facts, among them `passes` if it can fail."""

    def __init__(self, device: str, shapes: Shapes) -> None:
        self.device, self.shapes, self.clock = device, shapes, Clock(device)
        self.roofs = self.measured_roofs()

    def measured_roofs(self) -> dict[str, float]:
        """The fastest product in bf16, in flop/s, and the bandwidth of a copy, in bytes/s."""
        size = 8192 if self.clock.on_gpu else 256
        a = torch.randn(size, size, device=self.device, dtype=torch.bfloat16)
        source = torch.ones(2**28 if self.clock.on_gpu else 2**16, device=self.device)  # 1 GB
        target, best = torch.empty_like(source), {"flop": 0.0, "memory": 0.0}
        for _ in range(6):
            with self.clock.timed() as product:
                a @ a
            with self.clock.timed() as copy:
                target.copy_(source)
            best["flop"] = max(best["flop"], 2 * size**3 / product["s"])
            best["memory"] = max(best["memory"], 2 * source.numel() * 4 / copy["s"])
        return best

    def parity(self) -> dict[str, Any]:
        """Log-probs, gradients and greedy tokens in fp32, against the CPU's."""
        groups, sides = self.shapes.parity_groups, []
        model = random_model(self.shapes.parity)
        samples = groups.samples(model.config.vocab_size)
        for device in ("cpu", self.device):
            policy = copied(model, device, "fp32")
            greedy = LocalEngine(policy).generate(
                groups.asked(model.config.vocab_size), SamplingParams(temperature=0.0, max_tokens=groups.completion)
            )
            learner = Learner(policy.model, SETTINGS, steps=1)
            batches = pack(samples, groups.tokens, policy.model)
            logprobs = torch.cat([learner.logprobs(batch).cpu() for batch in batches])
            learner.forward_backward(batches, grpo(PRESETS["grpo"]), Totals.of(samples))
            grads = torch.cat([p.grad.flatten().cpu() for p in policy.model.parameters() if p.grad is not None])
            sides.append((logprobs, grads, [token for group in greedy for token in group[0].token_ids]))
        (ours, our_grads, our_ids), (theirs, their_grads, their_ids) = sides
        gap = float((ours - theirs).abs().max())
        relative = float((our_grads - their_grads).norm() / our_grads.norm())
        same = sum(a == b for a, b in zip(our_ids, their_ids, strict=True)) / len(our_ids)
        facts = {"logprob_gap_max": gap, "gradient_gap_relative": relative, "greedy_tokens_equal": same}
        return facts | {"passes": gap < 1e-3 and relative < 1e-3}

    def gap(self, model: Any, name: str) -> dict[str, Any]:
        """How far the learner's log-probs are from those that the sampler reported, in the device's own precision."""
        policy, groups = policy_of(model, self.device, "auto"), self.shapes.gap_groups
        params = SamplingParams(n=groups.group, max_tokens=groups.completion)
        asked = groups.asked(model.config.vocab_size)
        answers = LocalEngine(policy).generate(asked, params)
        samples = [
            sample(prompt.token_ids, one.token_ids, one.logprobs, 1.0)
            for prompt, group in zip(asked, answers, strict=True)
            for one in group
        ]
        learner, gaps = Learner(policy.model, SETTINGS, steps=1), []
        for batch in pack(samples, groups.tokens, policy.model):
            gaps.append((learner.logprobs(batch) - batch.targets.sampler_logprobs).cpu())
        gap = torch.cat(gaps)
        kl = float((gap.exp() - 1 - gap).mean())  # of the sampler from the learner
        facts = {"gap_mean": float(gap.abs().mean()), "gap_max": float(gap.abs().max()), "kl": kl}
        return facts | {"passes": facts["gap_mean"] < 0.02 and kl < 1e-3}

    def run(self) -> dict[str, Any]:
        """R1-Zero on the tiny world: base, RL, and both measured."""
        overrides = {"rl.device": self.device, "eval.device": self.device, **self.shapes.run}
        recipe = build_recipe("r1-zero", scale="tiny", overrides=overrides)
        with tempfile.TemporaryDirectory() as folder, self.clock.timed() as facts:
            execute(recipe, Path(folder))
            scores = {
                stage: read_json(next(Path(folder).glob(f"*/eval-{stage}-*/manifest.json")))["metrics"]["pass@1"]
                for stage in ("base", "zero")
            }
        return {**facts, **scores, "passes": scores["zero"] > scores["base"] + 0.1 or not self.shapes.learns}

    def train(self, model: Any, name: str) -> dict[str, Any]:
        """Updates on one packed row."""
        return self.updates(model, self.shapes.train[name])

    def memory(self, model: Any, name: str) -> dict[str, Any]:
        """An update on 8 completions of 512 tokens with their prompt."""
        return self.updates(model, self.shapes.memory)

    def updates(self, model: Any, groups: Groups) -> dict[str, Any]:
        learner = Learner(policy_of(model, self.device, "auto").model, SETTINGS, steps=4)
        samples, seconds, peak = groups.samples(model.config.vocab_size), [], 0.0
        for _ in range(4):  # the first one warms up
            with self.clock.timed() as facts:
                self.update(learner, samples, groups.tokens)
            seconds.append(facts["s"])
            peak = max(peak, facts.get("peak_GB", 0.0))
        best = min(seconds[1:])
        speed = Cost.of(model).training(groups) / best
        found = {"tokens": groups.tokens, "s": best, "tokens_per_s": groups.tokens / best}
        found |= {"peak_GB": peak} if self.clock.on_gpu else {}
        stated = next((peak for part, peak in PEAKS.items() if part in device_name()), None)
        shares = {"mfu": speed / stated} if stated and self.clock.on_gpu else {}
        return found | shares | {"share_of_measured_products": speed / self.roofs["flop"]}

    def update(self, learner: Learner, samples: list[Sample], tokens: int) -> None:
        learner.forward_backward(pack(samples, tokens, learner.model), grpo(PRESETS["grpo"]), Totals.of(samples))
        learner.step()

    def decode(self, model: Any, name: str) -> dict[str, Any]:
        """Completions of one length, and the share of the memory's bandwidth that their least traffic takes."""
        policy, groups = policy_of(model, self.device, "auto"), self.shapes.decode
        asked = groups.asked(model.config.vocab_size)
        engine = LocalEngine(policy, max_rows=groups.prompts * groups.group)
        engine.generate(asked, SamplingParams(n=groups.group, max_tokens=4))  # warms up
        with self.clock.timed() as facts:
            engine.generate(asked, SamplingParams(n=groups.group, max_tokens=groups.completion))
        tokens = groups.prompts * groups.group * groups.completion
        width = 2 if self.clock.on_gpu else 4
        share = Cost.of(model).decoding(groups, width) / facts["s"] / self.roofs["memory"]
        return {"tokens": tokens, **facts, "tokens_per_s": tokens / facts["s"], "bandwidth_share": share}

    def recorded(self, model: Any, name: str) -> dict[str, Any]:
        """Decode steps replayed from a recording (a CUDA graph; torch.fx on a CPU), against the same steps run."""
        policy, groups = policy_of(model, self.device, "auto"), self.shapes.decode
        asked, steps = groups.asked(model.config.vocab_size), min(32, groups.completion - 1)
        params, warm = SamplingParams(n=groups.group, max_tokens=steps + 1), steps // 4
        engine = LocalEngine(policy, max_rows=groups.prompts * groups.group)
        tokens, seconds = [], []
        with torch.no_grad(), computing(policy.model):
            for record in (lambda generation, _: lambda draws: generation.step(draws)[0], self.recording):
                generation = Generation(engine, engine.requests(asked, params))
                generation.prefill(generation.scheduler.admit(), 0)
                uniform = generation.next_uniforms(0, steps)  # [rows, steps]
                generation.decoder.reserve(steps)
                for step in range(warm):
                    generation.step(uniform[:, step])
                replay = record(generation, uniform[:, warm])
                with self.clock.timed() as facts:
                    tokens.append(torch.stack([replay(uniform[:, step]).clone() for step in range(warm, steps)]))
                seconds.append(facts["s"] / (steps - warm))
        same = float((tokens[0] == tokens[1]).double().mean())
        return {"step_s": seconds[0], "replayed_step_s": seconds[1], "tokens_equal": same, "passes": same == 1.0}

    def recording(self, generation: Generation, uniform: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        return (graph_of if self.clock.on_gpu else traced)(generation, uniform)


def graph_of(generation: Generation, uniform: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """The next step as a CUDA graph; recording it runs nothing."""
    draws, graph = uniform.clone(), torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        tokens, _ = generation.step(draws)

    def replay(uniform: torch.Tensor) -> torch.Tensor:
        draws.copy_(uniform)
        graph.replay()
        return tokens

    return replay


def traced(generation: Generation, uniform: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """The next step as a list of operations on tensors; tracing it runs them once, so the first replay returns that."""
    from torch.fx.experimental.proxy_tensor import make_fx

    operations, first = make_fx(lambda draws: generation.step(draws))(uniform), [generation.last_tokens.clone()]
    return lambda uniform: first.pop() if first else operations(uniform)[0]


def checks(check: Check) -> list[tuple[str, Callable[[], dict[str, Any]]]]:
    """The checks by name, the ones that can fail first."""
    jobs: list[tuple[str, Callable[[], dict[str, Any]]]] = [("parity in fp32", check.parity)]
    kinds = {"gap": check.gap, "recorded": check.recorded, "decode": check.decode, "train": check.train}
    for model in check.shapes.models[:2]:
        jobs += [(f"{kind} {model}", on_model(check, model, kinds[kind])) for kind in ("gap", "recorded")]
    jobs.append(("run r1-zero tiny", check.run))
    for kind in ("train", "decode"):
        jobs += [(f"{kind} {model}", on_model(check, model, kinds[kind])) for model in check.shapes.models]
    second = check.shapes.models[min(1, len(check.shapes.models) - 1)]
    return [*jobs, (f"memory {second}", on_model(check, second, check.memory))]


def on_model(check: Check, name: str, work: Callable[[Any, str], dict[str, Any]]) -> Callable[[], dict[str, Any]]:
    return lambda: work(random_model(name, check.device), name)


def line(name: str, facts: dict[str, Any]) -> str:
    """A check's facts for people, with the bars that exist for them."""
    bars = {key: value for prefix, bar in BARS.items() if name.startswith(prefix) for key, value in bar.items()}
    cells = []
    for key, value in facts.items():
        shown = f"{value:.4g}" if isinstance(value, float) else str(value)
        cells.append(f"{key} {shown}" + (f" (bar for one H100: {bars[key]:g})" if key in bars else ""))
    return f"{name}: {', '.join(cells)}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu")
    parser.add_argument("--shapes", choices=("full", "tiny"), default="full")
    parser.add_argument("--out", type=Path, help="the JSON file; by default one named after the card, none on a CPU")
    options = parser.parse_args()
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        print(
            "gpu-check: torch finds no GPU on this machine, so nothing was checked. The same checks in miniature: "
            "python benchmarks/gpu_check.py --device cpu --shapes tiny",
            file=sys.stderr,
        )
        return 2
    on_gpu = options.device.startswith("cuda")
    card = device_name() if on_gpu else "cpu"
    out = options.out or (RESULTS / f"gpu_check-{card}.json" if on_gpu and options.shapes == "full" else None)
    started, check = time.perf_counter(), Check(options.device, FULL if options.shapes == "full" else TINY)
    report: dict[str, Any] = {"device": card, "shapes": options.shapes, "torch": torch.__version__, "checks": {}}
    report["roofs"] = check.roofs
    for name, work in checks(check):
        if time.perf_counter() - started > LIMIT_S:
            facts: dict[str, Any] = {"left_out": f"{LIMIT_S} s had passed"}
        else:
            try:
                facts = work()
            except torch.cuda.OutOfMemoryError:
                facts = {"left_out": "out of memory"}
        gc.collect()  # the check's models
        if on_gpu:
            torch.cuda.empty_cache()
        report["checks"][name] = facts
        print(line(name, facts), flush=True)
    report["seconds"] = time.perf_counter() - started
    if out is not None:
        out.write_text(json.dumps(report, indent=1) + "\n")
        print(f"written: {out}")
    failed = [name for name, facts in report["checks"].items() if facts.get("passes") is False]
    missing = [name for name, facts in report["checks"].items() if "left_out" in facts and name.startswith(DECIDING)]
    verdicts = [
        f"{word}: {', '.join(names)}" for word, names in (("FAILED", failed), ("NOT CHECKED", missing)) if names
    ]
    print(f"{'; '.join(verdicts) or 'all numbers agree'}; {report['seconds']:.0f} s")
    return 1 if verdicts else 0


if __name__ == "__main__":
    sys.exit(main())
