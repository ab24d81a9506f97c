"""Python code in a model folder runs only if the user names the model; that counts in fingerprints."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from r1kit import cli  # noqa: E402
from r1kit.models import folder_code  # noqa: E402
from r1kit.models.known import ModelError, resolve  # noqa: E402
from r1kit.models.load import load  # noqa: E402
from r1kit.pipeline import Recipe, Stage, plan  # noqa: E402
from r1kit.recipes.file import RecipeFile  # noqa: E402
from r1kit.stages.shared.sources import model_input  # noqa: E402
from test_pipeline import TOY, Toy  # noqa: E402

CODE = """
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM

Path(MARKER).touch()


class MineConfig(LlamaConfig):
    model_type = "mine"


class MineForCausalLM(LlamaForCausalLM):
    config_class = MineConfig
"""


@pytest.fixture
def coded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model whose architecture is in its folder; its code leaves a file `ran`."""
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delenv(folder_code.VARIABLE, raising=False)
    folder = tmp_path / f"coded_{tmp_path.name.replace('-', '_')}"
    shutil.copytree(resolve("tiny"), folder)
    (folder / "modeling_mine.py").write_text(CODE.replace("MARKER", repr(str(tmp_path / "ran"))))
    config = json.loads((folder / "config.json").read_text())
    names = {"AutoConfig": "modeling_mine.MineConfig", "AutoModelForCausalLM": "modeling_mine.MineForCausalLM"}
    config |= {"model_type": "mine", "architectures": ["MineForCausalLM"], "auto_map": names}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_code_runs_only_if_its_model_is_named_and_in_what_a_stage_saved_of_it(coded: Path, tmp_path: Path) -> None:
    folder_code.allow(["tiny"])
    with pytest.raises(ModelError, match=r"does not run code from model folders: .* --allow-code NAME"):
        load(str(coded), device="cpu")
    assert not (tmp_path / "ran").exists()
    folder_code.allow([str(coded)])
    policy = load(str(coded), device="cpu")
    assert type(policy.model).__name__ == "MineForCausalLM" and (tmp_path / "ran").exists()
    policy.save(tmp_path / "saved")
    assert type(load(str(tmp_path / "saved"), device="cpu").model).__name__ == "MineForCausalLM"
    (tmp_path / "saved" / "modeling_mine.py").write_text("print('other code')")
    with pytest.raises(ModelError, match="does not run code"):
        load(str(tmp_path / "saved"), device="cpu")


def test_the_permission_counts_in_the_fingerprint(coded: Path, tmp_path: Path) -> None:
    def planned() -> str:
        recipe = Recipe("r", (Stage("one", TOY, Toy(), {"model": model_input(str(coded))}),))
        [row] = plan(recipe, tmp_path / "runs")
        return row.fingerprint

    before = planned()
    folder_code.allow([str(coded)])
    allowed = planned()
    assert allowed != before
    (coded / "modeling_mine.py").write_text("# other code")
    assert planned() not in (before, allowed)


def test_a_command_and_a_recipe_file_name_the_models(
    coded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", None)  # nobody is asked
    arguments = ["eval", str(coded), "--task", "tiny/sums", "--limit", "1", "--max-tokens", "4"]
    assert cli.main(arguments) == 1
    assert "--allow-code" in capsys.readouterr().err
    assert cli.main([*arguments, "--allow-code", str(coded)]) == 0
    file = tmp_path / "mine.toml"
    file.write_text(f'recipe = "r1-zero"\nmodel = "{coded}"\nallow_code = ["{coded}"]\n')
    assert RecipeFile.read(file).options["allow_code"] == [str(coded)]
