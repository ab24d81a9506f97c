"""Routing replay: training sends each token to the experts that it went to while it was sampled."""

from __future__ import annotations

import copy
import sys
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from r1kit.data.jsonl import read_rows  # noqa: E402
from r1kit.engines import EngineError  # noqa: E402
from r1kit.engines.local import LocalEngine  # noqa: E402
from r1kit.models import attention  # noqa: E402
from r1kit.models.batch import Totals  # noqa: E402
from r1kit.models.known import resolve  # noqa: E402
from r1kit.models.load import Policy, fresh_llama  # noqa: E402
from r1kit.models.plain import PlainPath  # noqa: E402
from r1kit.models.recompute import recompute_activations  # noqa: E402
from r1kit.models.router import expert_blocks  # noqa: E402
from r1kit.models.routing_replay import OWN, require_replay  # noqa: E402
from r1kit.models.size import size_of_model  # noqa: E402
from r1kit.pipeline import External, Recipe, Stage, execute  # noqa: E402
from r1kit.pipeline.fingerprint import settings_of  # noqa: E402
from r1kit.recipes.estimate import estimates  # noqa: E402
from r1kit.stages.rl import RL, RLSettings, work_of  # noqa: E402
from r1kit.tiny.frame import TINY_SYSTEM  # noqa: E402
from r1kit.tiny.tokenizer import make  # noqa: E402
from r1kit.train.learner import Learner, OptimizerSettings  # noqa: E402
from r1kit.train.losses.policy_gradient import grpo  # noqa: E402
from r1kit.train.losses.policy_settings import PRESETS  # noqa: E402
from r1kit.train.memory import sampling_parts  # noqa: E402
from r1kit.train.packing import pack  # noqa: E402
from r1kit.train.rl.collect import require_routing, to_sample  # noqa: E402
from r1kit.train.rl.loop import RLLoop  # noqa: E402
from r1kit.types import Group, Problem, Prompt, Reward, Rollout, Sample, SamplingParams  # noqa: E402

torch.set_num_threads(1)
attention.register()
TOKENIZER = make()
BASE: dict[str, Any] = {
    "vocab_size": len(TOKENIZER),
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "num_experts_per_tok": 2,
    "max_position_embeddings": 128,
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
CONFIGS: dict[str, Callable[[], Any]] = {
    "deepseek-v3": lambda: transformers.DeepseekV3Config(
        **BASE,
        moe_intermediate_size=16,
        first_k_dense_replace=1,
        n_shared_experts=1,
        n_routed_experts=8,
        n_group=4,
        topk_group=2,  # as many groups as experts: two choices of one shape
        norm_topk_prob=True,
        q_lora_rank=16,
        kv_lora_rank=8,
        qk_nope_head_dim=8,
        qk_rope_head_dim=8,
        v_head_dim=8,
    ),
    "qwen3-moe": lambda: transformers.Qwen3MoeConfig(
        **BASE, head_dim=8, num_experts=6, moe_intermediate_size=16, decoder_sparse_step=1, norm_topk_prob=True
    ),
    "gpt-oss": lambda: transformers.GptOssConfig(**BASE, head_dim=8, num_local_experts=4),
}
PROMPTS = [Prompt(problem_id=f"p{i}", messages=(), token_ids=ids) for i, ids in enumerate([(5, 6, 7, 9), (5, 6), (8,)])]
PARAMS = SamplingParams(n=3, max_tokens=9, seed=4, routing=True)


def policy(name: str) -> Policy:
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(CONFIGS[name](), attn_implementation=attention.NAME)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return Policy(model.float().eval(), TOKENIZER, tuple(range(1, len(TOKENIZER), 12)))


def generate(
    one: Policy, params: SamplingParams = PARAMS, prompts: list[Prompt] = PROMPTS, **options: Any
) -> list[Rollout]:
    answers = LocalEngine(one, **options).generate(prompts, params)
    return [
        Rollout(prompt=prompt, completion=each, reward=Reward(total=1.0, parts={}))
        for prompt, completions in zip(prompts, answers, strict=True)
        for each in completions
    ]


def samples(rollouts: list[Rollout]) -> list[Sample]:
    return [to_sample(rollout, 1.0 - 0.3 * index) for index, rollout in enumerate(rollouts)]


def without(given: list[Sample]) -> list[Sample]:
    return [replace(sample, routing=()) for sample in given]


def trained(model: Any, given: list[Sample]) -> tuple[dict[str, float], dict[str, Any]]:
    """The metrics of an update, and its gradients."""
    learner = Learner(model, OptimizerSettings(), steps=1)
    means = learner.forward_backward(pack(given, 40, model), grpo(PRESETS["grpo"]), Totals.of(given))
    gradients = {name: p.grad.clone() for name, p in learner.parameters.items() if p.grad is not None}
    return means | learner.step(), gradients


@contextmanager
def disturbed(model: Any) -> Iterator[None]:
    """Inside, routers score with errors of a tenth of their weights, as an engine with few bits has them."""
    weights = [p for name, p in model.named_parameters() if name.endswith(("gate.weight", "router.weight"))]
    assert len(weights) == len(expert_blocks(model))
    kept = [weight.detach().clone() for weight in weights]
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in weights:
            weight += 0.1 * weight.std() * torch.randn(weight.shape, generator=generator)
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, own in zip(weights, kept, strict=True):
                weight.copy_(own)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_learner_repeats_what_the_sampler_chose_and_has_its_numbers_in_fp32(name: str) -> None:
    one = policy(name)
    require_replay(one.model)
    rollouts = generate(one)
    widths = {len(own) for each in rollouts for own in each.completion.routing}
    assert widths == {2 * len(expert_blocks(one.model))}
    given = samples(rollouts)
    means, gradients = trained(copy.deepcopy(one.model), given)
    own, own_gradients = trained(copy.deepcopy(one.model), without(given))
    assert means.pop("router/disagreement") == 0.0 and "router/disagreement" not in own
    assert means == own, "the routers agree, so all sums are the same to the last bit"
    for key, gradient in gradients.items():
        assert torch.equal(gradient, own_gradients[key]), key


@pytest.mark.parametrize("name", CONFIGS)
def test_a_sampler_that_routes_otherwise_leaves_a_smaller_gap_with_replay(name: str) -> None:
    one = policy(name)
    with disturbed(one.model):
        given = samples(generate(one))
    replayed, gradients = trained(copy.deepcopy(one.model), given)
    own, _ = trained(copy.deepcopy(one.model), without(given))
    assert 0.01 < replayed["router/disagreement"] < 0.5
    assert replayed["logprob_gap"] < 0.75 * own["logprob_gap"]
    routers = [gradient for key, gradient in gradients.items() if key.endswith(("gate.weight", "router.weight"))]
    assert all(float(gradient.abs().max()) > 0 for gradient in routers), "gates are computed, so routers learn"


def test_experts_are_those_of_each_token_however_sequences_were_scheduled() -> None:
    one = policy("qwen3-moe")
    rollouts = generate(one)
    first = rollouts[0]
    assert len(first.completion.routing) == len(first.prompt.token_ids) + len(first.completion.token_ids) - 1
    for options in ({"max_rows": 2}, {"read_every": 4}):
        assert [each.completion.routing for each in generate(one, **options)] == [
            each.completion.routing for each in rollouts
        ], options
    plain = [each.completion for each in generate(one, replace(PARAMS, routing=False))]
    assert not any(each.routing for each in plain)
    assert [each.token_ids for each in plain] == [each.completion.token_ids for each in rollouts]


def test_tokens_without_experts_are_left_to_the_routers() -> None:
    one = policy("qwen3-moe")
    given = samples(generate(one, prompts=PROMPTS[:1]))
    mixed = [given[0], *without(given[1:])]  # given rows beside the policy's own
    (batch,) = pack(mixed, 100, one.model)
    assert batch.routing is not None
    tokens = batch.routing[:, 0] != OWN
    assert tokens.sum() == len(given[0].token_ids) - 1, "the prompt and one completion, without its last token"
    means, _ = trained(copy.deepcopy(one.model), mixed)
    assert means["router/disagreement"] == 0.0
    assert pack(without(given), 100)[0].routing is None


def test_recomputed_activations_use_the_same_experts() -> None:
    one = policy("deepseek-v3")
    with disturbed(one.model):
        given = samples(generate(one))
    _, gradients = trained(copy.deepcopy(one.model), given)
    recomputed = copy.deepcopy(one.model)
    recompute_activations(recomputed)
    require_replay(recomputed)
    _, others = trained(recomputed, given)
    for key, gradient in gradients.items():
        torch.testing.assert_close(others[key], gradient, msg=key)


def test_old_log_probs_are_replayed_and_those_of_a_reference_are_not() -> None:
    one = policy("gpt-oss")
    with disturbed(one.model):
        given = samples(generate(one, prompts=PROMPTS[:1]))
    learner = Learner(one.model, OptimizerSettings(), steps=1)
    (batch,) = pack(given, 100, one.model)
    own = learner.logprobs(replace(batch, routing=None))
    assert not torch.equal(learner.logprobs(batch), own)
    assert torch.equal(learner.logprobs(batch, copy.deepcopy(one.model)), own)


def test_models_that_cannot_replay_are_refused_with_the_reason() -> None:
    dense = fresh_llama(TOKENIZER, layers=1, width=32, heads=4, context=64, seed=0)
    with pytest.raises(ValueError, match="llama has no experts: set it to false"):
        require_replay(dense)
    model = policy("qwen3-moe").model
    model.plain_path = PlainPath("logits differ")
    with pytest.raises(ValueError, match=r"qwen3_moe takes the plain path \(logits differ\)"):
        require_replay(model)
    model.plain_path = None

    def by_sorting(states: Any) -> Any:
        values, experts = (states @ gate.weight.T).softmax(-1).sort(-1, descending=True)
        return None, values[:, :2], experts[:, :2]

    groups = transformers.DeepseekV2Config(
        **BASE,
        moe_intermediate_size=16,
        n_routed_experts=8,
        topk_method="group_limited_greedy",
        n_group=4,
        topk_group=1,
        kv_lora_rank=8,
        qk_nope_head_dim=8,
        qk_rope_head_dim=8,
        v_head_dim=8,
    )
    with pytest.raises(ValueError, match="gives experts that it would not choose a gate of 0"):
        require_replay(transformers.AutoModelForCausalLM.from_config(groups, attn_implementation=attention.NAME))

    gate = expert_blocks(model)[1].gate
    gate.forward = by_sorting
    with pytest.raises(ValueError, match="did not choose 2 experts by one topk"):
        require_replay(model)


def test_an_engine_without_routing_is_refused() -> None:
    rollouts = generate(policy("gpt-oss"), prompts=PROMPTS[:1])
    group = Group(problem=Problem(id="p", prompt="", answer=""), rollouts=tuple(rollouts))
    require_routing([group])
    short = replace(rollouts[0].completion, routing=(array("h", [0, 1]),))
    with pytest.raises(EngineError, match="set routing_replay to false"):
        require_routing([replace(group, rollouts=(replace(rollouts[0], completion=short),))])


STEPS: dict[str, Any] = {
    "steps": 3,
    "prompts_per_step": 2,
    "group_size": 2,
    "max_tokens": 8,
    "tasks": [{"name": "tiny/sums", "limit": 2}],
    "chat": {"system": TINY_SYSTEM},
    "rewards": ["tag_count"],
    "checkpoint_every": 1,
    "routing_replay": True,
}


def stage(folder: Path, **changes: Any) -> Recipe:
    return Recipe("moe", (Stage("rl", RL, RLSettings.parse(STEPS | changes), {"model": External(folder)}),))


def test_a_stage_replays_and_resumes_and_a_dense_model_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy("deepseek-v3").save(tmp_path / "moe")
    whole = execute(stage(tmp_path / "moe"), tmp_path / "whole")
    assert [row.get("router/disagreement") for row in read_rows(whole / "metrics.jsonl")] == [0.0] * 3

    save = RLLoop._checkpoint

    def save_and_die(self: RLLoop, step: int, *rest: Any) -> None:
        save(self, step, *rest)
        if step == 2:
            raise RuntimeError("killed")

    with monkeypatch.context() as dying, pytest.raises(Exception, match="killed"):
        dying.setattr(RLLoop, "_checkpoint", save_and_die)
        execute(stage(tmp_path / "moe"), tmp_path / "torn")
    torn = execute(stage(tmp_path / "moe"), tmp_path / "torn")
    assert (torn / "step_hashes.jsonl").read_text() == (whole / "step_hashes.jsonl").read_text()

    with pytest.raises(ValueError, match=r"routing_replay is for mixtures of experts, and .*tiny"):
        execute(stage(resolve("tiny")), tmp_path / "dense")
    assert not list((tmp_path / "dense").rglob("metrics.jsonl"))


def test_the_setting_counts_in_a_fingerprint_only_if_it_is_on_and_a_plan_counts_its_memory(tmp_path: Path) -> None:
    policy("qwen3-moe").save(tmp_path / "moe")
    on, off = (stage(tmp_path / "moe", routing_replay=value).stages[0] for value in (True, False))
    assert settings_of(on)["routing_replay"] is True and "routing_replay" not in settings_of(off)
    assert settings_of(off, all_fields=True)["routing_replay"] is False
    planned = [estimates(Recipe("moe", (each,)), "cpu")["rl"].parts["routing"] for each in (on, off)]
    assert planned[0] > planned[1] == 0
    size, own = size_of_model(tmp_path / "moe"), array("h", range(4))  # two routers that choose two experts
    held = 2 * 2 * 8 * (sys.getsizeof(own) + 2 * 8)  # a rollout, in the lists of its completions and of its samples
    parts = sampling_parts(size, work_of(on.settings), 4, 20, device="cpu", low=False)
    assert (size.choices, parts["routing"]) == (4, held)
