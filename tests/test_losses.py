"""Every objective, aggregate and KL estimator against numbers by hand; splits into micro-batches change nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from r1kit.models.batch import Targets, Totals  # noqa: E402
from r1kit.settings import SettingsError  # noqa: E402
from r1kit.train.advantages import advantages  # noqa: E402
from r1kit.train.losses.next_token import next_token  # noqa: E402
from r1kit.train.losses.policy_gradient import grpo, kl_divergence  # noqa: E402
from r1kit.train.losses.policy_settings import PRESETS, GRPOSettings  # noqa: E402

torch.set_num_threads(1)

# Two sequences: one of two tokens with advantage 2, one of a single token with advantage -1.
NEW = [-1.0, -2.0, -0.5]
OLD = [-1.5, -2.0, -0.1]
REF = [-0.7, -2.5, -0.5]
ADVANTAGES = [2.0, 2.0, -1.0]
LENGTHS = (2, 1)
RATIOS = [math.exp(0.5), 1.0, math.exp(-0.4)]
TOTALS = Totals(num_tokens=3, num_sequences=2, max_tokens=4)


def targets(
    old: Sequence[float] = OLD,
    advantages: Sequence[float] = ADVANTAGES,
    lengths: tuple[int, ...] = LENGTHS,
    ref: Sequence[float] = REF,
    sampler: Sequence[float] | None = None,
    selected: Sequence[float] | None = None,
) -> Targets:
    count = torch.arange(len(old))
    return Targets(
        token_ids=count,
        positions=count,
        lengths=lengths,
        sampler_logprobs=torch.tensor(sampler or old),
        old_logprobs=torch.tensor(old),
        ref_logprobs=torch.tensor(ref),
        advantages=torch.tensor(advantages),
        selected=torch.tensor(selected or [0.0] * len(old)),
    )


def evaluate(
    settings: GRPOSettings, given: Targets | None = None, new: Sequence[float] = NEW
) -> tuple[float, list[float]]:
    logprobs = torch.tensor(new, requires_grad=True)
    output = grpo(settings)(logprobs, given or targets(), TOTALS)
    output.loss.backward()
    return output.loss.item(), logprobs.grad.tolist()


def test_the_clipped_objective_takes_the_lower_bound_and_stops_the_gradient_there() -> None:
    # rho 1.65 > 1.2 with A > 0 gives 1.2 A and no gradient; rho 1; rho 0.67 < 0.8 with A < 0 gives 0.8 A and none
    loss, grad = evaluate(GRPOSettings(aggregate="token"))
    assert loss == pytest.approx(-(1.2 * 2 + 1.0 * 2 + 0.8 * -1) / 3)
    assert grad == pytest.approx([0.0, -2 / 3, 0.0])


def test_the_clip_leaves_tokens_alone_that_move_against_their_advantage() -> None:
    given = targets(
        advantages=[-2.0, -2.0, 1.0]
    )  # rho 1.65 with A < 0 and rho 0.67 with A > 0: the unclipped term is lower
    loss, grad = evaluate(GRPOSettings(aggregate="token"), given)
    assert loss == pytest.approx(-(RATIOS[0] * -2 + 1.0 * -2 + RATIOS[2] * 1) / 3)
    assert grad == pytest.approx([2 * RATIOS[0] / 3, 2 / 3, -RATIOS[2] / 3])


def test_clip_higher_widens_the_upper_bound_only() -> None:
    loss, _ = evaluate(GRPOSettings(aggregate="token", clip_high=0.5))
    assert loss == pytest.approx(-(1.5 * 2 + 1.0 * 2 + 0.8 * -1) / 3)
    loss, _ = evaluate(GRPOSettings(aggregate="token", clip_high=0.7))
    assert loss == pytest.approx(-(RATIOS[0] * 2 + 1.0 * 2 + 0.8 * -1) / 3)


def test_the_three_aggregates() -> None:
    first, second, third = -1.2 * 2, -1.0 * 2, -0.8 * -1
    assert evaluate(GRPOSettings(aggregate="sequence"))[0] == pytest.approx(((first + second) / 2 + third) / 2)
    assert evaluate(GRPOSettings(aggregate="token"))[0] == pytest.approx((first + second + third) / 3)
    assert evaluate(GRPOSettings(aggregate="fixed"))[0] == pytest.approx((first + second + third) / (2 * 4))


def test_cispo_weighs_the_log_prob_and_keeps_the_gradient_of_clipped_tokens() -> None:
    settings = PRESETS["cispo"].replace(clip_high=0.5)
    weights = [1.5, 1.0, RATIOS[2]]
    loss, grad = evaluate(settings)
    assert loss == pytest.approx(-sum(w * a * lp for w, a, lp in zip(weights, ADVANTAGES, NEW, strict=True)) / 3)
    assert grad == pytest.approx([-w * a / 3 for w, a in zip(weights, ADVANTAGES, strict=True)])


def test_reinforce_is_minus_advantage_times_log_prob_whatever_the_ratio() -> None:
    loss, grad = evaluate(PRESETS["rloo"])  # RLOO's 1/G sum_i A_i log pi(o_i), over max_tokens = 4
    assert loss == pytest.approx(-((2 * -1.0 + 2 * -2.0) + -1 * -0.5) / 2 / 4)
    assert grad == pytest.approx([-2 / 8, -2 / 8, 1 / 8])


def test_gspo_uses_one_ratio_per_sequence() -> None:
    settings = GRPOSettings(ratio="sequence", clip_low=10.0, clip_high=10.0)
    first, second = math.exp((0.5 + 0.0) / 2), math.exp(-0.4)
    loss, grad = evaluate(settings)
    assert loss == pytest.approx(-(first * 2 + second * -1) / 2)
    assert grad == pytest.approx([-first * 2 / 4, -first * 2 / 4, second / 2])
    clipped, grad = evaluate(PRESETS["gspo"])
    assert clipped == pytest.approx(-((1 + 4e-4) * 2 + (1 - 3e-4) * -1) / 2)
    assert grad == [0.0, 0.0, 0.0]


def test_kl_estimators() -> None:
    logprobs, ref = torch.tensor([-1.0]), torch.tensor([-0.7])
    assert kl_divergence(logprobs, ref, "k1").item() == pytest.approx(-0.3)
    assert kl_divergence(logprobs, ref, "k2").item() == pytest.approx(0.045)
    assert kl_divergence(logprobs, ref, "k3").item() == pytest.approx(math.exp(0.3) - 1.3, abs=1e-6)


def test_kl_estimators_agree_with_the_true_divergence() -> None:
    old, new = torch.randn(2, 50, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    true = (new.exp() * (new - old)).sum()
    assert (new.exp() * kl_divergence(new, old, "k1")).sum().item() == pytest.approx(true.item(), rel=1e-5)
    assert (new.exp() * kl_divergence(new, old, "k3")).sum().item() == pytest.approx(true.item(), rel=1e-5)
    assert bool((kl_divergence(new, old, "k3") >= 0).all())


@pytest.mark.parametrize("estimator", ["k1", "k2"])
def test_on_policy_the_gradient_of_a_kl_term_is_that_of_the_divergence(estimator: str) -> None:
    logits, other = torch.randn(2, 50, generator=torch.Generator().manual_seed(0))
    new = logits.requires_grad_().log_softmax(-1)
    ref = other.log_softmax(-1)
    (true,) = torch.autograd.grad((new.exp() * (new - ref)).sum(), logits, retain_graph=True)
    (ours,) = torch.autograd.grad((new.exp().detach() * kl_divergence(new, ref, estimator)).sum(), logits)
    torch.testing.assert_close(ours, true)


def test_the_kl_term_is_added_once_per_token_with_its_own_gradient() -> None:
    given = targets(old=NEW, advantages=[0.0, 0.0, 0.0])
    loss, grad = evaluate(GRPOSettings(kl_coef=0.1, aggregate="token"), given)
    gaps = [ref - new for ref, new in zip(REF, NEW, strict=True)]
    assert loss == pytest.approx(0.1 * sum(math.exp(gap) - 1 - gap for gap in gaps) / 3)
    assert grad == pytest.approx([0.1 * (1 - math.exp(gap)) / 3 for gap in gaps])


def test_truncated_importance_weighs_by_learner_over_sampler_up_to_the_cap() -> None:
    given = targets(old=NEW, sampler=[-1.2, -4.0, -0.5])
    loss, _ = evaluate(GRPOSettings(aggregate="token", truncated_importance=2.0), given)
    assert loss == pytest.approx(-(math.exp(0.2) * 2 + 2.0 * 2 + 1.0 * -1) / 3)


def test_metrics_are_sums_over_tokens() -> None:
    output = grpo(GRPOSettings(kl_coef=0.1))(torch.tensor(NEW), targets(), TOTALS)
    sums = {name: value.item() for name, value in output.sums.items()}
    assert sums["ratio"] == pytest.approx(sum(RATIOS))
    assert sums["clip_fraction"] == 2.0
    assert sums["logprob_gap"] == pytest.approx(0.9)
    assert sums["kl"] == pytest.approx(sum(math.exp(r - n) - 1 - (r - n) for r, n in zip(REF, NEW, strict=True)))


@pytest.mark.parametrize("name", PRESETS)
def test_on_policy_every_preset_has_the_gradient_of_the_policy_gradient(name: str) -> None:
    settings = PRESETS[name].replace(kl_coef=0.0, reference_refresh=0)
    _, grad = evaluate(settings, targets(old=NEW))
    weights = {"sequence": [1 / 4, 1 / 4, 1 / 2], "token": [1 / 3] * 3, "fixed": [1 / 8] * 3}[settings.aggregate]
    assert grad == pytest.approx([-w * a for w, a in zip(weights, ADVANTAGES, strict=True)], rel=1e-5)


numbers = st.floats(-2, 2, width=32)
rows = st.lists(st.tuples(numbers, numbers, numbers), min_size=1, max_size=5)


@given(st.lists(rows, min_size=1, max_size=6), st.integers(1, 8), st.sampled_from(sorted(PRESETS)))
def test_the_sum_over_micro_batches_is_the_loss_of_the_whole(
    drawn: list[list[tuple[float, float, float]]], size: int, preset: str
) -> None:
    settings = PRESETS[preset].replace(kl_coef=0.05)
    flat = [row for one in drawn for row in one]
    whole = targets(
        old=[row[0] - 2 for row in flat],
        advantages=[row[1] for row in flat],
        lengths=tuple(len(one) for one in drawn),
        ref=[row[2] - 2 for row in flat],
    )
    new = torch.tensor([(a + c) / 2 - 2 for a, _, c in flat])
    whole = replace(whole, token_ids=torch.arange(len(flat)))
    totals = Totals(num_tokens=len(flat), num_sequences=len(drawn), max_tokens=7)
    expected = grpo(settings)(new, whole, totals).loss
    parts = [grpo(settings)(new[chunk.token_ids], chunk, totals).loss for chunk in whole.chunks(size)]
    torch.testing.assert_close(sum(parts), expected, atol=1e-4, rtol=1e-4)


def test_next_token_is_the_mean_negative_log_prob() -> None:
    assert next_token(torch.tensor(NEW), targets(), TOTALS).loss.item() == pytest.approx(3.5 / 3)


@pytest.mark.parametrize(
    ("baseline", "expected"),
    [
        ("group_mean", [0.625, -0.375, -0.375, 0.125]),
        ("group_std", [value / (math.sqrt(0.6875 / 3) + 1e-4) for value in (0.625, -0.375, -0.375, 0.125)]),
        ("leave_one_out", [1 - 0.5 / 3, 0 - 1.5 / 3, 0 - 1.5 / 3, 0.5 - 1 / 3]),
    ],
)
def test_advantages_by_hand(baseline: Any, expected: list[float]) -> None:
    assert advantages([1.0, 0.0, 0.0, 0.5], baseline) == pytest.approx(expected)


@pytest.mark.parametrize("baseline", ["group_mean", "group_std", "leave_one_out"])
def test_rewards_that_do_not_apply_leave_the_baseline_alone(baseline: Any) -> None:
    known = advantages([1.0, 0.0, 0.5], baseline)
    assert advantages([1.0, None, 0.0, 0.5], baseline) == [known[0], None, *known[1:]]
    assert advantages([1.0, None], baseline) == [0.0, None]
    assert advantages([None, None], baseline) == [None, None]


@given(
    st.lists(st.floats(-100, 100), min_size=2, max_size=16),
    st.floats(-10, 10),
    st.sampled_from(["group_mean", "group_std", "leave_one_out"]),
)
def test_advantages_sum_to_zero_keep_the_order_and_ignore_a_shift(
    rewards: list[float], shift: float, baseline: Any
) -> None:
    values = advantages(rewards, baseline)
    assert sum(values) == pytest.approx(0, abs=1e-6)
    assert advantages([reward + shift for reward in rewards], baseline) == pytest.approx(values, abs=1e-3)
    order = sorted(range(len(rewards)), key=lambda i: rewards[i])
    assert all(values[a] <= values[b] + 1e-9 for a, b in pairwise(order))


def test_equal_rewards_give_exactly_zero() -> None:
    assert advantages([0.1] * 7, "group_std") == [0.0] * 7


def test_a_group_of_one_has_no_baseline() -> None:
    with pytest.raises(ValueError, match="group_size must be at least 2"):
        advantages([1.0])


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(SettingsError, match="has no ratio"):
        GRPOSettings.parse({"objective": "reinforce", "ratio": "sequence"})
    with pytest.raises(SettingsError, match="needs a reference model"):
        GRPOSettings.parse({"reference_refresh": 10})
