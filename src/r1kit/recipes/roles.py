"""Data by role: what a recipe trains on and what measures it, from public sets, files, or fields of a task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from r1kit.data.errors import DataError
from r1kit.data.rows import numbered_rows
from r1kit.settings import SettingsError, nearest
from r1kit.tasks import KNOWN, TaskSpec
from r1kit.tasks.check_items import conversation_reader
from r1kit.tasks.from_rows import head_of
from r1kit.tasks.public_files import FILES, local_file, on_this_machine
from r1kit.tasks.recognition import sample_of
from r1kit.tasks.sources.file import FileSource
from r1kit.tasks.task_spec import refuse_benchmark

ROLES = {
    "problems": "problems with references: RL, rejection sampling, cold start",
    "eval": "held-out problems that measure every model",
    "traces": "worked solutions for the cold start; r1-zero stands for the samples of this run's R1-Zero",
    "requests": "everyday requests with replies: SFT 2, and prompts of RL for all scenarios",
    "preferences": "pairs of replies: the helpfulness reward model",
    "safety": "safe and unsafe replies: the safety reward model, and harmful prompts of RL for all scenarios",
    "everyday": "requests that measure every model",
}
FROM_ZERO = "r1-zero"
FILE_ROLES = ("requests", "preferences", "safety")
XSTEST = ("r1kit.tasks.xstest:harmful", "r1kit.tasks.xstest:harmless")
DEFAULTS: Mapping[str, Any] = {
    "problems": ("gsm8k", "math"),
    "eval": ("gsm8k", "math500"),
    "traces": (FROM_ZERO,),
    "requests": "dolly",
    "preferences": "ultrafeedback",
    "safety": "hh-harmless",
    "everyday": ({"name": "ifeval", "limit": 100}, *({"name": name, "limit": 100} for name in XSTEST)),
}
MEASURED = 300  # problems of an evaluation set without a limit of its own
HELD_OUT = 0.2  # of a file that has to measure too


@dataclass(frozen=True, kw_only=True)
class Data:
    """The data of a run. The recipe of one part uses `problems` and `eval` only.

    `traces` are tasks, `trace_files` files of conversations; `from_zero`: R1-Zero writes some too. `requests`,
    `preferences` and `safety` are names of `public_files.FILES` or paths. `notes` are for people.
    """

    problems: tuple[TaskSpec, ...]
    eval: tuple[TaskSpec, ...]
    traces: tuple[TaskSpec, ...] = ()
    trace_files: tuple[Path, ...] = ()
    from_zero: bool = False
    requests: str = ""
    preferences: str = ""
    safety: str = ""
    everyday: tuple[TaskSpec, ...] = ()
    notes: tuple[str, ...] = ()


def data_by_role(values: Mapping[str, Any] | None) -> Data:
    """The user's roles, and a default for each of the others.

    Without `eval`, the problems' own held-out part measures: the test split of a public set or generator, and a fifth
    of a file. Raises `SettingsError` for an unknown role or value, and `DataError` for what must not be trained on.
    """
    values = dict(values or {})
    for role in values:
        if role not in ROLES:
            raise SettingsError(f"there is no data role {role!r}: {nearest(role, ROLES)}")
    problems = specs_of("problems", values.get("problems", DEFAULTS["problems"]))
    notes: Sequence[str] = ()
    if "problems" in values and "eval" not in values:
        problems, measured, notes = with_held_out(problems)
    else:
        measured = specs_of("eval", values.get("eval", DEFAULTS["eval"]))
    with of_role("problems"):
        for spec in problems:
            refuse_benchmark(spec)
    every = items_of(values.get("traces", DEFAULTS["traces"]))
    named = [item for item in every if item != FROM_ZERO]
    solutions = specs_of("traces", named) if named else ()
    conversations = [spec for spec in solutions if holds_conversations(spec)]
    files = {role: file_of(role, values.get(role, DEFAULTS[role])) for role in FILE_ROLES}
    everyday = specs_of("everyday", values.get("everyday", DEFAULTS["everyday"]))
    return Data(
        problems=problems,
        eval=tuple(limited(spec, MEASURED) for spec in measured),
        traces=tuple(spec for spec in solutions if spec not in conversations),
        trace_files=tuple(Path(spec.name).expanduser().absolute() for spec in conversations),
        from_zero=FROM_ZERO in every,
        everyday=everyday,
        notes=(*notes, licences(problems, measured, every, files, everyday)),
        **files,
    )


def at_hand(data: Data) -> Data:
    """The data without what would have to be downloaded: the tiny world stands in for it, and a note says so."""
    missing: list[str] = []

    def present(specs: Sequence[TaskSpec], split: str, *others: str) -> tuple[TaskSpec, ...]:
        here = [spec for spec in specs if _is_here(spec, split)]
        missing.extend(spec.name for spec in specs if spec not in here)
        return tuple(here) or tuple(TaskSpec(name=f"tiny/{other}") for other in others)

    def present_file(role: str) -> str:
        name: str = getattr(data, role)
        if local_file(name) is not None:
            return name
        missing.append(name)
        return f"tiny-{role}"

    traces = present(data.traces, "train")
    changed = replace(
        data,
        problems=present(data.problems, "train", "reasoning"),
        eval=present(data.eval, "test", "reasoning"),
        everyday=present(data.everyday, "test", "general", "harmful"),
        traces=traces,
        from_zero=data.from_zero or not (traces or data.trace_files),
        requests=present_file("requests"),
        preferences=present_file("preferences"),
        safety=present_file("safety"),
    )
    note = f"not on this machine, so the tiny world stands in: {', '.join(dict.fromkeys(missing))}"
    return replace(changed, notes=(*data.notes, *([note] if missing else [])))


def _is_here(spec: TaskSpec, split: str) -> bool:
    if spec.source.kind == "known":
        return bool(spec.source.files(spec.replace(split=spec.split or split)))
    return spec.name not in XSTEST or on_this_machine(FILES["xstest"]) is not None


def items_of(value: Any) -> list[Any]:
    """One item or a list of items as a list."""
    return [value] if isinstance(value, str | Mapping) else list(value)


def specs_of(role: str, value: Any) -> tuple[TaskSpec, ...]:
    """Tasks from a name, a file, fields of `TaskSpec`, or a list of these.

    Raises `DataError` for a file that does not exist: a run would notice it only when a stage reads it.
    """
    items = items_of(value)
    if not items:
        raise SettingsError(f"data.{role} is empty: give a set's name, a file, or fields of a task")
    specs = tuple(
        TaskSpec.parse(item if isinstance(item, Mapping) else {"name": item}, f"data.{role}") for item in items
    )
    for spec in specs:
        if isinstance(spec.source, FileSource):
            with of_role(role):
                spec.source.existing(spec)
    return specs


@contextmanager
def of_role(role: str) -> Iterator[None]:
    """Add the role to errors of its data."""
    try:
        yield
    except DataError as error:
        raise DataError(error.kind, f"data.{role}: {error}") from None


def file_of(role: str, value: Any) -> str:
    """The known name, or the path, of a file of requests, preferences or safety labels."""
    if isinstance(value, Mapping) and set(value) == {"name"}:
        value = value["name"]
    if not isinstance(value, str):
        raise SettingsError(f"data.{role} is {value!r:.80}: expected the name of a set or a file")
    known = FILES.get(value)
    if known is not None and known.holds != role and not known.evaluate_only:
        sets = ", ".join(name for name, file in FILES.items() if file.holds == role)
        raise SettingsError(f"data.{role} is {value}, which holds {known.holds}: known sets of {role} are {sets}")
    with of_role(role):
        path = local_file(value)
    return value if known is not None else str(path)


def with_held_out(problems: Sequence[TaskSpec]) -> tuple[tuple[TaskSpec, ...], tuple[TaskSpec, ...], list[str]]:
    """The problems, those that measure, and a note for each divided set: files are divided, other sets have a split.

    A set that is named twice, as with its single calculations, measures once, with whole problems. If no set has a part
    for it, the default sets measure.
    """
    trained, measured, notes = list[TaskSpec](), dict[str, TaskSpec](), list[str]()
    for spec in problems:
        kind = spec.source.kind
        if kind == "file" and not spec.options:
            spec = spec.replace(options={"held_out": HELD_OUT})
            notes.append(
                f"{spec.name} is divided by the text of its prompts: {HELD_OUT:.0%} measure, the rest is trained on; "
                "name problems for the role eval to train on all of it"
            )
        trained.append(spec)
        has_test = kind in ("file", "tiny", "gym", "function") or (
            kind == "known" and "test" in KNOWN[spec.name].splits
        )
        if has_test:
            whole = {"split": "", "limit": None, "calculations": "no", "order": "file"}
            measured.setdefault(spec.name, spec.replace(**whole))
    return tuple(trained), tuple(measured.values()) or specs_of("eval", DEFAULTS["eval"]), notes


def limited(spec: TaskSpec, limit: int, seed: int = 0) -> TaskSpec:
    """At most `limit` problems, in shuffled order, unless the spec itself says how many and in which order."""
    if spec.limit is not None:
        return spec
    shuffles = spec.order == "file" and "order" not in spec.source.unused(spec)
    return spec.replace(limit=limit, seed=spec.seed or seed, **({"order": "shuffled"} if shuffles else {}))


def holds_conversations(spec: TaskSpec) -> bool:
    """Whether a file holds conversations, and not problems with solutions."""
    path = Path(spec.name).expanduser()
    if spec.source.kind != "file" or spec.columns or not path.is_file():
        return False
    try:
        sample = sample_of(head_of(numbered_rows(path))[0])
    except DataError:
        return False  # the stage that reads it says what is wrong
    return conversation_reader(sample) is not None and "answer" not in sample


def licences(
    problems: Sequence[TaskSpec],
    measured: Sequence[TaskSpec],
    traces: Sequence[Any],
    files: Mapping[str, str],
    everyday: Sequence[TaskSpec],
) -> str:
    """One line for people: the data of each role, with the licences of public sets."""
    tasks = {"problems": problems, "eval": measured, "everyday": everyday}
    names = {role: [spec.name.rpartition("r1kit.tasks.")[2] for spec in specs] for role, specs in tasks.items()}
    names |= {"traces": [item["name"] if isinstance(item, Mapping) else str(item) for item in traces]}
    names |= {role: [name] for role, name in files.items()}
    known = {name: known.licence for name, known in KNOWN.items()} | {
        name: file.licence for name, file in FILES.items()
    }
    known |= dict.fromkeys(("xstest:harmful", "xstest:harmless"), FILES["xstest"].licence)
    described = {
        role: ", ".join(f"{name} ({known[name]})" if name in known else name for name in names[role]) for role in ROLES
    }
    return "data: " + "; ".join(f"{role} {text}" for role, text in described.items())
