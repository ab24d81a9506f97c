"""The stage `generate`: sample, judge, keep.

Cold start, rejection sampling, general data and the data of V3's experts differ only in prompting and curation.

Inputs: `model` (a model's folder; or the setting `engine`), `requests` or `requests/NAME` (instruction files, in
addition to `tasks` or instead), and the folders of local models `judge` and `rewriter` (or those settings).

Leaves `samples.jsonl` (every sample with its verdicts and scores), `kept.jsonl` (the input of the stage `sft`),
`dropped.jsonl` (the others, with reasons) and `funnel.json` (counts in and out, reasons, examples). With a rewriter,
`selected/` holds its input and `rewritten.jsonl` its output. Rows have the form of `curate.record`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationInfo, field_validator, model_validator

from r1kit.collect.loops import Generation, rewrite_all, sample_all
from r1kit.collect.rating import Rater, useless_helpers
from r1kit.collect.replicas import replicated_answers
from r1kit.collect.requests import Requests
from r1kit.collect.responses import Engines, ResponseSettings, check_responses, name_of, open_responses
from r1kit.collect.rewriting import Rewriter, RewriteSettings
from r1kit.curate import presets
from r1kit.curate.curation import CurateSettings, Curation, curate
from r1kit.curate.decontaminate import evaluation_sets
from r1kit.curate.facts import DECONTAMINATION
from r1kit.curate.funnel import FunnelStep
from r1kit.data.journal import Journal
from r1kit.data.jsonl import lines
from r1kit.engines import Engine
from r1kit.engines.engine_settings import EngineSettings, LocalEngineSettings
from r1kit.judges import RUBRICS, GenerativeVerifier, JudgeSettings, RubricJudge
from r1kit.pipeline import Context, Kind, Stage, Work
from r1kit.settings import listed, unhashed
from r1kit.stages.shared.costs import problem_count, rows_unchanged, sampling_work, worked_length
from r1kit.stages.shared.sources import answers_on_device, engine_sources, sources
from r1kit.store import write_json
from r1kit.tasks import TaskSpec, say_readings

KEPT_SHARE = 0.25  # of the samples, assumed for estimates
CURATED: Mapping[str, CurateSettings] = {
    "own": presets.REJECTION,
    "few_shot": presets.COLD_START,
    "reflect": presets.COLD_START,
    "general": presets.GENERAL,
    "reference": presets.GENERAL,
    "traces": presets.TRACES,
}


class GenerateSettings(ResponseSettings):
    """The requests, how responses are sampled and judged, and which samples are kept.

    `judge` compares with the reference if no rule can, and scores responses to general requests. `rewriter` makes the
    kept responses readable. `curate` starts from the preset of `curate.presets` that belongs to `prompting`.
    """

    tasks: tuple[TaskSpec, ...] = ()
    judge: EngineSettings | None = Field(None, description="None: the local model of the input 'judge', if any")
    judging: JudgeSettings = JudgeSettings()
    judge_sources: tuple[str, ...] = Field((), description="patterns of sources for which the judge replaces the rules")
    judge_reasoning: bool = Field(False, description="the judge scores the reasoning, in place of the rule")
    rewriter: EngineSettings | None = Field(None, description="None: the model of the input 'rewriter', if any")
    rewriting: RewriteSettings = RewriteSettings()
    curate: CurateSettings = Field(default_factory=lambda values: CURATED[values["prompting"]])
    rewritten: CurateSettings = Field(presets.REWRITTEN, description="as curate, for the rewritten samples")
    evaluation_sets: tuple[TaskSpec, ...] = Field(
        (), description="all in use: samples that overlap with them are dropped"
    )
    may_be_empty: bool = unhashed(False, description="continue if no sample was kept, for one of several sources")
    workers: int = unhashed(1, ge=1, description="processes that curate")

    _lists = field_validator("tasks", "evaluation_sets", "judge_sources", mode="before")(listed)

    @field_validator("curate", "rewritten", mode="before")
    @classmethod
    def _on_presets(cls, value: Any, info: ValidationInfo) -> Any:
        """Apply the given fields on top of the preset."""
        if not isinstance(value, Mapping) or "prompting" not in info.data:
            return value
        preset = presets.REWRITTEN if info.field_name == "rewritten" else CURATED[info.data["prompting"]]
        return {**preset.model_dump(), **value}

    @model_validator(mode="after")
    def _check_set_names(self) -> GenerateSettings:
        names = [spec.name for spec in self.evaluation_sets]
        if len(set(names)) < len(names):
            raise ValueError(f"evaluation_sets are {', '.join(names)}: name each once")
        return self


def check(context: Context) -> None:
    """Raise ValueError for models, tasks, files and evaluation sets that cannot be used, before any work starts."""
    settings: GenerateSettings = context.settings
    check_responses(context)
    for name in ("judge", "rewriter"):
        if name in context.paths and getattr(settings, name) is not None:
            raise ValueError(f"stage {context.stage} has the input {name!r} and the setting {name}: give one of them")
    if (settings.judge_sources or settings.judge_reasoning) and not _has(context, "judge"):
        raise ValueError("judge_sources and judge_reasoning need a judge: set judge, or give the input 'judge'")
    _requests(context).check()
    evaluation_sets(settings.evaluation_sets)


def run(context: Context) -> Mapping[str, Any]:
    """Sample and judge, curate, then with a rewriter rewrite, judge and curate again.

    Raises ValueError if no sample was kept and one must be.
    """
    settings: GenerateSettings = context.settings
    folder = context.folder
    with Engines(context.progress.say) as engines:
        counts, steps = _sample(context, engines)
        if not _has(context, "rewriter"):
            curation = _curate(context, folder / "samples.jsonl", folder, settings.curate)
            steps += curation.funnel
        else:
            selection = _curate(context, folder / "samples.jsonl", folder / "selected", settings.curate)
            with Journal(folder / "rewritten.jsonl") as journal:
                if not journal.done:
                    engine, model = _open(context, engines, "rewriter")
                    rewriter = Rewriter(engine, model, settings.rewriting, settings.format, settings.seed)
                    rewrite_all(selection.kept_file, rewriter, _rater(context, engines), journal, context.progress)
                counts = counts + journal.counts
            curation = _curate(context, folder / "rewritten.jsonl", folder, settings.rewritten)
            steps += selection.funnel
            steps += [replace(step, name=f"rewritten: {step.name}") for step in curation.funnel]
    for line in useless_helpers(counts):
        context.progress.say(line)
    metrics = {"asked": counts["asked"], "samples": steps[0].rows_out, "kept": curation.kept}
    funnel = {"funnel": [step.to_json() for step in steps], "decontamination": list(curation.decontamination)}
    path = folder / "funnel.json"
    write_json(path, {**metrics, **funnel, "counts": dict(sorted(counts.items()))})
    losses = sorted(steps, key=lambda step: step.rows_out - step.rows_in)  # the largest first
    most = ", ".join(
        f"{step.name} {step.rows_in - step.rows_out:,}" for step in losses[:3] if step.rows_out < step.rows_in
    )
    context.progress.say(f"kept {curation.kept:,} of {metrics['samples']:,} samples; dropped most: {most or 'none'}")
    if not curation.kept and not settings.may_be_empty:
        reasons = sum((Counter(step.reasons) for step in steps), Counter[str]())
        most = ", ".join(f"{name} {count:,}" for name, count in reasons.most_common(3))
        remedy = f"raise tasks.limit or samples if they are few, or see {path}"
        overlapping = sum(step.rows_in - step.rows_out for step in steps if step.name.endswith(DECONTAMINATION))
        if 2 * overlapping > metrics["samples"]:
            words = settings.curate.decontamination.ngram
            remedy = (
                f"{overlapping:,} of them have {words} words in a row, or a whole question, in common with the "
                f"evaluation. If that is only the wording that your problems share, raise {context.stage}.curate."
                f"decontamination.ngram (now {words}); the rows and what they have in common are in {path}"
            )
        raise ValueError(f"none of {metrics['samples']:,} samples was kept ({most}): {remedy}")
    return {**metrics, **{name: count for name, count in counts.items() if name != "asked"}}


def _sample(context: Context, engines: Engines) -> tuple[Counter[str], list[FunnelStep]]:
    """Write samples.jsonl. A local policy is freed on return, so that a rewriter has its memory."""
    with Journal(context.folder / "samples.jsonl") as journal:
        if not journal.done:
            responses = open_responses(context, engines)
            generation = Generation(context.stage, context.settings, responses, _rater(context, engines))
            requests = _requests(context)
            if requests.task is not None:
                say_readings(requests.task, context.progress.say)
            replicas = partial(replicated_answers, context) if context.settings.engines > 1 else None
            sample_all(generation, requests, journal, context.progress, replicas)
        left_out = journal.counts["prompts left out"]
        reasons = {"prompt too long or refused": left_out} if left_out else {}
        step = FunnelStep(name="sampling", rows_in=journal.counts["asked"], rows_out=journal.rows, reasons=reasons)
        return journal.counts, [step]


def _requests(context: Context) -> Requests:
    files = {name.lstrip("/"): path for name, path in context.inputs("requests").items()}
    return Requests(context.settings.tasks, files)


def _rater(context: Context, engines: Engines) -> Rater:
    """Rules and, if there is one, the judge."""
    settings: GenerateSettings = context.settings
    if not _has(context, "judge") or not settings.asks_model:
        return Rater()
    engine, _ = _open(context, engines, "judge")
    if settings.prompting == "general":
        return Rater(helpful=RubricJudge(engine, RUBRICS["helpfulness"], settings.judging))
    depth = RubricJudge(engine, RUBRICS["reasoning_quality"], settings.judging) if settings.judge_reasoning else None
    return Rater(GenerativeVerifier(engine, settings.judging), depth=depth, judge_sources=settings.judge_sources)


def _has(context: Context, role: str) -> bool:
    """Whether the stage has a "judge" or a "rewriter"."""
    return role in context.paths or getattr(context.settings, role) is not None


def _open(context: Context, engines: Engines, role: str) -> tuple[Engine, str]:
    """The engine of the judge or the rewriter, and its name in the rows."""
    settings: GenerateSettings = context.settings
    engine_settings: EngineSettings | None = getattr(settings, role)
    if engine_settings is not None:
        return engines.open(engine_settings), engine_settings.model
    folder = context.input(role)
    shared = {name: getattr(settings, name) for name in ("device", "compute_dtype", "max_rows")}
    local = LocalEngineSettings(model=str(folder), **shared)
    return engines.open(local), name_of(folder)


def _curate(context: Context, rows: Path, folder: Path, curation: CurateSettings) -> Curation:
    """Curate the stage's own rows; one that cannot be read back (a reply of megabytes) is dropped and counted."""
    settings: GenerateSettings = context.settings
    total = sum(1 for _ in lines(rows))
    return curate(
        [rows],
        folder,
        curation.replace(skip_invalid=True),
        evaluation=evaluation_sets(settings.evaluation_sets),
        workers=settings.workers,
        progress=lambda phase, done: context.progress.step(done, total, {"phase": phase}),
    )


def _cost(stage: Stage, rows: int) -> Work:
    settings: Any = stage.settings
    if settings.asks_model:
        return sampling_work(stage, KEPT_SHARE)
    work = rows_unchanged(stage, rows + problem_count(settings.tasks))
    return replace(work, length=worked_length(settings.tasks))


GENERATE = Kind(
    name="generate",
    run=run,
    settings=GenerateSettings,
    version=4,
    check=check,
    sources=lambda settings: sources((*settings.tasks, *settings.evaluation_sets)) | engine_sources(settings),
    funnel=True,
    cost=_cost,
    on_device=answers_on_device,
)
