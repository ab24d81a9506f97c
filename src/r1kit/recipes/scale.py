"""A scale: how large every stage of the recipes is, and on which data. What a stage is for, the recipe says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field

from r1kit.collect.prompting import REFLECT_SYSTEM
from r1kit.curate import presets
from r1kit.curate.curation import CurateSettings
from r1kit.rewards import RewardSpec
from r1kit.settings import Settings, SettingsError, Weight
from r1kit.train.losses.policy_settings import PRESETS, GRPOSettings

# Fields of one stage's settings: steps, rows, lengths, rates, tasks and prompt formats. The stage's kind validates them
# together with what the recipe adds.
Sizes = dict[str, Any]
P = TypeVar("P")


class Departures(Settings):
    """Where a scale must depart from the paper's ideas. The defaults are the paper's; a scale says why it differs."""

    zero_format: dict[str, float] = Field(default={"format": 1.0})  # R1-Zero's format rewards
    rule_weights: tuple[Weight, Weight, Weight] = (1.0, 1.0, 1.0)  # accuracy, format, language (V2, equation 7)
    language: RewardSpec = RewardSpec(name="language_consistency")
    requests_in_format: bool = True  # R1 also thinks before it answers a general request
    zero_algorithm: GRPOSettings = PRESETS["paper"]
    # Eps is 10 in both RL stages of R1 (V2, section 3.2.1). The range of the ratio is [-9, 11]: the lower bound never
    # acts, and only ratios above 11 of completions with a positive advantage are clipped.
    algorithm: GRPOSettings = PRESETS["paper"].replace(clip_low=10.0, clip_high=10.0)
    v3_algorithm: GRPOSettings = PRESETS["paper"]
    temperature: float = 1.0  # of R1-Zero and of RL stage 1
    balance_lengths: bool = True  # of the pairs for helpfulness
    cold_start: CurateSettings = presets.COLD_START
    rejection: CurateSettings = presets.REJECTION
    general: CurateSettings = presets.GENERAL
    reflection: str = REFLECT_SYSTEM  # the system prompt that asks for reflection and verification
    original: Literal["own", "reference"] = "reference"  # who writes V3's original responses: the base or the data


@dataclass(frozen=True, kw_only=True)
class R1Sizes:
    """The sizes of R1's stages and of its students, in the order of the recipe.

    `traces`, `trace_files`: worked solutions for the cold start; without `from_zero` they stand in place of R1-Zero's
    samples. `request_files` are public sets or files for `requests`; without any it writes the tiny world's. With
    `replies`, Dev3 answers requests several times, and the judge in `preferences` compares its answers. Reward models
    start from the model `judge`, from Dev3 if it is empty, and not at all if it is None. `student` is the
    students' base; empty: there are none. `logits`: whether it has the teacher's tokens.
    """

    traces: Sizes = field(default_factory=Sizes)
    trace_files: tuple[Path, ...] = ()
    from_zero: bool = True
    zero: Sizes
    few_shot: Sizes
    reflect: Sizes
    cold_start: Sizes
    review: Sizes = field(default_factory=Sizes)
    dev1: Sizes
    dev2: Sizes
    rejection: Sizes
    requests: Sizes
    request_files: Mapping[str, str] = field(default_factory=dict)
    general: Sizes = field(default_factory=Sizes)
    mix: Sizes = field(default_factory=Sizes)
    dev3: Sizes
    rules: Sizes
    judge: str | None = ""
    replies: Sizes = field(default_factory=Sizes)
    preferences: Sizes = field(default_factory=Sizes)
    helpfulness: Sizes
    safety: Sizes
    r1: Sizes

    student: str
    logits: bool = True
    student_rl: Sizes
    student_sft: Sizes
    student_logits: Sizes
    student_on_policy: Sizes | None = None

    eval: Sizes
    everyday: Sizes


@dataclass(frozen=True, kw_only=True)
class ExpertSizes:
    """The sizes of one domain's expert in DeepSeek-V3's post-training."""

    original: Sizes
    reflected: Sizes
    start: Sizes
    rl: Sizes
    data: Sizes


@dataclass(frozen=True, kw_only=True)
class V3Sizes:
    """The sizes of DeepSeek-V3's post-training; what it shares with R1 is in `R1Sizes`."""

    experts: Mapping[str, ExpertSizes]
    mix: Sizes = field(default_factory=Sizes)
    sft: Sizes
    rl: Sizes


@dataclass(frozen=True, kw_only=True)
class V4Sizes:
    """The sizes of DeepSeek-V4's post-training. `domains` are patterns of the sources of each expert's problems."""

    experts: Mapping[str, ExpertSizes]
    domains: Mapping[str, tuple[str, ...]]
    start: Sizes
    merge: Sizes
    sft: Sizes
    rl: Sizes


@dataclass(frozen=True, kw_only=True)
class Fit:
    """The facts that a scale is fitted to: the base, the students' base and their teacher if there are any, the device
    (None: this machine's) and how many share a training stage, and the data by role."""

    model: str
    student: str | None = None
    teacher: str | None = None
    hardware: str | None = None
    devices: int = 1
    data: Mapping[str, Any] = field(default_factory=dict)
    rehearse: bool = False


@dataclass(frozen=True, kw_only=True)
class Scale:
    """A base model by name, with sizes and data for it. `zero` and `eval` are R1-Zero's.

    `planned`: the model and the data need not exist, because the scale is only for `r1kit plan`. `lengths` are mean
    tokens per completion by stage, for estimates. `light`: one core is enough for its model (see `Recipe`). `largest`:
    the parameters of the largest model that its learning rates and problems are for; None: any. `notes` are for people.
    `fit` is the scale's sizes for a model, a device and data by role; without it they are the same for all.
    """

    name: str
    model: str
    zero: Sizes
    eval: Sizes
    r1: R1Sizes | None = None
    v3: V3Sizes | None = None
    v4: V4Sizes | None = None
    departures: Departures = field(default_factory=Departures)
    planned: bool = False
    light: bool = False
    lengths: Mapping[str, int] = field(default_factory=dict)
    largest: float | None = None
    notes: tuple[str, ...] = ()
    fit: Callable[[Fit], Scale] | None = None

    @property
    def for_r1(self) -> R1Sizes:
        """The sizes of R1; raises `SettingsError` if the scale has none."""
        return self._present(self.r1, "r1")

    @property
    def for_v3(self) -> V3Sizes:
        """The sizes of V3; raises `SettingsError` if the scale has none."""
        return self._present(self.v3, "v3")

    @property
    def for_v4(self) -> V4Sizes:
        """The sizes of V4; raises `SettingsError` if the scale has none."""
        return self._present(self.v4, "v4")

    def _present(self, sizes: P | None, name: str) -> P:
        if sizes is None:
            raise SettingsError(f"scale {self.name} has no sizes for {name}: name another scale, or give it {name}=...")
        return sizes
