"""What becomes training data: each filter, duplicates, decontamination, balance and mixing, killed and resumed."""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1kit.curate import (
    FILTERS,
    FORMATS,
    BalanceSettings,
    CurateSettings,
    Curation,
    DecontaminationSettings,
    FilterSpec,
    MixSettings,
    QualitySettings,
    balance,
    composite,
    convert,
    curate,
    decontaminate,
    duplicates,
    evaluation_sets,
    facts,
    filters,
    formats,
    from_row,
    mix,
    ngrams,
    reformat,
)
from r1kit.curate.filters.repetition import find_loop, repeated_share
from r1kit.curate.quality import judge, parts_of
from r1kit.curate.record import view
from r1kit.data import jsonl
from r1kit.data.errors import DataError
from r1kit.data.journal import Journal
from r1kit.settings import SettingsError
from r1kit.store import StoreError
from r1kit.tasks import TaskSpec
from r1kit.types import Problem

VOCABULARY = ["".join(random.Random(n).choices("abcdefghijklmnopqrstuvwxyz", k=3 + n % 6)) for n in range(2000)]
NOTHING: dict[str, Any] = {"filters": [], "near_duplicates": [], "balance": {"per_problem": None}}


def row(number: int = 0, *, question: str | None = None, response: str | None = None, **fields: Any) -> dict[str, Any]:
    """A good row with text of its own."""
    rng = random.Random(number)
    sentences = ". ".join(" ".join(rng.choices(VOCABULARY, k=8)) for _ in range(6))
    question = f"What is {' '.join(rng.choices(VOCABULARY, k=12))} {number}?" if question is None else question
    response = f"<think>{sentences}. So {number}</think> <answer>{number}</answer>" if response is None else response
    return {
        "id": f"s{number}",
        "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": response}],
        "problem_id": f"p{number}",
        "language": "en",
        "answer": str(number),
        **fields,
    }


def write(path: Path, content: Iterable[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in content), "utf-8", "surrogatepass")
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def ids(path: Path) -> list[str]:
    return [one["id"] for one in read(path)]


def run(tmp_path: Path, content: Iterable[Any], settings: Mapping[str, Any] = {}, **options: Any) -> Curation:
    """Curate rows with settings that change nothing but what is named."""
    file = write(tmp_path / "rows.jsonl", content)
    return curate([file], tmp_path / "out", CurateSettings.parse({**NOTHING, **settings}), **options)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


# --- formats


@pytest.mark.parametrize("form", FORMATS)
@given(
    reasoning=st.text(min_size=1).filter(lambda text: text.strip()),
    summary=st.text(min_size=1).filter(lambda text: text.strip()),
)
def test_what_is_rendered_is_taken_apart_again(form: str, reasoning: str, summary: str) -> None:
    found = formats.split(formats.render(reasoning, summary, form))
    assert found == formats.Parts(form=form, reasoning=reasoning.strip(), summary=summary.strip())


@pytest.mark.parametrize("other", FORMATS)
@pytest.mark.parametrize("form", FORMATS)
def test_formats_are_converted_both_ways_without_loss(form: str, other: str) -> None:
    text = formats.render("Let me see.\n\n 2 + 2 = 4", "It is\n\\boxed{4}.", form)
    there = convert(text, other)
    assert there is not None
    assert convert(there, form) == text


def test_the_papers_own_form_becomes_tags() -> None:
    text = "|special_token|First, 2+2.|special_token|It is 4."
    assert convert(text, "think_answer") == "<think>First, 2+2.</think> <answer>It is 4.</answer>"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "4",
        "<think>only thoughts</think>",
        "<think></think> <answer>4</answer>",
        "<think>a</think> <answer>4</answer> and more",
        "<think>a</think> b </think> c",
        "|special_token|a",
        "|special_token|a|special_token|",
        "|special_token|a|special_token|b|special_token|c",
        "before |special_token|a|special_token|b",
    ],
)
def test_what_is_in_no_format_is_not_converted(text: str) -> None:
    assert formats.split(text) is None
    assert convert(text, "special_token") is None


def test_marks_of_the_other_format_inside_a_part_are_refused() -> None:
    text = "<think>the mark |special_token| is here</think> <answer>4</answer>"
    assert convert(text, "special_token") is None
    with pytest.raises(ValueError, match=r"reasoning contains \|special_token\|"):
        formats.render("the mark |special_token| is here", "4", "special_token")
    with pytest.raises(ValueError, match="summary is empty"):
        formats.render("a", " \n", "think")
    with pytest.raises(ValueError, match="there is no format 'tags': known are think_answer"):
        convert(text, "tags")


def test_a_sample_is_reformatted_in_its_last_turn_only() -> None:
    sample = from_row(row(3))
    other = reformat(sample, "special_token")
    assert other is not None
    assert other.messages[0] == sample.messages[0]
    assert other.response.startswith("|special_token|")
    assert reformat(from_row(row(3, response="no format")), "think") is None


# --- records


def test_a_row_keeps_its_provenance() -> None:
    sample = from_row(
        row(
            7,
            source="rejection",
            verdicts={"math": {"correct": True, "extracted": "7"}, "judge": None},
            scores={"accuracy": 1, "language": None},
            pass_rate=0.25,
            made_by={"model": "dev2"},
            parent="s1",
            metadata={"level": 3},
            unknown_column=1,
        )
    )
    assert (sample.verdicts["math"].correct, sample.verdicts["judge"].correct) == (True, None)
    assert (sample.scores["accuracy"], sample.scores["language"]) == (1.0, None)
    assert (sample.made_by["model"], sample.parent, sample.pass_rate) == ("dev2", "s1", 0.25)
    conversation = sample.conversation()
    assert conversation.source == "rejection"
    assert conversation.metadata == {"id": "s7", "problem_id": "p7", "language": "en", "level": 3}


ASSISTANT = {"role": "assistant", "content": "a"}


@pytest.mark.parametrize(
    ("change", "field", "reason"),
    [
        ({"id": None}, "id", "expected text"),
        ({"id": ""}, "id", "expected text"),
        ({"id": 7}, "id", "the value is 7"),
        ({"messages": None}, "messages", "expected a list"),
        ({"messages": []}, "messages", "expected a list"),
        ({"messages": "hi"}, "messages", "expected a list"),
        ({"messages": ["hi"]}, "messages.0", "the turn is 'hi'"),
        ({"messages": [{"role": "bot", "content": "x"}]}, "messages.0.role", "expected one of system, user"),
        ({"messages": [{"role": "user", "content": "x"}]}, "messages.0.role", "the last turn is the user's"),
        ({"messages": [{"role": "user"}, ASSISTANT]}, "messages.0.content", "the content is None"),
        ({"problem_id": 3}, "problem_id", "expected text"),
        ({"answer": 3}, "answer", "expected text"),
        ({"scores": [1]}, "scores", "expected an object"),
        ({"scores": {"quality": "high"}}, "scores.quality", "expected a finite number"),
        ({"scores": {"quality": float("nan")}}, "scores.quality", "expected a finite number"),
        ({"scores": {"quality": True}}, "scores.quality", "expected a finite number"),
        ({"scores": {"quality": 10**400}}, "scores.quality", "expected a finite number"),
        ({"verdicts": {"math": 1}}, "verdicts.math", "expected true, false or null"),
        ({"pass_rate": 1.5}, "pass_rate", "from 0 to 1"),
        ({"tokens": -1}, "tokens", "expected a number of tokens"),
        ({"finish_reason": "eos"}, "finish_reason", "expected one of stop, length"),
    ],
)
def test_a_wrong_field_is_named_with_file_and_row(change: dict[str, Any], field: str, reason: str) -> None:
    with pytest.raises(DataError) as caught:
        from_row({**row(), **change}, file="samples.jsonl", number=12)
    assert (caught.value.file, caught.value.row, caught.value.field) == ("samples.jsonl", 12, field)
    assert f"samples.jsonl, row 12, field {field}: " in str(caught.value)
    assert reason in str(caught.value)


def test_a_missing_column_is_told_with_what_the_row_has() -> None:
    with pytest.raises(DataError, match="field id: the row has no field 'id', only 'text'"):
        from_row({"text": "hello"}, file="a.jsonl", number=1)


# --- filters

THINK = "<think>{}</think> <answer>{}</answer>"
LOOP = "we add one and one and get two. " * 30
PROSE = ". ".join(" ".join(random.Random(n).choices(VOCABULARY, k=9)) for n in range(40))
CASES: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [  # filter, its options, what is changed, the reason
    ("mixed_languages", {}, {"response": THINK.format("First we add, 然后 we get four", "4")}, "mixed languages"),
    ("mixed_languages", {}, {"response": THINK.format("First we add two and two", "四")}, ""),
    ("mixed_languages", {}, {"response": THINK.format("先把 x 和 $y$ 相加，然后得到四", "4")}, ""),
    ("wrong_language", {}, {"response": THINK.format("二加二等于四", "四")}, "not the question's language"),
    ("wrong_language", {}, {"response": THINK.format("$2+2=4$", "4")}, ""),
    (
        "wrong_language",
        {},
        {"question": "二加二等于几？", "language": "", "response": "It is four"},
        "not the question's language",
    ),
    ("wrong_language", {}, {"question": "二加二等于几？", "language": "", "response": "等于四"}, ""),
    ("wrong_language", {}, {"question": "2+2", "language": "", "response": "等于四"}, ""),
    ("wrong_language", {}, {"language": "tlh", "response": "it is four"}, ""),
    ("long_paragraphs", {}, {"response": THINK.format("word " * 500, "4")}, "long paragraph"),
    ("long_paragraphs", {}, {"response": THINK.format("word word.\n\n" * 300, "4")}, ""),
    (
        "code_blocks",
        {},
        {"response": THINK.format("try\n```python\nprint(4)\n```", "4")},
        "code block in the reasoning",
    ),
    ("code_blocks", {}, {"response": THINK.format("think", "```python\nprint(4)\n```")}, ""),
    ("code_blocks", {"max_blocks": 1}, {"response": THINK.format("```\n4\n```", "4")}, ""),
    ("repetition", {}, {"response": THINK.format(LOOP, "4")}, "loop"),
    ("repetition", {}, {"response": THINK.format("先算一加一得二，再看。" * 20, "4")}, "loop"),
    ("repetition", {}, {"response": THINK.format(f"{PROSE}. So. {PROSE}", "4")}, "repeated n-grams"),
    ("repetition", {}, {"response": THINK.format(PROSE, "4")}, ""),
    ("truncated", {}, {"finish_reason": "length", "tokens": 512}, "token limit reached"),
    ("truncated", {}, {"response": "<think>and then"}, "reasoning not closed"),
    ("truncated", {}, {"finish_reason": "stop"}, ""),
    ("too_long", {"max_tokens": 10}, {"tokens": 11}, "too long"),
    ("too_long", {"max_tokens": 10}, {"tokens": 10}, ""),
    ("too_long", {"max_chars": 10}, {"response": "x" * 11}, "too long"),
    ("too_short", {"min_tokens": 10}, {"tokens": 9}, "too short"),
    ("too_short", {"min_chars": 5}, {"response": "  four  "}, "too short"),
    ("too_short", {"min_chars": None}, {"response": ""}, ""),
    ("not_in_format", {}, {"response": "4"}, "not in the format"),
    ("not_in_format", {"formats_allowed": ["think"]}, {}, "not in the format"),
    ("not_in_format", {"formats_allowed": ["think_answer"]}, {}, ""),
    ("unreadable", {}, {"response": THINK.format("a \x00 b \ufffd", "4")}, "control characters"),
    ("unreadable", {}, {"response": THINK.format("word " * 400, "4")}, "no visible steps"),
    ("unreadable", {}, {"response": THINK.format("so \\(x + 1", "4")}, "LaTeX not balanced"),
    ("unreadable", {}, {"response": THINK.format("\\begin{align} x \\end{array}", "4")}, "LaTeX not balanced"),
    ("unreadable", {}, {"response": THINK.format("so $x + y", "4")}, "LaTeX not balanced"),
    ("unreadable", {}, {"response": THINK.format("it costs $5 and \\$ is money", "4")}, ""),
    ("unreadable", {}, {"response": THINK.format("\\[ \\begin{matrix} 1 \\\\[2pt] 2 \\end{matrix} \\]", "4")}, ""),
    ("unfaithful_summary", {}, {"response": THINK.format("so \\boxed{5}", "4")}, "summary not faithful"),
    ("unfaithful_summary", {}, {"response": THINK.format("so we get 5", "It is 4.")}, "summary not faithful"),
    ("unfaithful_summary", {}, {"response": THINK.format("so \\boxed{1,000}", "\\boxed{1000.0}")}, ""),
    ("unfaithful_summary", {}, {"response": THINK.format("so 1/2 of it", "\\boxed{\\frac{1}{2}}")}, ""),
    ("unfaithful_summary", {}, {"response": THINK.format("so it is Paris", "Paris")}, ""),
    ("unfaithful_summary", {}, {"response": THINK.format("so it is Rome", "Paris")}, "summary not faithful"),
    ("unfaithful_summary", {}, {"response": THINK.format("so we get 5", "4"), "answer": None}, ""),
    ("not_correct", {}, {"verdicts": {"math": False}}, "wrong"),
    ("not_correct", {}, {"verdicts": {"math": None}}, "cannot tell"),
    ("not_correct", {}, {}, "no verdict"),
    ("not_correct", {"keep_unknown": True}, {"verdicts": {"math": None}}, ""),
    ("not_correct", {"verdicts": ["math"]}, {"verdicts": {"math": True, "judge": False}}, ""),
    ("low_score", {"part": "reward", "min_score": 0.5}, {"scores": {"reward": 0.4}}, "low reward"),
    ("low_score", {"part": "reward", "min_score": 0.5}, {"scores": {"reward": 0.5}}, ""),
    ("low_score", {"part": "reward", "min_score": 0.5}, {"scores": {"reward": None}}, "no score for reward"),
    ("low_score", {"part": "reward", "min_score": 0.5, "keep_unknown": True}, {}, ""),
]


@pytest.mark.parametrize(("name", "options", "change", "reason"), CASES)
def test_a_filter_says_why(name: str, options: dict[str, Any], change: dict[str, Any], reason: str) -> None:
    found = filters.build([FilterSpec(name=name, options=options)])[name](view(from_row(row(4, **change))))
    assert (found.reason if found else "") == reason
    assert found is None or found.detail or found.example


def test_every_filter_has_a_case_that_it_drops_and_one_that_it_keeps() -> None:
    assert {name for name, _, _, reason in CASES if reason} == set(FILTERS)
    assert {name for name, _, _, reason in CASES if not reason} == set(FILTERS)


OPTIONS = {"low_score": {"part": "reward", "min_score": 0.5}}
PIECES = st.sampled_from(
    ["<think>", "</think>", "<answer>", "$", "\\(", "\\begin{a}", "\\boxed{", "1,000.0", "算", "\0", "."]
)


@given(st.lists(PIECES | st.text(max_size=8), max_size=40).map("".join))
def test_no_text_makes_a_filter_fail(text: str) -> None:
    taken = view(from_row(row(4, question=text, response=text)))
    for look in filters.build([FilterSpec(name=name, options=OPTIONS.get(name, {})) for name in FILTERS]).values():
        look(taken)


def test_a_filter_passes_over_the_sources_that_it_is_not_for() -> None:
    spec = FilterSpec(name="code_blocks", skip=("code*",), only=("code*", "math"))
    assert [spec.is_for(source) for source in ("math", "code/python", "general", "")] == [True, False, False, False]
    fenced = THINK.format("```\n4\n```", "4")
    look = filters.build([spec])["code_blocks"]
    assert look(view(from_row(row(4, response=fenced, source="code/python")))) is None
    assert look(view(from_row(row(4, response=fenced, source="math")))) is not None


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ("repetitions", "did you mean repetition"),
        ({"name": "too_long", "options": {"max_words": 3}}, "there is no option max_words"),
        ({"name": "too_long", "options": {"max_chars": "many"}}, "max_chars is 'many': it must be a whole number"),
        ({"name": "too_long", "options": {"max_chars": 0}}, "max_chars is 0: it must be at least 1"),
        ({"name": "low_score"}, "part is missing: set it; min_score is missing: set it"),
        ({"name": "mixed_languages", "options": {"min_share": 2}}, "min_share is 2"),
        ({"name": "not_in_format", "options": {"formats_allowed": ["xml"]}}, "name some of think_answer"),
    ],
)
def test_a_filter_that_cannot_be_made_is_an_error_of_the_settings(given_: Any, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        CurateSettings.parse({"filters": [given_]})


def test_two_filters_of_one_name_need_labels() -> None:
    twice = [{"name": "too_long", "options": {"max_chars": 9}, "skip": ["b"]}, {"name": "too_long", "only": ["b"]}]
    with pytest.raises(SettingsError, match="two steps are called 'too_long'"):
        CurateSettings.parse({"filters": twice})
    CurateSettings.parse({"filters": [twice[0], {**twice[1], "label": "too_long_b"}]})


def test_a_loop_is_found_wherever_it_stands_and_whatever_its_period() -> None:
    rng = np.random.default_rng(0)
    for period in (1, 2, 7, 40):
        piece = rng.integers(2**60, size=period).astype(np.uint64)
        before, after = (rng.integers(2**60, size=90).astype(np.uint64) for _ in range(2))
        times = -(-80 // period) + 5
        loop = find_loop(np.concatenate([before, np.tile(piece, times), after]), times=5, length=60)
        assert loop is not None
        assert loop.period == period
        assert abs(loop.times - times) <= 4
        assert find_loop(np.concatenate([before, np.tile(piece, 2), after]), times=5, length=60) is None
    assert repeated_share(np.array([5, 5, 5, 5, 5], dtype=np.uint64), 2) == 0.75


# --- quality


def test_the_composite_score_is_the_weighted_mean_of_the_parts_that_apply() -> None:
    settings = QualitySettings()
    assert composite({"accuracy": 1, "reasoning": 0.5, "language": 1, "format": 1}, settings) == 0.85
    assert composite({"accuracy": 1, "reasoning": None, "language": 1, "format": 1}, settings) == 1
    assert composite({"accuracy": 1, "reasoning": 0, "unknown": 9}, settings) == round(0.4 / 0.7, 9)
    assert composite({}, QualitySettings(required=())) is None


def test_what_nobody_could_judge_has_no_score_and_is_not_accepted() -> None:
    settings = QualitySettings()
    sample = from_row(row(scores={"reasoning": 1, "language": 1, "format": 1}, verdicts={"judge": None}))
    parts = parts_of(sample)
    assert composite(parts, settings) is None
    found = judge(None, parts, settings)
    assert found is not None
    assert (found.reason, found.detail) == ("no quality score", "missing: accuracy")


def test_accuracy_comes_from_the_verdicts_where_no_score_says_it() -> None:
    assert parts_of(from_row(row(verdicts={"math": True, "judge": None})))["accuracy"] == 1
    assert parts_of(from_row(row(verdicts={"math": True, "judge": False})))["accuracy"] == 0
    assert parts_of(from_row(row(verdicts={"math": True}, scores={"accuracy": 0.5})))["accuracy"] == 0.5


def test_a_part_outside_0_to_1_is_an_error_that_names_it() -> None:
    with pytest.raises(DataError, match=r"field scores\.reasoning: the value is 7"):
        composite({"accuracy": 1, "reasoning": 7}, QualitySettings())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"weights": {}}, "at least one part"),
        ({"weights": {"accuracy": 0}}, "above 0"),
        ({"weights": {"format": 1}}, "required names accuracy, which has no weight"),
        ({"accept": 2}, "accept is 2: it must be at most 1"),
    ],
)
def test_weights_that_cannot_be_meant_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        QualitySettings.parse(values)


# --- words


def test_texts_that_read_the_same_have_one_normal_form() -> None:
    assert ngrams.normal("Ｘ is 1,080.50, or .5") == "x is 1080.5, or 0.5"
    assert ngrams.normal("3.0 and 1,234,567.00") == "3 and 1234567"
    assert ngrams.normal("7 of 1,08", mask_numbers=True) == "0 of 0,0"
    assert ngrams.numbers("1,080 apples, 3.0 pears, 3.14") == ("1080", "3", "3.14")
    assert ngrams.key("What is $2+2$?") == ngrams.key("what is  \\(2 + 2\\)") != ngrams.key("what is 2-2?")


def test_words_are_runs_of_letters_and_single_characters_of_unspaced_scripts() -> None:
    text = ngrams.words_of("Add 3.5 和四, don't: ค x_1 café")
    shown = [text.text[start:end] for start, end in zip(text.starts, text.ends, strict=True)]
    assert shown == ["add", "3.5", "和", "四", "don", "t", "ค", "x", "1", "café"]
    assert text.single.tolist() == [False, False, True, True, False, False, True, False, False, False]
    assert text.excerpt(1, 3) == "3.5 和四"


@given(st.lists(st.sampled_from(["a", "b", "ab", "c"]), max_size=30), st.integers(1, 6))
def test_ngrams_are_equal_where_the_words_are(tokens: list[str], n: int) -> None:
    hashes = ngrams.words_of(" ".join(tokens)).hashes
    assert len(hashes) == len(tokens)
    grams = ngrams.ngrams(hashes, n).tolist()
    texts = [tuple(tokens[start : start + n]) for start in range(len(tokens) - n + 1)]
    assert len(grams) == len(texts)
    assert [grams[0] == gram for gram in grams] == [texts[0] == text for text in texts]
    assert len(set(grams)) == len(set(texts))


def test_hashes_are_the_same_on_every_machine_and_in_every_release() -> None:
    hashes = ngrams.words_of("so the answer is 四").hashes
    assert [f"{value:016x}" for value in hashes[:2]] == ["0c5ae7086276bda1", "9f2a2539547fb164"]
    assert f"{ngrams.ngrams(hashes, 5)[0]:016x}" == "902edea46c941bb8"
    assert ngrams.stable_hash("a") == 3405396810240292928


# --- near-duplicates


def overlap(one: Sequence[int], other: Sequence[int]) -> float:
    return len(set(one) & set(other)) / len(set(one) | set(other))


@pytest.mark.parametrize("size", [30, 120, 800])
@pytest.mark.parametrize("changed", [0.0, 0.02, 0.1, 0.5])
def test_signatures_estimate_the_overlap_of_shingles(size: int, changed: float) -> None:
    rng = np.random.default_rng(size)
    errors = []
    for _ in range(20):
        one = rng.integers(2**60, size=size).astype(np.uint64)
        other = one.copy()
        places = rng.random(size) < changed
        other[places] = rng.integers(2**60, size=int(places.sum()))
        truth = overlap(ngrams.ngrams(one, 5).tolist(), ngrams.ngrams(other, 5).tolist())
        signatures = duplicates.minhash([one, other], 5).astype(np.uint8)
        errors.append(float(duplicates.similarity(signatures[0], signatures[1][None])[0]) - truth)
    assert abs(np.mean(errors)) < 0.05
    assert np.abs(errors).max() < 0.25


def reworded(text: str, every: int = 29) -> str:
    """The text with one word in `every` replaced."""
    pieces = text.split(" ")
    pieces[::every] = ["otherwise"] * len(pieces[::every])
    return " ".join(pieces)


LONG = " ".join(random.Random("long").choices(VOCABULARY, k=300))
CHINESE = "".join(chr(0x4E00 + random.Random(n).randrange(20_000)) for n in range(400))


def near_rows() -> list[dict[str, Any]]:
    other_chinese = CHINESE[:200] + "甲" + CHINESE[201:]
    return [
        row(1, response=THINK.format(LONG, "4"), scores={"quality": 0.5}),
        row(2, response=THINK.format(reworded(LONG, 100), "4"), problem_id="p1", scores={"quality": 0.9}),
        row(3, response=THINK.format(reworded(LONG, 100), "4")),
        row(4, response=THINK.format(CHINESE, "4"), problem_id="c"),
        row(5, response=THINK.format(other_chinese, "4"), problem_id="c"),
        row(6, response=THINK.format(PROSE, "4"), problem_id="p1"),
    ]


def test_near_duplicates_of_a_problem_are_dropped_for_the_best(tmp_path: Path) -> None:
    done = run(tmp_path, near_rows(), {"near_duplicates": [{}]})
    kept = ids(done.kept_file)
    assert "s2" in kept and "s1" not in kept  # of the two the one with the higher score
    assert {"s3", "s6"} <= set(kept)  # another problem, another solution
    assert len({"s4", "s5"} & set(kept)) == 1
    dropped = {one["id"]: one["dropped"] for one in read(done.dropped_file)}
    assert dropped["s1"]["reason"] == "near-duplicate"
    assert dropped["s1"]["detail"].endswith("% alike: s2")


def test_over_the_whole_set_other_numbers_make_another_problem(tmp_path: Path) -> None:
    text = "A train leaves at noon with {} people on board and stops in every town of the valley. How many remain?"
    same = [row(n, question=text.format(10 + n // 2), response=THINK.format(LONG, "4")) for n in range(4)]
    by_numbers = run(tmp_path / "a", same, {"near_duplicates": [{"within": "numbers", "text": "both"}]})
    assert by_numbers.kept == 2
    by_all = run(tmp_path / "b", same, {"near_duplicates": [{"within": "everything", "text": "both"}]})
    assert by_all.kept == 1


def test_which_near_duplicates_stay_does_not_depend_on_the_order_of_the_rows(tmp_path: Path) -> None:
    rng = random.Random(0)
    texts = [LONG, PROSE, CHINESE]
    content = [
        row(n, response=THINK.format(reworded(rng.choice(texts), rng.randint(20, 200)), "4"), problem_id=f"p{n % 3}")
        for n in range(60)
    ]
    settings = {"near_duplicates": [{}, {"within": "everything", "text": "both"}]}
    kept = []
    for order in range(3):
        rng.shuffle(content)
        kept.append(sorted(ids(run(tmp_path / str(order), content, settings).kept_file)))
    assert kept[0] == kept[1] == kept[2]
    assert 3 <= len(kept[0]) < 40


def test_pairs_at_the_threshold_come_to_be_compared() -> None:
    for threshold in (0.5, 0.7, 0.8, 0.9, 0.95):
        bands, values = duplicates.shape(threshold)
        assert bands * values <= duplicates.VALUES
        assert 1 - (1 - threshold**values) ** bands >= 0.98
        assert 1 - (1 - (threshold - 0.3) ** values) ** bands < 0.8


def test_many_rows_of_one_template_take_bounded_time() -> None:
    count = 5_000
    order, groups = np.arange(count), np.zeros(count, dtype=np.uint64)
    banded = np.zeros((count, 18), dtype=np.uint32)  # all in one bucket, none alike
    signatures = np.random.default_rng(0).integers(256, size=(count, 128)).astype(np.uint8)
    assert (duplicates.find_near(order, groups, banded, signatures, 0.8).partner == -1).all()


def test_exact_duplicates_ignore_white_space_and_ids_are_unique(tmp_path: Path) -> None:
    first = row(1)
    spaced = row(1, id="other", question=first["messages"][0]["content"] + " \n")
    done = run(tmp_path, [first, spaced, row(2, id="s1"), row(3)])
    reasons = Counter(one["dropped"]["reason"] for one in read(done.dropped_file))
    assert reasons == {"same text": 1, "id seen before": 1}
    assert done.kept == 2


def test_conversations_that_end_alike_are_no_duplicates(tmp_path: Path) -> None:
    end = [{"role": "user", "content": "And now?"}, {"role": "assistant", "content": "Now we rest, all of us."}]

    def talk(number: int, name: str) -> dict[str, Any]:
        words_ = " ".join(VOCABULARY[20 * number : 20 * number + 15])
        begun = [{"role": "user", "content": f"Tell of {words_}"}, {"role": "assistant", "content": f"{words_}, yes."}]
        return {"id": name, "messages": [*begun, *end]}

    near = {"near_duplicates": [{"within": "numbers", "text": "both"}]}
    done = run(tmp_path, [talk(1, "a"), talk(2, "b"), talk(1, "c")], near)
    assert done.kept == 2 and [one["dropped"]["reason"] for one in read(done.dropped_file)] == ["same text"]


# --- decontamination

QUESTION = "A farmer has 1,080 apples and gives 12.50 percent of them to each of his three hungry neighbours on Sunday."
HAN_QUESTION = "一个农夫有一千零八十个苹果，他把其中的八分之一分给三个邻居中的每一个人，还剩多少？"


def hits(sample: dict[str, Any], *problems: Problem, **settings: Any) -> list[decontaminate.Hit]:
    index = decontaminate.build({"exam": problems}, DecontaminationSettings.parse(settings))
    return index.find(from_row(sample))


def problem(prompt: str, answer: str = "4", solution: str = "") -> Problem:
    return Problem(id="exam/1", prompt=prompt, answer=answer, solution=solution)


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        (f"Listen! {QUESTION} How many?", decontaminate.WORDS),
        ("Now a FARMER has 1080 apples and gives 12.5 percent of them to each of us", decontaminate.WORDS),
        ("a farmer has 1080 apples -- and gives, 12.5 percent", ""),  # nine words
        ("a farmer has 1081 apples and gives 12.5 percent of his", ""),
        ("今天，一个农夫有一千零八十个苹果，他把其中的一半吃了", decontaminate.CHARACTERS),
        ("一个农夫有一千零八个苹果", ""),
        ("WHAT is  2+2", decontaminate.WHOLE),
        ("What is 2-2?", ""),
        ("What is 2+2?\nPlease reason step by step.", decontaminate.WHOLE),
        ("", ""),
    ],
)
def test_what_an_evaluation_set_asks_is_found(question: str, kind: str) -> None:
    found = hits(row(1, question=question), problem(QUESTION), problem(HAN_QUESTION), problem("What is $2+2$?"))
    assert [hit.kind for hit in found] == ([kind] if kind else [])
    assert [hit.evaluation_set for hit in found] == (["exam"] if kind else [])


def test_questions_and_answers_are_looked_for_in_the_response_too() -> None:
    solution = " ".join(VOCABULARY[:30])
    sample = row(1, response=THINK.format(f"so {solution} and", "4"))
    assert hits(sample, problem("another question", solution=solution))
    assert hits(sample, problem("another question", answer=solution))
    assert not hits(sample, problem("another question", answer="4"))
    assert not hits(sample, problem("another question", solution=solution), look_in=["question"])
    assert (
        hits(row(1, response=QUESTION), problem(QUESTION))[0].text
        == "a farmer has 1080 apples and gives 12.5 percent of"
    )


def test_every_turn_of_a_conversation_is_looked_at() -> None:
    short = "What is 2+2?"
    last = [{"role": "user", "content": "thanks"}, {"role": "assistant", "content": "you are welcome"}]
    for role, asks, kind in (
        ("user", short, decontaminate.WHOLE),
        ("user", QUESTION, decontaminate.WHOLE),
        ("assistant", f"Try this one. {QUESTION}", decontaminate.WORDS),
        ("system", f"Answer as here. {QUESTION} It is 4.", decontaminate.WORDS),
    ):
        talk = [{"role": role, "content": asks}, *last]
        found = hits({"id": "a", "messages": talk}, problem(QUESTION), problem(short))
        assert [hit.kind for hit in found] == [kind], (role, asks)
    assert not hits({"id": "a", "messages": last}, problem(QUESTION), problem(short))


def test_wording_that_many_problems_share_is_no_evidence() -> None:
    suffix = "The last line of your response should be of the form ANSWER and then a letter."
    exam = [problem(f"{' '.join(VOCABULARY[20 * n : 20 * n + 15])}? {suffix}") for n in range(20)]
    harmless = row(1, question=f"Which gas is blue? {suffix}")
    assert not hits(harmless, *exam)
    assert hits(harmless, *exam, wording=None)
    assert hits(harmless, *exam[:3])  # few enough to be a question that is asked in several ways
    halves = {"one": exam[:10], "other": exam[10:], "again": exam}
    assert not decontaminate.build(halves, DecontaminationSettings(wording=19)).find(from_row(row(2)))
    assert decontaminate.build(halves, DecontaminationSettings(wording=20)).find(from_row(harmless))
    assert not decontaminate.build(halves, DecontaminationSettings(wording=19)).find(from_row(harmless))
    assert hits(row(1, question=" ".join(VOCABULARY[20:35])), *exam)
    assert hits(row(1, question=QUESTION), *[problem(QUESTION)] * 20)  # one problem twenty times is not wording


def test_masked_numbers_find_the_same_problem_with_other_numbers() -> None:
    other = row(1, question="A farmer has 2,160 apples and gives 25 percent of them to Eve.")
    assert not hits(other, problem(QUESTION))
    assert hits(other, problem(QUESTION), mask_numbers=True)


def test_a_report_says_which_set_was_hit_how_often(tmp_path: Path) -> None:
    content = [row(n) for n in range(10)]
    content[3] = row(3, question=QUESTION)
    content[4] = row(4, question=HAN_QUESTION, language="zh")
    sets = {"exam": [problem(QUESTION), problem(HAN_QUESTION)], "quiz": [problem(QUESTION)], "clean": [problem(LONG)]}
    done = run(tmp_path, content, evaluation=sets)
    report = {one["set"]: one for one in done.decontamination}
    assert {name: one["rows"] for name, one in report.items()} == {"exam": 2, "quiz": 1, "clean": 0}
    assert report["exam"]["problems"] == 2
    assert report["exam"]["examples"][0]["id"] == "s3"
    assert "A farmer has 1,080" in report["exam"]["examples"][0]["text"]
    told = {one["id"]: one["dropped"] for one in read(done.dropped_file)}
    assert told["s3"]["detail"] == "exam exam/1 (whole question); quiz exam/1 (whole question)"


def test_sets_in_use_are_read_from_task_specs(shared_data: Path) -> None:
    spec = TaskSpec(name="gsm8k", split="test", limit=50, data=shared_data)
    sets = {name: list(problems) for name, problems in evaluation_sets([spec]).items()}
    index = decontaminate.build(sets, DecontaminationSettings())
    members = sets["gsm8k"]
    assert all(index.find(from_row(row(n, question=one.prompt))) for n, one in enumerate(members))
    assert not index.find(from_row(row(0)))


def test_hashes_of_other_hashes_never_meet_in_the_table() -> None:
    rng = np.random.default_rng(0)
    known, unknown = (rng.integers(2**63, size=5000).astype(np.uint64) for _ in range(2))
    table = decontaminate.Table.of([(0, known[:2000]), (1, known[2000:]), (2, known[:1])])
    assert [owner for _, owner in table.find(known[:1])] == [0, 2]
    assert list(table.find(unknown)) == []
    assert len(list(table.find(known))) == 5001


# --- balance


def kept_of(tmp_path: Path, content: Iterable[Any], **settings: Any) -> list[str]:
    return ids(run(tmp_path, content, {"balance": settings}).kept_file)


def test_the_best_or_shortest_samples_of_a_problem_stay(tmp_path: Path) -> None:
    content = [row(n, problem_id="p", response=f"{'x' * (10 - n)} {n}", scores={"quality": n / 10}) for n in range(6)]
    content += [row(9, problem_id="q"), row(10, problem_id=""), row(11, problem_id="")]
    alone = ["s9", "s10", "s11"]
    assert kept_of(tmp_path / "a", content, per_problem=2, choose="best") == ["s4", "s5", *alone]
    assert kept_of(tmp_path / "b", content[::-1], per_problem=1, choose="shortest") == [*alone[::-1], "s5"]
    assert kept_of(tmp_path / "c", content, per_problem=None) == [f"s{n}" for n in (0, 1, 2, 3, 4, 5, 9, 10, 11)]


def test_the_most_diverse_samples_of_a_problem_stay(tmp_path: Path) -> None:
    texts = [LONG, reworded(LONG, 20), PROSE, reworded(PROSE, 20)]
    content = [row(n, problem_id="p", response=text, scores={"quality": 0.9 - n / 10}) for n, text in enumerate(texts)]
    settings = {"near_duplicates": [{"threshold": 0.99}], "balance": {"per_problem": 2, "choose": "diverse"}}
    assert ids(run(tmp_path, content, settings).kept_file) == ["s0", "s2"] or ids(
        run(tmp_path, content, settings).kept_file
    ) == ["s0", "s3"]
    with pytest.raises(SettingsError, match="'diverse' needs a near_duplicates entry"):
        CurateSettings.parse({"near_duplicates": [], "balance": {"choose": "diverse"}})


def test_shares_of_difficulty_hold_and_each_problem_goes_in_once_before_any_goes_in_twice(tmp_path: Path) -> None:
    content = [row(n, pass_rate=0.1, problem_id=f"hard{n}") for n in range(10)]
    content += [row(10 + n, pass_rate=1.0, problem_id=f"easy{n % 10}") for n in range(90)]
    content += [row(200), row(201)]  # without a pass rate
    done = run(tmp_path, content, {"balance": {"per_problem": None, "edges": [0.5], "shares": [1, 1]}})
    kept = read(done.kept_file)
    assert Counter(one.get("pass_rate") for one in kept) == {0.1: 10, 1.0: 10, None: 2}
    assert len({one["problem_id"] for one in kept}) == 22
    told = Counter(one["dropped"]["reason"] for one in read(done.dropped_file))
    assert told == {"too many of pass rate 0.5 to 1": 80}


def test_quotas_follow_the_shares_as_far_as_there_is_enough() -> None:
    assert balance.quotas([100, 10], [1, 1]) == [10, 10]
    assert balance.quotas([100, 10], [1, 1], 50) == [40, 10]
    assert balance.quotas([100, 0], [1, 1]) == [100, 0]
    assert balance.quotas([100, 100], [1, 0]) == [100, 0]
    assert balance.quotas([600, 200], [3, 1]) == [600, 200]
    assert balance.quotas([10, 10, 10], [1, 1, 1], 10) == [4, 3, 3]
    assert balance.quotas([0, 0], [1, 1], 5) == [0, 0]


@given(
    st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 5)), min_size=1, max_size=5),
    st.none() | st.integers(1, 3000),
)
def test_quotas_never_exceed_what_there_is_and_reach_the_size_if_they_can(
    kinds: list[tuple[int, int]], size: int | None
) -> None:
    available, shares = [count for count, _ in kinds], [share for _, share in kinds]
    taken = balance.quotas(available, shares, size)
    assert all(0 <= got <= count for got, count in zip(taken, available, strict=True))
    usable = sum(count for count, share in kinds if share)
    if size is not None:
        assert sum(taken) == min(size, usable)
    elif usable:
        used = [(got, share) for got, (count, share) in zip(taken, kinds, strict=True) if count and share]
        scale = sum(got for got, _ in used) / sum(share for _, share in used)
        assert all(abs(got - scale * share) <= 1 for got, share in used)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"edges": [0.5, 0.2]}, "they must rise"),
        ({"edges": [0, 0.5]}, "they must rise"),
        ({"shares": [1, 1]}, "2 shares for 4 buckets"),
        ({"shares": [1, 1, 1, -1]}, "none can be negative"),
        ({"size": 5}, "size has no effect without shares"),
        ({"per_problem": 0}, "per_problem is 0: it must be at least 1"),
    ],
)
def test_a_balance_that_cannot_be_meant_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        BalanceSettings.parse(values)


# --- mixing


def two_sources(tmp_path: Path) -> dict[str, list[Path]]:
    reasoning = [row(n, source="math" if n % 2 else "code") for n in range(60)]
    general = [row(1000 + n, pass_rate=None) for n in range(10)]
    return {
        "reasoning": [write(tmp_path / "a.jsonl", reasoning[:40]), write(tmp_path / "b.jsonl", reasoning[40:])],
        "general": [write(tmp_path / "g.jsonl", general)],
    }


def test_sources_are_mixed_three_to_one_and_shuffled(tmp_path: Path) -> None:
    sources = two_sources(tmp_path)
    shares = mix(sources, tmp_path / "mixed.jsonl")
    assert [(share.source, share.available, share.taken, share.share) for share in shares] == [
        ("reasoning", 60, 30, 0.75),
        ("general", 10, 10, 0.25),
    ]
    mixed = read(tmp_path / "mixed.jsonl")
    names = [one["metadata"]["mixture"] for one in mixed]
    assert Counter(names) == {"reasoning": 30, "general": 10}
    assert names != sorted(names) and names != sorted(names, reverse=True)
    assert {one["source"] for one in mixed} == {"math", "code", "general"}
    assert all(set(one) == {"messages", "source", "metadata"} for one in mixed)
    assert mixed[0]["metadata"]["problem_id"]


def test_a_mixture_depends_on_names_and_seed_and_not_on_the_order_of_rows_and_files(tmp_path: Path) -> None:
    sources = two_sources(tmp_path)
    mix(sources, tmp_path / "one.jsonl")
    write(tmp_path / "a2.jsonl", read(sources["reasoning"][0])[::-1])
    turned = {"general": sources["general"], "reasoning": [sources["reasoning"][1], tmp_path / "a2.jsonl"]}
    mix(turned, tmp_path / "two.jsonl")
    mix(sources, tmp_path / "three.jsonl", MixSettings(seed=1))
    one, two, three = ((tmp_path / f"{name}.jsonl").read_bytes() for name in ("one", "two", "three"))
    assert one == two != three


def test_a_scarce_source_is_repeated_when_asked_or_filled_up_by_the_others(tmp_path: Path) -> None:
    sources = two_sources(tmp_path)
    shares = mix(sources, tmp_path / "twice.jsonl", MixSettings(max_repeats=2))
    assert [(share.available, share.taken) for share in shares] == [(60, 60), (10, 20)]
    counts = Counter(ids_of_mixed(tmp_path / "twice.jsonl"))
    assert set(counts.values()) == {1, 2}
    assert all(counts[f"s{n}"] == 1 for n in range(60))
    shares = mix(sources, tmp_path / "sized.jsonl", MixSettings(size=50))
    assert [share.taken for share in shares] == [40, 10]


def ids_of_mixed(path: Path) -> list[str]:
    return [one["metadata"]["id"] for one in read(path)]


def test_a_row_is_repeated_as_often_as_the_order_has_room_for(tmp_path: Path) -> None:
    sources = {"a": [write(tmp_path / "a.jsonl", [row(1)])], "b": [write(tmp_path / "b.jsonl", map(row, range(256)))]}
    shares = mix(sources, tmp_path / "mixed.jsonl", MixSettings(ratios={"a": 1, "b": 1}, max_repeats=256, size=512))
    assert [share.taken for share in shares] == [256, 256]
    with pytest.raises(SettingsError, match="max_repeats"):
        MixSettings.parse({"max_repeats": 257})


def test_a_mixture_that_was_stopped_goes_on_and_one_that_is_done_is_not_written_again(tmp_path: Path) -> None:
    sources, out = two_sources(tmp_path), tmp_path / "mixed.jsonl"
    shares = mix(sources, out)
    whole = out.read_bytes()
    out.unlink()
    (tmp_path / "mixed.jsonl.part").write_bytes(whole[: len(whole) // 2])
    assert mix(sources, out) == shares
    assert out.read_bytes() == whole
    before = out.stat().st_mtime_ns
    assert mix(sources, out) == shares
    assert out.stat().st_mtime_ns == before
    write(sources["general"][0], [row(1000 + n) for n in range(5)])
    assert mix(sources, out)[1].taken == 5


def test_sources_and_ratios_that_do_not_fit_are_errors(tmp_path: Path) -> None:
    sources = two_sources(tmp_path)
    with pytest.raises(ValueError, match="there are ratios for reasoning, general, but the sources are general"):
        mix({"general": sources["general"]}, tmp_path / "out.jsonl")
    with pytest.raises(ValueError, match="source general has no rows"):
        mix({**sources, "general": []}, tmp_path / "out.jsonl")
    with pytest.raises(SettingsError, match="the ratio of general is 0"):
        MixSettings.parse({"ratios": {"reasoning": 1, "general": 0}})
    with pytest.raises(DataError, match=r"g\.jsonl, row 2, field messages"):
        write(tmp_path / "g.jsonl", [row(1), {"id": "x"}])
        mix(sources, tmp_path / "other.jsonl")


# --- the whole


def mixed_rows(count: int) -> list[dict[str, Any]]:
    """Good rows, and some for every step to drop."""
    content = []
    for n in range(count):
        one = row(n, problem_id=f"p{n // 6}", pass_rate=(n % 5) / 4, scores={"accuracy": 1, "reasoning": n % 7 / 6})
        if n % 11 == 3:
            one["messages"][1]["content"] = THINK.format(LOOP, "4")
        if n % 13 == 4:
            one["messages"] = content[n // 2]["messages"]
        if n % 17 == 5:
            one["messages"][0]["content"] = f"{QUESTION} {n}"
        if n % 19 == 6:
            one["id"] = f"s{n // 2}"
        content.append(one)
    return content


EVERYTHING = {
    "quality": {"accept": 0.6},
    "balance": {"per_problem": 4, "edges": [0.5], "shares": [1, 1]},
    "examples": 2,
}


def whole(folder: Path, out: Path, **options: Any) -> Curation:
    settings = CurateSettings.parse(EVERYTHING)
    return curate([folder / "rows.jsonl"], out, settings, evaluation={"exam": [problem(QUESTION)]}, **options)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "CHUNK_ROWS", 40)


def test_the_funnel_accounts_for_every_row(tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", mixed_rows(200))
    done = whole(tmp_path, tmp_path / "out")
    kept, dropped = read(done.kept_file), read(done.dropped_file)
    assert len(kept) + len(dropped) == done.rows == 200
    assert len(kept) == done.kept == done.funnel[-1].rows_out > 50
    assert done.funnel[0].rows_in == 200
    for step, after in zip(done.funnel, done.funnel[1:], strict=False):
        assert step.rows_out == after.rows_in
    told = Counter((one["dropped"]["step"], one["dropped"]["reason"]) for one in dropped)
    assert told == {(step.name, reason): n for step in done.funnel for reason, n in step.reasons.items()}
    steps = {"repetition", "quality", "decontamination", "duplicate ids", "exact duplicates", "balance of difficulty"}
    assert steps <= {name for name, _ in told}
    for step in done.funnel:
        shown = Counter(example.reason for example in step.examples)
        assert shown == {reason: min(2, n) for reason, n in step.reasons.items()}
        assert all(example.id for example in step.examples)


def test_kept_rows_are_as_they_came_with_their_score_and_dropped_ones_with_the_reason(tmp_path: Path) -> None:
    content = mixed_rows(60)
    write(tmp_path / "rows.jsonl", content)
    done = whole(tmp_path, tmp_path / "out")
    for one in read(done.kept_file):
        assert one["scores"].pop("quality") >= 0.6
        assert one in content
    for one in read(done.dropped_file):
        reason = one.pop("dropped")
        assert one in content
        assert reason["step"] and reason["reason"]


def test_the_funnel_counts_the_rows_of_each_step_with_reasons_and_examples(tmp_path: Path) -> None:
    done = run(tmp_path, [row(1, response="<b>|</b>\n`x` [y](z)"), row(2)], {"filters": ["not_in_format"]})
    step = done.funnel[1]
    assert (step.name, step.rows_in, step.rows_out, step.share) == ("not_in_format", 2, 1, 0.5)
    assert step.reasons == {"not in the format": 1}
    assert [(example.id, example.reason) for example in step.examples] == [("s1", "not in the format")]
    assert json.loads((done.folder / "curation.json").read_text())["funnel"][1]["reasons"] == {"not in the format": 1}


class Stop(Exception):
    pass


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("stops", [("judge", 40), ("judge", 120), ("judge", 200)])
def test_a_run_that_is_stopped_goes_on_behind_the_last_chunk(tmp_path: Path, stops: tuple[str, int]) -> None:
    write(tmp_path / "rows.jsonl", mixed_rows(200))
    expected = whole(tmp_path, tmp_path / "straight")

    def stop(phase: str, done: int) -> None:
        if (phase, done) == stops:
            raise Stop

    with pytest.raises(Stop):
        whole(tmp_path, tmp_path / "out", progress=stop)
    seen: list[tuple[str, int]] = []
    again = whole(tmp_path, tmp_path / "out", progress=lambda phase, done: seen.append((phase, done)))
    assert all(done > stops[1] for phase, done in seen if phase == "judge")
    assert bytes_of(again.folder) == bytes_of(expected.folder)
    assert again.funnel == expected.funnel


@pytest.mark.usefixtures("small_chunks")
def test_the_second_pass_goes_on_in_the_middle_of_a_row(tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", mixed_rows(200))
    expected = bytes_of(whole(tmp_path, tmp_path / "straight").folder)
    rng = random.Random(0)
    for attempt in range(6):
        out = tmp_path / f"out{attempt}"

        def stop(phase: str, done: int) -> None:
            if phase == "judge" and done == 200:
                raise Stop

        with pytest.raises(Stop):
            whole(tmp_path, out, progress=stop)
        for name in ("kept.jsonl", "dropped.jsonl"):  # as a kill leaves them: cut anywhere, or one finished already
            (out / f"{name}.part").write_bytes(expected[name][: rng.randrange(len(expected[name]))])
        if attempt == 0:
            (out / "kept.jsonl.part").rename(out / "kept.jsonl")
        assert bytes_of(whole(tmp_path, out).folder) == expected


@pytest.mark.slow
def test_killed_at_any_instant_the_same_files_come_out(tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", mixed_rows(3000))
    expected = bytes_of(whole(tmp_path, tmp_path / "straight").folder)
    code = (
        "import sys\nfrom pathlib import Path\nsys.path.insert(0, sys.argv[1])\nimport test_curate as t\n"
        "from r1kit.curate import facts\nfacts.CHUNK_ROWS = 40\n"
        "print('ready', flush=True)\nt.whole(Path(sys.argv[2]), Path(sys.argv[2]) / 'out')\n"
    )
    rng = random.Random(0)
    kills = 0
    while not (tmp_path / "out" / "curation.json").exists() and kills < 4:
        arguments = [sys.executable, "-c", code, str(Path(__file__).parent), str(tmp_path)]
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        try:
            process.wait(timeout=rng.uniform(0.05, 0.4))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
        process.stdout.close()
    assert kills > 0
    assert bytes_of(whole(tmp_path, tmp_path / "out").folder) == expected


@pytest.mark.slow
@pytest.mark.usefixtures("small_chunks")
def test_the_number_of_workers_does_not_change_the_result(tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", mixed_rows(200))
    one, two = whole(tmp_path, tmp_path / "one"), whole(tmp_path, tmp_path / "two", workers=2)
    assert bytes_of(one.folder) == bytes_of(two.folder)


@pytest.mark.slow
@pytest.mark.usefixtures("small_chunks")
def test_a_fault_in_a_worker_names_file_row_and_field(tmp_path: Path) -> None:
    file = write(tmp_path / "rows.jsonl", [*mixed_rows(100), {**row(1), "messages": None}])
    with pytest.raises(DataError, match="row 101, field messages"):
        curate([file], tmp_path / "out", workers=2)


def test_what_is_finished_is_not_done_again_and_what_changed_is(tmp_path: Path) -> None:
    content = mixed_rows(30)
    first = run(tmp_path, content)
    before = first.kept_file.stat().st_mtime_ns
    assert run(tmp_path, content) == first
    assert first.kept_file.stat().st_mtime_ns == before
    assert run(tmp_path, content, {"filters": ["repetition"]}).kept < first.kept
    assert run(tmp_path, content, evaluation={"exam": [problem(QUESTION)]}).kept < first.kept
    assert run(tmp_path, content[:10]).rows == 10
    first.kept_file.unlink()
    assert run(tmp_path, content[:10]).kept_file.exists()
    assert sorted(bytes_of(first.folder)) == ["curation.json", "dropped.jsonl", "kept.jsonl"]


def test_several_files_are_read_one_after_the_other_and_none_is_no_error(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{n}.jsonl", [row(2 * n), row(2 * n + 1)]) for n in range(3)]
    (tmp_path / "1.jsonl").write_text("")
    done = curate(files, tmp_path / "out", CurateSettings.parse(NOTHING))
    assert ids(done.kept_file) == ["s0", "s1", "s4", "s5"]
    nothing = curate([], tmp_path / "empty")
    assert (nothing.rows, nothing.kept) == (0, 0)
    assert nothing.kept_file.read_bytes() == b""
    assert [(step.name, step.rows_in, step.rows_out) for step in nothing.funnel[:1]] == [("rows", 0, 0)]
    with pytest.raises(FileNotFoundError):
        curate([tmp_path / "missing.jsonl"], tmp_path / "other")


# --- hostile files


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"id": "x", "messages": [{"role": "user"', "not valid JSON"),
        (b'["a", "b"]', "expected an object"),
        (b'{"id": "\xff"}', "not valid UTF-8"),
        (b"\x00\x00\x00", "not valid JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"id": "x"}', "field messages"),
        (b'{"id": "x", "messages": [{"role": "user", "content": 7}]}', "field messages.0.content"),
    ],
)
def test_a_row_that_cannot_be_read_stops_with_its_place_or_is_dropped_as_asked(
    tmp_path: Path, line: bytes, reason: str
) -> None:
    file = write(tmp_path / "rows.jsonl", [row(1), row(2)])
    file.write_bytes(file.read_bytes() + b"\n" + line + b"\n" + json.dumps(row(3)).encode())
    settings = CurateSettings.parse(NOTHING)
    with pytest.raises(DataError) as caught:
        curate([file], tmp_path / "out", settings)
    assert f"{file}, row 4" in str(caught.value)
    assert reason in str(caught.value)
    done = curate([file], tmp_path / "out", settings.override({"skip_invalid": True}))
    assert ids(done.kept_file) == ["s1", "s2", "s3"]
    dropped = read(done.dropped_file)
    assert [one["dropped"]["step"] for one in dropped] == ["rows"]
    assert dropped[0]["raw"] == line[:2000].decode("utf-8", "replace")


def test_a_last_line_that_was_half_written_is_left_out(tmp_path: Path) -> None:
    file = write(tmp_path / "rows.jsonl", [row(1), row(2)])
    file.write_bytes(file.read_bytes()[:-20])
    assert ids(curate([file], tmp_path / "out", CurateSettings.parse(NOTHING)).kept_file) == ["s1"]


def test_empty_texts_null_bytes_and_half_characters_are_data(tmp_path: Path) -> None:
    content = [row(1, response=""), row(2, question=" \n"), row(3, response="\0\0"), row(4, response="a\0b 5 c")]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in [*content, row(5, response="half \ud800 done")]))
    done = curate([file], tmp_path / "out", CurateSettings(filters=(), quality=QualitySettings(required=(), accept=0)))
    reasons = Counter(one["dropped"]["reason"] for one in read(done.dropped_file))
    assert reasons == {"empty response": 2, "empty question": 1, "no quality score": 2}
    plain = curate([file], tmp_path / "plain", CurateSettings(filters=()))
    assert ids(plain.kept_file) == ["s4", "s5"]
    assert "\\ud800" in plain.kept_file.read_text()  # as it came
    mixed = mix({"a": [plain.kept_file]}, tmp_path / "mixed.jsonl", MixSettings(ratios={"a": 1}))
    assert mixed[0].taken == 2
    assert {one["messages"][1]["content"] for one in read(tmp_path / "mixed.jsonl")} == {"a\0b 5 c", "half ? done"}


@pytest.mark.parametrize("piece", ["a", "word ", "1.", "\\(", "$x$ ", "<think>", "算", "\n", "\ufdfa", "0,000"])
def test_a_line_of_a_megabyte_takes_seconds_at_most(tmp_path: Path, piece: str) -> None:
    names = [name for name in FILTERS if name not in ("not_correct", "low_score", "too_long")]
    settings = {**NOTHING, "near_duplicates": [{}], "filters": []}
    content = [row(1, response=piece * (2**20 // len(piece.encode()))), row(2)]
    for look in filters.build([FilterSpec(name=name) for name in names]).values():
        look(view(from_row(content[0])))
    assert run(tmp_path, content, settings, evaluation={"exam": [problem(QUESTION)]}).rows == 2


def test_a_line_that_is_too_large_is_not_read_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "MAX_ROW_BYTES", 10_000)
    content = [row(1), row(2, response="x " * 200_000), row(3)]
    with pytest.raises(DataError, match=r"row 2: the row takes [0-9,]+ bytes"):
        run(tmp_path, content)
    done = run(tmp_path, content, {"skip_invalid": True})
    assert ids(done.kept_file) == ["s1", "s3"]
    assert len(read(done.dropped_file)[0]["raw"]) == 2000


@pytest.mark.parametrize("made", ["kept.jsonl", "rows.jsonl"])
def test_a_full_disk_is_one_clear_error_and_the_work_goes_on_when_there_is_room(tmp_path: Path, made: str) -> None:
    content = [row(n) for n in range(40)]

    def work() -> int:
        if made == "kept.jsonl":
            return run(tmp_path, content).kept
        with Journal(tmp_path / made) as journal:
            while journal.batches < 20:
                journal.append(content[2 * journal.batches : 2 * journal.batches + 2], {})
            return journal.rows

    file = write(tmp_path / "rows.jsonl", content) if made == "kept.jsonl" else tmp_path / made
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, most))  # the files of facts fit, the rows do not
    try:
        with pytest.raises(StoreError, match=r"cannot write .*File too large.*make room"):
            curate([file], tmp_path / "out", CurateSettings.parse(NOTHING)) if made == "kept.jsonl" else work()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    assert work() == 40


def test_an_output_that_does_not_fit_what_was_left_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.part").write_text("{}\n{}\n")
    output = jsonl.ReplayWriter(tmp_path / "a.jsonl")
    output.put(lambda: b"{}\n")
    with pytest.raises(StoreError, match="has 2 rows, expected 1"):
        output.finish()
    output.close()


# --- size

PEAK = """
import json, random, resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_curate as t
folder, count = Path(sys.argv[2]), int(sys.argv[3])
folder.mkdir()
with open(folder / "rows.jsonl", "w") as file:
    for n in range(count):
        file.write(json.dumps(t.row(n, problem_id=f"p{n // 5}", pass_rate=n % 5 / 4)) + "\\n")
settings = t.CurateSettings.parse({"balance": {"shares": [1, 1, 1, 1]}})
exam = [t.problem(" ".join(t.VOCABULARY[n:n + 20])) for n in range(1000)]
t.curate([folder / "rows.jsonl"], folder / "out", settings, evaluation={"exam": exam})
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def peak(folder: Path, count: int) -> int:
    """Bytes of resident memory that curating `count` rows takes at most, in a process of its own."""
    arguments = [sys.executable, "-c", PEAK, str(Path(__file__).parent), str(folder), str(count)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(arguments, capture_output=True, text=True, check=True, env=environment)
    return int(done.stdout)


@pytest.mark.slow
def test_memory_grows_by_facts_and_not_by_rows(tmp_path: Path) -> None:
    more = 12_000
    growth = (peak(tmp_path / "large", 2000 + more) - peak(tmp_path / "small", 2000)) / more
    assert growth < 1000, f"{growth:.0f} bytes a row: 800,000 rows would take {800_000 * growth / 1e6:.0f} MB"
