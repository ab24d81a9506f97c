"""Settings for the memory of one device: stages run with all of them and refuse at the start what does not fit."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from conftest import llama  # noqa: E402
from r1kit import ranks  # noqa: E402
from r1kit.chat import ChatFormat  # noqa: E402
from r1kit.models import attention, recompute  # noqa: E402
from r1kit.models.bf16_weights import round_weights  # noqa: E402
from r1kit.models.classify import fresh_reward_model, load_reward_model  # noqa: E402
from r1kit.models.compute import has_bf16_kernels  # noqa: E402
from r1kit.models.idle import visiting  # noqa: E402
from r1kit.pipeline import Context, Display, Kind, Progress, Work  # noqa: E402
from r1kit.stages.rl import RL  # noqa: E402
from r1kit.stages.sft import SFT  # noqa: E402
from r1kit.train import first_batch  # noqa: E402
from r1kit.train.first_batch import OutOfMemoryError, longest_group, longest_rows, require_training  # noqa: E402
from r1kit.train.learner import Learner, OptimizerSettings  # noqa: E402
from r1kit.train.losses.policy_gradient import grpo  # noqa: E402
from r1kit.train.losses.policy_settings import PRESETS  # noqa: E402

torch.set_num_threads(1)
attention.register()

RL_SETTINGS: dict[str, Any] = {
    "tasks": [{"name": "tiny/reasoning", "limit": 8}],
    "rewards": ["accuracy"],
    "chat": {"template": "plain", "plain": "{question}", "system": ""},
    "steps": 2,
    "prompts_per_step": 2,
    "group_size": 2,
    "max_tokens": 8,
}


def run(kind: Kind, folder: Path, settings: dict[str, Any], **paths: Path) -> None:
    folder.mkdir(exist_ok=True)
    progress = Progress(display=Display(io.StringIO()))
    made = Context(
        stage=kind.name, settings=kind.settings.parse(settings), folder=folder, paths=paths, progress=progress
    )
    assert kind.check is not None
    kind.check(made)
    kind.run(made)


def run_rl(folder: Path, model: Path, **settings: Any) -> list[dict[str, Any]]:
    run(RL, folder, {**RL_SETTINGS, **settings}, model=model)
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_recomputed_activations_change_nothing_in_rl(
    tmp_path: Path, tiny_policy_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes, checkpoint = list[str](), recompute.checkpoint

    def counted(*args: Any, **options: Any) -> Any:
        passes.append("layer")
        return checkpoint(*args, **options)

    monkeypatch.setattr(recompute, "checkpoint", counted)
    plain = run_rl(tmp_path / "plain", tiny_policy_folder, algorithm={"kl_coef": 0.1})
    assert not passes
    settings = {"activation_checkpointing": True, "algorithm": {"kl_coef": 0.1}}
    recomputed = run_rl(tmp_path / "recomputed", tiny_policy_folder, **settings)
    assert passes
    for row, again in zip(plain, recomputed, strict=True):
        assert {k: v for k, v in row.items() if "time/" not in k} == {
            k: v for k, v in again.items() if "time/" not in k
        }


@pytest.mark.skipif(not has_bf16_kernels(), reason="this processor does not multiply in bf16")
def test_rl_with_rounded_weights_adapters_and_recomputed_activations_leaves_an_adapter(
    tmp_path: Path, tiny_policy_folder: Path
) -> None:
    peft = pytest.importorskip("peft")
    settings: dict[str, Any] = {"weights_dtype": "bf16", "lora_rank": 2, "activation_checkpointing": True}
    settings["optimizer"] = {"learning_rate": 1e-2}
    run_rl(tmp_path, tiny_policy_folder, **settings, algorithm={"kl_coef": 0.1, "reference_refresh": 1})
    base = transformers.AutoModelForCausalLM.from_pretrained(tiny_policy_folder)
    round_weights(base, torch.device("cpu"))
    base = base.float()
    rounded = {name: weight.clone() for name, weight in base.state_dict().items()}
    merged = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").merge_and_unload().state_dict()
    saved = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model").state_dict()
    torch.testing.assert_close(saved, merged, atol=1e-6, rtol=1e-6)  # merged in fp32: no update is lost
    moved = {name for name, weight in saved.items() if float((weight - rounded[name]).abs().max()) > 1e-3}
    assert moved == {name for name in saved if "proj" in name}


def test_a_batch_that_does_not_fit_is_refused_with_one_that_does(monkeypatch: Any) -> None:
    learner = Learner(llama(), OptimizerSettings(), steps=1)
    update_of = longest_group(10, 20, 64, grpo(PRESETS["grpo"]), learner.model)
    assert [batch.num_tokens for batch in update_of(110).batches] == [110]  # a prompt and five completions
    weights = sum(p.numel() for p in learner.model.parameters())
    parts = first_batch.training_parts(first_batch._size(learner.model), Work(), 0, device="cpu", low=False)
    fixed = sum(count for name, count in parts.items() if name not in first_batch.PRESENT)
    assert fixed > 12 * weights  # gradients and moments
    monkeypatch.setattr(first_batch, "free_memory", lambda: fixed + 4e6)
    require_training(learner, update_of, Work(), tokens=200, longest=30)
    with pytest.raises(
        OutOfMemoryError, match=r"batch of 4096 tokens does not fit .* set tokens_per_batch to 512; acti"
    ):
        require_training(learner, update_of, Work(), tokens=4096, longest=30)
    require_training(learner, update_of, Work(recomputes=True), tokens=900, longest=30)
    with pytest.raises(OutOfMemoryError, match=r"longest row has 2000: set max_tokens and tokens_per_batch to 1024"):
        require_training(learner, update_of, Work(), tokens=2048, longest=2000)
    monkeypatch.setattr(ranks, "count", lambda: 2)
    with pytest.raises(OutOfMemoryError):  # both ranks have all weights
        require_training(learner, update_of, Work(), tokens=200, longest=30)
    learner.is_sharded = True
    require_training(learner, update_of, Work(), tokens=200, longest=30)


def test_on_a_gpu_the_batch_is_computed_and_halved_until_it_fits(monkeypatch: Any) -> None:
    """The device is a stand-in: its memory ends at 300 tokens."""
    learner = Learner(llama(), OptimizerSettings(), steps=1)
    update_of, tried = longest_group(10, 20, 64, grpo(PRESETS["grpo"]), learner.model), list[int]()
    before = {name: weight.clone() for name, weight in learner.model.state_dict().items()}
    compute = learner.forward_backward

    def small_device(batches: Any, *rest: Any) -> Any:
        tried.append(sum(batch.num_tokens for batch in batches))
        if tried[-1] > 300:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return compute(batches, *rest)

    class Card:
        type = "cuda"

    monkeypatch.setattr(learner, "forward_backward", small_device)
    monkeypatch.setattr(learner, "device", Card())
    monkeypatch.setattr(first_batch, "_moments", lambda *_: None)
    with pytest.raises(OutOfMemoryError, match="set tokens_per_batch to 250"):
        require_training(learner, update_of, Work(), tokens=1000, longest=30)
    assert tried == [990, 490, 250]
    assert all(weight.grad is None for weight in learner.parameters.values())
    assert all(torch.equal(weight, before[name]) for name, weight in learner.model.state_dict().items())


def test_a_stage_refuses_its_longest_rows_before_the_first_step(
    tmp_path: Path, tiny_policy_folder: Path, monkeypatch: Any
) -> None:
    rows = tmp_path / "rows.jsonl"
    messages = [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]
    rows.write_text((json.dumps({"messages": messages}) + "\n") * 8)
    monkeypatch.setattr(first_batch, "free_memory", lambda: 1e6)
    with pytest.raises(OutOfMemoryError, match="set max_tokens and tokens_per_batch to"):
        run(SFT, tmp_path / "sft", {"epochs": 1}, model=tiny_policy_folder, data=rows)
    assert not (tmp_path / "sft" / "metrics.jsonl").exists()
    with pytest.raises(OutOfMemoryError, match="does not fit"):
        run_rl(tmp_path / "rl", tiny_policy_folder)


def test_the_longest_rows_fill_a_batch() -> None:
    assert longest_rows([5, 9, 7, 2], 16, most=8) == [1, 2]
    assert longest_rows([5, 9, 7, 2], 100, most=3) == [1, 2, 0]
    assert longest_rows([5, 900], 100, most=8) == [1]


def test_a_reward_model_visits_the_device_for_each_call(
    tmp_path: Path, tiny_policy_folder: Path, monkeypatch: Any
) -> None:
    """The device is a stand-in: moves are recorded and not made."""
    judge = fresh_reward_model(str(tiny_policy_folder), ChatFormat(), "response", device="cpu")
    judge.save(folder := tmp_path / "judge")
    loaded = load_reward_model(str(folder), device="cpu", offload_idle=True)
    assert loaded.device == torch.device("cpu")
    moves: list[str] = []
    monkeypatch.setattr(loaded.model, "to", lambda device: moves.append(str(device)))
    rows = [[1, 2, 3], [4, 5]]
    assert loaded.scores(rows) == pytest.approx(judge.scores(rows)) and moves == []  # on a CPU it is at home
    with visiting(loaded.model, torch.device("cuda:0")):
        assert moves == ["cuda:0"]
    assert moves == ["cuda:0", "cpu"]
