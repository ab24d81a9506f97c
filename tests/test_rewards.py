"""Rewards: the formulas, the calling convention, and how they are combined."""

from __future__ import annotations

import math
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1kit import rewards
from r1kit.rewards import REWARDS, RewardSpec, build
from r1kit.settings import SettingsError

GOOD = "<think>2 and 2</think> <answer>4</answer>"
BAD = "<think>2 and 2</think> <answer>5</answer>"
OPTIONS: dict[str, dict[str, Any]] = {"soft_overlong": {"max_length": 100, "cache": 20}}


def scorer(name: str, **options: Any) -> rewards.Scorer:
    return build([RewardSpec(name=name, options=options)])


def chat(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def test_accuracy_is_one_zero_or_half() -> None:
    assert rewards.accuracy_reward([GOOD, BAD, GOOD], ["4", "4", "\\frac{"]) == [1.0, 0.0, 0.5]


def test_cannot_tell_may_be_none() -> None:
    assert rewards.get_accuracy_reward(unknown=None)([GOOD], answer=["\\frac{"]) == [None]


def test_each_row_is_judged_by_its_own_verifier() -> None:
    columns = {"answer": ["4", "B", "yes"], "verifier": ["number", "choice", "exact"]}
    replies = [GOOD, "<answer>(B) Paris</answer>", "<answer>Yes.</answer>"]
    assert rewards.accuracy_reward(replies, **columns) == [1.0, 1.0, 1.0]


def test_an_unknown_verifier_is_an_error_with_the_nearest_name() -> None:
    with pytest.raises(ValueError, match="did you mean 'number'"):
        rewards.accuracy_reward([GOOD], answer=["4"], verifier=["numbr"])


def test_a_missing_reference_column_is_an_error_that_names_it() -> None:
    with pytest.raises(ValueError, match="accuracy_reward needs the column 'answer'"):
        rewards.accuracy_reward([GOOD])


def test_the_share_of_unknown_verdicts_is_logged() -> None:
    logged: dict[str, float] = {}
    rewards.accuracy_reward([GOOD, GOOD], ["4", "\\frac{"], log_metric=logged.__setitem__)
    assert logged == {"verifier/unknown": 0.5}


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
    assert rewards.format_reward([text, chat(text)]) == [value, value]


def test_each_tag_that_occurs_exactly_once_is_a_quarter() -> None:
    texts = [GOOD, "<think>a</think>", "<think><think></think>", "4", "<answer>4"]
    assert rewards.tag_count_reward(texts) == [1.0, 0.5, 0.25, 0.0, 0.25]


def test_three_marks_of_steps_are_enough() -> None:
    texts = ["Step 1: a\nStep 2: b\nStep 3: c\nStep 4: d", "First, a. Next, b.", "1. a\n- b\n* c", "none"]
    assert rewards.reasoning_steps_reward(texts) == [1.0, pytest.approx(2 / 3), 1.0, 0.0]


def test_the_cosine_reward_follows_its_formula() -> None:
    cosine = rewards.get_cosine_scaled_reward(max_len=100)
    right, wrong = "\\boxed{4}", "\\boxed{5}"
    padded = [answer + "." * (size - len(answer)) for answer in (right, wrong) for size in (50, 100, 1000)]
    values = cosine(padded, answer=["4"] * 6)
    assert values == pytest.approx([0.9, 0.8, 0.8, -0.3, -0.1, -0.1])
    expected = 0.8 + 0.5 * 0.2 * (1 + math.cos(math.pi * len(right) / 100))
    assert cosine([right], answer=["4"]) == pytest.approx([expected])
    assert cosine([wrong], answer=["4"])[0] < -0.49
    assert cosine([right], answer=["\\frac{"]) == [None]


def test_the_cosine_reward_can_count_tokens() -> None:
    cosine = rewards.get_cosine_scaled_reward(max_len=10, unit="tokens")
    ids = [[1] * 5, [1] * 10]
    assert cosine(["\\boxed{4}"] * 2, answer=["4", "4"], completion_ids=ids) == pytest.approx([0.9, 0.8])


def test_the_repetition_penalty_is_the_share_of_ngrams_that_come_again() -> None:
    penalty = rewards.get_repetition_penalty_reward(ngram_size=2, max_penalty=-1.0)
    assert penalty(["a b c d", "a A a a a", "a", "", "好好好好好", "一二三四"]) == [0.0, -0.75, 0.0, 0.0, -0.75, 0.0]


def test_the_overlong_punishment_grows_over_the_cache() -> None:
    punishment = rewards.get_soft_overlong_punishment(max_length=100, cache=20)
    ids = [[1] * size for size in (80, 90, 100, 101)]
    assert punishment(["x"] * 4, completion_ids=ids) == [0.0, -0.5, -1.0, -1.0]
    assert rewards.get_soft_overlong_punishment(max_length=10, cache=0)(["x"], completion_ids=[[1] * 10]) == [0.0]


def test_language_consistency_is_the_share_of_words_in_the_problems_language() -> None:
    texts = [f"<think>{one}</think> <answer>4</answer>" for one in ("we add two", "我们加", "we 加 two 二", "2+2=4")]
    assert rewards.language_consistency_reward(texts, language=["en"] * 4) == [1.0, 0.0, 0.5, None]
    assert rewards.language_consistency_reward(texts[:2], language=["zh"] * 2) == [0.0, 1.0]
    assert rewards.language_consistency_reward(["4"], language=["en"]) == [0.0]


@pytest.mark.parametrize("name", REWARDS)
@given(data=st.data())
def test_no_completion_makes_a_reward_raise_or_leave_its_range(name: str, data: st.DataObject) -> None:
    pieces = st.sampled_from(["<think>", "</think>", "<answer>", "</answer>", "1. ", "好", "\n- "]) | st.text(
        max_size=8
    )
    texts = data.draw(st.lists(st.lists(pieces, max_size=8).map("".join), max_size=3))
    rows = len(texts)
    columns = {"answer": ["17"] * rows, "language": ["en"] * rows, "completion_ids": [[1] * len(one) for one in texts]}
    plain = scorer(name, **OPTIONS.get(name, {}))(texts, **columns)
    assert plain == scorer(name, **OPTIONS.get(name, {}))([chat(one) for one in texts], **columns)
    assert all(reward.total is None or -1.0 <= reward.total <= 1.0 for reward in plain)


@pytest.mark.parametrize("name", REWARDS)
def test_every_reward_has_a_name_and_pickles(name: str) -> None:
    function = scorer(name, **OPTIONS.get(name, {})).parts[0].function
    assert pickle.loads(pickle.dumps(function)).__name__ == function.__name__


def test_the_total_is_the_weighted_sum_and_parts_stay_unweighted() -> None:
    both = build([RewardSpec(name="accuracy"), RewardSpec(name="format", weight=0.2)])
    first, second = both([GOOD, "5"], answer=["4", "4"], max_tokens=10)
    assert (first.total, first.parts) == (1.2, {"accuracy": 1.0, "format": 1.0})
    assert (second.total, second.parts) == (0.0, {"accuracy": 0.0, "format": 0.0})


def some_none(completions: list[str], **columns: Any) -> list[float | None]:
    return [None if one == "skip" else 1.0 for one in completions]


async def awaited(completions: list[str], **columns: Any) -> list[float]:
    return [0.5] * len(completions)


def of_messages(completions: list[list[dict[str, str]]], **columns: Any) -> list[float]:
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


def test_a_column_of_another_length_is_named() -> None:
    with pytest.raises(ValueError, match="column 'answer' has 1 values for 2 completions"):
        scorer("accuracy")([GOOD, BAD], answer=["4"])


def test_an_unknown_reward_is_refused_when_settings_are_read() -> None:
    with pytest.raises(SettingsError, match="no reward 'acuracy': did you mean 'accuracy'"):
        RewardSpec.parse({"name": "acuracy"})


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cosine_scaled", {"maxlen": 10}, "no option 'maxlen': did you mean 'max_len'"),
        ("cosine_scaled", {"max_len": "ten"}, "max_len: Input should be a valid integer"),
        ("cosine_scaled", {"max_len": 0}, "at least 1"),
        ("accuracy", {"verifier": "maths"}, "did you mean 'math'"),
        ("soft_overlong", {"max_length": 10, "cache": 20}, "cache is 20"),
        ("soft_overlong", {}, "max_length"),
        ("format", {"strict": True}, "no option 'strict'"),
        ("repetition_penalty", {"max_penalty": 1.0}, "0 or negative"),
        ("language_consistency", {"default_language": "xx"}, "not known"),
        ("no.such:function", {}, "cannot be imported"),
        ("r1kit.rewards:nothing", {}, "cannot be imported"),
    ],
)
def test_options_that_cannot_be_meant_are_refused_before_work_starts(
    name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        build([RewardSpec(name=name, options=options)])


def test_the_same_reward_twice_is_refused() -> None:
    with pytest.raises(SettingsError, match="named 2 times"):
        build([RewardSpec(name="format"), RewardSpec(name="format")])


def test_no_reward_at_all_is_refused() -> None:
    with pytest.raises(SettingsError, match="no reward"):
        build([])
