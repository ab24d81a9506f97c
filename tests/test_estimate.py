"""Estimates of a plan: at the paper's scale they meet the published hours, and they grow with what they stand for."""

from __future__ import annotations

import inspect
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from r1kit.cli import main
from r1kit.models.known import resolve
from r1kit.models.size import size_of_model
from r1kit.pipeline import External, Recipe, Stage, Work
from r1kit.recipes import RECIPES, measure
from r1kit.recipes.estimate import PROMPT_TOKENS, Estimate, estimates, size_of
from r1kit.recipes.scales import SCALES
from r1kit.settings import SettingsError
from r1kit.stages.sft import SFT
from r1kit.stages.shared.costs import worked_length
from r1kit.tasks import TaskSpec
from r1kit.train.memory import training_parts

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from r1kit.models import attention  # noqa: E402
from r1kit.models.packed import PackedLayout, Span  # noqa: E402
from r1kit.models.policy_net import hidden_states  # noqa: E402

attention.register()

R1_STAGES = ("dev1", "dev2", "dev3", "rules", "helpfulness", "safety", "r1")


def paper(devices: int = 512) -> dict[str, Estimate]:
    return estimates(RECIPES["r1"](scale="paper"), "h800", devices)


def test_at_paper_scale_the_hours_are_near_the_published_ones() -> None:
    """V2, table 7: 101K H800-hours for R1-Zero, 5K for the SFT data, 41K for R1, on 512 devices.

    The data's hours are known least: samples per problem, judging and general data are not published.
    """
    hours = {name: 512 * one.hours for name, one in paper().items()}
    assert hours["zero"] == pytest.approx(101_000, rel=0.25)
    assert sum(hours[name] for name in R1_STAGES) == pytest.approx(41_000, rel=0.25)
    sampled = sum(hours[name] for name in ("few-shot", "reflect", "cold-start", "rejection"))
    assert 5_000 / 3 < sampled < 5_000 * 3


def test_rows_are_as_long_as_the_stage_that_wrote_them_made_them(tmp_path: Path) -> None:
    parts = estimates(RECIPES["r1"](), "cpu")
    rejected = RECIPES["r1"]().lengths["rejection"]  # through the stage mix
    assert parts["dev3"].tokens == parts["dev3"].samples * (rejected + PROMPT_TOKENS)
    rows = [{"problem": f"{n} + 1?", "solution": "x" * 4 * n, "answer": str(n + 1)} for n in (10, 20, 30)]
    file = tmp_path / "worked.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert worked_length((TaskSpec(name=str(file)),)) == 20
    assert worked_length((TaskSpec(name="hub:nobody/has-it"),)) is None


def test_a_model_behind_a_server_costs_tokens_and_no_hours_of_these_devices() -> None:
    engine = {"kind": "openai", "model": "big", "base_url": "http://localhost:9/v1"}
    one = estimates(RECIPES["r1"](overrides={"reflect.engine": engine}), "cpu")["reflect"]
    assert (one.samples, one.hours) == (240, 0.0) and one.tokens > 0


def test_at_paper_scale_the_samples_are_the_published_ones() -> None:
    found = paper()
    assert found["zero"].samples == pytest.approx(5.3e6, rel=0.01)  # 10,400 updates of 512
    assert found["dev3"].samples == 2 * 804_745
    assert found["zero"].tokens == found["zero"].samples * 5_800


def test_training_costs_what_its_arithmetic_says() -> None:
    """6 operations per parameter and token, at a third of the peak: 37B active, 8.9G tokens, 512 devices."""
    one = paper()["dev3"]
    assert one.hours == pytest.approx(6 * 37e9 * one.tokens / (0.33 * 9.89e14 * 512) / 3600)


def test_more_devices_halve_training_and_leave_the_longest_completion() -> None:
    few, many = paper(512), paper(1024)
    assert many["dev3"].hours == pytest.approx(few["dev3"].hours / 2)
    assert 0.9 * few["zero"].hours < many["zero"].hours < few["zero"].hours


def test_the_plan_shows_estimates_for_the_hardware_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = ["plan", "r1", "--runs", str(tmp_path), "--hardware", "cpu", "--devices", "2"]
    assert main(wanted) == 0
    header, first, *_, last, _ = capsys.readouterr().out.splitlines()
    assert header.split()[-4:] == ["samples", "tokens", "GiB", "hours"]
    assert first.split()[0] == "zero" and last.split()[0] == "all" and 0 < float(last.split()[-1]) < 2
    assert main([*wanted, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows[0]["estimate"]["samples"] == 36 * 32 * 8


def test_hardware_that_is_not_known_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SettingsError, match="there is no hardware 'abacus': known are cpu"):
        estimates(RECIPES["r1"](), "abacus")
    with pytest.raises(SettingsError, match="devices is 0"):
        estimates(RECIPES["r1"](), "cpu", 0)
    assert main(["plan", "tiny-base", "--hardware", "abacus"]) == 1
    assert "abacus" in capsys.readouterr().err


@pytest.mark.parametrize("scale", SCALES)
def test_r1_zero_is_estimated_at_each_of_its_scales(scale: str, tiny_policy_folder: Path) -> None:
    model = {} if scale == "paper" else {"model": str(tiny_policy_folder)}
    recipe = RECIPES["r1-zero"](scale=scale, **model)
    assert bool(recipe.lengths) == (scale in ("tiny", "paper"))
    assert estimates(recipe, "a100", 1)["rl"].hours > 0


CONFIGS: dict[str, tuple[dict[str, Any], float, float]] = {  # published parameters and active ones, in billions
    "DeepseekV3": (
        {
            "vocab_size": 129280,
            "hidden_size": 7168,
            "intermediate_size": 18432,
            "moe_intermediate_size": 2048,
            "num_hidden_layers": 61,
            "num_attention_heads": 128,
            "num_key_value_heads": 128,
            "n_routed_experts": 256,
            "num_experts_per_tok": 8,
            "n_shared_experts": 1,
            "first_k_dense_replace": 3,
            "q_lora_rank": 1536,
            "kv_lora_rank": 512,
            "qk_nope_head_dim": 128,
            "qk_rope_head_dim": 64,
            "v_head_dim": 128,
        },
        671,
        37,
    ),
    "Qwen3Moe": (
        {
            "vocab_size": 151936,
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "moe_intermediate_size": 768,
            "num_hidden_layers": 48,
            "num_attention_heads": 32,
            "num_key_value_heads": 4,
            "head_dim": 128,
            "num_experts": 128,
            "num_experts_per_tok": 8,
            "tie_word_embeddings": False,
        },
        30.5,
        3.3,
    ),
    "Qwen3": (
        {
            "vocab_size": 151936,
            "hidden_size": 1024,
            "intermediate_size": 3072,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "tie_word_embeddings": True,
        },
        0.596,
        0.596,
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_alone_gives_the_published_size(tmp_path: Path, name: str) -> None:
    config, parameters, active = CONFIGS[name]
    kind = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()  # Qwen3Moe: qwen3_moe
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": kind}))
    size = size_of_model(tmp_path)
    assert size.parameters == pytest.approx(parameters * 1e9, rel=0.01)
    assert size.active == pytest.approx(active * 1e9, rel=0.03)
    assert (size.layers, size.width) == (config["num_hidden_layers"], config["hidden_size"])


@pytest.mark.parametrize("kind", ["gpt2", "mpt", "gpt_neo", "opt"])
def test_older_names_of_layers_and_width_are_read(tmp_path: Path, kind: str) -> None:
    config = transformers.AutoConfig.for_model(kind)
    config.save_pretrained(tmp_path)
    size = size_of_model(tmp_path)
    assert (size.layers, size.width) == (config.num_hidden_layers, config.hidden_size)
    assert size.cached == 2 * size.width and size.inner >= 8 * size.width


TINY = {
    "vocab_size": 96,
    "hidden_size": 48,
    "intermediate_size": 128,
    "moe_intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_experts": 8,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "head_dim": 12,
}
LATENT = {"q_lora_rank": 16, "kv_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 12}
GROUPS = {"n_group": 2, "topk_group": 1, "num_key_value_heads": 4, "first_k_dense_replace": 1, "n_shared_experts": 1}


def tiny(kind: str) -> Any:
    """A random model of a few thousand parameters."""
    names = {"llama": "Llama", "qwen3": "Qwen3", "qwen3_moe": "Qwen3Moe", "deepseek_v3": "DeepseekV3"}
    values = TINY | (LATENT | GROUPS if kind == "deepseek_v3" else {"num_key_value_heads": 2})
    fields = set(inspect.signature(getattr(transformers, f"{names[kind]}Config")).parameters)
    config = transformers.AutoConfig.for_model(kind, **{k: v for k, v in values.items() if k in fields})
    return transformers.AutoModelForCausalLM.from_config(config, attn_implementation=attention.NAME).eval()


@pytest.mark.parametrize("kind", ["llama", "qwen3_moe", "deepseek_v3"])
def test_weights_and_config_give_the_same_size(tmp_path: Path, kind: str) -> None:
    """Saved checkpoints name each expert; a model in memory keeps all experts of a layer in one tensor."""
    model = tiny(kind)
    model.save_pretrained(tmp_path)
    saved = size_of_model(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    alone = size_of_model(tmp_path)
    assert alone.parameters == sum(p.numel() for p in model.parameters())
    # a checkpoint also holds the routers' biases, which are no parameters, and has two matrices for one of an expert
    assert saved.parameters == pytest.approx(alone.parameters, rel=1e-3)
    assert saved.active == pytest.approx(alone.active, rel=1e-3)
    assert replace(saved, parameters=0, active=0, sides=0) == replace(alone, parameters=0, active=0, sides=0)
    assert (saved.active < saved.parameters) == (kind != "llama")


@pytest.mark.parametrize("kind", ["llama", "qwen3", "qwen3_moe", "deepseek_v3"])
def test_the_activations_of_a_plan_are_those_that_autograd_keeps(tmp_path: Path, kind: str) -> None:
    model = tiny(kind)
    model.save_pretrained(tmp_path)
    layout = PackedLayout([Span(0, (40, 40, 40))])
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, Any] = {}

    def keep(tensor: Any) -> Any:
        if (storage := tensor.untyped_storage()).data_ptr() not in weights:
            kept[storage.data_ptr()] = storage  # held, so no later tensor gets its address
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden_states(model, torch.arange(120)[None] % 96, layout)
    size, counted = size_of_model(tmp_path), sum(storage.nbytes() for storage in kept.values())
    none, all_tokens = (training_parts(size, Work(), tokens, device="cpu", low=False) for tokens in (0, 120))
    assert all_tokens["activations"] - none["activations"] == pytest.approx(counted, rel=0.12)


def test_a_plan_can_be_measured_on_this_machine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "SECONDS", 1.0)
    recipe = RECIPES["r1-zero"]()
    ((folder, rates),) = measure.measure(recipe).items()
    assert folder == resolve("tiny") and min(rates.training, rates.step, rates.row_bytes) > 0 and rates.low is False
    known = replace(rates, training=1e9, step=0.0, token=0.0)
    rl = estimates(recipe, "cpu", 2, {folder: known})["rl"]
    assert rl.hours == pytest.approx(rl_operations(recipe) / 1e9 / 3600)  # cores do not divide what all of them took
    assert main(["plan", "r1-zero", "--runs", str(tmp_path), "--measure", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)[0]["estimate"]
    assert row["hours"] > 0 and row["memory_gib"] == pytest.approx(sum(row["parts"].values()))


def rl_operations(recipe: Any) -> float:
    """Six per parameter, token and sample of the stage rl."""
    rl = next(stage for stage in recipe.stages if stage.name == "rl")
    work, length = rl.kind.cost(rl, 0), recipe.lengths["rl"]
    return float(work.passes * size_of(rl).active * work.samples * (length + 150 * work.prompts))


def test_rows_of_a_data_file_are_counted_and_adapters_replace_moments(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"prompt": "x" * 100, "completion": "y" * n}) + "\n" for n in (100, 300)))
    inputs = {"model": External(resolve("tiny")), "data": External(rows)}

    def plan(**settings: Any) -> Estimate:
        stage = Stage("sft", SFT, SFT.settings.parse({"epochs": 3, **settings}), inputs)
        return estimates(Recipe("sft", (stage,)), "a100")["sft"]

    assert plan().samples == 6 and 6 * 60 < plan().tokens < 6 * 90
    adapters = plan(lora_rank=4)
    assert adapters.parts["optimizer"] < plan().parts["optimizer"] / 4
    small = plan(optimizer={"kind": "adamw-8bit"})
    assert small.parts["optimizer"] == pytest.approx(plan().parts["optimizer"] * 2.03 / 8, rel=0.01)
    assert plan(weights_dtype="bf16").parts["weights"] < plan().parts["weights"]
    assert plan(activation_checkpointing=True).parts["activations"] < plan().parts["activations"]
