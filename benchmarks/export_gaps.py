"""How far exported files are from the trained model, and whether sabotaged exports are refused.

    python benchmarks/export_gaps.py [--models tiny smollm2-135m] [--prompts 100]

Prints the table of docs/guides/export.md and writes results/export_gaps.json after each export. A call goes on where an
earlier one stopped; with `--again`, the models are measured again.
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

EXPORTS = {"hub-folder": ("hub-folder", "f16"), "gguf f16": ("gguf", "f16"), "gguf q8_0": ("gguf", "q8_0")}
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
    parser.add_argument("--again", action="store_true", help="measure these models again")
    options = parser.parse_args()
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    rows = [row for row in known if not (options.again and row["model"] in options.models)]
    done = {(row["model"], row.get("export") or row["sabotage"]) for row in rows}
    for model in options.models:
        for name in (*EXPORTS, *SABOTAGES):
            if (model, name) not in done:
                rows.append(exported(model, name, options.prompts) if name in EXPORTS else sabotaged(model, name))
                write_json(RESULTS, rows)
                print(rows[-1], flush=True)
    print(align([HEAD, *(line(row) for row in rows if "export" in row and "refused" not in row)]))


def exported(model: str, name: str, prompts: int) -> dict[str, Any]:
    """What the proof of an export has measured."""
    to, quant = EXPORTS[name]
    with tempfile.TemporaryDirectory() as temporary:
        try:
            checks = export(model, to, Path(temporary) / "out", quant=quant, prompts=prompts).checks
        except ExportError as error:
            return {"model": model, "export": name, "refused": str(error)}
    return {"model": model, "export": name} | {check.name: check.measured for check in checks}


def sabotaged(model: str, name: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        for module, function, wrong in SABOTAGES[name]:
            stack.enter_context(mock.patch.object(module, function, wrong))
        return {"model": model, "sabotage": name, "refused": refusal(model, Path(temporary) / "bad")}


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
