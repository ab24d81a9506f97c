"""One side of a comparison in a fresh process: `python _process.py FILE` runs the job that `run_side` left there."""

from __future__ import annotations

import importlib
import os
import pickle
import resource
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from _workload import Result, Work

HERE = Path(__file__).parent
ENVIRONMENT = {  # the same for all sides: no tokenizer threads, no network, no noise
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "PYTHONWARNINGS": "ignore",
}


def run_side(side: str, work: Work) -> Result:
    """Call `side` (`module:function` of this folder) with its work in a fresh process.

    Raises RuntimeError with the last lines of its output if it fails, or if it did other work.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "work"
        file.write_bytes(pickle.dumps((side, work)))
        command = [sys.executable, str(HERE / "_process.py"), str(file)]
        threads = str(work.threads)
        environment = os.environ | ENVIRONMENT | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            raise RuntimeError(f"{side} failed:\n" + "\n".join(lines[-12:]))
        result: Result = pickle.loads(file.with_suffix(".result").read_bytes())
    if result.steps and (wrong := work.objection(result)):
        raise RuntimeError(f"{side} ({work.variant}) {wrong}")
    return result


def peak_mb() -> float:
    """The largest resident set of this process in MB. On Linux, `ru_maxrss` would include the parent's before exec."""
    status = Path("/proc/self/status")
    if status.is_file():
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    import torch

    file = Path(sys.argv[1])
    side, work = pickle.loads(file.read_bytes())
    torch.set_num_threads(work.threads)
    module, function = side.split(":")
    result = getattr(importlib.import_module(module), function)(work)
    file.with_suffix(".result").write_bytes(pickle.dumps(replace(result, peak_mb=peak_mb())))


if __name__ == "__main__":
    main()
