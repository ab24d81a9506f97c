"""`r1kit sandbox serve` under load: 200 requests at once, beside clients that behave badly.

These are slow, not authorised, abandon their runs, or come back for ever. Every program prints a number of its own, so
a verdict that went to the wrong client shows. Prints JSON; the exit status is 1 if a verdict is wrong, if the server
needs more than 600 MB, or if it serves anybody without the token.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from r1kit.sandbox import Limits, SandboxError
from r1kit.sandbox.remote import Remote

ROOT = Path(__file__).parents[1]
TOKEN = "a token for this benchmark"
START_S = 240.0
MOST_MB = 600.0
SILENT_BODY = 30 << 20  # bytes that a slow client announces


@contextmanager
def running() -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A server in a process of its own, and its port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = int(listening.getsockname()[1])
    environment = os.environ | {"R1KIT_SANDBOX_TOKEN": TOKEN, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-m", "r1kit", "sandbox", "serve", "--port", str(port)]
    process = subprocess.Popen(command, env=environment)
    request = urllib.request.Request(f"http://127.0.0.1:{port}/health", headers={"Authorization": f"Bearer {TOKEN}"})
    try:
        deadline = time.monotonic() + START_S
        while True:
            with suppress(OSError), urllib.request.urlopen(request, timeout=5):
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the server did not start")
            time.sleep(0.2)
        yield process, port
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


class Memory(threading.Thread):
    """The largest resident set of a process, looked at ten times a second."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.status, self.most_mb, self.stopped = Path(f"/proc/{pid}/status"), 0.0, threading.Event()

    def run(self) -> None:
        while not self.stopped.wait(0.1):
            with suppress(OSError, IndexError):
                resident = int(self.status.read_text().partition("VmRSS:")[2].split()[0]) / 2**10
                self.most_mb = max(self.most_mb, resident)


def request_head(length: int, token: str) -> bytes:
    lines = ["POST /run HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {length}", f"Authorization: Bearer {token}"]
    return "\r\n".join([*lines, "", ""]).encode()


def misbehave(kind: int, port: int, ended: threading.Event) -> str:
    """Be one of four bad clients: silent, dripping headers, without the token and with a large body, dripping a body.

    Returns the status line of the answer, if there was any.
    """
    first = [b"", b"POST /run HTTP/1.1\r\n", request_head(SILENT_BODY, "wrong"), request_head(SILENT_BODY, TOKEN)][kind]
    rest = [b"", b"X: y\r\n", bytes(1 << 20), b" "][kind]
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        client.sendall(first)
        with suppress(OSError):
            for _ in range(30):
                client.sendall(rest)
                if ended.wait(0.05 if kind == 2 else 1.0):
                    break
        with suppress(OSError):
            return client.recv(100).decode("latin-1").partition("\r\n")[0]
    return ""


class Reconnecting(threading.Thread):
    """Clients that come back for ever: half of them say nothing, half ask without the token and stay."""

    def __init__(self, port: int, count: int) -> None:
        super().__init__(daemon=True)
        self.port, self.left, self.connections, self.stopped = port, count, 0, threading.Event()

    def run(self) -> None:
        with selectors.DefaultSelector() as selector:
            while not self.stopped.is_set():
                while self.left:
                    self.left -= 1
                    self._connect(selector)
                for key, _ in selector.select(0.1):
                    client: Any = key.fileobj
                    with suppress(OSError):
                        if client.recv(4096):
                            continue  # an answer, after which the client stays
                    selector.unregister(client)
                    client.close()
                    self.left += 1
            for key in list(selector.get_map().values()):
                key.fileobj.close()  # type: ignore[union-attr]

    def _connect(self, selector: selectors.BaseSelector) -> None:
        try:
            client = socket.create_connection(("127.0.0.1", self.port), timeout=20)
            if self.connections % 2:
                client.sendall(request_head(2, "wrong") + b"{}")
            client.setblocking(False)
        except OSError:
            self.left += 1
            self.stopped.wait(0.01)
            return
        self.connections += 1
        selector.register(client, selectors.EVENT_READ)


def abandon(port: int, number: int) -> socket.socket:
    """Ask for an hour of a program; the caller closes the connection."""
    program = {"program": f"import time\nprint({number})\ntime.sleep(3600)", "limits": {"wall_s": 3600.0}}
    body = json.dumps(program).encode()
    client = socket.create_connection(("127.0.0.1", port), timeout=60)
    client.sendall(request_head(len(body), TOKEN) + body)
    return client


def verdict(remote: Remote, number: int) -> str:
    program = f"total = sum(range({number % 50} * 1000))\nprint({number}, input())"
    try:
        done = remote.run(program, stdin=str(number), limits=Limits(wall_s=60, cpu_s=60))
    except SandboxError as error:
        return f"no verdict: {error}"
    return "right" if done.stdout == f"{number} {number}\n" else f"wrong: {done.stdout[:50]!r}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=200, help="at once")
    parser.add_argument("--bad-clients", type=int, default=40)
    parser.add_argument("--abandoned", type=int, default=10)
    parser.add_argument("--reconnecting", type=int, default=1024, help="clients that come back for ever")
    options = parser.parse_args()
    ended = threading.Event()
    with running() as (process, port), ThreadPoolExecutor(options.bad_clients + options.requests) as threads:
        remote = Remote(f"http://127.0.0.1:{port}", TOKEN)
        memory = Memory(process.pid)
        memory.start()
        came_back = Reconnecting(port, options.reconnecting)
        came_back.start()
        bad = [threads.submit(misbehave, number % 4, port, ended) for number in range(options.bad_clients)]
        time.sleep(2.0)  # the bodies of those without a token are on their way

        runs = [abandon(port, number) for number in range(options.abandoned)]
        time.sleep(2.0)  # the first of them run
        start = time.perf_counter()
        for client in runs:
            client.close()
        after_abandoned = verdict(remote, 0)
        next_s = time.perf_counter() - start

        start = time.perf_counter()
        verdicts = Counter(threads.map(lambda number: verdict(remote, number), range(options.requests)))
        all_s = time.perf_counter() - start
        ended.set()
        statuses = Counter(client.result() for client in bad)
        came_back.stopped.set()
        came_back.join()
        memory.stopped.set()
    facts = {
        "requests_at_once": options.requests,
        "verdicts": dict(verdicts),
        "seconds": round(all_s, 2),
        "answers_to_bad_clients": dict(statuses),
        "reconnecting": {"clients": options.reconnecting, "connections": came_back.connections},
        "after_abandoned": {"verdict": after_abandoned, "seconds": round(next_s, 2)},
        "most_memory_mb": round(memory.most_mb, 1),
    }
    print(json.dumps(facts, indent=2))
    served = any(" 200 " in status for status in statuses)
    raise SystemExit({*verdicts, after_abandoned} != {"right"} or memory.most_mb > MOST_MB or served)


if __name__ == "__main__":
    main()
