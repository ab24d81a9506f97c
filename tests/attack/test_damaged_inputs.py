"""Readers of outside data on damaged and random bytes: a value, or one of the errors that users see."""

from __future__ import annotations

import gzip
import json
import random
import re
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outside_readers import EXPECTED, READERS, read
from r1kit import cli
from r1kit.commands.turns_command import model_turns
from r1kit.models.known import resolve
from r1kit.models.load import load
from r1kit.report.live.link_checks import same_tokens

ROW = json.dumps({"question": "1+1?", "answer": "2", "messages": [{"role": "user", "content": "é"}], "n": [1, None]})
SEEDS: dict[str, bytes] = {
    "jsonl.gz": gzip.compress(f"{ROW}\n{ROW}\n".encode(), mtime=0),
    "json": f"[{ROW}, {ROW}]".encode(),
    "recipe": b'recipe = "r1"\nscale = "tiny"\n[stages.rl]\nsteps = 3\n[rewards]\nformat = 1.0\n',
    "chat format": b'{"template": "plain", "system": "x", "options": {"a": 1}}',
    "safetensors header": (2).to_bytes(8, "little") + b"{}",
    "checksums": b'{"a": {"bytes": 1, "sha256": "00"}}',
    "plan of a run": b'{"stages": [{"folder": "rl-00000000", "stage": "rl"}], "sha256": "00"}',
    "stage": b'{"stage": "rl", "kind": "rl", "fingerprint": "0", "settings": {"group_size": 4}, '
    b'"started": "2026-01-01", "inputs": {"model": {"stage": "sft", "path": "model", "fingerprint": "0"}}}',
    "metrics": b'{"step": 1, "reward/mean": 0.5, "reward/accuracy": 0.5, "policy/entropy": 0.5}\n' * 9,
    "engine settings": b'{"kind": "openai", "model": "m", "base_url": "http://u:p@h/v1", "extra_body": {"a": 1}}',
    "messages": b'[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]',
    "reward spec": b'{"name": "format", "weight": 1.5, "options": {"x": [1, 2]}, "only": ["a"]}',
    "limits": b'{"wall_s": 1.0, "memory_mb": 64}',
    "server reply": b'{"choices": [{"message": {"content": "a"}, "finish_reason": "stop"}], "usage": {}}',
    "sandbox request": b'{"program": "print(1)", "files": {"a": "b"}, "limits": {"wall_s": 1}}',
    "tests of code": b'{"entry_point": "f", "calls": [{"args": [1], "output": 2}], "time_s": 1}',
    "program in a response": b"<think>a</think>\n```python\nx = '''\n```\n'''\n```",
    "verifiers": b"<think>so</think> \\boxed{\\frac{1}{2}}\x00\\frac{1}{2}",
}
LETTERS = '{}[]",:0123456789eé\\<>`$/ \0\n'
VALUES = (b"null", b"[]", b"{}", b"-1", b"1e999", b'"' + b"9" * 400 + b'"', b"9" * 5000, b"NaN", b"true", b'"\\ud800"')


def damaged(seed: bytes, chance: random.Random) -> bytes:
    """A copy with a flipped bit, a part cut out or doubled, or a JSON value replaced by another one."""
    data = bytearray(seed)
    for _ in range(chance.randrange(1, 4)):
        place = chance.randrange(len(data) + 1)
        kind = chance.randrange(5)
        if kind == 0 and place < len(data):
            data[place] ^= 1 << chance.randrange(8)
        elif kind == 1:
            del data[place : place + chance.randrange(20)]
        elif kind == 2:
            data[place:place] = data[place : place + chance.randrange(20)]
        elif kind == 3:
            del data[place:]
        else:
            data[place : place + chance.randrange(8)] = chance.choice(VALUES)
    return bytes(data)


@pytest.mark.parametrize("name", READERS)
def test_damaged_data_is_read_or_refused(name: str) -> None:
    chance = random.Random(f"damage/{name}")
    for _ in range(40):
        read(name, damaged(SEEDS.get(name, ROW.encode()), chance))


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    data=st.binary(max_size=60) | st.sampled_from(VALUES) | st.text('{}[]",:0123456789eé\\<>`$/ \0\n').map(str.encode)
)
def test_random_data_is_read_or_refused(name: str, data: bytes) -> None:
    read(name, data)


@pytest.mark.parametrize("command", ["export", "chat", "eval"])
@pytest.mark.parametrize(
    "content", ["[]", "null", "{", '{"model_type": 5}', '{"model_type": "llama", "hidden_size": "x"}']
)
def test_a_damaged_configuration_is_one_message(
    command: str, content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for file in resolve("tiny").iterdir():
        if file.name != "config.json":
            (folder / file.name).symlink_to(file)
    (folder / "config.json").write_text(content)
    more: dict[str, list[str]] = {"export": ["--to", "hub-folder"], "eval": ["--task", "tiny/sums", "--limit", "1"]}
    assert cli.main([command, str(folder), *more.get(command, [])]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("r1kit: error: ") and "model" in error and "Traceback" not in error


PROMPTING = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
PROMPTING += ("generation_config.json", "chat_format.json", "chat_template.jinja")


def model_of(folder: Path, **changed: bytes) -> Path:
    """The tiny model without its weights, with all files that decide prompts, some of them changed."""
    folder.mkdir()
    for name in ("config.json", *PROMPTING):
        source = resolve("tiny") / name
        (folder / name).write_bytes(source.read_bytes() if source.exists() else b"{}")  # transformers writes such files
    turns = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    (folder / "chat_template.jinja").write_text(turns)
    for name, content in changed.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize(
    ("name", "content"), [*product(PROMPTING, [b"{", b"", b"\xff\xfe"]), ("chat_format.json", b"{}")]
)
def test_a_damaged_file_of_tokenizer_template_or_ends_is_named_with_its_remedy(
    name: str, content: bytes, tmp_path: Path
) -> None:
    whole, folder = model_of(tmp_path / "whole"), model_of(tmp_path / "model", **{name: content})
    assert model_turns([str(whole)])
    place = "chat template" if name.endswith("jinja") and content == b"{" else str(folder / name)
    with pytest.raises(EXPECTED, match=rf"{re.escape(place)}.*(restore|must accept)"):
        model_turns([str(folder)])


def test_a_recipe_for_a_model_with_a_damaged_tokenizer_is_not_begun_without_its_sizes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = model_of(tmp_path / "model", **{"tokenizer.json": b"{"})
    assert cli.main(["init", "r1", "--model", str(folder), "--data", "problems=mine.jsonl"]) == 1
    assert str(folder / "tokenizer.json") in capsys.readouterr().err


def test_a_damaged_tokenizer_of_a_stage_is_shown_beside_the_row_that_it_was_to_check(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "tokenizer.json").write_text("{}")
    check = same_tokens(tmp_path, 0, "text")
    assert check.result == "differs" and str(tmp_path / "model" / "tokenizer.json") in check.why


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "a flipped byte in the header": lambda data: data[:20] + bytes([data[20] ^ 0xFF]) + data[21:],
    "cut off": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "a header of a terabyte": lambda data: (1 << 40).to_bytes(8, "little") + data[8:],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_weights_are_refused(damage: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for file in resolve("tiny").iterdir():
        data = file.read_bytes() if file.is_file() else b""
        (folder / file.name).write_bytes(DAMAGES[damage](data) if file.suffix == ".safetensors" else data)
    with pytest.raises(EXPECTED, match="model"):
        load(str(folder), device="cpu")
