"""The stage `preferences`: pairs by a judge that is asked from both sides, kept with its reasons where one wins."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest

from chat_server import serving
from r1kit.data.conversations import preference
from r1kit.data.jsonl import read_rows
from r1kit.pipeline import External, Recipe, Stage, execute
from r1kit.stages.preferences import PREFERENCES, PreferencesSettings


def samples(path: Path, **responses: list[str]) -> Path:
    rows = [
        {
            "id": f"{name}#{number}",
            "problem_id": name,
            "source": "chat",
            "messages": [{"role": "user", "content": f"Ask {name}."}, {"role": "assistant", "content": text}],
        }
        for name, texts in responses.items()
        for number, text in enumerate(texts)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def judge(body: dict[str, Any]) -> str:
    """Likes what has a star; without one it likes A, wherever that stands."""
    prompt = body["messages"][0]["content"]
    a, b = (_part(prompt, name) for name in ("answer-a", "answer-b"))
    stars = a.count("*") - b.count("*")
    label = "A>>B" if stars > 0 else "B>>A" if stars < 0 else "A>B"
    code = re.findall(r'\n\{"code": "([0-9a-f]{8})"', prompt)[-1]
    return json.dumps({"code": code, "analysis": f"looked at {a}", "label": label})


def _part(prompt: str, name: str) -> str:
    found = re.search(rf"<{name}-([0-9a-f]{{12}})>\n(.*?)\n</{name}-\1>", prompt, re.DOTALL)
    assert found
    return html.unescape(found[2])


def made(tmp_path: Path, rows: Path, url: str, **changes: Any) -> Path:
    engine = {"kind": "openai", "model": "judge", "base_url": url, "cache": str(tmp_path / "replies.sqlite")}
    settings = PreferencesSettings.parse({"judge": engine, **changes})
    return execute(Recipe("pairs", (Stage("pairs", PREFERENCES, settings, {"rows": External(rows)}),)), tmp_path)


def test_pairs_with_a_clear_winner_are_kept_with_the_judges_reasons(tmp_path: Path) -> None:
    rows = samples(tmp_path / "rows.jsonl", one=["plain", "star *"], two=["same", "same"], three=["this", "that"])
    with serving(judge) as server:
        folder = made(tmp_path, rows, server.url)
        assert len(server.asked) == 8  # four replies for each of the two pairs
    (pair,) = read_rows(folder / "preferences.jsonl")
    assert (pair["chosen"], pair["rejected"]) == ("star *", "plain")
    told = pair["metadata"]
    assert told["margin"] == 2.0 and len(told["reasons"]) == 4 and told["orders"] == ["AB", "AB", "BA", "BA"]
    assert preference(pair).prompt[-1].content == "Ask one."  # what the stage reward-model reads
    (dropped,) = read_rows(folder / "dropped.jsonl")
    assert {dropped["first"], dropped["second"]} == {"this", "that"}
    assert dropped["dropped"]["reason"] == "margin too small"
    funnel = json.loads((folder / "funnel.json").read_text())
    assert (funnel["asked"], funnel["samples"], funnel["kept"]) == (3, 2, 1)


def test_reasoning_is_not_shown_to_a_judge_of_answers(tmp_path: Path) -> None:
    texts = ["<think> * * </think> <answer>one</answer>", "<think> no </think> <answer>two *</answer>"]
    rows = samples(tmp_path / "rows.jsonl", one=texts)
    with serving(judge) as server:
        (pair,) = read_rows(made(tmp_path, rows, server.url) / "preferences.jsonl")
    assert pair["chosen"] == texts[1]  # whole, though only its answer was judged


def test_replies_that_cannot_be_read_are_counted_and_what_the_judge_took_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = samples(tmp_path / "rows.jsonl", one=["plain", "star *"])
    with serving(lambda body: judge(body) if body["seed"] % 2 else "well, A I think") as server:
        folder = made(tmp_path, rows, server.url)
        unreadable = sum(not body["seed"] % 2 for body in server.asked)
        replies = len(server.asked)
    counts = json.loads((folder / "funnel.json").read_text())["counts"]
    assert unreadable and counts == {"judge replies": replies, "judge unreadable": unreadable}
    assert f"{replies} requests" in "".join(capsys.readouterr())


def test_a_judge_without_a_clear_word_makes_no_data(tmp_path: Path) -> None:
    rows = samples(tmp_path / "rows.jsonl", one=["this", "that"])
    with serving(judge) as server, pytest.raises(ValueError, match="none of 1 pairs has a clear winner"):
        made(tmp_path, rows, server.url)
    with pytest.raises(ValueError, match="needs one judge"):
        stage = Stage("pairs", PREFERENCES, PreferencesSettings(), {"rows": External(rows)})
        execute(Recipe("none", (stage,)), tmp_path)
