"""Rehearsals: a small random model of the same architecture walks through every stage of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from r1kit.chat import ChatFormat, saved
from r1kit.cli import main
from r1kit.recipes import build_recipe
from r1kit.tiny.frame import TINY_SYSTEM
from r1kit.types import Problem

pytestmark = pytest.mark.usefixtures("no_public_data")
PEOPLE = ("Ann", "Ben", "Carla", "Deniz", "Eva")


@pytest.fixture(scope="module")
def problems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fifty problems of one's own."""
    path = tmp_path_factory.mktemp("mine") / "mine.jsonl"
    rows = [
        {
            "question": f"{PEOPLE[n % 5]} has {n + 2} red and {3 * n} blue marbles. How many in all?",
            "answer": str(4 * n + 2),
        }
        for n in range(50)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The configuration and tokenizer of a Qwen3 with a chat template, and a short prompt: no weights."""
    from transformers import Qwen3Config

    from shapes import SHAPES

    folder = tmp_path_factory.mktemp("models") / "qwen"
    tokenizer = SHAPES["chatml-base"].tokenizer()
    tokenizer.add_special_tokens({"pad_token": "<|pad|>"})
    tokenizer.save_pretrained(folder)
    saved.save(ChatFormat(template="chat", system=TINY_SYSTEM), folder)
    Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        tie_word_embeddings=True,
        max_position_embeddings=2048,
        eos_token_id=tokenizer.eos_token_id,
        architectures=["Qwen3ForCausalLM"],
    ).save_pretrained(folder)
    return folder


def test_every_stage_of_r1_is_walked_on_ones_own_problems(
    qwen: Path, problems: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = ["r1", "--model", str(qwen), "--rehearse", "--runs", str(tmp_path / "runs")]
    wanted += ["--data", f"problems={problems}", "--set", "rehearsal.epochs=60"]
    assert main(["run", *wanted, "--jobs", "1"]) == 0
    out, told = capsys.readouterr()
    assert "this is a rehearsal" in told and "its numbers mean nothing" in told
    assert f"{problems} is divided by the text of its prompts: 20% measure" in told
    assert "not on this machine, so the tiny world stands in: ifeval" in told and "dolly, ultrafeedback" in told
    folder = Path(out.splitlines()[-1])
    assert folder.parent.name == "r1-gpu-rehearsal"
    table = json.loads((folder / "summary.json").read_text())["table_of_stages"]
    assert table["columns"] == ["base", "zero", "dev1", "dev2", "dev3", "r1"]
    assert "its numbers mean nothing" in (folder / "report.html").read_text()
    assert main(["plan", *wanted, "--json"]) == 0
    assert {row["status"] for row in json.loads(capsys.readouterr().out)} == {"done"}


def test_few_problems_are_learned_in_as_many_updates(qwen: Path, problems: Path, tmp_path: Path) -> None:
    few = tmp_path / "few.jsonl"
    few.write_text("".join(problems.read_text().splitlines(keepends=True)[:3]))
    wanted = ["r1", "--model", str(qwen), "--rehearse", "--runs", str(tmp_path / "runs"), "--until", "rehearsal"]
    wanted += ["--data", f"problems={few}", "--data", "eval=tiny/sums", "--set", "rehearsal.epochs=1"]
    assert main(["run", *wanted]) == 0
    [taught] = (tmp_path / "runs").glob("*/rehearsal-*/taught.jsonl")
    rows = taught.read_text().splitlines()
    assert len(rows) == 8 and len(set(rows)) == 3


def test_a_rehearsal_has_the_stages_of_the_run_at_smaller_sizes(qwen: Path, problems: Path) -> None:
    options: dict[str, Any] = {"model": str(qwen), "data": {"problems": str(problems)}}
    whole, small = build_recipe("r1", **options), build_recipe("r1", **options, rehearse=True)
    assert [stage.name for stage in small.stages] == ["rehearsal", *(stage.name for stage in whole.stages)]
    assert [stage.kind for stage in small.stages[1:]] == [stage.kind for stage in whole.stages]
    settings = {stage.name: stage.settings.model_dump() for stage in small.stages}
    assert settings["zero"]["steps"] == 2 and settings["rehearsal"]["epochs"] == 120
    assert (settings["cold-start"]["temperature"], settings["zero"]["temperature"]) == (0.3, 1.0)
    asks = build_recipe("r1", **options, rehearse=True, overrides={"zero.servers.urls": "http://localhost:8000"})
    assert {stage.name: stage for stage in asks.stages}["zero"].settings.servers is None
    longer = build_recipe("r1", **options, rehearse=True, overrides={"zero.steps": 500, "dev1.epochs": 1})
    assert {stage.name: stage for stage in longer.stages}["zero"].settings.model_dump()["steps"] == 2


@pytest.mark.parametrize(
    ("fields", "widths"),
    [
        (
            {"model_type": "qwen3", "hidden_size": 1024, "num_attention_heads": 16, "num_key_value_heads": 8},
            (64, 2, 1, 1),
        ),
        ({"model_type": "gpt2", "n_embd": 96, "n_head": 4, "n_layer": 5}, (96, 2, 4, None)),
    ],
)
def test_the_small_model_has_the_layers_of_the_large_one(fields: dict[str, Any], widths: tuple[int, ...]) -> None:
    from transformers import AutoConfig

    from r1kit.models.rehearsal import kinds_of, small_config

    config = AutoConfig.for_model(**fields, vocab_size=200, num_hidden_layers=fields.get("n_layer", 7))
    small = small_config(config, "it")
    heads = getattr(small, "num_key_value_heads", None)
    assert (small.hidden_size, small.num_hidden_layers, small.num_attention_heads, heads) == widths
    assert kinds_of(small, "it") == kinds_of(config, "it")


def test_layers_of_several_kinds_are_all_kept() -> None:
    from transformers import Qwen3_5TextConfig

    from r1kit.models.rehearsal import small_config

    config = Qwen3_5TextConfig(vocab_size=200, num_hidden_layers=8, hidden_size=512, intermediate_size=1024)
    small = small_config(config, "it")
    assert small.layer_types == ["linear_attention"] * 3 + ["full_attention"] and small.hidden_size < 512


def test_the_answers_learned_by_heart_are_right() -> None:
    from r1kit.stages.rehearse import answer_by_heart

    assert answer_by_heart(Problem(id="a", prompt="1 + 1?", answer="2")) == (
        "<think>I work it out step by step, and the result is 2</think> <answer>2</answer>"
    )
    chinese = answer_by_heart(Problem(id="b", prompt="七加五是多少？", answer="12", language="zh"))
    assert chinese == "<think>七加五是多少？ 12</think> <answer>12</answer>"
    code = Problem(id="c", prompt="Write f.", answer='{"tests": []}', verifier="ifeval", solution="no")
    assert answer_by_heart(code) is None
