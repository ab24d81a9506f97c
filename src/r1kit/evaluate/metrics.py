"""What evaluation records of one completion: verdict, format, readability, length, steps."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from r1kit import chat
from r1kit.curate import filters
from r1kit.curate.filters import Filter, FilterSpec
from r1kit.curate.record import CuratedSample, view
from r1kit.types import Completion, Message, Problem, Verdict
from r1kit.verifiers.language import LANGUAGES, is_mixed, share

# Filters for what the cold start calls readable (V1, section 2.3.1), without those that depend on the request.
READABLE = ("truncated", "long_paragraphs", "unreadable", "mixed_languages", "repetition")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """One judged completion, ready for JSON; `sample` counts a problem's completions from 0.

    `correct` is None if the verifier cannot tell. Lengths are in tokens, None if a server sent no token ids. `steps`
    counts marks of visible steps; `mixed` means more than one language. `language` is the share of words in the
    problem's language (equation 7), None if there are no words or the language is unknown. `readable` means that no
    filter for unreadable samples would drop it (None: not checked). `scores` are the verdict's finer counts, as pairs
    (count, of).
    """

    problem_id: str
    source: str
    sample: int
    correct: bool | None
    extracted: str | None
    well_formed: bool
    reasoning_tokens: int | None
    completion_tokens: int | None
    steps: int
    mixed: bool
    truncated: bool
    language: float | None = None
    readable: bool | None = None
    scores: Mapping[str, Sequence[int]] = field(default_factory=dict, hash=False)

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Scored:
        """Read a row of `completions.jsonl`; keys that are not fields (question, completion) are ignored."""
        needed = [column.name for column in fields(cls) if column.default is column.default_factory is MISSING]
        missing = [name for name in needed if name not in row]
        if missing:
            raise ValueError(
                f"a row of completions lacks {', '.join(missing)} (it has {', '.join(row) or 'nothing'}): "
                "write rows with dataclasses.asdict(Scored(...))"
            )
        return cls(**{column.name: row[column.name] for column in fields(cls) if column.name in row})


def score(
    problem: Problem,
    completion: Completion,
    verdict: Verdict,
    full_text: str,
    sample: int,
    count_tokens: Callable[[str], int] | None = None,
) -> Scored:
    """Measure one completion; `full_text` is the whole response, with the prompt's prefill.

    Steps and languages are measured on the whole response: a base model reasons before it knows any tag. Without
    `count_tokens`, lengths are known as far as the completion has token ids.
    """
    response = chat.parse(full_text)
    language = share(response.reasoning or full_text, problem.language) if problem.language in LANGUAGES else None
    reasoning_tokens = None
    if count_tokens is not None:
        reasoning_tokens = count_tokens(response.reasoning) if response.reasoning else 0
    has_ids = count_tokens is not None or completion.token_ids
    return Scored(
        problem_id=problem.id,
        source=problem.source,
        sample=sample,
        correct=verdict.correct,
        extracted=verdict.extracted,
        well_formed=response.well_formed,
        reasoning_tokens=reasoning_tokens,
        completion_tokens=len(completion.token_ids) if has_ids else None,
        steps=chat.count_steps(full_text),
        mixed=is_mixed(full_text),
        truncated=completion.finish_reason == "length",
        language=language,
        readable=is_readable(problem, completion, full_text),
        scores=verdict.scores,
    )


def is_readable(problem: Problem, completion: Completion, full_text: str) -> bool:
    """Whether a person could read it: one language, no loops, no walls of text, not cut off."""
    turns = (Message(role="user", content=problem.prompt), Message(role="assistant", content=full_text))
    source, language, finish_reason = problem.source, problem.language, completion.finish_reason
    sample = CuratedSample(id=problem.id, messages=turns, source=source, language=language, finish_reason=finish_reason)
    seen = view(sample)
    return all(rejects(seen) is None for rejects in _readable())


@functools.cache
def _readable() -> Sequence[Filter]:
    return tuple(filters.build([FilterSpec(name=name) for name in READABLE]).values())
