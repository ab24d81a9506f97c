"""Rewards travel both ways: TRL's GRPOTrainer trains with ours, and our `rl` trains with rewards written for TRL."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
trl = pytest.importorskip("trl", reason="trl is not installed: `pip install trl` to train with it")
datasets = pytest.importorskip("datasets")

from conftest import grpo_trainer  # noqa: E402
from r1kit.chat import ChatFormat  # noqa: E402
from r1kit.engines.local import LocalEngine  # noqa: E402
from r1kit.models import attention  # noqa: E402
from r1kit.models.load import Policy, fresh_llama  # noqa: E402
from r1kit.rewards import RewardSpec, build  # noqa: E402
from r1kit.rewards.accuracy import accuracy_reward, get_cosine_scaled_reward  # noqa: E402
from r1kit.rewards.consistency import get_graded_language_reward, get_language_consistency_reward  # noqa: E402
from r1kit.rewards.length import get_repetition_penalty_reward, get_soft_overlong_punishment  # noqa: E402
from r1kit.rewards.r1_format import format_reward, reasoning_steps_reward, tag_count_reward  # noqa: E402
from r1kit.rewards.reasoning import reasoning_quality_reward  # noqa: E402
from r1kit.tasks.base import Listed  # noqa: E402
from r1kit.tiny.tokenizer import make  # noqa: E402
from r1kit.train.learner import Learner, OptimizerSettings  # noqa: E402
from r1kit.train.rl.loop import RLLoop  # noqa: E402
from r1kit.train.rl.loop_settings import LoopSettings  # noqa: E402
from r1kit.train.rl.objective import PolicyGradient  # noqa: E402
from r1kit.types import Problem  # noqa: E402

torch.set_num_threads(1)

TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
OURS = [
    accuracy_reward,
    format_reward,
    tag_count_reward,
    reasoning_steps_reward,
    reasoning_quality_reward,
    get_cosine_scaled_reward(unit="tokens", max_len=16),
    get_repetition_penalty_reward(),
    get_soft_overlong_punishment(max_length=16, cache=4),
    get_language_consistency_reward(),
    get_graded_language_reward(detect="script"),
]
QUESTIONS = ["1+2=", "3+4=", "5+1=", "2+2="]


@pytest.mark.parametrize("conversational", [False, True], ids=["plain", "conversational"])
def test_trls_trainer_trains_two_steps_with_our_rewards(conversational: bool, tmp_path: Path) -> None:
    prompts: list[Any] = [[{"role": "user", "content": one}] for one in QUESTIONS] if conversational else QUESTIONS
    facts = [("3", "number", "en"), ("7", "math", "zh"), ("6", "exact", "de"), ("4", "number", "en")]
    rows = [
        {"prompt": prompt, "answer": answer, "verifier": verifier, "language": language}
        for prompt, (answer, verifier, language) in zip(prompts, facts, strict=True)
    ]
    trainer = grpo_trainer(
        TEMPLATE,
        rows,
        OURS,
        tmp_path,
        seed=0,
        per_device_train_batch_size=8,
        num_generations=4,
        max_completion_length=16,
        logging_steps=1,
        save_strategy="no",
        learning_rate=1e-3,
        log_completions=True,
        num_completions_to_print=1,
        reward_weights=[0.1] * len(OURS),
    )
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    trainer.train()
    assert trainer.state.global_step == 2
    logged = [row for row in trainer.state.log_history if "reward" in row]
    assert len(logged) == 2
    names = {function.__name__ for function in OURS}
    assert {f"rewards/{name}/mean" for name in names} <= logged[0].keys()
    assert {"verifier/unknown", "verifier/failed", "reasoning/flow"} <= logged[0].keys()
    assert all(row["verifier/failed"] == 0.0 for row in logged)
    assert any(not torch.equal(tensor, before[name]) for name, tensor in trainer.model.state_dict().items())
    table = datasets.load_dataset(
        "parquet",
        data_files=str(tmp_path / "completions" / "*.parquet"),
        split="train",
        cache_dir=str(tmp_path / "cache"),
    )
    assert {"verdict", "extracted", "cosine_verdict"} <= set(table.column_names)
    assert set(table["verdict"]) <= {"right", "wrong"}


def vowels(completions: list[list[dict[str, str]]], prompts: list[Any], answer: list[str], **_: Any) -> list[float]:
    """As people write them for TRL: conversational completions, columns as keyword lists."""
    assert len(completions) == len(prompts) == len(answer)
    texts = [completion[0]["content"] for completion in completions]
    return [sum(letter in "aeiou" for letter in text) / max(1, len(text)) for text in texts]


async def async_length(
    completions: list[str], log_metric: Any = None, log_extra: Any = None, trainer_state: Any = None, **_: Any
) -> list[float | None]:
    await asyncio.sleep(0)
    log_metric("letters/mean", sum(map(len, completions)) / len(completions))
    log_extra("letters", [len(one) for one in completions])
    return [None if not one else 1 / (1 + len(one)) for one in completions]


def rl(folder: Path, specs: list[RewardSpec], answer: str = "3") -> RLLoop:
    tokenizer = make()
    settings = LoopSettings.parse(
        {
            "steps": 2,
            "prompts_per_step": 4,
            "group_size": 4,
            "max_tokens": 12,
            "tokens_per_batch": 300,
            "rollouts_every": 1,
        }
    )
    attention.register()
    policy = Policy(fresh_llama(tokenizer, layers=1, width=32, heads=2, context=64, seed=0), tokenizer, (1,))
    learner = Learner(policy.model, OptimizerSettings(learning_rate=1e-3), steps=2)
    task = Listed(name="sums", problems=tuple(Problem(id=one, prompt=one, answer=answer) for one in QUESTIONS))

    def quiet(*_: Any) -> None:
        return None

    chat = ChatFormat(system="", plain="{question}")
    objective = PolicyGradient(learner, settings)
    return RLLoop(learner, objective, LocalEngine(policy), task, chat, build(specs), settings, folder, quiet, quiet)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_our_loop_trains_two_steps_with_trls_own_rewards(tmp_path: Path) -> None:
    own = ["trl.rewards.think_format_reward", "trl.rewards.accuracy_reward", "trl.rewards.get_soft_overlong_punishment"]
    options = {"max_completion_len": 12, "soft_punish_cache": 4}
    specs = [RewardSpec(name=own[0]), RewardSpec(name=own[1]), RewardSpec(name=own[2], options=options)]
    run = rl(tmp_path, specs)
    before = {name: tensor.clone() for name, tensor in run.learner.model.state_dict().items()}
    run.train()
    written = lines(tmp_path / "metrics.jsonl")
    assert len(written) == 2
    keys = {"reward/think_format_reward", "reward/accuracy_reward", "reward/get_soft_overlong_punishment"}
    assert keys <= written[0].keys()
    assert any(not torch.equal(tensor, before[name]) for name, tensor in run.learner.model.state_dict().items())


def test_our_loop_trains_two_steps_with_rewards_written_for_trl_sync_and_async(tmp_path: Path) -> None:
    specs = [
        RewardSpec(name=f"{__name__}:vowels", chat=True),
        RewardSpec(name=f"{__name__}:async_length", weight=0.5),
        RewardSpec(name="tag_count"),
    ]
    run = rl(tmp_path, specs)
    run.train()
    assert run.learner.updates == 2
    written, shown = lines(tmp_path / "metrics.jsonl"), lines(tmp_path / "rollouts" / "step-000002.jsonl")
    assert all(row["optim/grad_norm"] > 0 for row in written)
    letters = [row["notes"]["letters"] for row in shown]
    assert letters == [len(row["completion"]) for row in shown]
    assert sum(letters) / len(letters) == pytest.approx(written[-1]["rewards/async_length/letters/mean"])
    for row in shown:
        value = row["parts"]["vowels"] + 0.5 * (row["parts"]["async_length"] or 0.0) + row["parts"]["tag_count"]
        assert row["reward"] == pytest.approx(value)
