"""Curation presets by kind of sample. Stages start from them; a recipe changes single fields."""

from __future__ import annotations

from r1kit.curate.balance import BalanceSettings
from r1kit.curate.curation import DEFAULT_FILTERS, CurateSettings
from r1kit.curate.filters import FilterSpec
from r1kit.curate.quality import QualitySettings


def _filters(*names: str) -> tuple[FilterSpec, ...]:
    return tuple(FilterSpec(name=name) for name in names)


# V1, section 2.3.1: correct and readable samples whose summary follows from the reasoning.
COLD_START = CurateSettings(
    filters=_filters("not_correct", *DEFAULT_FILTERS, "unfaithful_summary"), balance=BalanceSettings(per_problem=1)
)
# Worked solutions of the data: none that its reference calls wrong. Their paragraphs are as their authors wrote them.
TRACES = CurateSettings(
    filters=(
        FilterSpec(name="not_correct", options={"keep_unknown": True}),
        *_filters(*[name for name in DEFAULT_FILTERS if name != "long_paragraphs"], "unfaithful_summary"),
    ),
    balance=BalanceSettings(per_problem=1),
)
# V1, section 2.3.3: correct samples without mixed languages, long paragraphs or code blocks; then the composite score.
REJECTION = CurateSettings(filters=_filters("not_correct", *DEFAULT_FILTERS), quality=QualitySettings())
# Requests without a reference: none is known to be correct, and a simple one is answered without the format.
GENERAL = CurateSettings(
    filters=_filters(*[name for name in DEFAULT_FILTERS if name != "not_in_format"]),
    balance=BalanceSettings(per_problem=1),
)
# Rewritten samples: duplicates and balance are dealt with before rewriting.
REWRITTEN = CurateSettings(
    filters=(
        FilterSpec(name="truncated"),
        FilterSpec(name="not_in_format", label="rewriting not in the format"),
        FilterSpec(name="not_correct", label="answer changed"),
        *_filters(*[name for name in DEFAULT_FILTERS if name not in ("truncated", "not_in_format")]),
        FilterSpec(name="unfaithful_summary"),
    ),
    near_duplicates=(),
    balance=BalanceSettings(per_problem=None),
)
