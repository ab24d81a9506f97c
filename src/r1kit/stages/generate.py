"""The stage `generate`: sample, judge, keep. Cold start, rejection sampling, general data and the data of V3's experts
are this with other ways of asking.

Inputs: `model` (a model's folder; or the setting `engine`), `requests` or `requests/NAME` (instruction files, beside or
in place of `tasks`), and the folders of local models `judge` and `rewriter` (or the settings of those names).

Leaves `samples.jsonl` (every sample with its verdicts and scores), `kept.jsonl` (what the stage `sft` reads),
`dropped.jsonl` (the others, with reasons) and `funnel.json` (in, out, why, examples). With a rewriter, what it is given
lies in `selected/` and what it wrote in `rewritten.jsonl`. Rows are those of `curate.record`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationInfo, field_validator, model_validator

from r1kit.collect.loops import Making, rewrite, sample
from r1kit.collect.rating import Rater
from r1kit.collect.requests import Requests
from r1kit.collect.rewriting import Rewriter, RewriteSettings
from r1kit.collect.teachers import AskingSettings, Engines, check_asked, name_of, open_asked
from r1kit.curate import presets
from r1kit.curate.curation import CurateSettings, Curation, curate
from r1kit.curate.decontaminate import evaluation_sets
from r1kit.curate.funnel import FunnelStep
from r1kit.data.journal import Journal
from r1kit.data.jsonl import lines
from r1kit.engines import Engine
from r1kit.engines.engine_settings import EngineSettings, LocalEngineSettings
from r1kit.judges import RUBRICS, GenerativeVerifier, JudgeSettings, RubricJudge
from r1kit.pipeline import Context, Kind
from r1kit.settings import NOT_HASHED, listed
from r1kit.store import write_json
from r1kit.tasks import TaskSpec

CURATED: Mapping[str, CurateSettings] = {
    "own": presets.REJECTION,
    "few_shot": presets.COLD_START,
    "reflect": presets.COLD_START,
    "general": presets.GENERAL,
    "reference": presets.GENERAL,
}


class GenerateSettings(AskingSettings):
    """Who is asked what, how replies are judged, and which are kept.

    `judge` compares with the reference where a rule cannot, and scores replies to general requests. `rewriter` makes
    readable what was kept; without one it stays as it is. `curate` starts from `curate.presets`, by `prompting`.
    """

    tasks: tuple[TaskSpec, ...] = ()
    judge: EngineSettings | None = Field(
        None, description="None: the local model of the input 'judge', if there is one"
    )
    judging: JudgeSettings = JudgeSettings()
    judge_sources: tuple[str, ...] = Field((), description="patterns of sources on which the judge decides, not rules")
    judge_reasoning: bool = Field(False, description="the judge scores the reasoning, in place of the rule for it")
    rewriter: EngineSettings | None = Field(
        None, description="None: the model of the input 'rewriter', if there is one"
    )
    rewriting: RewriteSettings = RewriteSettings()
    curate: CurateSettings = Field(default_factory=lambda values: CURATED[values["prompting"]])
    rewritten: CurateSettings = Field(presets.REWRITTEN, description="as curate, for what the rewriter wrote")
    evaluation_sets: tuple[TaskSpec, ...] = Field((), description="all in use: what they hold is dropped")
    may_be_empty: bool = Field(
        False, description="go on where no sample was kept, as one of several sources can", json_schema_extra=NOT_HASHED
    )
    workers: int = Field(1, ge=1, description="processes that curate", json_schema_extra=NOT_HASHED)

    _lists = field_validator("tasks", "evaluation_sets", "judge_sources", mode="before")(listed)

    @field_validator("curate", "rewritten", mode="before")
    @classmethod
    def _on_presets(cls, value: Any, info: ValidationInfo) -> Any:
        """Some fields change the preset, and leave the rest of it."""
        if not isinstance(value, Mapping) or "prompting" not in info.data:
            return value
        preset = presets.REWRITTEN if info.field_name == "rewritten" else CURATED[info.data["prompting"]]
        return {**preset.model_dump(), **value}

    @model_validator(mode="after")
    def _sets_tell_apart(self) -> GenerateSettings:
        names = [spec.name for spec in self.evaluation_sets]
        if len(set(names)) < len(names):
            raise ValueError(f"evaluation_sets are {', '.join(names)}: name each once")
        return self


def check(context: Context) -> None:
    """Refuse models, tasks, files and evaluation sets that cannot be used, before any work starts."""
    settings: GenerateSettings = context.settings
    check_asked(context)
    for name in ("judge", "rewriter"):
        if name in context.paths and getattr(settings, name) is not None:
            raise ValueError(f"stage {context.stage} has the input {name!r} and the setting {name}: give one of them")
    judges = settings.judge is not None or "judge" in context.paths
    if (settings.judge_sources or settings.judge_reasoning) and not judges:
        raise ValueError("judge_sources and judge_reasoning need a judge: set judge, or give the input 'judge'")
    _requests(context).check()
    evaluation_sets(settings.evaluation_sets)


def run(context: Context) -> Mapping[str, Any]:
    """Sample, judge, curate and, with a rewriter, rewrite and curate again; see the text of the module."""
    settings: GenerateSettings = context.settings
    path, rewrites = context.folder / "samples.jsonl", _is_given(context, "rewriter")
    with Engines(context.progress.say) as engines:
        counts, steps = _sampled(context, engines, path)
        curation = _curated(context, path, context.folder / "selected" if rewrites else context.folder, settings.curate)
        steps += curation.funnel
        if rewrites:
            counts = counts + _rewritten(context, engines, curation.kept_file)
            path = context.folder / "rewritten.jsonl"
            curation = _curated(context, path, context.folder, settings.rewritten)
            steps += [replace(step, name=f"rewritten: {step.name}") for step in curation.funnel]
    return _reported(context, curation, steps, counts)


def _sampled(context: Context, engines: Engines, path: Path) -> tuple[Counter[str], list[FunnelStep]]:
    """Make samples.jsonl; what was counted on the way. With the return a local policy makes room for a rewriter."""
    with Journal(path) as journal:
        if not journal.done:
            making = Making(context.stage, context.settings, open_asked(context, engines), _rater(context, engines))
            sample(making, _requests(context), journal, context.progress)
        left_out = journal.counts["prompts left out"]
        reasons = {"prompt too long or refused": left_out} if left_out else {}
        step = FunnelStep(name="sampling", rows_in=journal.counts["asked"], rows_out=journal.rows, reasons=reasons)
        return journal.counts, [step]


def _rewritten(context: Context, engines: Engines, selected: Path) -> Counter[str]:
    """Make rewritten.jsonl; what was counted on the way."""
    settings: GenerateSettings = context.settings
    with Journal(context.folder / "rewritten.jsonl") as journal:
        if not journal.done:
            engine, model = _given(context, engines, "rewriter")
            rewriter = Rewriter(engine, model, settings.rewriting, settings.format, settings.seed)
            rewrite(selected, rewriter, _rater(context, engines), journal, context.progress)
        return journal.counts


def _curated(context: Context, rows: Path, folder: Path, settings: CurateSettings) -> Curation:
    """Curate rows of our own making; one that cannot be read back, a reply of megabytes, is dropped and counted."""
    given: GenerateSettings = context.settings
    total = sum(1 for _ in lines(rows))
    settings = settings.replace(skip_invalid=True)
    return curate(
        [rows],
        folder,
        settings,
        evaluation=evaluation_sets(given.evaluation_sets),
        workers=given.workers,
        progress=lambda phase, done: context.progress.step(done, total, {"phase": phase}),
    )


def _reported(
    context: Context, curation: Curation, steps: Sequence[FunnelStep], counts: Mapping[str, int]
) -> Mapping[str, Any]:
    """Write funnel.json; the metrics. Raises ValueError where nothing was kept and something has to be."""
    facts = {"asked": counts["asked"], "samples": steps[0].rows_out, "kept": curation.kept}
    funnel = {"funnel": [step.to_json() for step in steps], "decontamination": list(curation.decontamination)}
    write_json(context.folder / "funnel.json", {**facts, **funnel, "counts": dict(sorted(counts.items()))})
    if not curation.kept and not context.settings.may_be_empty:
        reasons = sum((Counter(step.reasons) for step in steps), Counter[str]())
        most = ", ".join(f"{name} {count:,}" for name, count in reasons.most_common(3))
        raise ValueError(
            f"none of {facts['samples']:,} samples was kept ({most}): see {context.folder / 'funnel.json'}"
        )
    return {**facts, **{name: count for name, count in counts.items() if name != "asked"}}


def _requests(context: Context) -> Requests:
    files = {name.lstrip("/"): path for name, path in context.inputs("requests").items()}
    return Requests(context.settings.tasks, files)


def _rater(context: Context, engines: Engines) -> Rater:
    """Rules, and the judge where there is one."""
    settings: GenerateSettings = context.settings
    if not _is_given(context, "judge") or settings.prompting == "reference":
        return Rater()
    engine, _ = _given(context, engines, "judge")
    if settings.prompting == "general":
        return Rater(helpful=RubricJudge(engine, RUBRICS["helpfulness"], settings.judging))
    depth = RubricJudge(engine, RUBRICS["reasoning_quality"], settings.judging) if settings.judge_reasoning else None
    return Rater(GenerativeVerifier(engine, settings.judging), depth=depth, judge_sources=settings.judge_sources)


def _is_given(context: Context, name: str) -> bool:
    return name in context.paths or getattr(context.settings, name) is not None


def _given(context: Context, engines: Engines, name: str) -> tuple[Engine, str]:
    """A judge or a rewriter, and its name for the rows."""
    settings: GenerateSettings = context.settings
    given: EngineSettings | None = getattr(settings, name)
    if given is not None:
        return engines.open(given), given.model
    folder = context.input(name)
    local = LocalEngineSettings(model=str(folder), device=settings.device, max_rows=settings.max_rows)
    return engines.open(local), name_of(folder)


GENERATE = Kind(name="generate", run=run, settings=GenerateSettings, version=2, check=check)
