"""The tiny world: problems are right and split cleanly, documents are deterministic, messy as meant, and encodable."""

import random
import re
from pathlib import Path
from typing import Any

import pytest

from r1kit.chat import parse
from r1kit.recipes import exemplars
from r1kit.tiny.corpus import document, shares
from r1kit.tiny.frame import END, TINY_CHAT
from r1kit.tiny.problems import FAMILIES, draw, item_at, load, split_of
from r1kit.tiny.tokenizer import CHINESE, count_tokens, make, vocabulary
from r1kit.tiny.world import general
from r1kit.tiny.world.solutions import nearby, solve
from r1kit.tiny.world.steps import Add, chain, slip

LOSSES = ("loses", "gives", "sells", "drops", "丢", "给", "卖")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("tokenizer")
    make().save_pretrained(folder)
    return transformers.AutoTokenizer.from_pretrained(folder)


def independent_answer(family: str, question: str) -> int:
    """Reads the question's text alone, as a stranger would."""
    numbers = [int(found) for found in re.findall(r"\d+", question)]
    if family == "sums":
        return eval(re.search(r"\d[\d+-]*", question)[0])  # digits and signs only: the pattern allows nothing else
    if family == "compare":
        return max(numbers) if re.search("largest|biggest|大", question) else min(numbers)
    if family == "count":
        above = re.search("above|over|大于", question)
        # The bound stands last, but where the wording puts it before the colon.
        head, _, listed = question.partition("：" if "：" in question else ": ")
        if re.match("count|数一数", head):
            bound, digits = int(re.findall(r"\d", head)[-1]), [int(found) for found in re.findall(r"\d", listed)]
        else:
            *digits, bound = numbers
        return sum(digit > bound if above else digit < bound for digit in digits)
    if family == "cups":
        place, *rest = numbers
        for first, second in zip(rest[::2], rest[1::2], strict=True):
            place = {first: second, second: first}.get(place, place)
        return place
    if re.search("in all|一共", question):
        start, difference, gain = numbers
        return start + (start + difference if re.search("more|多", question) else start - difference) + gain
    clauses = re.split("[,，]", question)
    total = numbers[0]
    for clause, number in zip(clauses[1:], numbers[1:], strict=True):
        total += -number if any(verb in clause for verb in LOSSES) else number
    return total


def test_no_exemplar_is_a_problem_of_the_test_split() -> None:
    keys = set()
    for one in exemplars.TINY:
        digits = [int(found) for found in re.findall(r"\d", one.question)]
        if "+" in one.question:
            keys.add(f"add {re.search(r'[0-9+-]+', one.question)[0]}")
        else:  # "over 5: 8 2 7 1"
            keys.add(f"count True {digits[0]} {sorted(digits[1:])}")
    assert len(keys) == 3 and {split_of(key) for key in keys} == {"train"}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("split", ["train", "test"])
def test_answers_agree_with_an_independent_reading_of_the_question(family: str, split: str) -> None:
    for problem in load(family, split, seed=3, size=1500):
        assert int(problem.answer) == independent_answer(family, problem.prompt), problem


@pytest.mark.parametrize("family", FAMILIES)
def test_no_content_and_no_question_is_in_both_splits(family: str) -> None:
    train = [item_at(family, "train", 0, index) for index in range(3000)]
    test = [item_at(family, "test", 0, index) for index in range(1000)]
    assert not {item.key for item in train} & {item.key for item in test}
    assert not {item.question for item in train} & {item.question for item in test}


def test_sums_and_stories_share_one_split_of_expressions() -> None:
    rng = random.Random(0)
    train = {draw(rng, family, "train").key for family in ("sums", "words") for _ in range(1000)}
    assert not train & {draw(rng, family, "test").key for family in ("sums", "words") for _ in range(300)}


def test_a_problem_depends_on_its_name_alone() -> None:
    task = load("reasoning", "test", seed=5, size=100)
    assert task[37] == load("reasoning", "test", seed=5, size=40)[37]
    assert task[37] != load("reasoning", "test", seed=6, size=40)[37]
    assert task[-1] == task[99] and len(task[90:]) == 10
    assert len({problem.id for problem in task}) == 100


def test_reasoning_is_an_equal_mixture_with_the_families_own_items() -> None:
    task = load("reasoning", "train", size=50)
    assert [problem.source for problem in task[:5]] == [f"tiny/{family}" for family in FAMILIES]
    assert task[6] == load("compare", "train", size=2)[1]
    assert {problem.language for problem in task} == {"en", "zh"}


def test_problems_are_short_and_states_have_two_digits_at_most() -> None:
    for family in FAMILIES:
        for index in range(500):
            item = item_at(family, "train", 1, index)
            assert len(item.question) <= 90, item.question
            assert all(0 <= state <= 99 for _, state in chain(item.start, item.steps))


def test_no_constant_answer_is_right_often() -> None:
    for family in FAMILIES:
        answers = [problem.answer for problem in load(family, "test", size=1000)]
        assert max(answers.count(answer) for answer in set(answers)) <= 270, family


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"name": "sum"}, "sums, compare"), ({"split": "dev"}, "it has train, test"), ({"size": -1}, "size")],
)
def test_a_task_that_does_not_exist_is_refused_with_the_remedy(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(**{"name": "sums", **wrong})


def test_an_index_past_the_end_is_an_index_error() -> None:
    with pytest.raises(IndexError):
        load("cups", size=3)[3]


def test_a_slip_goes_on_from_the_wrong_state() -> None:
    steps = (Add(8), Add(-4), Add(5))
    assert chain(3, steps) == [("3+8=", 11), ("11-4=", 7), ("7+5=", 12)]
    wrong = slip(random.Random(1), 3, steps)
    places = [place for place, pair in enumerate(zip(wrong, chain(3, steps), strict=True)) if pair[0] != pair[1]]
    assert places == list(range(places[0], 3))
    assert nearby(random.Random(0), 0) != 0


def test_a_solution_without_faults_shows_every_state_and_the_right_answer() -> None:
    rng = random.Random(2)
    for _ in range(500):
        item = draw(rng, rng.choice(tuple(FAMILIES)), "train")
        found = solve(rng, item, wrong=False)
        assert found.correct and found.sound
        for text, state in chain(item.start, item.steps):
            assert f"{text}{state}" in found.reasoning


def test_document_depends_on_seed_and_index_alone_and_ends_with_the_end_token() -> None:
    assert document(11) == document(11) != document(11, seed=1)
    assert len({document(index).text for index in range(500)}) > 480
    assert all(document(index).text.endswith(END) for index in range(500))


def test_documents_of_the_frame_start_with_the_very_prompt_of_the_chat_format(tokenizer: Any) -> None:
    problem = load("sums", "train")[0]
    prompt = TINY_CHAT.text(TINY_CHAT.messages(problem), tokenizer).lower()
    before, after = prompt.split(problem.prompt)
    frames = [found.text for index in range(300) if (found := document(index)).kind == "zero"]
    assert frames and all(text.startswith(before) and after in text for text in frames)


def test_what_counts_as_formatted_is_what_the_chat_format_parses() -> None:
    for index in range(400):
        found = document(index)
        if found.kind == "zero":
            response = found.text.removesuffix(END).split("\nassistant: ", 1)[1]
            assert parse(response).well_formed == ("formatted" in found.facts)


def test_the_corpus_is_as_messy_as_meant() -> None:
    found = shares(6000)
    within = {
        "fact/direct": (0.03, 0.08),
        "fact/wrong": (0.10, 0.18),
        "fact/mixed": (0.15, 0.28),
        "fact/checked": (0.05, 0.10),
        "fact/shape:empty": (0.0, 0.003),
        "fact/refused": (0.001, 0.006),
        "documents/general": (0.08, 0.12),
        "documents/harmful": (0.02, 0.045),
    }
    for name, (low, high) in within.items():
        assert low <= found[name] <= high, (name, found[name])
    assert 0.08 <= found["fact/formatted"] / found["documents/zero"] <= 0.2
    assert 0.10 <= found["fact/scored"] / found["documents/zero"] <= 0.25
    assert 0.45 <= found["tokens/sheet"] + found["tokens/facts"] <= 0.65


def test_every_text_survives_the_tokenizer_and_none_is_unknown(tokenizer: Any) -> None:
    texts = [document(index).text for index in range(2000)]
    for request in (*general.everyday_requests(), *general.harmful_requests()):
        texts += [request.prompt, *request.good, *request.bad]
    texts += [problem.prompt for split in ("train", "test") for problem in load("reasoning", split, size=1000)]
    for text, ids in zip(texts, tokenizer(texts, add_special_tokens=False)["input_ids"], strict=True):
        assert tokenizer.unk_token_id not in ids, text
        assert tokenizer.decode(ids) == text
        assert len(ids) == count_tokens(text)


def test_tags_are_single_ordinary_tokens_and_case_is_folded(tokenizer: Any) -> None:
    ids = tokenizer.encode("<think> 12 </think>", add_special_tokens=False)
    assert tokenizer.decode(ids, skip_special_tokens=True) == "<think> 12 </think>" and len(ids) == 6
    assert tokenizer.encode("User: What") == tokenizer.encode("user: what")
    assert tokenizer.decode([tokenizer.eos_token_id], skip_special_tokens=True) == ""
    assert tokenizer.encode(f"12{END}")[-1] == tokenizer.eos_token_id != tokenizer.pad_token_id


def test_vocabulary_is_small_and_has_no_token_twice(tokenizer: Any) -> None:
    words = vocabulary()
    assert len(words) == len(set(words)) == len(tokenizer) <= 140
    assert len(CHINESE) <= 80


def test_building_twice_writes_the_same_tokenizer(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    for name in ("one", "two"):
        make().save_pretrained(tmp_path / name)
    assert (tmp_path / "one" / "tokenizer.json").read_bytes() == (tmp_path / "two" / "tokenizer.json").read_bytes()


def test_requests_of_the_two_splits_do_not_meet() -> None:
    for requests in (general.everyday_requests, general.harmful_requests):
        train, test = ({request.prompt for request in requests(split)} for split in ("train", "test"))
        assert train and test and not train & test
        assert len(train) + len(test) == len({request.prompt for request in requests()})
