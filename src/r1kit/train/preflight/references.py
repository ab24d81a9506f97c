"""Verifier and rewards on answers whose worth is known: each problem's own reference, and another problem's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

from r1kit.curate.formats import render
from r1kit.rewards.part import RewardError
from r1kit.rewards.scorer import Scorer
from r1kit.rollout import TrainerState, data_columns, reward_columns
from r1kit.tasks.leaks import FEW, MOST, share_at_one_place
from r1kit.train.preflight.lines import Line, line, unclear
from r1kit.types import Completion, Problem, Reward, SamplingParams, Verdict
from r1kit.verifiers import STRUCTURED, THINKING, verify_all
from r1kit.verifiers.extract import MAX_ANSWER_CHARS
from r1kit.verifiers.number import parse_number

RIGHT, WRONG = 0.8, 0.2  # shares: references judged right at least, other problems' answers judged right at most
FEW_ANSWERS = 4  # below, their form says nothing
PAIRS = 4  # a reward that prefers the wrong one in so many pairs, and the right one in none, is no accident
NO_ANSWER = "something else"  # the wrong answer, if all problems have the same one
QUOTED = 120  # characters of the question that reasoning in other languages than English repeats
VERIFIER, REWARDS, FORM = "verifier on your references", "rewards on your references", "form of the references"
FORM_REMEDY = "give the references in the form of the answers (columns, answer=...), or choose another verifier"
NOT_CONSTANT = "not constant"
FRAMED, FRAME_WORDS = 8, 3  # so many references with so many words in common are sentences around an answer


def reference_replies(problem: Problem) -> Iterator[str]:
    """Responses with the reference, and with the worked solution, behind a sentence in the question's language."""
    for answer in (problem.answer, problem.solution):
        with suppress(ValueError):  # the answer is empty, or has marks of the format
            yield _reply(problem, answer)


def _reply(problem: Problem, answer: str) -> str:
    reasoning = problem.prompt[:QUOTED] if problem.language != "en" else "I work it out step by step, and the result is"
    return render(f"{reasoning} {answer}", answer, "think_answer")


@dataclass(frozen=True)
class Pair:
    """A problem, the best of its reference replies with the verdict, and a reply with a wrong answer."""

    problem: Problem
    right: str
    verdict: Verdict
    wrong: str


def pairs_of(problems: Sequence[Problem]) -> list[Pair]:
    """Pairs of the problems whose reference is an answer, or that have a worked solution."""
    pairs = []
    usable = [problem for problem in problems if problem.verifier]
    for place, problem in enumerate(usable):
        is_answer = problem.verifier.removesuffix(THINKING) not in STRUCTURED
        replies = list(reference_replies(problem if is_answer else replace(problem, answer="")))
        # each another one: a reward for length would prefer one long answer to all references
        others = (other for other in (*usable[place + 1 :], *usable[:place]) if other.verifier == problem.verifier)
        other = next((each.answer for each in others if each.answer not in ("", problem.answer)), NO_ANSWER)
        if not replies:
            continue
        verdicts = verify_all(problem.verifier, replies, [problem.answer] * len(replies))
        best = next((number for number, verdict in enumerate(verdicts) if verdict.correct), 0)
        with suppress(ValueError):
            pairs.append(Pair(problem, replies[best], verdicts[best], _reply(problem, other)))
    return pairs


def verifier_line(pairs: Sequence[Pair]) -> Line:
    """References count as right, and answers of other problems do not."""
    if not pairs:
        return unclear(VERIFIER, "no problem has a reference that is an answer, or a worked solution")
    right = sum(pair.verdict.correct is True for pair in pairs)
    accepted = 0
    for name in {pair.problem.verifier for pair in pairs}:
        own = [pair for pair in pairs if pair.problem.verifier == name]
        verdicts = verify_all(name, [pair.wrong for pair in own], [pair.problem.answer for pair in own])
        accepted += sum(verdict.correct is True for verdict in verdicts)
    value = f"{right} of {len(pairs)} are judged right, and {accepted} wrong answers"
    remedy = "the verifier accepts wrong answers: choose a stricter one, or correct the references"
    if right < RIGHT * len(pairs):
        bad = next(pair for pair in pairs if not pair.verdict.correct)
        remedy = (
            f"the verifier {bad.problem.verifier!r} cannot use the reference {bad.problem.answer!r:.60} of "
            f"{bad.problem.id} ({bad.verdict.detail or bad.verdict.outcome}): r1kit data check FILE lists all of them"
        )
    passes = right >= RIGHT * len(pairs) and accepted <= WRONG * len(pairs)
    return line(VERIFIER, value, passes, remedy, f"{RIGHT:.0%} and {WRONG:.0%}")


def leak_line(problems: Sequence[Problem]) -> list[Line]:
    """Prompts do not hold their answers at a place of their own; nothing if there are too few problems."""
    pairs = [(problem.prompt, problem.answer) for problem in problems if problem.verifier]
    if len(pairs) < FEW:
        return []
    share, remedy = share_at_one_place(pairs), "take the answers out of the prompts: see the columns of your data"
    value = f"{share:.0%} of {len(pairs)} are the last or the first number of their prompt"
    return [line("answers in the prompts", value, share <= MOST, remedy, f"{MOST:.0%}")]


def frame_line(problems: Sequence[Problem]) -> list[Line]:
    """A failing line if all references of the verifier `exact` are one sentence around an answer.

    Empty if they are not, or if there are too few to tell. A sentence that the prompts ask for is part of the answer.
    """
    exact = [each for each in problems if each.verifier.removesuffix(THINKING) == "exact" and each.answer]
    answers = [each.answer.split() for each in exact]
    if len({each.answer for each in exact}) < FRAMED:
        return []
    before, after = _in_common(answers), _in_common([words[::-1] for words in answers])[::-1]
    first = " ".join(before or after)
    if len(before) + len(after) < FRAME_WORDS or all(first in each.prompt for each in exact):
        return []
    value = f"{len(exact)} of {len(exact)} are one sentence around an answer, such as {exact[0].answer!r:.60}"
    return [line(FORM, value, False, FORM_REMEDY)]


def _in_common(texts: Sequence[Sequence[str]]) -> list[str]:
    """The words with which all texts begin."""
    return [words[0] for words in takewhile(lambda words: len(set(words)) == 1, zip(*texts, strict=False))]


def form_line(sampled: Sequence[tuple[Problem, Completion, str]]) -> list[Line]:
    """The policy's answers and the references are of one form; nothing if an answer is right, or too few can be read.

    A verifier that compares text never finds `7` equal to `the answer is 7 apples`, and both can be read. Other
    verifiers refuse what they cannot use, and know that `7 cm` may be `7`.
    """
    forms: list[tuple[str, str]] = []
    example = ""
    for problem, _, response in sampled:
        if problem.verifier.removesuffix(THINKING) != "exact":
            continue
        verdict = verify_all(problem.verifier, [response], [problem.answer])[0]
        if verdict.correct:
            return []
        if verdict.extracted:
            forms.append((_form(verdict.extracted), _form(problem.answer)))
            example = f"such as {verdict.extracted!r:.40} and {problem.answer!r:.60}"
    if len(forms) < FEW_ANSWERS:
        return []
    (answers, _), (references, _) = (Counter(side).most_common(1)[0] for side in zip(*forms, strict=True))
    agreeing = sum(answer == reference for answer, reference in forms)
    value = f"answers are {answers}, references {references}, {example}"
    return [line(FORM, value, agreeing > WRONG * len(forms), FORM_REMEDY)]


def _form(answer: str) -> str:
    if parse_number(answer[:MAX_ANSWER_CHARS]) is not None:
        return "numbers"
    return "single letters" if len(answer.strip("() .")) == 1 else "text"


def rewards_line(
    pairs: Sequence[Pair],
    sampled: Sequence[tuple[Problem, Completion, str]],
    scorer: Scorer,
    params: SamplingParams,
    tokenizer: Any,
    names: frozenset[str],
    *,
    is_whole: bool = True,
) -> Line:
    """Rewards differ between responses, and are higher for a reference than for a wrong answer.

    `sampled`: problems with completions of the policy and their whole responses. `is_whole`: no reward is left out of
    the scorer.
    """

    def completed(reply: str) -> Completion:
        ids = tuple(tokenizer.encode(reply, add_special_tokens=False))
        return Completion(token_ids=ids, logprobs=(0.0,) * len(ids), text=reply, finish_reason="stop")

    judged = [(pair.problem, completed(reply), reply) for pair in pairs for reply in (pair.right, pair.wrong)]
    rows = [*judged, *sampled]
    columns = reward_columns([(problem, completion) for problem, completion, _ in rows], params)
    data = data_columns([problem for problem, *_ in rows], names, columns)
    hooks = {"log_metric": lambda name, value: None, "trainer_state": TrainerState(global_step=0, max_steps=1)}
    try:
        rewards = scorer([text for *_, text in rows], data, **columns, **hooks)
    except RewardError as error:
        return line(REWARDS, "raise an error", False, str(error))
    totals = [reward.total for reward in rewards]
    known = [total for total in totals if total is not None]
    if len(set(known)) < 2:
        value = f"{known[0]:g} for each of {len(known)} responses" if known else f"none for {len(rows)} responses"
        if not is_whole:
            return unclear(REWARDS, f"{value}, without the rewards that ask a model")
        if not pairs:
            return unclear(REWARDS, f"{value}: only short completions, and no references")
        return line(REWARDS, value, False, _why_constant(rewards), NOT_CONSTANT)
    values = list(zip(totals[: len(judged) : 2], totals[1 : len(judged) : 2], strict=True))
    both = [(right, wrong) for right, wrong in values if right is not None and wrong is not None]
    inverted = sum(right < wrong for right, wrong in both)
    better = sum(right > wrong for right, wrong in both)
    value = f"{min(known):g} to {max(known):g}; the reference gets more than a wrong answer in {better} of {len(both)}"
    remedy = "the reward prefers wrong answers to the reference: check its sign and its weights"
    if not better and inverted >= max(PAIRS, len(both) / 2):
        return line(REWARDS, value, False, remedy)
    return line(REWARDS, value, True, "") if better or not both else unclear(REWARDS, value)


def _why_constant(rewards: Sequence[Reward]) -> str:
    outcomes = Counter(reward.verdict.outcome for reward in rewards if reward.verdict is not None)
    detail = next((reward.verdict.detail for reward in rewards if reward.verdict is not None), "")
    if outcomes and set(outcomes) <= {"failed", "unknown"}:
        return f"the verifier judges no response ({detail}): repair it, or the references"
    if len(outcomes) > 1:
        return f"verdicts differ ({', '.join(outcomes)}), but their reward does not: check weights and options"
    parts = ", ".join(rewards[0].parts) or "no part"
    return f"no group would have a gradient: {parts} must tell responses apart"
