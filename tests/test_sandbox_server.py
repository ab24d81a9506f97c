"""The sandbox server: who may use it, what it holds at most, and what happens to programs without a client."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast
from urllib.parse import urlsplit

import pytest

pytest.importorskip("uvicorn", reason="the server needs its extra: pip install 'r1kit[web]'")

from r1kit.commands.sandbox_commands import serve_sandbox
from r1kit.net import connection, requests
from r1kit.sandbox import Execution, Limits, SandboxError, SandboxSettings, open_sandbox, server
from r1kit.sandbox.interface import Abandon, Abandoned
from r1kit.sandbox.local import LocalSandbox
from r1kit.sandbox.probes import Finding
from r1kit.sandbox.remote import Remote
from r1kit.sandbox.server import Service
from sandbox_serving import serving

PATIENCE_S = 60.0
FINDINGS = [Finding(what="it holds", held=True, detail="")]
Execute = Callable[..., Execution]


class Fake:
    """Stands in for a sandbox, so that a test decides how long a program runs."""

    kind = "fake"

    def __init__(self, run: Execute) -> None:
        self.run = run


def echo(program: str, **_: Any) -> Execution:
    return Execution(stdout=program, stderr="", exit_status=0, limit=None, wall_s=0.0)


def service(run: Execute = echo, token: str = "secret") -> Service:
    return Service(cast(LocalSandbox, Fake(run)), FINDINGS, token)


class Gate:
    """A program that runs until `open` is set or its client has gone; `began` and `abandoned` count."""

    def __init__(self) -> None:
        self.open, self.began, self.abandoned = threading.Event(), threading.Semaphore(0), threading.Semaphore(0)

    def __call__(self, program: str, *, abandon: Abandon, **_: Any) -> Execution:
        if program != "wait":
            return echo(program)
        self.began.release()
        while not self.open.is_set():
            if is_set(abandon):
                self.abandoned.release()
                raise Abandoned
        return echo(program)


def is_set(abandon: Abandon) -> bool:
    import select

    return bool(select.select([abandon], [], [], 0.01)[0])


def body(program: str, **more: Any) -> bytes:
    return json.dumps({"program": program, **more}).encode()


def opened(url: str, text: bytes) -> socket.socket:
    """A connection that has sent so much."""
    address = urlsplit(url)
    client = socket.create_connection((address.hostname, address.port), timeout=PATIENCE_S)
    client.sendall(text)
    return client


def post(data: bytes, *headers: str, token: str = "secret") -> bytes:
    lines = ["POST /run HTTP/1.1", "Host: localhost", f"Content-Length: {len(data)}", *headers]
    return "\r\n".join([*lines, f"Authorization: Bearer {token}", "", ""]).encode() + data


def status_of(client: socket.socket) -> int:
    return int(client.makefile("rb").readline().split()[1])


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(service()) as address:
        yield address


# --- who may use it


def test_a_server_takes_no_one_without_its_token(url: str) -> None:
    assert Remote.connect(url, "secret").run("1").stdout == "1"
    for token in ("wrong", "", "secret2"):
        with pytest.raises(SandboxError, match="status 401"):
            Remote.connect(url, token)


def test_other_machines_need_a_token_and_a_server_needs_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_TOKEN", raising=False)
    with pytest.raises(ValueError, match="set a token in NO_SUCH_TOKEN"):
        serve_sandbox("0.0.0.0", 0, "NO_SUCH_TOKEN")
    monkeypatch.setitem(__import__("sys").modules, "r1kit.sandbox.server", None)
    with pytest.raises(ValueError, match=r"pip install 'r1kit\[web\]'"):
        serve_sandbox("127.0.0.1", 0, "NO_SUCH_TOKEN")


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (("Origin", "http://evil.example"), 403),
        (("Origin", "null"), 403),
        (("Sec-Fetch-Site", "cross-site"), 403),
        (("Host", "rebound.example"), 421),
        (("Host", "127.0.0.1"), 200),
    ],
)
def test_without_a_token_no_web_page_can_run_programs(header: tuple[str, str], status: int) -> None:
    ran: list[str] = []

    def run(program: str, **_: Any) -> Execution:
        ran.append(program)
        return echo(program)

    with serving(service(run, token="")) as url:
        address = urlsplit(url)
        client = http.client.HTTPConnection(str(address.hostname), address.port, timeout=PATIENCE_S)
        client.request("POST", "/run", body("1"), {"Content-Type": "text/plain", header[0]: header[1]})
        assert client.getresponse().status == status
        client.close()
    assert ran == (["1"] if status == 200 else [])


@pytest.mark.parametrize(
    ("path", "data", "status"),
    [
        ("/run", b"{", 400),
        ("/run", b"[]", 400),
        ("/run", b'{"stdin": ""}', 400),
        ("/run", b'{"program": 1}', 400),
        ("/run", b'{"program": "", "limits": {"wall_s": 9999}}', 400),
        ("/run", b'{"program": "", "limits": {"walls": 1}}', 400),
        ("/run", b'{"program": "", "limits": 1}', 400),
        ("/run", b'{"program": "", "files": {"../x": ""}}', 400),
        ("/run", b'{"program": "", "files": {"a": "", "a/b": ""}}', 400),
        ("/run", b'{"program": "", "files": {"%s": ""}}' % (b"x" * 256), 400),
        ("/run", b"[" * 100_000, 400),
        ("/run", b"\xff", 400),
        ("/converse", b'{"checker": ""}', 400),
        ("/other", b"{}", 404),
        ("/health", b"{}", 405),
    ],
)
def test_a_server_answers_what_is_wrong_with_a_request(url: str, path: str, data: bytes, status: int) -> None:
    request = urllib.request.Request(url + path, data=data, headers={"Authorization": "Bearer secret"})
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=PATIENCE_S)
    with caught.value as reply:
        assert reply.code == status
        assert json.load(reply)["error"]


# --- load, and clients that misbehave


def test_two_hundred_requests_at_once_are_all_answered_rightly(url: str) -> None:
    with ThreadPoolExecutor(200) as threads:
        remote = Remote(url, "secret")
        outputs = list(threads.map(lambda number: remote.run(str(number)).stdout, range(200)))
    assert outputs == [str(number) for number in range(200)]


def test_slow_and_unauthorised_clients_hold_up_nobody_and_are_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEADERS_S", 0.5)
    monkeypatch.setattr(requests, "BODY_S", 0.5)
    big = 30 << 20
    starts = [
        b"",
        b"POST /run HTTP/1.1\r\nHost: localhost\r\nX: ",
        post(b"{").replace(b"Content-Length: 1", f"Content-Length: {big}".encode()),
        post(b"{", token="wrong").replace(b"Content-Length: 1", f"Content-Length: {big}".encode()),
    ]
    running = service()
    with serving(running) as url:
        clients = [opened(url, start) for start in starts * 10]
        assert Remote(url, "secret").run("1").stdout == "1"
        for client in clients:
            while client.recv(65536):  # until the server closes the connection
                pass
            client.close()
    assert (running.num_open, running.bodies_bytes) == (0, 0)


def test_clients_that_come_back_for_ever_push_out_each_other_and_no_one_with_the_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "MAX_WAITING", 4)
    gate = Gate()
    with serving(service(gate)) as address, contextlib.ExitStack() as clients:
        waits = clients.enter_context(opened(address, post(body("wait"))))
        assert gate.began.acquire(timeout=PATIENCE_S)
        refused = clients.enter_context(opened(address, post(body("1"), token="wrong")))
        assert status_of(refused) == 401
        silent = [clients.enter_context(opened(address, b"")) for _ in range(20)]
        for client in (refused, *silent[:-4]):
            assert client.recv(1000) == b"" or client.recv(1000) == b""  # an answer's rest comes before its end
        assert Remote(address, "secret").run("2").stdout == "2"
        gate.open.set()
        assert status_of(waits) == 200


def test_a_body_is_not_read_before_the_token(url: str) -> None:
    head = post(b"", token="wrong").replace(b"Content-Length: 0", b"Content-Length: 1000000")
    with opened(url, head) as client:  # the answer comes although the body does not
        assert status_of(client) == 401


def test_bodies_together_are_bounded_and_a_client_comes_back_with_one_that_found_no_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate, large = Gate(), body("wait", stdin="x" * 1000)
    monkeypatch.setattr(server, "MAX_BODIES_BYTES", 1500)
    running = service(gate)
    with serving(running) as url, ThreadPoolExecutor(1) as threads:
        first = opened(url, post(large))
        assert gate.began.acquire(timeout=PATIENCE_S)
        assert running.bodies_bytes == len(large)
        with opened(url, post(body("2" * 600))) as client:
            assert status_of(client) == 429
        second = threads.submit(Remote(url, "secret").run, "2" * 600)
        gate.open.set()
        assert status_of(first) == 200
        assert second.result(PATIENCE_S).stdout == "2" * 600
        first.close()


def test_bodies_without_a_length_or_above_the_limit_are_refused(url: str) -> None:
    too_long = post(b"").replace(b"Content-Length: 0", f"Content-Length: {server.MAX_BODY_BYTES + 1}".encode())
    chunked = post(b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    for head, status in ((too_long, 413), (chunked, 411)):
        with opened(url, head) as client:
            assert status_of(client) == status


def test_a_program_ends_with_its_client_and_the_next_one_begins_at_once() -> None:
    gate = Gate()
    running = service(gate)
    with serving(running) as url:
        clients = [opened(url, post(body("wait"))) for _ in range(10)]
        assert gate.began.acquire(timeout=PATIENCE_S)
        for client in clients:
            client.close()
        assert gate.abandoned.acquire(timeout=PATIENCE_S)
        assert Remote(url, "secret").run("next").stdout == "next"
    assert (running.num_open, running.bodies_bytes) == (0, 0)


def test_a_full_server_asks_clients_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate()
    monkeypatch.setattr(server, "MAX_OPEN", 1)
    with serving(service(gate)) as url, ThreadPoolExecutor(1) as threads:
        first = opened(url, post(body("wait")))
        assert gate.began.acquire(timeout=PATIENCE_S)
        with opened(url, post(body("1"))) as client:
            assert status_of(client) == 429
        second = threads.submit(Remote(url, "secret").run, "1")  # keeps asking
        gate.open.set()
        assert second.result(PATIENCE_S).stdout == "1"
        first.close()
    monkeypatch.setattr("r1kit.sandbox.remote._BUSY_S", 0.0)
    monkeypatch.setattr(Remote, "_reply", lambda *_: (429, {"error": "busy"}))
    with pytest.raises(SandboxError, match="does not answer /run: status 429: busy"):
        Remote(url).run("1")


@pytest.mark.parametrize("outcome", ["an answer", "an error"])
def test_an_answer_that_takes_long_begins_with_signs_of_life(outcome: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate()

    def run(program: str, **options: Any) -> Execution:
        done = gate(program, **options)
        if outcome == "an error":
            raise SandboxError("it broke")
        return done

    monkeypatch.setattr(server, "BEAT_S", 0.05)
    monkeypatch.setattr("r1kit.sandbox.remote._TRIES", 1)
    with serving(service(run)) as url, ThreadPoolExecutor(1) as threads:
        client = opened(url, post(body("wait")))
        asked = threads.submit(Remote(url, "secret").run, "wait")
        reply = http.client.HTTPResponse(client)
        reply.begin()
        assert (reply.status, reply.read(3)) == (200, b"   ")  # while the program runs
        gate.open.set()
        assert ("error" in json.loads(reply.read())) == (outcome == "an error")
        if outcome == "an error":
            with pytest.raises(SandboxError, match=r"status 503: it broke"):
                asked.result(PATIENCE_S)
        else:
            assert asked.result(PATIENCE_S).stdout == "wait"
        client.close()


def test_a_real_program_is_killed_when_nobody_waits_for_it() -> None:
    try:
        sandbox = open_sandbox(SandboxSettings())
    except SandboxError as error:
        pytest.skip(str(error))
    assert isinstance(sandbox, LocalSandbox)
    limits = Limits(wall_s=3600, cpu_s=600)
    for start in (
        lambda abandon: sandbox.run("import time; time.sleep(3600)", limits=limits, abandon=abandon),
        lambda abandon: sandbox.converse("input()", "input()", limits=limits, abandon=abandon),
    ):
        abandon = Abandon()
        with ThreadPoolExecutor(1) as threads:
            running = threads.submit(start, abandon)
            abandon.set()
            with pytest.raises(Abandoned):
                running.result(PATIENCE_S)
        abandon.close()


# --- the client


def test_a_server_that_is_none_or_does_not_hold_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("r1kit.sandbox.remote._TRIES", 1)
    for other, reason in (("localhost:80", "expected http"), ("http://127.0.0.1:9", "does not answer")):
        with pytest.raises(SandboxError, match=reason):
            Remote.connect(other)
    for findings, reason in (
        ([], "no self-test"),
        ([{"what": "x", "held": False, "detail": ""}], "fails its self-test: x"),
    ):
        monkeypatch.setattr(Remote, "request", lambda *_, found=findings: {"findings": found})
        with pytest.raises(SandboxError, match=reason):
            Remote.connect(url)


def test_a_server_whose_sandbox_breaks_makes_errors_and_no_executions(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Execution:
        raise SandboxError("it broke")

    monkeypatch.setattr("r1kit.sandbox.remote._TRIES", 1)
    with serving(service(broken)) as url:
        with pytest.raises(SandboxError, match=r"status 503.*it broke"):
            Remote(url, "secret").run("pass")
        monkeypatch.setattr(Remote, "request", lambda *_: {"execution": {"stdout": "passed"}})
        with pytest.raises(SandboxError, match="sent no valid execution"):
            Remote(url, "secret").run("pass")
