"""Evaluation: hand-computed cases and identities that hold for any data."""

import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1kit.chat import ChatFormat
from r1kit.engines import EngineError, Report
from r1kit.evaluate.intervals import (
    clustered_interval,
    critical,
    paired_interval,
    share_interval,
    standard_error,
    two_sided,
    wilson,
)
from r1kit.evaluate.measurement import measure
from r1kit.evaluate.metrics import Scored, score
from r1kit.evaluate.statistics import Summary, consensus, holm, paired, paired_by_source, pass_at_k, summarise
from r1kit.evaluate.table import json_table, signed, text_table
from r1kit.types import Completion, Problem, Prompt, SamplingParams, Verdict


def row(problem: str, sample: int = 0, correct: bool | None = True, **changes: object) -> Scored:
    base = {
        "problem_id": problem,
        "source": "sums",
        "sample": sample,
        "correct": correct,
        "extracted": "7" if correct else "8",
        "well_formed": True,
        "reasoning_tokens": 10,
        "completion_tokens": 20,
        "steps": 2,
        "mixed": False,
        "truncated": False,
    }
    return Scored(**(base | changes))  # type: ignore[arg-type]


def grid(pattern: dict[str, str]) -> list[Scored]:
    """Rows from `{"a": "10?"}`: right, wrong, cannot tell."""
    verdict = {"1": True, "0": False, "?": None}
    return [row(name, i, verdict[mark]) for name, marks in pattern.items() for i, mark in enumerate(marks)]


PATTERNS = st.dictionaries(
    st.sampled_from([f"p{i}" for i in range(9)]), st.text(alphabet="01", min_size=3, max_size=3), min_size=2
)


def test_pass_at_1_is_the_mean_of_the_problems_means() -> None:
    summary = summarise(grid({"a": "1100", "b": "1"}))
    assert summary.overall["pass@1"].mean == pytest.approx((0.5 + 1.0) / 2)
    assert (summary.problems, summary.samples, summary.k) == (2, 5, 1)


def test_pass_at_k_is_the_share_of_draws_with_a_right_answer() -> None:
    for n, c, k in [(4, 1, 2), (5, 2, 3), (6, 6, 2), (3, 0, 3)]:
        draws = list(itertools.combinations([True] * c + [False] * (n - c), k))
        assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, draws)) / len(draws))


@given(n=st.integers(1, 40), data=st.data())
def test_pass_at_1_of_the_estimator_is_the_share_of_right_samples(n: int, data: st.DataObject) -> None:
    c = data.draw(st.integers(0, n))
    assert pass_at_k(n, c, 1) == pytest.approx(c / n)


def test_pass_at_k_needs_k_samples() -> None:
    with pytest.raises(ValueError, match="from 2 samples"):
        pass_at_k(2, 1, 3)


def test_consensus_takes_the_most_frequent_answer_and_the_first_of_equals() -> None:
    right, wrong = {"correct": True, "extracted": "7"}, {"correct": False, "extracted": "8"}
    assert consensus([row("a", 0, **wrong), row("a", 1, **right), row("a", 2, **right)]) is True
    assert consensus([row("a", 0, **wrong), row("a", 1, **right)]) is False
    assert consensus([row("a", 0, **right), row("a", 1, **wrong)]) is True


def test_samples_without_an_answer_do_not_vote_and_unknown_is_not_wrong() -> None:
    none = {"correct": False, "extracted": None}
    assert consensus([row("a", 0, **none), row("a", 1, **none), row("a", 2)]) is True
    assert consensus([row("a", 0, **none)]) is False
    assert consensus([row("a", 0, None, extracted="x")]) is None


def test_consensus_counts_answers_not_spellings() -> None:
    def agreed(*marked: tuple[str, bool | None]) -> bool | None:
        return consensus([row("a", n, correct, extracted=text) for n, (text, correct) in enumerate(marked)])

    right, wrong = [("1000", True), ("1,000", True), ("1000.0", True)], [("7", False), ("7", False)]
    assert agreed(*wrong, *right) is True
    assert agreed(("\\sqrt{2}/2", True), *wrong, ("1/\\sqrt{2}", True), ("2^{-1/2}", True)) is True
    assert agreed(("1000", True), ("1000.0", True), ("7", False), ("7.0", False), ("**7**", False)) is False
    cities = [("New York", False), ("new  york.", False), ("NEW YORK", False)]
    assert agreed(("east", True), ("east", True), *cities) is False
    assert agreed(("1,000", None), ("1000", True), *wrong) is True  # equally many, and it came first
    assert agreed(("1,000", None), ("1000", None), ("7", False)) is None


def test_unknown_verdicts_are_counted_and_left_out_of_pass_at_1() -> None:
    overall = summarise(grid({"a": "1?", "b": "00", "c": "??"})).overall
    assert overall["pass@1"].mean == pytest.approx(0.5)
    assert (overall["pass@1"].problems, overall["pass@1"].samples) == (2, 3)
    assert overall["unknown"].mean == pytest.approx((0.5 + 0 + 1) / 3)
    assert "pass@1" not in summarise(grid({"a": "?", "b": "?"})).overall


def test_with_one_sample_per_problem_the_clustered_error_is_the_plain_one() -> None:
    outcomes = [1.0] * 30 + [0.0] * 70
    plain = math.sqrt(sum((x - 0.3) ** 2 for x in outcomes) / 99 / 100)
    assert standard_error(outcomes) == pytest.approx(plain)


def test_copies_of_a_sample_add_no_certainty() -> None:
    once = summarise(grid({f"p{i}": "1" if i < 30 else "0" for i in range(100)})).overall["pass@1"]
    copied = summarise(grid({f"p{i}": "1111" if i < 30 else "0000" for i in range(100)})).overall["pass@1"]
    assert copied.high - copied.low == pytest.approx(once.high - once.low, rel=0.01)


def test_student_quantiles_are_the_tables() -> None:
    for df, t in [(1, 12.706), (2, 4.303), (5, 2.571), (10, 2.228), (30, 2.042), (100, 1.984), (10_000, 1.960)]:
        assert critical(df) == pytest.approx(t, abs=6e-4)
        assert two_sided(critical(df), df) == pytest.approx(0.05, abs=1e-6)


def test_wilson_matches_the_published_example() -> None:
    low, high = wilson(81 / 263, 263, 1.95996)  # Newcombe 1998, Table I
    assert (low, high) == (pytest.approx(0.2553, abs=1e-4), pytest.approx(0.3662, abs=1e-4))


def test_nothing_right_and_all_right_still_have_an_interval() -> None:
    for mark in "01":
        share = summarise(grid({f"p{i}": mark * 4 for i in range(100)})).overall["pass@1"]
        assert share.high - share.low == pytest.approx(0.038, abs=0.002)
    assert share_interval([1.0], 4) == (0.0, 1.0)
    low, high = share_interval([0.5, 0.5, 0.5], 6)
    assert low < 0.3 and high > 0.7


@given(PATTERNS)
def test_every_interval_holds_its_mean_and_shares_stay_shares(pattern: dict[str, str]) -> None:
    for metric, item in summarise(grid(pattern)).overall.items():
        assert item.low is not None and item.high is not None
        assert item.low - 1e-12 <= item.mean <= item.high + 1e-12, metric
        if metric.startswith(("pass", "cons")):
            assert 0 <= item.low < item.high <= 1


@given(PATTERNS)
def test_an_evaluation_differs_from_itself_by_nothing(pattern: dict[str, str]) -> None:
    for item in paired(grid(pattern), grid(pattern)).values():
        assert (item.mean, item.low, item.high, item.p_value) == (0, 0, 0, 1)


@given(PATTERNS, st.randoms())
def test_order_of_rows_does_not_matter_and_swapping_sides_flips_the_sign(pattern: dict[str, str], random) -> None:
    before, after = grid(pattern), grid({name: marks[::-1].replace("10", "01") for name, marks in pattern.items()})
    shuffled = random.sample(before, len(before))
    assert summarise(shuffled) == summarise(before)
    there, back = paired(shuffled, after)["pass@1"], paired(after, before)["pass@1"]
    assert there.mean == pytest.approx(-back.mean)
    assert there.low == pytest.approx(-back.high)
    assert there.p_value == pytest.approx(back.p_value)


def test_holm_multiplies_the_smallest_p_values_most() -> None:
    # by hand: 4 x 0.005, 3 x 0.01, 2 x 0.03, and 0.04 no smaller than the one before
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9, 0.02]) == pytest.approx([1.0, 1.0, 0.06])
    assert holm([0.03]) == [0.03] and holm([]) == []


def test_the_paired_difference_is_the_t_test_over_problems() -> None:
    before = grid({"a": "00", "b": "10", "c": "00", "d": "11"})
    after = grid({"a": "11", "b": "11", "c": "01", "d": "11"})
    result = paired(before, after)["pass@1"]  # differences 1, 0.5, 0.5, 0: mean 0.5, standard error 0.2041
    assert result.mean == pytest.approx(0.5)
    assert result.low == pytest.approx(0.5 - 3.1824 * 0.20412, abs=1e-3)
    assert result.high == 1.0  # 1.15, cut off at the largest change there is
    assert result.p_value == pytest.approx(0.0917, abs=1e-3)  # t = 2.449 with 3 degrees of freedom


def test_a_change_of_every_problem_alike_is_not_called_certain() -> None:
    low, high, p_value = paired_interval([1.0] * 10)
    assert 0.5 < low < high == 1.0
    assert p_value == pytest.approx(2 / 2**10)


def test_answers_to_one_prompt_count_as_one_where_they_agree_and_each_where_they_do_not() -> None:
    alone = clustered_interval([[float(n % 4 > 0)] for n in range(40)])
    assert clustered_interval([[float(n % 4 > 0)] * 3 for n in range(40)]) == pytest.approx(alone)
    assert alone == pytest.approx(share_interval([float(n % 4 > 0) for n in range(40)], 40))
    low, high = clustered_interval([[1.0, 0.0, 1.0, 1.0]] * 40)
    assert alone[0] < low < 0.75 < high < alone[1]
    assert clustered_interval([[1.0, 0.0]]) == (0.0, 1.0)
    assert clustered_interval([[1.0]] * 40) == pytest.approx(share_interval([1.0] * 40, 40))


def test_one_problem_gives_no_interval_of_a_difference() -> None:
    result = paired(grid({"a": "00"}), grid({"a": "11"}))["pass@1"]
    assert (result.mean, result.low, result.high, result.p_value) == (1.0, None, None, 1.0)


def test_other_problems_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"1 \(b\) only before, 1 \(c\) only after"):
        paired(grid({"a": "1", "b": "1"}), grid({"a": "1", "c": "0"}))


def test_no_rows_and_doubled_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="no judged completions"):
        summarise([])
    with pytest.raises(ValueError, match="sample 0 twice"):
        summarise([row("a"), row("a")])


def test_sources_are_also_summed_up_apart() -> None:
    rows = [row("a", source="x"), row("b", source="x"), row("c", source="y", correct=False)]
    by_source = summarise(rows).by_source
    assert by_source["x"]["pass@1"].mean == 1.0
    assert by_source["y"]["pass@1"].mean == 0.0


def test_a_summary_survives_json() -> None:
    summary = summarise(grid({"a": "10", "b": "11"}))
    assert Summary.from_json(json.loads(json.dumps(summary.to_json(), allow_nan=False))) == summary


def test_rows_survive_json_and_a_row_that_lacks_a_key_is_named() -> None:
    data = {name: getattr(row("a"), name) for name in Scored.__slots__}
    assert Scored.from_row(data | {"question": "?", "completion": "!"}) == row("a")
    with pytest.raises(ValueError, match="lacks steps"):
        Scored.from_row({name: value for name, value in data.items() if name != "steps"})


def test_tables_hold_every_column_in_order_and_the_difference() -> None:
    before, after = grid({"a": "00", "b": "10"}), grid({"a": "11", "b": "11"})
    summaries = {"base": summarise(before), "zero": summarise(after), "one": summarise(after)}
    lines = text_table(summaries, paired(before, after)).splitlines()
    assert lines[0].split() == ["base", "zero", "one", "difference", "p"]
    assert [line.split()[0] for line in lines[1:4]] == ["pass@1", "pass@2", "cons@2"]
    assert "25.0 %" in lines[1] and "+75.0 [" in lines[1]
    table = json.loads(json.dumps(json_table(summaries, paired(before, after))))
    assert list(table["columns"]) == ["base", "zero", "one"]
    assert (table["from"], table["to"], table["differences"]["pass@1"]["mean"]) == ("base", "one", 0.75)


def test_several_sources_get_lines_and_differences_of_their_own() -> None:
    def rows(easy: bool, hard: bool) -> list[Scored]:
        easy_rows = [row(f"e{i}", source="easy", correct=easy or i > 4) for i in range(10)]
        return easy_rows + [row(f"h{i}", source="hard", correct=hard) for i in range(10)]

    before, after = rows(False, False), rows(True, False)
    summaries = {"base": summarise(before), "zero": summarise(after)}
    changes = paired_by_source(before, after)
    assert (changes["easy"]["pass@1"].mean, changes["hard"]["pass@1"].mean) == (0.5, 0.0)
    lines = text_table(summaries, paired(before, after), changes).splitlines()
    assert [line.startswith("pass@1 easy") and "+50.0" in line for line in lines].count(True) == 1
    table = json_table(summaries, paired(before, after), changes)
    assert table["differences_by_source"]["easy"]["pass@1"]["mean"] == 0.5


def test_what_rounds_to_zero_has_no_sign() -> None:
    shown = [signed(x, "reasoning_tokens") for x in (0.04, -0.04, 1.0, -1.0)]
    assert shown == ["0.0", "0.0", "+1.0", "\N{MINUS SIGN}1.0"]
    assert (signed(0.014, "steps"), signed(0.5, "pass@1")) == ("+0.01", "+50.0")


def test_scoring_measures_the_whole_response() -> None:
    text = "<think>First, 3 + 4 is seven.\n- 所以是七</think> <answer>7</answer>"
    completion = Completion(token_ids=(1, 2, 3), logprobs=(0.0,) * 3, text=text[7:], finish_reason="length")
    problem = Problem(id="a", prompt="3 + 4?", answer="7", source="sums")
    verdict = Verdict(outcome="right", extracted="7")
    scored = score(problem, completion, verdict, text, 2, lambda part: len(part.split()))
    assert (scored.well_formed, scored.truncated, scored.mixed, scored.sample) == (True, True, True, 2)
    assert (scored.reasoning_tokens, scored.completion_tokens, scored.steps) == (8, 3, 2)


def test_the_tags_are_no_second_language() -> None:
    text = "<think>三加四等于七个</think> <answer>7</answer>"
    completion = Completion(token_ids=(1,), logprobs=(0.0,), text=text, finish_reason="stop")
    scored = score(Problem(id="a", prompt="", answer="7"), completion, Verdict(outcome="unknown"), text, 0, len)
    assert (scored.mixed, scored.correct, scored.reasoning_tokens) == (False, None, 7)


class Dropping:
    """An engine that gives `count` completions for the hard problem, whatever is asked for."""

    def __init__(self, count: int) -> None:
        self.count = count

    def generate(
        self, prompts: Sequence[Prompt], params: SamplingParams, report: Report | None = None
    ) -> list[list[Completion]]:
        answer = Completion(token_ids=(), logprobs=(), text="<answer> 4 </answer>", finish_reason="stop")
        return [[answer] * (self.count if prompt.problem_id == "hard" else params.n) for prompt in prompts]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_an_engine_that_drops_completions_of_hard_problems_does_not_raise_the_accuracy(
    count: int, tmp_path: Path
) -> None:
    problems = [
        Problem(id="easy", prompt="2 + 2", answer="4", verifier="number"),
        Problem(id="hard", prompt="2 + 3", answer="5", verifier="number"),
    ]
    with pytest.raises(EngineError, match=f"gave {count} completions for prompt hard, expected 2"):
        measure(
            Dropping(count),
            problems,
            ChatFormat(),
            SamplingParams(n=2, max_tokens=8),
            tmp_path / "rows.jsonl",
            lambda done, total: None,
        )
