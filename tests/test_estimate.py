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
from r1kit.pipeline import External, ModelSize, Recipe, Stage, Work
from r1kit.recipes import RECIPES, measure
from r1kit.recipes.estimate import PROMPT_TOKENS, Estimate, estimates, size_of
from r1kit.recipes.hardware import HARDWARE
from r1kit.recipes.links import Layout, Traffic, collective_seconds, pipeline_of, traffic_of
from r1kit.recipes.placement import place
from r1kit.recipes.scales import SCALES
from r1kit.settings import SettingsError
from r1kit.stages.evaluate import EVALUATE
from r1kit.stages.sft import SFT
from r1kit.stages.shared.costs import problem_count, worked_length
from r1kit.tasks import TaskSpec
from r1kit.train.memory import sharded, training_parts

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from r1kit.models import attention  # noqa: E402
from r1kit.models.packed import PackedLayout, Span  # noqa: E402
from r1kit.models.policy_net import hidden_states  # noqa: E402

attention.register()

R1_STAGES = ("dev1", "dev2", "dev3", "rules", "helpfulness", "safety", "r1")


def paper(nodes: int = 64) -> dict[str, Estimate]:
    return estimates(RECIPES["r1"](scale="paper"), "h800", Layout(nodes, 8, nodes))


def test_at_paper_scale_the_hours_are_near_the_published_ones() -> None:
    """V2, table 7: 101K H800-hours for R1-Zero, 5K for the SFT data, 41K for R1, on 512 devices.

    The data's hours are known least: samples per problem, judging and general data are not published.
    """
    hours = {name: one.devices * one.hours for name, one in paper().items()}
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
    few, many = paper(64), paper(128)
    assert many["dev3"].hours == pytest.approx(few["dev3"].hours / 2)
    assert 0.9 * few["zero"].hours < many["zero"].hours < few["zero"].hours


ONE_BILLION = ModelSize(1e9, 1e9, 10, 1000, 100, 10_000, 50_000)


@pytest.mark.parametrize(
    ("layout", "seconds"),
    [
        (Layout(1, 8), 8e9 * 7 / 8 / 4.5e11 / 0.8),  # 7 GB over NVLink
        (Layout(2, 4), 8e9 * 1 / 2 / 4 / 5e10 / 0.8),  # half of it comes through the network of four devices
        (Layout(2, 1), 8e9 * 1 / 2 / 5e10 / 0.8),
        (Layout(1, 1), 0.0),
    ],
)
def test_the_slower_link_decides_how_long_a_gather_takes(layout: Layout, seconds: float) -> None:
    assert collective_seconds(8e9, layout, HARDWARE["h100"]) == pytest.approx(seconds)


def test_an_update_gathers_weights_twice_and_reduces_gradients_once_per_batch() -> None:
    """Of 4 GB in fp32 each of 8 devices receives 7/8. 80 samples of 400 tokens are two batches on each."""
    work = Work(samples=160, update=80, passes=6, tokens_per_batch=2048, rollouts=2, max_tokens=400)
    shared: Any = (ONE_BILLION, work, 400, 1e15, Layout(1, 8), HARDWARE["h100"])
    one = traffic_of(*shared, training=1e14, teacher=False, engine=1)
    assert (one.updates, one.batches) == (2, 2)
    assert (one.gathered, one.reduced) == (pytest.approx(2 * 2 * 3.5e9), pytest.approx(2 * 3.5e9))
    assert one.seconds == pytest.approx(2 * 3 * 3.5e9 / 4.5e11 / 0.8)
    assert one.arithmetic == pytest.approx(1e15 / 2 / (8 * 1e14))
    assert one.exposed == 0.0 and one.experts_in_place is None
    assert (one.handed_over, one.handing_seconds) == (pytest.approx(3.5e9), pytest.approx(3.5e9 / 4.5e11 / 0.8))
    parts = traffic_of(*shared, training=1e14, teacher=False, engine=4)
    assert parts.handed_over == pytest.approx(2e9 / 4)  # bf16
    again = traffic_of(ONE_BILLION, replace(work, passes=8), *shared[2:], training=1e14, teacher=False, engine=1)
    assert again.gathered == pytest.approx(one.gathered * 3 / 2)  # old log-probs: one more forward pass
    teacher = traffic_of(ONE_BILLION, replace(work, passes=8), *shared[2:], training=1e14, teacher=True, engine=1)
    assert teacher.gathered == pytest.approx(one.gathered)  # a teacher is whole on each device


def test_one_step_off_splits_the_devices_where_sampling_and_training_take_as_long() -> None:
    """12 device-seconds of sampling and 4 of training on 8 devices: 6 + 2 of them take 2 s, and all one by one 2 s."""
    traffic = Traffic(updates=1, batches=1, gathered=0, reduced=0, seconds=0, arithmetic=0, handing_seconds=0.5)
    even = pipeline_of(12, 0, 4, traffic, Layout(1, 8), 1)
    assert (even.step, even.one_off, even.sampling) == (2.5, 2.5, 6)
    late = pipeline_of(12, 3, 4, traffic, Layout(1, 8), 1)  # the longest completion takes 3 s on any number
    assert late.step == 5.5 and (late.one_off, late.sampling) == (pytest.approx(3 + 12 / 7 + 0.5), 7)
    assert pipeline_of(12, 0, 4, traffic, Layout(1, 8), 8).one_off is None


def test_devices_divide_weights_gradients_and_moments_and_each_has_the_whole_model() -> None:
    alone = {"process": 1.0, "weights": 4e9, "optimizer": 8e9, "gradients": 4e9, "copies": 2e9, "activations": 5.0}
    ranks = sharded(alone, ONE_BILLION, 8, whole=True)
    layer = (1e9 - 2 * 50_000 * 1000) / 10
    assert [ranks[name] for name in ("weights", "optimizer", "gradients")] == [5e8, 1e9, 5e8]
    assert (ranks["whole model"], ranks["copies"], ranks["activations"]) == (4e9, 2e9, 5.0)
    assert ranks["gathered"] == pytest.approx(4 * (3 * layer + 2 * 1e8))
    assert "whole model" not in sharded(alone, ONE_BILLION, 8, whole=False)


def test_devices_that_share_rows_divide_activations_and_run_more_batches() -> None:
    shared = Work(samples=800, passes=6, tokens_per_batch=4096, update=80, sequence_devices=4)
    works = [replace(shared, sequence_devices=1), shared]
    alone, parts = (training_parts(ONE_BILLION, work, 4096, device="cuda", low=True) for work in works)
    assert parts["activations"] == alone["activations"] / 4
    assert {name for name in alone if alone[name] != parts[name]} == {"activations"}
    longer = training_parts(ONE_BILLION, shared, 4097, device="cuda", low=True)  # one device has a token more
    assert longer["activations"] == pytest.approx(alone["activations"] * 1025 / 4096)
    options = {"training": 1e14, "teacher": False, "engine": 1}
    sent = [traffic_of(ONE_BILLION, work, 4096, 1e15, Layout(1, 8), HARDWARE["h100"], **options) for work in works]
    assert [traffic.batches for traffic in sent] == [10, 40]


def test_devices_that_keep_the_weights_whole_add_up_gradients_once_per_update() -> None:
    work = Work(samples=800, passes=6, tokens_per_batch=4096, update=80, rollouts=10, shard=False)
    layout, options = Layout(1, 8), {"training": 1e14, "teacher": False, "engine": 1}
    sent = traffic_of(ONE_BILLION, work, 4096, 1e15, layout, HARDWARE["h100"], **options)
    assert (sent.batches, sent.gathered, sent.handed_over, sent.handing_seconds) == (10, 0, 0, 0)
    assert sent.reduced == 2 * 7 / 8 * 4e9  # a reduce-scatter and an all-gather


@pytest.mark.parametrize("text", ["0", "8x0", "x8", "eight", "-2", "1.5", "8x8x8"])
def test_devices_that_are_no_number_are_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=f"devices is {text}: give at least 1, or nodes x devices of each"):
        Layout.of(text)


def test_devices_are_given_as_a_number_or_as_nodes_of_so_many() -> None:
    assert Layout.of("64x8") == Layout(64, 8, 64) == Layout.of(512)
    assert Layout.of(8, 4) == Layout(1, 8, 4) and Layout.of(3) == Layout(1, 3, 0)
    with pytest.raises(SettingsError, match="nodes is 2, and 4 of them share each stage"):
        Layout.of("4x8", 2)


def test_stages_are_placed_when_their_inputs_and_devices_are_free() -> None:
    """Two nodes of four: `wide` takes both, `pair` and `single` run side by side, and `after` waits for `pair`."""
    first = Stage("wide", SFT, SFT.settings())
    pair, single = (Stage(name, SFT, SFT.settings(), {"model": first / "model"}) for name in ("pair", "single"))
    after = Stage("after", SFT, SFT.settings(), {"model": pair / "model", "data": single / "rows"})
    devices, hours = {"wide": 8, "pair": 2, "single": 1, "after": 4}, {"wide": 1, "pair": 2, "single": 3, "after": 4}
    costs = {name: Estimate(stage=name, devices=devices[name], hours=hours[name]) for name in devices}
    layout = Layout(2, 4, 2)
    placed = {each.stage: each for each in place(Recipe("r", (after,)), costs, layout)}
    assert {name: (each.start, each.end) for name, each in placed.items()} == {
        "wide": (0, 1),
        "pair": (1, 3),
        "single": (1, 4),
        "after": (4, 8),
    }
    where = {name: each.where(layout) for name, each in placed.items()}
    assert where == {"wide": "nodes 1-2", "pair": "node 1: 1-2", "single": "node 1: 0", "after": "node 1"}
    with pytest.raises(SettingsError, match="stage wide takes 8 devices, more than 1 nodes of 4 have"):
        place(Recipe("r", (after,)), costs, Layout(1, 4, 1))


def test_the_plan_of_a_cluster_says_what_devices_send_and_where_stages_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = ["plan", "r1", "--scale", "paper", "--until", "eval-dev2", "--runs", str(tmp_path)]
    wanted += ["--hardware", "h800", "--devices", "64x8"]
    assert main(wanted) == 0
    out = capsys.readouterr().out
    zero = [line.split() for line in out.splitlines() if line.startswith("zero ")]
    assert zero[1][1:4] == ["10400", "1", "5.36e+03"] and zero[2][-2:] == ["nodes", "1-64"]
    assert "engines of up to 32 devices sample, such as vLLM" in out and "devices busy" in out
    assert "devices of one node" not in out and "if routed experts stayed" in out


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
    counts = {"parameters": 0, "active": 0, "sides": 0, "routed": 0}
    assert replace(saved, **counts) == replace(alone, **counts) and saved.routed == pytest.approx(alone.routed)
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


def test_problems_of_a_small_file_are_counted_and_not_its_limit(tmp_path: Path) -> None:
    file = tmp_path / "own.jsonl"
    file.write_text("".join(json.dumps({"question": f"{n} + 1?", "answer": str(n + 1)}) + "\n" for n in range(20)))
    own = TaskSpec(name=str(file), limit=300)
    settings = EVALUATE.settings.parse({"tasks": [own], "samples": 4})
    stage = Stage("eval", EVALUATE, settings, {"model": External(resolve("tiny"))})
    assert estimates(Recipe("evaluate", (stage,)), "cpu")["eval"].samples == 80
    assert problem_count([own.replace(limit=5)]) == 5
    parts = own.replace(options={"held_out": 0.5})
    trained, measured = problem_count([parts], "train"), problem_count([parts], "test")
    assert trained + measured == 20 and min(trained, measured) > 0
    assert problem_count([TaskSpec(name="nowhere.jsonl", limit=300)]) == 300


@pytest.mark.parametrize(("devices", "nodes"), [("999999x8", 0), (8, 999_999)])
def test_a_cluster_too_large_to_plan_is_refused_at_once(devices: int | str, nodes: int) -> None:
    with pytest.raises(SettingsError, match="at most 100000"):
        Layout.of(devices, nodes)
