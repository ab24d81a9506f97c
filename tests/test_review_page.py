"""The review page: what it lets in, what it shows of hostile text, and a person's session in real headless Chromium.

`R1KIT_REVIEW_PNG=docs/review.png pytest tests/test_review_page.py -k whole_session` makes the picture of the guide.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1kit import cli
from r1kit.data.jsonl import read_rows
from r1kit.review.queue import ReviewQueue

pytest.importorskip("starlette", reason="the review page needs its extra: pip install 'r1kit[web]'")
pytest.importorskip("latex2mathml", reason="the review page needs its extra: pip install 'r1kit[web]'")

from starlette.testclient import TestClient

from r1kit.data.jsonl import MAX_FILE_ROW_BYTES
from r1kit.net.address import is_loopback
from r1kit.web import guard
from r1kit.web.app import make_app
from r1kit.web.markup import mathml, render, shown
from r1kit.web.text_diff import changes

NASTY = (
    "<script>window.pwned=1</script></textarea><img src=x onerror='window.pwned=1'>\x00\r\n"
    '"\'><a href="javascript:window.pwned=1">x</a> {{ 7*7 }} \u202eRTL\u202c \ud800 '
    "$\\href{javascript:window.pwned=1}{x}$ $\\text{<script>window.pwned=1</script>}$ "
    "$\\style{background:url(//evil)}{y}$"
)

CIRCLE: dict[str, Any] = {
    "id": "aime/1983/4#2",
    "problem": "A cutting tool has the shape of a notched circle. The radius of the circle is $\\sqrt{50}$ cm, the "
    "length of $AB$ is $6$ cm and that of $BC$ is $2$ cm. The angle $ABC$ is a right angle. Find the square of the "
    "distance (in centimetres) from $B$ to the centre of the circle.",
    "reasoning": "I put the centre at the origin and write $B = (x, y)$. The angle at $B$ is right, so I may take "
    "$A = (x, y + 6)$ and $C = (x + 2, y)$. Both lie on the circle:\n\n"
    "\\[ x^2 + (y + 6)^2 = 50, \\quad (x + 2)^2 + y^2 = 50. \\]\n\n"
    "Subtracting gives $x = 3y + 8$, and then $y^2 + 6y + 5 = 0$. Wait, there are two roots: $y = -5$ would put $B$ "
    "outside of the circle. So $B = (5, -1)$.",
    "summary": "The point is $B = (5, -1)$, and the square of its distance is $5^2 + 1^2 = \\boxed{26}$.",
    "reference": "26",
    "verdicts": {
        "math": {"correct": True, "extracted": "26", "detail": "equal as numbers"},
        "judge": {"correct": None, "detail": "the reply could not be parsed"},
    },
    "filters": {
        "readable": True,
        "mixed_languages": {"passed": True, "detail": "0 of 6 sentences"},
        "long_paragraphs": {"passed": False, "detail": "62 words, limit 60"},
    },
    "source": "r1-zero, rewritten",
    "language": "en",
    "metadata": {"temperature": 1.0},
}


def apples(number: int) -> dict[str, Any]:
    return {
        "id": f"gsm8k/{number}",
        "problem": f"Tom has {number} apples and buys 2. How many has he?",
        "reference": f"{number + 2}",
        "reasoning": f"${number} + 2 = {number + 2}$",
        "summary": f"He has ${number + 2}$ apples.",
        "verdicts": {"math": True},
    }


# ---- text becomes HTML


class Tags(HTMLParser):
    """Every element and attribute of some HTML."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found |= {tag} | {f"{tag}@{name}" for name, _ in attrs}


HARMLESS = re.compile(
    r"(math|m[a-z]+|span|del|ins)(@(class|title|tabindex|role|aria-label|display|displaystyle|scriptlevel|columnalign|form|[a-z]*space|stretchy|fence|accent|width))?"
)


def elements(html: str) -> set[str]:
    return Tags(html).found


def test_hostile_text_is_shown_as_text() -> None:
    html = render(NASTY).html
    assert "&lt;script&gt;window.pwned=1&lt;/script&gt;" in html
    assert elements(html) <= {"span", "span@class", "span@title", "math", "math@display", "mrow", "mi", "mtext"}
    assert "\x00" not in html and "\ud800" not in html and "\u202e" not in html
    assert "U+202E" in html and render(NASTY).hidden == 2


PIECES = r"""
$ $$ \[ \] \( \) \frac \sqrt { } ^ _ & \\ x 1 < > " ' \text{ \href{ \style{ \class{ \left( \right) \begin{align}
\end{align} \begin{pmatrix} \end{pmatrix} \boxed{ \unicode{x3c} \color{red} \hspace{9em} <script> </textarea>
javascript: \mathbb{R} \sum
"""
LATEX = st.lists(st.sampled_from([*PIECES.split(), "\n", "\u202e", "\x00"]), max_size=25)


@given(st.one_of(st.text(), LATEX.map("".join), LATEX.map(" ".join)))
def test_no_text_makes_another_element_than_formulas_and_marks(text: str) -> None:
    for html in (render(text).html, changes(text, text[::-1]).html):
        assert all(HARMLESS.fullmatch(found) for found in elements(html)), html


@given(st.text(), st.text())
def test_the_words_of_a_change_are_those_of_both_texts(before: str, after: str) -> None:
    found = changes(before, after)
    assert bool(found) == (shown(before) != shown(after))


def test_formulas_in_all_their_marks_are_drawn() -> None:
    for text in ("$x$", "$$x$$", "\\(x\\)", "\\[x\\]", "\\begin{align*}x\\end{align*}", "\\boxed{x}", "a $x$ b $y$"):
        assert "<math" in render(text).html, text
    assert elements(render("$\\frac{1}{2}$").html) >= {"mfrac", "mn"}


@pytest.mark.parametrize(
    "text", ["It costs $5 and then $10.", "a \\$ b $", "$ x $", "$x\n\ny$", "\\[ open", "\\boxed{open"]
)
def test_what_is_no_formula_stays_as_it_is(text: str) -> None:
    assert render(text).html == text and render(text).broken == 0


def test_a_formula_that_cannot_be_read_is_marked_and_counted() -> None:
    found = render("so $x^$ and $" + "{" * 900 + "}" * 900 + "$")
    assert found.broken == 2 and "<math" not in found.html


def test_a_sign_stands_closer_than_a_minus() -> None:
    assert (mathml("(5, -1)", False) or "").count('form="prefix"') == 1
    assert 'form="prefix"' not in (mathml("5 - 1", False) or "")


@pytest.mark.parametrize(
    "text", ["$" * 60_000, "\\[" * 30_000, "\\boxed{" * 8_000, "$x^" * 20_000, "{" * 60_000, "a " * 30_000]
)
def test_long_and_hostile_text_is_shown_without_hanging(text: str) -> None:
    render(text)
    changes(text, "b" + text[: len(text) // 2] + "c" + text[len(text) // 2 :])


def test_changes_are_told_word_by_word_and_long_agreement_is_left_out() -> None:
    found = changes("The sum is $\\frac{1}{2}$ here.", "The sum is $\\frac{1}{3}$ here.")
    assert "<del>2</del><ins>3</ins>" in found.html and (found.removed, found.added) == (1, 1)
    found = changes("same " * 500 + "old", "same " * 500 + "new")
    assert "488 words as before" in found.html and len(found.html) < 300
    assert (changes("把水烧开", "把茶烧开").removed, bool(changes("a", "a"))) == (1, False)


# ---- who may ask


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class Visitor:
    """A browser without a script, as far as requests go."""

    def __init__(self, queue: ReviewQueue, name: str = "", **options: Any) -> None:
        self.client = TestClient(make_app(queue, **options), base_url="http://localhost:8765")
        if name:
            assert self.post("/name", name=name).status_code == 303

    def get(self, path: str = "/", **headers: str) -> Any:
        return self.client.get(path, headers=headers)

    def token(self) -> str:
        found = re.search(r'name="token" value="(\w+)"', self.get("/name").text)
        assert found
        return found[1]

    def post(self, path: str, headers: dict[str, str] | None = None, **form: str) -> Any:
        form = {"token": self.token()} | form
        return self.client.post(path, data=form, headers=headers or {}, follow_redirects=False)


Make = Callable[..., ReviewQueue]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    opened: list[ReviewQueue] = []

    def made(*rows: dict[str, Any], **settings: Any) -> ReviewQueue:
        opened.append(ReviewQueue.create(tmp_path / "q.db", rows or [apples(1), apples(2)], **settings))
        return opened[-1]

    yield made
    for queue in opened:
        queue.close()


def test_a_form_needs_the_pages_token(make: Make) -> None:
    ana = Visitor(queue := make(), "ana")
    ana.get()
    for token in ("", "0" * 64, "ü"):
        assert ana.post("/decide", token=token, item="gsm8k/1", do="accept").status_code == 403
    assert queue.history() == []
    assert ana.post("/decide", item="gsm8k/1", do="accept").headers["location"] == "/?said=accept"


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://["},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_a_form_from_another_site_is_refused(make: Make, headers: dict[str, str]) -> None:
    ana = Visitor(queue := make(), "ana")
    assert ana.post("/undo", headers).status_code == 403
    assert queue.history() == []
    assert ana.post("/undo", {"origin": "http://localhost:8765", "sec-fetch-site": "same-origin"}).status_code == 303


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("", 421),
        ("localhost:1", 200),
        ("127.0.0.1:8765", 200),
        ("[::1]:8765", 200),
        ("tower", 200),
        ("[", 421),
        ("[::1", 421),
    ],
)
def test_a_name_that_was_rebound_to_this_machine_is_not_answered(make: Make, host: str, status: int) -> None:
    visitor = Visitor(make(), names=frozenset({"tower"}))
    assert visitor.get("/name", host=host).status_code == status


def test_every_answer_forbids_what_the_page_does_not_need(make: Make) -> None:
    ana = Visitor(make(), "ana")
    for path in ("/", "/progress", "/history", "/gone", "/static/review.js", "/accepted.jsonl"):
        headers = ana.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'none'; style-src 'self'; script-src 'self'")
        assert headers["x-content-type-options"] == "nosniff"
    assert "unsafe" not in headers["content-security-policy"]
    cookies = Visitor(make()).get("/name").headers["set-cookie"]
    assert "HttpOnly" in cookies and "SameSite=Strict" in cookies


def test_a_page_that_other_machines_reach_needs_its_key(make: Make) -> None:
    visitor = Visitor.__new__(Visitor)
    visitor.client = TestClient(make_app(make(), key="abc"), base_url="http://localhost")
    assert visitor.get("/name").status_code == visitor.get("/name?key=abd").status_code == 403
    assert visitor.get("/name?key=abc").status_code == visitor.get("/name").status_code == 200
    assert [is_loopback(host) for host in ("127.0.0.1", "localhost", "::1", "0.0.0.0", "10.0.0.7")] == [True] * 3 + [
        False
    ] * 2


def test_forms_that_are_no_forms_or_too_large_are_refused(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    ana = Visitor(make(), "ana")
    assert ana.client.post("/decide", json={"do": "accept"}).status_code == 415
    monkeypatch.setattr(guard, "LARGEST", 10_000)
    assert ana.client.post("/decide", data={"token": "x" * 11_000}).status_code == 413
    assert ana.client.post("/decide", data={f"f{number}": "" for number in range(60)}).status_code == 400
    assert ana.post("/decide", item="nothing", do="accept").status_code == 409
    assert ana.get("/decide").status_code == 200  # a reload of what was sent: the next sample


def test_a_sample_of_more_than_eight_mebibytes_can_be_accepted(make: Make) -> None:
    assert guard.LARGEST > 3 * MAX_FILE_ROW_BYTES  # in a form, percent signs take three bytes for one
    ana = Visitor(queue := make(apples(1)), "ana")
    ana.get()
    text = "é" * (9 * 2**20 // 2)
    answer = ana.post("/decide", item="gsm8k/1", do="accept", reasoning=text, summary="$3$")
    assert answer.headers["location"] == "/?said=edit"
    [decision] = queue.history()
    assert len(text.encode()) == 9 * 2**20 and decision.item == "gsm8k/1"


# ---- decisions over the page


def test_hostile_text_comes_back_from_the_form_as_it_was(make: Make) -> None:
    row = {"id": "x", "reference": NASTY, "source": NASTY, "verdicts": {NASTY: {"passed": False, "detail": NASTY}}}
    row |= {"problem": NASTY, "reasoning": "\n" + NASTY, "summary": "s", "metadata": {NASTY: [NASTY]}}
    ana = Visitor(queue := make(row), "ana")
    page = ana.get().text
    assert page.count("<script") == 1 and "{{ 7*7 }}" in page
    assert not {found for found in elements(page) if "@on" in found or found == "img"}
    typed = {"reasoning": shown("\n" + NASTY).replace("\n", "\r\n"), "summary": "s"}
    assert ana.post("/decide", item="x", do="accept", **typed).headers["location"] == "/?said=accept"
    assert not next(queue.rows())["review"]["edited"]


def test_an_edit_in_one_field_keeps_the_other_to_the_letter(make: Make) -> None:
    ana = Visitor(queue := make(apples(1) | {"reasoning": "a\x00b\r\nc"}), "ana")
    ana.get()
    ana.post("/decide", item="gsm8k/1", do="accept", reasoning="a\ufffdb\nc", summary="Three.")
    row = next(queue.rows())
    assert (row["reasoning"], row["summary"]) == ("a\x00b\r\nc", "Three.")


def test_a_double_click_decides_once(make: Make) -> None:
    ana = Visitor(queue := make(), "ana")
    ana.get()
    for _ in range(2):
        assert ana.post("/decide", item="gsm8k/1", do="accept").status_code == 303
    assert len(queue.history()) == 1


def test_a_late_decision_says_who_has_the_sample_and_keeps_what_was_typed(make: Make) -> None:
    clock = Clock()
    queue = make(apples(1), clock=clock)
    ana, bo = Visitor(queue, "ana"), Visitor(queue, "bo")
    ana.get()
    assert "Nothing for you now" in bo.get().text
    clock.now += 16 * 60
    assert 'value="gsm8k/1"' in bo.get().text
    late = ana.post("/decide", item="gsm8k/1", do="accept", reasoning="my long <work>", summary="s")
    assert late.status_code == 409
    assert "given to bo" in late.text and "my long &lt;work&gt;</textarea>" in late.text
    assert ana.post("/live", item="gsm8k/1", reasoning="x", summary="s").json() == {"yours": False}
    assert queue.history() == []


def test_a_decision_that_cannot_be_recorded_keeps_what_was_typed(make: Make) -> None:
    ana = Visitor(queue := make(), "ana")
    ana.get()
    typed = {"item": "gsm8k/1", "reasoning": "typed", "summary": "also typed"}
    refused = ana.post("/decide", do="reject", **typed)
    assert refused.status_code == 400 and "needs a reason" in refused.text and "also typed</textarea>" in refused.text
    pages = queue.database.one("PRAGMA page_count")[0]
    queue.database.all(f"PRAGMA max_page_count = {pages}")
    full = ana.post("/decide", do="accept", **typed | {"reasoning": "typed " * 30_000})
    assert full.status_code == 507 and "disk is full" in full.text and "also typed</textarea>" in full.text


def test_a_queue_that_is_damaged_while_it_is_served_is_told_as_text(make: Make) -> None:
    with ReviewQueue(make(*map(apples, range(60))).path) as queue:
        ana = Visitor(queue, "ana")
        assert ana.get().status_code == 200
        queue.database.all("PRAGMA wal_checkpoint(TRUNCATE)")
        queue.database.all("PRAGMA cache_size = 0")
        with open(queue.path, "r+b") as file:
            file.seek(4096)
            file.write(b"Z" * (queue.path.stat().st_size - 4096))
        answer = ana.get()
    assert (answer.status_code, answer.headers["content-type"]) == (507, "text/plain; charset=utf-8")
    assert "the file is damaged: restore it from a copy" in answer.text


def test_a_server_for_one_person_asks_no_name(make: Make) -> None:
    visitor = Visitor(queue := make(), who="ana")
    visitor.get()
    visitor.post("/decide", item="gsm8k/1", do="skip")
    assert [line.who for line in queue.history()] == ["ana"]


# ---- the command, and real Chromium


def test_the_command_says_what_is_in_its_way(
    make: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(make().path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert cli.main(["review", path, "--port", str(taken.getsockname()[1])]) == 1
    assert "choose another --port" in capsys.readouterr().err
    assert cli.main(["review", path, "--port", "0", "--reviewer", "x" * 99]) == 1
    assert "the reviewer's name is" in capsys.readouterr().err
    assert cli.main(["review", path, "--port", "0", "--host", "no.such.host.invalid"]) == 1
    assert "cannot listen on" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert cli.main(["review", path]) == 1
    assert "the review page needs uvicorn: pip install 'r1kit[web]'" in capsys.readouterr().err


@contextmanager
def served(folder: Path, rows: list[dict[str, Any]], *arguments: str) -> Iterator[str]:
    """`r1kit review` in a process of its own; gives the address, and stops it as Ctrl+C does."""
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [
        sys.executable,
        "-m",
        "r1kit",
        "review",
        "cold-start.db",
        "--import",
        "rows.jsonl",
        "--port",
        "0",
        *arguments,
    ]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        try:
            line = process.stdout.readline()
            assert line.startswith("review at http://127.0.0.1:"), process.stderr.read()
            yield line.split()[-1]
        finally:
            process.send_signal(signal.SIGINT)
            out, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "decided" in out and "Traceback" not in errors


@contextmanager
def visiting(browser: Any, folder: Path, rows: list[dict[str, Any]], *arguments: str) -> Iterator[Callable[..., Any]]:
    """Serve `rows` and open the page as somebody; at the end nothing came from elsewhere and nothing went wrong in it.

    The pages close before the server stops: one that still loads its style sheet or icon would report a lost server.
    """
    contexts, requests, troubles = [], [], []

    def open_page(name: str, *, width: int = 1280, height: int = 900, **options: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("request", lambda request: requests.append(request.url.startswith(url) or request.url))
        page.on(
            "console", lambda message: troubles.append(message.text) if message.type in ("error", "warning") else None
        )
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("dialog", lambda dialog: (troubles.append(dialog.message), dialog.accept()))
        page.goto(url)
        page.get_by_label("Your name").fill(name)
        page.get_by_role("button", name="Start").click()
        page.wait_for_selector("#decision" if options.get("java_script_enabled") is False else ".scripted #decision")
        page.wait_for_load_state()  # else the style sheet may still be missing
        return page

    with served(folder, rows, *arguments) as url:
        try:
            yield open_page
        finally:
            for context in contexts:
                context.close()
    assert set(requests) == {True}
    assert troubles == []


def went_on(page: Any, said: str) -> None:
    """Wait for what the next page says, and for its script."""
    page.wait_for_selector(f".scripted #said:has-text('{said}')")


def item_of(page: Any) -> str:
    return str(page.input_value("#decision [name=item]"))


@pytest.mark.slow
def test_a_persons_whole_session(tmp_path: Path, browser: Any, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [CIRCLE, *map(apples, range(1, 5))]
    with visiting(browser, tmp_path, rows, "--double", "1") as open_page:
        ana = open_page("ana", height=1010)
        assert ana.locator("#reasoning-preview math").count() > 5
        assert ana.get_by_text("equal as numbers").is_visible()

        ana.keyboard.press("e")
        ana.keyboard.type("a")  # a letter in the text, and not a key
        ana.keyboard.press("Backspace")
        edited = CIRCLE["summary"].replace(
            "the square of its distance is $", "its distance from the centre is $\\sqrt{26}$, whose square is $"
        )
        ana.fill("#summary", edited)
        ana.wait_for_selector("#summary-preview msqrt")
        ana.wait_for_selector("#changes ins")
        assert ana.inner_text("#summary-changes del").strip() == "the square of"
        assert ana.inner_text("#accept-label") == "Accept with edit"
        if target := os.environ.get("R1KIT_REVIEW_PNG"):
            ana.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
            ana.screenshot(path=target)
        ana.focus("#summary")
        ana.keyboard.press("Control+Enter")
        went_on(ana, "Accepted with your edit.")

        assert item_of(ana) == "gsm8k/1"
        ana.keyboard.press("r")
        ana.keyboard.type("hard to read")
        ana.keyboard.press("Enter")
        went_on(ana, "Rejected.")
        ana.keyboard.press("u")
        went_on(ana, "Undone")
        assert item_of(ana) == "gsm8k/1"
        ana.keyboard.press("s")
        went_on(ana, "Skipped")
        assert item_of(ana) == "gsm8k/2"
        ana.keyboard.press("a")
        went_on(ana, "Accepted.")

        bo = open_page("bo")
        assert item_of(ana) == "gsm8k/3" != item_of(bo) == CIRCLE["id"]
        assert bo.input_value("#summary") == CIRCLE["summary"]  # nothing of what ana said
        bo.click("#accept")
        went_on(bo, "Accepted.")
        bo.click("#skip")  # gsm8k/1
        went_on(bo, "Skipped")
        bo.fill("#reason", "wrong step")
        bo.click("#reject")
        went_on(bo, "Rejected.")

        url = bo.url.partition("?")[0]
        bo.goto(f"{url}progress")
        assert "1 of 2 samples" in bo.inner_text("main") and "50 %" in bo.inner_text("main")
        assert bo.get_by_role("row", name=re.compile("ana")).inner_text().split()[:5] == ["ana", "2", "1", "0", "1"]
        with bo.expect_download() as download:
            bo.get_by_role("link", name="Download the accepted samples").click()
        (row,) = read_rows(Path(download.value.path()))
        assert row["summary"] == edited

        assert cli.main(["review", str(tmp_path / "cold-start.db"), "--port", "0"]) == 1
        assert f"is served already, at {url}" in capsys.readouterr().err
        out = tmp_path / "kept.jsonl"  # while the page is served
        assert cli.main(["review", str(tmp_path / "cold-start.db"), "--auto-accept", "--export", str(out)]) == 0
    kept = {row["id"]: row for row in read_rows(out)}
    assert set(kept) == {CIRCLE["id"], "gsm8k/1", "gsm8k/3", "gsm8k/4"}  # bo rejected the other one
    assert kept[CIRCLE["id"]]["review"]["original"]["summary"] == CIRCLE["summary"]
    with sqlite3.connect(tmp_path / "cold-start.db") as db:
        actions = [tuple(line) for line in db.execute("SELECT who, action FROM history WHERE role <> 'auto'")]
    db.close()
    assert actions[:5] == [("ana", "edit"), ("ana", "reject"), ("ana", "undo"), ("ana", "skip"), ("ana", "accept")]


@pytest.mark.slow
def test_the_page_works_without_javascript(tmp_path: Path, browser: Any) -> None:
    with visiting(browser, tmp_path, [CIRCLE, apples(1), apples(2)]) as open_page:
        page = open_page("ana", java_script_enabled=False)
        assert page.locator("#reasoning-preview math").count() > 5
        assert page.get_by_text("accept while typing").is_hidden()
        page.locator("#summary-editor summary").click()
        page.get_by_label("Summary, as text").fill("It is $\\frac{52}{2}$.")
        page.get_by_role("button", name="Preview and compare").click()
        assert page.locator("#summary-preview mfrac").count() == 1
        assert page.locator("#changes ins").first.is_visible()
        page.get_by_role("button", name="Accept with edit").click()
        assert page.inner_text("#said") == "Accepted with your edit."
        page.get_by_label("Why it is rejected").fill("wrong answer")
        page.get_by_label("Why it is rejected").press("Enter")  # rejects, and accepts nothing
        assert page.inner_text("#said") == "Rejected."
        page.get_by_role("button", name="Undo").click()
        assert page.inner_text("#said").startswith("Undone")
        page.get_by_role("button", name="Skip").click()
        assert item_of(page) == "gsm8k/2"
        page.get_by_role("button", name="Accept").click()
        page.get_by_role("link", name="Yours").click()
        assert page.locator("tbody td:nth-child(2)").all_inner_texts() == ["accept", "skip", "undo", "reject", "edit"]


@pytest.mark.slow
def test_hostile_text_does_nothing_in_a_browser(tmp_path: Path, browser: Any) -> None:
    row = dict.fromkeys(("problem", "reasoning", "summary", "reference", "source", "language"), NASTY)
    with visiting(browser, tmp_path, [row | {"id": "x", "metadata": {NASTY: NASTY}}]) as open_page:
        page = open_page("<b>ana</b>")
        page.keyboard.press("e")
        page.fill("#summary", NASTY.replace("\ud800", "") + " more")
        page.wait_for_selector("#changes ins")
        assert page.evaluate("window.pwned") is None
        assert page.locator("main script, main img, main a, main [style], main [onerror]").count() == 0
        assert page.input_value("#reasoning") == shown(NASTY)
        assert page.inner_text(".person") == "<b>ana</b>"


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 390)])
def test_the_page_is_accessible_and_fits(tmp_path: Path, browser: Any, scheme: str, width: int) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe: pip install 'r1kit[dev]'").Axe()
    with visiting(browser, tmp_path, [CIRCLE, apples(1)]) as open_page:
        page = open_page("ana", width=width, color_scheme=scheme)
        page.keyboard.press("e")
        page.fill("#summary", "Twenty-six: $\\boxed{26}$ $x^$ \u202e.")
        page.wait_for_selector("#changes ins")
        pages = [axe.run(page)]
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        for path in ("progress", "history", "name"):
            page.evaluate("document.forms[0]?.reset()")
            page.goto(page.url.rpartition("/")[0] + f"/{path}")
            pages.append(axe.run(page))
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
    assert [
        (found["id"], found["nodes"][0]["html"]) for result in pages for found in result.response["violations"]
    ] == []
