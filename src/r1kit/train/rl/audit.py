"""Audit during training: a second verifier re-checks a random fraction of the verdicts.

If the two differ, one of them is wrong, or only one of them understands what the task asks for. Both are worth a look
before the policy exploits it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from r1kit.chat import whole_response
from r1kit.data.jsonl import RowWriter, keep_steps
from r1kit.rewards.verdicts import verify
from r1kit.types import Group, Problem, Rollout

SECOND = {"number": "math", "last-number": "math", "exact": "math"}  # the second verifier, unless a setting names one


@dataclass
class Audit:
    """Re-checks a random fraction of the verdicts; disagreements go to audit.jsonl.

    `verifier` is the second verifier for all problems; "" takes it from `SECOND` and skips problems of other verifiers.
    The selection depends on seed and step alone.
    """

    folder: Path
    share: float
    verifier: str
    seed: int

    def resume(self, step: int) -> None:
        """Remove the disagreements of steps after `step`."""
        keep_steps(self.folder / "audit.jsonl", step)

    def __call__(self, step: int, groups: Sequence[Group]) -> dict[str, float]:
        """Metrics of one step.

        `audit/count`: verdicts that both could give. `audit/disagreement`: the fraction of these that differ.
        `audit/right`: those that the second gave as right, from which error rates follow (`ErrorRates.of_audit`).
        `audit/unknown`: verdicts that only the first could give, if there are any.
        """
        # by seed and step alone, so a resumed run re-checks the same completions
        chance = random.Random(f"audit/{self.seed}/{step}")
        pairs = [(group.problem, rollout) for group in groups for rollout in group.rollouts]
        selected = [pair for pair in pairs if chance.random() < self.share]
        checked = [row for problem, rollout in selected if (row := self._check(problem, rollout))]
        rows = [row for row in checked if row["second_verdict"] in ("right", "wrong")]
        unknown = {"audit/unknown": float(len(checked) - len(rows))} if len(checked) > len(rows) else {}
        differing = [row for row in rows if row["verdict"] != row["second_verdict"]]
        if differing:
            with RowWriter(self.folder / "audit.jsonl") as file:
                for row in differing:
                    file.append({"step": step, **row})
        if not rows:
            return unknown
        right = sum(row["second_verdict"] == "right" for row in rows)
        counts = {"audit/count": float(len(rows)), "audit/right": float(right)}
        return {**counts, "audit/disagreement": len(differing) / len(rows), **unknown}

    def _check(self, problem: Problem, rollout: Rollout) -> dict[str, object] | None:
        """Both verdicts as a row; None if the first is undecided or no other verifier fits."""
        first, name = rollout.reward.verdict, self.verifier or SECOND.get(problem.verifier, "")
        if first is None or first.correct is None or not name or name == problem.verifier:
            return None
        whole = response = whole_response(rollout.prompt, rollout.completion)
        extracted = first.extracted or None
        if problem.verifier == "last-number" and extracted is not None:  # other verifiers look for answer tags
            response = f"<answer>{extracted}</answer>"
        second = verify(name, [response], [problem.answer])[0]
        return {
            "problem_id": problem.id,
            "question": problem.prompt,
            "completion": whole,
            "answer": problem.answer,
            "verifier": problem.verifier,
            "verdict": first.outcome,
            "extracted": extracted,
            "second": name,
            "second_verdict": second.outcome,
            "second_says": second,
        }
