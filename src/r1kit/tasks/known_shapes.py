"""The shapes of known data sets, in columns: what they need, what they read, and what they explain."""

from __future__ import annotations

from dataclasses import replace

from r1kit.tasks import code_sets, contests, shape_checks
from r1kit.tasks.references import after_marker, boxed, clean_number, without_calculator
from r1kit.tasks.schemas import Schema
from r1kit.tasks.structured import countdown_answer, countdown_prompt, ifeval_answer
from r1kit.tasks.worked_messages import first_question, replied_box, thought_and_solution, worked_reply

GSM8K = Schema(
    name="gsm8k",
    prompt=("question",),
    answer="answer",
    parse=after_marker,
    verifier="number",
    looks=lambda answer: "####" in answer,
    solution=without_calculator,
)
SVAMP = Schema(name="svamp", prompt=("Body", "Question"), answer="Answer", verifier="number")
MGSM = Schema(
    name="mgsm",
    prompt=("question",),
    answer="answer",
    verifier="number",
    language_column="lang",
    looks=lambda answer: clean_number(answer) is not None,
)
# On the hub, `answer` is the solution in words.
MGSM_HUB = Schema(
    name="mgsm-hub", prompt=("question",), answer="answer_number", explains=("answer",), verifier="number"
)
MATH = Schema(name="math", prompt=("problem",), answer="solution", parse=boxed)
# NuminaMath 1.5 and OpenR1-Math: the solution may box other values than the answer, or none.
NUMINA = Schema(
    name="numina",
    prompt=("problem",),
    answer="answer",
    explains=("solution",),
    needs=("question_type",),
    check=shape_checks.numina,
)
OPENR1 = replace(NUMINA, name="openr1-math", needs=("question_type", "messages"), work=worked_reply)
DEEPMATH = Schema(
    name="deepmath",
    prompt=("question",),
    answer="final_answer",
    needs=("r1_solution_1",),
    drops=("r1_solution_1", "r1_solution_2", "r1_solution_3"),  # 5 GB
)
OLYMPIADBENCH = Schema(
    name="olympiadbench",
    prompt=("question",),
    answer="final_answer",
    explains=("solution", "unit"),
    reads=("context",),
    needs=("answer_type",),
    check=shape_checks.olympiadbench,
    ask=shape_checks.with_context,
    several="all",
)
STRATOS = Schema(
    name="bespoke-stratos",
    prompt=("conversations",),
    answer="conversations",
    needs=("system",),  # asks for a form of reasoning, which is ours to ask
    ask=lambda row: first_question(row["conversations"]),
    parse=replied_box,
    solution=thought_and_solution,
)
VERL = Schema(
    name="verl",
    prompt=("prompt",),
    answer="reward_model.ground_truth",
    explains=("nums", "target"),
    check=shape_checks.verl,
    source_column="data_source",
)
ORZ = Schema(name="orz", prompt=("0.value",), answer="1.ground_truth.value")
MMLU = Schema(
    name="mmlu", prompt=("question",), answer="answer", choices="choices", first=0, by_label=True, needs=("subject",)
)
MMLU_PRO = Schema(
    name="mmlu-pro",
    prompt=("question",),
    answer="answer",
    explains=("answer_index",),
    choices="options",
    by_label=True,
    needs=("category",),
)
ARC = Schema(name="arc", prompt=("question",), answer="answerKey", choices="choices", by_label=True)
OPENBOOKQA = Schema(name="openbookqa", prompt=("question_stem",), answer="answerKey", choices="choices", by_label=True)
MEDQA = Schema(
    name="medqa", prompt=("question",), answer="answer_idx", explains=("answer",), choices="options", by_label=True
)
GPQA = Schema(
    name="gpqa",
    prompt=("Question",),
    answer="Correct Answer",
    wrong=("Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3"),
)
SCIQ = Schema(
    name="sciq", prompt=("question",), answer="correct_answer", wrong=("distractor1", "distractor2", "distractor3")
)
COUNTDOWN = Schema(
    name="countdown",
    prompt=("nums",),
    answer="target",
    explains=("solution",),
    ask=countdown_prompt,
    hold=countdown_answer,
    verifier="countdown",
)
HUMANEVAL = Schema(
    name="humaneval",
    prompt=("prompt",),
    answer="canonical_solution",
    needs=("entry_point", "test"),
    ask=code_sets.humaneval_prompt,
    hold=code_sets.humaneval_answer,
    verifier="code",
    solution=str,
)
MBPP = Schema(
    name="mbpp",
    prompt=("text",),
    answer="code",
    reads=("test_setup_code", "test_imports"),
    needs=("test_list",),
    ask=code_sets.mbpp_prompt,
    hold=code_sets.mbpp_answer,
    verifier="code",
    solution=code_sets.mbpp_solution,
)
# The sanitized version of MBPP names two columns otherwise.
MBPP_SANITIZED = replace(MBPP, name="mbpp-sanitized", prompt=("prompt",))
MBPP_TESTS = replace(MBPP, name="mbpp-tests", prompt=("prompt",), needs=("test",))
APPS = Schema(
    name="apps",
    prompt=("question",),
    answer="input_output",
    reads=("starter_code",),
    ask=contests.apps_prompt,
    hold=contests.apps_answer,
    verifier="code",
)
LIVECODEBENCH = Schema(
    name="livecodebench",
    prompt=("question_content",),
    answer="public_test_cases",
    reads=("starter_code", "private_test_cases", "metadata"),
    ask=contests.livecodebench_prompt,
    hold=contests.livecodebench_answer,
    verifier="code",
)
CODEFORCES = Schema(
    name="codeforces",
    prompt=("description",),
    answer="official_tests",
    reads=("input_format", "output_format", "examples", "note"),
    ask=contests.codeforces_prompt,
    hold=contests.codeforces_answer,
    verifier="code",
)
IFEVAL = Schema(
    name="ifeval",
    prompt=("prompt",),
    answer="instruction_id_list",
    needs=("kwargs",),
    hold=ifeval_answer,
    verifier="ifeval",
)
SCHEMAS = {
    schema.name: schema
    for schema in (
        *(GSM8K, SVAMP, MGSM, MGSM_HUB, MATH, NUMINA, OPENR1, DEEPMATH, OLYMPIADBENCH, STRATOS, VERL, ORZ, COUNTDOWN),
        *(MMLU, MMLU_PRO, ARC, OPENBOOKQA, MEDQA, GPQA, SCIQ),
        *(HUMANEVAL, MBPP, MBPP_SANITIZED, MBPP_TESTS, APPS, LIVECODEBENCH, CODEFORCES, IFEVAL),
    )
}
