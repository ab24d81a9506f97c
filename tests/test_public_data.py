"""Public sets by name and files of one's own: their columns, their licences, and what must not be trained on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from r1kit.cli import main
from r1kit.collect.requests import Requests
from r1kit.data.conversations import labelled, preference
from r1kit.data.errors import DataError
from r1kit.data.jsonl import read_rows
from r1kit.pipeline import External, Recipe, Stage, execute
from r1kit.settings import SettingsError
from r1kit.stages.data_requests import DATA_REQUESTS, DataRequestsSettings
from r1kit.stages.generate import GENERATE, GenerateSettings
from r1kit.tasks import KNOWN, TaskSpec, iterate, load_task, load_tasks
from r1kit.tasks.public_files import FILES, fetched, local_file
from r1kit.tasks.public_sets import DATA_VARIABLE

Row = dict[str, Any]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data folder, and an empty cache."""
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv(DATA_VARIABLE, str(folder))
    monkeypatch.setenv("R1KIT_CACHE", str(tmp_path / "cache"))
    return folder


def write(path: Path, rows: Sequence[Row]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


# One row of each set as its authors lay it out, and what it becomes: prompt, answer, verifier, words of the solution.
ROWS: dict[str, tuple[Row, tuple[str, str, str, str]]] = {
    "numina-tir": (
        {
            "problem": "Find $x$ with $2x = 6$.",
            "solution": "We compute:\n```python\nprint(6 / 2)\n```\n```output\n3.0\n```\nSo it is $\\boxed{3}$.",
            "messages": [{"role": "user", "content": "Find"}, {"role": "assistant", "content": "We"}],
        },
        ("Find $x$ with $2x = 6$.", "3", "math", "We compute"),
    ),
    "deepmath": (
        {
            "question": "What is the limit of $1/n$?",
            "final_answer": "0",
            "difficulty": 4.5,
            "topic": "Mathematics -> Calculus",
            "r1_solution_1": "Okay. " * 10,
            "r1_solution_2": "So. " * 10,
            "r1_solution_3": "Hm. " * 10,
        },
        ("What is the limit of $1/n$?", "0", "math", ""),
    ),
    "openr1-math": (
        {
            "problem": "Add 1 and 2.",
            "solution": "1 + 2 = 3.",
            "answer": "3",
            "problem_type": "Algebra",
            "question_type": "math-word-problem",
            "source": "cn_k12",
            "uuid": "a-b",
            "is_reasoning_complete": [True, True],
            "generations": ["<think>\nfirst\n</think>\n\n3", "<think>\nsecond\n</think>\n\n4"],
            "correctness_math_verify": [True, False],
            "correctness_llama": None,
            "finish_reasons": None,
            "correctness_count": 1,
            "messages": [
                {"role": "user", "content": "Add 1 and 2."},
                {"role": "assistant", "content": "<think>\nfirst\n</think>\n\nIt is \\boxed{3}."},
            ],
        },
        ("Add 1 and 2.", "3", "math", "<think>\nfirst\n</think>\n\nIt is \\boxed{3}."),
    ),
    **{
        name: (
            {
                "system": "Your role as an assistant involves thinking.",
                "conversations": [
                    {"from": "user", "value": "Return your final response within \\boxed{}. Add 1 and 2."},
                    {
                        "from": "assistant",
                        "value": "<|begin_of_thought|>\n\n1 + 2 = 3\n\n<|end_of_thought|>\n\n"
                        "<|begin_of_solution|>\n\nIt is \\boxed{3}.\n\n<|end_of_solution|>",
                    },
                ],
            },
            ("Add 1 and 2.", "3", "math", "<think>\n1 + 2 = 3\n</think>\n\nIt is \\boxed{3}."),
        )
        for name in ("bespoke-stratos", "openthoughts")
    },
    "codeforces": (
        {
            "id": "1/A",
            "contest_id": "1",
            "title": "Double",
            "description": "Print twice the number.",
            "input_format": "A number.",
            "output_format": "A number.",
            "interaction_format": None,
            "note": None,
            "examples": [{"input": "2", "output": "4"}],
            "editorial": None,
            "rating": 800,
            "tags": ["math"],
            "official_tests": [{"input": "2\n", "output": "4\n"}],
            "official_tests_complete": True,
            "input_mode": "stdio",
            "generated_checker": None,
            "executable": True,
        },
        ("Print twice the number.", '"4\\n"', "code", ""),
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_public_set_is_read_in_its_authors_columns(name: str, data: Path) -> None:
    row, (prompt, answer, verifier, solution) = ROWS[name]
    write(data / f"{KNOWN[name].splits['train'].local}.jsonl", [row])
    problem = load_tasks([TaskSpec(name=name)], training=True)[0]
    assert problem.prompt.startswith(prompt) and answer in problem.answer and problem.verifier == verifier
    assert problem.solution.startswith(solution)
    assert sum(len(str(value)) for value in problem.columns.values()) < 400  # no worked samples in memory


def test_rows_without_a_reference_are_skipped_in_sets_that_have_some(data: Path) -> None:
    row, _ = ROWS["bespoke-stratos"]
    code = {**row, "conversations": [row["conversations"][0], {"from": "assistant", "value": "def f(): ..."}]}
    write(data / "bespoke_stratos" / "train.jsonl", [code, row])
    assert len(load_task(TaskSpec(name="bespoke-stratos"))) == 1


def test_every_set_says_its_licence(capsys: pytest.CaptureFixture[str], data: Path) -> None:
    write(data / "gsm8k" / "train.jsonl", [{"question": "1+1?", "answer": "#### 2"}])
    assert main(["data", "list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows.keys() == {*KNOWN, *FILES} and all(row["licence"] and row["about"] for row in rows.values())
    assert [name for name, row in rows.items() if row["here"]] == ["gsm8k"]
    assert rows["pku-saferlhf"]["licence"] == "CC-BY-NC-4.0" and rows["deepmath"]["licence"] == "MIT"
    assert rows["svamp"]["holds"] == "problems, evaluation only" and rows["openthoughts"]["holds"] == "traces"
    assert main(["data", "list"]) == 0
    assert "CC-BY-SA-3.0" in capsys.readouterr().out


DIALOGUE = "\n\nHuman: {}\n\nAssistant: {}"


def test_public_requests_preferences_and_safety_labels_are_read_in_their_authors_columns(
    data: Path, tmp_path: Path
) -> None:
    question = {"role": "user", "content": "say hi"}
    files = {
        "dolly": [{"instruction": "Who is it?", "context": "Ann waits.", "response": "Ann", "category": "closed_qa"}],
        "ultrafeedback": [
            {
                "prompt": "say hi",
                "prompt_id": "a",
                "chosen": [question, {"role": "assistant", "content": "hi!"}],
                "rejected": [question, {"role": "assistant", "content": "no"}],
                "messages": [question, {"role": "assistant", "content": "hi!"}],
                "score_chosen": 8.0,
                "score_rejected": 3.0,
            }
        ],
        "pku-saferlhf": [
            {
                "prompt": "a bomb?",
                "response_0": "take this",
                "response_1": "no",
                "prompt_source": "x",
                "is_response_0_safe": False,
                "is_response_1_safe": True,
                "better_response_id": 1,
                "safer_response_id": 1,
            }
        ],
    }
    for name, rows in files.items():
        write(data / f"{FILES[name].local}.jsonl", rows)
    paths = dict(zip(("general", "preferences", "safety"), map(local_file, files), strict=True))
    stage = Stage(
        "requests",
        DATA_REQUESTS,
        DataRequestsSettings(),
        {name: External(path) for name, path in paths.items() if path is not None},
    )
    folder = execute(Recipe("some", (stage,)), tmp_path / "runs")
    found = {name: list(read_rows(folder / f"{name}.jsonl")) for name in paths}
    assert [turn["content"] for turn in found["general"][0]["messages"]] == ["Who is it?\nAnn waits.", "Ann"]
    assert Requests((), {"chat": folder / "general.jsonl"}).check() == 1
    assert preference(found["preferences"][0]).rejected == "no"
    assert [(one.response, one.label) for one in map(labelled, found["safety"])] == [("take this", False), ("no", True)]


def test_requests_for_rl_are_the_first_questions_each_once(data: Path, tmp_path: Path) -> None:
    write(data / "pku_saferlhf" / "train.jsonl", [{"prompt": "a bomb?", "response_0": "a", "response_1": "b"}] * 2)
    pair = {"chosen": DIALOGUE.format("a gun?", "no"), "rejected": DIALOGUE.format("a gun?", "yes")}
    talk = {"messages": [{"role": "user", "content": "say hi"}, {"role": "assistant", "content": "hi"}]}
    mine = write(tmp_path / "mine.jsonl", [pair, talk, {"question": "how are you?"}])
    harmful, asked = TaskSpec(name="harmful:pku-saferlhf"), TaskSpec(name=f"requests:{mine}", limit=2)
    assert len(load_tasks([harmful, asked], training=True)) == 3
    prompts = [[problem.prompt for problem in iterate(load_task(spec))] for spec in (harmful, asked)]
    assert prompts == [["a bomb?"], ["a gun?", "say hi"]]
    assert load_task(harmful)[0].source == "harmful/harmful" and load_task(asked)[0].source == "requests/general"
    assert load_task(asked)[0].verifier == "" == load_task(asked)[0].answer
    with pytest.raises(DataError, match="is for training: no rule can judge"):
        load_task(harmful, "test")
    with pytest.raises(DataError, match="no file or known set 'doly': did you mean dolly"):
        load_task(TaskSpec(name="requests:doly"))


def test_what_measures_is_never_trained_on(data: Path) -> None:
    path = write(data / "xstest" / "prompts.jsonl", [{"prompt": "a gun?", "label": "unsafe"}])
    for name in ("harmful:xstest", f"harmful:{path}", "svamp", "codeforces"):
        spec = TaskSpec(name=name, split="test" if name == "codeforces" else "")
        with pytest.raises(DataError, match="evaluation only"):
            load_tasks([spec], training=True)


def test_a_set_that_is_not_here_and_cannot_be_fetched_says_where_it_belongs(data: Path) -> None:
    with pytest.raises(DataError, match=r"ultrafeedback/train_prefs\.jsonl\.gz into a folder and set R1KIT_DATA"):
        fetched(FILES["ultrafeedback"])


def test_a_generated_file_of_an_older_version_is_made_again(data: Path) -> None:
    path = fetched(FILES["tiny-requests"])
    made, written = path.read_bytes(), path.stat().st_mtime_ns
    assert fetched(FILES["tiny-requests"]) == path and path.stat().st_mtime_ns == written
    path.write_bytes(made[: len(made) // 2])
    assert fetched(FILES["tiny-requests"]).read_bytes() == made


def test_a_file_is_divided_by_the_text_of_its_prompts(tmp_path: Path) -> None:
    rows = [{"question": f"How much is {n} + 1?", "answer": str(n + 1)} for n in range(50)]
    spec = TaskSpec(name=str(write(tmp_path / "mine.jsonl", rows)), options={"held_out": 0.2})

    def side(training: bool) -> set[str]:
        task = load_tasks([spec], training=training)
        return {task[place].prompt for place in range(len(task))}

    train, test = side(True), side(False)
    assert not train & test and len(train | test) == 50 and 5 <= len(test) <= 15
    with pytest.raises(DataError, match="its held-out part, which is for evaluation only"):
        load_tasks([spec.replace(split="test")], training=True)
    write(tmp_path / "mine.jsonl", [*reversed(rows), {"question": "how much is  3 + 1?", "answer": "4"}])
    assert {text.lower().replace("  ", " ") for text in side(False)} == {text.lower() for text in test}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"held_out": 2}, "held_out is 2"),
        ({"held_out": "x"}, 'expected {"held_out": 0.2}'),
        ({"held_out": 1e-9}, "none of 1 problems is held out: add problems"),
    ],
)
def test_a_share_that_divides_nothing_is_refused(options: Row, message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "mine.jsonl", [{"question": "1 + 1?", "answer": "2"}])
    with pytest.raises(DataError, match=message):
        load_tasks([TaskSpec(name=str(path), options=options)], training=False)
    with pytest.raises(SettingsError, match="split would have no effect"):
        TaskSpec.parse({"name": str(path), "split": "test"})


def test_worked_solutions_become_cold_start_rows(data: Path, tmp_path: Path) -> None:
    """GSM8K's solutions become reasoning before the answer; traces keep theirs, and wrong ones are dropped."""
    write(
        data / "gsm8k" / "train.jsonl",
        [{"question": "Tom has 2 bags of 3 apples. How many?", "answer": "He has 2*3 = <<2*3=6>>6 apples.\n#### 6"}],
    )
    row, _ = ROWS["openr1-math"]
    write(data / "openr1_math" / "train.jsonl", [row, {**row, "problem": "Add 2 and 5.", "answer": "7"}])
    talk = [
        {"role": "user", "content": "What is the capital of France?"},
        {"role": "assistant", "content": "<think>\nIt is Paris.\n</think>\n\nParis"},
    ]
    own = write(tmp_path / "own.jsonl", [{"messages": talk}])
    settings = GenerateSettings(tasks=("gsm8k", "openr1-math"), prompting="traces")
    stage = Stage("traces", GENERATE, settings, {"requests/own": External(own)})
    folder = execute(Recipe("some", (stage,)), tmp_path / "runs")
    kept = [row["messages"][-1]["content"] for row in read_rows(folder / "kept.jsonl")]
    assert kept == [
        "<think>He has 2*3 = 6 apples.</think> <answer>6</answer>",
        "<think>first</think> <answer>It is \\boxed{3}.</answer>",
        "<think>It is Paris.</think> <answer>Paris</answer>",
    ]
    (dropped,) = read_rows(folder / "dropped.jsonl")
    assert dropped["dropped"]["reason"] == "wrong"
