"""The recipe r1-zero through the command line: it runs, resumes after a kill, redoes what changed, and refuses bad
input."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from r1kit.cli import main
from r1kit.collect.prompting import Exemplar
from r1kit.curate import presets
from r1kit.curate.curation import curate
from r1kit.curate.formats import render
from r1kit.pipeline import External, plan
from r1kit.recipes import RECIPES, build_recipe, exemplars
from r1kit.recipes.builder import Builder
from r1kit.recipes.r1 import reasoner
from r1kit.recipes.scales import choose_scale
from r1kit.recipes.scales.tiny import TINY
from r1kit.settings import SettingsError

SMALL = {
    "rl.steps": "4",
    "rl.prompts_per_step": "3",
    "rl.group_size": "4",
    "rl.max_tokens": "16",
    "rl.rollouts_every": "2",
    "rl.checkpoint_every": "1",
    "eval.max_tokens": "16",
    "eval.samples": "2",
    "eval.tasks": '[{"name": "tiny/sums", "limit": 6}]',
    "rl.tasks": '[{"name": "tiny/reasoning", "limit": 60}]',
}


def arguments(model: Path, runs: Path, **changes: str) -> list[str]:
    settings = SMALL | {name.replace("__", "."): value for name, value in changes.items()}
    pairs = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    return ["r1-zero", "--scale", "tiny", "--model", str(model), "--runs", str(runs), *pairs]


def statuses(capsys: pytest.CaptureFixture[str], wanted: list[str]) -> dict[str, str]:
    capsys.readouterr()
    assert main(["plan", *wanted, "--json"]) == 0
    return {row["stage"]: row["status"] for row in json.loads(capsys.readouterr().out)}


def test_r1_zero_runs_and_a_second_run_has_nothing_to_do(
    tiny_policy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = arguments(tiny_policy_folder, tmp_path)
    assert main(["run", *wanted]) == 0
    *table, folder = capsys.readouterr().out.splitlines()
    assert any(line.startswith("pass@1") and "difference" in table[0] for line in table)
    summary = json.loads((Path(folder) / "summary.json").read_text())
    assert list(summary["tables"][0]["columns"]) == ["base", "zero"]
    assert (Path(folder) / "report.html").stat().st_size > 10_000
    assert set(statuses(capsys, wanted).values()) == {"done"}
    # a changed setting redoes exactly what depends on it
    changed = statuses(capsys, arguments(tiny_policy_folder, tmp_path, rl__algorithm="dapo"))
    assert changed == {"eval-base": "done", "rl": "run", "eval-zero": "run", "report": "run"}
    same = statuses(capsys, arguments(tiny_policy_folder, tmp_path, rl__rollouts_every="3"))
    assert set(same.values()) == {"done"}


def test_killed_in_the_middle_it_goes_on_from_its_checkpoint(
    tiny_policy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = arguments(tiny_policy_folder, tmp_path, rl__steps="100")
    child = subprocess.Popen([sys.executable, "-m", "r1kit", "run", *wanted], stderr=subprocess.PIPE, text=True)
    assert child.stderr is not None
    for line in child.stderr:  # a line a second, so there are checkpoints by the first that is not 0/100
        if re.search(r"rl: +[1-9]\d*/100", line):
            break
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert statuses(capsys, wanted)["rl"] == "resume"
    assert main(["run", *wanted]) == 0
    assert "resumes after step" in capsys.readouterr().err
    rows = [json.loads(line) for line in next(tmp_path.glob("*/rl-*/metrics.jsonl")).read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 101))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rl__group_size": "1"}, "group_size"),
        ({"rl__rewards": "acuracy"}, "did you mean accuracy"),
        ({"rl__learning_rate": "1"}, "no setting rl.learning_rate: did you mean rl.optimizer.learning_rate?"),
        ({"rl__max_tokens": "2000"}, "max_tokens is 2000, and the model's context is 1024"),
        ({"rl__max_tokens": "1000"}, "lower max_tokens or set max_prompt_tokens"),
        ({"eval__max_tokens": "1000"}, "lower max_tokens or leave the problem out"),
        ({"rl__device": "cuda:99"}, "device 'cuda:99' cannot be used"),
        ({"rl__optimizer.betas": "[1.5, 0.9]"}, "optimizer.betas.0 is 1.5: it must be below 1"),
        ({"rl__rewards.0.weight": "3"}, "rl.rewards is a list: set all of it, as JSON: rl.rewards=[...]"),
        ({"rl__steps.first": "3"}, "steps has no settings in it"),
        ({"rl__tasks": "nowhere.jsonl"}, "nowhere.jsonl"),
        ({"rl__tasks": "svamp"}, "evaluation only"),
        ({"rl__chat.template": "chat"}, "no chat template"),
    ],
)
def test_bad_settings_are_refused_with_one_message(
    tiny_policy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, str], message: str
) -> None:
    for command in ("plan", "run"):
        assert main([command, *arguments(tiny_policy_folder, tmp_path, **changes)]) == 1
        error = capsys.readouterr().err
        assert message in error and "Traceback" not in error
    assert not list(tmp_path.glob("*/*"))


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "no rows"), ('{"question": "1+1?"}\n', "answer"), ('{"question": "1+1?", "answer": "2"', "row 1")],
)
def test_bad_data_is_refused_before_work(
    tiny_policy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, message: str
) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(content)
    assert main(["run", *arguments(tiny_policy_folder, tmp_path / "runs", rl__tasks=str(file))]) == 1
    error = capsys.readouterr().err
    assert message in error and "rows.jsonl" in error and "Traceback" not in error
    assert not list(tmp_path.glob("runs/*/eval-base-*/manifest.json"))


def test_long_prompts_are_refused_before_work_or_left_out(
    tiny_policy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rows.jsonl"
    rows = [{"question": "+".join("1" * size) + "=?", "answer": str(size)} for size in (2, 900, 3)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    wanted = arguments(tiny_policy_folder, tmp_path / "runs", rl__tasks=str(file))
    assert main(["run", *wanted]) == 1
    assert "tokens; with max_tokens 16 that is" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    assert main(["run", *wanted, "--set", "rl.max_prompt_tokens=500"]) == 0
    assert "1 problems with prompts of over 500 tokens left out" in capsys.readouterr().err


@pytest.mark.parametrize("devices", [0, -1])
def test_a_run_on_no_device_is_refused(devices: int) -> None:
    with pytest.raises(SettingsError, match=f"devices is {devices}: give at least 1"):
        build_recipe("r1-zero", scale="tiny", devices=devices)


def test_a_plan_fetches_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["plan", "r1-zero", "--scale", "paper", "--runs", str(tmp_path), "--json"]) == 0
    row = json.loads(capsys.readouterr().out)[0]
    assert row["why"] == "deepseek-ai/DeepSeek-V3-Base is to be fetched"


def test_a_model_without_tokenizer_is_refused(
    tiny_policy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(tiny_policy_folder, bare, ignore=shutil.ignore_patterns("tokenizer*"))
    assert main(["run", *arguments(bare, tmp_path / "runs")]) == 1
    assert "tokenizer" in capsys.readouterr().err


def test_data_that_changed_is_trained_on_again(
    tiny_policy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"question": f"{n}+1=?", "answer": str(n + 1)}) + "\n" for n in range(5)))
    wanted = arguments(tiny_policy_folder, tmp_path / "runs", rl__tasks=str(file))
    assert main(["run", *wanted]) == 0
    with file.open("a") as more:
        more.write('{"question": "9+1=?", "answer": "10"}\n')
    assert statuses(capsys, wanted) == {"eval-base": "done", "rl": "run", "eval-zero": "run", "report": "run"}


def test_a_wrong_item_of_a_list_is_one_line() -> None:
    with pytest.raises(SettingsError, match="there is no reward 'accurcy'") as caught:
        RECIPES["r1-zero"](overrides={"rl.rewards": "accurcy"})
    assert "\n" not in str(caught.value)
    with pytest.raises(SettingsError, match="width is 33 and heads 4"):
        RECIPES["tiny-base"](overrides={"pretrain.width": 33})


def test_a_model_without_a_scale_is_trained_as_its_own_or_as_one_for_a_gpu(tiny_policy_folder: Path) -> None:
    def name(**asked: str) -> str:
        return RECIPES["r1-zero"](**asked).name

    assert name() == name(model="tiny") == "r1-zero-tiny"
    assert name(model=str(tiny_policy_folder)) == name(scale="gpu", model="tiny") == "r1-zero-gpu"
    assert name(model=str(tiny_policy_folder), scale="tiny") == "r1-zero-tiny"
    recipe = RECIPES["r1-zero"](model=str(tiny_policy_folder))
    measured, trained = (recipe.stages[place].settings.tasks[0].name for place in (0, 1))
    assert measured == trained == "gsm8k"


def test_a_scale_refuses_a_much_larger_model_with_the_command_that_is_right(tiny_policy_folder: Path) -> None:
    for name in ("r1-zero", "r1", "distill", "v3"):
        expected = re.escape(f"`r1kit run {name} --model owner/name`")
        with pytest.raises(
            SettingsError, match=f"owner/name is of unknown size.* leave the scale out, as in {expected}"
        ):
            build_recipe(name, scale="tiny", model="owner/name")
        with pytest.raises(SettingsError, match=r"scale tiny .* smollm2-135m is of 13[45],.*: leave the scale out"):
            build_recipe(name, scale="tiny", model="smollm2-135m")
    assert build_recipe("r1", scale="tiny", model=str(tiny_policy_folder)).name == "r1-tiny"
    assert [choose_scale("r1", None, model).name for model in (None, "smollm2-135m", "a/b")] == [
        "tiny",
        "smollm2",
        "gpu",
    ]


R1_ORDER = [
    "zero",
    "few-shot",
    "reflect",
    "cold-start",
    "review",
    "dev1",
    "dev2",
    "rejection",
    "requests",
    "general",
    "mix",
    "dev3",
    "rules",
    "replies",
    "preferences",
    "helpfulness",
    "safety",
    "r1",
]
PUPILS = ["student-rl", "student-sft", "student-logits", "student-on-policy"]
STUDENTS = ["student", *PUPILS]
MODELS = ["base", "zero", "dev1", "dev2", "dev3", "r1", *STUDENTS]


def graph(name: str, **options: Any) -> dict[str, list[str]]:
    """A recipe's stages with what each reads."""
    return {stage.name: [parent.name for parent in stage.parents] for stage in RECIPES[name](**options).stages}


def test_r1_is_the_papers_graph() -> None:
    read = graph("r1")
    measured = [f"{kind}-{model}" for kind in ("eval", "everyday") for model in MODELS]
    assert list(read) == [*R1_ORDER, *PUPILS, *measured, "report"]
    assert read["review"] == ["few-shot", "reflect", "cold-start"] and read["dev1"] == ["review"]
    assert read["dev3"] == ["mix"] and read["mix"] == ["rejection", "general"]  # Dev1 and Dev3 are both from the base
    assert all(read[name] == ["zero"] for name in read["review"]) and read["rejection"] == ["dev2"]
    assert read["r1"] == ["rules", "helpfulness", "safety"] and read["rules"] == ["dev3"]
    assert read["replies"] == ["dev3"] and read["preferences"] == ["replies"]
    assert "replies" not in read["report"] and "rejection" in read["report"]  # nobody reads what the filters keep of it
    assert read["helpfulness"] == ["dev3", "requests", "preferences"] and read["safety"] == ["dev3", "requests"]
    assert read["student-rl"] == [] and read["student-sft"] == ["mix"] and read["student-logits"] == ["r1", "mix"]
    assert read["student-on-policy"] == ["student-sft", "r1"]
    stages = {stage.name: stage for stage in RECIPES["r1"]().stages}
    assert all(stages[f"eval-{model}"].settings == stages["eval-base"].settings for model in MODELS)


def test_a_teacher_writes_cold_start_data_where_the_settings_name_one() -> None:
    teacher = {"kind": "openai", "model": "big", "base_url": "http://localhost:9/v1"}
    named = {f"{name}.engine": teacher for name in ("few-shot", "reflect")}
    read = graph("r1", overrides=named)
    assert read["few-shot"] == read["reflect"] == [] and read["cold-start"] == ["zero"]


@pytest.mark.parametrize("scale", ["tiny", "paper"])
def test_cold_start_has_all_of_the_papers_sources(scale: str) -> None:
    stages = {stage.name: stage.settings.model_dump() for stage in RECIPES["r1"](scale=scale).stages}
    asked = {name: stages[name]["prompting"] for name in ("few-shot", "reflect", "cold-start")}
    assert asked == {"few-shot": "few_shot", "reflect": "reflect", "cold-start": "own"}
    assert [name for name in asked if stages[name]["may_be_empty"]] == ["few-shot", "reflect"]
    assert "unfaithful_summary" in {one["name"] for one in stages["few-shot"]["curate"]["filters"]}


@pytest.mark.parametrize("shown", [exemplars.TINY, exemplars.SMOLLM2, exemplars.MATH], ids=["tiny", "smollm2", "math"])
def test_exemplars_are_what_the_filters_of_cold_start_let_through(shown: tuple[Exemplar, ...], tmp_path: Path) -> None:
    rows = [
        {
            "id": str(number),
            "problem_id": str(number),
            "source": "exemplars",
            "language": one.language,
            "messages": [
                {"role": "user", "content": one.question},
                {"role": "assistant", "content": render(one.reasoning, one.summary, "think_answer")},
            ],
            "verdicts": {"math": {"correct": True}},
            "finish_reason": "stop",
        }
        for number, one in enumerate(shown)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = curate([tmp_path / "rows.jsonl"], tmp_path / "out", presets.COLD_START)
    assert found.kept == len(shown), [step.reasons for step in found.funnel]


def folders(overrides: dict[str, str], runs: Path, seed: int = 0, name: str = "r1") -> dict[str, str]:
    return {row.stage.name: row.folder.name for row in plan(RECIPES[name](overrides=overrides, seed=seed), runs)}


def test_a_changed_setting_in_the_middle_of_r1_redoes_exactly_what_depends_on_it(tmp_path: Path) -> None:
    before = folders({}, tmp_path)

    def redone(change: dict[str, str]) -> set[str]:
        return {name for name, folder in folders(change, tmp_path).items() if folder != before[name]}

    def measured(*models: str) -> set[str]:
        return {f"{kind}-{model}" for kind in ("eval", "everyday") for model in models}

    pupils = {"student-logits", "student-on-policy", *measured("student-logits", "student-on-policy")}
    last = {
        "rules",
        "replies",
        "preferences",
        "helpfulness",
        "safety",
        "r1",
        "report",
        "student-sft",
        *pupils,
        *measured("dev3", "r1", "student-sft"),
    }
    assert redone({"mix.size": "100"}) == {"mix", "dev3", *last}
    assert redone({"dev2.steps": "3"}) == {"dev2", "rejection", "mix", "dev3", *measured("dev2"), *last}
    assert redone({"safety.epochs": "5"}) == {"safety", "r1", "report", *pupils, *measured("r1")}
    assert redone({"student-rl.steps": "2"}) == {"student-rl", "report", *measured("student-rl")}
    assert redone({"eval.samples": "3"}) == {*(f"eval-{model}" for model in MODELS), "report"}
    assert redone({"eval-base.chat.prefill": "so"}) == {"eval-base", "report"}
    assert redone({"r1.checkpoint_every": "3", "r1.tokens_per_batch": "99", "review.auto_accept": "false"}) == set()
    same = {"requests", "general", *measured("base", "student")}
    assert same - {"general"} <= set(before) - redone_by_seed(tmp_path, before) <= same


def test_one_model_may_be_asked_in_its_own_way_but_not_measured_by_other_problems() -> None:
    recipe = RECIPES["r1"](overrides={"eval-zero.chat.system": "Short.", "eval-zero.max_tokens": "9"}, seed=0)
    asked = {stage.name: stage.settings for stage in recipe.stages}
    assert (asked["eval-zero"].chat.system, asked["eval-zero"].max_tokens) == ("Short.", 9)
    assert asked["eval-zero"].tasks == asked["eval-base"].tasks
    assert asked["eval-base"].chat.system != "Short."
    with pytest.raises(SettingsError, match=r"eval-zero.tasks: the same problems measure all models: set eval.tasks"):
        RECIPES["r1"](overrides={"eval-zero.tasks": "tiny/sums"}, seed=0)


def redone_by_seed(runs: Path, before: dict[str, str]) -> set[str]:
    return {name for name, folder in folders({}, runs, seed=1).items() if folder != before[name]}


def test_distill_and_v3_take_what_r1_has_done(tmp_path: Path) -> None:
    before = folders({}, tmp_path)
    for name in ("distill", "v3"):
        found = folders({}, tmp_path, name=name)
        assert all(found[stage] == before[stage] for stage in R1_ORDER)
        assert plan(RECIPES[name](), tmp_path)[0].folder.parent == tmp_path / "r1-tiny"


def test_distill_of_a_teacher_of_ones_own_needs_no_other_stage(tiny_policy_folder: Path) -> None:
    read = graph("distill", teacher=str(tiny_policy_folder))
    assert read["student-sft"] == ["traces"] and "zero" not in read and "eval-teacher" in read
    (report,) = [stage for stage in RECIPES["distill"](teacher="tiny").stages if stage.name == "report"]
    assert report.settings.model_dump()["teacher"] == "teacher"


def test_v3_blends_two_kinds_of_samples_for_each_expert() -> None:
    read = graph("v3", teacher="tiny")
    assert not {"zero", "dev1", "r1"} & set(read)
    for domain in ("math", "logic"):
        assert read[f"start-{domain}"] == [f"original-{domain}", f"reflected-{domain}"]
        assert read[f"expert-{domain}"] == [f"start-{domain}"] and read[f"data-{domain}"] == [f"expert-{domain}"]
    assert read["v3-mix"] == ["data-math", "data-logic", "general"] and read["v3-sft"] == ["v3-mix"]
    assert read["v3"] == ["v3-sft", "helpfulness", "safety"] and read["safety"] == ["v3-sft", "requests"]
    stages = {stage.name: stage.settings.model_dump() for stage in RECIPES["v3"](teacher="tiny").stages}
    assert stages["reflected-math"]["row_system"] and not stages["original-math"]["row_system"]
    assert stages["expert-math"]["temperature"] > 1


def test_v4_merges_its_experts_and_sets_two_other_ways_beside_it() -> None:
    read = graph("v4")
    assert read["v4"] == ["start", "expert-math", "expert-logic"] and read["start"] == [
        "original-math",
        "original-logic",
    ]
    assert read["v4-sft"] == ["data-math", "data-logic"] and read["v4-rl"] == ["start"]
    assert read["expert-math"] == ["start-math"] and not {"zero", "r1", "everyday-base"} & set(read)
    settings = {stage.name: stage.settings for stage in RECIPES["v4"]().stages}["v4"]
    assert settings.domains["math"] == ("tiny/sums", "tiny/words") and settings.divergence == "reverse"


@pytest.mark.parametrize("name", ["r1", "distill", "v3"])
def test_the_paper_s_scale_can_be_planned_and_not_run(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = [name, "--scale", "paper", "--runs", str(tmp_path)]
    for domain in ("math", "code", "logic") if name == "v3" else ():  # 150,000 problems each, all of which a plan reads
        wanted += ["--set", f'original-{domain}.tasks=[{{"name": "tiny/reasoning", "limit": 9}}]']
    assert set(statuses(capsys, wanted).values()) == {"run"}
    assert main(["run", *wanted, "--until", "zero"]) == 1
    assert "DeepSeek-V3-Base" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "stage"), [("r1", "dev2"), ("r1-zero", "rl")])
def test_early_stopping_by_what_the_run_is_measured_by_is_refused(name: str, stage: str) -> None:
    same = {f"{stage}.probe.tasks": [{"name": "tiny/reasoning", "limit": 60}]}
    RECIPES[name](overrides=same)  # watching alone chooses nothing
    with pytest.raises(SettingsError, match=f"stage {stage}: patience follows tiny/reasoning, split test"):
        RECIPES[name](overrides=same | {f"{stage}.patience": "2"})
    other = {f"{stage}.probe.tasks": [{"name": "tiny/reasoning", "split": "train", "seed": 9, "limit": 60}]}
    RECIPES[name](overrides=other | {f"{stage}.patience": "2"})


def test_at_paper_scale_general_prompts_are_rewarded_as_in_equations_8_to_10() -> None:
    rewards = {stage.name: stage.settings for stage in RECIPES["r1"](scale="paper").stages}["r1"].rewards
    for source, parts in (
        ("math", {"accuracy", "format", "language_consistency"}),
        ("r1/general", {"helpfulness", "harmlessness", "format", "language_consistency"}),
    ):
        assert {spec.title for spec in rewards if spec.is_for(source)} == parts


def test_at_paper_scale_both_rl_stages_of_r1_clip_at_eps_10() -> None:
    """V2, section 3.2.1. R1-Zero's eps is not stated: it keeps GRPO's 0.2, as do the students and V3."""
    stages = {stage.name: stage.settings for stage in (*RECIPES["r1"](scale="paper").stages, *v3_paper())}
    clips = {
        name: (s.algorithm.clip_low, s.algorithm.clip_high) for name, s in stages.items() if hasattr(s, "algorithm")
    }
    wide = {name for name, clip in clips.items() if clip == (10.0, 10.0)}
    assert wide == {"dev2", "rules", "r1"}
    assert {clips[name] for name in clips.keys() - wide} == {(0.2, 0.2)} and {"zero", "v3"} <= clips.keys()


def v3_paper() -> tuple[Any, ...]:
    return RECIPES["v3"](scale="paper", teacher="tiny").stages


def test_what_is_no_kind_of_stage_is_refused() -> None:
    build = Builder("x", TINY, {})
    with pytest.raises(SettingsError, match=r"stage rl: <class .*Path'> is not a kind of stage: expected a Kind"):
        build("rl", Path, {"model": build.base}, {})  # type: ignore[arg-type]


def test_a_scale_says_sizes_and_never_ideas() -> None:
    """The recipe decides rewards, algorithm and prompting: a scale that sets one of them is refused."""
    sizes = replace(TINY.for_r1, dev2=TINY.for_r1.dev2 | {"rewards": "accuracy"})
    with pytest.raises(SettingsError, match="stage dev2: the recipe sets rewards, so a scale must not"):
        reasoner(Builder("r1", replace(TINY, r1=sizes), {"eval": sizes.eval}))
    with pytest.raises(SettingsError, match=r"no setting dev2\.stepz: did you mean dev2\.steps"):
        sizes = replace(TINY.for_r1, dev2=TINY.for_r1.dev2 | {"stepz": 3})
        reasoner(Builder("r1", replace(TINY, r1=sizes), {"eval": sizes.eval}))


def test_held_out_problems_of_early_stopping_are_never_read_as_training_data(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"question": "1+1=?", "answer": "2"}\n')
    probe = {"dev1.probe.tasks": str(tmp_path / "rows.jsonl")}
    (dev1,) = [stage for stage in RECIPES["r1"](overrides=probe).stages if stage.name == "dev1"]
    assert [name for name in dev1.inputs if name.startswith("data")] == ["data"]
    assert dev1.inputs["task/0"] == External(tmp_path / "rows.jsonl")


OWN = """
from dataclasses import replace
from r1kit.recipes import RECIPES
from r1kit.recipes.scales.tiny import TINY

SHORT = replace(TINY, name="short", zero=TINY.zero | {"steps": 7})
NUMBER = 3

def mine(*, seed: int = 0, scale: str = "tiny"):
    return RECIPES["r1-zero"](seed=seed, scale=scale)

def wrong():
    return 3
"""


def test_recipes_and_scales_of_ones_own_are_named_by_a_dotted_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own_recipes.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    runs = ["--runs", str(tmp_path / "runs"), "--json"]
    assert main(["plan", "own_recipes:mine", "--scale", "own_recipes:SHORT", *runs]) == 0
    folders = [row["folder"] for row in json.loads(capsys.readouterr().out)]
    assert all(Path(folder).parent.name == "r1-zero-short" for folder in folders)
    recipe = build_recipe("own_recipes:mine", scale="own_recipes:SHORT")
    assert {stage.name: stage for stage in recipe.stages}["rl"].settings.model_dump()["steps"] == 7
    for name, message in (
        ("own_recipes:mien", "has no 'mien': did you mean mine?"),
        ("no_such_module:mine", "no module named 'no_such_module' in the current folder or on PYTHONPATH"),
        ("own_recipes:NUMBER", "recipe 'own_recipes:NUMBER' is an int: expected a function"),
        ("own_recipes:wrong", "own_recipes:wrong returned an int, expected a Recipe"),
    ):
        with pytest.raises(SettingsError, match=re.escape(message)):
            build_recipe(name)
    with pytest.raises(SettingsError, match="scale 'own_recipes:NUMBER' is an int: expected a Scale"):
        build_recipe("r1", scale="own_recipes:NUMBER")
    for option in ({"teacher": "tiny"}, {"student": "tiny"}, {"data": {"eval": "gsm8k"}}, {"rehearse": True}):
        with pytest.raises(SettingsError, match=f"recipe own_recipes:mine does not take {next(iter(option))}"):
            build_recipe("own_recipes:mine", **option)  # type: ignore[arg-type]


def test_a_scale_without_sizes_for_a_recipe_says_so() -> None:
    with pytest.raises(SettingsError, match="scale mine has no sizes for r1"):
        _ = replace(TINY, name="mine", r1=None).for_r1


def test_r1_names_its_stages_and_scales() -> None:
    with pytest.raises(SettingsError, match=r"there is no stage cold_start: did you mean cold-start\?"):
        RECIPES["r1"](overrides={"cold_start.samples": "2"})
    with pytest.raises(SettingsError, match="no scale 'huge': known are tiny, smollm2, gpu, paper"):
        RECIPES["r1"](scale="huge")
    with pytest.raises(SettingsError, match="start-math"):
        RECIPES["r1"](overrides={"start-math.epochs": "2"})


def test_a_recipe_that_passes_its_options_on_gets_all_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "from r1kit.recipes.r1_zero import r1_zero\ndef mine(**options): return r1_zero(**options)\n"
    (tmp_path / "passing_recipes.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    recipe = build_recipe("passing_recipes:mine", scale="tiny", overrides={"rl.steps": "7"}, seed=3)
    assert {stage.name: stage for stage in recipe.stages}["rl"].settings.model_dump()["steps"] == 7
    assert "seed 3" in recipe.title


def test_the_make_targets_run_parts_of_the_recipe_that_exist() -> None:
    text = (Path(__file__).parents[1] / "Makefile").read_text()
    named = set(re.findall(r"PART_([\w-]+) := (\S+)", text))
    assert {target for target, _ in named} == {
        "sft-train",
        "rl-train-reasoning",
        "generate-synthetic",
        "sft-train-expanded",
        "rl-train-utility",
        "distill",
        "evaluate",
    }
    ends = {stage for _, stages in named for stage in stages.split(",")}
    for scale in ("tiny", "paper"):
        assert ends <= {stage.name for stage in RECIPES["r1"](scale=scale).stages}


@pytest.mark.parametrize("name", ["r1", "v3", "distill"])
def test_what_is_made_is_held_against_all_that_the_run_is_measured_by(name: str) -> None:
    stages = {stage.name: stage for stage in RECIPES[name](scale="tiny").stages}
    measured = {
        spec.name for key in ("eval-base", "everyday-base") if key in stages for spec in stages[key].settings.tasks
    }
    assert measured or name == "distill"
    makers = [stage for stage in stages.values() if stage.kind.name == "generate"]
    assert makers and all(measured <= {spec.name for spec in one.settings.evaluation_sets} for one in makers)


def test_evaluation_sets_of_ones_own_stand_in_place_of_those_of_the_run() -> None:
    recipe = RECIPES["r1"](overrides={"rejection.evaluation_sets": "tiny/sums"})
    stages = {stage.name: stage for stage in recipe.stages}
    assert [spec.name for spec in stages["rejection"].settings.evaluation_sets] == ["tiny/sums"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import sys; sys.exit(0)", "SystemExit: 0"),
        ("raise RuntimeError('no')", "RuntimeError: no"),
        ("def f(:", "SyntaxError"),
        ("from r1kit import nothing", "cannot import name 'nothing'"),
    ],
)
@pytest.mark.parametrize(
    "arguments",
    [
        ["plan", "broken:f"],
        ["plan", "r1-zero", "--scale", "broken:f"],
        ["score", "rows.jsonl", "--rewards", "broken:f"],
        ["verify", "--conformance", "--verifier", "broken:f", "--cases", "number"],
        ["plan", "r1-zero", "--set", "rl.tasks=broken:f"],
        ["plan", "r1-zero", "--set", "rl.algorithm.loss=broken:f"],
    ],
)
def test_a_module_that_fails_or_exits_when_imported_is_one_message(
    arguments: list[str],
    text: str,
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "broken.py").write_text(text + "\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "broken", raising=False)
    monkeypatch.chdir(tmp_path)
    assert main(arguments) in (1, 2)
    error = capsys.readouterr().err
    assert "broken:f" in error and reason in error
