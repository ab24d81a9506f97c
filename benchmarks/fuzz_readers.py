"""Every reader of outside data on damaged copies of good inputs, for a while each: a value, or an error that users see.

With atheris installed, coverage guides the damage, of one reader (`--reader NAME`); otherwise it is random. Prints how
many inputs each reader took. The first input that ends in another error is written to a file and raises.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path += [str(ROOT / "tests"), str(ROOT / "tests" / "attack")]
atheris: Any = importlib.import_module("atheris") if importlib.util.find_spec("atheris") else None
# The branches of r1kit alone are counted, as it is imported: to instrument all that is loaded takes minutes.
counting = atheris.instrument_imports(include=["r1kit"]) if atheris and "--reader" in sys.argv else None

with counting or contextlib.nullcontext():
    from test_damaged_inputs import ROW, SEEDS, damaged

    from outside_readers import READERS, read


def try_one(name: str, data: bytes) -> None:
    try:
        read(name, data)
    except BaseException:
        file = Path(f"crash-{name.replace(' ', '-')}")
        file.write_bytes(data)
        print(f"{name}: the input is in {file}", file=sys.stderr)
        raise


def at_random(seconds: float) -> dict[str, int]:
    counts = {}
    for name in READERS:
        chance, count, end = random.Random(f"{name}/{time.time_ns()}"), 0, time.monotonic() + seconds
        while time.monotonic() < end:
            try_one(name, damaged(SEEDS.get(name, ROW.encode()), chance))
            count += 1
        counts[name] = count
    return counts


def by_coverage(name: str, seconds: float) -> None:
    corpus = ROOT / "build" / "fuzz" / name.replace(" ", "-")
    corpus.mkdir(parents=True, exist_ok=True)
    (corpus / "seed").write_bytes(SEEDS.get(name, ROW.encode()))
    atheris.Setup([sys.argv[0], f"-max_total_time={seconds:.0f}", str(corpus)], lambda data: try_one(name, data))
    atheris.Fuzz()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="for each reader")
    parser.add_argument("--reader", choices=READERS, help="only this one, guided by coverage (needs atheris)")
    options = parser.parse_args()
    if options.reader and atheris:
        by_coverage(options.reader, options.seconds)
    elif options.reader:
        parser.error("--reader needs atheris: pip install atheris")
    else:
        print(json.dumps(at_random(options.seconds), indent=2))


if __name__ == "__main__":
    main()
