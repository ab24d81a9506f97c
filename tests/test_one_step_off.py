"""One step off: each rollout comes from the weights before the last update, and a resumed run cannot be told apart."""

from __future__ import annotations

import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from r1kit.data.jsonl import read_rows  # noqa: E402
from r1kit.engines import EngineError  # noqa: E402
from r1kit.engines.local import LocalEngine  # noqa: E402
from r1kit.models.load import frozen_copy  # noqa: E402
from r1kit.pipeline import Context, Stage  # noqa: E402
from r1kit.pipeline.sharing import require_shareable  # noqa: E402
from r1kit.stages.rl import RL, RLSettings  # noqa: E402
from r1kit.train import checkpoints  # noqa: E402
from r1kit.train.rl.loop import RLLoop  # noqa: E402
from r1kit.train.rl.objective import PolicyGradient  # noqa: E402
from test_rl import loop  # noqa: E402

STALE = {"staleness": 1, "steps": 5, "checkpoint_every": 1, "keep_checkpoints": 9, "rollouts_every": 1}


def stale(folder: Path, **settings: Any) -> RLLoop:
    """A loop whose sampler is a copy of the policy, as the stage makes it."""
    made = loop(folder, STALE | settings)
    policy = made.engine.policy  # type: ignore[attr-defined]
    copied = LocalEngine(replace(policy, model=frozen_copy(policy.model)))
    return replace(made, engine=copied, objective=PolicyGradient(made.learner, made.settings.corrected))  # type: ignore[attr-defined]


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """The metrics of each step but for times."""
    rows = read_rows(folder / "metrics.jsonl")
    return [{name: value for name, value in row.items() if not name.startswith("time/")} for row in rows]


def test_a_rollout_comes_from_the_weights_before_the_last_update(tmp_path: Path) -> None:
    made = stale(tmp_path)
    versions, collect = list[set[int]](), made.collect

    def noted(*arguments: Any) -> Any:
        collected = collect(*arguments)
        versions.append({each.completion.policy_version for group in collected.groups for each in group.rollouts})
        return collected

    made.collect = noted  # type: ignore[assignment]
    made.train()
    assert versions == [{0}, {0}, {1}, {2}, {3}]
    rows = rows_of(tmp_path)
    assert [row.get("sampler/staleness") for row in rows] == [0.0, 1.0, 1.0, 1.0, 1.0]
    assert rows[0]["sampler/logprob_gap_mean"] < 1e-5 < 1e-3 < rows[2]["sampler/logprob_gap_mean"]
    assert rows[0]["sampler/importance_mean"] == pytest.approx(1, abs=1e-4)
    assert all(row["policy/ratio_mean"] == pytest.approx(1, abs=1e-4) for row in rows), "against the learner's own"
    assert not [thread for thread in threading.enumerate() if thread.name == "rollout"]


@pytest.mark.parametrize("changes", [{}, {"algorithm": "dapo", "minibatches": 2, "top_k": 20}], ids=["grpo", "dapo"])
def test_a_resumed_run_equals_the_uninterrupted_one(changes: dict[str, Any], tmp_path: Path) -> None:
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    made = stale(whole, **changes)
    made.train()
    shutil.copytree(checkpoints.folder_of(whole, 2), checkpoints.folder_of(resumed, 2))
    for name in ("metrics.jsonl", "step_hashes.jsonl"):
        shutil.copy(whole / name, resumed)
    again = stale(resumed, **changes)
    again.train()
    assert again.learner.fingerprint() == made.learner.fingerprint()
    assert rows_of(resumed) == rows_of(whole)
    for name in ("rollouts", "logprobs"):
        file = f"{name}/step-000003.jsonl"
        assert (resumed / file).read_text() == (whole / file).read_text(), "the rollout that the checkpoint held"
    assert [*read_rows(resumed / "step_hashes.jsonl")] == [*read_rows(whole / "step_hashes.jsonl")]


def test_an_error_of_the_sampler_ends_the_loop_and_no_thread_is_left(tmp_path: Path) -> None:
    made = stale(tmp_path)
    engine, generate = made.engine, made.engine.generate

    def fails_later(*arguments: Any) -> Any:
        if engine.version == 2:  # type: ignore[attr-defined]
            raise EngineError("the sampler broke")
        return generate(*arguments)

    engine.generate = fails_later  # type: ignore[method-assign]
    with pytest.raises(EngineError, match="the sampler broke"):
        made.train()
    assert checkpoints.latest(tmp_path) == checkpoints.folder_of(tmp_path, 2)
    assert not [thread for thread in threading.enumerate() if thread.name == "rollout"]


def test_what_cannot_run_side_by_side_is_refused(tiny_policy_folder: Path, tmp_path: Path) -> None:
    def check(devices: int = 1, **changes: Any) -> None:
        settings = RLSettings.parse({"tasks": "tiny/sums", "rewards": "accuracy", "staleness": "1", **changes})
        require_shareable(Stage("s", RL, settings), devices)
        assert RL.check is not None
        RL.check(Context(stage="s", settings=settings, folder=tmp_path, paths={"model": tiny_policy_folder}))

    with pytest.raises(ValueError, match="rollouts one step off work on one device only"):
        check(devices=2)
    with pytest.raises(ValueError, match="leave lora_rank out, or name servers"):
        check(lora_rank=4)
    with pytest.raises(ValueError, match="correction=auto sets it: recompute_old_logprobs works with epochs = 1"):
        check(epochs=2)
