"""The verifier `choice`: claims in several languages, and what takes a claim back or adds a second one."""

from __future__ import annotations

import pytest

from r1kit.verifiers.choice import MAX_CHARS, choice

CLAIMS = [
    "C",
    "(C)",
    "The answer is C",
    "Answer = C",
    "I choose C",
    "C is correct",
    "C) Carbon dioxide",
    "C.Carbon",
    "C. Carbon dioxide. A is oxygen",
    "C is correct because A is wrong",
    "正确答案是C",
    "本题选C",
    "C项正确",
    "我認為應該選C",
    "C、12",
    "选C，因为A错误",
    "答えはCです",
    "Cが正解です",
    "Die richtige Antwort ist C",
    "La bonne réponse est C",
    "La respuesta correcta es C",
]
SECOND = [
    " or D",
    ", or maybe D",
    " oder D",
    " ou D",
    " o D",
    "，或者D",
    "，D也正确",
    "。选D",
    "\nD",
    ". D",
    ". D too.",
]
SECOND += [
    ", and D is also correct.",
    ". D is correct.",
    ". So D.",
    ". I choose D.",
    ". Answer: D",
    ". However, D is better.",
]
SECOND += [" Aber D ist auch richtig.", " Mais D est aussi correct.", " Pero D también es correcta.", "。Dが正しい"]
DOUBT = [
    "?",
    ". No wait, D.",
    ". I am not sure.",
    ". Or not.",
    ". That is wrong.",
    ". C is wrong.",
    "。C错误",
    " (maybe)",
]
DENIAL = [
    "It is false that ",
    "Maybe ",
    "If x = 0, ",
    "I doubt that ",
    "It cannot be ",
    "不是",
    "也许",
    "如果",
    "D or ",
]


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_claim_is_read_and_lost_by_any_second_choice_doubt_or_denial(claim: str) -> None:
    assert choice(claim) == "C"
    assert choice(f"{claim}.") == "C"
    assert not [claim + more for more in SECOND + DOUBT if choice(claim + more) is not None]
    assert not [before + claim for before in DENIAL if choice(before + claim) is not None]


@pytest.mark.parametrize(
    ("aside", "letter"),
    [
        ("It is D, not C.", "D"),
        ("It is D, not B or C", "D"),
        ("Not C but D", "D"),
        ("选D，不选C", "D"),
        ("不是C，而是D", "D"),
        ("答えはCではなくDです", "D"),
        ("Es ist D, nicht C.", "D"),
        ("Nicht C, sondern D", "D"),
        ("C'est D, pas C", "D"),
        ("Es D y no C", "D"),
        ("C is wrong, so the answer is D", "D"),
        ("C is not wrong", None),
        ("not C", None),
        ("C is a gas", None),
    ],
)
def test_an_option_that_is_set_aside_is_not_the_answer(aside: str, letter: str | None) -> None:
    assert choice(aside) == letter


def test_a_text_that_is_too_long_might_take_its_answer_back() -> None:
    reason = " because plants take it in" * 200
    assert choice(f"C{reason[:500]}") == "C"
    assert choice(f"C{reason[:MAX_CHARS]}") is None
