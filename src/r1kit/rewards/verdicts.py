"""Verdicts for rewards: each row by its own verifier, and a verifier that breaks is told from a reference that is bad.

A verdict without an answer is never a zero. It is counted (`verifier/unknown`, `verifier/failed`), noted beside the
completion, and the RL loop stops above a rate of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

from r1kit import verifiers
from r1kit.rewards.columns import names, references, texts
from r1kit.types import Rollout, Verdict
from r1kit.verifiers.failure import failed, has_failed

Outcome = Literal["right", "wrong", "unknown", "failed"]
OUTCOMES = get_args(Outcome)


def outcome(verdict: Verdict) -> Outcome:
    """Right, wrong, unknown (the reference cannot be used) or failed (the verifier broke, or ran out of time)."""
    if verdict.correct is None:
        return "failed" if has_failed(verdict) else "unknown"
    return "right" if verdict.correct else "wrong"


def is_undecided(note: Mapping[str, Any]) -> bool:
    """Whether a reward function's notes say that it could not judge the completion: no verdict, or no score."""
    return any(
        (name.endswith("verdict") and value in ("unknown", "failed")) or (name.endswith("not_scored") and value is True)
        for name, value in note.items()
    )


def noted(rollout: Rollout, name: Literal["verdict", "extracted", "detail"]) -> str | None:
    """What the first reward that judged a rollout noted of it; None where none did."""
    notes = rollout.reward.notes
    verdicts = [key for key, value in notes.items() if key.endswith("verdict") and value in OUTCOMES]
    found = notes.get(verdicts[0].removesuffix("verdict") + name) if verdicts else None
    return str(found) if found else None


def judge(completions: Sequence[Any], columns: Mapping[str, Any], default: str, reward: str) -> list[Verdict | None]:
    """A verdict per completion, each row by the verifier that it names; None where a row has no reference at all.

    References stand in the column `answer`, or `solution` in rows where that holds none. An error that a verifier
    raises becomes a verdict that says so; only a package that is missing stops at once.
    """
    if not isinstance(default, str):
        raise ValueError(f"{reward}: default_verifier is {default!r:.60}: expected a name; is there a column of it?")
    responses = texts(completions)
    known = references(columns, len(responses), reward)
    verdicts: dict[int, Verdict] = {}
    by_name: dict[str, list[int]] = {}
    for row, name in enumerate(names("verifier", columns, len(responses), default, reward)):
        if known[row]:
            by_name.setdefault(name, []).append(row)
    for name, rows in by_name.items():
        judged = verify(name, [responses[row] for row in rows], [known[row] for row in rows])
        verdicts.update(zip(rows, judged, strict=True))
    return [verdicts.get(row) for row in range(len(responses))]


def tell(
    verdicts: Sequence[Verdict | None],
    log_metric: Callable[[str, float], None] | None,
    log_extra: Callable[[str, list[Any]], None] | None,
    prefix: str = "",
) -> None:
    """Log the shares of verdicts that could not be given, and the verdicts beside the completions (TRL's hooks).

    `prefix` comes before the names of the notes: two rewards that log one name would mix their rows in TRL's table.
    """
    found = ["" if verdict is None else outcome(verdict) for verdict in verdicts]
    judged = [one for one in found if one]
    if log_metric is not None and judged:
        log_metric("verifier/unknown", sum(one in ("unknown", "failed") for one in judged) / len(judged))
        log_metric("verifier/failed", judged.count("failed") / len(judged))
    if log_extra is not None:  # texts only: a column that is null in one file and text in the next cannot be read back
        log_extra(f"{prefix}verdict", found)
        log_extra(f"{prefix}extracted", ["" if verdict is None else verdict.extracted or "" for verdict in verdicts])
        log_extra(f"{prefix}detail", ["" if verdict is None else verdict.detail for verdict in verdicts])


def verify(name: str, responses: Sequence[str], references: Sequence[str]) -> list[Verdict]:
    """As `verifiers.verify_all`, but an error that a verifier raises becomes a verdict that says so."""
    verifiers.find(name)
    try:
        return verifiers.verify_all(name, responses, references)
    except ImportError:
        raise
    except Exception:  # one row may have broken it: the others keep their verdicts
        return [_guarded(name, *pair) for pair in zip(responses, references, strict=True)]


def _guarded(name: str, response: str, reference: str) -> Verdict:
    try:
        return verifiers.verify_all(name, [response], [reference])[0]
    except ImportError:
        raise
    except Exception as error:  # not hidden: counted, shown, and above a rate the run stops
        return failed(f"{name} raised {type(error).__name__}: {error}"[:500])
