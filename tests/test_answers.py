"""Where the answer is found in a response, and where it never is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1kit import chat
from r1kit.verifiers import extract, find, language, verify_all

PIECES = (
    "<think>",
    "</think>",
    "<answer>",
    "</answer>",
    "\\boxed{",
    "\\boxed",
    "\\fbox{",
    "{",
    "}",
    "\\",
    "\\{",
    "$",
    "4",
)


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("<think>2+2</think> <answer>4</answer>", "4"),
        ("<think>\\boxed{5}</think> <answer>4</answer>", "4"),
        ("<think>x</think> <answer>so it is \\boxed{4}.</answer>", "4"),
        ("<think>x</think> <answer> \n 4 \n </answer> trailing junk", "4"),
        ("<think>x</think> \\boxed{3} and <answer>4</answer>", "4"),
        ("<think>x</think> <answer>4", "4"),
        ("<think>x</think> <answer></answer> \\boxed{4}", None),
        ("<think>x</think> It is \\boxed{4}.", "4"),
        ("\\boxed{3} no, \\boxed{4}", "4"),
        ("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("\\boxed{\\{1, 2\\}}", "\\{1, 2\\}"),
        ("\\boxed{[0, \\infty)}", "[0, \\infty)"),
        ("\\boxed{\\boxed{4}}", "4"),
        ("\\boxed 4", "4"),
        ("\\fbox{4}", "4"),
        ("\\boxed{3} then \\boxed{4", None),
        ("\\boxed{}", None),
        ("\\boxedness{4}", None),
        ("\\boxed{\\left\\{1, 2\\right.}", "\\left\\{1, 2\\right."),
        ("\\boxed{1 and \\boxed{2}", "2"),
        ("\\boxed 4 or \\boxed 5", "5"),
        ("the answer is 4", None),
        ("<think>so \\boxed{4}", None),
        ("<think>2+2</think> and <think> \\boxed{4}", None),
        ("2 + 2 = 4.\n#### 4", "4"),
        ("<think>3</think> 2 + 2 = 4.\n#### 4\n", "4"),
        ("<think>2 + 2 = 4.\n#### 4", None),
        ("<think>2 + 2 = 4.\n#### 4</think>", None),
        ("<think>\\boxed{4}</think>", None),
        ("<think>\\boxed{4}</think> \n", None),
        ("\\boxed{3}\n#### 4", "3"),
        ("<answer>3</answer>\n#### 4", "3"),
        ("#### 4\nand more", None),
        ("", None),
    ],
)
def test_the_answer_is_taken_from_the_answer_section_else_the_last_box(response: str, answer: str | None) -> None:
    assert extract.extract(response) == answer


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("<think>9</think> The total is $1,234.50, paid once", "$1,234.50"),
        ("It is -3", "-3"),
        ("<think>9</think> I do not know", None),
        ("<think>9</think> <answer>none</answer> 4", "none"),
        ("\\boxed{3} 4", "3"),
        ("It is 72!", "72"),
        ("It is 72! That is all.", "72"),
        ("72! = 1", "1"),
        ("so 72!/2", None),
        ("2^72", None),
        ("2^{72}", None),
        ("√72", None),
        ("\\sqrt{72}", None),
        ("8 * 72", None),
        ("x - 72", None),
        ("72 - x", None),
        ("72 - that is all", "72"),
        ("- 72", "72"),
        ("**72**", "72"),
        ("72 million", "72 million"),
        ("\\frac{7}{72}", "\\frac{7}{72}"),
    ],
)
def test_the_last_number_counts_only_where_allowed_and_nothing_better_is_there(
    response: str, answer: str | None
) -> None:
    assert extract.extract(response, last_number=True) == answer


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("\\boxed{5} is wrong", None),
        ("$\\boxed{5}$ is not the answer.", None),
        ("The answer isn't $\\boxed{5}$", None),
        ("<answer>\\boxed{5} cannot be right</answer>", None),
        ("\\boxed{5} was not the answer", None),
        ("$\\boxed{5}$, which is wrong", None),
        ("\\boxed{5}\n\nWait, that's wrong. It is 6.", None),
        ("\\boxed{5}, not 6", "5"),
        ("<answer>\\boxed{5} not including tax</answer>", "5"),
        ("\\boxed{5}, not counting the last one", "5"),
        ("\\boxed{5} wrong? No.", "5"),
        ("\\boxed{5} is right. Wrong answers are common.", "5"),
        ("We do not need more: \\boxed{5}", "5"),
    ],
)
def test_a_box_that_is_denied_is_no_answer(response: str, answer: str | None) -> None:
    assert extract.extract(response) == answer


def test_a_box_in_the_reasoning_counts_only_if_the_task_says_so_and_nothing_follows() -> None:
    boxed = "<think>so it is \\boxed{4}</think>\n"
    for response, right in (
        (boxed, True),
        ("so it is \\boxed{4}</think>", True),
        (f"{boxed}I do not know.", False),
        (f"{boxed}<answer>5</answer>", False),
        ("<think>\\boxed{4}", False),
        ("<think>the answer is 4</think>", False),
        ("<think>\\boxed{5}</think> \\boxed{4}", True),
    ):
        for verifier in ("math+thinking", "number+thinking"):
            assert verify_all(verifier, [response], ["4"])[0].correct is right, response
            assert find(verifier)(response, "4").correct is right
    assert verify_all("math", [boxed], ["4"])[0].correct is False
    with pytest.raises(ValueError, match="there is no verifier 'mth\\+thinking'"):
        find("mth+thinking")


def test_a_reference_may_be_a_solution_with_a_box_or_a_gsm8k_solution() -> None:
    assert extract.reference("We add.\nSo \\boxed{\\frac12}.") == "\\frac12"
    assert extract.reference("2+2 = <<2+2=4>>4\n#### 4") == "4"
    assert extract.reference("  4 ") == "4"


def test_a_prediction_without_marks_is_the_answer_itself_but_for_a_gsm8k_solution() -> None:
    assert extract.as_response("72") == "<answer>72</answer>"
    for marked in ("so \\boxed{72}", "24 + 48 = 72 clips\n#### 72"):
        assert extract.as_response(marked) == marked and extract.extract(marked) == "72"


@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=40).map("".join))
def test_any_text_gives_an_answer_or_none(text: str) -> None:
    for allowed in (False, True):
        answer = extract.extract(text, last_number=allowed)
        assert answer is None or (answer == answer.strip() and answer)


@given(st.text("abc12+ ", max_size=30))
def test_what_is_put_into_a_box_comes_out(inner: str) -> None:
    assert extract.boxed(f"first \\boxed{{0}} then \\boxed{{{inner}}} done") == (inner.strip() or None)


@given(st.text(), st.text(alphabet="abc123+-=/ ", min_size=1).filter(str.strip))
def test_reasoning_never_leaks_into_an_answer_section(reasoning: str, answer: str) -> None:
    clean = reasoning.replace("<", "")
    assert extract.extract(f"<think>{clean}</think> <answer>{answer}</answer>") == answer.strip()


@pytest.mark.parametrize(
    "piece", ["\\boxed{", "\\boxed", "\\boxeds", "<answer>", "</think>", "</think><answer>", *"{}$`1_", "\\(", "$a"]
)
def test_a_megabyte_of_anything_is_read_in_one_go(piece: str) -> None:
    text = piece * (1_000_000 // len(piece))
    extract.extract(text, last_number=True)
    extract.boxed("\\boxed{4}" + text)
    chat.parse("<think>" + text)
    language.count_words(text)


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("so 答案 is x", {"latin": 2, "han": 2}),
        ("先算 $a_1 + \\text{cost}$ 再算", {"han": 4}),
        ("we use `print(hello)` and ```\nimport numpy\n``` here", {"latin": 4}),
        ("it costs $5 for an apple and $6 more", {"latin": 7}),
        ("see https://example.org/some/page now", {"latin": 2}),
        ("the value x_total and n2 and 17", {"latin": 4}),
        ("<think>привет мир</think>", {"cyrillic": 2}),
        ("ありがとう 東京", {"kana": 5, "han": 2}),
        ("안녕 세계", {"hangul": 2}),
        ("3 + 4 = 7", {}),
    ],
)
def test_words_are_counted_by_script_and_what_has_no_language_is_masked(text: str, counts: dict[str, int]) -> None:
    assert dict(language.count_words(text)) == counts


def test_mixing_needs_words_of_both_scripts() -> None:
    assert language.is_mixed("first 3 + 4 = 7, 然后 7 + 2 = 9")
    assert not language.is_mixed("first 3 + 4 = 7, then 7 + 2 = 9")
    assert not language.is_mixed("先算三加四等于七 $x + y$ 然后再加二")
    assert not language.is_mixed(
        "我们先看这个国家在这一年里的总产值是多少，然后再计算它和前一年相比增加了多少百分点" + " GDP"
    )


@given(st.text())
def test_shares_are_proportions_in_every_known_language(text: str) -> None:
    for name in language.LANGUAGES:
        share = language.share(text, name)
        assert share is None or 0.0 <= share <= 1.0


def test_an_unknown_language_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"xx.*known are"):
        language.share("text", "xx")
