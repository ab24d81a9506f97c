"""Filters: each returns why a sample is dropped, with an example. To add one, write a factory and list it here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from pydantic import Field, ValidationError, field_validator, model_validator, validate_call

from r1kit.curate.filters.content import get_low_score, get_not_correct, get_unfaithful_summary, get_unreadable
from r1kit.curate.filters.form import (
    get_code_blocks,
    get_long_paragraphs,
    get_not_in_format,
    get_too_long,
    get_too_short,
    get_truncated,
)
from r1kit.curate.filters.language import get_mixed_languages, get_wrong_language
from r1kit.curate.filters.protocol import Filter, Rejection
from r1kit.curate.filters.repetition import get_repetition
from r1kit.curate.record import View
from r1kit.settings import ForSources, nearest, readable

__all__ = ["FILTERS", "Filter", "FilterSpec", "Rejection", "build"]

FILTERS: dict[str, Callable[..., Filter]] = {  # the cheap ones first
    "not_correct": get_not_correct,
    "low_score": get_low_score,
    "truncated": get_truncated,
    "too_long": get_too_long,
    "too_short": get_too_short,
    "not_in_format": get_not_in_format,
    "code_blocks": get_code_blocks,
    "long_paragraphs": get_long_paragraphs,
    "unreadable": get_unreadable,
    "mixed_languages": get_mixed_languages,
    "wrong_language": get_wrong_language,
    "unfaithful_summary": get_unfaithful_summary,
    "repetition": get_repetition,
}


class FilterSpec(ForSources):
    """One filter of a stage: `FilterSpec(name="code_blocks", skip=("code*",))`; `options` go to its factory."""

    name: str
    options: dict[str, Any] = Field(default_factory=dict)
    label: str = Field(default="", description="its name in the funnel; empty: the filter's name")

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        """Plain text is the name."""
        return {"name": value} if isinstance(value, str) else value

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name in FILTERS:
            return name
        raise ValueError(f"there is no filter {name!r}: {nearest(name, FILTERS)}")

    @model_validator(mode="after")
    def _check_options(self) -> FilterSpec:
        _make(self)
        return self

    @property
    def title(self) -> str:
        return self.label or self.name


def build(specs: Sequence[FilterSpec]) -> dict[str, Filter]:
    """The filters by title, in order, each limited to the sources of its spec."""

    def limited(spec: FilterSpec, rule: Filter, view: View) -> Rejection | None:
        return rule(view) if spec.is_for(view.sample.source) else None

    rules = {spec.title: (spec, _make(spec)) for spec in specs}
    return {
        title: partial(limited, spec, rule) if spec.only or spec.skip else rule for title, (spec, rule) in rules.items()
    }


def _make(spec: FilterSpec) -> Filter:
    """Call the factory with validated options; raises ValueError that names the wrong option."""
    try:
        rule: Filter = validate_call(FILTERS[spec.name])(**spec.options)
    except ValidationError as error:
        lines = [readable(item, ".".join(map(str, item["loc"]))) for item in error.errors()]
        raise ValueError(f"filter {spec.name}: {'; '.join(lines)}") from None
    return rule
