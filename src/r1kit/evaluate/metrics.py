"""What evaluation keeps of one completion: right or wrong, in form or not, readable or not, how long, in how many
steps."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any

from r1kit import chat
from r1kit.curate import filters
from r1kit.curate.filters import Filter, FilterSpec
from r1kit.curate.record import CuratedSample, view
from r1kit.types import Completion, Message, Problem, Verdict
from r1kit.verifiers.language import LANGUAGES, is_mixed, share

# What the cold start calls readable (V1, section 2.3.1), as far as it does not hang on what is asked.
READABLE = ("truncated", "long_paragraphs", "unreadable", "mixed_languages", "repetition")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """One judged completion, ready for JSON; `sample` counts a problem's completions from 0.

    `correct` is None where the verifier cannot tell. Lengths are in tokens; `mixed` means more than one language.
    `language` is the share of words in the problem's language (equation 7), None without words or where nobody says
    which one that is; `readable` says that no filter for unreadable samples would drop it (None: not looked at).
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
    language: float | None = None
    readable: bool | None = None

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Scored:
        """Read a row of `completions.jsonl`; keys beside the record's own (question, completion) are left aside."""
        missing = [field.name for field in fields(cls) if field.default is MISSING and field.name not in row]
        if missing:
            raise ValueError(
                f"a row of completions lacks {', '.join(missing)} (it has {', '.join(row) or 'nothing'}): "
                "write rows with dataclasses.asdict(Scored(...))"
            )
        return cls(**{field.name: row[field.name] for field in fields(cls) if field.name in row})


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
        language=in_language(response, full_text, problem.language),
        readable=is_readable(problem, completion, full_text),
    )


def in_language(response: chat.Response, full_text: str, language: str) -> float | None:
    """Words in a language over all words of the reasoning; of the whole text where there is no reasoning."""
    return share(response.reasoning or full_text, language) if language in LANGUAGES else None


def is_readable(problem: Problem, completion: Completion, full_text: str) -> bool:
    """Whether a person could read it through: one language, no loops, no walls of text, not cut off."""
    turns = (Message(role="user", content=problem.prompt), Message(role="assistant", content=full_text))
    seen = view(
        CuratedSample(
            id=problem.id,
            messages=turns,
            source=problem.source,
            language=problem.language,
            finish_reason=completion.finish_reason,
        )
    )
    return all(rejects(seen) is None for rejects in _readable())


@functools.cache
def _readable() -> Sequence[Filter]:
    return tuple(filters.build([FilterSpec(name=name) for name in READABLE]).values())
