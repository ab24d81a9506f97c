"""The live page in real headless Chromium, over a small real run that starts, is killed, resumes and ends.

`R1KIT_WATCH_PNG=FOLDER pytest tests/test_watch_page.py -k accessible` writes a picture of every view.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from r1kit.data.jsonl import read_rows

pytest.importorskip("starlette", reason="the live page needs its extra: pip install 'r1kit[web]'")

TESTS = Path(__file__).parent
START = "import sys; from pathlib import Path; from watched_run import make; make(Path(sys.argv[1]))"
PATIENCE_MS = 120_000  # the machine may be busy; nothing waits longer than it must
NASTY = "<script>window.pwned=1</script><img src=x onerror='window.pwned=1'>\x00 \u202eRTL {{7*7}} </details></div>"


def small_run(runs: Path) -> dict[str, Any]:
    """How to start the small run in a process of its own; started again, it resumes."""
    path = os.pathsep.join([str(TESTS), *sys.path])
    return {"args": [sys.executable, "-c", START, str(runs)], "env": os.environ | {"PYTHONPATH": path}}


@pytest.fixture
def start(runs: Path) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Starts the small run; what still runs at the end is killed."""
    processes = []

    def start_process() -> subprocess.Popen[bytes]:
        processes.append(subprocess.Popen(**small_run(runs)))
        return processes[-1]

    yield start_process
    for process in processes:
        process.kill()
        process.wait()


@contextmanager
def serving(runs: Path, port: int = 0) -> Iterator[str]:
    """`r1kit watch` in a process of its own; gives the address, and stops it as Ctrl+C does."""
    command = [sys.executable, "-m", "r1kit", "watch", str(runs), "--no-browser", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        try:
            line = process.stdout.readline()
            assert line.startswith("watch at http://127.0.0.1:"), process.stderr.read()
            yield line.split()[-1]
        finally:
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
    assert process.returncode == 0 and "Traceback" not in errors, errors


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("watched")


@pytest.fixture(scope="module")
def address(runs: Path, browser: Any) -> Iterator[str]:
    with serving(runs) as url:
        yield url


Open = Callable[..., Any]


@pytest.fixture
def visit(browser: Any, address: str) -> Iterator[Open]:
    """Open the page; at the end nothing came from elsewhere, nothing was refused, and no script failed."""
    contexts, requests, troubles = [], [], []

    def open_page(state: str = "", *, width: int = 1280, height: int = 900, **options: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("request", lambda request: requests.append(request.url.startswith(address) or request.url))
        page.on("console", lambda message: troubles.append(message.text) if message.type != "log" else None)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.goto(address + (f"#{state}" if state else ""))
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert set(requests) == {True}
    assert troubles == []


def until(is_so: Callable[[], Any]) -> Any:
    """Wait for something outside of the browser."""
    end = time.monotonic() + PATIENCE_MS / 1000
    while not (result := is_so()):
        assert time.monotonic() < end
        time.sleep(0.01)
    return result


def stage_of(runs: Path, name: str) -> str:
    return next(runs.glob(f"small/{name}-*")).name


def test_a_run_is_watched_while_it_is_killed_resumed_and_ends(runs: Path, visit: Open, start: Any) -> None:
    empty = visit()
    empty.get_by_role("heading", name="No run yet").wait_for()  # the folder is empty

    process = start()
    until(lambda: any(path.stat().st_size for path in runs.glob("small/zero-*/metrics.jsonl")))
    process.send_signal(signal.SIGSTOP)  # so that it does not end before the page is read
    empty.get_by_role("link", name="small").wait_for()  # the run has appeared by itself
    page = visit(f"run=small&stage={stage_of(runs, 'zero')}&view=rollouts&group=0", height=500)
    page.locator(".steps b", has_text="Step 1").wait_for()
    assert page.locator(".head .state.running").inner_text() == "running"
    page.keyboard.press("j")
    page.get_by_text("group 2 of 4").wait_for()
    question = page.locator(".group h2").inner_text()
    page.evaluate("scrollTo(0, 150)")
    page.wait_for_function("scrollY === 150")

    process.kill()
    process.wait()
    page.locator(".head .state.died").wait_for()  # said by itself, without a reload
    process = start()
    page.locator(".newest").wait_for()  # another step is here, and the reader still reads the first one
    assert page.locator(".group h2").inner_text() == question
    assert page.locator(".steps b").inner_text() == "Step 1" and page.evaluate("scrollY") == 150
    page.locator(".newest").click()
    page.locator(".steps b", has_text=re.compile("^Step [23]$")).wait_for()
    page.go_back()
    page.locator(".steps b", has_text=re.compile("^Step 1$")).wait_for()

    assert process.wait(PATIENCE_MS / 1000) == 0
    page.keyboard.press("u")
    page.keyboard.press("u")  # from the group to the list, and from the stage to the run
    page.locator(".head .state.finished").wait_for()
    assert page.locator(".stages a.done").count() >= 6


@pytest.fixture(scope="module")
def finished(runs: Path) -> Path:
    """The small run to its end, whichever of these tests run, alone or in several processes."""
    subprocess.run(**small_run(runs), check=True)
    return runs


def test_curves_show_values_by_pointer_and_by_key_and_the_legend_hides_lines(finished: Path, visit: Open) -> None:
    page = visit(f"run=small&stage={stage_of(finished, 'zero')}")
    parts = page.locator("figure", has_text="Reward parts")
    parts.locator("path.mean").nth(1).wait_for(state="attached")
    slider = page.get_by_role("slider", name="Reward parts")
    slider.focus()
    page.keyboard.press("Home")
    metrics = next(finished.glob("small/zero-*/metrics.jsonl")).read_text()
    reward = json.loads(metrics.splitlines()[0])["reward/accuracy"]
    shown = re.search(r"step 1: accuracy ([\d.]+)", slider.get_attribute("aria-valuetext"))
    assert shown and float(shown[1]) == pytest.approx(reward, abs=0.005)
    assert page.locator(".cross[visibility=visible]").count() == page.locator("figure").count() > 5
    slider.hover()
    assert "step" in parts.locator("figcaption > .ends").inner_text()
    parts.get_by_role("button", name="accuracy").click()
    assert parts.locator("path.mean").count() == 1
    page.get_by_label("Compare with another stage of this run").select_option(label="r1")
    page.locator(".key .swatch", has_text="r1").wait_for()
    assert "means of the last quarter" in page.locator(".over").inner_text()
    assert parts.locator("path.mean").count() == 2 and parts.locator("g.s2 path.mean").count() == 1
    page.get_by_role("button", name="Leave out r1").click()
    page.locator(".key").wait_for(state="detached")
    assert parts.locator("path.mean").count() == 1
    page.get_by_role("slider", name="Reward", exact=True).focus()
    page.keyboard.press("End")
    page.keyboard.press("Enter")  # to the rollouts of the step
    page.locator(".steps b", has_text="Step 3").wait_for()


def test_a_group_is_found_by_filter_text_and_key_and_read(finished: Path, visit: Open) -> None:
    page = visit(f"run=small&stage={stage_of(finished, 'zero')}&view=rollouts&step=1")
    page.locator(".rewards tbody tr").nth(3).wait_for()
    header = page.locator(".rewards thead").inner_text().split()
    assert {"Verdict", "Advantage", "Reward", "accuracy", "format", "Tokens"} <= set(header)
    wrong = page.get_by_role("button", name=re.compile("^wrong ?[0-9]"))
    count = int(re.findall(r"\d+", wrong.inner_text())[0])
    wrong.click()
    page.get_by_text(re.compile(f"^{count} completion")).wait_for()
    assert page.locator(".groups .match").count() == count
    assert "filter=wrong" in page.url
    page.keyboard.press("/")
    page.keyboard.type("no such text")
    page.get_by_text("No completion of this step matches").wait_for()
    page.keyboard.press("Escape")
    state = f"run=small&stage={stage_of(finished, 'zero')}&view=rollouts&step=1&group=0"
    page.goto(f"{page.url.partition('#')[0]}#{state}")
    page.locator(".card").nth(3).wait_for()
    assert page.locator(".cards details[open]").count() == 0
    page.keyboard.press("o")
    assert page.locator(".cards details[open]").count() == page.locator(".cards details").count()
    page.keyboard.press("p")
    page.locator(".tokens").nth(3).wait_for()  # shaded, and as the completion was
    first = next(read_rows(next(finished.glob("small/zero-*/rollouts/step-000001.jsonl"))))
    assert page.locator(".tokens").first.text_content().endswith(first["completion"])
    assert page.evaluate("[...CSS.highlights.values()].some((shade) => shade.size)")
    page.locator(".tokens").first.hover(position={"x": 30, "y": 18})
    assert "log-prob" in page.locator("#token").inner_text() or "not sampled" in page.locator("#token").inner_text()
    page.locator("#find").fill(first["question"][:12])
    page.locator(".card.match").nth(3).wait_for()  # the cards are made again, with their tokens
    page.locator(".tokens").nth(3).wait_for()


def test_an_answer_leads_to_its_training_row_and_the_rollout_group(finished: Path, visit: Open) -> None:
    kept = {row["problem_id"] for row in read_rows(next(finished.glob("small/rejection-*/kept.jsonl")))}
    answers = read_rows(next(finished.glob("small/eval-r1-*/completions.jsonl")))
    trained_on = next(number for number, row in enumerate(answers, 1) if row["problem_id"] in kept)
    page = visit(f"run=small&stage={stage_of(finished, 'eval-r1')}")
    page.get_by_role("region", name=f"Row {trained_on}", exact=True).get_by_role("link", name="Lineage").click()
    page.locator(".trail > li").nth(4).wait_for()
    kinds = page.locator(".trail > li > header .kind").all_inner_texts()
    assert kinds[0] == "answer" and kinds[-1] == "prompt" and {"training row", "sample", "review"} <= set(kinds)
    assert page.locator(".trail .differs").count() == 0
    assert page.locator(".trail .same").count() >= 4
    siblings = page.locator(".trail details.siblings").last
    siblings.locator("> summary").click()
    assert siblings.locator(".card").count() >= 1


def test_hostile_text_does_nothing(runs: Path, visit: Open) -> None:
    stage = runs / "hostile" / "rl-0a1b2c3d"
    (stage / "rollouts").mkdir(parents=True)
    facts = {
        "stage": "rl",
        "kind": "rl",
        "settings": {NASTY: NASTY},
        "fingerprint": "0a1b2c3d",
        "inputs": {},
        "started": "2026-11-29T00:00:00+00:00",
    }
    (stage / "manifest.json").write_text(json.dumps(facts))
    (stage / "metrics.jsonl").write_text(
        json.dumps({"step": 1, "reward/mean": 1.0, f"reward/{NASTY}": 1.0, "reward/b": 1.0, "policy/kl": None}) + "\n"
    )
    row = {
        "step": 1,
        "problem_id": NASTY,
        "question": NASTY,
        "completion": f"<think>{NASTY}</think>{NASTY}",
        "answer": NASTY,
    }
    row |= {
        "reward": 1.0,
        "parts": {NASTY: 1.0},
        "advantage": 0.0,
        "notes": {"verdict": "wrong", "detail": NASTY, NASTY: NASTY},
    }
    (stage / "rollouts" / "step-000001.jsonl").write_text("".join(json.dumps(row) + "\n" for _ in range(2)))
    other = runs / "plain" / "rl-0a1b2c3d"
    other.mkdir(parents=True)
    (other / "manifest.json").write_text(json.dumps(facts | {"settings": {"steps": 3}}))
    page = visit("run=hostile&stage=rl-0a1b2c3d&with=plain")
    page.locator("figure svg").first.wait_for()
    page.keyboard.press("3")
    page.locator(".cards details").first.wait_for()
    page.keyboard.press("o")
    page.locator(".thinking .text").first.wait_for()
    assert NASTY.replace("\x00", "") in page.locator(".thinking .text").first.text_content().replace("\x00", "")
    page.keyboard.press("5")
    page.locator("dl.settings").first.wait_for()
    differing = page.get_by_role("region", name="Settings that differ").locator("tbody tr")
    assert [row.split("\t")[1:] for row in differing.all_inner_texts()][1] == ["–", "3"]
    assert page.evaluate("window.pwned") is None
    assert page.locator("main :is(script, img, [onerror])").count() == 0
    assert page.locator(".runs .fault").all_inner_texts() == ["collapsed"]  # said in the list, whichever run is open


def test_names_keep_their_room_beside_a_graph_of_many_stages(runs: Path, visit: Open) -> None:
    """A comparison of forty arms, and thirty stages that each are read twice."""
    arms = [{"stage": f"arm-{n}", "kind": "rl", "folder": f"arm-{n}-0a1b2c3d", "reads": []} for n in range(40)]
    table = {"stage": "table", "kind": "table", "folder": "table-0a1b2c3d", "reads": [arm["stage"] for arm in arms]}
    twice = [{"stage": f"part-{n}", "kind": "rl", "folder": f"part-{n}-0a1b2c3d", "reads": []} for n in range(30)]
    names = [part["stage"] for part in twice]
    ends = [{"stage": end, "kind": "mix", "folder": f"{end}-0a1b2c3d", "reads": names} for end in ("first", "second")]
    for name, stages in {"arms": [*arms, table], "twice": [*twice, *ends]}.items():
        (runs / name).mkdir()
        (runs / name / "plan.json").write_text(json.dumps({"title": name, "command": "", "stages": stages}))
        page = visit(f"run={name}")
        page.locator(".graph .name", has_text=stages[-1]["stage"]).wait_for()
        assert page.locator(".graph .name").first.bounding_box()["x"] < 170
        ends_at = page.evaluate("[...document.querySelectorAll('.lanes circle')].map((dot) => +dot.getAttribute('cx'))")
        assert len(ends_at) == len(stages) and max(ends_at) < 145
        assert len(set(ends_at)) == (2 if name == "arms" else 31)  # all lanes last until "second"


def hand_written(runs: Path, name: str, courses: Mapping[str, Callable[[int], float]], steps: int = 12) -> None:
    """A run with one RL stage whose metrics have these values by step."""
    stage = runs / name / "rl-0a1b2c3d"
    stage.mkdir(parents=True)
    facts = {"stage": "rl", "kind": "rl", "settings": {}, "fingerprint": "0a1b2c3d", "inputs": {}}
    (stage / "manifest.json").write_text(json.dumps(facts | {"started": "2026-11-29T00:00:00+00:00"}))
    rows = ({"step": step} | {metric: value(step) for metric, value in courses.items()} for step in range(1, steps + 1))
    (stage / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


CUT = {"completion/truncated": lambda step: 0.08 + 0.005 * step}  # the limit of 10 % is passed
EQUAL = {"groups/zero_variance": lambda step: 0.5 + 0.02 * step}  # 80 % is near
MIXED = "language/mixed"  # 10 points above the start are the limit


def test_a_limit_is_drawn_if_it_is_near_and_holds_for_all_compared_runs(runs: Path, visit: Open) -> None:
    hand_written(runs, "calm", CUT | EQUAL | {MIXED: lambda step: 0.02 + 0.001 * step})
    hand_written(runs, "mixing", CUT | EQUAL | {MIXED: lambda step: 0.02 + 0.01 * step})
    page = visit("run=calm&stage=rl-0a1b2c3d")
    cut, equal, mixed = (
        page.locator("figure", has_text=title) for title in ("Truncated", "Zero-variance groups", "Mixed languages")
    )
    cut.locator(".limit.attention text", has_text="limit: at most 10%").wait_for()
    assert cut.get_by_role("slider").get_attribute("aria-description") == "limit: at most 10%"
    assert equal.locator(".limit.healthy text").text_content() == "limit: at most 80%"
    assert mixed.locator("svg").count() == 1 and mixed.locator(".limit").count() == 0  # it would squash the curve
    page = visit("run=mixing&stage=rl-0a1b2c3d")
    mixed = page.locator("figure", has_text="Mixed languages")
    mixed.locator(".limit text", has_text="limit: at most 13%").wait_for()
    page.get_by_label("Compare with calm").check()
    mixed.locator(".limit").wait_for(state="detached")  # the other run began elsewhere
    page.locator("figure", has_text="Truncated").locator(".limit.attention").wait_for()


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_all_runs_are_compared_by_one_click_and_one_is_brought_to_the_front(
    runs: Path, visit: Open, scheme: str, width: int
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe: pip install 'r1kit[dev]'").Axe()
    names = [f"seed-{scheme}-{number}" for number in range(4)]
    for number, name in enumerate(names):
        hand_written(runs, name, {"reward/mean": lambda step, number=number: number + 0.1 * step})  # type: ignore[misc]
    (runs / "other").mkdir(exist_ok=True)
    page = visit(f"run={names[0]}", width=width, color_scheme=scheme)
    page.get_by_role("heading", name="Stages").last.wait_for()
    unfold = page.locator("#rail > summary")
    if unfold.is_visible():
        unfold.press("Enter")
    page.get_by_role("button", name="compare all").press("Enter")
    page.locator(".key button.swatch", has_text=names[3]).wait_for()
    assert not unfold.is_visible() or page.evaluate("document.activeElement.id") == "content"
    assert {*names[1:]} <= {*page.locator(".key button.swatch").all_inner_texts()}
    compared = page.locator("path.mean").count() - 1
    assert compared >= 3 and page.locator("svg.many path.raw").first.is_hidden()
    figures = page.locator("figure .ends")
    assert re.fullmatch(r"1\.1 \| .+ … 4\.1", figures.inner_text())  # 1.1 is the mean of the steps 10 to 12
    page.get_by_role("button", name=names[2]).click()
    page.locator("g.back path.mean").nth(compared - 2).wait_for(state="attached")
    assert page.locator("g.back path.mean").count() == compared - 1
    assert figures.inner_text() == "1.1 | 3.1"
    assert axe.run(page).response["violations"] == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    if unfold.is_visible():
        unfold.click()
    page.get_by_role("button", name="Compare none").click()
    page.locator(".key").wait_for(state="detached")
    assert page.locator("path.mean").count() == 1


def test_a_lost_server_is_said_and_found_again(tmp_path: Path, browser: Any) -> None:
    page = browser.new_page()
    with serving(tmp_path) as url:
        page.goto(url)
        page.locator("#live .live").wait_for()
    page.locator("#live .lost", has_text="No answer from the server").wait_for()
    assert page.get_by_role("heading", name="No run yet").is_visible()  # what was read stays
    with serving(tmp_path, int(url.rpartition(":")[2].strip("/"))):
        page.locator("#live .live").wait_for()
        page.close()


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_view_is_accessible_and_fits(finished: Path, visit: Open, scheme: str, width: int) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe: pip install 'r1kit[dev]'").Axe()
    zero, answers = stage_of(finished, "zero"), stage_of(finished, "eval-r1")
    views = {
        "overview": ("run=small", ".verdict"),
        "curves": (f"run=small&stage={zero}", "figure svg"),
        "health": (f"run=small&stage={zero}&view=health", ".verdict"),
        "rollouts": (f"run=small&stage={zero}&view=rollouts&step=1&group=0&tokens=1&filter=wrong", ".card .tokens"),
        "rows": (f"run=small&stage={answers}", ".rows .card"),
        "settings": (f"run=small&stage={zero}&view=settings", ".settings"),
        "lineage": (f"run=small&stage={answers}&view=lineage&file=completions.jsonl&at=1", ".trail > li"),
    }
    page = visit("", width=width, color_scheme=scheme)
    problems = []
    for name, (state, sign) in views.items():
        page.goto(f"{page.url.partition('#')[0]}#{state}")
        page.locator(sign).first.wait_for()
        if folder := os.environ.get("R1KIT_WATCH_PNG"):
            page.screenshot(path=f"{folder}/{name}-{scheme}-{width}.png")
        found = axe.run(page).response["violations"]
        problems += [(name, each["id"], each["nodes"][0]["html"]) for each in found]
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
    page.keyboard.press("?")
    page.get_by_role("dialog").wait_for()
    problems += [("keys", each["id"], each["nodes"][0]["html"]) for each in axe.run(page).response["violations"]]
    assert problems == []
