"""Ids without a token (padded embeddings): never sampled, and without probability or gradient in training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from r1kit.chat import ChatFormat, to_samples  # noqa: E402
from r1kit.engines.local import LocalEngine  # noqa: E402
from r1kit.models.batch import Totals  # noqa: E402
from r1kit.models.head import NEVER, WITHOUT_TOKEN, Head  # noqa: E402
from r1kit.models.load import Policy, frozen_copy, load  # noqa: E402
from r1kit.train.learner import Learner, OptimizerSettings  # noqa: E402
from r1kit.train.losses.distillation import Distillation, DistillationSettings  # noqa: E402
from r1kit.train.losses.next_token import next_token  # noqa: E402
from r1kit.train.packing import pack  # noqa: E402
from r1kit.train.rl.collect import to_sample  # noqa: E402
from r1kit.train.teacher import ModelTeacher  # noqa: E402
from r1kit.types import Conversation, Message, Problem, Reward, Rollout, Sample, SamplingParams  # noqa: E402
from shapes import SHAPES  # noqa: E402

torch.set_num_threads(1)
SHAPE = SHAPES["chatml-base"]
CHAT = ChatFormat(template="chat", system="")
PROBLEM = Problem(id="p", prompt="2+3?", answer="5")


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    """A model with random weights, of whose ids 60 have no token; their logits are the largest by far."""
    folder = SHAPE.save(tmp_path_factory.mktemp("padded"))
    model = load(str(folder), device="cpu")
    with torch.no_grad():
        model.model.lm_head.weight.mul_(8)
        model.model.lm_head.weight[len(model.tokenizer) :] *= 8
    return model


def learner_of(policy: Policy, temperature: float = 1.0) -> Learner:
    policy.model.zero_grad()
    return Learner(policy.model, OptimizerSettings(), steps=1, temperature=temperature)


def row(policy: Policy) -> Sample:
    turns = (*CHAT.messages(PROBLEM), Message(role="assistant", content="<think>2+3</think>5"))
    return to_samples(Conversation(messages=turns), CHAT, policy.tokenizer)[0]


@pytest.mark.parametrize("params", [{}, {"temperature": 0.0}, {"temperature": 2.5}, {"top_p": 0.9}, {"top_k": 300}])
def test_sampled_ids_have_a_token_and_the_learners_log_probs(policy: Policy, params: dict[str, Any]) -> None:
    prompt = CHAT.render(PROBLEM, policy.tokenizer)
    sampling = SamplingParams(n=8, max_tokens=40, **params)
    [completions] = LocalEngine(policy).generate([prompt], sampling)
    assert max(token for each in completions for token in each.token_ids) < len(policy.tokenizer)
    reward = Reward(total=1.0, parts={})
    samples = [to_sample(Rollout(prompt=prompt, completion=each, reward=reward), 1.0) for each in completions]
    learner = learner_of(policy, sampling.temperature or 1.0)
    for batch in pack(samples, 4096):
        torch.testing.assert_close(learner.logprobs(batch), batch.targets.sampler_logprobs, atol=1e-5, rtol=1e-5)


def test_the_gradient_is_that_of_a_softmax_over_the_tokens_alone(policy: Policy) -> None:
    sample, size = row(policy), len(policy.tokenizer)
    learner = learner_of(policy)
    metrics = learner.forward_backward(pack([sample], 4096), next_token, Totals.of([sample]))
    ours = {name: p.grad.clone() for name, p in policy.model.named_parameters()}
    policy.model.zero_grad()
    logits = policy.model(torch.tensor([sample.token_ids]), layout=pack([sample], 4096)[0].layout).logits[0, :-1, :size]
    targets = torch.tensor(sample.token_ids[1:])
    mask = torch.tensor(sample.loss_mask[1:])
    loss = torch.nn.functional.cross_entropy(logits[mask], targets[mask])
    loss.backward()
    assert metrics["loss"] == pytest.approx(float(loss.detach()), rel=1e-5)
    distribution = logits.detach()[mask].log_softmax(-1)
    assert metrics["entropy"] == pytest.approx(float(-(distribution.exp() * distribution).sum(-1).mean()), rel=1e-5)
    for name, parameter in policy.model.named_parameters():
        torch.testing.assert_close(ours[name], parameter.grad, atol=1e-6, rtol=1e-4)
    assert not ours["lm_head.weight"][size:].any()


def test_a_student_that_is_its_teacher_learns_nothing(policy: Policy) -> None:
    sample = row(policy)
    settings = DistillationSettings(hard_weight=0.0)
    teacher = ModelTeacher(frozen_copy(policy.model), len(policy.tokenizer))
    learner = learner_of(policy)
    metrics = learner.forward_backward(pack([sample], 4096), Distillation(settings, teacher), Totals.of([sample]))
    assert metrics["kl"] == pytest.approx(0.0, abs=1e-5) and metrics["entropy"] < 10
    assert max(float(p.grad.abs().max()) for p in policy.model.parameters()) < 1e-6


def test_a_soft_cap_keeps_them_closed() -> None:
    head = Head(torch.randn(8, 4), None, softcap=5.0, without_token=torch.tensor([2, 7]))
    logits = head.logits(torch.randn(3, 4), temperature=0.5)
    assert (logits.softmax(-1)[:, [2, 7]] == 0).all() and (logits[:, 2] == NEVER / 0.5).all()
    assert torch.isfinite(torch.as_tensor(head.derivative(logits, 0.5))).all()


def test_the_list_is_in_no_checkpoint_and_a_model_without_padding_has_none(policy: Policy, tmp_path: Path) -> None:
    assert WITHOUT_TOKEN not in policy.model.state_dict()
    policy.save(tmp_path / "model")
    again = load(str(tmp_path / "model"), device="cpu")
    expected = list(range(len(policy.tokenizer), len(policy.tokenizer) + SHAPE.padding))
    assert getattr(again.model, WITHOUT_TOKEN).tolist() == expected
    assert not hasattr(load("tiny", device="cpu").model, WITHOUT_TOKEN)
