"""What is published: a folder that loads, a card that says where the model comes from, and nothing of this machine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest

from hub_server import fake_hub

pytest.importorskip("torch")
pytest.importorskip("transformers")

from transformers import AutoModelForCausalLM

from r1kit.chat import ChatFormat, saved
from r1kit.export import ExportError, export, push
from r1kit.export.lineage import known_data, lineage_of
from r1kit.export.push import refuse_private
from r1kit.export.writing import Draft
from r1kit.models.known import KNOWN, ModelError
from r1kit.store import write_json


@pytest.fixture
def run_folder(tiny_policy_folder: Path, tmp_path: Path) -> Path:
    """A run of sft and rl, evaluated before and after; its settings name the key of a judge."""
    run = tmp_path / "home-of-ann" / "runs" / "r1"
    sft, rl = run / "sft-0a1b2c3d", run / "rl-1a2b3c4d"
    for stage, kind, base, tasks, inputs in (
        (sft, "sft", tiny_policy_folder, [], {"rows": {"path": "/data/llamafactory_demo/alpaca_en_demo.json"}}),
        (rl, "rl", sft / "model", ["gsm8k", "/home/ann/secret/mine.jsonl"], {}),
    ):
        stage.mkdir(parents=True)
        shutil.copytree(tiny_policy_folder, stage / "model")
        settings = {"steps": 40, "optimizer": {"learning_rate": 1e-4}, "judge": {"api_key_env": "ANNS_KEY"}}
        settings |= {"tasks": [{"name": name} for name in tasks], "rewards": [{"name": "accuracy"}, {"name": "format"}]}
        model = {"path": os.path.relpath(base, stage)}
        write_json(
            stage / "manifest.json",
            {
                "kind": kind,
                "settings": settings,
                "inputs": {"model": model, **inputs},
                "seconds": 1800,
                "command": "r1kit run /home/ann/x",
            },
        )
    estimate = {"mean": 0.25, "low": 0.2, "high": 0.3, "problems": 100, "samples": 100}
    for name, model in (("eval-base-2a3b4c5d", tiny_policy_folder), ("eval-rl-3a4b5c6d", rl / "model")):
        inputs = {"model": {"path": os.path.relpath(model, run / name)}}
        write_json(
            run / name / "manifest.json",
            {"kind": "evaluate", "settings": {"tasks": [{"name": "gsm8k"}]}, "inputs": inputs},
        )
        write_json(
            run / name / "results.json",
            {"problems": 100, "samples": 100, "k": 1, "overall": {"pass@1": estimate}, "by_source": {}},
        )
    return rl / "model"


def test_the_card_says_what_the_model_is_and_names_nothing_of_this_machine(
    run_folder: Path, tiny_policy_folder: Path, tmp_path: Path
) -> None:
    saved.save(ChatFormat(system="be right"), run_folder)
    lines: list[str] = []
    exported, address = push(
        str(run_folder), "ann/small", dry_run=True, out=tmp_path / "out", prove=False, say=lines.append
    )
    assert address == "" and exported.folder == tmp_path / "out"
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    for text in (
        "# ann/small",
        tiny_policy_folder.name,  # the base
        "| sft | sft | steps 40, learning_rate 0.0001, rewards accuracy + format | 0.50 |",
        "| rl | rl |",
        "25.0 % [20.0, 30.0]",
        "base",
        "this model",
        "| gsm8k (openai/gsm8k) | MIT |",
        "| mine.jsonl | not known to r1kit: state it |",
        "alpaca-demo (Apache-2.0; replies: GPT-4)",
        'AutoModelForCausalLM.from_pretrained("ann/small")',
        "r1kit serve ann/small",
        "be right\nUser: What is 12 + 30?\nAssistant:",
        "library_name: transformers",
    ):
        assert text in card, text
    assert "limits the release" in card and any("alpaca-demo" in line for line in lines if line.startswith("warning"))
    for text in ("ANNS_KEY", "/home", str(tmp_path), "secret"):
        assert text not in card
    assert card.index("| sft |") < card.index("| rl |")


def test_the_lines_of_python_in_the_card_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    push("tiny", "ann/small", dry_run=True, out=tmp_path / "ann" / "small", prove=False)
    card = (tmp_path / "ann" / "small" / "README.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    exec(card.partition("```python\n")[2].partition("```")[0], {})
    assert "12 + 30?" in capsys.readouterr().out


def test_a_model_outside_a_run_has_a_card_without_a_history(tiny_policy_folder: Path) -> None:
    assert lineage_of("tiny", KNOWN["tiny"].place).base == "tiny"
    assert lineage_of("ann/base", tiny_policy_folder).base == "ann/base"
    assert lineage_of(str(tiny_policy_folder), tiny_policy_folder).base == tiny_policy_folder.name


def test_a_folder_named_by_a_relative_path_is_not_linked_as_a_repository_of_the_hub(
    tiny_policy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = shutil.copytree(tiny_policy_folder, tmp_path / "mine" / "small")
    assert lineage_of("mine/small", folder).base == "small"


def test_of_an_adapters_base_only_the_model_is_published(tiny_policy_folder: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    base = shutil.copytree(tiny_policy_folder, tmp_path / "base")
    (base / ".env").write_text("HF_TOKEN=hf_secret")
    (base / "notes.txt").write_text("secret")
    (base / ".git").mkdir()
    config = peft.LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
    peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(tmp_path / "adapter")
    exported, _ = push(
        str(tmp_path / "adapter"), "ann/small", dry_run=True, to="adapter", out=tmp_path / "out", prove=False
    )
    published = {path.name for path in (exported.folder / "base").iterdir()}
    assert {"config.json", "model.safetensors"} <= published
    assert not published & {".env", "notes.txt", ".git"}


def test_a_stopped_export_ends_its_proof_and_leaves_nothing(
    tiny_policy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = psutil.Process().children()  # workers that other tests have left running
    children: list[psutil.Process] = []

    def run_and_stop(*_: Any) -> None:
        threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM)).start()
        try:
            subprocess.run([sys.executable, "-c", "import time; time.sleep(600)"])  # as `proof.run` does
        finally:
            children.extend(each for each in psutil.Process().children() if each not in before)

    monkeypatch.setattr(Draft, "prove", run_and_stop)
    with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
        export(str(tiny_policy_folder), "hub-folder", tmp_path / "out")
    assert not children and not list(tmp_path.iterdir())


def test_a_proof_needs_a_prompt(tiny_policy_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="prompts is 0: give at least 1"):
        export(str(tiny_policy_folder), "hub-folder", tmp_path / "out", prompts=0)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gsm8k", ("gsm8k", "MIT", "openai/gsm8k")),
        ("tiny/reasoning", ("tiny/reasoning", "Apache-2.0, generated by r1kit", "")),
        ("/root/data/llamafactory_demo/dpo_en_demo.json.gz", ("dpo-demo", "Apache-2.0; replies: GPT-4", "")),
        ("/home/ann/mine.jsonl", ("mine.jsonl", "not known to r1kit: state it", "")),
    ],
)
def test_data_is_known_by_name_or_file(name: str, expected: tuple[str, ...]) -> None:
    found = known_data(name)
    assert (found.name, found.licence, found.hub) == expected


def test_a_folder_that_names_this_machine_is_not_pushed(tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", {"_name": f"{Path.cwd()}/runs/x"})
    with pytest.raises(ExportError, match="a folder of this machine"):
        refuse_private(tmp_path)


def pushed(address: str, token: str, folder: Path, *arguments: str) -> Any:
    """`r1kit push tiny ann/small` against another hub, in a process of its own: the address is read at import."""
    environment = os.environ | {"HF_ENDPOINT": address, "HF_TOKEN": token, "HF_HUB_DISABLE_XET": "1"}
    environment |= {"HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "0", "HF_HOME": str(folder / "home")}
    command = [sys.executable, "-m", "r1kit", "push", "tiny", "ann/small", "--no-proof", "--json", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_a_push_sends_the_folder_and_is_private_unless_asked(tmp_path: Path) -> None:
    with fake_hub() as hub:
        done = pushed(hub.address, "hf_right", tmp_path)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["address"] == f"{hub.address}/ann/small"
        folder = tmp_path / "small-hub-folder"
        assert set(hub.files) == {str(file.relative_to(folder)) for file in folder.iterdir()}
        assert all(hub.files[name] == (folder / name).read_bytes() for name in hub.files)
        assert {"README.md", "model.safetensors", "chat_template.jinja", "export.json"} <= set(hub.files)
        assert [(body["name"], body.get("organization"), body["visibility"]) for body in hub.created] == [
            ("small", "ann", "private")
        ]


@pytest.mark.slow
def test_a_wrong_token_is_one_clear_line(tmp_path: Path) -> None:
    with fake_hub() as hub:
        done = pushed(hub.address, "hf_wrong", tmp_path)
    assert done.returncode == 1 and not hub.files
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("r1kit: error: the hub did not take ann/small") and "hf auth login" in last
    assert "hf_wrong" not in done.stderr
