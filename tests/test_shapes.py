"""Facts about data files of others: prompt and reference of each shape, and which are refused, and why.

The rows have the columns of real data sets; their contents are made up.
"""

from __future__ import annotations

import base64
import gzip
import json
import pickle
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1kit import cli
from r1kit.data.errors import DataError
from r1kit.recipes import build_recipe
from r1kit.settings import SettingsError
from r1kit.tasks import TaskSpec, check_file, load_file, load_task
from r1kit.tasks.conversion import convert
from r1kit.tasks.known_shapes import SCHEMAS
from r1kit.tasks.recognition import prompts_only
from r1kit.tasks.schemas import Schema
from r1kit.verifiers import verify_all
from r1kit.verifiers.alternatives import any_of

ROOT = Path(__file__).parents[1]
CASES = ROOT.parent / "shared" / "cases" / "data"
PEARS = "A farmer packs 4 boxes with 6 pears each. How many pears are that?"
TALK = [{"role": "user", "content": PEARS}, {"role": "assistant", "content": "4 times 6 is 24."}]
KEYS = (
    "input",
    "output",
    "inputs",
    "outputs",
    "fn_name",
    "text",
    "label",
    "role",
    "content",
    "value",
    "from",
    "target",
)
STDIN = {"inputs": ["1 2\n", "3 4\n"], "outputs": ["3\n", "7\n"]}
HIDDEN = [{"input": "[5]\n1", "output": "[6]", "testtype": "functional"}]
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 9) | st.floats() | st.text(max_size=8) | st.just('[{"input": 1}]'),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=6,
)
STARTER = "class Solution:\n    def grow(self, row: List[int], by: int) -> List[int]:\n        "


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


# name, row, asked, verifier, right
PROBLEMS: list[tuple[str, dict[str, Any], str, str, Any]] = [
    ("gsm8k", {"question": PEARS, "answer": "4 x 6 = <<4*6=24>>24\n#### 24"}, PEARS, "number", "24"),
    (
        "math",
        {"problem": "Half of 1?", "level": "Level 1", "type": "Algebra", "solution": r"So $\boxed{\frac{1}{2}}$."},
        "Half of 1?",
        "math",
        r"\frac{1}{2}",
    ),
    (
        "problem+answer",  # MATH-500
        {
            "problem": "Half of 1?",
            "solution": r"First \boxed{2}, then half.",
            "answer": r"\frac12",
            "subject": "Algebra",
            "level": 1,
            "unique_id": "test/algebra/1.json",
        },
        "Half of 1?",
        "math",
        r"\frac12",
    ),
    (
        "math",  # NuminaMath-CoT
        {"source": "cn_k12", "problem": "2 + 2?", "solution": r"$\boxed{4}$", "messages": TALK},
        "2 + 2?",
        "math",
        "4",
    ),
    (
        "numina",  # NuminaMath-1.5
        {
            "problem": "2 + 2?",
            "solution": "Two and two are four.",
            "answer": "4",
            "problem_type": "Algebra",
            "question_type": "math-word-problem",
            "problem_is_valid": "Yes",
            "solution_is_valid": "Yes",
            "source": "olympiads",
            "synthetic": False,
        },
        "2 + 2?",
        "math",
        "4",
    ),
    (
        "openr1-math",  # OpenR1-Math-220k
        {
            "problem": PEARS,
            "solution": r"With \boxed{6} pears in each of the 4 boxes there are 24.",
            "answer": "24",
            "problem_type": "Algebra",
            "question_type": "math-word-problem",
            "source": "own",
            "uuid": "0-1",
            "is_reasoning_complete": [True],
            "generations": ["<think>6 * 4</think> 24"],
            "correctness_math_verify": [True],
            "correctness_llama": None,
            "finish_reasons": None,
            "correctness_count": 1,
            "messages": TALK,
        },
        PEARS,
        "math",
        "24",
    ),
    (
        "problem+answer",  # DeepScaleR
        {"problem": "2 + 2?", "answer": "4", "solution": "Adding, we get 4."},
        "2 + 2?",
        "math",
        "4",
    ),
    (
        "problem+answer",  # Big-Math
        {"problem": "2 + 2?", "answer": "4", "source": "orca", "domain": ["Arithmetic"], "llama8b_solve_rate": 0.9},
        "2 + 2?",
        "math",
        "4",
    ),
    (
        "verl",  # DAPO-Math-17k
        {
            "data_source": "math_dapo",
            "prompt": [{"content": "Solve. The last line should be Answer: $Answer.\n\n2 + 2?", "role": "user"}],
            "ability": "MATH",
            "reward_model": {"ground_truth": "4", "style": "rule-lighteval/MATH_v2"},
            "extra_info": {"index": "0-1"},
        },
        "Solve. The last line should be Answer: $Answer.\n\n2 + 2?",
        "math",
        "4",
    ),
    (
        "verl",  # code, as in Eurus-2-RL-Data
        {
            "data_source": "codecontests",
            "prompt": [{"role": "system", "content": "Think."}, {"role": "user", "content": "Add two numbers."}],
            "ability": "code",
            "reward_model": {"ground_truth": json.dumps(STDIN), "style": "rule"},
            "extra_info": {"split": "dummy"},
        },
        "Think.\n\nAdd two numbers.",
        "code",
        STDIN,
    ),
    (
        "verl",  # TinyZero's rows for verl
        {
            "target": 14,
            "nums": [2, 3, 8],
            "data_source": "countdown",
            "prompt": [{"role": "user", "content": "Make 14 from 2, 3, 8."}],
            "ability": "math",
            "reward_model": {"style": "rule", "ground_truth": {"target": 14, "numbers": [2, 3, 8]}},
        },
        "Make 14 from 2, 3, 8.",
        "countdown",
        {"numbers": [2, 3, 8], "target": 14},
    ),
    (
        "orz",
        {"0": {"from": "human", "value": "2 + 2?"}, "1": {"from": "assistant", "ground_truth": {"value": "4"}}},
        "2 + 2?",
        "math",
        "4",
    ),
    (
        "countdown",
        {"target": 14, "nums": [2, 3, 8]},
        "Write an expression that equals 14. It must use the numbers 2, 3 and 8, each exactly once, "
        "together with + - * / and brackets.",
        "countdown",
        {"numbers": [2, 3, 8], "target": 14},
    ),
    (
        "mmlu",
        {"question": "Where is it cold?", "subject": "geography", "choices": ["Oslo", "Rome", "Cairo"], "answer": 1},
        "Where is it cold?\nA. Oslo\nB. Rome\nC. Cairo",
        "choice",
        "B",
    ),
    (
        "mmlu-pro",
        {
            "question_id": 1,
            "question": "Which gas do plants take in?",
            "options": ["Oxygen", "Carbon dioxide", "Helium"],
            "answer": "B",
            "answer_index": 1,
            "cot_content": "",
            "category": "biology",
            "src": "own",
        },
        "Which gas do plants take in?\nA. Oxygen\nB. Carbon dioxide\nC. Helium",
        "choice",
        "B",
    ),
    (
        "arc",
        {
            "id": "own_1",
            "question": "What melts?",
            "choices": {"text": ["ice", "stone", "air"], "label": ["1", "2", "3"]},
            "answerKey": "1",
        },
        "What melts?\nA. ice\nB. stone\nC. air",
        "choice",
        "A",
    ),
    (
        "openbookqa",
        {"question_stem": "Ice is", "choices": {"text": ["cold", "hot"], "label": ["A", "B"]}, "answerKey": "A"},
        "Ice is\nA. cold\nB. hot",
        "choice",
        "A",
    ),
    (
        "medqa",
        {"question": "What aches?", "answer": "a tooth", "options": {"A": "hair", "B": "a tooth"}, "answer_idx": "B"},
        "What aches?\nA. hair\nB. a tooth",
        "choice",
        "B",
    ),
    (
        "olympiadbench",
        {
            "id": 1,
            "question": "Find $x$.",
            "solution": ["A step.\nThen $x=4$."],
            "final_answer": ["$4$"],
            "context": "Let $x = 2 + 2$.",
            "image_1": None,
            "modality": "Text-only",
            "is_multiple_answer": False,
            "unit": None,
            "answer_type": "Numerical",
            "error": None,
            "subject": "Math",
            "language": "English",
        },
        "Let $x = 2 + 2$.\n\nFind $x$.",
        "math",
        "$4$",
    ),
    (
        "Question+Answer",
        {"ID": "I-1", "Question": "2 + 2?", "Answer": 4, "Year": 2001, "Part": "I"},
        "2 + 2?",
        "math",
        "4",
    ),
    (
        "problem+answer",  # AIME 2024
        {"id": 60, "problem": "2 + 2?", "solution": "So 4.", "answer": "004", "url": "u", "year": "2024"},
        "2 + 2?",
        "math",
        "4",
    ),
    (
        "svamp",
        {"ID": "1", "Body": "Tom has 3 pens.", "Question": "How many?", "Equation": "3", "Answer": 3.0, "Type": "Add"},
        "Tom has 3 pens. How many?",
        "number",
        "3",
    ),
    (
        "humaneval",
        {
            "task_id": "Own/0",
            "prompt": 'def twice(x):\n    """Double it."""\n',
            "canonical_solution": "    return 2 * x\n",
            "test": "def check(candidate):\n    assert candidate(2) == 4\n",
            "entry_point": "twice",
        },
        "Complete this Python function. Write the whole function in one code block.\n\n```python\n"
        'def twice(x):\n    """Double it."""\n```',
        "code",
        {
            "entry_point": "twice",
            "prompt": 'def twice(x):\n    """Double it."""\n',
            "names": [],
            "asserts": ["def check(candidate):\n    assert candidate(2) == 4\n\ncheck(twice)"],
        },
    ),
    (
        "mbpp",
        {
            "task_id": 601,
            "text": "Double a number.",
            "code": "def twice(x):\r\n  return 2 * x",
            "test_list": ["assert twice(2) == 4"],
            "test_setup_code": "",
            "challenge_test_list": [],
        },
        "Double a number.\nWrite it in Python, in one code block. A test:\n\n```python\nassert twice(2) == 4\n```",
        "code",
        {"setup": "", "names": ["twice"], "asserts": ["assert twice(2) == 4"]},
    ),
    (
        "apps",
        {
            "problem_id": 1,
            "question": "Double a number.",
            "solutions": '["def twice(x):\\n  return 2 * x"]',
            "input_output": json.dumps({"fn_name": "twice", "inputs": [[2], [3]], "outputs": [[4], [6]]}),
            "difficulty": "introductory",
            "url": "u",
            "starter_code": "def twice(x):\n\t",
        },
        "Double a number.\n\nComplete this Python code. Write the whole of it in one code block.\n\n"
        "```python\ndef twice(x):\n```",
        "code",
        {"fn_name": "twice", "inputs": [[2], [3]], "outputs": [[4], [6]]},
    ),
    (
        "apps",  # TACO
        {
            "question": "Add two numbers.",
            "solutions": '["print(sum(map(int, input().split())))"]',
            "starter_code": "",
            "input_output": json.dumps(STDIN),
            "difficulty": "EASY",
            "raw_tags": "[]",
            "name": None,
            "source": "own",
            "tags": "[]",
            "skill_types": "[]",
            "url": "u",
            "time_limit": "1 seconds",
            "picture_num": "0",
        },
        "Add two numbers.\n\nWrite a Python program that reads from standard input and prints the answer, "
        "in one code block.",
        "code",
        STDIN,
    ),
    (
        "livecodebench",
        {
            "question_title": "Grow",
            "question_content": "Add to each number.",
            "platform": "leetcode",
            "question_id": "1",
            "contest_date": "2024-01-01T00:00:00",
            "starter_code": STARTER,
            "difficulty": "easy",
            "public_test_cases": json.dumps([{"input": "[1, 2]\n3", "output": "[4, 5]", "testtype": "functional"}]),
            "private_test_cases": base64.b64encode(zlib.compress(pickle.dumps(json.dumps(HIDDEN)))).decode(),
            "metadata": json.dumps({"func_name": "grow"}),
        },
        "Add to each number.\n\nComplete this Python code. Write the whole of it in one code block.\n\n"
        f"```python\n{STARTER.rstrip()}\n```",
        "code",
        {
            "tests": [{"input": "[1, 2]\n3", "output": "[4, 5]", "testtype": "functional"}, *HIDDEN],
            "metadata": '{"func_name": "grow"}',
        },
    ),
    (
        "codeforces",
        {
            "id": "1/A",
            "title": "Sum",
            "description": "Add two numbers.",
            "input_format": "Two numbers.",
            "output_format": "Their sum.",
            "interaction_format": None,
            "note": "1 + 2 = 3.",
            "examples": [{"input": "1 2\n", "output": "3\n"}],
            "official_tests": [{"input": "1 2\n", "output": "3\n"}],
            "official_tests_complete": True,
            "input_mode": "stdio",
            "generated_checker": None,
            "time_limit": 1.0,
        },
        "Add two numbers.\n\nInput\n\nTwo numbers.\n\nOutput\n\nTheir sum.\n\nExamples\n\n"
        "Input:\n```\n1 2\n```\nOutput:\n```\n3\n```\n\nNote\n\n1 + 2 = 3.\n\n"
        "Write a Python program that reads from standard input and prints the answer, in one code block.",
        "code",
        {"tests": [{"input": "1 2\n", "output": "3\n"}]},
    ),
    (
        "prompt+solution",  # TRL
        {"prompt": [{"role": "system", "content": "Answer in French only."}, TALK[0]], "solution": "24"},
        f"Answer in French only.\n\n{PEARS}",
        "math",
        "24",
    ),
]


@pytest.mark.parametrize(("schema", "row", "asked", "verifier", "right"), PROBLEMS)
def test_a_known_shape_is_asked_and_judged_as_its_authors_mean_it(
    tmp_path: Path, schema: str, row: dict[str, Any], asked: str, verifier: str, right: Any
) -> None:
    report = check_file(write(tmp_path / "rows.jsonl", row))
    assert (report.ok, report.schema, list(map(str, report.issues))) == (True, schema, [])
    [item] = report.first
    assert (item.fields["prompt"], item.fields["verifier"]) == (asked, verifier)
    reference = item.fields["reference"]
    assert (json.loads(reference) if isinstance(right, dict) else reference) == right
    [problem] = load_file(tmp_path / "rows.jsonl").problems
    assert (problem.prompt, problem.verifier, problem.answer) == (asked, verifier, reference)


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=list(SCHEMAS))
@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_no_row_of_a_known_shape_breaks_it(schema: Schema, data: st.DataObject) -> None:
    row: dict[str, Any] = {}
    for column in (*schema.columns, *schema.reads):
        head, _, rest = column.partition(".")
        value = data.draw(JSON_VALUES)
        row[head] = {rest: value} if rest and data.draw(st.booleans()) else value
    with suppress(DataError):
        problem = convert(row, schema, name="n", file="f", number=1)
        assert problem.prompt and problem.answer


TEXT_TALK = [{"from": "human", "value": "Hi."}, {"from": "gpt", "value": "Hello."}]
OTHERS: list[tuple[str, dict[str, Any], dict[str, str]]] = [
    ("conversations", {"id": "1", "conversations": TEXT_TALK}, {"prompt": "user: Hi.", "trained": "Hello."}),
    (
        "conversations",  # ShareGPT with a system prompt
        {"conversations": TEXT_TALK, "system": "Be kind.", "tools": "[]"},
        {"prompt": "system: Be kind.\nuser: Hi.", "trained": "Hello."},
    ),
    ("conversations", {"messages": TALK}, {"prompt": f"user: {PEARS}", "trained": "4 times 6 is 24."}),
    (
        "conversations",  # Alpaca
        {"instruction": "Add.", "input": "2 and 2", "output": "4", "history": [["Hi.", "Hello."]]},
        {"prompt": "user: Hi.\nassistant: Hello.\nuser: Add.\n2 and 2", "trained": "4"},
    ),
    (
        "preference pairs",
        {"prompt": "Hi.", "chosen": "Hello.", "rejected": "Go."},
        {"prompt": "user: Hi.", "chosen": "Hello.", "rejected": "Go."},
    ),
    (
        "preference pairs",  # UltraFeedback
        {"prompt": "Hi.", "chosen": [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}]}
        | {
            "rejected": [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Go."}],
            "score_chosen": 9,
        },
        {"prompt": "user: Hi.", "chosen": "Hello.", "rejected": "Go."},
    ),
]


@pytest.mark.parametrize(("kind", "row", "fields"), OTHERS)
def test_conversations_and_pairs_are_shown_as_what_they_train(
    tmp_path: Path, kind: str, row: dict[str, Any], fields: dict[str, str]
) -> None:
    path = write(tmp_path / "rows.jsonl", row)
    report = check_file(path)
    assert (report.ok, report.schema, dict(report.first[0].fields)) == (True, kind, fields)
    with pytest.raises(DataError, match=r"no (prompt|answer) column"):
        load_file(path)


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("a context", {"question": "Who?", "answer": "Ann", "context": "Ann came."}, "context would not be used"),
    ("images", {"question": "What?", "answer": "4", "image_1": "x.png"}, "image_1 would not be used"),
    ("a system prompt", {"prompt": "Q", "answer": "4", "system_prompt": "In French."}, "system=system_prompt"),
    ("tests", {"question": "Q", "answer": "def f(): ...", "test_cases": ["assert f()"]}, "test_cases would not be"),
    (
        "messages beside it",
        {"problem": "Q", "answer": "4", "context": "C", "messages": TALK},
        "context would not be used",
    ),
    (
        "examples that are none",
        {"description": "Q", "official_tests": [{"input": "1", "output": "2"}], "examples": [1]},
        "objects with input and output",
    ),
    (
        "results that are none",
        {
            "question": "Q",
            "input_output": '{"fn_name": "f", "inputs": [[1], [2]], "outputs": [1]}',
            "starter_code": "-> List",
        },
        "same length",
    ),
    ("two questions", {"question": "2 + 2?", "prompt": "2 + 3?", "answer": "4"}, "prompt and question differ"),
    ("two answers", {"question": "2 + 2?", "answer": "4", "ground_truth": "5"}, "answer and ground_truth differ"),
    (
        "options for two columns",
        {"question": "Q", "choices": ["a", "b"], "options": ["c", "d"], "answer": "A"},
        "options",
    ),
    ("numbers of options", {"question": "Q", "choices": ["a", "b", "c"], "answer": 1}, "whether 0 or 1 is the first"),
    (
        "a worked answer",
        {"question": PEARS, "answer": "Tom has four boxes and each box has six pears. " * 3},
        "worked answer",
    ),
    ("a list of answers", {"question": "Q", "answer": ["4", "four"]}, r"answers=\.\.\. in columns if any"),
    ("an unknown object", {"question": "Q", "answer": {"value": 4}}, "expected text, a number, tests"),
    ("a proof", {"problem": "Q", "answer": "proof", "question_type": "proof", "solution": "s"}, "drop the row"),
    (
        "code without tests",
        {"prompt": TALK[:1], "data_source": "x", "ability": "code", "reward_model": {"ground_truth": "print(4)"}},
        "not a list of tests",
    ),
    (
        "code of a set of programs",
        {"prompt": TALK[:1], "data_source": "taco", "reward_model": {"ground_truth": "print(4)"}},
        "not a list of tests",
    ),
    (
        "a tolerance",
        {
            "question": "Q",
            "final_answer": ["4"],
            "is_multiple_answer": False,
            "answer_type": "Numerical",
            "error": "0.1",
        },
        "holds within 0.1",
    ),
    (
        "parts that nobody announced",
        {"question": "Q", "final_answer": ["4", "5"], "is_multiple_answer": False, "answer_type": "Numerical"},
        "several parts",
    ),
    (
        "a checker",
        {"description": "Q", "official_tests": [{"input": "1", "output": "2"}], "generated_checker": "int main()"},
        "several outputs are right",
    ),
    ("no tests", {"question": "Q", "solutions": "[]", "input_output": "{}"}, "expected inputs and outputs"),
    (
        "tests that import",
        {"question_content": "Q", "public_test_cases": base64.b64encode(zlib.compress(pickle.dumps(Path))).decode()},
        "must not import",
    ),
    ("a number of tests", {"question_content": "Q", "public_test_cases": 5}, "expected a list of objects"),
    ("an empty list of tests", {"question_content": "Q", "public_test_cases": "[]"}, "there is no test in tests"),
    ("tools", {"messages": TALK, "tools": '[{"name": "search"}]'}, "tools would be lost"),
    ("options in disorder", {"question": "Q", "choices": ["B. x", "A. y"], "answer": "A"}, "bring the letters B, A"),
    ("an option that is missing", {"question": "Q", "choices": ["x", None, "y"], "answer": "A"}, "2 to 26 options"),
    ("an instruction", {"instruction": "Count.", "question": "Q", "answer": "4"}, "system=instruction"),
    ("a table", {"table": "a | b", "question": "Q", "answer": "4"}, "table would not be used"),
    ("an answer of two options", {"question": "Q", "choices": ["B", "A"], "answer": "A"}, "options A and B"),
]


@pytest.mark.parametrize(("why", "row", "says"), REFUSED)
def test_what_could_be_misread_is_refused_with_columns_and_remedy(
    tmp_path: Path, why: str, row: dict[str, Any], says: str
) -> None:
    report = check_file(write(tmp_path / "rows.jsonl", row))
    assert not report.ok and report.problems == 0, why
    with pytest.raises(DataError, match=says):
        raise report.issues[0]


def test_gpqa_asks_in_an_order_of_its_own_and_always_the_same(tmp_path: Path) -> None:
    rows = [
        {"Question": f"What is {n}?", "Correct Answer": f"{n}", "Subdomain": "x"}
        | {f"Incorrect Answer {k}": f"{n + k}" for k in (1, 2, 3)}
        for n in range(40)
    ]
    problems = load_file(write(tmp_path / "rows.jsonl", *rows)).problems
    for row, problem in zip(rows, problems, strict=True):
        assert (
            problem.verifier == "choice" and f"{problem.answer}. {row['Correct Answer']}" in problem.prompt.splitlines()
        )
    assert {problem.answer for problem in problems} == set("ABCD")
    assert load_file(write(tmp_path / "rows.jsonl", *rows[::-1])).problems[-1].prompt == problems[0].prompt


@pytest.mark.parametrize(
    ("choices", "answer", "prompt", "letter"),
    [
        (["A. red", "B. blue"], "B", "Q\nA. red\nB. blue", "B"),
        (["(A) red", "(B) blue"], "(B)", "Q\nA. red\nB. blue", "B"),
        (["a) red", "b) blue"], "b) blue", "Q\nA. red\nB. blue", "B"),
        (["A) red", "B) blue"], "B) blue", "Q\nA. red\nB. blue", "B"),
        (["E. coli", "B. subtilis", "S. aureus"], "A", "Q\nA. E. coli\nB. B. subtilis\nC. S. aureus", "A"),
        (["red", "blue"], "blue", "Q\nA. red\nB. blue", "B"),
        (["A. Lincoln", "Washington"], "B", "Q\nA. A. Lincoln\nB. Washington", "B"),
        ({"A": "red", "B": "blue"}, "b", "Q\nA. red\nB. blue", "B"),
        ({"A": "red", "B": "blue", "C": None}, "B", "Q\nA. red\nB. blue", "B"),
        (["red", "blue", None, ""], "B", "Q\nA. red\nB. blue", "B"),
        ([{"label": "1", "text": "red"}, {"label": "2", "text": "blue"}], "2", "Q\nA. red\nB. blue", "B"),
        (["0", "4", "2"], "4", "Q\nA. 0\nB. 4\nC. 2", "B"),
        (["red", "blue"], 0, "Q\nA. red\nB. blue", "A"),
        (["red", "blue"], 2, "Q\nA. red\nB. blue", "B"),
        (["red", "blue"], "2", "Q\nA. red\nB. blue", "B"),
    ],
)
def test_options_and_answers_in_many_spellings(
    tmp_path: Path, choices: Any, answer: Any, prompt: str, letter: str
) -> None:
    row = {"question": "Q", "options": choices, "answer": answer}
    [problem] = load_file(write(tmp_path / "rows.jsonl", row)).problems
    assert (problem.prompt, problem.answer, problem.verifier) == (prompt, letter, "choice")


def test_every_letter_of_ten_options_is_a_reference_that_can_be_used(tmp_path: Path) -> None:
    rows = [{"question": f"Q{letter}", "options": [*"qrstuvwxyz"], "answer": letter} for letter in "ABCDEFGHIJ"]
    report = check_file(write(tmp_path / "rows.jsonl", *rows))
    assert report.ok and report.problems == 10
    assert all(verify_all("choice", [f"<answer>{letter}</answer>"], [letter])[0].correct for letter in "ABCDEFGHIJ")


def test_options_that_count_from_1_stay_so_in_all_rows(tmp_path: Path) -> None:
    rows = [{"question": f"Q{n}", "choices": ["x", "y", "z"], "answer": n} for n in (1, 3, 2)]
    path = write(tmp_path / "rows.jsonl", *rows)
    assert [problem.answer for problem in load_file(path).problems] == ["A", "C", "B"]
    assert "options count from 1" in check_file(path).reading
    with pytest.raises(DataError, match="some count from 0, others from 1"):
        load_file(write(path, *rows, {"question": "Q", "choices": ["x", "y", "z"], "answer": 0}))
    with pytest.raises(DataError, match=r"row 21, field answer: 0 is not one .* 1 to 3"):
        load_file(write(path, *[rows[1]] * 20, {"question": "Q", "choices": ["x", "y", "z"], "answer": 0}))
    told = {"prompt": "question", "choices": "choices", "answer_from_0": "answer"}
    assert [problem.answer for problem in load_file(write(path, rows[0]), columns=told).problems] == ["B"]


def test_labels_that_are_also_texts_are_labels_if_all_answers_are(tmp_path: Path) -> None:
    both = {"question": "Which letter?", "choices": ["B", "A"], "answer": "A"}
    path = write(tmp_path / "rows.jsonl", both, {"question": "Q", "choices": ["x", "y"], "answer": "B"})
    assert [problem.answer for problem in load_file(path).problems] == ["A", "B"]
    with pytest.raises(DataError, match="row 1, field answer: 'A' may be the options A and B: write the letter"):
        load_file(write(path, both, {"question": "Q", "choices": ["x", "y"], "answer": "y"}))


def test_a_value_that_only_the_last_row_lacks_changes_no_recognition(tmp_path: Path) -> None:
    talk = {"prompt": "2 + 2?", "completion": "4"}
    report = check_file(write(tmp_path / "rows.jsonl", talk, talk | {"completion": None}))
    assert (report.schema, report.problems) == ("conversations", 1)
    rows = [{"question": "How many?", "context": text} for text in ("Tom has 3 pears.", None)]
    with pytest.raises(DataError, match="context would not be used"):
        prompts_only({}, rows)


def test_a_column_that_appears_later_is_refused_in_its_row(tmp_path: Path) -> None:
    plain, more = {"question": "Q", "answer": "1"}, {"question": "Q", "answer": "A", "options": ["x", "y"]}
    path = write(tmp_path / "rows.jsonl", *[plain] * 30, more)
    with pytest.raises(DataError, match=r"row 31, field options: options would not be used"):
        load_file(path)
    assert check_file(path).counts["ambiguous columns"] == 1
    twins = [{"question": "Q", "problem": text, "answer": "1"} for text in ["Q"] * 20 + [" Q", "R"]]
    with pytest.raises(DataError, match=r"row 22, field problem: question and problem differ"):
        load_file(write(path, *twins))


# Several references


def test_several_answers_any_of_which_is_right(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", {"q": "Capital?", "gold": ["Bern", "Berne"]})
    [problem] = load_file(path, columns={"prompt": "q", "answers": "gold"}, verifier="exact").problems
    verdicts = verify_all("exact", ["<answer>Berne</answer>", "<answer>Rome</answer>"], [problem.answer] * 2)
    assert [verdict.correct for verdict in verdicts] == [True, False]
    [problem] = load_file(path, columns={"prompt": "q", "answer_parts": "gold"}).problems
    assert problem.answer == "Bern, Berne"


@pytest.mark.parametrize(
    ("verifier", "references", "right", "wrong"),
    [
        ("math", [r"\frac12", "3"], "0.5", "4"),
        ("number", ["18", "20"], "20", "19"),
        ("choice", ["A", "C"], "C", "B"),
        ("exact", ["sea", "ocean"], "Ocean", "lake"),
    ],
)
def test_every_verifier_takes_alternatives(verifier: str, references: list[str], right: str, wrong: str) -> None:
    responses = [f"<answer>{text}</answer>" for text in (right, wrong)]
    verdicts = verify_all(verifier, [*responses, ""], [any_of(references)] * 3)
    assert [verdict.correct for verdict in verdicts] == [True, False, False]


def test_a_verifier_that_reads_the_reasoning_takes_the_same_references(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", {"question": "Q", "answer": ["1,080"]})
    assert (
        load_file(path, verifier="number+thinking")[0].answer == load_file(path, verifier="number")[0].answer == "1080"
    )


def test_an_unusable_alternative_is_unusable_whatever_the_answer() -> None:
    reference = any_of(["18", "no number"])
    verdicts = verify_all("number", ["<answer>18</answer>", "<answer>19</answer>", ""], [reference] * 3)
    assert {verdict.outcome for verdict in verdicts} == {"unknown"}


PROGRAMS = [
    ("Double a number.", "def twice(x):\n    return 2 * x", "def twice(x):\n    return 3 * x"),
    ("Add two numbers.", "print(sum(map(int, input().split())))", "print(input())"),
    ("Add to each number.", *(f"from typing import *\n{STARTER}return [n {sign} by for n in row]" for sign in "+-")),
]


def test_right_programs_pass_the_tests_of_contests_and_wrong_ones_fail(tmp_path: Path) -> None:
    rows = [row for name, row, *_ in PROBLEMS if name in ("apps", "livecodebench", "codeforces")]
    assert len(rows) == 4
    for row in rows:
        [problem] = load_file(write(tmp_path / "rows.jsonl", row)).problems
        [programs] = [programs for start, *programs in PROGRAMS if problem.prompt.startswith(start)]
        verdicts = verify_all("code", [f"```python\n{text}\n```" for text in programs], [problem.answer] * 2)
        assert [verdict.correct for verdict in verdicts] == [True, False], verdicts


# What is told


def test_one_text_maps_columns_everywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "rows.jsonl", {"q": "2 + 2?", "note": "Add.", "out": {"gold": "4"}, "reply": "4"})
    mapping = "prompt=note+q,answer=out.gold"
    [problem] = load_task(TaskSpec.parse({"name": str(path), "columns": mapping})).problems  # type: ignore[attr-defined]
    assert (problem.prompt, problem.answer) == ("Add.\n\n2 + 2?", "4")
    assert cli.main(["data", "check", str(path), "--columns", mapping, "--verifier", "number"]) == 0
    printed = capsys.readouterr().out
    assert "prompt: note and q; reference: out.gold; unused: reply\n" in printed
    assert "verifier: number" in printed and "2 + 2?" in printed
    assert cli.main(["verify", str(path), "--verifier", "math", "--columns", "prediction=reply,answer=out.gold"]) == 0
    assert json.loads(capsys.readouterr().out)["correct"] is True


def test_a_run_takes_the_same_text(tmp_path: Path) -> None:
    spec = {"name": str(write(tmp_path / "rows.jsonl", {"q": "2 + 2?", "a": "4"})), "columns": "prompt=q,answer=a"}
    recipe = build_recipe("r1-zero", scale="tiny", overrides={"rl.tasks": [spec]})
    [rl] = [stage for stage in recipe.stages if stage.name == "rl"]
    assert rl.settings.tasks[0] == TaskSpec(name=spec["name"], columns={"prompt": "q", "answer": "a"})


@pytest.mark.parametrize(
    ("mapping", "says"),
    [
        ("prompt=q", "does not say which column is the answer"),
        ("q=prompt,answer=a", "the data's name comes second: prompt=q"),
        ("question=q,answer=a", "no field|does not exist"),
        ("prompt=q,answer=a,answers=b", "answer and answers: name one of them"),
        ("prompt=q,answer_from_0=a", "name the column of choices too"),
        ("prompt", "prompt=question,answer=final_answer"),
    ],
)
def test_a_mapping_that_cannot_be_meant_is_refused(mapping: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        TaskSpec.parse({"name": "rows.jsonl", "columns": mapping})


def test_a_system_message_opens_the_prompt_unless_it_is_told_otherwise(tmp_path: Path) -> None:
    messages = [{"role": "system", "content": "In French."}, {"role": "user", "content": "2 + 2?"}]
    path = write(tmp_path / "rows.jsonl", {"prompt": messages, "answer": "4", "sys": "Be short."})
    for more, prompt in (({}, "In French.\n\n2 + 2?"), ({"system": ""}, "2 + 2?"), ({"system": "prompt"}, None)):
        [problem] = load_file(path, columns={"prompt": "prompt", "answer": "answer", **more}).problems
        assert problem.prompt == (prompt or "In French.\n\n2 + 2?")
    [problem] = load_file(path, columns={"prompt": "prompt", "answer": "answer", "system": "sys"}).problems
    assert problem.prompt == "Be short.\n\nIn French.\n\n2 + 2?"


def test_references_that_the_verifier_cannot_use_are_counted_with_their_rows(tmp_path: Path) -> None:
    rows = [{"question": f"Q{n}", "answer": answer} for n, answer in enumerate(["18", "18.0", "$18$", "x" * 3000])]
    report = check_file(write(tmp_path / "rows.jsonl", *rows))
    assert (report.problems, report.counts) == (3, {"unusable reference": 1})
    assert (report.issues[0].row, report.issues[0].field) == (4, "answer")
    assert "the verifier math cannot use it" in str(report.issues[0])
    assert [item.fields["reference"] for item in report.first] == ["18", "18", "$18$"]


def test_a_repeated_prompt_with_another_answer_says_so(tmp_path: Path) -> None:
    rows = [{"question": "Q", "answer": answer} for answer in ("1", "1", "2")]
    reasons = [issue.reason for issue in check_file(write(tmp_path / "rows.jsonl", *rows)).issues]
    assert reasons == [
        "the prompt repeats row 1's",
        "the prompt repeats row 1's, with another answer: '2', not '1'; keep one of the rows",
    ]


def test_marks_at_the_start_line_ends_and_compression_change_nothing(tmp_path: Path) -> None:
    text = '{"question": "2 + 2?", "answer": 4.0}\n\n{"question": "Is it?", "answer": true, "verifier": "choice"}\n'
    plain = tmp_path / "rows.jsonl"
    plain.write_text(text)
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode()))
    assert load_file(plain).problems == load_file(tmp_path / "rows.jsonl.gz").problems
    assert [(each.id[-1], each.answer) for each in load_file(plain).problems] == [("0", "4"), ("2", "true")]
    orz = [[{"from": "human", "value": "2 + 2?"}, {"from": "assistant", "ground_truth": {"value": "4"}}]]
    (tmp_path / "orz.json").write_text(json.dumps(orz))
    assert [(each.prompt, each.answer) for each in load_file(tmp_path / "orz.json").problems] == [("2 + 2?", "4")]


# Judged rows


def test_a_files_own_columns_are_kept_under_another_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"prediction": "4", "answer": 4, "correct": False, "detail": "by hand", "input_detail": "older", "why": "x"}
    path, out = write(tmp_path / "rows.jsonl", row), tmp_path / "out.jsonl"
    assert cli.main(["verify", str(path), "--verifier", "number", "--out", str(out)]) == 0
    assert "columns of the same names are kept as input_correct, input_input_detail" in capsys.readouterr().out
    judged = json.loads(out.read_text())
    assert judged["correct"] is True and judged["detail"] == "equal as numbers"
    kept = {"input_correct": False, "input_input_detail": "by hand", "input_detail": "older", "why": "x"}
    assert {name: judged[name] for name in kept} == kept
    path = write(tmp_path / "rows.jsonl", {"completion": "<answer>4</answer>", "answer": "4", "total": 7})
    assert cli.main(["score", str(path), "--rewards", "accuracy"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["input_total"] == 7
    assert "the input's columns of the same names are kept as input_total" in printed.err


def test_a_list_as_answer_is_read_as_told_or_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "rows.jsonl", {"prediction": "2", "answer": ["1", "2"]})
    assert cli.main(["verify", str(path), "--verifier", "math"]) == 1
    assert "row 1, field answer: the answer is a list" in capsys.readouterr().err
    for field, right in (("answers", True), ("answer_parts", False)):
        assert cli.main(["verify", str(path), "--verifier", "math", "--columns", f"{field}=answer"]) == 0
        assert json.loads(capsys.readouterr().out)["correct"] is right
    asserts = {"prediction": "```python\ndef f():\n    return 1\n```", "answer": ["assert f() == 1"]}
    assert cli.main(["verify", str(write(path, asserts)), "--verifier", "code"]) == 0
    assert json.loads(capsys.readouterr().out)["correct"] is True


def test_an_import_whose_last_row_was_cut_is_refused_and_adds_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = json.dumps({"problem": "2 + 2?", "reasoning": "4", "summary": "4"})
    rows, queue = tmp_path / "rows.jsonl", tmp_path / "queue.db"
    rows.write_text(f"{row}\n{row[:30]}")
    assert cli.main(["review", str(queue), "--import", str(rows), "--auto-accept"]) == 1
    assert "row 2: not valid JSON" in capsys.readouterr().err
    rows.write_text(f"{row}\n")
    assert cli.main(["review", str(queue), "--import", str(rows), "--auto-accept"]) == 0
    assert "auto-accepted 1 pending samples" in capsys.readouterr().out


@pytest.mark.skipif(not CASES.is_dir(), reason="the shared cases are not here")
@pytest.mark.parametrize(
    ("name", "right"), [("mmlu_pro", "B"), ("openr1_math_trap", "24"), ("olympiadbench", "4"), ("trl_prompt_list", "4")]
)
def test_the_shared_cases_have_their_right_answers(name: str, right: str) -> None:
    report = check_file(CASES / f"{name}.jsonl")
    assert report.ok and report.first[0].fields["reference"] == right


def test_the_guide_lists_every_shape() -> None:
    guide = (ROOT / "docs" / "guides" / "data.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in guide for name in SCHEMAS)
