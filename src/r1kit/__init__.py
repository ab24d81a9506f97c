"""The DeepSeek-R1 recipe, from a base model to a reasoning model, as one resumable pipeline."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from r1kit.pipeline import PlanRow
    from r1kit.report.folders import StageFolder
    from r1kit.tasks import Task
    from r1kit.types import Verdict

__version__ = "0.1.0"
__all__ = ["answer", "load_task", "plan", "run", "verify"]


def run(
    recipe: str,
    *,
    scale: str | None = None,
    model: str | None = None,
    student: str | None = None,
    teacher: str | None = None,
    data: Mapping[str, Any] | None = None,
    hardware: str | None = None,
    devices: int | None = None,
    rehearse: bool = False,
    overrides: Mapping[str, Any] | None = None,
    seed: int | None = None,
    controls: Sequence[str] = (),
    runs: str | Path = "runs",
    until: str | None = None,
    jobs: int | None = None,
    on: str | None = None,
    on_step: Callable[[StageFolder], object] | None = None,
    track: Sequence[str] = (),
    verify: bool = False,
) -> Path:
    """Run a recipe, or resume it, and return the folder of its last stage (or the last one of `until`).

    `recipe` is a name, a dotted path or a recipe file, on top of which the other arguments come; `scale` is a name or a
    dotted path; `data` gives each role a set or a file; `overrides` change settings, as `--set` does. `controls`, such
    as "random" or "dev2:format", train a stage again without what teaches it, and the report splits its gain. With more
    than one of `jobs`, processes run stages side by side. They import the calling script, so it needs
    `if __name__ == "__main__":`. So it does with several `devices`, which share each training stage
    (docs/guides/devices.md). `on` names a Ray cluster that runs the stages instead, "ray" or "ray://HOST:PORT"
    (docs/guides/cluster.md), at most `jobs` at a time. `track` names trackers that show the run, such as "trackio".
    `verify` hashes every file of finished stages first; otherwise only those whose size or time has changed. `until`
    names stages, with commas between: only these run, and those that they need.

    `on_step` is called with a stage's folder after its steps, at most once a second: its `metrics` are the rows so far.
    `r1kit.report.live_curves.LiveCurves()` draws them in a notebook.

    >>> import r1kit
    >>> small = {"rl.steps": 1, "rl.prompts_per_step": 2, "rl.max_tokens": 32, "eval.samples": 1, "eval.max_tokens": 32}
    >>> small["eval.tasks"] = [{"name": "tiny/sums", "limit": 4}]
    >>> folder = r1kit.run("r1-zero", scale="tiny", overrides=small)
    >>> sorted(path.name for path in folder.iterdir() if path.suffix == ".html")
    ['report.html']
    """
    from r1kit.cluster import on_cluster
    from r1kit.pipeline import execute
    from r1kit.recipes import build_recipe
    from r1kit.recipes.estimate import hours_of
    from r1kit.report.folders import StageFolder, stage_name
    from r1kit.tracking import tracked

    built = build_recipe(
        recipe,
        scale=scale,
        model=model,
        student=student,
        teacher=teacher,
        data=data,
        hardware=hardware,
        devices=devices,
        rehearse=rehearse,
        overrides=overrides,
        seed=seed,
        track=[track] if isinstance(track, str) else track,
        controls=controls,
    )
    listener = None if on_step is None else lambda folder: on_step(StageFolder(stage_name(folder), folder))
    cluster = None if on is None else on_cluster(on, jobs)
    companion = partial(tracked, built.track)
    return execute(
        built,
        Path(runs),
        until,
        1 if jobs is None else jobs,
        devices=built.devices,
        cluster=cluster,
        costs=hours_of,
        on_step=listener,
        companion=companion,
        verify=verify,
    )


def plan(
    recipe: str,
    *,
    scale: str | None = None,
    model: str | None = None,
    student: str | None = None,
    teacher: str | None = None,
    data: Mapping[str, Any] | None = None,
    hardware: str | None = None,
    devices: int | None = None,
    rehearse: bool = False,
    overrides: Mapping[str, Any] | None = None,
    seed: int | None = None,
    controls: Sequence[str] = (),
    runs: str | Path = "runs",
    until: str | None = None,
) -> list[PlanRow]:
    """The plan of `run` with the same arguments: one row per stage with its status, the reason and its folder.

    >>> import r1kit
    >>> [(row.stage.name, row.status) for row in r1kit.plan("r1-zero", scale="tiny", seed=1, until="rl")]
    [('rl', 'run')]
    """
    from r1kit import pipeline
    from r1kit.recipes import build_recipe

    built = build_recipe(
        recipe,
        scale=scale,
        model=model,
        student=student,
        teacher=teacher,
        data=data,
        hardware=hardware,
        devices=devices,
        rehearse=rehearse,
        overrides=overrides,
        seed=seed,
        controls=controls,
    )
    return pipeline.plan(built, Path(runs), until)


def load_task(name: str, *, split: str = "", **fields: Any) -> Task:
    """The problems of a file, a known set, a hub data set or a generator. `fields` are those of `TaskSpec`.

    Without `split` they are those for training; a file has no splits.

    >>> import r1kit
    >>> problem = r1kit.load_task("tiny/sums", limit=3)[0]
    >>> problem.prompt, problem.answer
    ('find 1+7+9+7-5.', '19')
    """
    from r1kit import tasks

    return tasks.load_task(tasks.TaskSpec.parse({"name": name, "split": split, **fields}))


def verify(response: str, answer: str, verifier: str = "math") -> Verdict:
    r"""Judge a model's response against the right answer.

    >>> import r1kit
    >>> r1kit.verify(r"Half of it, so \boxed{\frac{1}{2}}.", "0.5").correct
    True
    >>> r1kit.verify("<think> 2 + 3 </think> <answer> 6 </answer>", "5", verifier="number").correct
    False
    """
    from r1kit.verifiers import verify_all

    return verify_all(verifier, [response], [answer])[0]


def answer(
    model: str | Path, questions: Sequence[str], *, max_tokens: int = 256, temperature: float = 0.0
) -> list[str]:
    """The model's response to each question, with its reasoning, in the prompt format that it was trained in.

    >>> import r1kit
    >>> [response] = r1kit.answer("tiny", ["what is 3+8-4?"])
    >>> "7" in response
    True
    """
    from r1kit.chat import whole_response
    from r1kit.commands.answering import engine_settings, open_model
    from r1kit.types import Problem, SamplingParams

    opened = open_model(engine_settings(str(model), None), None)
    problems = [Problem(id=f"question/{number}", prompt=text, answer="") for number, text in enumerate(questions)]
    sampling = SamplingParams(temperature=temperature, max_tokens=max_tokens)
    opened.refuse_long(problems, max_tokens)
    prompts = opened.prompts(problems)
    return [
        whole_response(prompt, completion)
        for prompt, [completion] in zip(prompts, opened.engine.generate(prompts, sampling), strict=True)
    ]
