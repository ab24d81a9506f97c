"""One program run against its tests in a sandbox: stdin tests, calls and asserts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1kit.sandbox import Execution, Limits, Sandbox, SandboxError
from r1kit.types import Verdict
from r1kit.verifiers.code.matching import same_output, same_value
from r1kit.verifiers.code.tests import CodeTests, defines
from r1kit.verifiers.code.wire import PLAIN_INT, SILENT

_MAX_WALL_SECONDS = 3600.0  # the limit of `Limits`
_OUTPUT_KB = 8192
_BUSY_SHARE = 0.25  # a stopped run that waited longer for a processor than this share of its time says nothing
_FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Grade:
    """A verdict, and the share of passed tests (None if the program could not be judged)."""

    verdict: Verdict
    share: float | None


class UnusableTests(ValueError):
    """The tests fail by themselves or cannot be decided from outside, whatever the program does."""


class Busy(SandboxError):
    """The program was stopped for its time, but spent much of it waiting for a processor."""


class Run:
    """One program and its tests. `wall_per_cpu` is the wall time allowed per second of CPU time."""

    def __init__(self, sandbox: Sandbox, tests: CodeTests, program: str, thorough: bool, wall_per_cpu: float) -> None:
        self.sandbox, self.tests, self.program, self.thorough = sandbox, tests, program, thorough
        self.wall_per_cpu = wall_per_cpu
        self.shares: list[float] = []
        self.detail = ""

    def grade(self) -> Grade:
        """Run all tests of the reference, and combine them into one verdict."""
        tests = self.tests
        for run_tests in (self._stdin, self._calls, self._asserts):
            if self.thorough or not self.detail:
                run_tests()
        total = len(tests.stdin) + len(tests.calls) + len(tests.asserts)
        correct = not self.detail and len(self.shares) == total
        detail = f"passes {total} tests" if correct else self.detail
        verdict = Verdict.of(correct, extracted=self.program, detail=writable(detail))
        return Grade(verdict, share=1.0 if correct else min(sum(self.shares) / total, 1 - 1e-9))

    def _fail(self, detail: str) -> None:
        if "ModuleNotFoundError" in detail:
            detail += " (`r1kit sandbox check` says what is installed)"
        self.detail = self.detail or detail

    def _limits(self, seconds: float) -> Limits:
        wall, idle = self._wall_seconds(seconds), min(seconds, self.tests.time_s)
        return Limits(wall_s=wall, cpu_s=seconds, idle_s=idle, memory_mb=self.tests.memory_mb, output_kb=_OUTPUT_KB)

    def _wall_seconds(self, cpu_seconds: float) -> float:
        return min(self.wall_per_cpu * cpu_seconds + 1, _MAX_WALL_SECONDS)

    def _stdin(self) -> None:
        tests, seconds_left = self.tests, self.tests.total_s
        program = "\n".join(filter(None, [tests.head, self.program]))
        for number, test in enumerate(tests.stdin, start=1):
            if seconds_left <= 0:
                self._fail(f"test {number}: no time left of {tests.total_s:g} s")
                return
            limits = self._limits(min(tests.time_s, seconds_left))
            done = self.sandbox.run(program, stdin=test.input, limits=limits)
            _refuse_if_busy(done.limit == "wall", done)
            seconds_left -= done.wall_s / self.wall_per_cpu
            same = same_output(test.output, done.stdout, tests.tolerance, tests.indent)
            if same and done.limit is None and done.exit_status == 0:  # a crash after the output is a failure
                self.shares.append(1.0)
                continue
            crash = f"it ended with status {done.exit_status}" if done.exit_status else ""
            self._fail(f"test {number}: {_failure_of(done) or crash or 'another output'}")
            if not self.thorough:
                return

    def _calls(self) -> None:
        tests = self.tests
        if not tests.calls:
            return
        questions: list[dict[str, Any]] = [{"do": "load"}]
        for number, test in enumerate(tests.calls):
            kwargs = {name: _encoded(value) for name, value in test.kwargs.items()}
            call = {"do": "call", "id": number, "on": tests.entry_point, "args": _encoded(test.args), "kwargs": kwargs}
            questions.append(call)
        done = self.sandbox.run(
            _source("program.py"),
            stdin="".join(json.dumps(question) + "\n" for question in questions),
            files=self._program_files(),
            limits=self._limits(min(tests.total_s, tests.time_s * (len(tests.calls) + 1))),
        )
        _refuse_if_busy(done.limit == "wall", done)
        messages = list(_json_lines(done.stdout))
        broken = next((message for message in messages if message.get("id") is None and "raised" in message), None)
        if broken:
            self._fail(f"it does not load: {broken['raised']}: {broken.get('message')}")
            return
        replies = {reply["id"]: reply for reply in messages if type(reply.get("id")) is int}
        for number, test in enumerate(tests.calls):
            reply = replies.get(number, {})
            if "raised" in reply:
                self._fail(f"call {number + 1}: {reply['raised']}: {reply.get('message')}")
            elif "value" not in reply:
                self._fail(f"call {number + 1}: {_failure_of(done) if done.limit else 'no result'}")
            elif any(same_value(output, reply["value"], tests.tolerance) for output in test.accepted):
                self.shares.append(1.0)
            else:
                self._fail(f"call {number + 1}: returned {json.dumps(reply['value']):.80}")

    def _asserts(self) -> None:
        tests = self.tests
        if not tests.asserts:
            return
        job = {
            "units": tests.asserts,
            "setup": f"{tests.head}\n{tests.setup}",
            "names": tests.used_names,
            "seconds": self._wall_seconds(tests.time_s),
            "objects": any(name[0].isupper() for name in tests.used_names),
            "thorough": self.thorough,
        }
        checker, program = self.sandbox.converse(
            _source("checker.py"),
            _source("program.py"),
            checker_files=_job_files(job),
            files=self._program_files(),
            limits=self._limits(tests.total_s),
        )
        reports = list(_json_lines(checker.stderr))
        last = reports[-1] if reports else {}
        stopped = last.get("gone") == SILENT or "wall" in (checker.limit, program.limit)
        _refuse_if_busy(stopped, checker, program)
        if "unusable" in last:
            raise UnusableTests(last["unusable"])
        if not reports:  # the checker ended before its first question, so the program had no part in it
            raise SandboxError(f"the tests did not start: {_failure_of(checker) or 'no report'}")
        if "units" not in last:
            self._fail(f"the tests do not end on the program's values: {_failure_of(checker) or 'no report'}")
            return
        for unit in last["units"]:
            planned, passed, failed, crashed = (int(unit[name]) for name in ("planned", "passed", "failed", "crashed"))
            # a unit is whole if an assert passed and none failed, even if some branches never ran
            whole = not failed and not crashed and (passed or not planned)
            self.shares.append(1.0 if whole else passed / max(planned, passed + failed + crashed, passed + 1))
        if last.get("undecided") and not (self.detail or last["gone"] or last["detail"]):
            raise UnusableTests(last["undecided"])
        if last["gone"] or last["detail"] or min(self.shares) < 1:
            detail = last["detail"] or last["gone"] or "an assert was never reached"
            self._fail(f"{detail} ({_failure_of(program)})" if last["gone"] and program.limit else detail)

    def _program_files(self) -> dict[str, str]:
        """The files of the process that runs the program."""
        tests = self.tests
        continues = tests.prompt and not defines(self.program, tests.entry_point)
        sources = [tests.prompt + self.program] if continues else [*filter(None, [tests.head]), self.program]
        return _job_files({"sources": sources, "seconds": tests.time_s, "thorough": self.thorough})


def _job_files(job: Mapping[str, Any]) -> dict[str, str]:
    return {"job.json": json.dumps(job), "r1kit/verifiers/code/wire.py": _source("wire.py")}


def _source(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


def _encoded(value: Any) -> Any:
    """JSON data as `wire` encodes it, with tagged objects."""
    if isinstance(value, dict):
        return {"dict": [[key, _encoded(item)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return [_encoded(item) for item in value]
    return {"int": hex(value)} if isinstance(value, int) and abs(value) > PLAIN_INT else value


def _json_lines(text: str) -> list[dict[str, Any]]:
    """The lines that are JSON objects; a program may write other lines."""
    messages = []
    for line in text.split("\n"):
        try:
            value = json.loads(line) if line.startswith("{") else None
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            messages.append(value)
    return messages


def _refuse_if_busy(stopped: bool, *runs: Execution) -> None:
    """Raise `Busy` if a run was stopped for wall time while it or its partner waited for a processor."""
    for done in runs:
        if stopped and done.waited_s > _BUSY_SHARE * done.wall_s:
            wait = f"of {done.wall_s:.1f} s a program waited {done.waited_s:.1f} s for a processor"
            raise Busy(f"the machine is too busy to tell: {wait}; run fewer things at once, or raise time_s")


def _failure_of(done: Execution) -> str:
    """Why a run failed, in a few words; "" if it did not."""
    if done.limit:
        return f"stopped by its {done.limit} limit"
    last = done.stderr.strip().rpartition("\n")[2][:200]
    return last if done.exit_status else ""


def writable(detail: str) -> str:
    """A detail that any file can hold: exceptions of a program may contain half a surrogate pair."""
    return detail[:500].encode("utf-8", "replace").decode("utf-8")
