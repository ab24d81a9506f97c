"""The composite quality score: a weighted mean of a sample's scores, and the threshold for acceptance."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Self

from pydantic import Field, model_validator

from r1kit.curate.filters.protocol import Rejection
from r1kit.curate.record import CuratedSample
from r1kit.data.errors import DataError
from r1kit.settings import Settings, Weight

PART = "quality"  # the composite's name among a row's scores


class QualitySettings(Settings):
    """Weights of the parts (scores from 0 to 1), and the composite score from which a sample is accepted.

    A part that is None or missing does not apply, and the others divide its weight. Without a part in `required`, a
    sample has no composite score and is not accepted. Unknown is never a zero.
    """

    weights: dict[str, Weight] = Field(default={"accuracy": 0.4, "reasoning": 0.3, "language": 0.2, "format": 0.1})
    accept: float = Field(default=0.8, ge=0, le=1)
    required: tuple[str, ...] = ("accuracy",)

    @model_validator(mode="after")
    def _check_weights(self) -> Self:
        if not self.weights or any(weight <= 0 for weight in self.weights.values()):
            raise ValueError("weights must name at least one part, each with a weight above 0")
        unknown = [name for name in self.required if name not in self.weights]
        if unknown:
            raise ValueError(f"required names {', '.join(unknown)}, which has no weight: give it one or leave it out")
        return self


def parts_of(sample: CuratedSample) -> dict[str, float | None]:
    """The sample's scores; a missing accuracy is computed from the known verdicts."""
    parts = dict(sample.scores)
    if parts.get("accuracy") is None:
        known = [verdict.correct for verdict in sample.verdicts.values() if verdict.correct is not None]
        parts["accuracy"] = float(all(known)) if known else None
    return parts


def composite(parts: Mapping[str, float | None], settings: QualitySettings) -> float | None:
    """The weighted mean of the parts that apply; None without a required part.

    `composite({"accuracy": 1, "reasoning": 0.5, "language": 1, "format": 1}, QualitySettings()) == 0.85`.
    Raises `DataError` for a part outside 0 to 1.
    """
    known = {name: value for name in settings.weights if (value := parts.get(name)) is not None}
    for name, value in known.items():
        if not 0 <= value <= 1:
            raise DataError("wrong type", f"the value is {value}: expected a score from 0 to 1", field=f"scores.{name}")
    if not known or any(name not in known for name in settings.required):
        return None
    weight = math.fsum(settings.weights[name] for name in known)
    return round(math.fsum(settings.weights[name] * value for name, value in known.items()) / weight, 9)


def judge(score: float | None, parts: Mapping[str, float | None], settings: QualitySettings) -> Rejection | None:
    """The reason not to accept a sample with this composite score, or None."""
    if score is None:
        missing = [name for name in settings.required if parts.get(name) is None]
        return Rejection(reason="no quality score", detail=f"missing: {', '.join(missing) or 'all parts'}")
    if score >= settings.accept:
        return None
    known = ", ".join(f"{name} {value:.2f}" for name in settings.weights if (value := parts.get(name)) is not None)
    return Rejection(reason="low quality", detail=f"{score:.3f}, at least {settings.accept:g} ({known})")
