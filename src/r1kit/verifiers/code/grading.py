"""The verifier `code`: a Python program against tests, in a sandbox, compared outside of it.

The program runs where nothing is expected: it is given inputs, and what it gives back is compared elsewhere, outside
for stdin and calls, in a second sandbox that holds the tests for asserts. So there is nothing to read, nothing to
patch, and no word or exit status that means "passed". Where no sandbox works, nothing runs and nobody can tell.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1kit.sandbox import Execution, Limits, Sandbox, SandboxError, default_sandbox
from r1kit.types import Verdict
from r1kit.verifiers.code.matching import same_output, same_value
from r1kit.verifiers.code.tests import DEFAULTS, CodeTests, TestDefaults, defines, parse
from r1kit.verifiers.code.wire import SILENT

MAX_PROGRAM_CHARS = 200_000
MAX_WALL_S = 3600.0  # of a run, as `Limits` has it
_FENCE = re.compile(r"^(?P<indent>[ \t]*)(?P<mark>```+|~~~+)(?P<language>[^\n`]*)$", re.MULTILINE)
_PYTHON = ("python", "py", "python3", "")
_OUTPUT_KB = 8192
_PATIENCE = (4.0, 32.0)  # wall time for CPU time, at first and where a program that waited for a processor ran out
_BUSY = 0.25  # of its wall time spent waiting for a processor: that it was stopped says nothing of the program
_HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Grade:
    """A verdict, and the share of the tests that passed (None where nobody can tell)."""

    verdict: Verdict
    share: float | None


def verify_code(response: str, reference: str) -> Verdict:
    """Right if the response's program passes every test of the reference: see `r1kit.verifiers.code.tests`."""
    return grade_code(response, reference, thorough=False).verdict


def verify_code_batch(responses: Sequence[str], references: Sequence[str]) -> list[Verdict]:
    """As `verify_code` for each pair; programs run side by side, one for each processor, equal pairs once."""
    return [grade.verdict for grade in grade_code_batch(responses, references, thorough=False)]


def grade_code_batch(
    responses: Sequence[str], references: Sequence[str], *, thorough: bool = True, defaults: TestDefaults = DEFAULTS
) -> list[Grade]:
    """A grade per pair, in order; `defaults` are for references that say nothing of limits and tolerance."""
    pairs = list(zip(responses, references, strict=True))
    unique = list(dict.fromkeys(pairs))
    if not unique:
        return []
    with ThreadPoolExecutor(min(len(unique), _cpus())) as threads:
        grades = threads.map(lambda pair: grade_code(*pair, thorough=thorough, defaults=defaults), unique)
        found = dict(zip(unique, grades, strict=True))
    return [found[pair] for pair in pairs]


def grade_code(
    response: str,
    reference: str,
    *,
    thorough: bool = True,
    defaults: TestDefaults = DEFAULTS,
    sandbox: Sandbox | None = None,
) -> Grade:
    """Judge one response; without `thorough`, the first failure ends it and the share counts what was run by then."""
    tests = parse(reference, defaults)
    program = extract(response)
    if isinstance(tests, str):
        return Grade(
            verdict=Verdict(outcome="unknown", extracted=program, detail=f"unusable tests: {tests}"), share=None
        )
    if program is None:
        return Grade(verdict=Verdict(outcome="wrong", detail="no program found"), share=0.0)
    if len(program) > MAX_PROGRAM_CHARS:
        detail = f"the program is longer than {MAX_PROGRAM_CHARS} characters"
        return Grade(verdict=Verdict(outcome="wrong", extracted=program[:512], detail=detail), share=0.0)
    try:
        return _patient(sandbox or default_sandbox(), tests, program, thorough)
    except UnusableTests as error:
        verdict = Verdict(outcome="unknown", extracted=program, detail=_clean(f"unusable tests: {error}"))
    except SandboxError as error:
        verdict = Verdict.failed(_clean(str(error)), extracted=program)
    return Grade(verdict=verdict, share=None)


def _patient(sandbox: Sandbox, tests: CodeTests, program: str, thorough: bool) -> Grade:
    """A grade that does not depend on how busy the machine is; raises `Busy` where even the longest patience ends."""
    for patience in _PATIENCE[:-1]:
        with suppress(Busy):
            return _Run(sandbox, tests, program, thorough, patience).grade()
    return _Run(sandbox, tests, program, thorough, _PATIENCE[-1]).grade()


def extract(response: str) -> str | None:
    """The program of a response: in `<answer>` if there is one, else after `</think>`, the last fenced Python block.

    Only an answer section may also do without a fence. A fence that is not closed was cut off, and is none.
    """
    tail = response.rpartition("</think>")[2]
    if "<answer>" in tail:
        text = tail.rsplit("<answer>", 1)[1].partition("</answer>")[0]
        found = fenced(text)
        bare = text.strip("\n").rstrip() if found is None and not _FENCE.search(text) else None
        return found or bare or None
    return None if "<answer>" in response else fenced(tail)


def fenced(text: str) -> str | None:
    """The content of the last closed block that is Python's, or says of no language; None where the last is cut off."""
    blocks: list[tuple[str, str]] = []
    opened: re.Match[str] | None = None
    for mark in _FENCE.finditer(text):
        if opened is None:
            opened = mark
        elif mark["mark"].startswith(opened["mark"]) and not mark["language"].strip():
            lines = text[opened.end() + 1 : mark.start()].split("\n")
            program = "\n".join(line.removeprefix(opened["indent"]) for line in lines).rstrip()
            blocks.append((opened["language"].strip().split(" ")[0].casefold(), program))
            opened = None
    if opened is not None:
        return None
    for language in ("named", "unnamed"):
        for tag, program in reversed(blocks):
            if tag in _PYTHON and bool(tag) == (language == "named") and program.strip():
                return program
    return None


class UnusableTests(ValueError):
    """The tests fail by themselves, or cannot be decided from outside, whatever the program does."""


class Busy(SandboxError):
    """The program was stopped for its time, much of which it stood in line for a processor."""


class _Run:
    """One program and its tests."""

    def __init__(self, sandbox: Sandbox, tests: CodeTests, program: str, thorough: bool, patience: float) -> None:
        self.sandbox, self.tests, self.program, self.thorough = sandbox, tests, program, thorough
        self.patience = patience
        self.shares: list[float] = []
        self.detail = ""

    def grade(self) -> Grade:
        """All kinds of tests that the reference has, as one verdict."""
        tests = self.tests
        for one in (self._stdin, self._calls, self._asserts):
            if self.thorough or not self.detail:
                one()
        total = len(tests.stdin) + len(tests.calls) + len(tests.asserts)
        correct = not self.detail and len(self.shares) == total
        detail = f"passes {total} tests" if correct else self.detail
        verdict = Verdict.of(correct, extracted=self.program, detail=_clean(detail))
        return Grade(verdict=verdict, share=1.0 if correct else min(sum(self.shares) / total, 1 - 1e-9))

    def _fail(self, detail: str) -> None:
        self.detail = self.detail or detail

    def _limits(self, seconds: float) -> Limits:
        return Limits(wall_s=self._wall(seconds), cpu_s=seconds, memory_mb=self.tests.memory_mb, output_kb=_OUTPUT_KB)

    def _wall(self, seconds: float) -> float:
        """Wall time for CPU time: others want the processor too."""
        return min(self.patience * seconds + 1, MAX_WALL_S)

    def _stdin(self) -> None:
        tests, left = self.tests, self.tests.total_s
        program = "\n".join(filter(None, [tests.head, self.program]))
        for number, test in enumerate(tests.stdin, start=1):
            if left <= 0:
                self._fail(f"test {number}: no time left of {tests.total_s:g} s")
                return
            done = self.sandbox.run(program, stdin=test.input, limits=self._limits(min(tests.time_s, left)))
            _refuse_if_busy(done.limit == "wall", done)
            left -= done.wall_s / self.patience
            same = same_output(test.output, done.stdout, tests.tolerance, tests.indent)
            if same and done.limit is None and done.exit_status == 0:  # a crash after the output is a crash
                self.shares.append(1.0)
                continue
            crash = f"it ended with status {done.exit_status}" if done.exit_status else ""
            self._fail(f"test {number}: {_reason(done) or crash or 'another output'}")
            if not self.thorough:
                return

    def _calls(self) -> None:
        tests = self.tests
        if not tests.calls:
            return
        questions = [{"do": "load"}] + [
            {
                "do": "call",
                "id": number,
                "on": tests.entry_point,
                "args": _sent(test.args),
                "kwargs": {name: _sent(value) for name, value in test.kwargs.items()},
            }
            for number, test in enumerate(tests.calls)
        ]
        done = self.sandbox.run(
            _source("program.py"),
            stdin="".join(json.dumps(question) + "\n" for question in questions),
            files=self._files(),
            limits=self._limits(min(tests.total_s, tests.time_s * (len(tests.calls) + 1))),
        )
        _refuse_if_busy(done.limit == "wall", done)
        messages = list(_messages(done.stdout))
        if broken := next((one for one in messages if one.get("id") is None and "raised" in one), None):
            self._fail(f"it does not load: {broken['raised']}: {broken.get('message')}")
            return
        replies = {reply["id"]: reply for reply in messages if type(reply.get("id")) is int}
        for number, test in enumerate(tests.calls):
            if wrong := _judged(replies.get(number), test.output, tests.tolerance):
                self._fail(f"call {number + 1}: {_reason(done) if wrong == 'no result' and done.limit else wrong}")
            else:
                self.shares.append(1.0)

    def _asserts(self) -> None:
        tests = self.tests
        if not tests.asserts:
            return
        names = tests.wanted
        job = {
            "units": tests.asserts,
            "setup": f"{tests.head}\n{tests.setup}",
            "names": names,
            "seconds": self._wall(tests.time_s),
            "objects": any(name[0].isupper() for name in names),
            "thorough": self.thorough,
        }
        checker, program = self.sandbox.converse(
            _source("checker.py"),
            _source("program.py"),
            checker_files=_job(job),
            files=self._files(),
            limits=self._limits(tests.total_s),
        )
        reports = list(_messages(checker.stderr))
        last = reports[-1] if reports else {}
        stopped = last.get("gone") == SILENT or "wall" in (checker.limit, program.limit)
        _refuse_if_busy(stopped, checker, program)
        if "unusable" in last:
            raise UnusableTests(last["unusable"])
        if not reports:  # it ended before it asked the program anything, so the program has no part in it
            raise SandboxError(f"the tests did not start: {_reason(checker) or 'no report'}")
        if "units" not in last:
            self._fail(f"the tests do not end on the program's values: {_reason(checker) or 'no report'}")
            return
        self.shares += [_share(unit) for unit in last["units"]]
        if last.get("undecided") and not (self.detail or last["gone"] or last["detail"]):
            raise UnusableTests(last["undecided"])
        if last["gone"] or last["detail"] or min(self.shares) < 1:
            detail = last["detail"] or last["gone"] or "an assert was never reached"
            self._fail(f"{detail} ({_reason(program)})" if last["gone"] and program.limit else detail)

    def _files(self) -> dict[str, str]:
        """The job of the process with the program."""
        tests = self.tests
        continues = tests.prompt and not defines(self.program, tests.entry_point)
        sources = [tests.prompt + self.program] if continues else [*filter(None, [tests.head]), self.program]
        return _job({"sources": sources, "seconds": tests.time_s, "thorough": self.thorough})


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _job(job: Mapping[str, Any]) -> dict[str, str]:
    return {"job.json": json.dumps(job), "r1kit/verifiers/code/wire.py": _source("wire.py")}


def _source(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _sent(value: Any) -> Any:
    """JSON data as the wire has it: objects are tagged there."""
    if isinstance(value, dict):
        return {"dict": [[key, _sent(item)] for key, item in value.items()]}
    return [_sent(item) for item in value] if isinstance(value, list | tuple) else value


def _messages(text: str) -> list[dict[str, Any]]:
    """The lines that are JSON objects; a program may write others."""
    found = []
    for line in text.split("\n"):
        try:
            value = json.loads(line) if line.startswith("{") else None
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            found.append(value)
    return found


def _judged(reply: Mapping[str, Any] | None, expected: Any, tolerance: float) -> str:
    """What is wrong with the reply to a call; empty where nothing is."""
    if reply is None:
        return "no result"
    if "raised" in reply:
        return f"{reply['raised']}: {reply.get('message')}"
    if "value" not in reply:
        return "no result"
    return "" if same_value(expected, reply["value"], tolerance) else f"returned {json.dumps(reply['value']):.80}"


def _share(unit: Mapping[str, Any]) -> float:
    """Of a unit's asserts those that passed: all, if at least one did and none failed, whatever branches lie idle."""
    planned, passed, failed, crashed = (int(unit[name]) for name in ("planned", "passed", "failed", "crashed"))
    if not failed and not crashed and (passed or not planned):
        return 1.0
    return passed / max(planned, passed + failed + crashed, passed + 1)


def _refuse_if_busy(stopped: bool, *runs: Execution) -> None:
    """Raises `Busy` where a run was stopped for wall time that it, or its partner, could not use."""
    for done in runs:
        if stopped and done.waited_s > _BUSY * done.wall_s:
            told = f"of {done.wall_s:.1f} s a program waited {done.waited_s:.1f} s for a processor"
            raise Busy(f"the machine is too busy to tell: {told}; run fewer things at once, or raise time_s")


def _clean(detail: str) -> str:
    """A detail that can be written to any file: what a program raises may hold half of a surrogate pair."""
    return detail[:500].encode("utf-8", "replace").decode("utf-8")


def _reason(done: Execution) -> str:
    """Why a run failed, in a few words."""
    if done.limit:
        return f"stopped by its {done.limit} limit"
    last = done.stderr.strip().rpartition("\n")[2][:200]
    return last if done.exit_status else ""
