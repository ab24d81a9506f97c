"""Scale gpu: sizes from the model and the device, data by role, and the same choice in every attempt."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from r1kit.cli import main
from r1kit.data.errors import DataError
from r1kit.models.facts import ModelFacts, facts_of
from r1kit.pipeline import ModelSize, Recipe, Stage
from r1kit.recipes import build_recipe
from r1kit.recipes.estimate import estimates
from r1kit.recipes.hardware import HARDWARE
from r1kit.recipes.roles import DEFAULTS, ROLES, data_by_role
from r1kit.recipes.sizing import device_for, full_bytes, sizing
from r1kit.settings import SettingsError

pytestmark = pytest.mark.usefixtures("no_public_data")


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.jsonl"
    rows = [{"question": f"How much is {n} plus {n}?", "answer": str(2 * n)} for n in range(50)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def stages_of(recipe: Recipe) -> dict[str, Stage]:
    return {stage.name: stage for stage in recipe.stages}


def settings_of(recipe: Recipe) -> dict[str, dict[str, Any]]:
    return {name: stage.settings.model_dump() for name, stage in stages_of(recipe).items()}


def facts(parameters: float, layers: int, width: int, cached: int = 2048, context: int = 32_768) -> ModelFacts:
    from r1kit.chat import ChatFormat

    return ModelFacts(ModelSize(parameters, parameters, layers, width, cached), context, "", ChatFormat(), True)


# Qwen3's sizes by configuration: parameters, layers, width.
QWEN = {
    "0.6B": facts(0.596e9, 28, 1024),
    "1.7B": facts(1.72e9, 28, 2048),
    "4B": facts(4.02e9, 36, 2560),
    "8B": facts(8.19e9, 36, 4096),
}


@pytest.mark.parametrize(
    ("size", "hardware", "lora", "prompts", "tokens"),
    [
        ("0.6B", "rtx-4090", False, 32, 1024),
        ("1.7B", "rtx-4090", True, 32, 2048),
        ("1.7B", "h100", False, 32, 2048),
        ("4B", "h100", True, 32, 3072),
        ("4B", "h200", False, 32, 3072),
        ("8B", "h100", True, 32, 4096),
        ("0.6B", "cpu", True, 8, 512),
    ],
)
def test_sizes_follow_parameters_and_memory(size: str, hardware: str, lora: bool, prompts: int, tokens: int) -> None:
    chosen = sizing(size, QWEN[size], device_for(hardware))
    assert (bool(chosen.lora_rank), chosen.row.prompts, chosen.max_tokens) == (lora, prompts, tokens)
    assert chosen.rl_rate == pytest.approx(chosen.row.rl_rate * (10 if lora else 1))
    assert 1024 <= chosen.tokens_per_batch <= 16_384 and 8 <= chosen.max_rows <= 256
    text = chosen.as_text(size, QWEN[size])
    assert hardware in text and ("LoRA of rank 32" if lora else "all weights") in text and "--set" in text


def test_several_devices_train_larger_models_whole_and_refuse_what_does_not_fit_beside_a_copy(
    tiny_policy_folder: Path, mine: Path
) -> None:
    """On each of 8: 4 bytes of the whole model, 12 of copies and reward models, 16 / 8 of the state: 18 per weight."""
    device = device_for("h100")
    assert full_bytes(device, 8) == 18 and full_bytes(device, 1) == 28 == full_bytes(device_for("cpu"), 8)
    chosen = sizing("4B", QWEN["4B"], device, 8)
    assert not chosen.lora_rank and sizing("4B", QWEN["4B"], device).lora_rank
    assert "(80 GiB each): trains all weights, sharded over 8 of them" in chosen.as_text("4B", QWEN["4B"])
    with pytest.raises(SettingsError, match=r"8B has 8\.19B parameters, and 8 of h100 with 80 GiB train up to 4\.1B"):
        sizing("8B", QWEN["8B"], device, 8)
    recipe = build_recipe("rl", model=str(tiny_policy_folder), data={"problems": str(mine)}, hardware="h100", devices=8)
    assert "whole on each of 8" in recipe.notes[0] and recipe.devices == 8 and "devices = 8" in recipe.file
    assert [stage.settings.shard for stage in recipe.stages if stage.kind.shards] == [False]
    planned = estimates(recipe, "h100", 8)["rl"]
    assert planned.devices == 8 and planned.traffic is not None and planned.traffic.gathered == 0
    assert not {"gathered", "whole model"} & set(planned.parts)


def test_a_model_that_is_too_large_for_the_device_is_refused_with_the_largest_that_fits() -> None:
    with pytest.raises(SettingsError, match=r"8B has 8.19B parameters, and rtx-4090 with 24 GiB trains up to 5.5B"):
        sizing("8B", QWEN["8B"], device_for("rtx-4090"))
    with pytest.raises(SettingsError, match="no hardware 'h10': did you mean"):
        device_for("h10")
    assert {device_for(name).memory_gib for name in HARDWARE if name != "cpu"} == {24, 80, 141}


def test_a_short_context_leaves_half_of_it_to_the_prompt() -> None:
    chosen = sizing("it", facts(1e6, 2, 32, context=256), device_for("h100"))
    assert (chosen.max_tokens, chosen.prompt_tokens, chosen.row_tokens) == (128, 128, 256)


def test_the_choice_is_printed_and_every_value_can_be_set(
    tiny_policy_folder: Path, mine: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    bare = tmp_path / "config-alone"
    shutil.copytree(tiny_policy_folder, bare, ignore=shutil.ignore_patterns("*.safetensors"))
    wanted = ["plan", "r1", "--scale", "gpu", "--model", str(bare), "--data", f"problems={mine}"]
    wanted += ["--hardware", "h100", "--runs", str(tmp_path)]
    assert main(wanted) == 0
    out, told = capsys.readouterr()
    assert "trains all weights; RL with 32 prompts x 8" in told and told.count("sizes for ") == 1
    assert "requests dolly (CC-BY-SA-3.0); preferences ultrafeedback (MIT); safety hh-harmless (MIT)" in told
    assert "hours" in out.splitlines()[0]
    recipe = build_recipe(
        "r1", model=str(tiny_policy_folder), data={"problems": str(mine)}, hardware="h100", overrides={"zero.steps": 7}
    )
    assert settings_of(recipe)["zero"]["steps"] == 7 and settings_of(recipe)["zero"]["prompts_per_step"] == 32


def test_ones_own_problems_are_enough_for_r1(tiny_policy_folder: Path, mine: Path) -> None:
    recipe = build_recipe("r1", model=str(tiny_policy_folder), data={"problems": str(mine)}, hardware="cpu")
    settings = settings_of(recipe)
    for name in ("zero", "few-shot", "reflect", "cold-start", "dev2", "rejection", "rules", "r1", "eval-base"):
        spec = settings[name]["tasks"][0]
        assert spec["name"] == str(mine) and spec["options"] == {"held_out": 0.2}
    assert [spec["name"] for spec in settings["r1"]["tasks"][1:]] == ["requests:dolly", "harmful:hh-harmless"]
    assert settings["rejection"]["evaluation_sets"][0]["name"] == str(mine)
    assert "student-sft" not in settings and "eval-r1" in settings


def test_a_rehearsal_without_a_card_is_of_any_size_and_a_run_says_what_would_do(
    monkeypatch: pytest.MonkeyPatch, tiny_policy_folder: Path, mine: Path
) -> None:
    large = facts(1.7e9, 28, 2048)
    monkeypatch.setattr("r1kit.recipes.scales.gpu.facts_of", lambda name: large)
    monkeypatch.setattr("r1kit.models.devices.first_card", lambda: None)
    options: dict[str, Any] = {"model": str(tiny_policy_folder), "data": {"problems": str(mine)}}
    assert "helpfulness" in stages_of(build_recipe("r1", rehearse=True, **options))
    for rehearse, hardware in ((False, None), (True, "cpu")):
        with pytest.raises(SettingsError, match=r"--student owner/smaller.*--hardware h100.*recipe r1-zero"):
            build_recipe("r1", rehearse=rehearse, hardware=hardware, **options)


def test_prompts_that_are_trained_on_and_measure_are_counted(tiny_policy_folder: Path, mine: Path) -> None:
    other = mine.with_name("other.jsonl")
    other.write_text(
        "".join(line + "\n" for line in [*mine.read_text().splitlines()[:3], '{"question": "1?", "answer": "1"}'])
    )
    options: dict[str, Any] = {"model": str(tiny_policy_folder), "hardware": "cpu"}
    (note,) = [
        note
        for note in build_recipe("rl", data={"problems": str(mine), "eval": str(other)}, **options).notes
        if "measures the models" in note
    ]
    assert note.startswith(f"3 of the 50 prompts of {mine}") and str(other) in note
    chats = mine.with_name("chats.jsonl")
    rows = [{"prompt": f"how much is {n}  plus {n}?", "completion": "?"} for n in (1, 2, 77)]
    chats.write_text("".join(json.dumps(row) + "\n" for row in rows))
    notes = build_recipe("sft", data={"rows": str(chats), "eval": str(mine)}, **options).notes
    assert any(note.startswith("2 of the 3 prompts of ") for note in notes)
    renamed = mine.with_name("renamed.jsonl")
    renamed.write_text("".join(json.dumps({"q": row["prompt"], "a": "?"}) + "\n" for row in rows))
    named = {"name": str(renamed), "columns": {"prompt": "q", "completion": "a"}}
    notes = build_recipe("sft", data={"rows": named, "eval": str(mine)}, **options).notes
    assert any(note.startswith("2 of the 3 prompts of ") for note in notes)
    divided = build_recipe("rl", data={"problems": str(mine)}, **options).notes
    assert not any("measures the models" in note for note in divided)


def test_roles_replace_the_defaults_in_every_stage(tiny_policy_folder: Path, mine: Path, tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "say hi"}, {"role": "assistant", "content": "hi"}]
    files = {name: tmp_path / f"{name}.jsonl" for name in ("requests", "preferences", "safety", "traces")}
    for name, row in (
        ("requests", {"messages": talk}),
        ("preferences", {"prompt": "a", "chosen": "b", "rejected": "c"}),
        ("safety", {"messages": talk, "label": True}),
        ("traces", {"messages": talk}),
    ):
        files[name].write_text(json.dumps(row) + "\n")
    data = {"problems": "tiny/sums", "eval": {"name": str(mine), "limit": 9}, "everyday": "tiny/general"}
    data |= {name: str(path) for name, path in files.items()}
    recipe = build_recipe("r1", model=str(tiny_policy_folder), data=data, student="tiny")
    settings, stages = settings_of(recipe), stages_of(recipe)
    assert [spec["name"] for spec in settings["dev2"]["tasks"]] == ["tiny/sums"]
    assert [(spec["name"], spec["limit"]) for spec in settings["eval-r1"]["tasks"]] == [(str(mine), 9)]
    assert [spec["name"] for spec in settings["everyday-r1"]["tasks"]] == ["tiny/general"]
    read = {name: source.path for name, source in stages["requests"].inputs.items()}  # type: ignore[union-attr]
    assert read == {"general": files["requests"], "preferences": files["preferences"], "safety": files["safety"]}
    assert [spec["name"] for spec in settings["r1"]["tasks"]] == [
        "tiny/sums",
        f"requests:{files['requests']}",
        f"harmful:{files['safety']}",
    ]
    # given traces stand in place of R1-Zero and its samples
    assert not {"zero", "few-shot", "reflect", "cold-start"} & set(stages)
    assert stages["traces"].inputs["requests/0"].path == files["traces"]  # type: ignore[union-attr]
    assert [stage.name for stage in stages["review"].parents] == ["traces"]


def test_traces_beside_r1_zeros_samples(tiny_policy_folder: Path, mine: Path) -> None:
    data = {"problems": str(mine), "traces": ["r1-zero", "gsm8k", {"name": "bespoke-stratos", "limit": 100}]}
    stages = stages_of(build_recipe("r1", model=str(tiny_policy_folder), data=data))
    assert [stage.name for stage in stages["review"].parents] == ["few-shot", "reflect", "cold-start", "traces"]
    tasks = stages["traces"].settings.model_dump()["tasks"]
    assert [(spec["name"], spec["limit"]) for spec in tasks] == [("gsm8k", 400), ("bespoke-stratos", 100)]


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        ({"problem": "gsm8k"}, SettingsError, "no data role 'problem': did you mean problems?"),
        ({"problems": "svamp"}, DataError, "evaluation only"),
        ({"problems": []}, SettingsError, "data.problems is empty"),
        ({"problems": "no.jsonl"}, DataError, "data.problems: no.jsonl: there is no such file"),
        (
            {"problems": "mine:task", "eval": "gsm8"},
            DataError,
            "data.eval: there is no task 'gsm8': did you mean gsm8k",
        ),
        ({"problems": {"name": "gsm8k", "limt": 3}}, SettingsError, "data.problems.limt"),
        ({"requests": "ultrafeedback"}, SettingsError, "holds preferences: known sets of requests are dolly"),
        ({"safety": "xstest"}, DataError, "evaluation only"),
        ({"preferences": "nowhere.jsonl"}, DataError, "no file or known set 'nowhere.jsonl'"),
        ({"requests": {"name": "dolly", "limit": 3}}, SettingsError, "data.requests is"),
    ],
)
def test_data_that_cannot_be_used_is_refused(data: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        data_by_role(data)


def test_problems_of_public_sets_are_measured_by_their_own_test_split() -> None:
    data = data_by_role({"problems": ["gsm8k", "deepmath"]})
    assert [(spec.name, spec.limit, spec.order) for spec in data.eval] == [("gsm8k", 300, "shuffled")]
    assert [spec.name for spec in data_by_role({"problems": "deepmath"}).eval] == ["gsm8k", "math500"]
    assert set(DEFAULTS) == set(ROLES) and data_by_role(None).from_zero


def test_scales_with_data_of_their_own_refuse_data_by_role(mine: Path) -> None:
    with pytest.raises(SettingsError, match="scale tiny has data of its own"):
        build_recipe("r1", scale="tiny", data={"problems": str(mine)})


@pytest.mark.parametrize("name", ["r1-zero", "distill", "v3", "v4"])
def test_the_other_recipes_are_sized_for_the_model_too(name: str, tiny_policy_folder: Path, mine: Path) -> None:
    options = {"teacher": "tiny"} if name in ("distill", "v3") else {}
    recipe = build_recipe(name, model=str(tiny_policy_folder), data={"problems": str(mine)}, hardware="cpu", **options)
    settings = settings_of(recipe)
    trained = {"r1-zero": "rl", "distill": "student-rl", "v3": "expert-reasoning", "v4": "expert-mine"}[name]
    assert settings[trained]["prompts_per_step"] == 8 and settings[trained]["tasks"][0]["name"] == str(mine)
    assert recipe.name == f"{name}-gpu" and recipe.notes


def test_v4_has_an_expert_for_each_set_of_problems(tiny_policy_folder: Path, mine: Path) -> None:
    problems = [str(mine), "gsm8k", {"name": "gsm8k", "calculations": "alone"}]
    recipe = build_recipe("v4", model=str(tiny_policy_folder), data={"problems": problems}, hardware="cpu")
    settings = settings_of(recipe)
    assert settings["v4"]["domains"] == {"mine": (f"{mine.parent.name}/mine",), "gsm8k": ("gsm8k",)}
    assert [task["name"] for task in settings["expert-gsm8k"]["tasks"]] == ["gsm8k", "gsm8k"]
    assert [task["name"] for task in settings["v4"]["tasks"]] == [str(mine), "gsm8k", "gsm8k"]
    inputs = {stage.name: list(stage.inputs) for stage in recipe.stages}
    assert [name for name in inputs["v4"] if "task" not in name] == ["model", "teacher/mine", "teacher/gsm8k"]


def test_a_student_of_another_family_learns_from_traces_alone(
    tiny_policy_folder: Path, mine: Path, tmp_path: Path
) -> None:
    from shapes import SHAPES

    other = SHAPES["vicuna"].save(tmp_path / "other")
    options: dict[str, Any] = {"model": str(tiny_policy_folder), "data": {"problems": str(mine)}}
    assert "student-logits" in stages_of(build_recipe("r1", **options, student="tiny"))
    stages = stages_of(build_recipe("r1", **options, student=str(other)))
    assert "student-sft" in stages and "student-logits" not in stages


@pytest.mark.parametrize(("name", "form"), [("qwen-3", "special_token"), ("vicuna", "think_answer")])
def test_exemplars_have_the_form_that_the_chat_template_keeps(name: str, form: str, mine: Path, tmp_path: Path) -> None:
    from shapes import SHAPES

    folder = SHAPES[name].save(tmp_path / "model")
    settings = settings_of(build_recipe("r1", model=str(folder), data={"problems": str(mine)}))
    assert settings["few-shot"]["reply_format"] == form


def test_a_model_that_needs_lora_has_reward_models_of_a_smaller_base(
    tiny_policy_folder: Path, mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large, small = facts(8e9, 36, 4096), facts_of(str(tiny_policy_folder))
    monkeypatch.setattr("r1kit.recipes.scales.gpu.facts_of", lambda name: small if name == "tiny" else large)
    options: dict[str, Any] = {"model": str(tiny_policy_folder), "data": {"problems": str(mine)}, "hardware": "h100"}
    with pytest.raises(SettingsError, match="the reward models need a smaller base: name one"):
        build_recipe("r1", **options)
    stages = stages_of(build_recipe("r1", **options, student="tiny"))
    assert stages["helpfulness"].inputs["model"] == stages["student-rl"].inputs["model"]
    assert stages["zero"].settings.model_dump()["lora_rank"] == 32
