"""Recipe files: a run from one file, errors with their lines, and the file that repeats a run."""

from __future__ import annotations

import json
import runpy
import shutil
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

import r1kit
from r1kit.cli import main
from r1kit.recipes import build_recipe
from r1kit.recipes.file_text import key_lines, to_toml
from r1kit.recipes.parts import PARTS
from r1kit.tasks.public_sets import DATA_VARIABLE

EXAMPLES = Path(__file__).parents[1] / "examples"
DATA = Path(__file__).parents[2] / "shared" / "data"
FILE = """\
# A comment.
recipe = "r1-zero"
scale = "tiny"
seed = 3

[rewards]
accuracy = 1.0
format = {weight = 0.2}

[stages.rl]
tasks = ["tiny/sums", "data/rows.jsonl"]
steps = 1
prompts_per_step = 2
max_tokens = 16
optimizer.learning_rate = 1e-4
algorithm = "grpo"
"algorithm.kl_coef" = 0.01
max_prompt_tokens = "null"

[stages]
eval = { samples = 1, max_tokens = 16, tasks = [{name = "tiny/sums", limit = 4}] }
"""
OWN_DATA = 'scale = "gpu"\nmodel = "tiny"\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A recipe file with a file of problems in a folder beside it."""
    (tmp_path / "mine" / "data").mkdir(parents=True)
    rows = [{"question": f"{number}+1=?", "answer": str(number + 1)} for number in range(6)]
    (tmp_path / "mine" / "data" / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "mine" / "run.toml").write_text(FILE)
    return tmp_path / "mine" / "run.toml"


def settings(file: Path, stage: str, **options: Any) -> dict[str, Any]:
    stages = {stage.name: stage for stage in build_recipe(str(file), **options).stages}
    values: dict[str, Any] = stages[stage].settings.model_dump()
    return values


def test_a_file_is_a_run_and_the_file_in_its_folder_repeats_it(
    file: Path, tmp_path: Path, tiny_policy_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere, runs = tmp_path / "elsewhere", tmp_path / "runs"
    elsewhere.mkdir()
    monkeypatch.chdir(tiny_policy_folder.parent)
    changes = {"rl.group_size": "2", "rl.rollouts_every": 1}
    folder = r1kit.run(str(file), model=tiny_policy_folder.name, overrides=changes, runs=runs)
    monkeypatch.chdir(elsewhere)
    again = r1kit.plan(str(folder / "recipe.toml"), runs=runs)
    assert [row.status for row in again] == ["done"] * 4
    options = tomllib.loads((folder / "recipe.toml").read_text())
    assert options["model"] == str(tiny_policy_folder) and options["seed"] == 3
    assert options["stages"]["rl"]["tasks"] == ["tiny/sums", str(file.parent / "data" / "rows.jsonl")]
    assert options["stages"]["rl"]["group_size"] == "2"


def test_a_file_sets_what_the_command_line_sets_which_comes_on_top(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = settings(file, "rl")
    assert (values["seed"], values["steps"], values["optimizer"]["learning_rate"]) == (3, 1, 1e-4)
    assert values["algorithm"]["kl_coef"] == 0.01 and values["max_prompt_tokens"] is None
    assert [(reward["name"], reward["weight"]) for reward in values["rewards"]] == [("accuracy", 1.0), ("format", 0.2)]
    assert values["optimizer"]["schedule"] == "linear"  # the scale's: a table changes what it names
    assert settings(file, "rl", seed=0, overrides={"rl.steps": 2})["steps"] == 2
    assert settings(file, "rl", seed=0)["seed"] == 0
    same = ["--set", "rl.steps=1", "--runs", str(tmp_path), "--json"]
    folders = []
    for arguments in (["plan", str(file), *same], ["plan", str(file), "--runs", str(tmp_path), "--json"]):
        assert main(arguments) == 0
        folders.append([row["folder"] for row in json.loads(capsys.readouterr().out)])
    assert folders[0] == folders[1]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('scale = "tiny"', 'sacle = "tiny"', "line 3: there is no key sacle: did you mean scale?"),
        ('scale = "tiny"', 'scale = "tyny"', "line 3: there is no scale 'tyny': did you mean tiny?"),
        ('scale = "tiny"', "scale = 3", "line 3: scale is 3: it must be text"),
        ('scale = "tiny"', "scale = tiny", "Invalid value (at line 3, column 9)"),
        ('"r1-zero"', '"r1zero"', "line 2: there is no recipe 'r1zero': did you mean r1-zero?"),
        ('recipe = "r1-zero"\n', "", "recipe is missing: name one, as in recipe ="),
        ('scale = "tiny"', 'teacher = "tiny"', "line 3: recipe r1-zero does not take teacher: leave it out"),
        ("seed = 3", "steps = 3", "there is no key steps: known are recipe, model,"),
        ('scale = "tiny"', 'data = "mine.jsonl"', "line 3: data is 'mine.jsonl': write a table, [data] on a line"),
        ("steps = 1", "stepz = 1", "line 12: there is no setting rl.stepz: did you mean rl.steps?"),
        ("steps = 1", "steps = 0", "line 12: rl.steps is 0: it must be at least 1"),
        ("optimizer.learning_rate", "optimizer.lr", "line 15: there is no setting rl.optimizer.lr"),
        ("[stages.rl]", "[stages.lr]", "line 11: lr.tasks: there is no stage lr: known are "),
        ("[rewards]", "[reward]", "line 6: there is no key reward: did you mean rewards?"),
        ("accuracy = 1.0", 'accuracy = "1"', "line 7: rewards.accuracy is '1': give a weight, or a table"),
        ("[rewards]", "[data]\neval = 3\n[rewards]", "line 7: data.eval is 3: give the name of a set, a file"),
        (
            'scale = "tiny"',
            OWN_DATA + 'data.evil = "gsm8k"',
            "line 5: there is no data role 'evil': did you mean eval?",
        ),
        ('scale = "tiny"', OWN_DATA + 'data.eval = "no.jsonl"', "line 5: data.eval: "),
        ('scale = "tiny"', 'model = "./nowhere"', "line 3: there is no model"),
        ("accuracy = 1.0", "acuracy = 1.0", "line 7: rl.rewards.0.name: there is no reward 'acuracy': did you mean"),
        ('"r1-zero"', '"r1"', "line 6: rewards: recipe r1 has no stage rl: set them by stage"),
    ],
)
def test_errors_name_file_line_and_the_nearest_key(
    file: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, message: str
) -> None:
    assert old in FILE
    file.write_text(FILE.replace(old, new, 1))
    assert main(["plan", str(file)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"r1kit: error: {file}") and message in error


def test_a_recipe_file_that_is_missing_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(tmp_path / "none.toml")]) == 1
    assert f"{tmp_path / 'none.toml'}: No such file" in capsys.readouterr().err


def test_a_recipe_file_that_is_not_text_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.toml").write_bytes(b"\xff\xfe")
    assert main(["plan", str(tmp_path / "run.toml")]) == 1
    assert f"{tmp_path / 'run.toml'}: " in capsys.readouterr().err


def test_paths_with_spaces_are_relative_to_the_file_too(tmp_path: Path, tiny_policy_folder: Path) -> None:
    (tmp_path / "my data").mkdir()
    problems = tmp_path / "my data" / "my problems.jsonl"
    problems.write_text('{"question": "1+1=?", "answer": "2"}\n')
    shutil.copytree(tiny_policy_folder, tmp_path / "my model")
    file = tmp_path / "my run.toml"
    file.write_text(
        'recipe = "rl"\nmodel = "my model"\ndata.problems = "my data/my problems.jsonl"\n'
        '[stages]\nrl.chat.system = "Answer as in ./a b.json"\n'
    )
    values = settings(file, "rl")
    assert values["tasks"][0]["name"] == str(problems)
    assert values["chat"]["system"] == "Answer as in ./a b.json"


def test_keys_are_found_in_every_form_that_toml_has() -> None:
    text = '[stages.rl] # why\nsteps=1\noptimizer . learning_rate = 2\n"algorithm.kl_coef" = 3\n[[stages.rl.rewards]]\n'
    lines = key_lines(text)
    assert (lines["stages.rl.steps"], lines["rl.optimizer.learning_rate"], lines["rl.algorithm.kl_coef"]) == (2, 3, 4)
    assert lines["stages.rl.rewards"] == 5


def test_every_value_that_a_setting_can_have_is_read_back() -> None:
    values = {
        "rl.a": 'quote " \\ \n\x7f é',
        "rl.b": [1, 2.5, True, {"c d": [], "e": "x"}],
        "rl.c.d": 1e-06,
        "rl.c": "n",
    }
    text = to_toml("mine:recipe", {"seed": 4, "data": {"a b": "x"}, "overrides": values | {"rl.f": None}})
    content = tomllib.loads(text)
    assert content["stages"]["rl"] == {name.removeprefix("rl."): value for name, value in values.items()} | {
        "f": "null"
    }
    assert content["data"] == {"a b": "x"} and content["seed"] == 4 and content["recipe"] == "mine:recipe"


def test_the_guides_example_can_be_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guide = (Path(__file__).parents[1] / "docs" / "guides" / "recipe-files.md").read_text(encoding="utf-8")
    (tmp_path / "guide.toml").write_text(guide.partition("```toml\n")[2].partition("```")[0])
    (tmp_path / "problems.jsonl").write_text('{"question": "1+1=?", "answer": "2"}\n')
    (tmp_path / "mine.py").write_text(
        "def brevity(completions, longest=9, **columns): return [0.0] * len(completions)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    rows = r1kit.plan(str(tmp_path / "guide.toml"), runs=tmp_path)
    assert [row.stage.name for row in rows] == ["eval-base", "rl", "eval-zero", "report"]


@pytest.mark.skipif(not (DATA / "svamp").is_dir(), reason="needs the public data in ../shared/data")
def test_the_example_on_public_data_plans_all_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With another model, because SmolLM2 would have to be downloaded."""
    monkeypatch.setenv(DATA_VARIABLE, str(DATA))
    monkeypatch.setattr(sys, "argv", ["", str(tmp_path / "calculations.jsonl")])
    runpy.run_path(str(EXAMPLES / "r1_smollm2_calculations.py"), run_name="__main__")
    text = (EXAMPLES / "r1_smollm2.toml").read_text(encoding="utf-8").replace('"smollm2-135m"', '"tiny"')
    (tmp_path / "r1.toml").write_text(text)
    names = {row.stage.name for row in r1kit.plan(str(tmp_path / "r1.toml"), runs=tmp_path)}
    assert {"traces", "dev1", "dev2", "rejection", "dev3", "rules", "r1", "student-on-policy", "eval-r1"} <= names


STARTS = [("r1-zero", "tiny"), ("r1", "tiny"), ("distill", "tiny"), ("v3", "tiny"), ("tiny-base", None)]
STARTS += [(name, None) for name in PARTS if name != "distill"]


@pytest.mark.parametrize(("recipe", "scale"), STARTS)
def test_init_prints_a_file_whose_comments_are_the_values_in_use(
    recipe: str, scale: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, row in {
        "problems": {"question": "1+1=?", "answer": "2"},
        "rows": {"prompt": "a", "completion": "b"},
        "requests": {"prompt": "a"},
        "preferences": {"prompt": "a", "chosen": "b", "rejected": "c"},
    }.items():
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    shutil.copy("problems.jsonl", "eval.jsonl")
    model = ["--model", "tiny"] if recipe != "tiny-base" else []
    assert main(["init", recipe, *model, *(["--scale", scale] if scale else [])]) == 0
    text = capsys.readouterr().out
    assert tomllib.loads(text)["recipe"] == recipe
    (tmp_path / "as-printed.toml").write_text(text)
    head, _, sizes = text.partition("[stages]")
    (tmp_path / "all.toml").write_text(head + "[stages]" + sizes.replace("\n# ", "\n"))
    plans = [[row.fingerprint for row in r1kit.plan(name, runs=tmp_path)] for name in ("as-printed.toml", "all.toml")]
    assert plans[0] == plans[1] and len(plans[0]) > 1


def test_init_of_a_model_that_cannot_be_fetched_leaves_the_sizes_out(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main(["init", "r1", "--model", "owner/name", "--data", "problems=mine.jsonl"]) == 0
    text = capsys.readouterr().out
    values = tomllib.loads(text)
    assert values["model"] == "owner/name" and values["data"] == {"problems": "mine.jsonl"}
    assert "could not be fetched" in text and "# eval = " in text and "# student = " in text


def test_init_of_ones_own_recipe_keeps_the_data_and_a_recipe_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own_recipe.py").write_text(
        "from r1kit.recipes.r1_zero import r1_zero\n"
        "def make(*, overrides, seed, data=None): return r1_zero(overrides=overrides, seed=seed, scale='tiny')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main(["init", "own_recipe:make", "--data", "puzzles=tiny/sums"]) == 0
    text = capsys.readouterr().out
    assert tomllib.loads(text)["data"] == {"puzzles": "tiny/sums"}
    (tmp_path / "own.toml").write_text(text)
    assert main(["init", str(tmp_path / "own.toml")]) != 0
    assert "own.toml is a recipe file already" in capsys.readouterr().err


def test_a_run_with_an_empty_field_of_its_data_is_repeated_by_its_file(tmp_path: Path) -> None:
    built = build_recipe("rl", model="tiny", data={"problems": [{"name": "tiny/sums", "limit": None}]})
    (tmp_path / "recipe.toml").write_text(built.file)
    assert build_recipe(str(tmp_path / "recipe.toml")).stages == built.stages
