"""The checks that a training stage makes by itself before its first step, and their file.

They take seconds on the tiny model, run once (a resumed stage goes on without them), and change no result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from r1kit.chat import whole_response
from r1kit.pipeline import Context
from r1kit.rewards.registry import MODELLED
from r1kit.rewards.scorer import Scorer
from r1kit.rollout import column_names
from r1kit.store import StoreError, read_json, write_json
from r1kit.train import checkpoints
from r1kit.types import Completion, Problem

if TYPE_CHECKING:
    from r1kit.models.load import Policy
    from r1kit.train.learner import Learner
    from r1kit.train.preflight.lines import Line
    from r1kit.train.rl.loop import RLLoop
    from r1kit.train.supervised import Update

FILE = "preflight.json"
PROMPTS, ROWS = 4, 4  # for samples, and for the gradient
PROBLEMS = 32  # whose references are judged


def is_due(context: Context) -> bool:
    """Whether a stage must still be checked: it has neither begun to train nor passed its checks.

    On several devices there are no checks, which is said: each rank sees only its part of the model and of the data.
    """
    if context.settings.preflight == "off" or checkpoints.latest(context.folder) is not None:
        return False
    if context.devices > 1:
        context.progress.say("no checks before the first step on several devices: `r1kit preflight` makes them on one")
        return False
    try:
        lines = read_json(context.folder / FILE)
        return not lines or any(line["verdict"] == "fails" for line in lines)
    except (StoreError, OSError, TypeError, KeyError):  # no lines were written, or they were damaged
        return True


def note(context: Context, lines: Sequence[Line]) -> None:
    """Write the lines down; raises `PreflightError` if one fails, or says it if the settings ask for a warning.

    A control arm goes on: a policy that knows the format has nothing to learn from the format alone, which is a result.
    """
    from r1kit.train.preflight.lines import PreflightError, refuse

    write_json(context.folder / FILE, lines)
    try:
        refuse(lines)
    except PreflightError as error:
        if context.settings.preflight == "stop" and not context.settings.is_control:
            raise
        context.progress.say(str(error))


def check_sampling_loop(context: Context, loop: RLLoop, policy: Policy) -> None:
    """The checks of a stage that samples from the policy that it trains, if they are due."""
    from r1kit.train.preflight.lines import same_random_numbers
    from r1kit.train.preflight.prompts import own_format_line, turn_line
    from r1kit.train.preflight.sampler import Trial
    from r1kit.train.rl.collect import Draws

    if not is_due(context):
        return
    settings = context.settings
    with same_random_numbers():
        problems = Draws(loop.task, settings.seed).next(min(PROBLEMS, len(loop.task)))
        lines = [*own_format_line(settings.chat, policy, context.input("model")), turn_line(settings.chat, policy)]
        params = settings.sampling(0)
        trial = Trial(policy, loop.learner, loop.objective, loop.engine, loop.chat, problems[:PROMPTS], params)
        rollouts = trial.rollouts()
        lines += trial.lines(rollouts)
        if loop.objective.learns_from_rewards:
            completed = [(p, each.completion, whole_response(each.prompt, each.completion)) for p, each in rollouts]
            lines += reward_lines(settings, loop.scorer, problems, policy.tokenizer, completed)
    note(context, lines)


def reward_lines(
    settings: Any,
    scorer: Scorer,
    problems: Sequence[Problem],
    tokenizer: Any,
    completed: Sequence[tuple[Problem, Completion, str]] = (),
) -> list[Line]:
    """Verifiers and rewards on the problems' references, without rewards that ask a model.

    `completed`: problems with completions of the policy and their whole responses.
    """
    from r1kit.train.preflight.references import form_line, frame_line, leak_line, pairs_of, rewards_line, verifier_line

    modelled = {spec.title for spec in settings.rewards if spec.name in MODELLED}
    rules = Scorer(tuple(part for part in scorer.parts if part.label not in modelled))
    if not rules.parts:
        return []
    pairs, names, is_whole = pairs_of(problems), column_names(problems), len(rules.parts) == len(scorer.parts)
    rewards = rewards_line(pairs, completed, rules, settings.sampling(0), tokenizer, names, is_whole=is_whole)
    form = frame_line(problems) or form_line(completed)
    return [verifier_line(pairs), *leak_line(problems), *form, rewards]


def check_rows(
    context: Context,
    learner: Learner,
    update_of: Callable[[Sequence[int]], Update],
    rows: Sequence[int],
    checked: Callable[[], Sequence[Line]] = tuple,
) -> None:
    """The gradient of the rows at those places, packed and alone, beside the caller's own checks, if they are due."""
    from r1kit.train.preflight.gradient import gradient_line, gradient_of
    from r1kit.train.preflight.lines import same_random_numbers

    if not is_due(context):
        return
    with same_random_numbers():
        whole = update_of(rows)
        alone = [[(each.loss, each.batches)] for each in (update_of([row]) for row in rows)]
        together = gradient_of(learner, [(whole.loss, whole.batches)], whole.totals)
        line = gradient_line(learner, together, alone, whole.totals)
    note(context, [*checked(), line])
