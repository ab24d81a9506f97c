"""The verifier `reasoning_gym`: a generator's own scorer, of which only the full score counts (extra `gym`).

The reference is the whole entry as JSON; `r1kit.tasks.sources.gym` writes it if several answers are right.
"""

from __future__ import annotations

import json

from r1kit.types import Verdict
from r1kit.verifiers import extract

TEXT_FAULTS = (ValueError, TypeError, LookupError, ArithmeticError, SyntaxError, AttributeError, RecursionError)


def verify_reasoning_gym(response: str, reference: str) -> Verdict:
    """Right only at a score of 1: scorers give 0.01 for no answer, and a share for one that contains the right one."""
    try:
        import reasoning_gym
    except ImportError:
        return Verdict(outcome="unknown", detail="reasoning-gym is not installed: pip install 'r1kit[gym]'")
    try:
        entry = json.loads(reference)
        scorer = reasoning_gym.get_score_answer_fn(entry["metadata"]["source_dataset"])
    except (KeyError, TypeError, ValueError) as error:
        return Verdict(outcome="unknown", detail=f"the reference is not an entry of reasoning-gym: {error!r}")
    answer = extract.extract(response)
    if answer is None or len(answer) > extract.MAX_ANSWER_CHARS:
        return Verdict(outcome="wrong", extracted=answer, detail="no answer, or one that is too long")
    try:
        return Verdict.of(scorer(answer, entry) >= 1.0, extracted=answer, detail="scored by the generator")
    except TEXT_FAULTS as error:  # scorers do not guard against text that they cannot parse; it earns no full score
        return Verdict(outcome="wrong", extracted=answer, detail=f"the generator's scorer cannot read it: {error!r}")
