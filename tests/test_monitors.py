"""A verifier that starts to fail is an alarm and never a zero; verdicts are audited; known hacks have a number."""

from __future__ import annotations

import json
import os
import signal
import sys
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from r1kit.chat import ChatFormat  # noqa: E402
from r1kit.engines.local import LocalEngine  # noqa: E402
from r1kit.models import attention  # noqa: E402
from r1kit.models.load import Policy, fresh_llama  # noqa: E402
from r1kit.report.folders import StageFolder  # noqa: E402
from r1kit.report.health import checks  # noqa: E402
from r1kit.report.live.curve_points import plot_curves  # noqa: E402
from r1kit.report.page import render  # noqa: E402
from r1kit.report.run import Run  # noqa: E402
from r1kit.rewards import RewardSpec, Scorer, build  # noqa: E402
from r1kit.rewards.part import RewardPart  # noqa: E402
from r1kit.settings import SettingsError  # noqa: E402
from r1kit.tasks.base import Listed  # noqa: E402
from r1kit.tiny.tokenizer import make  # noqa: E402
from r1kit.train import checkpoints  # noqa: E402
from r1kit.train.learner import Learner, OptimizerSettings  # noqa: E402
from r1kit.train.rl.audit import Audit  # noqa: E402
from r1kit.train.rl.loop import RLLoop  # noqa: E402
from r1kit.train.rl.loop_settings import LoopSettings  # noqa: E402
from r1kit.train.rl.monitors import Alarm, VerdictError, hack_metrics, verdict_metrics  # noqa: E402
from r1kit.train.rl.objective import PolicyGradient  # noqa: E402
from r1kit.types import Completion, Group, Message, Outcome, Problem, Prompt, Reward, Rollout, Verdict  # noqa: E402
from r1kit.verifiers import VERIFIERS  # noqa: E402

torch.set_num_threads(1)
attention.register()

TOKENIZER = make()
SMALL: dict[str, Any] = {
    "steps": 5,
    "prompts_per_step": 4,
    "group_size": 4,
    "max_tokens": 6,
    "tokens_per_batch": 200,
    "checkpoint_every": 2,
    "rollouts_every": 10,
}


class Boxed(LocalEngine):
    """Makes a sum of whatever the random model says, on which algebra has to decide: so a worker is asked each time."""

    def generate(self, *args: Any, **options: Any) -> list[list[Completion]]:
        return [[self.boxed(each) for each in group] for group in super().generate(*args, **options)]

    def boxed(self, completion: Completion) -> Completion:
        number = zlib.crc32(completion.text.encode())
        return replace(completion, text=f"\\boxed{{x + {number % 2} + {number} - {number}}}")


def task(answer: str = "x + 1", verifier: str = "math") -> Listed:
    problems = (Problem(id=f"p{i}", prompt=f"{i}+{i}=", answer=answer, verifier=verifier) for i in range(12))
    return Listed(name="sums", problems=tuple(problems))


class Tail:
    """The verdict is a fair one about random text: whether the length is even. From the nth call on it breaks."""

    def __init__(self, breaks_at: float = float("inf")) -> None:
        self.calls, self.breaks_at = 0, breaks_at

    def __call__(self, response: str, reference: str) -> Verdict:
        self.calls += 1
        if self.calls > self.breaks_at:
            raise RuntimeError("the library was upgraded")
        return Verdict.of(len(response) % 2 == 0, extracted=response[-1:])


PARTS = (RewardSpec(name="accuracy"), RewardSpec(name="tag_count", weight=0.2))


def loop(folder: Path, problems: Listed, parts: Sequence[RewardSpec] = PARTS, **changes: Any) -> RLLoop:
    settings = LoopSettings.parse({**SMALL, **changes})
    policy = Policy(fresh_llama(TOKENIZER, layers=1, width=32, heads=2, context=64, seed=0), TOKENIZER, (1,))
    learner = Learner(policy.model, OptimizerSettings(learning_rate=3e-3), steps=settings.steps)

    def quiet(*_: Any) -> None:
        return None

    chat = ChatFormat(system="", plain="{question}")
    objective = PolicyGradient(learner, settings)
    return RLLoop(learner, objective, Boxed(policy), problems, chat, build(parts), settings, folder, quiet, quiet)


def rows(path: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return [{key: value for key, value in row.items() if not key.startswith("time/")} for row in found]


@pytest.mark.parametrize("every", [2, 0])
def test_a_library_that_raises_in_mid_run_stops_it_with_nothing_lost_and_no_zero(
    every: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problems = task("even", "exact")
    monkeypatch.setitem(VERIFIERS, "exact", Tail())
    straight = loop(tmp_path / "straight", problems, checkpoint_every=every)
    straight.train()

    folder = tmp_path / "broken"
    monkeypatch.setitem(VERIFIERS, "exact", Tail(breaks_at=3 * 16))  # good for three steps
    with pytest.raises(VerdictError, match=r"step 4: the verifier failed on 16 of 16 .*exact raised RuntimeError: the"):
        loop(folder, problems, checkpoint_every=every).train()
    assert checkpoints.latest(folder) == checkpoints.folder_of(folder, 3)
    alarm = rows(folder / "metrics.jsonl")[-1]
    assert (alarm["step"], alarm["verifier/failed"], alarm["verifier/unknown"]) == (4, 1.0, 1.0)
    assert "reward/accuracy" not in alarm and "reward/mean" not in alarm
    shown = rows(folder / "rollouts" / "step-000004.jsonl")
    assert len(shown) == 16
    assert all(row["reward"] is None and row["parts"]["accuracy"] is None for row in shown)
    assert {row["notes"]["verdict"] for row in shown} == {"failed"}
    (folder / "stage.json").write_text(json.dumps({"kind": "rl", "stage": "rl"}))
    assert "Verifier failures" in render(Run.open([folder]))

    monkeypatch.setitem(VERIFIERS, "exact", Tail())  # mended
    mended = loop(folder, problems, checkpoint_every=every)
    mended.train()
    assert rows(folder / "metrics.jsonl") == rows(tmp_path / "straight" / "metrics.jsonl")
    for name, tensor in straight.learner.model.state_dict().items():
        assert torch.equal(tensor, mended.learner.model.state_dict()[name])


def workers() -> set[int]:
    """Process ids of this process's verifier workers."""
    children = {int(one) for path in Path("/proc/self/task").glob("*/children") for one in path.read_text().split()}
    return {child for child in children if b"math.worker" in Path(f"/proc/{child}/cmdline").read_bytes()}


def test_a_worker_that_is_killed_in_mid_run_is_replaced_and_changes_no_reward(tmp_path: Path) -> None:
    straight = loop(tmp_path / "straight", task(), steps=3)
    straight.train()
    torn = loop(tmp_path / "torn", task("1 + x"), steps=3)  # other references, so that no verdict comes from a cache
    killed: list[int] = []

    def kill(step: int, row: dict[str, float]) -> None:
        for worker in workers():
            os.kill(worker, signal.SIGKILL)
            killed.append(worker)

    torn.log = kill
    torn.train()
    assert killed
    found, expected = rows(tmp_path / "torn" / "metrics.jsonl"), rows(tmp_path / "straight" / "metrics.jsonl")
    assert [row["verifier/failed"] for row in found] == [0.0, 0.0, 0.0]
    assert [row["reward/accuracy"] for row in found] == [row["reward/accuracy"] for row in expected]
    assert all(0 < row["reward/accuracy"] < 1 for row in found)


def test_workers_that_can_start_no_more_stop_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = loop(tmp_path, task("x + 7"))

    def ruin(step: int, row: dict[str, float]) -> None:
        if step == 1:
            monkeypatch.setattr(sys, "executable", "/bin/false")
            for worker in workers():
                os.kill(worker, signal.SIGKILL)

    run.log = ruin
    with pytest.raises(VerdictError, match=r"step 2: the verifier failed on .*verifier failed: .*run the same command"):
        run.train()
    assert checkpoints.latest(tmp_path) == checkpoints.folder_of(tmp_path, 1)
    shown = rows(tmp_path / "rollouts" / "step-000002.jsonl")
    failed = [row for row in shown if row["notes"]["verdict"] == "failed"]
    assert failed and all(row["reward"] is None and row["advantage"] is None for row in failed)


def test_a_verifier_that_fails_now_and_then_costs_those_samples_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = Tail()

    def now_and_then(response: str, reference: str) -> Verdict:
        if sum(map(ord, response)) % 17 == 0:
            raise RuntimeError("now and then")
        return sound(response, reference)

    monkeypatch.setitem(VERIFIERS, "exact", now_and_then)
    run = loop(tmp_path, task("even", "exact"), steps=4, prompts_per_step=12, rollouts_every=1, max_unknown_rate=0.3)
    run.train()
    shown = [row for path in sorted((tmp_path / "rollouts").iterdir()) for row in rows(path)]
    failed = [row for row in shown if row["notes"]["verdict"] == "failed"]
    assert 0 < len(failed) < 0.3 * len(shown)
    assert all(row["reward"] is None and row["advantage"] is None for row in failed)
    assert all(row["reward"] is not None for row in shown if row not in failed)
    rates = [row["verifier/failed"] for row in rows(tmp_path / "metrics.jsonl")]
    assert sum(rates) / len(rates) == pytest.approx(len(failed) / len(shown))


def group(
    verdicts: Sequence[Outcome | None],
    extracted: Sequence[str | None] = (),
    *,
    number: int = 0,
    answer: str = "4",
    question: str = "What is 1 + 3?",
    texts: Sequence[str] = (),
    verifier: str = "number",
    language: str = "en",
) -> Group:
    """A group as the accuracy reward leaves it."""
    problem = Problem(
        id=f"p{number}", prompt=question, answer=answer, verifier=verifier, language=language, source="made"
    )
    prompt = Prompt(problem_id=problem.id, messages=(Message(role="user", content=question),), token_ids=(1,))
    given = list(extracted) or ["4"] * len(verdicts)
    said = list(texts) or [f"<think>we add them</think> <answer>{one}</answer>" for one in given]
    rollouts = [
        Rollout(
            prompt=prompt,
            completion=Completion(
                token_ids=tuple(range(len(text))), logprobs=(0.0,) * len(text), text=text, finish_reason="stop"
            ),
            reward=Reward(
                total=1.0,
                parts={},
                verdict=None if outcome is None else Verdict(outcome=outcome, extracted=one, detail="why"),
            ),
        )
        for outcome, one, text in zip(verdicts, given, said, strict=True)
    ]
    return Group(problem=problem, rollouts=tuple(rollouts))


def judges(outcome: Outcome | None) -> RewardPart:
    """A part of the reward that gives every completion one verdict and a note of it."""

    def function(completions: list[str], log_verdicts: Any, log_extra: Any, **columns: Any) -> list[float]:
        verdict = None if outcome is None else Verdict(outcome=outcome, extracted=f"by {outcome}", detail="why")
        log_verdicts([verdict] * len(completions))
        log_extra("verdict", [str(outcome)] * len(completions))
        return [1.0] * len(completions)

    return RewardPart(str(outcome), 1.0, function)


def test_the_verdict_of_a_rollout_is_that_of_the_first_weighted_part_that_gives_one() -> None:
    orders: list[tuple[list[RewardPart], Outcome | None]] = [
        ([judges("right"), judges("wrong")], "right"),
        ([judges("wrong"), judges("right")], "wrong"),
        ([judges(None), judges("failed")], "failed"),
        ([replace(judges("wrong"), weight=0.0), judges("right")], "right"),
        ([replace(judges("wrong"), weight=0.0), judges(None)], "wrong"),
        ([judges(None)], None),
    ]
    for parts, expected in orders:
        reward = Scorer(tuple(parts))(["a"])[0]
        assert (reward.verdict and reward.verdict.outcome) == expected
        first, *others = (part.label for part in parts)  # the notes of both are kept
        assert reward.notes == {"verdict": first} | {f"{label}/verdict": label for label in others}


def test_two_accuracy_parts_are_told_apart_and_the_first_is_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(VERIFIERS, "exact", Tail(breaks_at=0))
    strict = RewardSpec(name="accuracy", label="strict")
    loose = RewardSpec(name=f"{__name__}:says_right", label="loose", weight=0.5)
    for specs, alarms in (((strict, loose), True), ((loose, strict), False)):
        trained = loop(tmp_path / specs[0].label, task("even", "exact"), parts=specs, rollouts_every=1, steps=1)
        if alarms:
            with pytest.raises(VerdictError, match="the verifier failed on 16 of 16"):
                trained.train()
        else:
            with pytest.raises(ValueError, match="no completion got a reward"):
                trained.train()
        row = rows(tmp_path / specs[0].label / "rollouts" / "step-000001.jsonl")[0]
        assert row["notes"]["verdict"] == ("failed" if alarms else "right")
        assert row["notes"][f"{specs[1].label}/verdict"] == ("right" if alarms else "failed")


def says_right(completions: list[str], log_verdicts: Any, log_extra: Any, **columns: Any) -> list[float]:
    """A reward of somebody's own, which gives verdicts."""
    log_verdicts([Verdict(outcome="right")] * len(completions))
    log_extra("verdict", ["right"] * len(completions))
    return [1.0] * len(completions)


def test_the_rates_count_verdicts_and_nothing_that_was_not_judged() -> None:
    groups = [group(["right", "wrong", "failed", "unknown"]), group([None, None])]
    assert verdict_metrics(groups) == {"verifier/unknown": 0.5, "verifier/failed": 0.25}
    assert verdict_metrics([group([None])]) == {}
    Alarm(0.0).check(1, [group([None, None])])


def test_references_that_cannot_be_used_stop_a_run_only_when_there_are_many_of_them() -> None:
    bad, good = group(["unknown"] * 4), group(["right"] * 4)
    few = Alarm(0.1)
    for step in range(1, 60):
        few.check(step, [good] * 15 + [bad] * (step % 2))
    many = Alarm(0.1)
    with pytest.raises(
        VerdictError, match=r"step 16: 25% of the verdicts on the last 64 problems .*p0 by 'number': why"
    ):
        for step in range(1, 60):
            many.check(step, [good] * 3 + [bad])
    Alarm(1.0).check(1, [group(["failed"] * 8)] * 100)


def test_one_failure_of_the_verifier_is_no_alarm_and_two_above_the_rate_are() -> None:
    Alarm(0.1).check(1, [group(["failed", "right", "right", "right"])])
    with pytest.raises(VerdictError, match="failed on 2 of 4"):
        Alarm(0.1).check(1, [group(["failed", "failed", "right", "right"])])


def test_settings_name_a_rate_and_a_verifier_that_exist() -> None:
    with pytest.raises(SettingsError, match="max_unknown_rate"):
        LoopSettings.parse({"max_unknown_rate": 1.5})
    with pytest.raises(SettingsError, match="did you mean math"):
        LoopSettings.parse({"audit_verifier": "maths"})


def test_the_audit_keeps_what_two_verifiers_see_differently(tmp_path: Path) -> None:
    # "exact" compares letters: 4.0 is wrong for it and right for math
    groups = [group(["right", "wrong"], ["4", "4.0"], verifier="exact"), group(["failed", None], verifier="exact")]
    audit = Audit(tmp_path, 1.0, "", 0)
    assert audit(3, groups) == {"audit/count": 2.0, "audit/right": 2.0, "audit/disagreement": 0.5}
    row = rows(tmp_path / "audit.jsonl")[0]
    assert (row["step"], row["extracted"], row["verdict"], row["second"], row["second_verdict"]) == (
        3,
        "4.0",
        "wrong",
        "math",
        "right",
    )
    assert row["completion"] and row["question"] and row["answer"] == "4"
    audit.resume(2)
    assert rows(tmp_path / "audit.jsonl") == []


def test_the_audit_counts_what_the_second_verifier_cannot_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VERIFIERS, "choice", lambda response, reference: Verdict(outcome="unknown", detail="no choice"))
    audit, groups = Audit(tmp_path, 1.0, "choice", 0), [group(["right", "wrong"], ["4", "5"], verifier="exact")]
    assert audit(1, groups) == {"audit/unknown": 2.0}
    assert not (tmp_path / "audit.jsonl").exists()
    mixed = {"audit/count": 30.0, "audit/disagreement": 0.0, "audit/unknown": 10.0}
    for row, status in (({"audit/unknown": 2.0}, "attention"), (mixed, "healthy")):
        found = next(one for one in checks(stage(tmp_path, lambda at, row=row: row), {}) if "Audit" in one.name)
        assert found.status == status and "the second verifier could not tell" in found.evidence


def test_the_audit_draws_its_share_by_seed_and_step(tmp_path: Path) -> None:
    groups = [group(["right"] * 8, number=n) for n in range(50)]
    counts = [Audit(tmp_path, 0.1, "math", seed)(step, groups)["audit/count"] for seed, step in ((0, 1), (0, 1))]
    assert counts[0] == counts[1] and 20 < counts[0] < 65
    assert Audit(tmp_path, 0.0, "math", 0)(1, groups) == {}
    assert Audit(tmp_path, 1.0, "", 0)(1, [group(["right"], verifier="math")]) == {}  # there is none stronger
    last = group(["right"], ["4"], texts=["so it is 4"], verifier="last-number")
    assert Audit(tmp_path, 1.0, "", 0)(1, [last]) == {"audit/count": 1.0, "audit/right": 1.0, "audit/disagreement": 0.0}
    assert not (tmp_path / "audit.jsonl").exists()


def test_a_run_is_audited_and_the_report_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VERIFIERS, "exact", Tail())
    monkeypatch.setitem(VERIFIERS, "choice", lambda response, reference: Verdict(outcome="right", extracted="1"))
    problems = task("even", "exact")
    loop(tmp_path, problems, audit_share=0.5, audit_verifier="choice", rollouts_every=1).train()
    written = rows(tmp_path / "metrics.jsonl")
    total = sum(row["audit/count"] for row in written)
    differing = sum(row["audit/count"] * row["audit/disagreement"] for row in written)
    assert 20 < total < 60 and differing == pytest.approx(len(rows(tmp_path / "audit.jsonl")))
    check = next(check for check in checks(StageFolder("rl", tmp_path), {}) if check.name == "Audit of verdicts")
    assert check.status == "attention" and f"{differing:.0f} of {total:.0f}" in check.evidence
    assert "wrong by exact, right by choice" in check.evidence


def test_the_form_without_the_answer_has_a_number() -> None:
    groups = [group(["wrong", "wrong", "right"], texts=["<think>a</think><answer>9</answer>", "9", "4"])]
    assert hack_metrics(groups)["hack/format_only"] == pytest.approx(1 / 3)


def test_lengths_of_right_and_wrong_answers_are_told_apart() -> None:
    row = hack_metrics([group(["right", "wrong", "wrong", "failed"], texts=["abc", "abcde", "a", "abcdefg"])])
    assert (row["completion/length_right"], row["completion/length_wrong"]) == (3.0, 3.0)
    assert "completion/length_wrong" not in hack_metrics([group(["right"])])


def test_a_wrong_answer_that_stands_in_the_prompt_is_copied() -> None:
    groups = [
        group(["wrong", "wrong", "wrong", "right"], ["3", "3.0", "7", "4"]),
        group(["wrong", "wrong"], ["1,200", None], question="Of $1,200, half is gone.", answer="600", number=1),
    ]
    assert hack_metrics(groups)["hack/copied"] == pytest.approx(3 / 6)


def test_one_answer_for_all_counts_beyond_where_it_is_right() -> None:
    same = [group(["wrong"] * 4, ["7"] * 4, number=n, answer=str(n)) for n in range(10)]
    assert hack_metrics(same)["hack/one_answer"] == pytest.approx(0.9)  # for problem 7 it is right
    fair = [group(["right"] * 4, [letter] * 4, number=n, answer=letter) for n, letter in enumerate("AABBA")]
    assert hack_metrics(fair)["hack/one_answer"] == 0.0
    assert "hack/one_answer" not in hack_metrics([group(["right"])])


def test_repetition_and_languages_have_a_number() -> None:
    row = hack_metrics([group(["wrong", "wrong"], texts=["we add two " * 20, "我们先把它们加起来"])])
    assert row["hack/repetition"] > 0.45
    assert (row["language/other"], row["language/mixed"]) == (0.5, 0.0)
    unknown = hack_metrics([group(["wrong"], language="xx")])
    assert "language/other" not in unknown


def stage(folder: Path, row: Callable[[float], dict[str, float]]) -> StageFolder:
    """Forty steps of one metric; `row` gets how far the run is, from 0 to 1."""
    lines = [json.dumps({"step": step + 1, **row(step / 39)}) for step in range(40)]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    return StageFolder("rl", folder)


HACKED: tuple[tuple[str, Callable[[float], dict[str, float]]], ...] = (
    ("Copied answers", lambda at: {"hack/copied": 0.1 + 0.5 * at}),
    ("Same answer to all problems", lambda at: {"hack/one_answer": at}),
    ("Repetition", lambda at: {"hack/repetition": 0.02 + 0.6 * at}),
    ("Wrong language", lambda at: {"language/other": 0.5 * at}),
    ("Format-only gains", lambda at: {"reward/format": at, "reward/accuracy": 0.1}),
    ("Verifier failures", lambda at: {"verifier/failed": 0.05 if at == 1 else 0.0}),
    (
        "Completion length",
        lambda at: {
            "completion/length_mean": 50,
            "completion/length_right": 40,
            "completion/length_wrong": 50 + 300 * at,
            "reward/accuracy": 0.2 + 0.5 * at,
        },
    ),
)


@pytest.mark.parametrize(("name", "row"), HACKED)
def test_the_report_points_at_each_known_hack(
    name: str, row: Callable[[float], dict[str, float]], tmp_path: Path
) -> None:
    found = {check.name: check for check in checks(stage(tmp_path, row), {})}
    assert found[name].status == "attention" and found[name].advice
    steady = {check.name: check for check in checks(stage(tmp_path, lambda at: row(0.0)), {})}
    assert steady[name].status != "attention" and steady[name].limit


def test_a_check_is_not_applicable_where_its_question_does_not_arise(tmp_path: Path) -> None:
    run = stage(
        tmp_path,
        lambda at: {"reward/mean": 1 - at, "probe/accuracy": 1 - at, "optim/grad_norm": 0.0, "hack/repetition": 0.0},
    )
    (tmp_path / "rollouts").mkdir()
    (tmp_path / "rollouts" / "step-000040.jsonl").write_text(json.dumps({"completion": "</think>" * 40}) + "\n")
    found = {check.name: check.status for check in checks(run, {})}
    assert found == dict.fromkeys(("Over-optimisation", "Numbers", "Repetition"), "not applicable")


def test_what_is_no_longer_logged_has_no_figure_of_the_last_quarter(tmp_path: Path) -> None:
    run = stage(
        tmp_path,
        lambda at: {"completion/length_mean": 30 + 90 * at} | ({"completion/length_right": 30.0} if at < 0.1 else {}),
    )
    (found,) = checks(run, {})
    assert "right answers 30 at first, none after step 4" in found.evidence
    (curves,) = [plot.series for plot in plot_curves(run.metrics, -1, 100) if plot.title == "Completion length"]
    assert [curve.ends[1] is None for curve in curves] == [False, True]
