"""Curation of training data at any size: filters, quality, decontamination, duplicates, balance and mixing."""

from __future__ import annotations

from r1kit.curate.balance import BalanceSettings
from r1kit.curate.curation import CurateSettings, Curation, curate
from r1kit.curate.decontaminate import DecontaminationSettings, evaluation_sets
from r1kit.curate.duplicates import NearDuplicates
from r1kit.curate.filters import FILTERS, FilterSpec
from r1kit.curate.formats import FORMATS, convert
from r1kit.curate.mixing import MixSettings, mix
from r1kit.curate.quality import QualitySettings, composite
from r1kit.curate.record import CuratedSample, from_row, reformat

__all__ = [
    "FILTERS",
    "FORMATS",
    "BalanceSettings",
    "CurateSettings",
    "CuratedSample",
    "Curation",
    "DecontaminationSettings",
    "FilterSpec",
    "MixSettings",
    "NearDuplicates",
    "QualitySettings",
    "composite",
    "convert",
    "curate",
    "evaluation_sets",
    "from_row",
    "mix",
    "reformat",
]
