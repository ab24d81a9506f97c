"""Reward functions of the user's own, as they are written for TRL, work in a run unchanged, and say what is wrong."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import numpy as np  # noqa: E402

from conftest import grpo_trainer  # noqa: E402
from r1kit.commands.score_command import score_rows  # noqa: E402
from r1kit.pipeline import External, Recipe, Stage, execute, plan  # noqa: E402
from r1kit.rewards import RewardSpec, build  # noqa: E402
from r1kit.rewards.loading import source_files  # noqa: E402
from r1kit.rewards.part import RewardError  # noqa: E402
from r1kit.rollout import column_names, data_columns  # noqa: E402
from r1kit.settings import SettingsError  # noqa: E402
from r1kit.stages.rl import RL, RLSettings  # noqa: E402
from r1kit.tasks import TaskSpec, load_tasks  # noqa: E402
from r1kit.types import Problem  # noqa: E402

torch.set_num_threads(1)

ROWS: list[dict[str, Any]] = [
    {
        "prompt": f"{n}+{n}=",
        "answer": f"{n} and {n} make <<{n}+{n}={2 * n}>>{2 * n}\n#### {2 * n}",
        "level": n,
        "hint": None if n % 2 else "double it",
        "tags": ["sum", f"n{n}"],
        "source_info": {"page": n, "book": "A"},
    }
    for n in range(1, 9)
]


def text_of(completion: Any) -> str:
    return completion if isinstance(completion, str) else str(completion[0]["content"])


# Ten reward functions, as people write them for TRL.


def plain(completions, **kwargs):  # type: ignore[no-untyped-def]
    return [float(len(completion.split(" "))) for completion in completions]


def conversational(prompts, completions, **kwargs):  # type: ignore[no-untyped-def]
    contents = [completion[0]["content"] for completion in completions]
    asked = [prompt[-1]["content"] for prompt in prompts]
    assert all(prompt[0] == {"role": "system", "content": "Add."} for prompt in prompts)
    return [float(len(content) - len(question)) for content, question in zip(contents, asked, strict=True)]


def close_to(completions: list[Any], target: int, scale: float = 1.0, **kwargs: Any) -> list[float]:
    return [-abs(len(text_of(completion)) - target) * scale for completion in completions]


near_twenty = functools.partial(close_to, target=20, scale=0.1)


class Counts:
    """A callable object, and an object whose method is the reward."""

    def __init__(self, letter: str) -> None:
        self.letter = letter

    def __call__(self, completions: list[Any], **kwargs: Any) -> list[float]:
        return [float(text_of(completion).count(self.letter)) for completion in completions]

    def share(self, completions: list[Any], completion_ids: list[list[int]], **kwargs: Any) -> Any:
        letters = [text_of(completion).count(self.letter) for completion in completions]
        return np.array(letters) / np.array([len(ids) for ids in completion_ids])


counts_e = Counts("e")


async def awaited(completions, log_extra=None, **kwargs):  # type: ignore[no-untyped-def]
    lengths = await asyncio.gather(*(asyncio.sleep(0, len(text_of(one))) for one in completions))
    log_extra("letters", lengths)
    return lengths


class Awaited:
    async def __call__(self, completions: list[Any], level: list[int], **kwargs: Any) -> list[float]:
        await asyncio.sleep(0)
        return [float(one) for one in level]


awaited_object = Awaited()


def of_columns(completions, answer, level, tags, source_info, hint, **kwargs):  # type: ignore[no-untyped-def]
    golds = [int(one.split("####")[1]) for one in answer]  # the data's own text, not the reference
    for gold, n, words, info in zip(golds, level, tags, source_info, strict=True):
        assert (gold, words, info["page"]) == (2 * n, ["sum", f"n{n}"], n)
    assert kwargs.keys() >= {"completion_ids", "prompts", "trainer_state"} and "prompt" not in kwargs
    return [None if tip is None else gold / 10 for gold, tip in zip(golds, hint, strict=True)]


def scalars(completions, **kwargs):  # type: ignore[no-untyped-def]
    kinds: list[Callable[[int], Any]] = [torch.tensor, np.float32, np.int64, float]
    return [kinds[index % 4](len(text_of(one))) for index, one in enumerate(completions)]


def of_progress(completions, trainer_state, log_metric, **kwargs) -> Iterator[float]:  # type: ignore[no-untyped-def]
    log_metric("step", trainer_state.global_step)
    return (trainer_state.global_step / trainer_state.max_steps for _ in completions)


TEN = ("near_twenty", "counts_e", "counts_e.share", "awaited", "awaited_object", "of_columns", "scalars", "of_progress")
FORMS = {"plain": ("plain", *TEN), "conversational": ("conversational", *TEN)}


def data_file(folder: Path, form: str) -> Path:
    rows = ROWS
    if form == "conversational":
        turns = [{"role": "system", "content": "Add."}]
        rows = [row | {"prompt": [*turns, {"role": "user", "content": row["prompt"]}]} for row in ROWS]
    path = folder / "sums.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def recipe(model: Path, file: Path, rewards: list[Any], **changes: Any) -> Recipe:
    settings = {
        "tasks": [{"name": str(file), "verifier": "number", "columns": {"prompt": "prompt", "answer": "answer"}}],
        "rewards": rewards,
        "chat": {"system": "", "plain": "{question}"},
        "steps": 2,
        "prompts_per_step": 4,
        "group_size": 2,
        "max_tokens": 12,
        "rollouts_every": 1,
        "device": "cpu",
    }
    stage = Stage("rl", RL, RLSettings.parse(settings | changes), {"model": External(model)})
    return Recipe("own-rewards", (stage,))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def own(*names: str) -> list[dict[str, Any]]:
    return [{"name": f"{__name__}:{name}", "label": name.replace(".", "_")} for name in names]


@pytest.mark.parametrize("form", FORMS)
def test_ten_reward_functions_written_for_trl_work_in_a_run(
    form: str, tmp_path: Path, tiny_policy_folder: Path
) -> None:
    names = FORMS[form]
    folder = execute(recipe(tiny_policy_folder, data_file(tmp_path, form), own(*names)), tmp_path / "runs")
    metrics = lines(folder / "metrics.jsonl")
    assert [row["rewards/of_progress/step"] for row in metrics] == [0.0, 1.0]
    rollouts = [lines(folder / "rollouts" / f"step-00000{step}.jsonl") for step in (1, 2)]
    for step, rows in enumerate(rollouts):
        for row in rows:
            place, text, parts = int(row["problem_id"].rpartition("/")[2]), row["completion"], row["parts"]
            n = place + 1
            assert parts["near_twenty"] == pytest.approx(-abs(len(text) - 20) * 0.1)
            assert parts["counts_e"] == text.count("e")
            assert parts["counts_e_share"] == pytest.approx(text.count("e") / row["tokens"])
            assert parts["awaited"] == parts["scalars"] == row["notes"]["letters"] == len(text)
            assert parts["awaited_object"] == n
            assert parts["of_columns"] == (None if n % 2 else 2 * n / 10)
            assert parts["of_progress"] == step / 2
            first = len(text.split(" ")) if form == "plain" else len(text) - len(ROWS[place]["prompt"])
            assert parts[form] == first
            assert row["reward"] == pytest.approx(sum(value for value in parts.values() if value is not None))
    pytest.importorskip("trl", reason="trl is not installed")
    for step, rows in enumerate(rollouts):
        ours = [[row["parts"][name.replace(".", "_")] for name in names] for row in rows]
        assert trl_rewards(names, form, rows, step, tmp_path) == [
            pytest.approx([float("nan") if value is None else value for value in row], rel=1e-5, nan_ok=True)
            for row in ours
        ]


def trl_rewards(names: tuple[str, ...], form: str, rows: list[dict[str, Any]], step: int, folder: Path) -> Any:
    """What TRL's trainer gets from the same functions for the same completions."""
    template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    inputs = lines(data_file(folder, form))
    scope = globals()
    functions = [functools.reduce(getattr, name.split(".")[1:], scope[name.split(".")[0]]) for name in names]
    sizes = {"num_generations": 2, "per_device_train_batch_size": 2, "max_completion_length": 12}
    trainer = grpo_trainer(template, inputs, functions, folder / "trl", **sizes)
    trainer.state.global_step, trainer.state.max_steps = step, 2
    chosen = [inputs[int(row["problem_id"].rpartition("/")[2])] for row in rows]
    texts = [row["completion"] for row in rows]
    completions = texts if form == "plain" else [[{"role": "assistant", "content": text}] for text in texts]
    ids = [[0] * row["tokens"] for row in rows]
    return trainer._calculate_rewards(chosen, [row["prompt"] for row in chosen], completions, ids).tolist()


def test_columns_change_no_identity_and_nested_ones_are_kept_for_own_rewards_alone(
    tmp_path: Path, tiny_policy_folder: Path
) -> None:
    file = data_file(tmp_path, "plain")
    spec = TaskSpec(name=str(file), verifier="number")
    flat, nested = (load_tasks([spec], training=True, nested_columns=kept) for kept in (False, True))
    assert set(flat[0].columns) == {"prompt", "answer", "level", "hint"}
    assert dict(nested[0].columns) == ROWS[0]
    assert (flat[0].id, flat[0].prompt, flat[0].answer) == (nested[0].id, "1+1=", "2")
    assert flat[0].columns["answer"] is flat.problems[0].columns["answer"]  # type: ignore[attr-defined]
    same = [
        plan(
            recipe(tiny_policy_folder, file, ["accuracy"], tasks=[{"name": str(file), "nested_columns": kept}]),
            tmp_path / "runs",
        )[0].folder
        for kept in (False, True)
    ]
    assert same[0] == same[1]


def test_a_problem_without_a_column_has_its_reference_there_or_none() -> None:
    problems = [
        Problem(id="a", prompt="1", answer="1", columns={"answer": "#### 1", "level": 3}),
        Problem(id="b", prompt="2", answer="2"),
    ]
    others = {"answer": ["1", "2"], "prompts": ["1", "2"], "max_tokens": 5}
    columns = {"page": [None, None], "answer": ["#### 1", "2"], "level": [3, None]}
    assert data_columns(problems, ["page"], others) == columns
    assert {"level", "answer", "reference", "completion_ids"} <= column_names(problems)


def test_the_command_score_takes_the_form_of_the_rows_prompts(tmp_path: Path) -> None:
    file = data_file(tmp_path, "conversational")
    file.write_text("".join(json.dumps(row | {"completion": "It is 4."}) + "\n" for row in lines(file)))
    scored = list(score_rows(file, build([RewardSpec(name=f"{__name__}:conversational")])))
    assert [row["total"] for row in scored] == [4.0] * len(ROWS)


# What is wrong is said, by name, before the run or at the first step.


def needs_difficulty(completions: list[str], difficulty: list[float], **kwargs: Any) -> list[float]:
    return difficulty


def test_a_column_that_no_row_has_is_named_before_the_model_is_loaded(tmp_path: Path, tiny_policy_folder: Path) -> None:
    file = data_file(tmp_path, "plain")
    message = (
        r"reward 'needs_difficulty' needs the column 'difficulty': .*"
        r"\(columns: answer, .*hint, language, level, .*tags, verifier\)"
    )
    with pytest.raises(RewardError, match=message):
        execute(recipe(tiny_policy_folder, file, own("needs_difficulty")), tmp_path / "runs")
    probe = {"tasks": [str(file)], "rewards": own("needs_difficulty")}
    with pytest.raises(RewardError, match="'needs_difficulty' needs the column 'difficulty'"):
        execute(recipe(tiny_policy_folder, file, ["format"], probe=probe), tmp_path / "runs")


def of_keywords(completions, threshold=None, **kwargs):  # type: ignore[no-untyped-def]
    return [float(kwargs["difficulty"][0]) for _ in completions]


def untyped(completions, **kwargs):  # type: ignore[no-untyped-def]
    return [float(len(completion[0]["content"])) for completion in completions]


def strips(completions, **kwargs):  # type: ignore[no-untyped-def]
    return [float(len(completion.strip())) for completion in completions]


@pytest.mark.parametrize(
    ("name", "completions", "message"),
    [
        (
            "of_keywords",
            ["a"],
            r"reward 'of_keywords' gets completions as text and raised KeyError: 'difficulty' \(test_own_rewards.py, "
            r"line \d+\).*Its columns: level; it names threshold, which the data lacks",
        ),
        ("untyped", ["abc"], r"raised TypeError: string indices .*lists of messages, set its option `chat` to true"),
        (
            "strips",
            [[{"role": "assistant", "content": "a"}]],
            "raised AttributeError: .*set its option `chat` to false",
        ),
    ],
)
def test_a_reward_that_raises_is_named_with_its_columns_and_its_form(
    name: str, completions: list[Any], message: str
) -> None:
    with pytest.raises(RewardError, match=message):
        build([RewardSpec(name=f"{__name__}:{name}")])(completions, level=[1])


def annotated(completions: list[list[dict[str, str]]], **kwargs: Any) -> list[float]:
    return [float(len(completion[0]["content"])) for completion in completions]


def annotated_text(completions: list[str], prompts: list[str], **kwargs: Any) -> list[float]:
    return [float(len(completion) + len(prompt)) for completion, prompt in zip(completions, prompts, strict=True)]


def test_the_form_follows_the_setting_then_the_annotation_then_the_data() -> None:
    messages = [{"role": "user", "content": "Q?"}]
    follows, by_annotation, by_text = (
        build([RewardSpec(name=f"{__name__}:{name}")]) for name in ("untyped", "annotated", "annotated_text")
    )
    assert by_annotation(["abc"])[0].total == 3.0
    assert follows(["abc"], {"prompt": [messages]}, prompts=["Q?"])[0].total == 3.0  # as TRL's do
    assert by_text(["abc"], {"prompt": [messages]}, prompts=["Q?"])[0].total == 5.0
    chosen = build([RewardSpec(name=f"{__name__}:strips", chat=False)])
    assert chosen(["ab "], {"prompt": [messages]}, prompts=["Q?"])[0].total == 2.0
    with pytest.raises(RewardError, match="'untyped': some rows are messages and others text: set its option `chat`"):
        follows(["a", "b"], {"prompt": [messages, "Q?"]}, prompts=["Q?", "Q?"])


def two_numbers(completions, **kwargs):  # type: ignore[no-untyped-def]
    return [torch.zeros(2) for _ in completions]


def one_number(completions, **kwargs):  # type: ignore[no-untyped-def]
    return torch.tensor(1.0)


def nan_scalar(completions, **kwargs):  # type: ignore[no-untyped-def]
    return [np.float64("nan") for _ in completions]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("two_numbers", r"two_numbers' returned tensor\(\[0., 0.\]\): expected a finite number or None"),
        ("one_number", "one_number' returned float: expected a list of 2 numbers"),
        ("nan_scalar", "nan_scalar' returned .*nan.*: expected a finite number or None"),
    ],
)
def test_values_that_are_no_numbers_are_refused(name: str, message: str) -> None:
    with pytest.raises(RewardError, match=message):
        build([RewardSpec(name=f"{__name__}:{name}")])(["a", "b"])


def logs_nan(completions: list[str], log_metric: Any, **kwargs: Any) -> list[float]:
    log_metric("share", float("nan"))
    log_metric("length", np.float32(2.0))
    return [0.0] * len(completions)


def test_a_metric_that_is_not_finite_is_left_out_with_a_warning() -> None:
    logged: dict[str, Any] = {}
    with pytest.warns(UserWarning, match="reward 'logs_nan' logs the metric 'share' as nan: it is left out"):
        build([RewardSpec(name=f"{__name__}:logs_nan")])(["a"], log_metric=logged.__setitem__)
    assert logged == {"rewards/logs_nan/length": 2.0}


def test_options_reach_a_function_whose_first_argument_is_the_prompts() -> None:
    spec = RewardSpec(name=f"{__name__}:of_prompts", options={"scale": 2.0})
    assert build([spec])(["abc"], prompts=["Q"])[0].total == 2.0
    made = RewardSpec(name=f"{__name__}:Counts", options={"letter": "b"})
    assert build([made])(["abb"])[0].total == 2.0
    with pytest.raises(SettingsError, match="has no option 'leter': did you mean letter"):
        build([RewardSpec(name=f"{__name__}:Counts", options={"leter": "b"})])


def of_prompts(prompts: list[str], completions: list[str], scale: float = 1.0, **kwargs: Any) -> list[float]:
    return [scale * len(prompt) for prompt in prompts]


def test_the_files_that_define_a_reward_count_in_the_fingerprint(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "own_library.py").write_text(
        "class Judge:\n    def __call__(self, completions, **columns):\n        return [0.0] * len(completions)\n"
    )
    (tmp_path / "own_objects.py").write_text("from own_library import Judge\njudge = Judge()\n")
    (tmp_path / "own_engine.py").write_text("class Engine:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    here = Path(__file__)
    for name in ("plain", "near_twenty", "counts_e", "counts_e.share", "awaited_object", "Counts"):
        assert source_files(RewardSpec(name=f"{__name__}:{name}")) == {"": here}, name
    assert source_files(RewardSpec(name="own_objects:judge")) == {
        "": tmp_path / "own_library.py",
        ".module": tmp_path / "own_objects.py",
    }
    engine = {"kind": "custom", "model": "m", "path": "own_engine:Engine"}
    judged = RewardSpec(name="helpfulness_judged", options={"engine": engine})
    assert source_files(judged) == {".engine": tmp_path / "own_engine.py"}
    assert source_files(RewardSpec(name="accuracy")) == {}
