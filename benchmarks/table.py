"""Write the table of docs/performance.md from benchmarks/results/*.json, so that no figure is typed by hand.

python benchmarks/table.py            # after new results; `--check` only says whether the page is up to date
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from _process import HERE

PAGE = HERE.parent / "docs" / "performance.md"
START, END = "<!-- written by benchmarks/table.py -->\n", "<!-- end -->"
TITLES = {"grpo_step": "GRPO step", "sft_step": "SFT update", "generate": "completions"}
HEAD = "| work | against | r1kit, tokens/s | peer, tokens/s | times as fast | memory, MB | times the bound |"


def rows(results: dict[str, Any]) -> Iterator[str]:
    """A line per comparison and peer."""
    for label, summary in results["comparisons"].items():
        main, ours = summary["main"], summary["sides"]["r1kit"]
        for name, ratio in summary["ratio"].items():
            theirs = summary["sides"][name]
            phases = ", ".join(f"{phase} {_short(value['median'])}" for phase, value in ratio.items() if phase != main)
            bound = [_short(side["times_bound"][main]["median"]) for side in (ours, theirs) if "times_bound" in side]
            cells = (
                f"{TITLES[results['benchmark']]}, {results['model']}: {label}",
                f"{name} ({spreads})" if (spreads := _runs(theirs)) else name,
                _short(ours["tokens_per_s"][main]["median"]),
                _short(theirs["tokens_per_s"][main]["median"]),
                f"**{_short(ratio[main]['median'])}**" + (f" ({phases})" if phases else ""),
                f"{ours['peak_mb']['median']:.0f} / {theirs['peak_mb']['median']:.0f}",
                " / ".join(bound) or "-",
            )
            yield f"| {' | '.join(cells)} |"


def _runs(side: dict[str, Any]) -> str:
    count = len(side["runs"])
    return f"{count} rounds" if count > 1 else "1 round"


def _short(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def host_line(host: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {host[name]}" for name in host if name not in ("cpu", "cores", "threads"))
    return f"{host['cpu']}, {host['threads']} threads; {versions}"


def exponents(results: dict[str, Any]) -> str:
    parts = (
        f"{name} {line['exponent']:.2f} (R² {line['r2']:.3f}; {line['last']:.2f} between the last two sizes)"
        for name, line in ((name, row["fits"]["step"]) for name, row in results["axes"].items())
    )
    return f"Exponents of a step's time ({results['model']} model): {', '.join(parts)}."


def render(folder: Path) -> str:
    """The part of the page between its marks."""
    files = [json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))]
    compared = [results for results in files if "comparisons" in results]
    lines = [line for results in compared for line in rows(results)]
    hosts = "\n".join(f"- {line}" for line in dict.fromkeys(host_line(results["host"]) for results in compared))
    table = "\n".join((HEAD, "|---|---|---|---|---|---|---|", *lines))
    scaling = "\n".join(exponents(results) for results in files if "axes" in results)
    return "\n" + "\n\n".join(part for part in (hosts, table, scaling) if part) + "\n\n"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the page is not up to date")
    options = parser.parse_args(argv)
    text = options.page.read_text()
    before, _, rest = text.partition(START)
    own, _, after = rest.partition(END)
    new = render(options.results)
    if options.check and own != new:
        raise SystemExit(f"{options.page.name} differs from the results: run `python benchmarks/table.py`")
    if not options.check:
        options.page.write_text(before + START + new + END + after)


if __name__ == "__main__":
    main()
