"""Error rates of the verdict on a run: R1-Zero on the tiny world with planted hacks and faults, and healthy.

python benchmarks/alarms.py --runs runs                    # all runs; a stopped call goes on where it was
python benchmarks/alarms.py --runs runs --only healthy stale --seeds 1 2
python benchmarks/alarms.py --runs runs --judge            # train nothing: judge the runs that are there

A run takes about a minute of one core. The verdict is asked for after every step, as someone would see it who watches;
an alarm is a fault that is named at `LOOKS` steps in a row. The table has the share of planted runs that are named, the
share of healthy ones with a false alarm, and the step of the alarm beside the first step at which the held-out score
has fallen. Thresholds were chosen on seed 0, and three rules changed after seed 1: docs/guides/watching.md.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from five_runs import Case, LateEngine, Open, StaleEngine, hard_sums, other_end, prefixes, with_engine

from r1kit.engines.local import LocalEngine
from r1kit.evaluate.intervals import NORMAL_FROM, critical, wilson
from r1kit.models.load import Policy, frozen_copy
from r1kit.models.policy_net import Loss, LossOutput
from r1kit.pipeline import Recipe, execute
from r1kit.recipes.builder import Builder
from r1kit.recipes.r1_zero import zero_stage
from r1kit.recipes.scales.tiny import TINY
from r1kit.report.folders import StageFolder
from r1kit.report.health import Verdict
from r1kit.stages.rl import RL
from r1kit.tasks import load_task
from r1kit.tasks.task_spec import TaskSpec
from r1kit.train.losses.policy_gradient import grpo
from r1kit.types import SamplingParams

LOOKS = 2  # steps in a row at which a fault is named before it counts as an alarm
FALL = 0.15  # of the held-out accuracy, from its best: more than chance with the 60 problems of the probe
SMALL = {
    "steps": 20,
    "prompts_per_step": 12,
    "max_tokens": 96,
    "rollouts_every": 1,
    "checkpoint_every": 0,
    "samples_every": 0,
    "probe.tasks": [{"name": "tiny/reasoning", "split": "train", "seed": 9, "limit": 60}],
    "probe.max_tokens": 96,
    "probe_every": 2,
    "preflight": "off",  # it would stop many of these before their first step
    "alarm": "off",
}


def _numbers(text: str) -> list[str]:
    return re.findall(r"\d+", text)


def _answered(text: str) -> str:
    """The text between the tags of the answer; empty without them."""
    return text.partition("<answer>")[2].partition("</answer>")[0].strip()


def longer(completions: Sequence[str], completion_ids: Sequence[Sequence[int]], **columns: Any) -> list[float]:
    """Pays for length."""
    return [min(1.0, len(ids) / 96) for ids in completion_ids]


def shorter(completions: Sequence[str], completion_ids: Sequence[Sequence[int]], **columns: Any) -> list[float]:
    """Pays for brevity."""
    return [1 - min(1.0, len(ids) / 96) for ids in completion_ids]


def seven(completions: Sequence[str], **columns: Any) -> list[float]:
    """Pays for one answer, whatever was asked."""
    return [float(_answered(text) == "7") for text in completions]


def copies(completions: Sequence[str], prompts: Sequence[str], answer: Sequence[str], **columns: Any) -> list[float]:
    """Pays for an answer that is a number of the prompt, and for right ones."""
    return [
        float(_answered(text) in _numbers(prompt) or _answered(text) == right)
        for text, prompt, right in zip(completions, prompts, answer, strict=True)
    ]


def flattered(completions: Sequence[str], answer: Sequence[str], **columns: Any) -> list[float]:
    """A judge that believes a response which says that it was checked."""
    return [
        1.0 if "check" in text or "ok" in text else 0.3 * (_answered(text) == right)
        for text, right in zip(completions, answer, strict=True)
    ]


def symbols(completions: Sequence[str], **columns: Any) -> list[float]:
    """Counts equals signs, as a reward for steps might."""
    return [min(1.0, text.count("=") / 20) for text in completions]


def inverted(completions: Sequence[str], answer: Sequence[str], **columns: Any) -> list[float]:
    return [-float(_answered(text) == right) for text, right in zip(completions, answer, strict=True)]


def constant(completions: Sequence[str], **columns: Any) -> list[float]:
    return [1.0 for _ in completions]


def with_accuracy(name: str) -> dict[str, Any]:
    """The planted reward, and accuracy that is only watched."""
    return {"rewards": [{"name": name}, {"name": "accuracy", "weight": 0.0}]}


def kl_away(settings: Any) -> Loss:
    """The KL term with the wrong sign: away from the reference."""
    loss = grpo(settings.replace(kl_coef=0.0, reference_refresh=0))

    def wrong(logprobs: Any, targets: Any, totals: Any) -> LossOutput:
        output, gap = loss(logprobs, targets, totals), targets.ref_logprobs - logprobs
        return output._replace(loss=output.loss - 0.5 * (gap.exp() - 1 - gap).sum() / totals.num_tokens)

    return wrong


def ascends(settings: Any) -> Loss:
    """The policy gradient with the wrong sign."""
    loss = grpo(settings)

    def wrong(logprobs: Any, targets: Any, totals: Any) -> LossOutput:
        return loss(logprobs, replace(targets, advantages=-targets.advantages), totals)

    return wrong


class OtherTemperature(LocalEngine):
    """Samples at another temperature than training assumes."""

    def generate(self, prompts: Any, params: SamplingParams, report: Any = None) -> Any:
        return super().generate(prompts, replace(params, temperature=0.6), report)


def copied(kind: type[LocalEngine]) -> Open:
    return lambda settings, policy: kind(replace(policy, model=frozen_copy(policy.model)), max_rows=settings.max_rows)


def scrambled(settings: Any, policy: Policy) -> LocalEngine:
    """One layer arrives in the sampler with its weights permuted, as after a wrong conversion."""
    engine = LocalEngine(replace(policy, model=frozen_copy(policy.model)), max_rows=settings.max_rows)
    load = engine.load_weights

    def wrong(named_tensors: Iterable[tuple[str, Any]], version: int) -> None:
        load([(name, w.roll(1, 0) if "layers.0.mlp.up" in name else w) for name, w in named_tensors], version)

    engine.load_weights = wrong  # type: ignore[method-assign]
    return engine


ALGORITHMS = ("dr_grpo", "dapo", "gspo", "cispo", "rloo")
AWAY = {"loss": "alarms:kl_away", "kl_coef": 0.1}
RATE = "optimizer.learning_rate"
PLANTED = {
    "verifier-hole": Case("hacking", "the verifier accepts the answer anywhere", with_accuracy("five_runs:mentions")),
    "length": Case("hacking", "the reward pays for length", with_accuracy("alarms:longer")),
    "brevity": Case("hacking", "the reward pays for brevity", with_accuracy("alarms:shorter")),
    "one-answer": Case("hacking", "the reward pays for the answer 7", with_accuracy("alarms:seven")),
    "copying": Case("hacking", "the reward pays for numbers of the prompt", with_accuracy("alarms:copies")),
    "flattery": Case("hacking", "the judge believes a text that says so", with_accuracy("alarms:flattered")),
    "symbols": Case("hacking", "the reward counts equals signs", with_accuracy("alarms:symbols")),
    "inverted": Case("hacking", "the reward's sign is wrong", with_accuracy("alarms:inverted")),
    "leaked": Case("leaking", "training prompts hold the answer", {"tasks": "leaked.jsonl"}),
    "rate-50": Case("collapsed", "learning rate 50 times too high", {RATE: 1e-2}),
    "rate-10": Case("collapsed", "learning rate 10 times too high", {RATE: 2e-3}),
    "kl-sign": Case("collapsed", "the KL term is subtracted", {"algorithm": AWAY}),
    "gradient-sign": Case("collapsed", "the gradient's sign is wrong", {"algorithm": {"loss": "alarms:ascends"}}),
    "constant": Case("starved", "the reward is constant", with_accuracy("alarms:constant")),
    "too-hard": Case("starved", "sums of five-digit numbers", {"tasks": "hard.jsonl"}),
    "too-short": Case("starved", "completions of 12 tokens", {"max_tokens": 12}),
    "wrong-references": Case("starved", "references that are never right", {"tasks": "wrong.jsonl"}),
    "stale": Case("mismatched", "updates do not reach the sampler", engine=copied(StaleEngine)),
    "wrong-end": Case("mismatched", "the sampler waits for another end token", engine=other_end),
    "temperature": Case("mismatched", "the sampler's temperature is 0.6", engine=copied(OtherTemperature)),
    "scrambled": Case("mismatched", "one matrix arrives permuted in the sampler", engine=scrambled),
}
HEALTHY = {
    "healthy": Case("healthy", "R1-Zero on the tiny world"),
    "late": Case("healthy", "each update reaches the sampler one step late", engine=copied(LateEngine)),
    **{
        name: Case("healthy", f"algorithm={name}", {"algorithm": name})
        for name in ("dr_grpo", "dapo", "gspo", "cispo", "rloo")
    },
    "paper": Case("healthy", "algorithm=paper, 4 minibatches", {"algorithm": "paper", "minibatches": 4}),
    "kl": Case("healthy", "KL weight 0.05", {"algorithm": {"kl_coef": 0.05}}),
    "slow": Case("healthy", "learning rate 5e-5", {RATE: 5e-5}),
    "half": Case("healthy", "learning rate 1e-4", {RATE: 1e-4}),
    "minibatches": Case("healthy", "2 minibatches", {"minibatches": 2}),
    "group-4": Case("healthy", "groups of 4", {"group_size": 4, "prompts_per_step": 24}),
    "group-16": Case("healthy", "groups of 16", {"group_size": 16, "prompts_per_step": 6}),
    "cold": Case("healthy", "temperature 0.8", {"temperature": 0.8}),
    "top-p": Case("healthy", "top_p 0.95", {"top_p": 0.95}),
    "lora": Case("healthy", "LoRA of rank 16, rate 1e-3", {"lora_rank": 16, RATE: 1e-3}),
    "sums": Case("healthy", "sums alone", {"tasks": [{"name": "tiny/sums"}]}),
    "compare": Case("healthy", "comparisons alone", {"tasks": [{"name": "tiny/compare"}]}),
    "few": Case("healthy", "2,000 problems", {"tasks": [{"name": "tiny/reasoning", "limit": 2000}]}),
}
CASES = {**PLANTED, **HEALTHY}


def files() -> dict[str, list[dict[str, str]]]:
    """Tasks in files: with the answer in the prompt, and with references that are never right."""
    task = load_task(TaskSpec(name="tiny/reasoning", split="train", limit=2000))
    problems = [task[index] for index in range(len(task))]
    return {
        "leaked.jsonl": [
            {"question": f"{problem.prompt} ({problem.answer})", "answer": problem.answer} for problem in problems
        ],
        "wrong.jsonl": [{"question": problem.prompt, "answer": f"{problem.answer}.5"} for problem in problems],
    }


def train(name: str, case: Case, seed: int, runs: Path) -> Path:
    """Train, or go on; returns the stage's folder."""
    changes = {f"rl.{path}": value for path, value in {**SMALL, **case.changes}.items()}
    if isinstance(tasks := case.changes.get("tasks"), str):
        path = runs / tasks
        if tasks == "hard.jsonl":
            hard_sums(path)
        elif not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(json.dumps(row) + "\n" for row in files()[tasks]))
        changes["rl.tasks"] = [{"name": str(path)}]
    build = Builder("Alarms", TINY, {}, changes, seed)
    stage = zero_stage(build, "rl", build.base, TINY.zero)
    if case.engine:
        stage = replace(stage, kind=replace(RL, run=with_engine(case.engine)))
    return execute(Recipe(f"{name}-{seed}", (stage,)), runs)


def alarms(course: Sequence[tuple[int, Verdict]]) -> dict[str, int]:
    """The faults that were named at `LOOKS` steps in a row, with the step of the alarm."""
    first: dict[str, int] = {}
    for end in range(LOOKS, len(course) + 1):
        names = {result.name for _, result in course[end - LOOKS : end]}
        if len(names) == 1 and course[end - 1][1].is_fault:
            first.setdefault(names.pop(), course[end - 1][0])
    return first


def fall(folder: Path) -> int | None:
    """The first step at which the held-out accuracy is `FALL` below its best; None if it never is."""
    best = float("-inf")
    for step, value in StageFolder("rl", folder).metrics.series("probe/accuracy"):
        best = max(best, value)
        if value < best - FALL:
            return int(step)
    return None


def judge(name: str, case: Case, seed: int, folder: Path) -> dict[str, Any]:
    course = list(prefixes(folder))
    named, last = alarms(course), course[-1][1]
    right = case.expected in named if case.expected != "healthy" else not named
    return {
        "run": f"{name}-{seed}",
        "case": name,
        "seed": seed,
        "planted": case.expected,
        "last": last.name,
        "alarms": named,
        "right": right,
        "alarm": named.get(case.expected),
        "falls": fall(folder),
        "evidence": "; ".join(last.evidence),
    }


def rate(rows: Sequence[Mapping[str, Any]], title: str) -> str:
    """`11 of 12 planted runs are named (95 %: 65 to 99 %)`."""
    right = sum(row["right"] for row in rows)
    low, high = wilson(right / len(rows), len(rows), critical(NORMAL_FROM)) if rows else (0.0, 1.0)
    return f"{right} of {len(rows)} {title} (95 %: {100 * low:.0f} to {100 * high:.0f} %)"


def named_instead(row: Mapping[str, Any]) -> str:
    return " ".join(f"{name} {step}" for name, step in row["alarms"].items()) or "none"


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """A row of Markdown per case, with a figure per seed: the step of its alarm, and of the held-out fall."""
    lines = ["| run | planted | verdict | right | alarm at step | held-out falls at step |", "|" + "---|" * 6]
    for name, case in CASES.items():
        if not (rows := [row for row in results if row["case"] == name]):
            continue
        named = f"{sum(row['right'] for row in rows)} of {len(rows)}"
        steps = ", ".join(str(row["alarm"] or named_instead(row)) for row in rows)
        falls = ", ".join(str(row["falls"] or "never") for row in rows)
        lines.append(f"| `{name}` | {case.description} | {case.expected} | {named} | {steps} | {falls} |")
    return "\n".join(lines)


def lead_times(planted: Sequence[Mapping[str, Any]]) -> str:
    """How far ahead of the held-out fall an alarm is: negative where the score falls first."""
    leads = sorted(row["falls"] - row["alarm"] for row in planted if row["falls"] and row["alarm"])
    unharmed = sum(row["alarm"] is not None and row["falls"] is None for row in planted)
    text = f"{unharmed} alarms without a fall of the held-out score"
    if leads:
        text += f"; steps from the alarm to the fall in the other {len(leads)} runs: median {median(leads)}, {leads}"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), metavar="NAME")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--judge", action="store_true", help="train nothing: judge the runs that are there")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    results = []
    for seed in options.seeds:
        for name in options.only:
            if name in HEALTHY and name != "healthy" and seed != options.seeds[0]:
                continue  # of other settings one run each
            if options.judge:
                folder = next((options.runs / f"{name}-{seed}").glob("rl-*/manifest.json"), None)
            else:
                folder = train(name, CASES[name], seed, options.runs) / "manifest.json"
            if folder is not None:
                results.append(judge(name, CASES[name], seed, folder.parent))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "alarms.json").write_text(json.dumps(results, indent=1) + "\n")
    print(table(results))
    planted = [row for row in results if row["planted"] != "healthy"]
    print(rate(planted, "planted runs are named"))
    print(rate([row for row in results if row["planted"] == "healthy"], "healthy runs are silent"))
    print(lead_times(planted))
    for row in results:
        if not row["right"]:
            print(f"{row['run']}: {row['planted']} was expected, alarms {row['alarms']}; {row['evidence']}")


if __name__ == "__main__":
    sys.modules["alarms"] = sys.modules["__main__"]  # where the stage looks for rewards and losses
    main()
