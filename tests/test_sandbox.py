"""The sandbox: what it lets through, what it stops, and that it is refused where it would not hold."""

from __future__ import annotations

import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from r1kit.sandbox import Execution, Limits, Sandbox, SandboxError, SandboxSettings, choose, open_sandbox, process
from r1kit.sandbox.bubblewrap import Bubblewrap
from r1kit.sandbox.landlock import Landlock
from r1kit.sandbox.local import LocalSandbox
from r1kit.sandbox.probes import PROBES, examine
from r1kit.sandbox.remote import Remote
from r1kit.sandbox.waiting import load_of
from sandbox_worker import workers

BRIEF = Limits(wall_s=60, cpu_s=2, memory_mb=256)  # the wall's is for a machine on which all else runs too
Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def ask() -> Iterator[Ask]:
    with workers() as asking:
        yield asking


def opened(kind: str) -> Sandbox:
    try:
        return open_sandbox(SandboxSettings.parse({"kind": kind}))
    except SandboxError as error:
        pytest.skip(f"{kind} does not work here: {error} (apt-get install bubblewrap)")


@pytest.fixture(scope="module", params=["bubblewrap", "landlock"])
def local(request: pytest.FixtureRequest) -> Sandbox:
    return opened(request.param)


@pytest.fixture(scope="module")
def remote() -> Iterator[Sandbox]:
    pytest.importorskip("uvicorn", reason="the server needs its extra: pip install 'r1kit[web]'")
    from r1kit.sandbox.server import Service
    from sandbox_serving import serving

    local = opened("auto")
    assert isinstance(local, LocalSandbox)
    with serving(Service(local, examine(local, quick=True), token="secret")) as url:
        yield Remote.connect(url, "secret")


@pytest.fixture(params=["bubblewrap", "landlock", "remote"])
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    return request.getfixturevalue("remote") if request.param == "remote" else opened(request.param)


# --- what goes in and comes out


def test_a_program_reads_its_input_and_files_and_writes_output(sandbox: Sandbox) -> None:
    program = "import sys\nprint(input() + open('a/b.txt').read())\nprint('é', file=sys.stderr)"
    done = sandbox.run(program, stdin="given ", files={"a/b.txt": "text\r\n"})
    assert (done.stdout, done.stderr) == ("given text\n\n", "é\n")
    assert (done.exit_status, done.limit, done.timed_out) == (0, None, False)


@pytest.mark.parametrize(
    ("program", "status", "told"),
    [
        ("raise ValueError('no')", 1, "ValueError: no"),
        ("import sys; sys.exit(7)", 7, ""),
        ("import os; os._exit(3)", 3, ""),
        ("def", 1, "SyntaxError"),
        ("\0", 1, "null bytes"),
        ("import ctypes; ctypes.string_at(0)", -11, ""),
    ],
)
def test_a_program_that_fails_is_an_execution_and_no_error(
    local: Sandbox, program: str, status: int, told: str
) -> None:
    done = local.run(program, limits=BRIEF)
    assert done.exit_status == status
    assert told in done.stderr


def test_programs_are_modules_of_their_own_with_the_same_start(sandbox: Sandbox) -> None:
    program = "import os, sys\nprint(__name__, sys.argv, sorted(globals()), hash('a'), os.environ.get('USER'))"
    first, second = sandbox.run(program), sandbox.run(program)
    assert first.stdout == second.stdout
    assert first.stdout.startswith("__main__ ['main.py'] ['__builtins__'")
    assert "None" in first.stdout


def test_two_programs_talk_and_end_with_the_first(sandbox: Sandbox) -> None:
    checker = "import sys\nprint('ping', flush=True)\nprint('got', input(), open('x').read(), file=sys.stderr)"
    program = "import time\nprint(input()[::-1], flush=True)\ntime.sleep(1000)"
    first, second = sandbox.converse(checker, program, checker_files={"x": "1"}, limits=BRIEF)
    assert (first.stderr, first.exit_status) == ("got gnip 1\n", 0)
    assert second.limit is None
    assert second.wall_s < 60


def test_either_side_sees_the_end_of_the_other(local: Sandbox) -> None:
    first, _ = local.converse("import sys\nprint(repr(sys.stdin.read()), file=sys.stderr)", "print(1)", limits=BRIEF)
    assert first.stderr == "'1\\n'\n"


@pytest.mark.parametrize(
    ("program", "limit"),
    [
        ("import time\ntime.sleep(1000)", "wall"),
        ("while True: pass", "cpu"),
        ("x = bytearray(8 << 30)", "memory"),
        ("while True: print('x' * 1000)", "output"),
        ("import sys\nwhile True: sys.stderr.write('x' * 1000)", "output"),
        ("import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass", None),
    ],
)
def test_the_limit_that_ended_a_run_is_told(local: Sandbox, program: str, limit: str | None) -> None:
    patience = 1 if "sleep" in program else 60
    done = local.run(program, limits=Limits(wall_s=patience, cpu_s=1, memory_mb=256, output_kb=64))
    assert done.limit == limit
    assert done.exit_status == -9 or limit  # the hard limit on CPU kills without a word
    assert done.wall_s < 50
    assert len(done.stdout) <= 64 * 1024 and len(done.stderr) <= 64 * 1024


def test_input_that_nobody_reads_and_output_without_an_end_do_not_block(local: Sandbox) -> None:
    done = local.run("print('y' * 200000)", stdin="x" * 5_000_000)
    assert (done.exit_status, len(done.stdout)) == (0, 200_001)


@pytest.mark.parametrize(
    ("names", "reason"), [(["a/b", "a"], "cannot be in 'a', which is a file too"), (["é" * 128], "at most 255 bytes")]
)
def test_names_that_no_files_can_have_are_refused(sandbox: Sandbox, names: list[str], reason: str) -> None:
    with pytest.raises((ValueError, SandboxError), match=reason):
        sandbox.run("", files=dict.fromkeys(names, "1"))


def test_files_cannot_be_put_outside_the_working_folder(sandbox: Sandbox) -> None:
    for name in ("../x", "/tmp/x", "a//b", "a/../../x", ""):
        with pytest.raises((ValueError, SandboxError), match="not a relative path"):
            sandbox.run("", files={name: "1"})


def test_many_programs_run_side_by_side(local: Sandbox) -> None:
    found: dict[int, Execution] = {}
    threads = [
        threading.Thread(target=lambda n=n: found.update({n: local.run(f"print({n})")}))  # type: ignore[misc]
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {n: done.stdout for n, done in found.items()} == {n: f"{n}\n" for n in range(8)}


def test_an_end_that_is_seen_together_with_the_start_is_read_once(local: Sandbox) -> None:
    """On a busy machine a short program ends before the loop looks, while a process that another thread has just
    forked still holds the end of the pipe on which the program said that it began."""
    real, spawn, held = selectors.DefaultSelector.select, process.Running._spawn, list[int]()

    def late(self: Any, timeout: float | None = None) -> Any:
        time.sleep(0.3)
        return sorted(real(self, timeout), key=lambda found: found[0].fd, reverse=True)  # the end comes first

    def holding(self: Any, start: Any, bundle: int, ready: int, *pipes: Any) -> Any:
        held.append(os.dup(ready))
        return spawn(self, start, bundle, ready, *pipes)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selectors.DefaultSelector, "select", late)
        patch.setattr(process.Running, "_spawn", holding)
        done = local.run("print(1)")
    os.close(held.pop())
    assert (done.stdout, done.exit_status) == ("1\n", 0)


def test_waiting_for_a_processor_that_others_have_is_told() -> None:
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in os.sched_getaffinity(0)]
    kept = "import os\nos.nice(19)\nfor _ in range(3): os.fork()\nwhile True: pass"
    others = subprocess.Popen([sys.executable, "-c", kept], start_new_session=True)
    try:
        deadline = time.monotonic() + 60
        while load_of(others.pid).waited == 0.0:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        os.killpg(others.pid, signal.SIGKILL)
        for one in (*busy, others):
            one.kill()
            one.wait()
    assert load_of(others.pid).waited == 0.0  # it has ended


def test_a_full_table_of_files_is_the_sandboxs_fault(local: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "memfd_create", full)
    with pytest.raises(SandboxError, match="Too many open files"):
        local.run("pass")
    with pytest.raises(SandboxError, match="Too many open files"):
        local.converse("pass", "pass")


def test_nothing_is_left_open_behind(local: Sandbox) -> None:
    local.run("pass")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        local.run("print(1)")
        local.converse("print(1)", "input()")
    assert len(os.listdir("/proc/self/fd")) == before


# --- what is held


@pytest.mark.parametrize(
    ("who", "kind"), [("root", "bubblewrap"), ("root", "landlock"), ("user", "bubblewrap"), ("user", "landlock")]
)
def test_every_probe_holds(ask: Ask, who: str, kind: str) -> None:
    findings = ask(who, do="examine", kind=kind)
    assert [one["what"] for one in findings] == [probe.what for probe in PROBES]
    assert [f"{one['what']}: {one['detail']}" for one in findings if not one["held"]] == []


FLOOD = """
import os
for n in range(10**8): os.close(os.open("/tmp/%d" % n, os.O_CREAT | os.O_WRONLY))
"""
HIDDEN = """
import os, signal, time
signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody ever asks how long the children have run
while True:
    try:
        if os.fork() == 0:
            end = time.monotonic() + 0.1
            while time.monotonic() < end: pass
            os._exit(0)
    except OSError:
        pass
"""


@pytest.mark.parametrize("who", ["root", "user"])
def test_a_flood_of_empty_files_is_stopped(ask: Ask, who: str) -> None:
    limits = {"wall_s": 60, "cpu_s": 60, "memory_mb": 256}
    done = ask(who, kind="bubblewrap", do="run", program=FLOOD, limits=limits)
    assert done["limit"] == "files"
    few = "for n in range(300): open(f'/tmp/{n}', 'w').close()\nimport time; time.sleep(1)\nprint(n)"
    assert ask(who, kind="bubblewrap", do="run", program=few, limits=limits)["stdout"] == "299\n"


@pytest.mark.parametrize("who", ["root", "user"])
def test_a_program_that_waits_for_its_own_processes_is_on_no_busy_machine(ask: Ask, who: str) -> None:
    limits = {"wall_s": 4, "cpu_s": 60, "memory_mb": 256}
    done = ask(who, kind="bubblewrap", do="run", program=HIDDEN, limits=limits)
    assert (done["limit"], done["waited_s"]) == ("wall", 0.0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can drop its uid")
def test_as_root_the_kernel_sees_another_uid(local: Sandbox) -> None:
    mark = f"m{os.getpid()}"
    program = f"import ctypes, time\nctypes.CDLL(None).prctl(15, b'{mark}')\ntime.sleep(1000)"
    thread = threading.Thread(target=lambda: local.run(program, limits=Limits(wall_s=5)))
    thread.start()
    uids = set()
    while thread.is_alive() and not uids:
        uids = {Path(f"/proc/{pid}").stat().st_uid for pid in named(mark)}
        time.sleep(0.01)
    thread.join()
    assert uids == {process.NOBODY}


def test_a_background_process_ends_with_the_program() -> None:
    mark = f"d{os.getpid()}"
    program = (
        f"import ctypes, os, time\nctypes.CDLL(None).prctl(15, b'{mark}')\n"
        "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        os.closerange(0, 64)\n"
        "        time.sleep(1000)\n    os._exit(0)\ntime.sleep(0.2)\nprint('left')"
    )
    assert opened("bubblewrap").run(program, limits=BRIEF).stdout == "left\n"
    until_gone(mark)


def test_a_program_ends_with_the_process_that_runs_it(local: Sandbox) -> None:
    mark = f"e{os.getpid()}{local.kind[:2]}"
    program = f"import ctypes, time\nctypes.CDLL(None).prctl(15, b'{mark}')\ntime.sleep(1000)"
    code = (
        "from r1kit.sandbox import SandboxSettings, open_sandbox\n"
        f"open_sandbox(SandboxSettings(kind={local.kind!r})).run({program!r})"
    )
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # what is killed cannot tidy up after itself
        Path(folder).chmod(0o755)
        host = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"TMPDIR": folder})
        deadline = time.monotonic() + 120
        while not named(mark):
            assert host.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        host.kill()
        host.wait()
        until_gone(mark)


def named(mark: str) -> list[int]:
    """The processes that call themselves so."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and (folder / "comm").read_text().strip() == mark:
                found.append(int(folder.name))
        except OSError:  # it ended in the meantime
            continue
    return found


def until_gone(mark: str) -> None:
    deadline = time.monotonic() + 10
    while named(mark):
        assert time.monotonic() < deadline, "a process outlives its sandbox"
        time.sleep(0.02)


# --- which one, and when none


def test_without_any_mechanism_nothing_runs_and_the_reasons_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("r1kit.sandbox.landlock.abi", lambda: -1)
    with pytest.raises(SandboxError, match=r"(?s)not run without one.*no bwrap: install.*this kernel has no Landlock"):
        open_sandbox(SandboxSettings())


def test_a_sandbox_that_leaks_fails_its_self_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("r1kit.sandbox.probes.PROBES", PROBES[:2])

    class Open:
        """Runs everything with nothing around it."""

        kind = "open"

        def run(self, program: str, **_: Any) -> Execution:
            done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
            return Execution(
                stdout=done.stdout, stderr=done.stderr, exit_status=done.returncode, limit=None, wall_s=0.1
            )

    with pytest.raises(
        SandboxError, match=r"no network: a datagram arrived.*tcp SUCCEEDED.*read: read \S+/secret SUCCEEDED"
    ):
        choose.tested(Open())  # type: ignore[arg-type]


@pytest.mark.parametrize("who", ["silent", "liar"])
def test_a_self_test_that_says_nothing_or_dies_is_no_proof(who: str) -> None:
    class Broken:
        kind = "broken"

        def run(self, program: str, **_: Any) -> Execution:
            stdout, status = ("", 0) if who == "silent" else ("done", 1)
            return Execution(stdout=stdout, stderr="", exit_status=status, limit=None, wall_s=0.1)

    with pytest.raises(SandboxError, match="self-test fails"):
        choose.tested(Broken())  # type: ignore[arg-type]


@pytest.mark.parametrize("program", ["import time\ntime.sleep(1000)", "import time\nwhile True: time.sleep(0.01)"])
def test_a_program_that_does_nothing_is_ended_at_a_limit_of_its_own(local: Sandbox, program: str) -> None:
    done = local.run(program, limits=Limits(wall_s=600, cpu_s=600, idle_s=1, memory_mb=256))
    assert done.limit == "wall" and done.wall_s < 300


def test_a_partner_that_computes_is_not_idle_time(local: Sandbox) -> None:
    checker = "n = 0\nwhile n < 20_000_000: n += 1\nprint(n, flush=True)\nprint(input(), file=__import__('sys').stderr)"
    limits = Limits(wall_s=600, cpu_s=600, idle_s=1, memory_mb=256)
    first, second = local.converse(checker, "print(int(input()) + 1, flush=True)\ninput()", limits=limits)
    assert (first.stderr.strip(), first.limit, second.limit) == ("20000001", None, None)


def test_programs_import_the_packages_of_the_chosen_folders_and_no_others(local: Sandbox) -> None:
    program = "try:\n    import extra\n    print(extra.VALUE)\nexcept ImportError:\n    print('missing')"
    assert local.run(program).stdout == "missing\n"
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        Path(folder, "extra.py").write_text("VALUE = 7\n")
        settings = {"kind": local.kind, "packages": [folder]}
        assert open_sandbox(SandboxSettings.parse(settings)).run(program).stdout == "7\n"
    with pytest.raises(SandboxError, match="is not a folder"):
        open_sandbox(SandboxSettings.parse(settings))


def test_an_interpreter_that_is_not_there_is_named() -> None:
    with pytest.raises(SandboxError, match="no Python at '/no/python'"):
        open_sandbox(SandboxSettings(python="/no/python"))


def test_a_script_in_place_of_an_interpreter_is_refused_with_the_remedy(tmp_path: Path) -> None:
    shim = tmp_path / "python3"
    shim.write_text('#!/bin/sh\nexec python3 "$@"\n')
    shim.chmod(0o755)
    with pytest.raises(SandboxError, match=r"python3 is a script that starts a Python.*sys.executable"):
        open_sandbox(SandboxSettings(python=str(shim)))


@pytest.mark.parametrize("home", ["/", "/tmp"])
def test_a_home_folder_that_programs_see_a_part_of_anyway_is_no_leak(
    local: Sandbox, home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Containers have such homes."""
    monkeypatch.setenv("HOME", home)
    assert not [finding for finding in examine(local, quick=True) if not finding.held]


def test_a_mechanism_that_breaks_in_mid_run_is_an_error_and_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    working = opened("bubblewrap")
    assert isinstance(working, Bubblewrap)
    with pytest.raises(SandboxError, match="cannot be started"):
        Bubblewrap(working.interpreter, "/gone/bwrap").run("pass")
    with pytest.raises(SandboxError, match="did not start"):
        Bubblewrap(working.interpreter, "/usr/bin/false").run("pass")
    monkeypatch.setattr(process, "CHILD", Path(os.devnull))
    with pytest.raises(SandboxError, match="did not start"):
        working.run("pass")


def test_an_old_kernel_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("r1kit.sandbox.landlock.abi", lambda: 2)
    with pytest.raises(SandboxError, match="version 2"):
        Landlock.find(next(choose.interpreters("/usr/bin/python3")))


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("R1KIT_SANDBOX", raising=False)
    assert SandboxSettings.from_environment().kind == "auto"
    monkeypatch.setenv("R1KIT_SANDBOX_URL", "http://localhost:1")
    assert SandboxSettings.from_environment().kind == "remote"
    monkeypatch.setenv("R1KIT_SANDBOX_PACKAGES", "/one:/two")
    assert SandboxSettings.from_environment().packages == ("/one", "/two")
    monkeypatch.setenv("R1KIT_SANDBOX", "bubblewarp")
    with pytest.raises(ValueError, match="bubblewrap"):
        SandboxSettings.from_environment()


@pytest.mark.parametrize("prefix", [".local", ".local/share/uv/python/cpython-3.11"])
def test_a_python_below_the_home_folder_runs_and_opens_nothing_else_there(
    local: Sandbox, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pyenv, uv and conda install there; the prefix may be ~/.local itself."""
    real = Path(os.path.realpath("/usr/bin/python3"))
    with tempfile.TemporaryDirectory(dir="/var/tmp") as home:
        bin_folder, library = Path(home, prefix, "bin"), Path(home, prefix, "lib")
        secret = Path(home, ".local", "share", "secret")
        for folder in (bin_folder, library, secret.parent):
            folder.mkdir(parents=True, exist_ok=True)
        secret.write_text("secret")
        python = Path(shutil.copy(real, bin_folder))
        (library / real.name).symlink_to(f"/usr/lib/{real.name}")
        for path in (Path(home), *Path(home).rglob("*")):
            path.chmod(0o755)
        monkeypatch.setenv("HOME", home)
        sandbox = open_sandbox(SandboxSettings.parse({"kind": local.kind, "python": str(python)}))
        seen = sandbox.interpreter.folders  # type: ignore[attr-defined]
        assert str(python) in seen and not any(secret.is_relative_to(folder) for folder in seen)
        program = (
            "import os, sys\nprint(sys.base_prefix)\n"
            f"names = lambda: set(os.listdir({str(secret.parent)!r})) - {{'uv'}}\n"
            f"for attempt in (lambda: open({str(secret)!r}), names):\n"
            "    try:\n        print(attempt() or 'nothing')\n    except OSError:\n        print('nothing')"
        )
        done = sandbox.run(program)
    assert done.stdout == f"{home}/{prefix}\nnothing\nnothing\n", done.stderr
