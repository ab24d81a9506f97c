"""What evaluation keeps of one completion: right or wrong, in form or not, how long, in how many steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from r1kit import chat
from r1kit.types import Completion, Problem, Verdict
from r1kit.verifiers.language import is_mixed


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """One judged completion, ready for JSON; `sample` counts a problem's completions from 0.

    `correct` is None where the verifier cannot tell. Lengths are in tokens; `mixed` means more than one language.
    """

    problem_id: str
    source: str
    sample: int
    correct: bool | None
    extracted: str | None
    well_formed: bool
    reasoning_tokens: int
    completion_tokens: int
    steps: int
    mixed: bool
    truncated: bool

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Scored:
        """Read a row of `completions.jsonl`; keys beside the record's own (question, completion) are left aside."""
        missing = [field.name for field in fields(cls) if field.name not in row]
        if missing:
            raise ValueError(
                f"a row of completions lacks {', '.join(missing)} (it has {', '.join(row) or 'nothing'}): "
                "write rows with dataclasses.asdict(Scored(...))"
            )
        return cls(**{field.name: row[field.name] for field in fields(cls)})


def score(
    problem: Problem,
    completion: Completion,
    verdict: Verdict,
    full_text: str,
    sample: int,
    count_tokens: Callable[[str], int],
) -> Scored:
    """Measure one completion; `full_text` is the whole response, what the prompt prefilled included.

    Steps and languages are looked for in the whole response: a base model reasons before it knows any tag.
    """
    response = chat.parse(full_text)
    return Scored(
        problem_id=problem.id,
        source=problem.source,
        sample=sample,
        correct=verdict.correct,
        extracted=verdict.extracted,
        well_formed=response.well_formed,
        reasoning_tokens=count_tokens(response.reasoning) if response.reasoning else 0,
        completion_tokens=len(completion.token_ids),
        steps=chat.count_steps(full_text),
        mixed=is_mixed(full_text),
        truncated=completion.finish_reason == "length",
    )
