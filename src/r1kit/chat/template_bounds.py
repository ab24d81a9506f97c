"""Bounds on what a chat template builds: it comes with a model, and is a program.

A new template first renders two short messages in a process of its own, with bounds on memory, text and time.
"""

from __future__ import annotations

import subprocess
import sys
from functools import lru_cache

MEMORY_MB, TEXT_CHARS, CPU_S, WALL_S = 1024, 16 << 20, 10, 120
_TOO_MUCH = 3  # exit status
_CHILD = """
import resource, sys
import jinja2, jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment
memory, text, seconds, too_much = map(int, sys.argv[1:])
source = sys.stdin.buffer.read().decode("utf-8", "replace")
resource.setrlimit(resource.RLIMIT_AS, (memory << 20, memory << 20))
resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols])
environment.globals.update(strftime_now=lambda form: "", raise_exception=lambda message: 1 / 0)
turns = [{"role": role, "content": "text"} for role in ("user", "assistant", "user")]
length = 0
try:
    for piece in environment.from_string(source).generate(messages=turns, add_generation_prompt=True):
        length += len(piece)
        if length > text:
            sys.exit(too_much)
except (MemoryError, OverflowError):
    sys.exit(too_much)
except Exception:  # it refuses these messages, or wants more of transformers: its own errors come later
    pass
"""


@lru_cache(maxsize=256)
def check_bounds(template: str) -> None:
    """Raise ValueError if a chat template builds too much of two short messages."""
    limits = [str(limit) for limit in (MEMORY_MB, TEXT_CHARS, CPU_S, _TOO_MUCH)]
    command = [sys.executable, "-I", "-c", _CHILD, *limits]
    try:
        status = subprocess.run(command, input=template.encode("utf-8", "replace"), timeout=WALL_S).returncode
    except subprocess.TimeoutExpired:
        status = _TOO_MUCH
    if status < 0 or status == _TOO_MUCH:
        bounds = f"{MEMORY_MB:,} MB of memory, {TEXT_CHARS:,} characters or {CPU_S} s of processor time"
        raise ValueError(f"the chat template needs more than {bounds} for two short questions: replace it")
