"""On one frozen batch, loss and gradient equal those of TRL's GRPOTrainer on its own code path, to 1e-5."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
trl = pytest.importorskip("trl", reason="trl is not installed: `pip install trl` to compare with it")
datasets = pytest.importorskip("datasets")

from r1kit.models import attention  # noqa: E402
from r1kit.models.batch import Totals  # noqa: E402
from r1kit.models.load import fresh_llama  # noqa: E402
from r1kit.tiny.tokenizer import make  # noqa: E402
from r1kit.train.advantages import advantages  # noqa: E402
from r1kit.train.learner import Learner, OptimizerSettings  # noqa: E402
from r1kit.train.losses.policy_gradient import grpo  # noqa: E402
from r1kit.train.losses.policy_settings import PRESETS, EntropyBonus, GRPOSettings  # noqa: E402
from r1kit.train.packing import pack  # noqa: E402
from r1kit.train.rl.entropy import EntropyControl  # noqa: E402
from r1kit.types import Sample  # noqa: E402

torch.set_num_threads(1)

GROUP, MAX_TOKENS = 4, 12
REWARDS = [1.0, 0.0, 0.25, 0.0, 0.5, 0.5, 0.5, 0.5, 0.0, 1.0, 1.0, 1.0]
PROMPTS = ["1+2=", "tom has 3 apples and buys 5", "0"]


def policy() -> Any:
    model = fresh_llama(make(), layers=2, width=32, heads=4, context=128, seed=0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


def trainer_for(folder: Path, **settings: Any) -> Any:
    """A GRPOTrainer of TRL with every value that matters written out."""
    defaults = {
        "beta": 0.0,
        "epsilon": 0.2,
        "epsilon_high": 0.2,
        "scale_rewards": "group",
        "use_bias_correction_kl": False,
        "importance_sampling_level": "token",
        "mask_truncated_completions": False,
    }
    config = trl.GRPOConfig(
        output_dir=str(folder),
        use_cpu=True,
        bf16=False,
        report_to="none",
        seed=0,
        disable_dropout=True,
        per_device_train_batch_size=len(REWARDS),
        num_generations=GROUP,
        max_completion_length=MAX_TOKENS,
        steps_per_generation=1,
        gradient_accumulation_steps=1,
        num_iterations=1,
        temperature=1.0,
        gradient_checkpointing=False,
        **{**defaults, **settings},
    )
    policy().save_pretrained(folder)  # TRL makes its reference model from a path
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    rewards = itertools.cycle(REWARDS)
    trainer = trl.GRPOTrainer(
        model=model,
        args=config,
        processing_class=make(),
        reward_funcs=lambda completions, **_: [next(rewards) for _ in completions],
        train_dataset=datasets.Dataset.from_dict({"prompt": PROMPTS}),
    )
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    return trainer


def frozen_batch(trainer: Any, *, off_policy: bool) -> dict[str, Any]:
    """What TRL itself samples, scores and hands to its loss; old and reference log-probs are drawn around its own."""
    torch.manual_seed(1)
    batch: dict[str, Any] = trainer._generate_and_score_completions(
        [{"prompt": prompt} for prompt in PROMPTS for _ in range(GROUP)]
    )
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    there = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
    width = batch["completion_ids"].shape[1]
    with torch.no_grad():
        own, _, _ = trainer._get_per_token_logps_and_entropies(trainer.model, ids, there, width)
    noise = torch.randn_like(own) * 0.4
    batch["old_per_token_logps"] = own + noise if off_policy else own
    batch["ref_per_token_logps"] = own + torch.randn_like(own) * 0.3
    return batch


def samples_of(batch: dict[str, Any]) -> list[Sample]:
    """TRL's padded tensors as r1kit's flat samples."""
    found = []
    for row in range(len(batch["prompt_ids"])):
        prompt = batch["prompt_ids"][row][batch["prompt_mask"][row].bool()].tolist()
        there = batch["completion_mask"][row].bool()
        completion = batch["completion_ids"][row][there].tolist()
        zeros = [0.0] * len(prompt)
        found.append(
            Sample(
                token_ids=[*prompt, *completion],
                loss_mask=[False] * len(prompt) + [True] * len(completion),
                logprobs=zeros + batch["old_per_token_logps"][row][there].tolist(),
                ref_logprobs=zeros + batch["ref_per_token_logps"][row][there].tolist(),
                advantages=zeros + [float(batch["advantages"][row])] * len(completion),
            )
        )
    return found


CISPO = {
    "loss_type": "cispo",
    "epsilon_high": 5.0,
}  # TRL's bound is on the ratio itself, r1kit's on its distance from 1
DAPO = {"loss_type": "dapo", "epsilon_high": 0.28}
GSPO = {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon": 3e-4, "epsilon_high": 4e-4}
CASES: dict[str, tuple[dict[str, Any], GRPOSettings]] = {
    "grpo": ({"loss_type": "grpo"}, PRESETS["grpo"]),
    "dr_grpo": ({"loss_type": "dr_grpo", "scale_rewards": "none"}, PRESETS["dr_grpo"]),
    "dapo": (DAPO, PRESETS["dapo"]),
    "cispo": (CISPO, PRESETS["cispo"]),
    "gspo": (GSPO, PRESETS["gspo"]),
}


@pytest.mark.parametrize("off_policy", [False, True], ids=["on-policy", "off-policy"])
@pytest.mark.parametrize("beta", [0.0, 0.1])
@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradient_equal_trls(name: str, beta: float, off_policy: bool, tmp_path: Path) -> None:
    theirs, ours = CASES[name]
    trainer = trainer_for(tmp_path, beta=beta, **theirs)
    batch = frozen_batch(trainer, off_policy=off_policy)
    samples = samples_of(batch)
    assert len({len(one.token_ids) for one in samples}) > 2  # padding on both sides was in play

    expected = trainer._compute_loss(trainer.model, batch)
    expected.backward()
    gradient = {name: parameter.grad for name, parameter in trainer.model.named_parameters()}

    model = policy()
    attention.register()
    learner = Learner(model, OptimizerSettings(), steps=1)
    loss = grpo(ours.replace(kl_coef=beta))
    sums = learner.forward_backward(pack(samples, 60), loss, Totals.of(samples, MAX_TOKENS))
    assert sums["loss"] == pytest.approx(expected.item(), abs=1e-5, rel=1e-5)
    for key, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradient[key], atol=1e-5, rtol=1e-5, msg=f"{key} differs")
    assert max(float(value.abs().max()) for value in gradient.values()) > 1e-4 or (name == "gspo" and not beta)


V3_2 = {"loss_type": "grpo", "scale_rewards": "none", "use_bias_correction_kl": True, "off_policy_mask_threshold": 0.01}
VARIANTS: dict[str, tuple[dict[str, Any], GRPOSettings]] = {
    "v3_2": (V3_2, PRESETS["v3_2"].replace(off_policy_delta=0.01)),
    "sapo": ({"loss_type": "sapo"}, PRESETS["sapo"]),
    "dual_clip": ({"loss_type": "grpo", "delta": 1.5}, PRESETS["dual_clip"].replace(dual_clip=1.5)),
    "entropy": ({"loss_type": "grpo", "entropy_coef": 0.05}, GRPOSettings(entropy=EntropyBonus(coef=0.05))),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_loss_and_gradient_of_variants_equal_trls(name: str, tmp_path: Path) -> None:
    theirs, ours = VARIANTS[name]
    trainer = trainer_for(tmp_path, beta=0.1, **theirs)
    batch = frozen_batch(trainer, off_policy=True)
    samples = samples_of(batch)
    expected = trainer._compute_loss(trainer.model, batch)
    expected.backward()
    model = policy()
    attention.register()
    learner = Learner(model, OptimizerSettings(), steps=1)
    loss = grpo(ours.replace(kl_coef=0.1))
    sums = learner.forward_backward(pack(samples, 60), loss, Totals.of(samples, MAX_TOKENS))
    assert sums["loss"] == pytest.approx(expected.item(), abs=1e-5, rel=1e-5)
    for (key, parameter), other in zip(model.named_parameters(), trainer.model.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, other.grad, atol=1e-5, rtol=1e-5, msg=f"{key} differs")
    if name == "v3_2":
        assert 0 < sums["masked"] < 1


def test_the_adaptive_entropy_coefficient_follows_trls(tmp_path: Path) -> None:
    adaptive = {"use_adaptive_entropy": True, "entropy_target": 3.0, "entropy_coef_delta": 0.01}
    trainer = trainer_for(tmp_path, loss_type="grpo", entropy_coef_max=0.025, **adaptive)
    batch = frozen_batch(trainer, off_policy=False)
    control = EntropyControl(EntropyBonus(target=3.0, step=0.01, max=0.025))
    for scale in (1.0, 2.0, 4.0, 0.1, 3.0):  # of the head: the larger, the lower the entropy
        with torch.no_grad():
            trainer.model.lm_head.weight.mul_(scale)
            trainer._compute_loss(trainer.model, batch)
        control.observe(trainer._metrics["train"]["entropy"][-1])
        state = {"coef": trainer.entropy_coef, "entropy": trainer._last_world_entropy}
        assert control.state == pytest.approx(state, abs=1e-6)


@pytest.mark.parametrize(("scale", "baseline"), [("group", "group_std"), ("none", "group_mean")])
def test_advantages_equal_trls(scale: str, baseline: Any, tmp_path: Path) -> None:
    batch = frozen_batch(trainer_for(tmp_path, scale_rewards=scale), off_policy=False)
    ours = [
        value
        for start in range(0, len(REWARDS), GROUP)
        for value in advantages(REWARDS[start : start + GROUP], baseline)
    ]
    assert batch["advantages"].tolist() == pytest.approx(ours, abs=1e-5)


def test_log_probs_of_trls_completions_equal_trls(tmp_path: Path) -> None:
    trainer = trainer_for(tmp_path)
    batch = frozen_batch(trainer, off_policy=False)
    samples = samples_of(batch)
    model = copy.deepcopy(trainer.model)
    attention.register()
    model.set_attn_implementation(attention.NAME)
    learner = Learner(model, OptimizerSettings(), steps=1)
    for packed in pack(samples, 80):
        gap = learner.logprobs(packed) - packed.targets.sampler_logprobs
        assert float(gap.abs().max()) < 1e-5
