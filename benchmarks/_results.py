"""Results of benchmarks that measure several things, in one file of `results/`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from r1kit.store import write_json

FOLDER = Path(__file__).parent / "results"


def keep(name: str, what: str, result: Any, *, folder: Path = FOLDER) -> None:
    """Print a result, and put it into NAME.json beside what was measured earlier."""
    file = folder / f"{name}.json"
    known = json.loads(file.read_text()) if file.exists() else {}
    write_json(file, known | {what: result})
    print(json.dumps(result, indent=2))
