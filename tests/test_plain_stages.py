"""Every kind of stage on a model that takes the plain path, and what such a run says about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from r1kit.chat import ChatFormat  # noqa: E402
from r1kit.models.classify import load_reward_model  # noqa: E402
from r1kit.models.load import Policy, load  # noqa: E402
from r1kit.pipeline import External, Recipe, Stage, execute  # noqa: E402
from r1kit.stages.distill import DISTILL, DistillSettings  # noqa: E402
from r1kit.stages.evaluate import EVALUATE, EvaluateSettings  # noqa: E402
from r1kit.stages.generate import GENERATE, GenerateSettings  # noqa: E402
from r1kit.stages.reward_model import REWARD_MODEL, RewardModelSettings  # noqa: E402
from r1kit.stages.rl import RL, RLSettings  # noqa: E402
from r1kit.stages.sft import SFT, SFTSettings  # noqa: E402
from r1kit.tiny.frame import TINY_SYSTEM  # noqa: E402
from r1kit.tiny.tokenizer import make  # noqa: E402

torch.set_num_threads(1)

CHAT = ChatFormat(system=TINY_SYSTEM)
GIVEN: dict[str, Any] = {"chat": CHAT, "epochs": 1, "batch_size": 2, "max_tokens": None}


@pytest.fixture(scope="module")
def bloom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Bloom of two layers: its attention is biased by distance, which packed rows do not compute."""
    tokenizer = make()
    torch.manual_seed(0)
    config = transformers.BloomConfig(
        vocab_size=len(tokenizer), hidden_size=32, n_layer=2, n_head=4, eos_token_id=1, pad_token_id=0
    )
    folder = tmp_path_factory.mktemp("models") / "bloom"
    Policy(transformers.BloomForCausalLM(config), tokenizer, (tokenizer.eos_token_id,)).save(folder)
    return folder


def write(path: Path, rows: list[dict[str, Any]]) -> External:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return External(path)


def test_every_kind_of_stage_runs(bloom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = write(tmp_path / "rows.jsonl", [{"prompt": f"{n} + 1 = ?", "completion": str(n + 1)} for n in range(4)])
    pairs = write(
        tmp_path / "pairs.jsonl",
        [{"prompt": f"{n} + 2 = ?", "chosen": f"it is {n + 2}", "rejected": "no"} for n in range(6)],
    )
    task, model = [{"name": "tiny/sums", "limit": 2}], External(bloom)
    sft = Stage("sft", SFT, SFTSettings.parse(GIVEN), {"model": model, "data": rows})
    distill = Stage(
        "distill", DISTILL, DistillSettings.parse(GIVEN), {"model": sft / "model", "teacher": model, "data": rows}
    )
    judge_settings = {**GIVEN, "on": "response", "validation_share": 0.0}
    judge = Stage(
        "judge", REWARD_MODEL, RewardModelSettings.parse(judge_settings), {"model": sft / "model", "data": pairs}
    )
    sampled = {"chat": CHAT, "tasks": task, "samples": 2, "max_tokens": 12}
    steps = {"steps": 2, "prompts_per_step": 2, "group_size": 2, "max_tokens": 12, "tasks": task, "chat": CHAT}
    rl = Stage("rl", RL, RLSettings.parse({**steps, "rewards": ["tag_count"]}), {"model": distill / "model"})
    keeping_all = GenerateSettings.parse({**sampled, "may_be_empty": True})
    generate = Stage("generate", GENERATE, keeping_all, {"model": rl / "model"})
    measured = Stage("measured", EVALUATE, EvaluateSettings.parse(sampled), {"model": rl / "model"})
    folder = execute(Recipe("plain", (sft, distill, judge, rl, generate, measured)), tmp_path / "runs")
    assert len((folder / "completions.jsonl").read_text().splitlines()) == 4
    policy = load(str(next(folder.parent.glob("rl-*")) / "model"), device="cpu")
    assert "bloom takes the plain path" in policy.path
    assert capsys.readouterr().err.count("takes the plain path") == 7  # once for each model of a stage
    scores = load_reward_model(str(next(folder.parent.glob("judge-*")) / "model"), device="cpu")
    ids = [[5, 6, 7, 8], [9, 10]]
    with torch.no_grad():
        alone = [float(scores.model.score(scores.model.base_model(torch.tensor([row]))[0][0, -1])) for row in ids]
    assert scores.scores(ids) == pytest.approx(alone, abs=1e-5)
