"""The report, on a synthetic run whose numbers move as those of the tiny world do."""

import json
import math
import random
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from r1kit.evaluate.statistics import estimate
from r1kit.report import write_report
from r1kit.report.completions import is_right
from r1kit.report.curve_svg import readable_number, smoothed
from r1kit.report.folders import Source, StageFolder, find_stages, stage_name
from r1kit.report.health import checks
from r1kit.report.metrics import Metrics
from r1kit.report.page import render
from r1kit.report.page_tables import stage_columns
from r1kit.report.run import Run
from r1kit.report.run_summary import summarise_run
from r1kit.report.stage_graph import picture
from r1kit.report.stage_table import StageTable, TableRow, stage_table_json, stage_table_text

STEPS = 60


def build(source: Source) -> str:
    return render(Run.open(source))


def summary(source: Source, title: str = "") -> dict[str, Any]:
    return summarise_run(Run.open(source, title))


def lines(path: Path, rows: list[dict[str, object]], tail: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows) + tail, encoding="utf-8")


def manifest(folder: Path, kind: str, started: float) -> None:
    facts = {
        "stage": folder.name[:-9],
        "kind": kind,
        "fingerprint": folder.name[-8:],
        "seed": 0,
        "started": started,
        "settings": {
            "optimizer": {"learning_rate": 3e-4, "warmup": 5},
            "loss": {"name": "grpo", "kl_coef": 0.001},
            "group_size": 16,
            "prompts_per_step": 16,
            "rewards": {"accuracy": 1.0, "format": 0.2},
        },
        "versions": {"r1kit": "0.1.0", "torch": "2.13.0", "python": "3.11.2"},
        "host": "laptop",
        "seconds": 172.4,
        "command": "r1kit run r1-zero --scale tiny",
        "inputs": {},
        "metrics": {},
    }
    (folder / "manifest.json").write_text(json.dumps(facts))


def answer(skilled: bool, seed: int, a: int, b: int, c: int) -> tuple[str, str]:
    chance = random.Random(seed)
    if skilled:
        total = str(a + b + c) if chance.random() < 0.96 else str(a + b + c + 10)
        first = chance.choice([f"First, {a} + {b} = {a + b}.", f"首先 {a} 加 {b} 等于 {a + b}。"])
        return f"<think>{first}\nThen {a + b} + {c} = {total}.</think> <answer>{total}</answer>", total
    total = str(a + b + c + chance.choice([0, 1, -1, 10, 100, -9, 3, 7]))
    return chance.choice([f"The answer is {total}", f"<think></think> {total}", f"答案是 {total}。 so {total}"]), total


def evaluation(folder: Path, skilled: bool, started: float, problems: int = 200, k: int = 4) -> None:
    rows = []
    for i in range(problems):
        a, b, c = (random.Random(f"{i}/{j}").randint(100, 999) for j in range(3))
        for sample in range(k):
            text, total = answer(skilled, i * k + sample, a, b, c)
            rows.append(
                {
                    "problem_id": f"sums/test/{i}",
                    "source": "sums" if i % 3 else "countdown",
                    "sample": sample,
                    "correct": None if i % 50 == 49 else total == str(a + b + c),
                    "extracted": total,
                    "well_formed": skilled,
                    "reasoning_tokens": 44 + i % 9 if skilled else i % 5,
                    "completion_tokens": 60 + (i + sample) % 9 if skilled else 29 + i % 7,
                    "steps": 2 if skilled else 0,
                    "mixed": "首" in text and "Then" in text,
                    "truncated": i % 40 == 0 and not skilled,
                    "question": f"Work out {a} + {b} + {c}.",
                    "completion": text,
                }
            )
    lines(folder / "completions.jsonl", rows)
    manifest(folder, "evaluate", started)


def training_row(step: int) -> dict[str, object]:
    noise = random.Random(step)
    rise = 1 / (1 + math.exp(-(step - 18) / 5))
    wobble = lambda size: noise.gauss(0, size)  # noqa: E731
    return {
        "step": step,
        "reward/mean": 0.12 + 1.05 * rise + wobble(0.03),
        "reward/std": 0.4 - 0.3 * rise,
        "reward/accuracy": min(1, 0.11 + 0.86 * rise + wobble(0.03)),
        "reward/format": min(1, 0.1 + 0.9 * rise),
        "completion/length_mean": 29 + 22 * rise + wobble(1),
        "completion/length_max": 96,
        "completion/truncated": max(0, 0.05 - 0.05 * rise + wobble(0.004)),
        "policy/kl": 0.3 * rise + abs(wobble(0.01)),
        "policy/entropy": 0.62 - 0.45 * rise + wobble(0.02),
        "policy/clip_fraction": abs(wobble(0.004)),
        "groups/zero_variance": min(1, 0.3 * (1 - rise) + 0.75 * rise + wobble(0.05)),
        "sampler/logprob_gap_mean": 2e-6 + abs(wobble(4e-7)),
        "optim/grad_norm": 1.1 - 0.6 * rise + abs(wobble(0.1)),
        "optim/learning_rate": 3e-4 * min(1, step / 5),
        "optim/loss": wobble(0.01),
        "verifier/unknown": 0.0,
        "time/rollout_s": 1.6 + 0.5 * rise + abs(wobble(0.1)),
        "time/train_s": 1.0 + 0.3 * rise,
        "time/step_s": 3.0 + rise,
        "tokens/rollout": 256 * (29 + 22 * rise),
        "tokens/train": 256 * (40 + 22 * rise),
        "language/mixed": max(0, 0.22 + 0.25 * rise + wobble(0.02)),
    }


def rollouts(folder: Path, step: int, skilled: bool, problems: range) -> None:
    rows = []
    for i in problems:
        text, total = answer(skilled, step * 100 + i, 100 + i, 200, 300)
        right, form = float(total == str(600 + i)), float(skilled)
        rows.append(
            {
                "step": step,
                "problem_id": f"sums/train/{i}",
                "question": f"Work out {100 + i} + 200 + 300.",
                "prompt": "...",
                "completion": text,
                "answer": str(600 + i),
                "reward": right + 0.2 * form,
                "parts": {"accuracy": right, "format": form, "cosine": None},
                "advantage": 0.5,
                "finish_reason": "stop",
                "tokens": len(text),
            }
        )
    lines(folder / "rollouts" / f"step-{step:06d}.jsonl", rows)


def make_run(run: Path) -> Path:
    evaluation(run / "base-eval-00000001", False, 1.7e9)
    rl = run / "r1-zero-00000002"
    lines(rl / "metrics.jsonl", [training_row(step) for step in range(1, STEPS + 1)])
    for step in (1, 20, 40, 60):
        rollouts(rl, step, step > 15, range(step % 3, step % 3 + 8))
    manifest(rl, "rl", 1.7e9 + 60)
    evaluation(run / "r1-zero-eval-00000003", True, 1.7e9 + 300)
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "r1-zero-tiny")


@pytest.fixture(scope="module")
def page(run: Path) -> str:
    return build(run)


class Tags(HTMLParser):
    """Every tag with its attributes, and whether each that opens is closed."""

    VOID = ("meta", "link", "br", "img", "input", "hr")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_loads_nothing_and_runs_nothing(page: str) -> None:
    assert "http://" not in page and "https://" not in page
    tags = Tags(page)
    assert tags.open == []
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in tags.seen}
    for tag, attributes in tags.seen:
        assert "src" not in attributes and not any(name.startswith("on") for name in attributes)
        assert (attributes.get("href") or "#").startswith("#"), tag
    assert not re.search(r"url\((?!#)", page)


def test_the_page_tells_the_story_of_the_run(page: str) -> None:
    assert "pass@1 rose from" in page
    expected = [
        "base-eval",
        "r1-zero-eval",
        "Entropy",
        "Zero-variance groups",
        "Reward parts",
        "before and after",
        "Rollouts of r1-zero",
        "optimizer.learning_rate",
        "r1kit run r1-zero --scale tiny",
        "2 min 52 s",
    ]
    assert [words for words in expected if words not in page] == []
    assert "Zero throughout: no verdict" in page


def test_model_text_is_shown_and_never_run(tmp_path: Path) -> None:
    attack = "<think>x</think><script>alert(1)</script><img src=x onerror=alert(2)>\ud800\x00 http://evil.example"
    for name, started in (("a", 1.0), ("b", 2.0)):
        evaluation(tmp_path / f"{name}-0000000{name}", True, started, problems=3, k=1)
        path = tmp_path / f"{name}-0000000{name}" / "completions.jsonl"
        rows = [json.loads(line) | {"completion": attack, "question": attack} for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_report(tmp_path, tmp_path / "out", title="<script>alert(3)</script>")
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page and "<img" not in page
    assert "&lt;script&gt;alert(1)" in page and "&lt;script&gt;alert(3)" in page
    assert "\x00" not in page


def test_the_summary_holds_the_page_s_table_for_programs(run: Path, tmp_path: Path) -> None:
    stages = {stage.name: stage.folder for stage in find_stages(run)}
    data = write_report(stages, tmp_path, "R1-Zero")
    assert json.loads((tmp_path / "summary.json").read_text(encoding="utf-8")) == data
    assert {path.name for path in tmp_path.iterdir()} == {"summary.json", "report.html"}
    (table,) = data["tables"]
    assert (table["problems"], table["from"], table["to"]) == (200, "base-eval", "r1-zero-eval")
    change = table["differences"]["pass@1"]
    assert 0 < change["low"] < change["mean"] < change["high"]
    pass_at_1 = table["columns"]["r1-zero-eval"]["overall"]["pass@1"]
    assert pass_at_1["low"] < pass_at_1["mean"] < pass_at_1["high"]
    assert list(data["stages"]) == ["base-eval", "r1-zero", "r1-zero-eval"]
    assert data["stages"]["r1-zero"]["steps"] == STEPS
    assert data["stages"]["r1-zero"]["settings"]["group_size"] == 16
    assert {check["name"]: check["status"] for check in data["health"]["r1-zero"]}["Mixed languages"] == "attention"


def test_a_run_in_progress_has_a_page_too(tmp_path: Path) -> None:
    rl = tmp_path / "rl-0a1b2c3d"
    lines(rl / "metrics.jsonl", [{"step": 1, "reward/mean": 0.1}, {"step": 2}], tail='{"step": 3, "rew')
    data = summary(tmp_path)
    assert data["stages"]["rl"] | {"kind": "rl", "finished": False, "steps": 2} == data["stages"]["rl"] | {"kind": "rl"}
    assert "not finished, step 2" in build(tmp_path)


def test_a_stage_that_has_only_begun_says_when(tmp_path: Path) -> None:
    (tmp_path / "rl-0a1b2c3d").mkdir()
    begun = {"stage": "rl", "kind": "rl", "started": "2026-01-02T03:04:05+00:00"}
    (tmp_path / "rl-0a1b2c3d" / "stage.json").write_text(json.dumps(begun))
    assert "2026-01-02 03:04 UTC" in build(tmp_path) and "not finished" in build(tmp_path)


def test_of_a_stage_run_twice_the_later_one_counts(tmp_path: Path) -> None:
    evaluation(tmp_path / "eval-0000000b", False, 1.0, problems=3)
    evaluation(tmp_path / "eval-0000000a", True, 2.0, problems=3)
    assert [stage.folder.name for stage in find_stages(tmp_path)] == ["eval-0000000a"]
    (tmp_path / "plan.json").write_text('{"stages": [{"folder": "eval-0000000b"}]}')  # the clock went back
    assert [stage.folder.name for stage in find_stages(tmp_path)] == ["eval-0000000b"]


def test_an_evaluation_in_progress_stands_apart(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "half-eval-00000009"
    evaluation(folder, True, 9e9, problems=20)
    (folder / "manifest.json").unlink()
    stages = [*(stage.folder for stage in find_stages(run)), folder]
    tables = summary(stages)["tables"]
    assert [list(table["columns"]) for table in tables] == [["base-eval", "r1-zero-eval"], ["half-eval"]]


def test_evaluations_of_other_questions_under_the_same_names_are_not_compared(tmp_path: Path) -> None:
    for name in ("a", "b"):
        evaluation(tmp_path / name, name == "b", 1.0, problems=3)
    path = tmp_path / "b" / "completions.jsonl"
    path.write_text(path.read_text().replace("Work out", "Add up"))  # as of another split of the same set
    tables = summary({name: tmp_path / name for name in ("a", "b")})["tables"]
    assert [list(table["columns"]) for table in tables] == [["a"], ["b"]]


def test_what_was_made_from_an_earlier_run_of_a_stage_is_left_out(tmp_path: Path) -> None:
    for place, name in enumerate(["zero-0000000a", "dev1-0000000a", "zero-0000000b"]):
        evaluation(tmp_path / name, True, float(place), problems=3)
    path = tmp_path / "dev1-0000000a" / "manifest.json"
    facts = json.loads(path.read_text()) | {"inputs": {"model": {"path": "../zero-0000000a/model"}}}
    path.write_text(json.dumps(facts))
    assert [stage.folder.name for stage in find_stages(tmp_path)] == ["zero-0000000b"]
    begun = {"model": {"stage": "zero", "path": "model", "fingerprint": "0000000b" * 8}}
    (tmp_path / "dev1-0000000b").mkdir()
    (tmp_path / "dev1-0000000b" / "stage.json").write_text(json.dumps({"kind": "sft", "started": 9.0, "inputs": begun}))
    assert [stage.folder.name for stage in find_stages(tmp_path)] == ["zero-0000000b", "dev1-0000000b"]


def test_of_a_step_done_twice_the_later_row_counts(tmp_path: Path) -> None:
    rows = [{"step": 1, "optim/loss": 3.0}, {"step": 2, "optim/loss": 2.0}, {"step": 2, "optim/loss": 1.0}]
    lines(tmp_path / "metrics.jsonl", rows)
    assert StageFolder("pretrain", tmp_path).metrics.series("optim/loss") == [(1, 3.0), (2, 1.0)]


def test_metrics_of_steps_in_any_order_are_those_of_the_last_row_of_each_step() -> None:
    rows = [
        {"step": 1, "loss": 3, "note": "a text", "switch": True},
        {"step": 3, "loss": None, "probe": 0.5},
        {"step": 2, "loss": 2.0, "wide": 10**400},
        {"step": 3, "loss": 1.0},
        {"loss": 9.0},
        {"step": 4, "loss": math.inf},
    ]
    metrics = Metrics(rows)
    assert metrics.steps == [1, 2, 3, 4] and metrics.names() == ["loss", "probe", "wide"]
    assert metrics.series("loss") == [(1, 3.0), (2, 2.0), (3, 1.0)] and metrics.values("loss") == [3.0, 2.0, 1.0]
    assert metrics.series("probe") == metrics.series("wide") == metrics.series("unknown") == []
    assert metrics.not_finite() == [2, 4]
    later = metrics.copy()
    later.add({"step": 2, "loss": 7.0})
    assert later.not_finite() == [4] and later.series("loss")[1] == (2, 7.0)
    assert metrics.not_finite() == [2, 4] and metrics.series("loss")[1] == (2, 2.0)


def test_values_that_are_no_numbers_are_named_and_drawn_around(tmp_path: Path) -> None:
    rows = [
        training_row(step) | ({"optim/loss": None, "reward/mean": None} if step == 7 else {}) for step in range(1, 20)
    ]
    lines(tmp_path / "rl-0a1b2c3d" / "metrics.jsonl", rows)
    (tmp_path / "rl-0a1b2c3d" / "rollouts").mkdir()
    found = {check["name"]: check for check in summary(tmp_path)["health"]["rl"]}
    assert found["Numbers"]["status"] == "attention" and "first is step 7" in found["Numbers"]["evidence"]
    assert "NaN" not in json.dumps(summary(tmp_path)) and build(tmp_path)


def test_what_the_verifier_could_not_tell_is_neither_right_nor_wrong() -> None:
    rows = [{"parts": {"accuracy": value}} for value in (1.0, 0.0, 0.5, None)]
    assert [is_right(row) for row in [*rows, {}]] == [True, False, None, None, None]


def changed(tmp_path: Path, **course: tuple[float, float]) -> dict[str, str]:
    """Statuses of a run whose metrics go from one value to another."""
    names = {
        "zero": "groups/zero_variance",
        "entropy": "policy/entropy",
        "cut": "completion/truncated",
        "unknown": "verifier/unknown",
        "gap": "sampler/logprob_gap_mean",
        "form": "reward/format",
        "right": "reward/accuracy",
        "length": "completion/length_mean",
    }
    paths = {names[key]: [a + (b - a) * min(1, i / 20) for i in range(40)] for key, (a, b) in course.items()}
    rows = [{"step": i + 1} | {name: values[i] for name, values in paths.items()} for i in range(40)]
    lines(tmp_path / "metrics.jsonl", rows)
    return {check.name: check.status for check in checks(StageFolder("rl", tmp_path), {})}


def test_a_run_that_goes_wrong_is_called_out(tmp_path: Path) -> None:
    found = changed(
        tmp_path,
        zero=(0.2, 1.0),
        entropy=(1.0, 0.0),
        cut=(0.0, 0.5),
        unknown=(0.0, 0.2),
        gap=(0.0, 0.2),
        form=(0.0, 1.0),
        right=(0.1, 0.1),
        length=(30, 300),
    )
    assert len(found) == 7 and set(found.values()) == {"attention"}


def test_a_reward_model_that_scores_nothing_is_called_out(tmp_path: Path) -> None:
    for share, status in ((0.0, "healthy"), (0.5, "attention")):
        rows = [training_row(step) | {"reward_model/not_scored": share} for step in range(1, 20)]
        lines(tmp_path / status / "metrics.jsonl", rows)
        (found,) = [
            one for one in checks(StageFolder("rl", tmp_path / status), {}) if one.name == "No score (reward_model)"
        ]
        assert found.status == status


def test_a_run_that_goes_well_is_left_in_peace(tmp_path: Path) -> None:
    found = changed(
        tmp_path,
        zero=(0.2, 1.0),
        entropy=(1.0, 0.3),
        cut=(0.1, 0.0),
        unknown=(0.0, 0.0),
        gap=(1e-6, 2e-6),
        form=(0.0, 1.0),
        right=(0.1, 1.0),
        length=(30, 300),
    )
    assert len(found) == 7 and set(found.values()) == {"healthy"}


def test_a_folder_without_stages_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected stage folders"):
        build(tmp_path)


def test_a_failed_write_leaves_the_earlier_report_whole(run: Path, tmp_path: Path) -> None:
    write_report(run, tmp_path)
    before = (tmp_path / "report.html").read_bytes()
    broken = tmp_path / "broken-0a1b2c3d"
    lines(broken / "completions.jsonl", [{"problem_id": "a"}])
    with pytest.raises(ValueError, match="lacks source"):
        write_report([broken], tmp_path)
    assert (tmp_path / "report.html").read_bytes() == before


def test_only_a_hash_is_taken_off_a_folder_s_name() -> None:
    assert [stage_name(Path(name)) for name in ("r1-zero-0a1b2c3d", "r1-zero", "rl-00zz1122")] == [
        "r1-zero",
        "r1-zero",
        "rl-00zz1122",
    ]


def test_smoothing_keeps_a_constant_and_a_line() -> None:
    assert smoothed([2.0] * 30) == pytest.approx([2.0] * 30)
    assert smoothed([float(i) for i in range(30)])[10:20] == pytest.approx([float(i) for i in range(10, 20)])
    assert smoothed([5.0]) == [5.0]


def test_numbers_are_written_for_reading() -> None:
    assert [readable_number(x) for x in (0, 0.01234, 48.21, 1234.5, 3e-6)] == ["0", "0.0123", "48.2", "1,234", "3e-06"]
    assert readable_number(0.978, True) == "97.8 %"


def test_with_more_than_two_models_the_changes_from_each_to_the_next_are_told(tmp_path: Path) -> None:
    for number, name in enumerate(("base", "zero", "r1")):
        evaluation(tmp_path / name, skilled=name != "base", started=float(number), problems=40)
    other = tmp_path / "other"
    evaluation(other, skilled=True, started=4.0, problems=12)
    folders = {name: tmp_path / name for name in ("base", "zero", "r1")} | {"everyday/zero": other}
    found = summary(folders)
    assert [list(table["columns"]) for table in found["tables"]] == [["base", "zero", "r1"], ["zero"]]
    first, second = found["tables"][0]["changes"]
    assert (first["before"], first["after"], second["before"], second["after"]) == ("base", "zero", "zero", "r1")
    assert first["differences"]["pass@1"]["mean"] > 0.5 and second["differences"]["pass@1"]["mean"] == 0
    assert found["tables"][1]["changes"] == []
    assert "zero -&gt; r1" in build(folders)
    whole = found["table_of_stages"]
    assert whole["columns"] == ["base", "zero", "r1"] and found["table"].splitlines()[1].startswith("accuracy")
    titles = [row["title"] for row in whole["rows"]]
    assert titles[:3] == ["accuracy", "accuracy countdown", "accuracy sums"] and "reasoning tokens" in titles
    accuracy = whole["rows"][0]
    assert [(one["from"], one["to"]) for one in accuracy["differences"]] == [
        ("base", "zero"),
        ("base", "r1"),
        ("zero", "r1"),
    ]
    first = next(line for line in found["table"].splitlines() if line.startswith("accuracy "))
    assert first.count("*") == 1  # the base is beaten, and the third column is the second again


def test_other_evaluations_of_the_models_are_rows_under_the_name_of_what_they_measure(tmp_path: Path) -> None:
    for name in ("base", "r1"):
        evaluation(tmp_path / name, skilled=name == "r1", started=1.0, problems=40)
        evaluation(tmp_path / f"replies-{name}", skilled=name == "r1", started=1.0, problems=12)
        path = tmp_path / f"replies-{name}" / "completions.jsonl"
        told = path.read_text().replace('"countdown"', '"tiny/harmful"').replace('"sums"', '"tiny/general"')
        path.write_text(told.replace("sums/test", "replies/test"))
    folders = {name: tmp_path / name for name in ("base", "r1")}
    whole = summary(folders | {f"everyday/{name}": tmp_path / f"replies-{name}" for name in folders})["table_of_stages"]
    assert {"helpfulness", "refuses the harmful", "accuracy"} <= {row["title"] for row in whole["rows"]}
    assert all(set(row["cells"]) == {"base", "r1"} for row in whole["rows"])


def row_of(**per_problem: dict[str, float]) -> TableRow:
    return TableRow("accuracy", "pass@1", {}, per_problem)


def test_stars_keep_the_family_wise_rate_of_each_row() -> None:
    columns = ["base", "zero", "dev1", "dev2", "r1"]
    rng = random.Random(0)
    rows = []
    for _ in range(100):  # 100 rows x 4 changes, none of them real
        rows.append(row_of(**{name: {str(i): rng.gauss(0, 1) for i in range(30)} for name in columns}))
    changes = StageTable(columns, rows).changes
    assert sum(map(len, changes)) == 400
    uncorrected = sum(any(change.difference.p_value < 0.05 for change in row.values()) for row in changes)
    starred = sum(any(change.is_clear for change in row.values()) for row in changes)
    assert starred <= 10 < uncorrected  # of 100 rows 5 are expected, 18.5 without the correction


def test_text_page_and_json_agree_on_the_corrected_p_value() -> None:
    base = {str(i): 0.0 for i in range(200)}
    for gains, clear in (((4, 8), False), ((9, 18), True)):  # a gain of 4 of 200 has p = 0.045, which is doubled
        solved = {"zero": gains[0], "r1": gains[1]}
        models = {"base": base} | {name: base | {str(i): 1.0 for i in range(n)} for name, n in solved.items()}
        cells = {name: estimate("pass@1", list(values.values()), 200) for name, values in models.items()}
        table = StageTable(list(models), [TableRow("accuracy", "pass@1", cells, models)])
        changes = table.changes[0]
        assert all(change.difference.p_value < 0.05 and change.is_clear == clear for change in changes.values())
        assert changes["zero"].p_holm == pytest.approx(2 * changes["zero"].difference.p_value)
        text = stage_table_text(table)
        assert "after Holm's correction" in text and text.splitlines()[1].count(" *") == 2 * clear
        assert [cell["is_clear"] for cell in stage_columns(table)["rows"][0]["cells"]] == [False, clear, clear]
        differences = stage_table_json(table)["rows"][0]["differences"]
        assert [entry.get("p_holm") for entry in differences] == [changes["zero"].p_holm, None, changes["r1"].p_holm]


def test_a_student_keeps_all_of_what_it_does_as_well_and_half_of_what_it_does_half_as_well() -> None:
    teacher = {str(place): float(place % 4 > 0) for place in range(40)}
    half = {name: value / 2 for name, value in teacher.items()}
    row = row_of(r1=teacher, same=teacher, half=half, none={})
    assert row.retained("r1", "same") == (1.0, 1.0, 1.0)
    assert row.retained("r1", "half") == (0.5, 0.5, 0.5)
    assert row.retained("r1", "none") is None and row.retained("none", "r1") is None
    other = {name: float(int(name) % 3 > 0) for name in teacher}
    share, low, high = row_of(r1=teacher, other=other).retained("r1", "other") or (0.0, 0.0, 0.0)
    assert low < share < high and share == pytest.approx(sum(other.values()) / sum(teacher.values()))


def test_the_page_shows_what_students_keep_and_what_data_was_dropped(tmp_path: Path) -> None:
    for name in ("base", "r1", "student"):
        evaluation(tmp_path / name, skilled=name != "base", started=1.0, problems=40)
    data = tmp_path / "cold-start"
    steps = [
        {"name": "rows", "rows_in": 9, "rows_out": 9, "reasons": {}, "examples": []},
        {
            "name": "not_correct",
            "rows_in": 9,
            "rows_out": 4,
            "reasons": {"wrong": 5},
            "examples": [{"id": "a", "problem_id": "p", "reason": "wrong", "detail": "different", "text": "<b>7</b>"}],
        },
    ]
    manifest_of(data, "generate", {"asked": 9, "samples": 9, "kept": 4, "funnel": steps, "decontamination": []})
    folders = {name: tmp_path / name for name in ("base", "r1", "student")} | {"cold-start": data}
    found = write_report(folders, tmp_path / "out", "t", "r1")
    page = (tmp_path / "out" / "report.html").read_text()
    assert found["table_of_stages"]["retention"]["accuracy"]["student"]["share"] == 1.0
    assert found["funnels"]["cold-start"]["kept"] == 4
    assert page.count("change clear") < page.count('class="change')  # not everything differs
    assert "<b>r1</b>" in page and "<b>student</b>" not in page  # whose answers are shown to be read
    assert "kept of r1" in page and "wrong 5" in page and "&lt;b&gt;7" in page and "<b>7</b>" not in page


def test_a_run_s_folder_gives_the_page_of_its_own_report(tmp_path: Path) -> None:
    names = {"base": "eval-base", "r1": "eval-r1", "student": "eval-student"}
    for number, name in enumerate(reversed(names.values())):  # finished in another order than the recipe's
        evaluation(tmp_path / f"{name}-0000000{number}", skilled=number < 2, started=float(number), problems=40)
    manifest_of(tmp_path / "requests-00000005", "tiny-requests", {})  # a stage that the report does not show
    told = {name: f"../{stage}-0000000{2 - place}/." for place, (name, stage) in enumerate(names.items())}
    own = tmp_path / "report-00000009"
    manifest_of(own, "report", {}, **told)
    facts = json.loads((own / "manifest.json").read_text()) | {"settings": {"title": "r1, tiny", "teacher": "r1"}}
    (own / "manifest.json").write_text(json.dumps(facts))
    given = {name: own / path for name, path in told.items()}
    assert build(tmp_path) != build(given)  # which has no teacher and another title
    expected = write_report(given, tmp_path / "expected", "r1, tiny", "r1")
    assert write_report(tmp_path, tmp_path / "found") == expected == summary(tmp_path)
    page = (tmp_path / "expected" / "report.html").read_text()
    assert (tmp_path / "found" / "report.html").read_text() == page == build(tmp_path)
    assert "kept of r1" in page and summary(tmp_path, "other")["title"] == "other"


def manifest_of(folder: Path, kind: str, funnel: dict[str, object], **inputs: str) -> None:
    folder.mkdir()
    (folder / "funnel.json").write_text(json.dumps(funnel))
    told = {name: {"path": path} for name, path in inputs.items()}
    (folder / "manifest.json").write_text(json.dumps({"kind": kind, "started": 1.0, "inputs": told}))


def test_the_picture_joins_stages_to_what_they_read_and_leaves_measurements_out(tmp_path: Path) -> None:
    manifest_of(tmp_path / "zero-00000001", "rl", {}, model="../../base")
    manifest_of(tmp_path / "cold-00000002", "generate", {}, model="../zero-00000001/model")
    manifest_of(tmp_path / "dev1-00000003", "sft", {}, data="../cold-00000002/kept.jsonl", model="/base")
    manifest_of(tmp_path / "eval-00000004", "evaluate", {}, model="../dev1-00000003/model")
    svg = picture([StageFolder("base", tmp_path / "eval-00000004")])
    assert svg.count("<rect") == 3 and svg.count("<path") == 2 and "eval" not in svg
    assert picture([StageFolder("zero", tmp_path / "zero-00000001")]) == ""
