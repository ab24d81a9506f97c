"""Each variant of GRPO against its published formula, written plainly on padded tensors with autograd.

The formulas are those of verl's `core_algos.py` and of the papers that the presets name; test_trl_parity.py compares
with TRL's own code.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable
from dataclasses import replace
from statistics import fmean, pstdev, stdev
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from r1kit.models.batch import Targets, Totals  # noqa: E402
from r1kit.settings import SettingsError  # noqa: E402
from r1kit.train.advantages import advantages, best_of_group, length_rewards, pass_at_k, whiten  # noqa: E402
from r1kit.train.losses.covariance import select  # noqa: E402
from r1kit.train.losses.policy_gradient import grpo, kl_divergence  # noqa: E402
from r1kit.train.losses.policy_settings import PRESETS, EntropyBonus, GRPOSettings, HighCovariance  # noqa: E402
from r1kit.train.rl.algorithm import group_advantages  # noqa: E402
from r1kit.train.rl.entropy import EntropyControl  # noqa: E402
from r1kit.train.rl.loop_settings import LoopSettings  # noqa: E402
from r1kit.train.rl.objective import PolicyGradient  # noqa: E402
from r1kit.types import Completion, Group, Problem, Prompt, Reward, Rollout, Verdict  # noqa: E402

torch.set_num_threads(1)

LENGTHS = (7, 1, 4, 6, 3, 7)
ROWS, WIDTH = len(LENGTHS), max(LENGTHS)
MASK = torch.arange(WIDTH)[None] < torch.tensor(LENGTHS)[:, None]  # [B, T]
PADDED = torch.randn(5, ROWS, WIDTH, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
NEW = PADDED[0] - 2  # [B, T] each
OLD = NEW + 0.5 * PADDED[1]
REF = NEW + 0.3 * PADDED[2]
SAMPLER = OLD + 0.7 * PADDED[3] + torch.tensor([0, 0, 0, 1.0, 0, 0])[:, None]  # row 3 was far likelier when sampled
SELECTED = (PADDED[4] > 0.5).double()
A = torch.tensor([1.5, -0.7, 0.0, -1.1, 0.4, -0.2], dtype=torch.float64)[:, None].expand(ROWS, WIDTH)
TOTALS = Totals(num_tokens=sum(LENGTHS), num_sequences=ROWS, max_tokens=9)

Formula = Callable[[Any], Any]


def token_mean(values: Any) -> Any:
    return (values * MASK).sum() / MASK.sum()


def sequence_mean(values: Any) -> Any:
    return ((values * MASK).sum(1) / MASK.sum(1)).mean()


def row_mean(values: Any) -> Any:
    return ((values * MASK).sum(1) / MASK.sum(1))[:, None]


def ppo(new: Any, low: float = 0.2, high: float = 0.2) -> Any:
    ratio = (new - OLD).exp()
    return torch.maximum(-A * ratio, -A * ratio.clamp(1 - low, 1 + high))


def v3_2(new: Any) -> Any:
    """DeepSeek-V3.2 equations 5 and 7 to 9, with delta 0.1 and beta 0.001."""
    keep = ~((A < 0) & (row_mean(SAMPLER - new.detach()) > 0.1))
    kl = (new - OLD).exp() * ((REF - new).exp() - (REF - new) - 1)
    return sequence_mean(ppo(new) * keep + 0.001 * kl)


def sapo(new: Any) -> Any:
    tau = torch.full_like(A, 1.05).masked_fill(A > 0, 1.0)
    return sequence_mean(-torch.sigmoid(tau * ((new - OLD).exp() - 1)) * (4.0 / tau) * A)


def gmpo(new: Any) -> Any:
    sign, log_ratio = torch.sign(A), new - OLD
    bounded = sign * torch.minimum(sign * log_ratio, sign * log_ratio.clamp(-0.4, 0.4))
    return (-A[:, 0] * ((bounded * MASK).sum(1) / MASK.sum(1)).exp()).mean()


def gspo_token(new: Any) -> Any:
    ratio = (new - new.detach() + row_mean(new - OLD).detach()).exp()
    return sequence_mean(torch.maximum(-A * ratio, -A * ratio.clamp(1 - 3e-4, 1 + 4e-4)))


def dual_clip(new: Any) -> Any:
    losses = ppo(new)
    return sequence_mean(torch.where(A < 0, torch.minimum(losses, -A * 3.0), losses))


def clip_cov(new: Any) -> Any:
    return token_mean(ppo(new) * (1 - SELECTED))


def kl_cov(new: Any) -> Any:
    ratio = (new - OLD).exp()
    return token_mean(torch.where(SELECTED > 0, -A * ratio + (new - OLD).abs(), -A * ratio))


def icepop(new: Any) -> Any:
    trust = (OLD - SAMPLER).exp()
    return token_mean(ppo(new) * trust * ((trust >= 0.5) & (trust <= 5.0)))


def mis(new: Any) -> Any:
    trust = ((OLD - SAMPLER) * MASK).sum(1, keepdim=True).exp()
    return sequence_mean(ppo(new) * trust * (trust <= 3.0))


FORMULAS: dict[str, Formula] = {
    "v3_2": v3_2,
    "sapo": sapo,
    "gmpo": gmpo,
    "gspo_token": gspo_token,
    "dual_clip": dual_clip,
    "clip_cov": clip_cov,
    "kl_cov": kl_cov,
    "icepop": icepop,
    "mis": mis,
    "reinforce_pp": lambda new: token_mean(ppo(new)),
    "pass_at_k": lambda new: sequence_mean(ppo(new)),
}


def targets() -> Targets:
    count = torch.arange(sum(LENGTHS))
    flat = {
        "sampler_logprobs": SAMPLER,
        "old_logprobs": OLD,
        "ref_logprobs": REF,
        "advantages": A,
        "selected": SELECTED,
    }
    columns = {name: values[MASK] for name, values in flat.items()}
    return Targets(token_ids=count, positions=count, lengths=LENGTHS, **columns)


@pytest.mark.parametrize("name", FORMULAS)
def test_loss_and_gradient_equal_the_published_formula_on_padded_rows(name: str) -> None:
    settings = PRESETS[name].replace(off_policy_delta=0.1) if name == "v3_2" else PRESETS[name]
    padded = NEW.clone().requires_grad_()
    expected = FORMULAS[name](padded)
    (gradient,) = torch.autograd.grad(expected, padded)
    packed = NEW[MASK].requires_grad_()
    output = grpo(settings)(packed, targets(), TOTALS)
    (ours,) = torch.autograd.grad(output.loss, packed)
    torch.testing.assert_close(output.loss, expected, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(ours, gradient[MASK], atol=1e-9, rtol=1e-9)
    assert 0 < int((ours != 0).sum()) <= len(ours)
    if name in ("v3_2", "icepop", "mis"):
        assert 0 < output.sums["masked"] < len(ours)


def test_gspo_token_has_gspos_gradient_if_all_tokens_of_a_sequence_have_one_advantage() -> None:
    packed = NEW[MASK].requires_grad_()
    wide = {"clip_low": 0.9, "clip_high": 9.0}
    gradients = [
        torch.autograd.grad(grpo(PRESETS[name].replace(**wide))(packed, targets(), TOTALS).loss, packed)[0]
        for name in ("gspo", "gspo_token")
    ]
    torch.testing.assert_close(*gradients)


def test_the_unbiased_estimate_has_value_and_gradient_of_the_divergence_off_policy() -> None:
    logits, other, third = torch.randn(3, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    logits.requires_grad_()
    new, old, ref = (each.log_softmax(-1) for each in (logits, other, third))
    true = (new.exp() * (new - ref)).sum()
    (expected,) = torch.autograd.grad(true, logits, retain_graph=True)
    estimate = (old.exp() * kl_divergence(new, ref, "unbiased", old)).sum()  # the mean over tokens that `old` samples
    biased = (old.exp() * kl_divergence(new, ref, "k3")).sum()
    (ours,) = torch.autograd.grad(estimate, logits, retain_graph=True)
    torch.testing.assert_close(estimate, true)
    torch.testing.assert_close(ours, expected)
    assert not torch.allclose(torch.autograd.grad(biased, logits)[0], expected, rtol=0.1)


def plain_selection(kind: str) -> Any:
    """Clip-Cov's candidates and KL-Cov's tokens as verl finds them, [N]."""
    new, old, weights = (each[MASK] for each in (NEW, OLD, A))
    covariance = (weights - weights.mean()) * (new - new.mean())
    if kind == "kl":
        return torch.zeros_like(new).index_fill(0, covariance.topk(int(0.2 * len(new))).indices, 1.0)
    ratio = (new - old).exp()
    is_clipped = -weights * ratio.clamp(0.8, 1.2) > -weights * ratio
    return ((covariance > 0.1) & (covariance < 1.0) & ~is_clipped).double()


@pytest.mark.parametrize("kind", ["clip", "kl"])
def test_the_tokens_of_high_covariance_are_those_of_verl(kind: str) -> None:
    rule = HighCovariance(kind=kind, share=1.0 if kind == "clip" else 0.2, low=0.1, high=1.0)
    columns = [each[MASK] for each in (NEW, OLD, A)]
    every = select(*columns, GRPOSettings(covariance=rule), torch.Generator().manual_seed(0))
    expected = plain_selection(kind)
    assert torch.equal(every, expected) and 2 < int(expected.sum()) < len(expected)
    few = GRPOSettings(covariance=rule.replace(share=0.1))
    draws = [select(*columns, few, torch.Generator().manual_seed(seed)) for seed in range(20)]
    assert all(int(draw.sum()) == 2 and bool((draw <= expected).all()) for draw in draws)  # 10 % of 28 tokens
    assert torch.equal(draws[0], select(*columns, few, torch.Generator().manual_seed(0)))
    assert len({tuple(draw.tolist()) for draw in draws}) == (1 if kind == "kl" else len(draws)) or kind == "clip"
    nothing = GRPOSettings(covariance=rule.replace(low=1e5, high=1e6))
    if kind == "clip":
        assert not select(*columns, nothing, torch.Generator()).any()


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_pass_at_k_is_the_best_reward_over_all_subsets(k: int) -> None:
    for rewards in ([1.0, 0.0, 0.0, 1.0, 0.0, 0.0], [0.3, 0.0, 1.0, 0.3, 0.7, 0.2], [0.0, 0.0, 0.0, 0.0, 1.0, 0.0]):
        subsets = list(itertools.combinations(range(6), k))
        best = {subset: max(rewards[i] for i in subset) for subset in subsets}
        mean, deviation = fmean(best.values()), pstdev(best.values())
        expected = [(fmean(best[s] for s in subsets if i in s) - mean) / deviation for i in range(6)]
        assert pass_at_k(rewards, k) == pytest.approx(expected, abs=1e-9)


def test_pass_at_k_of_right_and_wrong_equals_the_closed_form() -> None:
    n, right, k = 8, 3, 4
    wrong = n - right
    mean = 1 - math.comb(wrong, k) / math.comb(n, k)
    sigma = math.sqrt(mean * (1 - mean))
    low = (1 - mean - math.comb(wrong - 1, k - 1) / math.comb(n - 1, k - 1)) / sigma
    values = advantages([1.0] * right + [0.0] * wrong, "pass_at_k", 4)
    assert values == pytest.approx([(1 - mean) / sigma] * right + [low] * wrong, abs=1e-9)
    assert advantages([1.0, None, 0.0, 0.0], "pass_at_k", 2)[1] is None
    assert pass_at_k([1.0, 1.0, 1.0, 0.0, 0.0], 3) == [0.0] * 5  # every three hold a right answer


def test_the_best_of_a_group_is_compared_with_the_second() -> None:
    assert best_of_group([0.2, 1.0, 0.5]) == [0.0, 0.5, 0.0]
    assert best_of_group([1.0, 1.0, 0.0]) == [0.0, 0.0, 0.0]
    assert advantages([0.2, None, 1.0], "best_of_group") == [0.0, None, pytest.approx(0.8)]


def test_whitening_counts_every_token_as_verl_does() -> None:
    values, lengths = [0.5, -1.0, 2.0, 0.0], [3, 5, 1, 4]
    tokens = torch.tensor([v for v, n in zip(values, lengths, strict=True) for _ in range(n)], dtype=torch.float64)
    expected = (torch.tensor(values) - tokens.mean()) * torch.rsqrt(tokens.var(unbiased=True) + 1e-8)
    assert whiten(values, lengths) == pytest.approx(expected.tolist(), abs=1e-6)
    assert whiten([0.1, 0.1, 5.0], [3, 2, 0]) == [0.0, 0.0, 0.0]  # the third has no tokens to count


def test_kimis_length_rewards() -> None:
    assert length_rewards([10, 20, 30], [True, True, False]) == [0.5, 0.0, -0.5]
    assert length_rewards([10, 20, 30], [False, True, True]) == [0.0, 0.0, -0.5]
    assert length_rewards([7, 7], [True, False]) == [0.0, 0.0]


def group_of(totals: list[float | None], lengths: list[int], ends: str = "") -> Group:
    """A group with these rewards and lengths; a reward of 1 is a right answer."""
    prompt = Prompt(problem_id="p", messages=(), token_ids=(1,))
    return Group(
        problem=Problem(id="p", prompt="", answer=""),
        rollouts=tuple(
            Rollout(
                prompt=prompt,
                completion=Completion(
                    token_ids=(1,) * n, logprobs=(0.0,) * n, text="", finish_reason="length" if end == "l" else "stop"
                ),
                reward=Reward(total=total, parts={}, verdict=Verdict.of(total == 1.0)),
            )
            for total, n, end in zip(totals, lengths, ends or "s" * len(totals), strict=True)
        ),
    )


def baseline(name: str) -> Callable[[Any], Any]:
    return lambda rewards: advantages(rewards, name)


def test_reinforce_pp_whitens_over_all_groups_of_a_rollout() -> None:
    groups = [group_of([1.0, 0.0, None], [2, 6, 4]), group_of([1.0, 1.0, 1.0], [3, 3, 3])]
    for name, expected in (("none", [1.0, 0.0, 1.0, 1.0, 1.0]), ("group_mean", [0.5, -0.5, 0.0, 0.0, 0.0])):
        rows = group_advantages(groups, baseline(name), GRPOSettings(baseline=name, whiten=True))
        assert rows[0][2] is None
        assert rows[0][:2] + rows[1] == pytest.approx(whiten(expected, [2, 6, 3, 3, 3]))


@pytest.mark.parametrize(
    ("name", "compares"), [("grpo", True), ("reinforce_pp", False), ("reinforce_pp_baseline", True), ("short", False)]
)
def test_equal_rewards_of_a_group_are_no_lack_of_signal_without_a_baseline_of_groups(name: str, compares: bool) -> None:
    """Otherwise groups that are all right or all wrong count as `groups/zero_variance`, and the run as starved."""
    learner: Any = None
    assert PolicyGradient(learner, LoopSettings.parse({"algorithm": name})).compares_groups is compares


def test_truncated_completions_that_are_not_trained_on_count_in_no_whitening() -> None:
    groups = [group_of([1.0, 0.0, 0.5, 0.0], [2, 6, 9, 3], "ssls")]
    rows = group_advantages(groups, baseline("none"), PRESETS["reinforce_pp"], skip_truncated=True)
    kept = [rows[0][index] for index in (0, 1, 3)]
    assert kept == pytest.approx(whiten([1.0, 0.0, 0.0], [2, 6, 3]))


def test_a_length_penalty_is_added_to_the_rewards_of_each_group() -> None:
    group = group_of([1.0, 1.0, 0.0, None], [10, 30, 10, 20])
    rows = group_advantages([group], baseline("group_mean"), GRPOSettings(baseline="group_mean", length_penalty=0.2))
    assert rows == [advantages([1.1, 0.9, 0.0, None], "group_mean")]


def test_the_adaptive_entropy_coefficient_rises_below_its_target_and_acts_there_only() -> None:
    control = EntropyControl(EntropyBonus(target=0.5, step=0.1, max=0.15))
    applied = []
    for entropy in (0.4, 0.4, 0.6, 0.4, 0.9, 0.9):
        applied.append(control())
        control.observe(entropy)
    assert applied == pytest.approx([0.0, 0.1, 0.15, 0.0, 0.15, 0.0])
    assert control.state == {"coef": 0.0, "entropy": 0.9}
    constant = EntropyControl(EntropyBonus(coef=0.3))
    constant.observe(0.1)
    assert constant() == 0.3


def test_contradictions_are_refused() -> None:
    refused: list[tuple[dict[str, Any], str]] = [
        ({"dual_clip": 1.1}, "set it to at least 1.2"),
        ({"objective": "geometric", "ratio": "sequence"}, "set ratio to 'token'"),
        ({"dynamic_sampling": 2, "baseline": "none"}, "have a gradient with baseline 'none'"),
        ({"dynamic_sampling": 2, "length_penalty": 0.1}, "have a gradient with a length penalty"),
        ({"covariance": {"kind": "kl"}, "ratio": "sequence"}, "covariance chooses among tokens"),
        ({"masked_importance": [2.0, 5.0]}, "an interval around 1"),
        ({"masked_importance": [0.5, 5.0], "truncated_importance": 2.0}, "set one of them"),
        ({"entropy": {}}, "needs a coef above 0, or a target"),
        ({"soft_temperatures": [0.0, 1.0]}, "both must be above 0"),
    ]
    for values, message in refused:
        with pytest.raises(SettingsError, match=message):
            GRPOSettings.parse(values)
    with pytest.raises(SettingsError, match="masked_importance compares the learner with the sampler"):
        LoopSettings.parse({"algorithm": "icepop"})
    with pytest.raises(SettingsError, match="pass_k is 4 and group_size 4"):
        LoopSettings.parse({"algorithm": "pass_at_k", "group_size": 4})
    for name in ("clip_cov", "kl_cov"):
        with pytest.raises(SettingsError, match="set minibatches to 1, or recompute_old_logprobs to false"):
            LoopSettings.parse({"algorithm": name, "recompute_old_logprobs": True, "minibatches": 2})


def test_the_clip_fraction_counts_tokens_without_a_gradient() -> None:
    old = torch.zeros(6, dtype=torch.float64)
    logprobs = torch.tensor([1.3, 0.5, 0.1, 1.3, 0.5, -0.5], dtype=torch.float64).requires_grad_()
    signs = torch.tensor([1.0, 1.0, 1.0, -1.0, -1.0, -1.0], dtype=torch.float64)
    columns = dict.fromkeys(("sampler_logprobs", "old_logprobs", "ref_logprobs", "selected"), old) | {
        "advantages": signs
    }
    every = Targets(token_ids=torch.arange(6), positions=torch.arange(6), lengths=(6,), **columns)
    for name, expected in (("grpo", 3), ("dual_clip", 4), ("rloo", 0)):
        output = grpo(PRESETS[name])(logprobs, every, Totals(num_tokens=6, num_sequences=1))
        (gradient,) = torch.autograd.grad(output.loss, logprobs)
        assert output.sums["clip_fraction"] == expected == (gradient == 0).sum(), name
    # CISPO takes no gradient away: a bound limits the weight of a token, whatever the sign of its advantage
    limited = PRESETS["cispo"].replace(clip_high=0.5)
    output = grpo(limited)(logprobs, every, Totals(num_tokens=6, num_sequences=1))
    assert output.sums["clip_fraction"] == (logprobs.exp() > 1.5).sum() == 4


def test_the_order_of_micro_batches_changes_no_sequence_level_weight() -> None:
    rng = random.Random(0)
    for name in ("v3_2", "mis", "gmpo", "gspo_token"):
        whole = targets()
        expected = grpo(PRESETS[name])(NEW[MASK], whole, TOTALS).loss
        numbered = replace(whole, token_ids=torch.arange(len(whole)))
        size = rng.randint(1, 12)
        parts = [grpo(PRESETS[name])(NEW[MASK][c.token_ids], c, TOTALS).loss for c in numbered.chunks(size)]
        torch.testing.assert_close(sum(parts), expected)


def test_group_std_is_unchanged() -> None:
    rewards = [1.0, 0.0, 0.25]
    mean, deviation = fmean(rewards), stdev(rewards)
    assert advantages(rewards) == pytest.approx([(r - mean) / (deviation + 1e-4) for r in rewards])
