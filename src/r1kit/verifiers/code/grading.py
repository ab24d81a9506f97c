"""The verifier `code`: runs a Python program against tests in a sandbox, and compares the results outside of it.

The sandbox of the program has no expected values: it gets inputs, and its results are compared elsewhere: outside for
stdin tests and calls, in a second sandbox with the tests for asserts. So the program has nothing to read or to patch,
and no output or exit status means "passed". Without a working sandbox nothing runs, and the verdict is "failed".
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from r1kit.cores import cpu_count
from r1kit.sandbox import Sandbox, SandboxError, default_sandbox
from r1kit.types import Verdict
from r1kit.verifiers.code.fenced import extract_program
from r1kit.verifiers.code.runs import Busy, Grade, Run, UnusableTests, writable
from r1kit.verifiers.code.tests import DEFAULTS, TestDefaults, parse_tests

MAX_PROGRAM_CHARS = 200_000
_WALL_PER_CPU = (4.0, 32.0)  # wall time per CPU time: first attempt, and the last one if the program waited for a CPU


def verify_code(response: str, reference: str) -> Verdict:
    """Right if the response's program passes all tests of the reference; see `r1kit.verifiers.code.tests`."""
    return grade_code(response, reference, thorough=False).verdict


def verify_code_batch(responses: Sequence[str], references: Sequence[str]) -> list[Verdict]:
    """As `verify_code` for each pair. Programs run in parallel, one per processor; equal pairs run once."""
    return [grade.verdict for grade in grade_code_batch(responses, references, thorough=False)]


def grade_code_batch(
    responses: Sequence[str], references: Sequence[str], *, thorough: bool = True, defaults: TestDefaults = DEFAULTS
) -> list[Grade]:
    """One grade per pair, in order. `defaults` apply to references that do not set limits and tolerance."""
    pairs = list(zip(responses, references, strict=True))
    unique = list(dict.fromkeys(pairs))
    if not unique:
        return []
    with ThreadPoolExecutor(min(len(unique), cpu_count())) as threads:
        grades = threads.map(lambda pair: grade_code(*pair, thorough=thorough, defaults=defaults), unique)
        by_pair = dict(zip(unique, grades, strict=True))
    return [by_pair[pair] for pair in pairs]


def grade_code(
    response: str,
    reference: str,
    *,
    thorough: bool = True,
    defaults: TestDefaults = DEFAULTS,
    sandbox: Sandbox | None = None,
) -> Grade:
    """Grade one response. Unless `thorough`, the first failure ends the run, and the share counts the tests so far."""
    tests = parse_tests(reference, defaults)
    if isinstance(tests, str):
        program = extract_program(response)
        return Grade(Verdict(outcome="unknown", extracted=program, detail=f"unusable tests: {tests}"), share=None)
    program = extract_program(response, tests.fit)
    if program is None:
        return Grade(Verdict(outcome="wrong", detail="no program found"), share=0.0)
    if len(program) > MAX_PROGRAM_CHARS:
        detail = f"the program is longer than {MAX_PROGRAM_CHARS} characters"
        return Grade(Verdict(outcome="wrong", extracted=program[:512], detail=detail), share=0.0)
    try:
        sandbox = sandbox or default_sandbox()
        for wall_per_cpu in _WALL_PER_CPU[:-1]:
            with suppress(Busy):
                return Run(sandbox, tests, program, thorough, wall_per_cpu).grade()
        return Run(sandbox, tests, program, thorough, _WALL_PER_CPU[-1]).grade()
    except UnusableTests as error:
        verdict = Verdict(outcome="unknown", extracted=program, detail=writable(f"unusable tests: {error}"))
    except SandboxError as error:
        verdict = Verdict.failed(writable(str(error)), extracted=program)
    return Grade(verdict, share=None)
