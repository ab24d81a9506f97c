"""A second opinion during training: a random share of the verdicts is given again, by another verifier.

Where the two differ, one of them is wrong, or the task means something that only one of them knows: both are worth a
look before the policy finds out.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from r1kit.data.jsonl import RowWriter, keep_steps
from r1kit.rewards.verdicts import verify
from r1kit.types import Group, Problem, Rollout

SECOND = {"number": "math", "last-number": "math", "exact": "math"}  # who judges again, unless a setting names one


@dataclass
class Audit:
    """Judges a random share of the verdicts again, by a second verifier; disagreements go to audit.jsonl.

    `verifier` names the second for all; "" takes `SECOND` and leaves out problems that it has nothing for. Which
    verdicts are drawn depends on seed and step alone.
    """

    folder: Path
    share: float
    verifier: str
    seed: int

    def resume(self, step: int) -> None:
        """Forget what was found after `step`."""
        keep_steps(self.folder / "audit.jsonl", step)

    def __call__(self, step: int, groups: Sequence[Group], complete: Callable[[str], str]) -> dict[str, float]:
        """`audit/count` verdicts that both could give, and `audit/disagreement`, the share in which they differ.

        `audit/unknown` is how many the second could not give, where there are such.
        """
        chance = random.Random(f"audit/{self.seed}/{step}")
        pairs = [(group.problem, one) for group in groups for one in group.rollouts]
        drawn = [pair for pair in pairs if chance.random() < self.share]
        again = [row for problem, one in drawn if (row := self._judge(problem, one, complete))]
        rows = [row for row in again if row["second_verdict"] in ("right", "wrong")]
        unknown = {"audit/unknown": float(len(again) - len(rows))} if len(again) > len(rows) else {}
        differing = [row for row in rows if row["verdict"] != row["second_verdict"]]
        if differing:
            with RowWriter(self.folder / "audit.jsonl") as file:
                for row in differing:
                    file.append({"step": step, **row})
        if not rows:
            return unknown
        return {"audit/count": float(len(rows)), "audit/disagreement": len(differing) / len(rows), **unknown}

    def _judge(self, problem: Problem, rollout: Rollout, complete: Callable[[str], str]) -> dict[str, object] | None:
        first, name = rollout.reward.verdict, self.verifier or SECOND.get(problem.verifier, "")
        if first is None or first.correct is None or not name or name == problem.verifier:
            return None
        response, extracted = complete(rollout.completion.text), first.extracted or None
        if problem.verifier == "last-number" and extracted is not None:  # where others find no answer
            response = f"<answer>{extracted}</answer>"
        second = verify(name, [response], [problem.answer])[0]
        return {
            "problem_id": problem.id,
            "question": problem.prompt,
            "completion": complete(rollout.completion.text),
            "answer": problem.answer,
            "verifier": problem.verifier,
            "verdict": first.outcome,
            "extracted": extracted,
            "second": name,
            "second_verdict": second.outcome,
            "second_says": second,
        }
