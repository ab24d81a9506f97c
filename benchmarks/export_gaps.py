"""How far exported files are from the trained model, and whether sabotaged exports are refused.

    python benchmarks/export_gaps.py [--models tiny smollm2-135m] [--prompts 100]

Prints the table of docs/guides/export.md and writes results/export_gaps.json after each export, so a call that was
stopped loses one. Rows of models that are not named stay as they are.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

from r1kit.evaluate.table import align
from r1kit.export import ExportError, export, gguf_file, gguf_tokenizer, writing
from r1kit.store import write_json

EXPORTS = (("hub-folder", "f16"), ("gguf", "f16"), ("gguf", "q8_0"))
RESULTS = Path(__file__).parent / "results" / "export_gaps.json"
HEAD = ["model", "export", "greedy answers", "mean gap", "largest gap"]


def swapped(weight: Any, heads: int) -> Any:
    """Heads in reverse order, each of them right."""
    return RIGHT(weight, heads).unflatten(0, (heads, -1)).flip(0).flatten(0, 1)


RIGHT = gguf_file.permuted
SABOTAGES: dict[str, list[tuple[Any, str, Callable[..., Any]]]] = {
    "rotary pairs not permuted": [(gguf_file, "permuted", lambda weight, heads: weight)],
    "heads in the wrong order": [(gguf_file, "permuted", swapped)],
    "another chat template": [
        (writing, "trained_template", lambda *_: "{% for m in messages %}{{ m.content }}{% endfor %}")
    ],
    "another tokenizer": [
        (gguf_tokenizer, "pre_tokenizer_name", lambda parts: "llama-bpe"),
        (gguf_tokenizer, "lower_case_map", lambda: b""),
    ],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["tiny", "smollm2-135m"])
    parser.add_argument("--prompts", type=int, default=100)
    options = parser.parse_args()
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    rows: list[dict[str, Any]] = [row for row in known if row["model"] not in options.models]

    def add(row: dict[str, Any]) -> None:
        rows.append(row)
        write_json(RESULTS, rows)
        print(row, flush=True)

    for model in options.models:
        with tempfile.TemporaryDirectory() as temporary:
            for to, quant in EXPORTS:
                name = to if to == "hub-folder" else f"{to} {quant}"
                try:
                    checks = export(model, to, Path(temporary) / "out", quant=quant, prompts=options.prompts).checks
                    add({"model": model, "export": name} | {check.name: check.measured for check in checks})
                except ExportError as error:
                    add({"model": model, "export": name, "refused": str(error)})
            for name, changes in SABOTAGES.items():
                with ExitStack() as stack:
                    for module, function, wrong in changes:
                        stack.enter_context(mock.patch.object(module, function, wrong))
                    add({"model": model, "sabotage": name, "refused": refusal(model, Path(temporary) / "bad")})
    print(align([HEAD, *(line(row) for row in rows if "export" in row and "refused" not in row)]))


def refusal(model: str, out: Path) -> str:
    """The last line of the refusal; "" if the export was accepted or left something."""
    try:
        export(model, "gguf", out, quant="q8_0", prompts=4)
    except ExportError as error:
        return "" if out.exists() else str(error).splitlines()[-1]
    return ""


def line(row: dict[str, Any]) -> list[str]:
    gaps = {name.rpartition(", ")[2]: value for name, value in row.items() if name.startswith("log-prob gap")}
    return [row["model"], row["export"], row["greedy answers"], gaps["mean"], gaps["largest"]]


if __name__ == "__main__":
    main()
