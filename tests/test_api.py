"""The public functions do what the examples in their docstrings say."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

import r1kit


@pytest.mark.parametrize("name", r1kit.__all__)
def test_the_example_in_the_docstring_holds(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # runs/ is written where you are
    function = getattr(r1kit, name)
    (example,) = doctest.DocTestFinder(recurse=False).find(function, name, globs=vars(r1kit).copy())
    assert example.examples
    result = doctest.DocTestRunner(verbose=False).run(example)
    assert result.failed == 0
