"""Requests that are no problems: the tiny world's tasks and files, the verifiers of replies, and RL that rewards them
by reward models while rules apply to problems alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from r1kit.chat import ChatFormat
from r1kit.data.jsonl import read_rows
from r1kit.pipeline import External, Recipe, Stage, execute
from r1kit.recipes.r1 import scenario_rewards
from r1kit.recipes.scales.tiny import TINY
from r1kit.rewards import RewardSpec, Scorer, build
from r1kit.settings import SettingsError
from r1kit.stages.reward_model import REWARD_MODEL, RewardModelSettings
from r1kit.stages.rl import RL, RLSettings
from r1kit.stages.tiny_requests import TINY_REQUESTS, TinyRequestsSettings
from r1kit.tasks import TaskSpec, load_task
from r1kit.tiny import everyday
from r1kit.tiny.tokenizer import count_tokens, vocabulary
from r1kit.tiny.world import general
from r1kit.verifiers import find, verify_all


@pytest.mark.parametrize("name", everyday.NAMES)
def test_training_requests_have_no_reference_and_held_out_ones_do(name: str) -> None:
    train, *others = (load_task(TaskSpec(name=f"tiny/{name}"), split) for split in ("train", "test", "validation"))
    assert all(not problem.answer and not problem.verifier for problem in train)
    for held_out, least in zip(others, (50, 40), strict=True):
        assert all(verify_all(problem.verifier, [""], [problem.answer])[0].correct is False for problem in held_out)
        assert len(held_out) >= least and not {one.prompt for one in train} & {one.prompt for one in held_out}
        assert len({one.id for one in held_out}) == len({one.prompt for one in held_out}) == len(held_out)
    assert not {one.prompt for one in others[0]} & {one.prompt for one in others[1]}
    characters = set(vocabulary())
    assert all(set(problem.prompt) <= characters for task in (train, *others) for problem in task)


def test_the_validation_split_is_in_nothing_that_is_trained_on() -> None:
    held_out = {one.prompt for name in everyday.NAMES for one in everyday.request_problems(name, "validation")}
    replies, pairs, labels = list(everyday.replies()), list(everyday.preferences()), list(everyday.safety_labels())
    prompts = {row["messages"][0]["content"] for row in replies} | {row["prompt"] for row in (*pairs, *labels)}
    prompts |= {
        one.prompt for one in (*general.everyday_requests(), *general.harmful_requests())
    }  # the pre-training corpus has them
    assert held_out and not held_out & prompts
    said = {row["messages"][1]["content"] for row in replies} | {row["response"] for row in labels}
    said |= {row[side] for row in pairs for side in ("chosen", "rejected")}
    words = {*everyday.SAY["validation"], *everyday.SAY_ZH["validation"]}
    assert not said & {form.format(word) for word in words for form in ("{}", "{}.", "{}。")}


def test_problems_have_no_validation_split_and_say_what_to_take() -> None:
    with pytest.raises(ValueError, match=r"no split 'validation', .* use train with another seed"):
        load_task(TaskSpec(name="tiny/sums"), "validation")
    with pytest.raises(ValueError, match="tiny/general has no split 'dev', it has train, practice, validation, test"):
        load_task(TaskSpec(name="tiny/general"), "dev")


def test_the_worlds_good_replies_are_judged_good_and_its_bad_ones_bad() -> None:

    def with_references(requests: Any, *names: str) -> Any:
        columns = [[problem.answer for problem in everyday.request_problems(name, "test")] for name in names]
        return zip(requests, *columns, strict=True)

    for request, reference, harmless in with_references(everyday._general("test"), "general", "harmless"):
        assert all(one.correct for one in verify_all("reply", request.good, [reference] * len(request.good)))
        bad = [one for one in request.bad if one not in request.good]
        assert not any(one.correct for one in verify_all("reply", bad, [reference] * len(bad)))
        everything = [*request.good, *request.bad]
        assert all(one.correct for one in verify_all("refusal", everything, [harmless] * len(everything)))
    for request, reference in with_references(everyday._harmful("test"), "harmful"):
        assert all(one.correct for one in verify_all("refusal", request.good, [reference] * len(request.good)))
        assert not any(one.correct for one in verify_all("refusal", request.bad, [reference] * len(request.bad)))


def test_any_things_of_a_kind_are_a_good_list() -> None:
    task = load_task(TaskSpec(name="tiny/general"), "test")
    problem = next(one for one in task if one.prompt == "name three foods.")
    said = ["eggs, bread, tea.", "bread, bread, tea.", "bread, tea.", "red, bread, tea."]
    verdicts = verify_all("reply", said, [problem.answer] * len(said))
    assert [one.correct for one in verdicts] == [True, False, False, False]


@pytest.mark.parametrize(
    ("verifier", "response", "reference", "correct"),
    [
        ("reply", "<think> say it </think> <answer> Cat. </answer>", '["cat"]', True),
        ("reply", "<think> cat", '["cat"]', False),
        ("reply", "cat", "cat", None),
        ("reply", "cat", "[]", None),
        ("reply", "cat", "[1]", None),
        ("refusal", "Sorry, I can not help.", '{"refuse": true, "openings": ["sorry, i can not"]}', True),
        ("refusal", "do it.", '{"refuse": true, "openings": ["sorry, i can not"]}', False),
        ("refusal", "do it.", '{"refuse": false, "openings": ["sorry, i can not"]}', True),
        ("refusal", "", '{"refuse": false, "openings": ["sorry, i can not"]}', False),
        ("refusal", "do it.", '{"refuse": 1, "openings": ["no"]}', None),
        ("refusal", "do it.", '{"refuse": true, "openings": [""]}', None),
        ("refusal", "do it.", "[", None),
        ("refusal", "do it.", "[" * 100_000, None),
        ("reply", "[" * 100_000, '["cat"]', False),
    ],
)
def test_replies_are_judged_as_a_reader_sees_them(
    verifier: str, response: str, reference: str, correct: bool | None
) -> None:
    assert verify_all(verifier, [response], [reference])[0].correct is correct


def scored(specs: list[RewardSpec], completions: list[str], **columns: list[str]) -> list[dict[str, float | None]]:
    scorer: Scorer = build(specs)
    return [dict(one.parts) for one in scorer(completions, **columns)]


def test_a_reward_for_some_sources_does_not_apply_to_others() -> None:
    specs = [
        RewardSpec(name="format", skip=("tiny/general",)),
        RewardSpec(name="language_consistency", options={"detect": "script"}, only="tiny/[a-f]*"),
        RewardSpec(
            name="language_consistency",
            options={"detect": "script", "part": "response"},
            only="tiny/general",
            label="reply_language",
        ),
    ]
    answers = ["<think> so it is 4 </think> <answer> 4 </answer>", "hello 你 好"]
    columns = {"source": ["tiny/count", "tiny/general"], "language": ["en", "en"]}
    assert scored(specs, answers, **columns) == [
        {"format": 1.0, "language_consistency": 1.0, "reply_language": None},
        {"format": None, "language_consistency": None, "reply_language": pytest.approx(1 / 3)},
    ]
    assert scored(specs[2:], answers[:1], source=["tiny/sums"], language=["en"]) == [{"reply_language": None}]
    with pytest.raises(ValueError, match="no column 'source'"):
        scored(specs, answers)


def test_notes_of_a_reward_stand_beside_the_completions_that_it_judged() -> None:
    scorer = build([RewardSpec(name="accuracy", only=("a",))])
    columns = {"answer": ["4", "", "5"], "verifier": ["number", "", "number"], "source": ["a", "b", "a"]}
    rewards = scorer(["<answer>4</answer>", "hello", "<answer>4</answer>"], **columns)
    assert [one.total for one in rewards] == [1.0, None, 0.0]
    assert [one.notes.get("verdict") for one in rewards] == ["right", None, "wrong"]


def test_two_parts_of_one_name_need_labels() -> None:
    with pytest.raises(SettingsError, match="give each a label"):
        build([RewardSpec(name="format"), RewardSpec(name="format")])


CHAT = ChatFormat(system="")
SHORT = {"chat": CHAT, "max_tokens": None, "epochs": 1, "validation_share": 0.0, "batch_size": 400}


def all_scenarios(base: Path, **changes: object) -> Recipe:
    """Reward models from random weights, and two steps of RL on problems and requests with them."""
    model, world = External(base), Stage("requests", TINY_REQUESTS, TinyRequestsSettings(rows=60))
    helpfulness = Stage(
        "helpfulness", REWARD_MODEL, RewardModelSettings(**SHORT), {"model": model, "data": world / "preferences.jsonl"}
    )
    safety = Stage(
        "safety",
        REWARD_MODEL,
        RewardModelSettings(objective="safety", **SHORT),
        {"model": model, "data": world / "safety.jsonl"},
    )
    settings = {
        "tasks": [TaskSpec(name="tiny/sums"), *(TaskSpec(name=f"tiny/{name}") for name in ("general", "harmful"))],
        "rewards": scenario_rewards(TINY),
        "chat": CHAT,
        "steps": 2,
        "prompts_per_step": 9,
        "group_size": 2,
        "max_tokens": 8,
        "rollouts_every": 1,
        **changes,
    }
    judges = {"reward/helpfulness": helpfulness / "model", "reward/harmlessness": safety / "model"}
    return Recipe("scenarios", (Stage("r1", RL, RLSettings(**settings), {"model": model, **judges}),))


def test_rl_for_all_scenarios_rewards_problems_by_rules_and_requests_by_models(
    tiny_policy_folder: Path, tmp_path: Path
) -> None:
    folder = execute(all_scenarios(tiny_policy_folder), tmp_path)
    rows = [row for path in sorted(folder.glob("rollouts/*.jsonl")) for row in read_rows(path)]
    parts = {
        "tiny/sums": {"accuracy", "format"},
        "tiny/general": {"helpfulness", "harmlessness"},
        "tiny/harmful": {"harmlessness"},
    }
    seen = set()
    for row in rows:
        source = "/".join(row["problem_id"].split("/")[:2])
        given = {name for name, value in row["parts"].items() if value is not None}
        assert given - {"language_consistency", "reply_language"} == parts[source]
        seen.add(source)
    assert seen == set(parts)
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert len(metrics) == 2


def test_a_reward_model_that_nobody_reads_is_refused(tiny_policy_folder: Path, tmp_path: Path) -> None:
    (stage,) = all_scenarios(tiny_policy_folder, rewards=["accuracy"]).stages[-1:]
    inputs = {name: External(tiny_policy_folder) for name in stage.inputs}  # all there, so refused before any work
    with pytest.raises(ValueError, match=r"reward/h.* no reward reads it"):
        execute(Recipe("scenarios", (replace(stage, inputs=inputs),)), tmp_path)


def test_a_third_of_the_demonstrations_about_numbers_have_a_slip_and_no_chosen_reply_has_one() -> None:
    references = everyday.training_references()

    def is_right(prompt: str, reply: str) -> bool:
        verifier, answer = references[prompt]
        return find(verifier)(reply, answer).correct is True

    turns = [row["messages"] for row in everyday.replies()]
    right = {user["content"]: is_right(user["content"], reply["content"]) for user, reply in turns}
    numbers = [correct for prompt, correct in right.items() if any(char.isdigit() for char in prompt)]
    assert len(numbers) > 400 and 0.28 < 1 - sum(numbers) / len(numbers) < 0.38
    assert all(correct for prompt, correct in right.items() if not any(char.isdigit() for char in prompt))
    assert all(is_right(row["prompt"], row["chosen"]) for row in everyday.preferences())


def test_preferences_and_labels_fit_a_small_context_and_have_both_sides() -> None:
    pairs, labels = list(everyday.preferences()), list(everyday.safety_labels())
    assert all(row["chosen"] != row["rejected"] for row in pairs) and len(pairs) > 400
    assert {row["label"] for row in labels} == {True, False}
    assert max(count_tokens(row["prompt"] + row["response"]) for row in labels) < 200
