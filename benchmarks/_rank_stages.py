"""Stages of every kind that several devices can share, one after the other in one set of ranks, to compare metrics."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from r1kit.data.jsonl import read_rows
from r1kit.models.known import resolve
from r1kit.models.load import Policy, fresh_llama
from r1kit.pipeline import Context, External, Kind, Recipe, Stage, execute
from r1kit.settings import Settings, unhashed
from r1kit.stages import distill, on_policy, pretrain, reward_model, rl, sft
from r1kit.tiny.frame import TINY_CHAT
from r1kit.tiny.tokenizer import make

RATE = {"learning_rate": 1e-3}
SAMPLING = {
    "tasks": [{"name": "tiny/sums", "split": "train", "limit": 16}],
    "prompts_per_step": 5,  # an uneven number
    "max_tokens": 24,
    "tokens_per_batch": 300,
    "optimizer": RATE,
    "device": "cpu",
}
GIVEN = {"batch_size": 7, "tokens_per_batch": 400, "optimizer": RATE, "device": "cpu", "epochs": 1}
CHAT = {"chat": TINY_CHAT.model_dump()}
KINDS: dict[str, tuple[Kind, dict[str, Any]]] = {
    "sft": (sft.SFT, {**GIVEN, **CHAT, "max_tokens": 256, "validation_share": 0.4, "patience": 100}),
    "distill": (distill.DISTILL, {**GIVEN, **CHAT, "max_tokens": 256}),
    "reward-model": (reward_model.REWARD_MODEL, {**GIVEN, **CHAT, "max_tokens": 256, "validation_share": 0.4}),
    "safety": (
        reward_model.REWARD_MODEL,
        {**GIVEN, **CHAT, "max_tokens": 256, "objective": "safety", "validation_share": 0.4},
    ),
    "rl": (
        rl.RL,
        {
            **SAMPLING,
            **CHAT,
            "group_size": 4,
            "minibatches": 2,
            "rewards": ["_rank_stages:low_ids"],
            "algorithm": "paper",
            "probe": {"tasks": [{"name": "tiny/sums", "split": "test", "limit": 3}], "max_tokens": 24},
        },
    ),
    "clip-cov": (
        rl.RL,
        {**SAMPLING, **CHAT, "group_size": 4, "rewards": ["_rank_stages:low_ids"], "algorithm": "clip_cov"},
    ),
    "on-policy": (on_policy.ON_POLICY, {**SAMPLING, **CHAT, "group_size": 2}),
    "pretrain": (
        pretrain.PRETRAIN,
        {"documents_per_step": 6, "layers": 1, "width": 32, "tokens_per_batch": 400, "device": "cpu"},
    ),
}


def low_ids(
    completions: Sequence[str], completion_ids: Sequence[list[int]], log_metric: Callable[[str, float], None], **_: Any
) -> list[float]:
    """A reward that varies: the share of tokens with small ids."""
    shares = [sum(token < 100 for token in ids) / len(ids) for ids in completion_ids]
    log_metric("mean", fmean(shares))  # of this rank's completions
    return shares


class RankStagesSettings(Settings):
    """`kinds` are names of `KINDS`; each is trained for `steps` updates, with `sequence_devices` ranks for each row.

    The ranks `shard` the weights, or each has them whole.
    """

    kinds: tuple[str, ...]
    steps: int
    checkpoint_every: int = unhashed(0)
    sequence_devices: int = unhashed(1)
    shard: bool = unhashed(True)


def run(context: Context) -> Mapping[str, Any]:
    """Run every kind in a folder of its own; existing checkpoints are continued."""
    settings: RankStagesSettings = context.settings
    for name in settings.kinds:
        kind, options = KINDS[name]
        changes = {name: getattr(settings, name) for name in ("checkpoint_every", "sequence_devices", "shard")}
        options = {**options, **changes}
        is_given = "epochs" in options
        parsed = kind.settings.parse(options if is_given else {**options, "steps": settings.steps})
        paths = {key: context.input(key) for key in ("model", "teacher")}
        if is_given:
            paths["data"] = context.input(f"data/{name}")
        needs_teacher = name in ("distill", "on-policy")
        inputs = {key: path for key, path in paths.items() if key != "teacher" or needs_teacher}
        folder = context.folder / name
        folder.mkdir(exist_ok=True)
        kind.run(replace(context, stage=name, settings=parsed, folder=folder, paths=inputs))
    return {}


RANK_STAGES = Kind(name="rank-stages", run=run, settings=RankStagesSettings, shards=True)


def recipe(folder: Path, settings: RankStagesSettings) -> Recipe:
    """The stage with its data, which are written into the folder."""
    student = folder / "student"
    if not student.exists():
        tokenizer = make()
        model = fresh_llama(tokenizer, layers=2, width=32, heads=2, context=512, seed=0)
        Policy(model, tokenizer, (tokenizer.eos_token_id,)).save(student)
    inputs = {"model": External(student), "teacher": External(resolve("tiny"))}
    for name, (_, options) in KINDS.items():
        if "epochs" in options:
            path = folder / f"{name}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            held_out = options.get("validation_share", 0.0)
            rows = int(options["batch_size"] * settings.steps / (1 - held_out)) - 3  # the last update is smaller
            path.write_text("".join(json.dumps(_row(name, number)) + "\n" for number in range(rows)))
            inputs[f"data/{name}"] = External(path)
    return Recipe("ranks", (Stage("all", RANK_STAGES, settings, inputs),))


def _row(name: str, number: int) -> dict[str, Any]:
    total = number + 3
    right = f"<think> {number} + 3 = {total}" + " is right" * (number % 5) + f" </think> <answer> {total} </answer>"
    wrong = f"<think> {number} + 3 = {number} </think> <answer> {number} </answer>"
    question = f"What is {number} + 3 ?"
    if name == "reward-model":
        return {"prompt": question, "chosen": right, "rejected": wrong}
    if name == "safety":
        return {"prompt": question, "response": right if number % 2 else wrong, "label": bool(number % 2)}
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": right}]}


def metrics(folder: Path, name: str) -> list[dict[str, float]]:
    """The rows of metrics.jsonl without times."""
    return [
        {key: value for key, value in row.items() if not key.startswith("time/")}
        for row in read_rows(folder / name / "metrics.jsonl")
    ]


def train(folder: Path, settings: RankStagesSettings, devices: int, runs: str = "") -> Path:
    """The folder of the finished stage, in the folder `runs` (`ranks-DEVICES`)."""
    return execute(recipe(folder / "data", settings), folder / (runs or f"ranks-{devices}"), devices=devices)


def largest_difference(left: list[dict[str, float]], right: list[dict[str, float]]) -> tuple[float, str]:
    """The largest difference between two courses of metrics, relative to values above 0.1, and which it is.

    Tokens of packed rows differ: a prompt whose completions are on two ranks counts twice.
    """
    assert [row["step"] for row in left] == [row["step"] for row in right], "the same steps"
    differences = [
        (abs(ours[key] - theirs[key]) / max(0.1, abs(ours[key])), f"{key}, step {ours['step']}")
        for ours, theirs in zip(left, right, strict=True)
        for key in ours.keys() | theirs.keys()
        if key != "tokens/train"
    ]
    return max(differences)
