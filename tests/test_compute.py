"""Packed weights give what plain layers give, in fp32 and in bf16, and never outlive the weights they were made of."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from conftest import llama  # noqa: E402
from r1kit.collect.responses import Engines, open_responses  # noqa: E402
from r1kit.engines.local import LocalEngine  # noqa: E402
from r1kit.engines.stage_policy import load_policy  # noqa: E402
from r1kit.models import attention, compute, head  # noqa: E402
from r1kit.models.batch import Totals  # noqa: E402
from r1kit.models.known import ModelError  # noqa: E402
from r1kit.models.load import Policy, add_lora  # noqa: E402
from r1kit.pipeline.context import Context  # noqa: E402
from r1kit.stages.evaluate import EvaluateSettings  # noqa: E402
from r1kit.stages.generate import GenerateSettings  # noqa: E402
from r1kit.tiny.tokenizer import make  # noqa: E402
from r1kit.train.learner import Learner, OptimizerSettings  # noqa: E402
from r1kit.train.losses.next_token import next_token  # noqa: E402
from r1kit.train.losses.policy_gradient import grpo  # noqa: E402
from r1kit.train.losses.policy_settings import PRESETS  # noqa: E402
from r1kit.train.packing import pack  # noqa: E402
from r1kit.types import Prompt, Sample, SamplingParams  # noqa: E402

attention.register()
TOKENIZER = make()
needs_bf16 = pytest.mark.skipif(not compute.has_bf16_kernels(), reason="this processor has no bf16 kernels")


@pytest.fixture(autouse=True)
def _pack_small_models(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(compute, "SMALL", 0)
    yield


def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "SMALL", 1 << 60)


def qwen() -> Any:
    """Layers with a bias, an untied head, norms on queries and keys."""
    torch.manual_seed(0)
    options = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    options |= {"num_key_value_heads": 2, "head_dim": 8, "vocab_size": len(TOKENIZER), "attention_bias": True}
    config = transformers.Qwen3Config(**options, tie_word_embeddings=False, attn_implementation=attention.NAME)
    model = transformers.Qwen3ForCausalLM(config)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    return model


def samples(count: int = 6) -> list[Sample]:
    rng = random.Random(0)
    rows = []
    for index in range(count):
        ids = tuple(rng.randrange(3, len(TOKENIZER)) for _ in range(12 + index))
        mask = (False,) * 5 + (True,) * (7 + index)
        advantages = tuple(float(kept) * (1 if index % 2 else -1) for kept in mask)
        rows.append(Sample(token_ids=ids, loss_mask=mask, logprobs=(-3.0,) * len(ids), advantages=advantages))
    return rows


def gradient(model: Any, loss: Any = None, *, clear: bool = True) -> tuple[dict[str, float], Any]:
    learner, rows = Learner(model, OptimizerSettings(), steps=1), samples()
    metrics = learner.forward_backward(pack(rows, 64), loss or grpo(PRESETS["grpo"]), Totals.of(rows))
    grads = torch.cat([p.grad.flatten() for p in learner.parameters.values()])
    if clear:
        learner.optimizer.zero_grad(set_to_none=True)
    return metrics, grads


@pytest.mark.parametrize("make_model", [llama, qwen])
def test_packed_fp32_gives_the_loss_and_gradient_of_plain_layers(
    make_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model()
    with compute.packed_weights(model):  # by itself, training in fp32 packs nothing
        metrics, packed = gradient(model)
    plain(monkeypatch)
    expected, grads = gradient(make_model())
    assert metrics == pytest.approx(expected, abs=1e-5)
    assert float((packed - grads).norm() / grads.norm()) < 1e-5


@needs_bf16
@pytest.mark.parametrize("make_model", [llama, qwen])
def test_bf16_products_are_as_near_to_fp32_as_autocast_is(make_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model()
    compute.choose(model, "bf16")
    _, packed = gradient(model, next_token)
    plain(monkeypatch)
    _, exact = gradient(make_model(), next_token)
    monkeypatch.setattr("r1kit.train.learner.autocast", lambda model: torch.autocast("cpu", torch.bfloat16))
    _, cast = gradient(make_model(), next_token)
    error, usual = float((packed - exact).norm()), float((cast - exact).norm())
    assert 0 < error < 1.1 * usual
    assert torch.nn.functional.cosine_similarity(packed, exact, dim=0) > 0.999


@needs_bf16
def test_the_head_in_bf16_gives_one_gradient_in_one_chunk_and_in_several(monkeypatch: pytest.MonkeyPatch) -> None:
    def head_gradient(wanted: Any, chunk_elements: int) -> Any:
        monkeypatch.setattr(head, "CHUNK_LOGITS", chunk_elements)
        model = qwen()  # its head has a weight of its own
        compute.choose(model, wanted)
        gradient(model, next_token, clear=False)
        return model.lm_head.weight.grad

    monkeypatch.setattr(head, "SLICE_ROWS", 50)  # does not divide the vocabulary
    exact, whole, parts = head_gradient("fp32", 1 << 24), head_gradient("bf16", 1 << 24), head_gradient("bf16", 1)
    assert 0 < float((whole - parts).norm() / exact.norm()) < 5e-3
    for rounded in (whole, parts):
        assert float((rounded - exact).norm() / exact.norm()) < 2e-2


def test_gradients_of_adapters_flow_through_packed_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("peft")

    def adapted() -> Any:
        torch.manual_seed(1)
        model = add_lora(Policy(qwen(), TOKENIZER, (TOKENIZER.eos_token_id,)), 2, 4, ("q_proj", "down_proj")).model
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        return model

    model = adapted()
    with compute.packed_weights(model):
        _, packed = gradient(model)
    plain(monkeypatch)
    _, expected = gradient(adapted())
    assert float((packed - expected).norm() / expected.norm()) < 1e-5


@pytest.mark.parametrize("dtype", ["fp32", pytest.param("bf16", marks=needs_bf16)])
def test_engine_and_learner_agree_on_log_probs(dtype: Any) -> None:
    model = qwen()
    compute.choose(model, dtype)
    engine = LocalEngine(Policy(model, TOKENIZER, (TOKENIZER.eos_token_id,)))
    prompts = [Prompt(problem_id=str(i), messages=(), token_ids=(5, 6, 7 + i)) for i in range(3)]
    groups = engine.generate(prompts, SamplingParams(n=3, max_tokens=12, temperature=1.0, seed=0))
    rows = [
        Sample(token_ids=(*prompt.token_ids, *done.token_ids), loss_mask=(False,) * 3 + (True,) * len(done.token_ids))
        for prompt, group in zip(prompts, groups, strict=True)
        for done in group
    ]
    learner = Learner(model, OptimizerSettings(), steps=1)
    for batch in pack(rows, 4096):
        logprobs = learner.logprobs(batch).split(list(batch.targets.lengths))
        sampled = [done.logprobs for group in groups for done in group]
        for place, index in enumerate(batch.order):
            gap = (logprobs[place] - torch.tensor(sampled[index])).abs().max()
            assert float(gap) < (1e-5 if dtype == "fp32" else 0.03)


def test_packs_follow_the_weights_and_leave_nothing_behind() -> None:
    model = llama()
    learner, rows = Learner(model, OptimizerSettings(learning_rate=0.1), steps=1), samples()
    batch = pack(rows, 4096)[0]
    before = learner.logprobs(batch)
    learner.forward_backward([batch], next_token, Totals.of(rows))
    learner.step()
    assert float((learner.logprobs(batch) - before).abs().max()) > 0.1
    assert not any("packed" in vars(module) or "forward" in vars(module) for module in model.modules())


def test_blocks_nest_and_the_outermost_packs() -> None:
    model = llama()
    with compute.packed_weights(model):
        packs = [module.packed for module in model.modules() if hasattr(module, "packed")]
        with compute.computing(model):
            assert [module.packed for module in model.modules() if hasattr(module, "packed")] == packs
        assert len(packs) == 15  # seven in each layer, and the head
    assert not any(hasattr(module, "packed") for module in model.modules())


@pytest.mark.parametrize(("dtype", "layers"), [("fp32", 0), pytest.param("bf16", 15, marks=needs_bf16)])
def test_training_packs_layers_and_head_only_if_the_layers_compute_in_bf16(dtype: Any, layers: int) -> None:
    model = llama()
    compute.choose(model, dtype)
    with compute.packed_weights(model, training=True):
        assert sum(hasattr(module, "packed") for module in model.modules()) == layers


def test_the_choice_is_explicit_measured_or_fp32_for_a_small_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "has_bf16_kernels", lambda: True)
    model = llama()
    for wanted, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        compute.choose(model, wanted)  # type: ignore[arg-type]
        assert compute.compute_dtype_of(model) == dtype
    for seconds, dtype in ((1.0, torch.float32), (0.9, torch.float32), (0.7, torch.bfloat16)):
        monkeypatch.setattr(compute, "measure", lambda model, s=seconds: {"fp32": 1.0, "bf16": s})
        compute.choose(model, "auto")
        assert compute.compute_dtype_of(model) == dtype
    plain(monkeypatch)
    for wanted in ("auto", "bf16"):  # a small model is not rounded
        compute.choose(model, wanted)  # type: ignore[arg-type]
        assert compute.compute_dtype_of(model) == torch.float32


def test_a_processor_without_bf16_kernels_computes_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "has_bf16_kernels", lambda: False)
    monkeypatch.setattr(compute, "measure", lambda model: pytest.fail("there is nothing to measure"))
    model = llama()
    compute.choose(model, "auto")
    assert compute.compute_dtype_of(model) == torch.float32
    with pytest.raises(ModelError, match=r"no bf16 kernels .*set compute_dtype to fp32"):
        compute.choose(model, "bf16")


def test_a_weight_that_cannot_be_packed_raises_its_own_error(monkeypatch: pytest.MonkeyPatch) -> None:
    model, packed = llama(), compute.PackedWeight

    class NoMemory(packed):  # type: ignore[misc, valid-type]
        def __init__(self, weights: Any, dtype: Any) -> None:
            if weights[0] is model.lm_head.weight:
                raise RuntimeError("not enough memory")
            super().__init__(weights, dtype)

    monkeypatch.setattr(compute, "PackedWeight", NoMemory)
    with pytest.raises(RuntimeError, match="not enough memory"), compute.packed_weights(model):
        pytest.fail("the block must not begin")
    assert not any("packed" in vars(module) or "forward" in vars(module) for module in model.modules())


@needs_bf16
def test_a_measurement_times_both_precisions() -> None:
    seconds = compute.measure(llama())
    assert set(seconds) == {"fp32", "bf16"} and all(0 < value < 60 for value in seconds.values())


@needs_bf16
@pytest.mark.parametrize("kind", ["eval", "generate"])
def test_a_resumed_stage_keeps_the_choice_of_its_first_attempt(
    kind: str,
    tiny_policy_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = {"eval": EvaluateSettings, "generate": GenerateSettings}[kind](tasks="tiny/sums")
    context = Context(stage=kind, settings=settings, folder=tmp_path, paths={"model": tiny_policy_folder})
    dtypes = []
    monkeypatch.setattr(LocalEngine, "__init__", lambda self, policy, **_: dtypes.append(dtype_of(policy)))
    for seconds in (0.5, 2.0):  # bf16 wins, then another machine on which it would lose
        monkeypatch.setattr(compute, "measure", lambda model, s=seconds: {"fp32": 1.0, "bf16": s})
        if kind == "generate":
            open_responses(context, Engines(print))
        else:
            dtypes.append(dtype_of(load_policy(context)))
    assert dtypes == [torch.bfloat16] * 2
    assert capsys.readouterr().err.count("the model's linear layers compute in bf16") == 1


def dtype_of(policy: Policy) -> torch.dtype:
    return compute.compute_dtype_of(policy.model)


def test_bf16_in_vain_is_said(
    tiny_policy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain(monkeypatch)
    settings = EvaluateSettings(tasks="tiny/sums", compute_dtype="bf16")
    context = Context(stage="eval", settings=settings, folder=tmp_path, paths={"model": tiny_policy_folder})
    assert compute.compute_dtype_of(load_policy(context).model) == torch.float32
    assert "never rounded" in capsys.readouterr().err


def test_fp32_that_the_code_of_a_model_needs_is_said_once(
    tiny_policy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compute, "has_bf16_kernels", lambda: True)
    monkeypatch.setattr(compute, "measure", lambda model: {"fp32": 9.0, "bf16": 1.0})
    monkeypatch.setattr("r1kit.models.load.bf16_obstacle", lambda model: "it adds float to bfloat16")
    settings = EvaluateSettings(tasks="tiny/sums")
    context = Context(stage="eval", settings=settings, folder=tmp_path, paths={"model": tiny_policy_folder})
    assert [dtype_of(load_policy(context)) for _ in range(2)] == [torch.float32] * 2
    said = "compute in fp32: compute_dtype is auto, and on a CPU the model does not run with linear layers in bf16 (it"
    assert capsys.readouterr().err.count(said) == 1
