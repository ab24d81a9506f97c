"""Rewards: the formulas, the calling convention, and how they are combined."""

from __future__ import annotations

import gzip
import json
import math
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1kit.rewards import REWARDS, RewardSpec, build, weighted
from r1kit.rewards.accuracy import accuracy_reward, get_accuracy_reward, get_cosine_scaled_reward
from r1kit.rewards.code import code_reward
from r1kit.rewards.combinations import REASONING, REASONING_WEIGHTED
from r1kit.rewards.inputs import reference_text
from r1kit.rewards.length import get_repetition_penalty_reward, get_soft_overlong_punishment, repetition
from r1kit.rewards.part import RewardError
from r1kit.rewards.r1_format import format_reward, reasoning_steps_reward, tag_count_reward
from r1kit.rewards.reasoning import quality, reasoning_quality_reward
from r1kit.rewards.scorer import Scorer
from r1kit.settings import SettingsError
from r1kit.types import Verdict
from r1kit.verifiers import VERIFIERS

GOOD = "<think>2 and 2</think> <answer>4</answer>"
BAD = "<think>2 and 2</think> <answer>5</answer>"
# Judges and reward models have tests of their own.
RULES = [name for name in REWARDS if not name.endswith("_judged") and name != "reward_model"]
OPTIONS: dict[str, dict[str, Any]] = {"soft_overlong": {"max_length": 100, "cache": 20}}


def scorer(name: str, **options: Any) -> Scorer:
    return build([RewardSpec(name=name, options=options)])


def chat(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def test_accuracy_is_one_zero_or_half() -> None:
    assert accuracy_reward([GOOD, BAD, GOOD], ["4", "4", "\\frac{"]) == [1.0, 0.0, 0.5]


def test_cannot_tell_may_be_none() -> None:
    assert get_accuracy_reward(unknown=None)([GOOD], answer=["\\frac{"]) == [None]


def test_each_row_is_judged_by_its_own_verifier() -> None:
    columns = {"answer": ["4", "B", "yes"], "verifier": ["number", "choice", "exact"]}
    replies = [GOOD, "<answer>(B) Paris</answer>", "<answer>Yes.</answer>"]
    assert accuracy_reward(replies, **columns) == [1.0, 1.0, 1.0]


def test_an_unknown_verifier_is_an_error_with_the_nearest_name() -> None:
    with pytest.raises(ValueError, match="did you mean number"):
        accuracy_reward([GOOD], answer=["4"], verifier=["numbr"])


def test_a_missing_reference_column_is_an_error_that_names_it() -> None:
    with pytest.raises(ValueError, match="accuracy_reward needs the column 'answer'"):
        accuracy_reward([GOOD])


def test_the_shares_of_unknown_and_failed_verdicts_are_logged() -> None:
    logged: dict[str, float] = {}
    accuracy_reward([GOOD, GOOD], ["4", "\\frac{"], log_metric=logged.__setitem__)
    assert logged == {"verifier/unknown": 0.5, "verifier/failed": 0.0}


def breaks_on_nine(response: str, reference: str) -> Verdict:
    """A verifier whose library raises on one answer."""
    if "9" in response:
        raise RuntimeError("bug in the library")
    return Verdict.of(reference in response, extracted=reference)


def test_a_verifier_that_raises_has_failed_on_that_row_alone_and_is_worth_no_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(VERIFIERS, "number", breaks_on_nine)
    both = build([RewardSpec(name="accuracy"), RewardSpec(name="format", weight=0.2)])
    nine = "<think>2 and 2</think> <answer>9</answer>"
    first, second, third = both([GOOD, nine, BAD], answer=["4"] * 3, verifier=["number"] * 3)
    assert (first.total, third.total) == (1.2, 0.2)
    assert second.total is None  # 0.2 for the form alone would stand for a wrong answer
    assert second.parts == {"accuracy": None, "format": 1.0}
    assert second.notes["verdict"] == "failed" and "number raised RuntimeError" in second.notes["detail"]
    cosine = build([RewardSpec(name="cosine_scaled", options={"unknown": 0.0})])
    assert cosine([nine], answer=["4"], verifier=["number"])[0].total is None


def test_a_sample_that_cannot_be_judged_counts_by_its_setting_or_not_at_all() -> None:
    for unknown, total in ((0.5, 0.7), (None, None)):
        accuracy = RewardSpec(name="accuracy", options={"unknown": unknown})
        made = build([accuracy, RewardSpec(name="format", weight=0.2)])
        found = made([GOOD], answer=["\\frac{"])[0]
        assert found.notes["verdict"] == "unknown"
        assert found.total == (None if total is None else pytest.approx(total))


def test_a_row_without_a_reference_is_not_the_accuracy_rewards_business() -> None:
    both = build([RewardSpec(name="accuracy"), RewardSpec(name="format", weight=0.2)])
    logged: dict[str, float] = {}
    general, task = both([GOOD, GOOD], answer=["", "4"], log_metric=logged.__setitem__)
    assert (general.total, general.parts["accuracy"], general.notes["verdict"]) == (0.2, None, "")
    assert (task.total, logged["rewards/accuracy/verifier/unknown"]) == (1.2, 0.0)


@pytest.mark.parametrize("empty", [None, math.nan, "", "  ", {}, []])
def test_a_row_without_an_answer_takes_its_solution_and_one_with_neither_has_no_verdict(empty: Any) -> None:
    found = accuracy_reward([GOOD, BAD, GOOD], answer=[empty, empty, "5"], solution=["4", empty, "4"])
    assert found == [1.0, None, 0.0]
    assert code_reward([GOOD], answer=[empty], solution=[empty]) == [None]


def test_a_reference_may_be_data() -> None:
    puzzle = {"numbers": [3, 5, 7], "target": 6}
    replies = ["<answer>(7 - 5) * 3</answer>", GOOD, GOOD]
    names = ["countdown", "number", ""]
    assert accuracy_reward(replies, answer=[puzzle, 4.0, 4], verifier=names) == [1.0, 1.0, 1.0]
    assert reference_text(["à", 1]) == '["à", 1]' and reference_text(72.0) == "72" and reference_text(True) == "True"


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"verifier": [["math"]]}, "column 'verifier' has .* for completion 1: expected a name"),
        ({"verifier": "m"}, "column 'verifier' is 'm': expected a list"),
        ({"answer": 4}, "column 'answer' is 4: expected a list"),
        ({"default_verifier": ["math"]}, "default_verifier is"),
    ],
)
def test_a_column_of_another_kind_is_named(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        accuracy_reward([GOOD], **({"answer": ["4"]} | columns))


def test_a_completion_may_come_in_parts_of_text() -> None:
    parts = [
        {"role": "assistant", "content": [{"type": "text", "text": GOOD[:20]}, {"type": "text", "text": GOOD[20:]}]}
    ]
    assert accuracy_reward([parts], answer=["4"]) == [1.0]
    for content in (4, [{"type": "image", "image": "x"}]):
        with pytest.raises(ValueError, match="expected text, or parts"):
            accuracy_reward([[{"role": "assistant", "content": content}]], answer=["4"])
    with pytest.raises(ValueError, match="a completion is of type"):
        accuracy_reward([4], answer=["4"])


def test_a_column_that_has_an_arguments_name_is_refused_and_self_is_none() -> None:
    for name in ("completions", "log_metric", "log_extra", "log_verdicts", "log_undecided"):
        with pytest.raises(ValueError, match=f"column '{name}' has the name of a reserved argument"):
            scorer("accuracy")([GOOD], **{"answer": ["4"], name: [1]})
    assert scorer("accuracy")([GOOD], **{"answer": ["4"], "self": [1]})[0].total == 1.0


def logs_words(completions: list[str], log_verdicts: Any, log_metric: Any, **_: Any) -> list[float]:
    if completions == ["metric"]:
        log_metric("tokens", None)
    else:
        log_verdicts(["right"] * len(completions))
    return [1.0] * len(completions)


@pytest.mark.parametrize(
    ("completion", "message"),
    [("metric", "logs the metric 'tokens' as None: expected a number"), ("verdict", "logs the verdict 'right'")],
)
def test_hooks_refuse_what_is_no_verdict_or_number(completion: str, message: str) -> None:
    score = build([RewardSpec(name=f"{__name__}:logs_words")])
    with pytest.raises(RewardError, match=message):
        score([completion], log_metric=lambda name, value: None)


def test_what_a_reward_logs_beside_a_completion_is_kept_with_it() -> None:
    found = scorer("accuracy")([GOOD, BAD], answer=["4", "4"])
    assert [one.notes["verdict"] for one in found] == ["right", "wrong"]
    assert [one.notes["extracted"] for one in found] == ["4", "5"]
    two = build([RewardSpec(name="accuracy"), RewardSpec(name="cosine_scaled")])
    assert two([BAD], answer=["4"])[0].notes.keys() >= {"verdict", "cosine_verdict"}


def leaves(completions: list[str], way: str, **columns: Any) -> Any:
    """Ends the process in the middle of scoring: at once, in a thread, in a coroutine, or as Ctrl-C does."""
    if way == "thread":
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(sys.exit, 0).result()
    if way == "coroutine":
        return leaves_later()
    raise SystemExit(0) if way == "exit" else KeyboardInterrupt


async def leaves_later() -> list[float]:
    sys.exit(0)


@pytest.mark.parametrize("way", ["exit", "thread", "coroutine"])
def test_a_reward_that_exits_is_an_error_and_ends_no_run_with_status_zero(way: str) -> None:
    with pytest.raises(RewardError, match=r"reward 'leaves' called sys.exit\(0\)"):
        scorer(f"{__name__}:leaves", way=way)([GOOD])


def test_ctrl_c_inside_a_reward_still_stops_the_run() -> None:
    with pytest.raises(KeyboardInterrupt):
        scorer(f"{__name__}:leaves", way="interrupt")([GOOD])


def test_metrics_of_a_reward_are_named_after_it() -> None:
    logged: dict[str, float] = {}
    two = build([RewardSpec(name="accuracy"), RewardSpec(name="accuracy", label="again")])
    two([GOOD], answer=["4"], log_metric=logged.__setitem__)
    names = ("verifier/unknown", "verifier/failed")
    assert logged.keys() == {f"rewards/{label}/{name}" for label in ("accuracy", "again") for name in names}
    with pytest.raises(SettingsError, match="would be logged as reward/mean, which is taken"):
        build([RewardSpec(name="accuracy", label="mean")])


def logs_too_few(completions: list[str], log_extra: Any, **columns: Any) -> list[float]:
    log_extra("seen", [1])
    return [1.0] * len(completions)


def logs_anything(completions: list[str], log_extra: Any, **columns: Any) -> list[float]:
    log_extra("seen", [{1, 2} if one == "a" else math.nan for one in completions])
    return [1.0] * len(completions)


def test_notes_are_what_a_file_can_hold() -> None:
    found = scorer(f"{__name__}:logs_anything")(["a", "b"])
    assert [one.notes["seen"] for one in found] == ["{1, 2}", None]


def test_notes_of_another_number_than_the_completions_are_refused() -> None:
    with pytest.raises(ValueError, match=r"logs_too_few.*logs 1 values of 'seen' for 2"):
        scorer(f"{__name__}:logs_too_few")(["a", "b"])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (GOOD, 1.0),
        ("<think>a\nb</think>\n<answer>c\nd</answer>\n", 1.0),
        ("<think>a</think><answer>b</answer>", 1.0),
        (GOOD + " junk", 0.0),
        (GOOD + "\njunk", 0.0),
        ("junk " + GOOD, 0.0),
        ("<think></think><answer>4</answer>", 0.0),
        ("<think> \n </think><answer>4</answer>", 0.0),
        ("<think>a</think><answer> </answer>", 0.0),
        ("<think>\u200b\u200d</think><answer>4</answer>", 0.0),
        ("<think>a</think><answer>\u200b\ufeff \u2060</answer>", 0.0),
        ("<think>a</think><answer>\u3164\u2800\ufe0f\u034f</answer>", 0.0),
        ("<think>\u200ba</think><answer>\U0001f44d</answer>", 1.0),
        ("<think>a</think> so <answer>4</answer>", 0.0),
        ("<think>a</think></think><answer>4</answer>", 0.0),
        ("<think>a</think><answer>4</answer><answer>5</answer>", 0.0),
        ("<think>a<think>b</think><answer>4</answer>", 0.0),
        ("<answer>4</answer><think>a</think>", 0.0),
        ("<think>a<answer>4</answer>", 0.0),
        ("", 0.0),
    ],
)
def test_the_format_is_both_parts_once_in_order_and_nothing_else(text: str, value: float) -> None:
    assert format_reward([text, chat(text)]) == [value, value]


def test_each_tag_that_occurs_exactly_once_is_a_quarter() -> None:
    texts = [GOOD, "<think>a</think>", "<think><think></think>", "4", "<answer>4"]
    assert tag_count_reward(texts) == [1.0, 0.5, 0.25, 0.0, 0.25]


def test_three_marks_of_steps_are_enough() -> None:
    texts = ["Step 1: a\nStep 2: b\nStep 3: c\nStep 4: d", "First, a. Next, b.", "1. a\n- b\n* c", "none"]
    assert reasoning_steps_reward(texts) == [1.0, pytest.approx(2 / 3), 1.0, 0.0]


def test_the_cosine_reward_follows_its_formula() -> None:
    cosine = get_cosine_scaled_reward(max_len=100)
    right, wrong = "\\boxed{4}", "\\boxed{5}"
    padded = [answer + "." * (size - len(answer)) for answer in (right, wrong) for size in (50, 100, 1000)]
    values = cosine(padded, answer=["4"] * 6)
    assert values == pytest.approx([0.9, 0.8, 0.8, -0.3, -0.1, -0.1])
    expected = 0.8 + 0.5 * 0.2 * (1 + math.cos(math.pi * len(right) / 100))
    assert cosine([right], answer=["4"]) == pytest.approx([expected])
    assert cosine([wrong], answer=["4"])[0] < -0.49
    assert cosine([right], answer=["\\frac{"]) == [None]


def test_the_cosine_reward_can_count_tokens() -> None:
    cosine = get_cosine_scaled_reward(max_len=10, unit="tokens")
    ids = [[1] * 5, [1] * 10]
    assert cosine(["\\boxed{4}"] * 2, answer=["4", "4"], completion_ids=ids) == pytest.approx([0.9, 0.8])


def test_the_repetition_penalty_is_the_share_of_ngrams_that_come_again() -> None:
    penalty = get_repetition_penalty_reward(ngram_size=2, max_penalty=-1.0)
    assert penalty(["a b c d", "a A a a a", "a", ""]) == [0.0, -0.75, 0.0, 0.0]


def test_two_characters_make_a_word_of_chinese_three_one_of_kana_four_one_of_thai() -> None:
    penalty = get_repetition_penalty_reward(ngram_size=2, max_penalty=-1.0)
    # n-grams of two words are 4 of 5, 6 of 7 and 8 of 9 characters: two each, which are the same
    assert penalty(["好好好好好", "あああああああ", "ก" * 9]) == [-0.5, -0.5, -0.5]
    assert penalty(["一二三四五", "一二三", "あいうえ", "we 好好 add 好好"]) == [0.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize("language", ["de", "en", "es", "ja", "ru", "th", "zh"])
def test_natural_text_is_hardly_repetitive_in_any_language(language: str, shared_data: Path) -> None:
    with gzip.open(shared_data / "mgsm" / f"{language}.jsonl.gz", "rt", encoding="utf-8") as file:
        questions = [json.loads(line)["question"] for line in file]
    texts = [" ".join(questions[start : start + 4]) for start in range(0, 100, 4)]
    assert sum(map(repetition, texts)) / len(texts) < 0.04
    assert all(repetition(text * 5) > 0.75 for text in texts)


def test_the_overlong_punishment_grows_over_the_cache() -> None:
    punishment = get_soft_overlong_punishment(max_length=100, cache=20)
    ids = [[1] * size for size in (80, 90, 100, 101)]
    assert punishment(["x"] * 4, completion_ids=ids) == [0.0, -0.5, -1.0, -1.0]
    assert get_soft_overlong_punishment(max_length=10, cache=0)(["x"], completion_ids=[[1] * 10]) == [0.0]


TOM = "Tom has 3 apples, buys 5 more and gives 2 away. How many apples does he have?"
STEPS = "Tom starts with 3 apples. He buys 5 more apples, so he has 3 + 5 = 8 apples. Then he gives 2 away: 8 - 2 = 6."
CHECK = " Let me check: 6 + 2 = 8 and 8 - 5 = 3, which is right."


def test_reasoning_that_works_it_out_says_what_is_given_and_checks_it_scores_one() -> None:
    assert quality(STEPS + CHECK, "6", TOM).score == pytest.approx(1.0)
    chinese = "已知汤姆有3个苹果。他又买了5个苹果，所以现在有3+5=8个。他送出2个，剩下8-2=6个苹果。验算：6+2=8。"
    assert quality(chinese, "6").score == pytest.approx(1.0)
    text = [f"<think>{STEPS}{CHECK}</think> <answer>6</answer>"]
    logged: dict[str, float] = {}
    assert reasoning_quality_reward(text, prompts=[TOM], log_metric=logged.__setitem__) == [pytest.approx(1.0)]
    assert logged == {f"reasoning/{part}": 1.0 for part in ("flow", "completeness", "assumptions", "correction")}
    messages = [[{"role": "system", "content": "Think."}, {"role": "user", "content": TOM}]]
    assert reasoning_quality_reward(text, prompts=messages) == [pytest.approx(1.0)]


def test_each_part_of_the_quality_is_lost_with_what_it_stands_for() -> None:
    best = quality(STEPS + CHECK, "6", TOM)
    assert quality(STEPS, "6", TOM).correction == 0.0 == best.correction - 1
    assert (
        quality("3 + 5 = 8. 8 - 2 = 6.", "6", TOM).assumptions == 0.5
    )  # the numbers are used, nothing is said of them
    assert quality(STEPS.replace("8 - 2 = 6", "8 - 2 = 5"), "5", TOM).completeness == pytest.approx(0.5)
    assert quality(STEPS, "9", TOM).completeness == pytest.approx(0.3)  # it ends somewhere else
    scattered = "Tom likes green apples. Rivers flow towards oceans. Mountains stand above valleys. 8 - 2 = 6."
    assert quality(scattered, "6", TOM).flow < 0.4


@pytest.mark.parametrize(
    "empty",
    [
        "First, given that, therefore. Then, because, so. Next, assume. However, wait. Let me check. Thus, hence.",
        "First, therefore 6. Then, because, so 6. Wait. Let me check 6. Thus, finally, hence 6.",
        "Check verify wait assume given therefore because 3 5 2 8 6. Assume check 3 wait 6. Given 5 wait 8.",
        "Step 1: think. Step 2: think again. Step 3: verify carefully. Step 4: conclude 6.",
        "1. 2. 3. 4. 5. 6. 7. 8.",
        "The answer is 6.",
        TOM,
        "首先，已知，因此。然后，因为，所以。等等，检查，验证。最后，答案是6。",
        "",
    ],
)
def test_words_that_only_sound_like_reasoning_earn_nothing(empty: str) -> None:
    for text in (empty, f"{empty} " * 10):
        assert quality(text, "6", TOM).score == 0.0


def test_saying_it_again_and_padding_it_with_connectives_pays_less_than_saying_it_once() -> None:
    once = quality(STEPS, "6", TOM).score
    assert quality(STEPS + STEPS + STEPS, "6", TOM).score < once
    padded = ". So, therefore. ".join(STEPS.split(". "))
    assert quality(padded, "6", TOM).score < once
    assert quality(STEPS + " Wait. Let me verify. Check, check." * 5, "6", TOM).score < once
    assert quality("1 + 1 = 2. 2 + 2 = 4. 4 + 4 = 8.", "6", TOM).score < 0.5  # sums that lead elsewhere


@pytest.mark.parametrize("name", RULES)
@given(data=st.data())
def test_no_completion_makes_a_reward_raise_or_leave_its_range(name: str, data: st.DataObject) -> None:
    pieces = st.sampled_from(["<think>", "</think>", "<answer>", "</answer>", "1. ", "好", "\n- "]) | st.text(
        max_size=8
    )
    texts = data.draw(st.lists(st.lists(pieces, max_size=8).map("".join), max_size=3))
    rows = len(texts)
    columns = {
        "answer": ["17"] * rows,
        "language": ["en"] * rows,
        "completion_ids": [[1] * len(one) for one in texts],
        "prompts": ["What is 8 + 9?"] * rows,
    }
    plain = scorer(name, **OPTIONS.get(name, {}))(texts, **columns)
    assert plain == scorer(name, **OPTIONS.get(name, {}))([chat(one) for one in texts], **columns)
    assert all(reward.total is None or -1.0 <= reward.total <= 1.0 for reward in plain)


@pytest.mark.parametrize("name", RULES)
def test_every_reward_has_a_name_and_pickles(name: str) -> None:
    function = scorer(name, **OPTIONS.get(name, {})).parts[0].function
    assert pickle.loads(pickle.dumps(function)).__name__ == function.__name__


def test_the_total_is_the_weighted_sum_and_parts_stay_unweighted() -> None:
    both = build([RewardSpec(name="accuracy"), RewardSpec(name="format", weight=0.2)])
    first, second = both([GOOD, "5"], answer=["4", "4"], max_tokens=10)
    assert (first.total, first.parts) == (1.2, {"accuracy": 1.0, "format": 1.0})
    assert (second.total, second.parts) == (0.0, {"accuracy": 0.0, "format": 0.0})


def test_rewards_are_put_together_with_weights() -> None:
    specs = weighted(("accuracy", RewardSpec(name="format"), "graded_language"), (0.4, 0.3, 0.3))
    assert [spec.weight for spec in specs] == [0.4, 0.3, 0.3]
    english = "<think>we add two and two</think> <answer>4</answer>"
    assert build(specs)([english], answer=["4"], language=["en"])[0].total == pytest.approx(1.0)
    assert build(REASONING)([english], answer=["4"], language=["en"])[0].total == pytest.approx(3.0)
    assert sum(spec.weight for spec in REASONING_WEIGHTED) == pytest.approx(1.0)
    with pytest.raises(SettingsError, match="2 rewards but 3 weights"):
        weighted(("accuracy", "format"), (0.4, 0.3, 0.3))


def some_none(completions: list[str], **columns: Any) -> list[float | None]:
    return [None if one == "skip" else 1.0 for one in completions]


async def awaited(completions: list[str], **columns: Any) -> list[float]:
    return [0.5] * len(completions)


def of_messages(completions: list[list[dict[str, str]]], **columns: Any) -> list[float]:
    return [float(len(one[0]["content"])) for one in completions]


def of_some_form(completions: Any, **columns: Any) -> list[float]:
    return [float(len(one[0]["content"])) for one in completions]


def too_few(completions: list[str], **columns: Any) -> list[float]:
    return [1.0]


def not_a_number(completions: list[str], **columns: Any) -> list[float]:
    return [math.nan] * len(completions)


def text_value(completions: list[str], **columns: Any) -> list[str]:
    return ["1"] * len(completions)


def get_constant(*, value: float = 1.0) -> Any:
    return lambda completions, **columns: [value] * len(completions)


def test_none_is_skipped_and_a_total_of_nothing_is_none() -> None:
    alone = scorer(f"{__name__}:some_none")
    assert [reward.total for reward in alone(["skip", "go"])] == [None, 1.0]
    both = build([RewardSpec(name=f"{__name__}.some_none"), RewardSpec(name="tag_count")])
    assert both(["skip"])[0].total == 0.0


def test_coroutines_are_awaited() -> None:
    assert scorer(f"{__name__}:awaited")(["a", "b"])[1].parts == {"awaited": 0.5}


def test_functions_and_makers_are_found_by_dotted_path() -> None:
    assert scorer(f"{__name__}:get_constant", value="0.25")(["a"])[0].total == 0.25
    messages = build([RewardSpec(name=f"{__name__}:of_messages", chat=True)])
    assert messages(["abc"])[0].total == 3.0


def test_rewards_of_trl_plug_in() -> None:
    pytest.importorskip("trl")
    both = build([RewardSpec(name="trl.rewards.think_format_reward"), RewardSpec(name="accuracy")])
    assert both([GOOD], answer=["4"])[0].parts == {"think_format_reward": 1.0, "accuracy": 1.0}


@pytest.mark.parametrize(
    ("function", "message"),
    [("too_few", "too_few.*1 values for 2"), ("not_a_number", "not_a_number.*nan"), ("text_value", "text_value.*'1'")],
)
def test_a_reward_that_returns_rubbish_is_named(function: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        scorer(f"{__name__}:{function}")(["a", "b"])


def no_keywords(completions: list[str], answer: list[str]) -> list[float]:
    return [0.0] * len(completions)


def get_no_keywords() -> Any:
    return no_keywords


def of_texts(texts: list[str], **columns: Any) -> list[float]:
    return [0.0] * len(texts)


def of_keywords(**columns: Any) -> list[float]:
    return [0.0] * len(columns["completions"])


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("no_keywords", r"no_keywords takes no `\*\*columns`: end its parameters with"),
        ("get_no_keywords", r"get_no_keywords takes no `\*\*columns`"),
        ("of_texts", "of_texts: texts is missing.*a reward needs a parameter `completions`; a function without it is"),
        ("of_keywords", "of_keywords: KeyError: 'completions' .*a reward needs a parameter `completions`"),
    ],
)
def test_a_function_with_other_parameters_than_a_reward_is_refused(function: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        scorer(f"{__name__}:{function}")


def sides(completions: list[str], sides: list[int], scale: float = 1.0, **columns: Any) -> list[float]:
    return [scale * side for side in sides]


def logs(completions: list[str], log_metric: Any, **columns: Any) -> list[float]:
    return [0.0] * len(completions)


@pytest.mark.parametrize("options", [{}, {"scale": 2.0}])
def test_a_column_that_a_reward_needs_and_the_task_lacks_is_named(options: dict[str, Any]) -> None:
    score = scorer(f"{__name__}:sides", **options)
    assert score(["a"], sides=[3])[0].total == 3 * options.get("scale", 1.0)
    with pytest.raises(RewardError, match=r"reward 'sides' needs the column 'sides': .* \(columns: answer, source\)"):
        score(["a"], source=["x"], answer=["4"])
    with pytest.raises(RewardError, match="reward 'logs' gets no log_metric here: give the parameter the default None"):
        scorer(f"{__name__}:logs")(["a"])


def test_a_reward_that_expects_messages_and_gets_text_is_told_of_chat() -> None:
    with pytest.raises(RewardError, match=r"reward 'of_some_form' gets completions as text .*set its option `chat`"):
        build([RewardSpec(name=f"{__name__}:of_some_form")])(["abc"])
    assert build([RewardSpec(name=f"{__name__}:of_messages")])(["abc"])[0].total == 3.0  # its annotation says so


def test_a_column_of_another_length_is_named() -> None:
    with pytest.raises(ValueError, match="column 'answer' has 1 values for 2 completions"):
        scorer("accuracy")([GOOD, BAD], answer=["4"])


def test_an_unknown_reward_is_refused_when_settings_are_read() -> None:
    with pytest.raises(SettingsError, match=r"no reward 'acuracy': did you mean accuracy"):
        RewardSpec.parse({"name": "acuracy"})


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cosine_scaled", {"maxlen": 10}, "no option 'maxlen': did you mean max_len"),
        ("cosine_scaled", {"max_len": "ten"}, "max_len is 'ten': it must be a whole number"),
        ("cosine_scaled", {"max_len": 0}, "at least 1"),
        ("accuracy", {"verifier": "maths"}, "did you mean math"),
        ("soft_overlong", {"max_length": 10, "cache": 20}, "cache is 20"),
        ("soft_overlong", {}, "max_length"),
        ("format", {"strict": True}, "no option 'strict'"),
        ("repetition_penalty", {"max_penalty": 1.0}, "0 or negative"),
        ("language_consistency", {"default_language": "xx"}, "is unknown"),
        ("graded_language", {"default_language": "xx"}, "is unknown"),
        ("graded_language", {"detect": "words"}, "'language' or 'script'"),
        ("no.such:function", {}, "cannot be imported"),
        ("os:system", {}, "is built into Python"),
        ("collections:Counter", {}, "collections:Counter returned Counter: expected a reward function"),
        ("r1kit.rewards:nothing", {}, "cannot be imported"),
    ],
)
def test_options_that_cannot_be_meant_are_refused_before_work_starts(
    name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        build([RewardSpec(name=name, options=options)])


def test_the_same_reward_twice_is_refused() -> None:
    with pytest.raises(SettingsError, match="2 rewards are called 'format'"):
        build([RewardSpec(name="format"), RewardSpec(name="format")])


def test_no_reward_at_all_is_refused() -> None:
    with pytest.raises(SettingsError, match="no reward"):
        build([])


def test_a_column_of_an_options_name_changes_no_reward() -> None:
    row = {"answer": ["5"], "wrong": [3], "correct": [9], "max_len": [1], "unknown": [7], "ngram_size": [9]}
    for name in ("cosine_scaled", "accuracy", "repetition_penalty"):
        plain = scorer(name)([BAD], answer=["5"])
        assert scorer(name)([BAD], **(row | {"answer": ["5"]})) == plain, name
