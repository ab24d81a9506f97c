"""The RL loop learns, resumes bit for bit after SIGKILL, and says clearly what cannot work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from r1kit.chat import ChatFormat  # noqa: E402
from r1kit.engines import EngineError  # noqa: E402
from r1kit.engines.local import LocalEngine  # noqa: E402
from r1kit.models import attention  # noqa: E402
from r1kit.models.load import Policy, fresh_llama  # noqa: E402
from r1kit.models.policy_net import LossOutput  # noqa: E402
from r1kit.rewards.part import RewardPart  # noqa: E402
from r1kit.rewards.scorer import Scorer  # noqa: E402
from r1kit.settings import SettingsError  # noqa: E402
from r1kit.stages.rl import RL, RLSettings  # noqa: E402
from r1kit.store import StoreError  # noqa: E402
from r1kit.tasks.base import Listed  # noqa: E402
from r1kit.tiny.tokenizer import make  # noqa: E402
from r1kit.train import checkpoints  # noqa: E402
from r1kit.train.learner import Learner, OptimizerSettings  # noqa: E402
from r1kit.train.losses.policy_gradient import grpo  # noqa: E402
from r1kit.train.losses.policy_settings import PRESETS, GRPOSettings  # noqa: E402
from r1kit.train.rl.algorithm import algorithm_files  # noqa: E402
from r1kit.train.rl.collect import Draws  # noqa: E402
from r1kit.train.rl.log import write_rollouts  # noqa: E402
from r1kit.train.rl.loop import RLLoop  # noqa: E402
from r1kit.train.rl.loop_settings import LoopSettings  # noqa: E402
from r1kit.train.rl.objective import PolicyGradient  # noqa: E402
from r1kit.types import Problem  # noqa: E402

torch.set_num_threads(1)
attention.register()

TOKENIZER = make()
TASK = Listed(
    name="letters", problems=tuple(Problem(id=f"p{i}", prompt=f"{i}+{i}=", answer=str(2 * i)) for i in range(12))
)
SMALL: dict[str, Any] = {"steps": 2, "prompts_per_step": 4, "group_size": 4, "max_tokens": 8, "tokens_per_batch": 200}


def share_of_low_ids(completions: Sequence[str], completion_ids: Sequence[list[int]], **_: Any) -> list[float]:
    """Trivial to learn: the share of tokens from the first half of the vocabulary."""
    return [sum(token < len(TOKENIZER) // 2 for token in ids) / len(ids) for ids in completion_ids]


def loop(
    folder: Path,
    settings: dict[str, Any],
    *,
    reward: Callable[..., Any] = share_of_low_ids,
    rate: float = 3e-3,
    ends: tuple[int, ...] = (1,),
    log: Callable[[int, dict[str, float]], None] = lambda step, row: None,
) -> RLLoop:
    parsed = LoopSettings.parse({**SMALL, **settings})
    policy = Policy(fresh_llama(TOKENIZER, layers=1, width=32, heads=2, context=64, seed=0), TOKENIZER, ends)
    learner = Learner(
        policy.model,
        OptimizerSettings(learning_rate=rate),
        steps=parsed.steps * parsed.minibatches * parsed.epochs,
        temperature=parsed.temperature,
    )
    chat = ChatFormat(system="", plain="{question}")
    scorer = Scorer((RewardPart("share", 1.0, reward),))
    objective = PolicyGradient(learner, parsed)
    return RLLoop(learner, objective, LocalEngine(policy), TASK, chat, scorer, parsed, folder, log, lambda text: None)


def rows(folder: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what a clock says."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if not key.startswith("time/")} for line in lines]


def weights(run: RLLoop) -> dict[str, Any]:
    return dict(run.learner.model.state_dict())


def assert_identical(one: dict[str, Any], other: dict[str, Any]) -> None:
    for name in one.keys() | other.keys():
        assert torch.equal(one[name], other[name]), f"{name} differs"


@pytest.mark.parametrize("preset", ["grpo", "dr_grpo", "dapo", "gspo", "cispo", "rloo"])
def test_a_trivial_reward_rises(preset: str, tmp_path: Path) -> None:
    settings = {"steps": 15, "prompts_per_step": 6, "group_size": 8, "algorithm": PRESETS[preset].model_dump()}
    loop(tmp_path, settings, rate=1e-2).train()
    rewards = [row["reward/mean"] for row in rows(tmp_path)]
    assert rewards[0] < 0.65 and min(rewards[-3:]) > rewards[0] + 0.15


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_runs_and_is_on_policy_at_first(preset: str, tmp_path: Path) -> None:
    algorithm = PRESETS[preset]
    needed = {"recompute_old_logprobs": algorithm.weighs_importance, "group_size": algorithm.pass_k + 2}
    run = loop(tmp_path, {"algorithm": algorithm.model_dump(), **needed})
    before = {name: tensor.clone() for name, tensor in weights(run).items()}
    run.train()
    first, second = rows(tmp_path)
    assert first["policy/ratio_mean"] == pytest.approx(1.0, abs=1e-4)
    assert second["policy/ratio_mean"] == pytest.approx(1.0, abs=1e-4)
    assert first["policy/clip_fraction"] == 0.0
    assert first["sampler/logprob_gap_mean"] < 1e-5
    assert first["optim/grad_norm"] > 0
    assert first.get("policy/kl", 0.0) == pytest.approx(0.0, abs=1e-6)
    assert any(not torch.equal(tensor, before[name]) for name, tensor in weights(run).items())
    assert run.learner.updates == 2


def test_temperature_and_truncation_of_the_distribution_leave_the_ratio_at_one(tmp_path: Path) -> None:
    loop(tmp_path, {"temperature": 0.7, "top_p": 0.9, "top_k": 20}).train()
    for row in rows(tmp_path):
        assert row["policy/ratio_mean"] == pytest.approx(1.0, abs=1e-4)
        assert row["sampler/logprob_gap_mean"] < 1e-5


def test_the_schedule_ends_although_every_step_has_fewer_groups_than_minibatches(tmp_path: Path) -> None:
    run = loop(tmp_path, {"steps": 3, "prompts_per_step": 2, "minibatches": 4, "epochs": 2})
    run.learner.settings = OptimizerSettings(learning_rate=1e-3, schedule="linear")
    run.train()
    assert run.learner.updates < run.learner.steps == 24
    rates = [row["optim/learning_rate"] for row in rows(tmp_path)]  # each of the step's last update
    assert rates == pytest.approx([1e-3 * (1 - position / 23) for position in (7, 15, 23)])


def test_steps_in_which_all_rewards_are_equal_leave_the_weights_as_they_are(tmp_path: Path) -> None:
    def equal_from_step_two(completions: Sequence[str], **_: Any) -> list[float]:
        return [float(index if run.learner.updates == 0 else 1) for index in range(len(completions))]

    first = loop(tmp_path / "first", {"steps": 1}, reward=equal_from_step_two)
    run = first
    first.train()
    run = loop(tmp_path / "all", {"steps": 3}, reward=equal_from_step_two)
    run.train()
    assert run.learner.updates == 1
    assert_identical(weights(run), weights(first))
    assert [row["optim/grad_norm"] > 0 for row in rows(tmp_path / "all")] == [True, False, False]


def test_entropy_ratio_and_gap_cover_every_sample_whatever_was_learned_from(tmp_path: Path) -> None:
    def equal(completions: Sequence[str], **_: Any) -> list[float]:
        return [1.0] * len(completions)

    first = {}
    for reward in (share_of_low_ids, zero_for_some, equal):
        loop(tmp_path / reward.__name__, {"steps": 1}, reward=reward).train()
        first[reward.__name__] = rows(tmp_path / reward.__name__)[0]
    assert first["equal"]["optim/grad_norm"] == 0.0 < first["zero_for_some"]["optim/grad_norm"]
    for name in ("policy/entropy", "policy/ratio_mean", "sampler/logprob_gap_mean"):
        assert first["zero_for_some"][name] == pytest.approx(first["share_of_low_ids"][name], abs=1e-6)
        assert first["equal"][name] == pytest.approx(first["share_of_low_ids"][name], abs=1e-6)


def test_an_engine_that_drops_a_completion_is_refused_before_groups_are_mixed_up(tmp_path: Path) -> None:
    class DropsCompletion(LocalEngine):
        def generate(self, prompts: Any, params: Any, report: Any = None) -> Any:
            first, *others = super().generate(prompts, params, report)
            return [first[:-1], *others]

    class DropsPrompt(LocalEngine):
        def generate(self, prompts: Any, params: Any, report: Any = None) -> Any:
            return super().generate(prompts, params, report)[1:]

    run = loop(tmp_path, {})
    policy = Policy(run.learner.model, TOKENIZER, (1,))
    for engine, message in ((DropsCompletion, "gave 3 completions for prompt p"), (DropsPrompt, "answered 3 of 4")):
        with pytest.raises(EngineError, match=message):
            replace(run.collect, engine=engine(policy))(0, Draws(TASK, 0))


def test_metrics_that_a_reward_logs_replace_no_metric_of_the_loop(tmp_path: Path) -> None:
    def loud(completions: Sequence[str], log_metric: Any, **columns: Any) -> list[float]:
        for name in ("step", "reward/mean", "policy/entropy"):
            log_metric(name, -7.0)
        return share_of_low_ids(completions, **columns)

    loop(tmp_path / "loud", {}, reward=loud).train()
    loop(tmp_path / "quiet", {}).train()
    logged = {f"rewards/share/{name}": -7.0 for name in ("step", "reward/mean", "policy/entropy")}
    assert rows(tmp_path / "loud") == [row | logged for row in rows(tmp_path / "quiet")]


def reinforce_all(settings: GRPOSettings) -> Any:
    """A loss without advantages: every completion becomes more likely."""
    return lambda logprobs, targets, totals: LossOutput(
        -logprobs.sum() / totals.num_tokens, {"kl": logprobs.detach().sum()}
    )


def minus_mean(rewards: list[float | None]) -> list[float | None]:
    known = [reward for reward in rewards if reward is not None]
    return [None if reward is None else reward - sum(known) / len(known) for reward in rewards]


def no_loss(settings: GRPOSettings) -> float:
    return settings.clip_low


def too_few(rewards: list[float | None]) -> list[float | None]:
    return rewards[1:]


def loud_loss(settings: GRPOSettings) -> Any:
    """The built-in loss, with sums that have the names of other metrics."""
    names = ("step", "loss", "entropy", "reward/mean", "tokens/train")

    def loss(logprobs: Any, targets: Any, totals: Any) -> LossOutput:
        output = grpo(settings.replace(loss=""))(logprobs, targets, totals)
        return output._replace(sums=output.sums | dict.fromkeys(names, logprobs.new_tensor(-7.0 * len(logprobs))))

    return loss


def test_sums_of_a_loss_of_ones_own_replace_no_metric_of_the_loop(tmp_path: Path) -> None:
    loop(tmp_path / "loud", {"algorithm": {"loss": f"{__name__}:loud_loss"}}).train()
    loop(tmp_path / "quiet", {}).train()
    logged = {f"loss/{name}": -7.0 for name in ("step", "loss", "entropy", "reward/mean", "tokens/train")}
    for loud, quiet in zip(rows(tmp_path / "loud"), rows(tmp_path / "quiet"), strict=True):
        assert {name: loud[name] for name in logged} == logged
        assert {name: loud[name] for name in quiet if name != "tokens/train"} == pytest.approx(
            {name: quiet[name] for name in quiet if name != "tokens/train"}, rel=1e-4, abs=1e-6
        )


def loss_of_logprobs(settings: GRPOSettings) -> Any:
    return lambda logprobs: logprobs.sum()


def loss_without_maker(logprobs: Any, targets: Any, totals: Any) -> Any:
    return logprobs.sum()


def bare_tensor(settings: GRPOSettings) -> Any:
    return lambda logprobs, targets, totals: logprobs.sum()


def per_token_vector(settings: GRPOSettings) -> Any:
    return lambda logprobs, targets, totals: LossOutput(-logprobs * targets.advantages, {})


def detached(settings: GRPOSettings) -> Any:
    return lambda logprobs, targets, totals: LossOutput(-(logprobs.detach() * targets.advantages).sum(), {})


def minus_mean_tensor(rewards: list[float | None]) -> Any:
    return torch.tensor(rewards) - torch.tensor(rewards).mean()


def no_arguments() -> list[float]:
    return []


def texts_as_advantages(rewards: list[float | None]) -> Any:
    return ["high"] * len(rewards)


def test_a_loss_and_a_baseline_of_ones_own_are_found_by_dotted_path(tmp_path: Path) -> None:
    mean = {"algorithm": {"baseline": "group_mean"}}
    own = {"algorithm": {"baseline": f"{__name__}:minus_mean"}}
    tensor = {"algorithm": {"baseline": f"{__name__}:minus_mean_tensor"}}
    runs = [loop(tmp_path / str(index), settings) for index, settings in enumerate((mean, own, tensor))]
    for run in runs:
        run.train()
    expected = rows(tmp_path / "0")[0]["optim/loss"]
    for folder in ("1", "2"):
        assert rows(tmp_path / folder)[0]["optim/loss"] == pytest.approx(expected, abs=1e-6)

    def equal(completions: Sequence[str], **_: Any) -> list[float]:
        return [1.0] * len(completions)

    loop(tmp_path / "loss", {"algorithm": {"loss": f"{__name__}.reinforce_all"}}, reward=equal).train()
    first = rows(tmp_path / "loss")[0]
    assert first["optim/grad_norm"] > 0 and first["policy/kl"] == pytest.approx(-first["optim/loss"])
    files = algorithm_files(LoopSettings.parse(own).algorithm)
    assert files == {"baseline": Path(__file__)} and algorithm_files(PRESETS["grpo"]) == {}
    stage = RLSettings.parse({"tasks": ["tiny/reasoning"], "rewards": ["accuracy"], **own})
    assert RL.sources is not None
    assert RL.sources(stage)["code/algorithm.baseline"].path == Path(__file__)  # a change of it redoes the stage


@pytest.mark.parametrize(
    ("algorithm", "message"),
    [
        ({"baseline": "group_mena"}, "no baseline 'group_mena': did you mean group_mean"),
        ({"loss": "grpo"}, "algorithm.loss: expected package.module:function"),
        ({"loss": "there.is:none"}, "loss 'there.is:none' cannot be imported: no module named 'there'"),
        ({"loss": f"{__name__}:SMALL"}, "loss '.*test_rl:SMALL' is a dict: expected a function"),
        ({"loss": f"{__name__}:no_loss"}, "loss '.*test_rl:no_loss' returned float .*: expected a loss"),
        ({"loss": f"{__name__}:no_arguments"}, "no_arguments' is called with the algorithm's settings: too many"),
        (
            {"loss": f"{__name__}:loss_without_maker"},
            r"missing a required argument: .*; expected f\(settings\) -> loss",
        ),
        ({"loss": f"{__name__}:loss_of_logprobs"}, "is called with logprobs, targets, totals: too many"),
        ({"loss": f"{__name__}:bare_tensor"}, "bare_tensor' returned tensor.*: expected a LossOutput with one number"),
        ({"loss": f"{__name__}:detached"}, "detached' returned a loss without a gradient: expected a number computed"),
        ({"loss": f"{__name__}:per_token_vector"}, "per_token_vector' returned .*: expected a LossOutput with one"),
        ({"baseline": f"{__name__}:no_arguments"}, "no_arguments' is called with a group's rewards: too many"),
        (
            {"baseline": f"{__name__}:texts_as_advantages"},
            "returned .'high', .* for 4 rewards: expected a list of finite numbers or None",
        ),
        ({"baseline": f"{__name__}:too_few"}, "baseline '.*test_rl:too_few' returned .* for 4 rewards"),
    ],
)
def test_a_path_to_no_loss_or_baseline_is_named(algorithm: dict[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        loop(tmp_path, {"algorithm": algorithm}).train()


SCRIPT = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_rl

def log(step, row):
    if step == {stop}:
        os.kill(os.getpid(), signal.SIGKILL)

test_rl.loop(Path({folder!r}), {settings!r}, log=log).train()
"""

RESUMED = {
    "steps": 7,
    "checkpoint_every": 2,
    "minibatches": 2,
    "epochs": 2,
    "rollouts_every": 1,
    "algorithm": {"kl_coef": 0.05, "reference_refresh": 8, "dynamic_sampling": 1, "aggregate": "token"},
}


def test_killed_in_the_middle_and_run_again_it_ends_with_the_same_bits(tmp_path: Path) -> None:
    straight = loop(tmp_path / "straight", RESUMED)
    straight.train()
    torn = tmp_path / "torn"
    code = SCRIPT.format(tests=str(Path(__file__).parent), stop=5, folder=str(torn), settings=RESUMED)
    died = subprocess.run([sys.executable, "-c", code], env=dict(os.environ), capture_output=True, text=True)
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert [row["step"] for row in rows(torn)] == [1, 2, 3, 4, 5]
    assert checkpoints.latest(torn) == checkpoints.folder_of(torn, 4)
    sound = (torn / "metrics.jsonl").read_text()
    (torn / "metrics.jsonl").write_text(sound.replace('"step": 3,', '"step": 3, "note": 1,'))
    with pytest.raises(StoreError, match=r"metrics.jsonl is damaged: its rows up to step 4 are not those"):
        loop(torn, RESUMED).train()
    (torn / "metrics.jsonl").write_text(sound)

    resumed = loop(torn, RESUMED)
    resumed.train()
    assert rows(torn) == rows(tmp_path / "straight")
    assert_identical(weights(resumed), weights(straight))
    assert_identical(resumed.objective.reference.tensors, straight.objective.reference.tensors)
    for file in sorted((tmp_path / "straight" / "rollouts").iterdir()):
        assert (torn / "rollouts" / file.name).read_text() == file.read_text()


STATEFUL: dict[str, Any] = {
    "steps": 4,
    "checkpoint_every": 2,
    "minibatches": 2,
    "top_p": 0.9,
    "algorithm": {
        "baseline": "group_mean",
        "whiten": True,
        "off_policy_delta": 1e-3,
        "entropy": {"target": 6.0, "step": 0.01},
        "covariance": {"kind": "clip", "share": 0.1, "low": 0.0, "high": 9.0},
    },
}


def test_a_resumed_run_has_the_entropy_coefficient_the_whitening_and_the_draws_of_the_first(tmp_path: Path) -> None:
    loop(tmp_path / "straight", STATEFUL, rate=1e-2).train()
    stopped = loop(tmp_path / "torn", STATEFUL, rate=1e-2)
    stopped.settings = stopped.settings.replace(steps=2)
    stopped.train()
    loop(tmp_path / "torn", STATEFUL, rate=1e-2).train()
    expected = rows(tmp_path / "straight")
    assert rows(tmp_path / "torn") == expected
    coefficients = [row["policy/entropy_coef"] for row in expected]
    assert coefficients[0] < coefficients[-1] and max(row["policy/masked_fraction"] for row in expected) > 0


@pytest.mark.parametrize("preset", ["clip_cov", "kl_cov"])
def test_packing_does_not_change_which_tokens_are_selected(preset: str, tmp_path: Path) -> None:
    algorithm = PRESETS[preset].model_dump()
    algorithm["covariance"] |= {"share": 0.1, "low": -9.0, "high": 9.0}
    for name, tokens in (("one", 4096), ("other", 30)):
        loop(tmp_path / name, {"minibatches": 2, "tokens_per_batch": tokens, "algorithm": algorithm}).train()
    for row, again in zip(rows(tmp_path / "one"), rows(tmp_path / "other"), strict=True):
        for key in ("optim/grad_norm", "optim/loss"):
            assert row[key] == pytest.approx(again[key], rel=1e-3, abs=1e-5)


def test_settings_that_change_memory_only_change_no_result(tmp_path: Path) -> None:
    runs = {}
    for name, settings in (
        ("one", {}),
        ("other", {"tokens_per_batch": 30, "checkpoint_every": 1, "rollouts_every": 1}),
    ):
        runs[name] = loop(tmp_path / name, {"steps": 3, **settings})
        runs[name].train()
    left, right = rows(tmp_path / "one"), rows(tmp_path / "other")
    for row, again in zip(left, right, strict=True):
        for key in ("reward/mean", "optim/grad_norm", "optim/loss", "completion/length_mean"):
            assert row[key] == pytest.approx(again[key], abs=1e-5)


def test_the_reference_moves_only_when_its_time_has_come(tmp_path: Path) -> None:
    run = loop(tmp_path, {"steps": 4, "minibatches": 2, "algorithm": {"kl_coef": 0.1, "reference_refresh": 4}})
    kls: list[float] = []
    moved: list[bool] = []
    reference: list[Any] = []

    def log(step: int, row: dict[str, float]) -> None:
        kls.append(row["policy/kl"])
        moved.append(bool(reference) and run.objective.reference is not reference[-1])
        reference.append(run.objective.reference)

    run.log = log
    run.train()
    assert moved == [False, True, False, True]  # every four updates are two steps of two
    assert kls[1] > kls[0] > 0 and kls[2] < kls[1]


def test_several_updates_per_rollout_move_the_ratio_and_count(tmp_path: Path) -> None:
    run = loop(tmp_path, {"minibatches": 2, "epochs": 3}, rate=1e-2)
    run.train()
    assert run.learner.updates == 2 * 2 * 3
    assert abs(rows(tmp_path)[0]["policy/ratio_mean"] - 1) > 1e-4
    assert rows(tmp_path)[0]["sampler/logprob_gap_mean"] < 1e-5  # the first update's, before the weights moved


def test_old_log_probs_can_be_the_learners_own(tmp_path: Path) -> None:
    settings = {"recompute_old_logprobs": True, "minibatches": 2, "algorithm": {"truncated_importance": 2.0}}
    loop(tmp_path, settings).train()
    assert len(rows(tmp_path)) == 2
    with pytest.raises(SettingsError, match="works with epochs = 1"):
        LoopSettings.parse({"recompute_old_logprobs": True, "epochs": 2})
    with pytest.raises(SettingsError, match="set recompute_old_logprobs"):
        LoopSettings.parse({"algorithm": {"truncated_importance": 2.0}})


def zero_for_some(
    completions: Sequence[str], completion_ids: Sequence[list[int]], problem_id: list[str], **_: Any
) -> Any:
    """No group of an even problem teaches anything."""
    shares = share_of_low_ids(completions, completion_ids)
    return [0.0 if int(name[1:]) % 2 == 0 else share for name, share in zip(problem_id, shares, strict=True)]


def test_dynamic_sampling_replaces_groups_without_variance(tmp_path: Path) -> None:
    settings = {"steps": 1, "prompts_per_step": 5, "algorithm": {"dynamic_sampling": 6}}
    run = loop(tmp_path, settings, reward=zero_for_some)
    draws = Draws(TASK, 0)
    collected = run.collect(0, draws)
    assert len(collected.samples) == 5 * 4  # full, and with useful groups only
    assert {one.advantages[-1] for one in collected.samples} != {0.0}
    useful = [group for group in collected.groups if int(group.problem.id[1:]) % 2]
    assert len(useful) >= 5 and len(collected.groups) > 5
    assert draws.position == len(collected.groups)
    without = loop(tmp_path, {**settings, "algorithm": {}}, reward=zero_for_some).collect(0, Draws(TASK, 0))
    assert len(without.groups) == 5 and len(without.samples) == 20


def test_a_step_in_which_nothing_varies_goes_by_without_harm(tmp_path: Path) -> None:
    def flat(completions: Sequence[str], **_: Any) -> list[float]:
        return [0.5] * len(completions)

    for algorithm in ({}, {"dynamic_sampling": 1}, {"kl_coef": 0.1}):
        folder = tmp_path / "-".join([*algorithm, "run"])
        run = loop(folder, {"algorithm": algorithm}, reward=flat)
        before = {name: tensor.clone() for name, tensor in weights(run).items()}
        run.train()
        assert [row["groups/zero_variance"] for row in rows(folder)] == [1.0, 1.0]
        gap = max(float((tensor - before[name]).abs().max()) for name, tensor in weights(run).items())
        assert gap < 1e-6 or algorithm.get("kl_coef")  # with KL, rounding in the gradient is all that Adam sees


def test_truncated_completions_can_be_left_out_of_the_loss(tmp_path: Path) -> None:
    ends = tuple(range(20))
    kept = loop(tmp_path / "keep", {}, ends=ends).collect(0, Draws(TASK, 0))
    left = loop(tmp_path / "skip", {"truncated": "skip"}, ends=ends).collect(0, Draws(TASK, 0))
    reasons = [rollout.completion.finish_reason for group in kept.groups for rollout in group.rollouts]
    assert 0 < reasons.count("length") < len(reasons)
    assert len(kept.samples) == len(reasons) and len(left.samples) == reasons.count("stop")
    assert len(left.left_out) == reasons.count("length")
    assert [one.advantages for one in left.scored] == [
        one.advantages for one in kept.scored
    ]  # the baseline is the whole group's
    never = loop(tmp_path / "never", {"truncated": "skip"}, ends=())
    never.train()  # no sample is left in any step
    assert [row["completion/truncated"] for row in rows(tmp_path / "never")] == [1.0, 1.0]
    measured = loop(tmp_path / "all", {}, ends=())  # the same completions, trained on
    measured.train()
    first, trained = rows(tmp_path / "never")[0], rows(tmp_path / "all")[0]
    assert first["policy/entropy"] == pytest.approx(trained["policy/entropy"], rel=1e-4)
    assert (first["policy/ratio_mean"], first["tokens/train"]) == (pytest.approx(1.0, abs=1e-4), 0.0)


def test_rewards_that_do_not_apply_are_skipped_and_a_step_of_none_but_them_is_an_error(tmp_path: Path) -> None:
    def some(completions: Sequence[str], completion_ids: Sequence[list[int]], **_: Any) -> list[float | None]:
        shares = share_of_low_ids(completions, completion_ids)
        return [None if index % 3 == 0 else share for index, share in enumerate(shares)]

    run = loop(tmp_path / "some", {}, reward=some)
    assert len(run.collect(0, Draws(TASK, 0)).samples) == 16 - 6
    run.train()

    def none(completions: Sequence[str], **_: Any) -> list[None]:
        return [None] * len(completions)

    with pytest.raises(ValueError, match=r"step 1: no completion got a reward .* rollouts/step-000001.jsonl"):
        loop(tmp_path / "none", {}, reward=none).train()
    shown = (tmp_path / "none" / "rollouts" / "step-000001.jsonl").read_text().splitlines()
    assert len(shown) == 16 and json.loads(shown[0])["reward"] is None


def test_a_reward_that_is_not_a_number_stops_the_run_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="reward 'share' returned nan"):
        loop(tmp_path, {}, reward=lambda completions, **_: [float("nan")] * len(completions)).train()


def test_weights_that_become_nan_stop_the_run_at_once_and_leave_the_checkpoint(tmp_path: Path) -> None:
    run = loop(tmp_path, {"steps": 4, "checkpoint_every": 1})

    def poison(step: int, row: dict[str, float]) -> None:
        if checkpoints.latest(tmp_path) is not None:
            run.learner.model.model.norm.weight.data.fill_(float("nan"))

    run.log = poison
    with pytest.raises(FloatingPointError, match="logits are NaN or infinite"):
        run.train()
    assert len(rows(tmp_path)) == 2


def test_a_disk_that_fills_up_leaves_a_run_that_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"steps": 5, "checkpoint_every": 2}
    straight = loop(tmp_path / "straight", settings)
    straight.train()
    folder = tmp_path / "full"
    save, calls = torch.save, []

    def full(value: Any, path: Path) -> None:
        calls.append(path)
        if len(calls) == 2:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        save(value, path)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(StoreError, match="No space left"):
        loop(folder, settings).train()
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["step-000002"]
    resumed = loop(folder, settings)
    resumed.train()
    assert rows(folder) == rows(tmp_path / "straight")
    assert_identical(weights(resumed), weights(straight))


def test_draws_visit_every_problem_once_per_epoch_in_an_order_of_the_seed() -> None:
    names = [problem.id for problem in Draws(TASK, 3).next(24)]
    assert set(names[:12]) == set(names[12:]) == {problem.id for problem in TASK.problems}
    assert names[:12] != names[12:]
    assert [problem.id for problem in Draws(TASK, 3, position=17).next(5)] == names[17:22]
    assert [problem.id for problem in Draws(TASK, 4).next(24)] != names


def test_a_prompt_that_comes_twice_in_a_step_keeps_two_baselines(tmp_path: Path) -> None:
    run = loop(tmp_path, {"steps": 1, "prompts_per_step": 30})
    collected = run.collect(0, Draws(TASK, 0))
    assert len(collected.groups) == 30
    by_group = [[rollout.completion.token_ids for rollout in group.rollouts] for group in collected.groups]
    assert len({tuple(group) for group in by_group}) == 30
    run.train()


def test_a_group_of_one_is_refused_by_its_field() -> None:
    with pytest.raises(SettingsError, match="group_size is 1: it must be at least 2"):
        LoopSettings.parse({"group_size": 1})


def test_the_log_and_the_samples_on_disk_hold_what_a_reader_needs(tmp_path: Path) -> None:
    loop(tmp_path, {"rollouts_every": 1, "algorithm": {"kl_coef": 0.1}}).train()
    needed = {
        "step",
        "reward/mean",
        "reward/std",
        "reward/share",
        "completion/length_mean",
        "completion/length_max",
        "completion/truncated",
        "policy/kl",
        "policy/entropy",
        "policy/clip_fraction",
        "policy/ratio_mean",
        "groups/zero_variance",
        "sampler/logprob_gap_mean",
        "optim/grad_norm",
        "optim/learning_rate",
        "optim/loss",
        "tokens/rollout",
        "tokens/train",
        "language/mixed",
        "time/rollout_s",
        "time/train_s",
    }
    first = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
    assert needed <= first.keys()
    assert 0 < first["time/rewards_s"] < first["time/rollout_s"], "rewards are a part of the rollout"
    assert first["time/rewards_share"] == pytest.approx(first["time/rewards_s"] / first["time/step_s"])
    shown = [json.loads(line) for line in (tmp_path / "rollouts" / "step-000001.jsonl").read_text().splitlines()]
    assert len(shown) == 16
    for row in shown:
        assert {"step", "problem_id", "question", "completion", "answer", "reward", "parts", "advantage"} <= row.keys()
    assert sum(row["tokens"] for row in shown) == first["tokens/rollout"]
    assert sum(row["reward"] for row in shown) / 16 == pytest.approx(first["reward/mean"])


def test_a_step_that_is_written_again_stays_whole_for_readers_until_the_new_one_is_there(tmp_path: Path) -> None:
    files = [tmp_path / name / "step-000001.jsonl" for name in ("rollouts", "logprobs")]
    for file in files:
        file.parent.mkdir()
        file.write_text('{"of": "before the kill"}\n')

    def scored() -> Any:
        assert all("before the kill" in file.read_text() for file in files)
        raise KeyboardInterrupt
        yield

    with pytest.raises(KeyboardInterrupt):
        write_rollouts(tmp_path, 1, scored(), None)
    assert all("before the kill" in file.read_text() for file in files)
    write_rollouts(tmp_path, 1, (), None)
    assert [file.read_text() for file in files] == ["", ""]
    assert [path.name for path in tmp_path.glob("*/*")] == ["step-000001.jsonl"] * 2
