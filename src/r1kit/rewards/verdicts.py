"""Verdicts for rewards: each row is judged by the verifier it names.

A verifier that raises an error gives a verdict with the outcome "failed", never a zero. Such verdicts are counted
(`verifier/unknown`, `verifier/failed`) and shown beside the completion; above a rate of them the RL loop stops.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from r1kit import verifiers
from r1kit.rewards.inputs import names_column, references, texts
from r1kit.types import Verdict


def verdicts_of(
    completions: Sequence[Any], columns: Mapping[str, Any], default: str, reward: str
) -> list[Verdict | None]:
    """A verdict per completion, by the verifier that its row names; None for a row without a reference.

    References are in the column `answer`, or in `solution` for rows whose `answer` is empty. An error that a verifier
    raises becomes a verdict with the outcome "failed"; only a missing package is raised at once.
    """
    if not isinstance(default, str):
        remedy = "expected one name (a name per row goes into the column 'verifier')"
        raise ValueError(f"{reward}: default_verifier is {default!r:.60}: {remedy}")
    responses = texts(completions)
    expected = references(columns, len(responses), reward)
    verdicts: dict[int, Verdict] = {}
    by_name: dict[str, list[int]] = {}
    for row, name in enumerate(names_column("verifier", columns, len(responses), default, reward)):
        if expected[row]:
            by_name.setdefault(name, []).append(row)
    for name, rows in by_name.items():
        judged = verify(name, [responses[row] for row in rows], [expected[row] for row in rows])
        verdicts.update(zip(rows, judged, strict=True))
    return [verdicts.get(row) for row in range(len(responses))]


def report_verdicts(verdicts: Sequence[Verdict | None], columns: Mapping[str, Any], *, prefix: str = "") -> None:
    """Pass verdicts to the hooks among a reward function's `columns`; see `RewardFunction`.

    `prefix` comes before the names of the notes: TRL's table would mix the rows of two rewards that log one name.
    """
    outcomes = [verdict.outcome for verdict in verdicts if verdict is not None]
    if (log_metric := columns.get("log_metric")) is not None and outcomes:
        log_metric("verifier/unknown", sum(outcome in ("unknown", "failed") for outcome in outcomes) / len(outcomes))
        log_metric("verifier/failed", outcomes.count("failed") / len(outcomes))
    if (log_verdicts := columns.get("log_verdicts")) is not None:
        log_verdicts(verdicts)
    if (log_extra := columns.get("log_extra")) is not None:
        # "" and not None: a column that is null in one file and text in the next cannot be read back
        log_extra(f"{prefix}verdict", ["" if verdict is None else verdict.outcome for verdict in verdicts])
        log_extra(f"{prefix}extracted", ["" if verdict is None else verdict.extracted or "" for verdict in verdicts])
        log_extra(f"{prefix}detail", ["" if verdict is None else verdict.detail for verdict in verdicts])


def verify(name: str, responses: Sequence[str], references: Sequence[str]) -> list[Verdict]:
    """`verifiers.verify_all`, except that an error of the verifier becomes a verdict with the outcome "failed"."""
    verifiers.find(name)
    try:
        return verifiers.verify_all(name, responses, references)
    except ImportError:
        raise
    except Exception as error:  # counted and shown; above a rate of them the run stops
        if len(responses) == 1:
            return [Verdict.failed(f"{name} raised {type(error).__name__}: {error}"[:500])]
        # a single row may be the cause, and the others deserve their verdicts
        pairs = zip(responses, references, strict=True)
        return [verdict for pair in pairs for verdict in verify(name, pair[:1], pair[1:])]
