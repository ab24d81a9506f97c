"""The documents name files, functions and settings that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "guides").glob("*.md")])
CURRENT = [path for path in DOCUMENTS if path.name != "log.md"]  # the log tells of files as they were
PAPER = (ROOT / "docs" / "paper.md").read_text(encoding="utf-8")


def defined(path: Path) -> set[str]:
    """The names of a module's top-level functions, classes and constants."""
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        names |= {target.id for target in targets if isinstance(target, ast.Name)}
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
    return names


def test_every_function_that_paper_md_names_is_in_its_file() -> None:
    checked = 0
    for row in re.findall(r"^\|.*\|$", PAPER, re.MULTILINE)[2:]:
        where = row.strip("|").split("|")[-1]
        for part in where.split(";"):
            path, *names = re.findall(r"`([^`]+)`", part)
            assert names == [] or set(names) <= defined(ROOT / "src" / path), f"{path} does not define all of {names}"
            assert (ROOT / "src" / path).is_file(), path
            checked += 1
    assert checked > 15


@pytest.mark.parametrize("document", CURRENT, ids=lambda path: path.stem)
def test_every_file_that_a_document_names_exists(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    code = {match for match in re.findall(r"`([\w/]+/[\w/]*\.?(?:py|md)?)`", text) if "/" in match}
    for name in {name for name in code if name.endswith((".py", ".md"))}:
        homes = (ROOT / name, ROOT / "src" / name, ROOT / "src" / "r1kit" / name, document.parent / name)
        assert any(home.exists() for home in homes), f"{document.name} names {name}"
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert "://" in link or (document.parent / link).exists(), f"{document.name} links to {link}"
