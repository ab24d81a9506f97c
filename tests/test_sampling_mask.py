"""RL with top-p and top-k trains on the distribution that was sampled from: the ids left for each token are kept."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from r1kit.engines import EngineError  # noqa: E402
from r1kit.engines.local import LocalEngine  # noqa: E402
from r1kit.engines.local.sampling import ids_of, sample, sample_rows  # noqa: E402
from r1kit.models import attention  # noqa: E402
from r1kit.models.batch import Totals  # noqa: E402
from r1kit.models.load import Policy, fresh_llama  # noqa: E402
from r1kit.tiny.tokenizer import make  # noqa: E402
from r1kit.train.learner import Learner, OptimizerSettings  # noqa: E402
from r1kit.train.losses.policy_gradient import grpo  # noqa: E402
from r1kit.train.losses.policy_settings import PRESETS, EntropyBonus  # noqa: E402
from r1kit.train.packing import pack  # noqa: E402
from r1kit.train.rl.collect import require_masks, to_sample  # noqa: E402
from r1kit.types import Group, Problem, Prompt, Reward, Rollout, Sample, SamplingParams  # noqa: E402

torch.set_num_threads(1)
attention.register()
TOKENIZER = make()
PROMPTS = [Prompt(problem_id=f"p{i}", messages=(), token_ids=ids) for i, ids in enumerate([(5, 6, 7), (8, 9), (5, 6)])]
PARAMS = SamplingParams(n=3, max_tokens=9, temperature=0.8, top_p=0.7, top_k=30, seed=4, sampling_mask=True)
WARPED: list[dict[str, Any]] = [{"top_p": 0.8}, {"top_k": 7}, {"top_k": 20, "top_p": 0.7, "temperature": 1.5}, {}]


def policy() -> Policy:
    model = fresh_llama(TOKENIZER, layers=2, width=32, heads=4, context=64, seed=0)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():  # some tokens are likely, some are not
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return Policy(model, TOKENIZER, tuple(range(1, len(TOKENIZER), 12)))


def generate(engine: LocalEngine, params: SamplingParams = PARAMS) -> list[Rollout]:
    answers = engine.generate(PROMPTS, params)
    reward = Reward(total=1.0, parts={})
    return [
        Rollout(prompt=prompt, completion=each, reward=reward)
        for prompt, completions in zip(PROMPTS, answers, strict=True)
        for each in completions
    ]


def samples(rollouts: list[Rollout]) -> list[Sample]:
    return [to_sample(rollout, 1.0 - 0.4 * index) for index, rollout in enumerate(rollouts)]


@pytest.mark.parametrize("settings", WARPED, ids=str)
@pytest.mark.parametrize("vocabulary", [50, 1203])
def test_mask_and_log_probs_are_those_of_transformers_warpers(settings: dict[str, Any], vocabulary: int) -> None:
    params = SamplingParams(**settings, sampling_mask=True)
    logits = torch.randn(6, vocabulary, generator=torch.Generator().manual_seed(3)) * 2
    expected = logits / params.temperature
    if params.top_k:
        expected = transformers.TopKLogitsWarper(params.top_k)(None, expected)
    if params.top_p < 1:
        expected = transformers.TopPLogitsWarper(params.top_p)(None, expected)
    uniform = torch.rand(6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    tokens, logprobs, bits = sample(logits.clone(), uniform, params)
    for row, own in zip(expected, bits.numpy(), strict=True):
        assert list(ids_of(own)) == (row > -torch.inf).nonzero()[:, 0].tolist()
    torch.testing.assert_close(logprobs, expected.log_softmax(-1).gather(1, tokens[:, None])[:, 0])
    without = sample(logits.clone(), uniform, replace(params, sampling_mask=False))
    assert len(without) == 2 and torch.equal(without[0], tokens)


def test_rows_with_and_without_a_mask_are_sampled_side_by_side() -> None:
    logits = torch.randn(3, 40, generator=torch.Generator().manual_seed(0))
    uniform = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    masked, plain = SamplingParams(top_k=5, sampling_mask=True), SamplingParams(top_k=5)
    tokens, logprobs, values, ids, bits = sample_rows(logits.clone(), uniform, [masked, plain, masked], top=2)
    assert [len(ids_of(row)) for row in bits.numpy()] == [5, 0, 5]
    both = [sample(logits.clone(), uniform, params) for params in (masked, plain)]
    assert torch.equal(tokens, both[0][0]) and values.shape == ids.shape == (3, 2)
    torch.testing.assert_close(logprobs, torch.stack([both[0][1][0], both[1][1][1], both[0][1][2]]))


def test_completions_hold_a_mask_for_each_token_and_the_learner_has_their_log_probs() -> None:
    one = policy()
    rollouts = generate(LocalEngine(one))
    completions = [rollout.completion for rollout in rollouts]
    assert len({len(completion.token_ids) for completion in completions}) > 2
    for completion in completions:
        assert len(completion.sampling_mask) == len(completion.token_ids)
        pairs = zip(completion.token_ids, completion.sampling_mask, strict=True)
        assert all(token in ids and len(ids) <= 30 for token, ids in pairs)
    learner = Learner(one.model, OptimizerSettings(), steps=1, temperature=PARAMS.temperature)
    for batch in pack(samples(rollouts), 40, one.model):
        torch.testing.assert_close(learner.logprobs(batch), batch.targets.sampler_logprobs, atol=1e-5, rtol=1e-5)
    plain = [rollout.completion for rollout in generate(LocalEngine(one), replace(PARAMS, sampling_mask=False))]
    assert [each.token_ids for each in plain] == [each.token_ids for each in completions]
    assert not any(each.sampling_mask for each in plain)
    later = [rollout.completion for rollout in generate(LocalEngine(one, read_every=4))]
    assert [each.sampling_mask for each in later] == [each.sampling_mask for each in completions]


def padded_loss(model: Any, given: list[Sample], temperature: float) -> Any:
    """-1/|o| sum A log pi over the ids that were left, minus 0.1 x the mean entropy, row by row."""
    loss, entropies = torch.zeros(()), []
    for each in given:
        first = list(each.loss_mask).index(True)
        logits = model(torch.tensor([each.token_ids])).logits[0, first - 1 : -1] / temperature  # [n, V]
        is_left = torch.zeros_like(logits, dtype=torch.bool)
        for row, ids in enumerate(each.sampling_mask[first:]):
            is_left[row, torch.tensor(np.asarray(ids)).long()] = True
        log_pi = logits.masked_fill(~is_left, -torch.inf).log_softmax(-1)
        chosen = log_pi.gather(1, torch.tensor(each.token_ids[first:])[:, None])[:, 0]
        loss = loss - each.advantages[-1] * (chosen - chosen.detach()).exp().mean() / len(given)
        entropies.append(-(log_pi.exp() * log_pi.masked_fill(~is_left, 0.0)).sum(-1))
    return loss - 0.1 * torch.cat(entropies).mean()


@pytest.mark.parametrize("chunk", [None, 4], ids=["whole", "in chunks"])
def test_packed_rows_have_loss_and_gradient_of_padded_rows_with_masked_logits(
    chunk: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if chunk:
        monkeypatch.setattr("r1kit.models.head.Head.chunk_size", lambda self: chunk)
        monkeypatch.setattr("r1kit.models.policy_net.WHOLE_CHUNKS", 1)
    one = policy()
    given = samples(generate(LocalEngine(one)))
    eager = copy.deepcopy(one.model)
    eager.set_attn_implementation("eager")
    expected = padded_loss(eager, given, PARAMS.temperature)
    expected.backward()
    learner = Learner(one.model, OptimizerSettings(), steps=1, temperature=PARAMS.temperature)
    loss = grpo(PRESETS["grpo"].replace(entropy=EntropyBonus(coef=0.1)))
    means = learner.forward_backward(pack(given, 60, one.model), loss, Totals.of(given))
    assert means["loss"] == pytest.approx(expected.item(), abs=1e-5)
    assert means["ratio"] == pytest.approx(1.0, abs=1e-5)
    for (name, ours), theirs in zip(one.model.named_parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-5, rtol=1e-4, msg=f"{name} differs")


def test_an_engine_without_masks_is_refused() -> None:
    rollouts = generate(LocalEngine(policy()), replace(PARAMS, sampling_mask=False))
    group = Group(problem=Problem(id="p", prompt="", answer=""), rollouts=tuple(rollouts))
    with pytest.raises(EngineError, match="set top_p to 1 and top_k to 0"):
        require_masks([group])
