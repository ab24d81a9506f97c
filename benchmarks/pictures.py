"""The pictures of the live page and of the report in docs/, from finished runs.

    python benchmarks/pictures.py RUNS [--compare r1-tiny-seed-1]

RUNS holds the run `r1-tiny` of `make demo`, and any other run to compare it with. Needs Chromium and the extra `dev`.
The pictures show the path RUNS.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright

from r1kit.data.jsonl import read_rows

DOCS = Path(__file__).parents[1] / "docs"
RUN = "r1-tiny"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path)
    parser.add_argument("--compare", default="", help="another run in RUNS, drawn over the curves")
    options = parser.parse_args()
    command = [sys.executable, "-m", "r1kit", "watch", str(options.runs), "--no-browser", "--port", "0"]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server,
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=shutil.which("chromium")) as browser,
    ):
        try:
            assert server.stdout is not None
            take_all(browser, server.stdout.readline().split()[-1], options.runs, options.compare)
        finally:
            server.terminate()


def take_all(browser: Browser, address: str, runs: Path, compare: str) -> None:
    def stage(name: str) -> str:
        folders = sorted(runs.glob(f"{RUN}/{name}-????????"), key=lambda path: path.stat().st_mtime)
        return f"run={RUN}&stage={folders[-1].name}"

    def open_page(state: str, sign: str, width: int, height: int, scheme: str = "light") -> Any:
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        page = context.new_page()
        page.goto(f"{address}#{state}")
        page.locator(sign).first.wait_for()
        return page

    curves = stage("zero") + (f"&with={compare}" if compare else "")
    page = open_page(curves, "figure svg", 1280, 880)
    page.locator("figure svg").first.hover()  # the crosshair
    page.screenshot(path=DOCS / "watch-curves.png")
    for scheme in ("light", "dark"):
        open_page(stage("zero"), "figure svg", 390, 844, scheme).screenshot(path=DOCS / f"watch-phone-{scheme}.png")
    page = open_page(stage("zero") + "&view=rollouts&step=11&group=0", ".card", 1280, 980, "dark")
    page.get_by_role("link", name=re.compile("[3-7] of 8 right")).first.click()
    page.locator(".card", has_text="wrong").first.wait_for()
    page.screenshot(path=DOCS / "watch-rollouts.png")
    rows = read_rows(next(runs.glob(f"{RUN}/mix-????????/mixed.jsonl")))
    number = next(number for number, row in enumerate(rows, start=1) if row["metadata"]["id"].startswith("rejection/"))
    lineage = stage("mix") + f"&view=lineage&file=mixed.jsonl&at={number}"
    open_page(lineage, ".trail > li", 1280, 900).screenshot(path=DOCS / "watch-lineage.png")
    page = browser.new_page(viewport={"width": 1500, "height": 1275})
    page.goto(next(runs.glob(f"{RUN}/report-*/report.html")).resolve().as_uri())
    page.screenshot(path=DOCS / "r1-tiny.png")


if __name__ == "__main__":
    main()
