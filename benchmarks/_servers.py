"""Servers in processes of their own, of which one runs at a time, and clients that ask them in parallel."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from openai import AsyncOpenAI

ROOT = Path(__file__).parents[1]
START_S = 120.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


@dataclass
class RunningServer:
    """A server's process. `model` is its name for the model."""

    process: subprocess.Popen[bytes]
    port: int
    model: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def processor_s(self) -> float:
        """Processor seconds until now, which hold on a busy machine too."""
        return sum(psutil.Process(self.process.pid).cpu_times()[:2])

    def memory_mb(self) -> float:
        """The resident set now."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 2**10


@contextmanager
def running(command: Sequence[str], port: int, model: str, threads: int) -> Iterator[RunningServer]:
    """Start a server and wait until it is healthy; its output goes to a file that an error quotes."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    environment |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": str(ROOT / "src")}
    log = Path(os.environ.get("TMPDIR", "/tmp")) / f"server-{port}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
    server = RunningServer(process, port, model)
    try:
        deadline = time.monotonic() + START_S
        while True:
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{' '.join(command)} did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.2)
        yield server
    except Exception:
        print(*log.read_text().splitlines()[-3:], sep="\n", file=sys.stderr)
        raise
    finally:
        server.go_on()
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()
        process.wait()
        log.unlink()


def r1kit_command(model: str, port: int, *options: str) -> list[str]:
    return [sys.executable, "-m", "r1kit", "serve", model, "--port", str(port), *options]


def transformers_command(folder: str, port: int, *options: str) -> list[str]:
    start = "from transformers.cli.transformers import main; main()"
    return [sys.executable, "-c", start, "serve", folder, "--port", str(port), "--device", "cpu", *options]


async def ask_all(server: RunningServer, bodies: Sequence[dict[str, Any]], clients: int) -> tuple[float, list[Any]]:
    """Seconds until all chat requests are answered by `clients` that each send one at a time, and the replies."""
    queue, replies = iter(enumerate(bodies)), [None] * len(bodies)
    async with AsyncOpenAI(base_url=server.url, api_key="none", max_retries=0, timeout=1200) as client:

        async def work() -> None:
            for number, body in queue:
                replies[number] = await client.chat.completions.create(model=server.model, **body)

        start = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(clients)))
        return time.perf_counter() - start, replies
