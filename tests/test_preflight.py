"""A training stage checks itself before its first step: what is broken is named, and no result changes."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from r1kit.chat import ChatFormat, saved  # noqa: E402
from r1kit.cli import main  # noqa: E402
from r1kit.engines.local import LocalEngine  # noqa: E402
from r1kit.models.load import frozen_copy  # noqa: E402
from r1kit.pipeline.context import Context  # noqa: E402
from r1kit.rewards import build  # noqa: E402
from r1kit.rewards.scorer import Scorer  # noqa: E402
from r1kit.rewards.spec import RewardSpec  # noqa: E402
from r1kit.stages.on_policy import ON_POLICY  # noqa: E402
from r1kit.stages.rl import RL  # noqa: E402
from r1kit.stages.sft import SFT  # noqa: E402
from r1kit.stages.shared import preflight as stage_preflight  # noqa: E402
from r1kit.train.preflight.lines import PreflightError  # noqa: E402
from r1kit.train.preflight.references import form_line, frame_line, pairs_of, reference_replies, verifier_line  # noqa: E402
from r1kit.types import Completion, Problem, SamplingParams  # noqa: E402
from r1kit.verifiers import verify_all  # noqa: E402
from test_rl import assert_identical, rows  # noqa: E402

torch.set_num_threads(1)

CHAT = {"system": ""}
SMALL: dict[str, Any] = {
    "tasks": [{"name": "tiny/sums", "limit": 100}],
    "rewards": ["accuracy", {"name": "test_rl.share_of_low_ids"}],
    "chat": CHAT,
    "steps": 2,
    "prompts_per_step": 2,
    "group_size": 4,
    "max_tokens": 12,
    "optimizer": {"learning_rate": 1e-2},
}


def run(model: Path, folder: Path, kind: Any = RL, inputs: dict[str, Path] | None = None, **changes: Any) -> Path:
    values = (SMALL if kind is not SFT else {"chat": CHAT, "batch_size": 4, "max_tokens": None}) | changes
    folder.mkdir(parents=True, exist_ok=True)
    paths = {"model": model, **(inputs or {})}
    kind.run(Context(stage="s", settings=kind.settings.parse(values), folder=folder, paths=paths))
    return folder


def lines(folder: Path) -> dict[str, str]:
    return {line["check"]: line["verdict"] for line in json.loads((folder / stage_preflight.FILE).read_text())}


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return dict(load_file(folder / "model" / "model.safetensors"))


@pytest.fixture
def conversations(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    turns = [
        [{"role": "user", "content": f"{n}+1?"}, {"role": "assistant", "content": f"<think> {n}+1 </think> {n + 1}"}]
        for n in range(12)
    ]
    path.write_text("".join(json.dumps({"messages": each}) + "\n" for each in turns))
    return path


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"algorithm": "paper", "minibatches": 2},
        {"lora_rank": 4},
        {"algorithm": {"covariance": {"kind": "clip"}}, "top_p": 0.9},
    ],
    ids=["grpo", "paper", "lora", "covariance"],
)
def test_no_result_of_rl_changes(changes: dict[str, Any], tiny_policy_folder: Path, tmp_path: Path) -> None:
    checked = run(tiny_policy_folder, tmp_path / "checked", **changes)
    unchecked = run(tiny_policy_folder, tmp_path / "unchecked", preflight="off", **changes)
    assert set(lines(checked).values()) <= {"ok", "unclear"} and not (unchecked / stage_preflight.FILE).exists()
    assert lines(checked)["sampler-trainer gap"] == lines(checked)["weights reach the sampler"] == "ok"
    assert_identical(weights(checked), weights(unchecked))
    assert rows(checked) == rows(unchecked)


def test_no_result_of_sft_and_of_a_teacher_changes(
    conversations: Path, tiny_policy_folder: Path, tmp_path: Path
) -> None:
    for kind, inputs in ((SFT, {"data": conversations}), (ON_POLICY, {"teacher": tiny_policy_folder})):
        own = {"rewards": []} if kind is ON_POLICY else {}
        folders = [
            run(tiny_policy_folder, tmp_path / kind.name / preflight, kind, inputs, preflight=preflight, **own)
            for preflight in ("stop", "off")
        ]
        assert_identical(*map(weights, folders))
        assert rows(folders[0]) == rows(folders[1])
        # a student that is its teacher has no gradient
        assert lines(folders[0])["gradient by split and packing"] == ("ok" if kind is SFT else "unclear")


def test_a_resumed_stage_and_one_that_passed_do_not_check_again(tiny_policy_folder: Path, tmp_path: Path) -> None:
    folder = run(tiny_policy_folder, tmp_path, checkpoint_every=1)
    context = Context(stage="s", settings=RL.settings.parse(SMALL), folder=folder)
    assert not stage_preflight.is_due(context)
    (folder / stage_preflight.FILE).unlink()
    assert not stage_preflight.is_due(context), "it has a checkpoint"
    new = replace(context, folder=tmp_path / "new")
    assert stage_preflight.is_due(new)
    new.folder.mkdir()
    for damaged in ("[]", "{}", "[1]", "{", "3", '[{"check": "x"}]'):
        (new.folder / stage_preflight.FILE).write_text(damaged)
        assert stage_preflight.is_due(new)


class Stale(LocalEngine):
    def load_weights(self, named_tensors: object, version: int) -> None:
        """Samples with the weights of the start for ever."""


class Cold(LocalEngine):
    def generate(self, prompts: Any, params: Any, report: Any = None) -> Any:
        return super().generate(prompts, replace(params, temperature=0.7), report)


def stale(settings: Any, policy: Any) -> LocalEngine:
    return Stale(replace(policy, model=frozen_copy(policy.model)))


def endless(settings: Any, policy: Any) -> LocalEngine:
    return LocalEngine(replace(policy, end_ids=(policy.tokenizer.pad_token_id,)))


def other_policy(model: Any) -> Any:
    copy = frozen_copy(model)
    with torch.no_grad():
        next(iter(copy.parameters())).mul_(1.5)
    return copy


def engine(make: Callable[..., Any]) -> Any:
    return patch("r1kit.stages.shared.sampling_loop.open_policy_engine", make)


def constant(completions: Sequence[str], **columns: Any) -> list[float]:
    return [1.0] * len(completions)


def inverted(completions: Sequence[str], answer: Sequence[str], **columns: Any) -> list[float]:
    return [
        -float(f"<answer>{right}</answer>" in text.replace(" ", ""))
        for text, right in zip(completions, answer, strict=True)
    ]


def raising(completions: Sequence[str], **columns: Any) -> list[float]:
    raise KeyError("answer_key")


def own_batch(settings: Any) -> Any:
    from r1kit.models.policy_net import LossOutput

    return lambda logprobs, targets, totals: LossOutput(-(logprobs * targets.advantages).mean(), {})


@pytest.mark.parametrize(
    ("check", "plant", "changes"),
    [
        ("weights reach the sampler", engine(stale), {}),
        ("sampler-trainer gap: .*temperature is about 0.7", engine(lambda settings, policy: Cold(policy)), {}),
        ("KL at step 0", patch("r1kit.train.rl.reference.frozen_copy", other_policy), {"algorithm": "paper"}),
        ("rewards on your references.*no group would", nullcontext(), {"rewards": ["test_preflight:constant"]}),
        ("prefers wrong answers", nullcontext(), {"rewards": ["test_preflight:inverted"]}),
        ("raise an error.*answer_key", nullcontext(), {"rewards": ["test_preflight:raising"]}),
        ("gradient by split", nullcontext(), {"algorithm": {"loss": "test_preflight:own_batch"}}),
    ],
    ids=["stale", "temperature", "reference", "constant", "inverted", "raising", "own-batch"],
)
def test_what_is_broken_is_named(
    check: str, plant: AbstractContextManager[Any], changes: Any, tiny_policy_folder: Path, tmp_path: Path
) -> None:
    with plant, pytest.raises(PreflightError, match=check):
        run(tiny_policy_folder, tmp_path, **changes)
    assert "fails" in lines(tmp_path).values()


def test_a_sampler_that_waits_for_another_end_is_named(tmp_path: Path) -> None:
    from r1kit.models.known import resolve
    from r1kit.tiny.frame import TINY_CHAT

    with engine(endless), pytest.raises(PreflightError, match=r"end of completions: .* go on behind"):
        run(resolve("tiny"), tmp_path, chat=TINY_CHAT, max_tokens=64)


def test_prompts_that_the_model_was_not_trained_on_are_named(tiny_policy_folder: Path, tmp_path: Path) -> None:
    import shutil

    model = tmp_path / "model"
    shutil.copytree(tiny_policy_folder, model)
    saved.save(ChatFormat(system="", plain="Q: {question}"), model)
    with pytest.raises(PreflightError, match=r"plain is .* here, 'Q: .*' where the model was trained"):
        run(model, tmp_path / "stops")
    run(model, tmp_path / "warned", preflight="warn")
    run(model, tmp_path / "arm", is_control=True)
    saved.save(ChatFormat(system="Think."), model)
    assert lines(run(model, tmp_path / "meant"))["prompts as the model knows them"] == "unclear"


def test_rows_without_a_trained_end_are_named(
    conversations: Path, tiny_policy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from r1kit.chat import samples

    joined = samples._joined
    cut = lambda turns, ends: [replace(s, loss_mask=(*s.loss_mask[:-1], False)) for s in joined(turns, ends)]  # noqa: E731
    monkeypatch.setattr(samples, "_joined", cut)
    with pytest.raises(PreflightError, match="masks: 12 of 12 rows: the last token is not trained on"):
        run(tiny_policy_folder, tmp_path, SFT, {"data": conversations})


def test_references_that_the_verifier_cannot_use_are_named() -> None:
    problems = [Problem(id=f"p{n}", prompt="?", answer=f"about {n} or so", verifier="number") for n in range(8)]
    line = verifier_line(pairs_of(problems))
    assert line.verdict == "fails" and "p0" in line.remedy
    right = [replace(problem, answer=str(number)) for number, problem in enumerate(problems)]
    assert verifier_line(pairs_of(right)).verdict == "ok"
    assert list(reference_replies(replace(right[0], answer=""))) == []


@pytest.mark.parametrize("answers", [["5"], ["7"] * 6])
def test_references_are_judged_though_there_is_no_answer_of_another_problem(answers: list[str]) -> None:
    problems = [Problem(id=f"p{n}", prompt="?", answer=answer, verifier="math") for n, answer in enumerate(answers)]
    line = verifier_line(pairs_of(problems))
    assert (line.verdict, line.value) == (
        "ok",
        f"{len(answers)} of {len(answers)} are judged right, and 0 wrong answers",
    )


FRAMES = [
    ("Counted, it is {}.", "?", True),
    ("{}", "?", False),
    ("{} apples are left", "?", True),
    ("It is {}", "?", False),
]


@pytest.mark.parametrize(
    ("frame", "prompt", "fails"), [*FRAMES, ("Counted, it is {}.", "Say: Counted, it is N.", False)]
)
def test_references_that_are_a_sentence_around_an_answer_are_named(frame: str, prompt: str, fails: bool) -> None:
    problems = [Problem(id=f"p{n}", prompt=prompt, answer=frame.format(n), verifier="exact") for n in range(9)]
    assert [line.verdict for line in frame_line(problems)] == ["fails"] * fails
    assert not frame_line([replace(problem, verifier="math") for problem in problems])


def completed(problem: Problem, text: str) -> tuple[Problem, Completion, str]:
    ids = tuple(range(len(text)))
    return problem, Completion(token_ids=ids, logprobs=(0.0,) * len(ids), text=text, finish_reason="length"), text


def test_wrong_answers_in_a_form_that_the_verifier_reads_are_no_fault() -> None:
    for verifier, fails in (("math", False), ("exact", True)):
        problems = [Problem(id=f"p{n}", prompt="?", answer=str(n), verifier=verifier) for n in range(8)]
        assert verify_all(verifier, ["<answer> 7 cm </answer>"], ["7"])[0].correct is not fails
        found = form_line([completed(problem, "<answer> 100 cm </answer>") for problem in problems])
        assert any(line.verdict == "fails" for line in found) is fails


@pytest.mark.parametrize(("names", "verifier"), [(["language_consistency", "reward_model"], "math"), (["format"], "")])
def test_equal_rewards_prove_nothing_without_references_or_a_judging_model(names: list[str], verifier: str) -> None:
    problems = [Problem(id=f"p{n}", prompt="?", answer=str(n) if verifier else "", verifier=verifier) for n in range(8)]
    specs = [RewardSpec(name=name) for name in names]
    (rule,) = build(specs[:1]).parts
    scorer = Scorer(tuple(replace(rule, label=spec.title) for spec in specs))
    settings = SimpleNamespace(rewards=specs, sampling=lambda step: SamplingParams(max_tokens=9, seed=0))
    tokenizer = SimpleNamespace(encode=lambda text, **options: list(text.encode()))
    short = [completed(problem, "<think> I think") for problem in problems]
    lines = stage_preflight.reward_lines(settings, scorer, problems, tokenizer, short)
    assert (lines[-1].check, lines[-1].verdict) == ("rewards on your references", "unclear")


def test_the_command_checks_all_stages_and_its_status_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ['rl.tasks=[{"name":"tiny/sums","limit":50}]', 'eval.tasks=[{"name":"tiny/sums","limit":4}]']
    arguments = ["preflight", "r1-zero", "--scale", "tiny", "--runs", str(tmp_path), "--json"]
    for each in small:
        arguments += ["--set", each]
    (killed := subprocess.Popen([sys.executable, "-c", ""])).wait()
    (tmp_path / f".preflight.tmp-{killed.pid}-a@{socket.gethostname()}").mkdir()
    assert main(arguments) == 0
    stages = {stage["stage"]: stage["lines"] for stage in json.loads(capsys.readouterr().out)}
    checks = {line["check"]: line for line in stages["rl"]}
    assert checks["three steps, resumed"]["verdict"] == "ok" and checks["memory"]["verdict"] == "ok"
    assert not list(tmp_path.glob("**/stage.json")) and not list(tmp_path.glob(".preflight*"))
    assert main([*arguments, "--set", "eval.chat.system=Be brief."]) == 1
    failing = [line for stage in json.loads(capsys.readouterr().out) for line in stage["lines"] if line["remedy"]]
    assert [line["check"] for line in failing] == ["prompts of eval-zero"]


def test_a_data_type_that_was_measured_once_holds_for_the_resumed_steps(
    tiny_policy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two measurements on a busy machine can differ, and so would the results."""
    from r1kit.engines import stage_policy
    from r1kit.stages.shared.first_steps import first_steps

    chosen, real = [], stage_policy.compute_dtype

    def recorded(*arguments: Any) -> Any:
        chosen.append(real(*arguments))
        return chosen[-1]

    monkeypatch.setattr(stage_policy, "compute_dtype", recorded)
    settings = RL.settings.parse(SMALL | {"steps": 3})
    context = Context(stage="s", settings=settings, folder=tmp_path / "run", paths={"model": tiny_policy_folder})
    found, _ = first_steps(RL, context, tmp_path / "scratch")
    assert {line.check: line.verdict for line in found}["three steps, resumed"] == "ok"
    assert chosen == ["auto", "fp32"]


def test_steps_without_a_gradient_say_nothing_about_resuming(tiny_policy_folder: Path, tmp_path: Path) -> None:
    from r1kit.stages.shared.first_steps import first_steps

    settings = RL.settings.parse(SMALL | {"steps": 3, "rewards": ["accuracy"], "max_tokens": 2})  # nothing is right
    context = Context(stage="s", settings=settings, folder=tmp_path / "run", paths={"model": tiny_policy_folder})
    found, metrics = first_steps(RL, context, tmp_path / "scratch")
    assert [row["optim/grad_norm"] for row in metrics] == [0.0, 0.0, 0.0]
    (resumed,) = (line for line in found if line.check == "three steps, resumed")
    assert resumed.verdict == "unclear" and "no gradient" in resumed.value


def test_equal_rows_whose_gradients_cancel_are_no_leak(tiny_policy_folder: Path) -> None:
    """A policy that is sure of its answers samples the same one again; what is left of the sum is rounding."""
    from r1kit.models.batch import Totals
    from r1kit.models.load import load
    from r1kit.train.learner import Learner, OptimizerSettings
    from r1kit.train.losses.policy_gradient import grpo
    from r1kit.train.losses.policy_settings import PRESETS
    from r1kit.train.packing import pack
    from r1kit.train.preflight.gradient import gradient_line, gradient_of
    from r1kit.train.rl.collect import to_sample
    from r1kit.types import Prompt, Reward, Rollout

    policy = load(str(tiny_policy_folder))
    learner = Learner(policy.model, OptimizerSettings(), steps=1)
    prompt = Prompt(problem_id="p", messages=(), token_ids=(5, 6, 7))
    completion = Completion(token_ids=(8, 9, 10), logprobs=(-1.0, -1.0, -1.0), text="", finish_reason="stop")
    rollout = Rollout(prompt=prompt, completion=completion, reward=Reward(total=0.0, parts={}))
    [batch] = pack([to_sample(rollout, 1.0)], 512, policy.model)
    rollout = replace(rollout, completion=replace(completion, logprobs=tuple(learner.logprobs(batch).tolist())))
    samples = [to_sample(rollout, advantage) for advantage in (1.0, -1.0, 1.0, -1.0)]
    totals, loss = Totals.of(samples, 8), grpo(PRESETS["grpo"])
    alone = [[(loss, pack([sample], 512, policy.model))] for sample in samples]
    rounding = {name: torch.full_like(weight, 1e-12) for name, weight in learner.parameters.items()}
    assert gradient_line(learner, rounding, alone, totals).verdict == "ok"
    halved = {name: gradient / 2 for name, gradient in gradient_of(learner, alone[0], totals).items()}
    assert gradient_line(learner, halved, alone[:1], totals).verdict == "fails"
