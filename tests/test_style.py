"""Names say what they hold, and the text is plain English: the words that crept in once do not come back."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "r1kit"
SOURCES = sorted(PACKAGE.rglob("*.py"))
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
PROMPTS = ("collect/prompting.py", "collect/rewriting.py", "judges/rubrics.py")  # their words are settings of a run
FILLER = {"found", "one", "given", "asked", "told", "made", "way", "held", "near", "taken", "shown", "said"}
MOST = 30  # filler names in the whole package
ARCHAIC = re.compile(r"\b(?:mend(?:s|ed|ing)?|anew|lest|(?:is|are|was|were) told(?! apart)|by nobody)\b", re.IGNORECASE)


def prose(path: Path) -> str:
    """A module's docstrings, comments and, unless they are prompts, its other texts."""
    source = path.read_text(encoding="utf-8")
    kinds = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", -1)}  # -1: before Python 3.12
    if path.relative_to(PACKAGE).as_posix() in PROMPTS:
        kinds = {tokenize.COMMENT}
    texts = [token.string for token in tokenize.generate_tokens(io.StringIO(source).readline) if token.type in kinds]
    nodes = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = [ast.get_docstring(node) or "" for node in ast.walk(ast.parse(source)) if isinstance(node, nodes)]
    return "\n".join(texts + docstrings)


def test_variables_are_named_for_what_they_hold() -> None:
    places: Counter[str] = Counter()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id in FILLER:
                places[f"{path.relative_to(PACKAGE)}: {node.id}"] += 1
    assert places.total() <= MOST, f"{places.total()} names do not say what they hold: {places.most_common()}"


def test_text_is_in_modern_english() -> None:
    faults = []
    for path in (*SOURCES, *DOCUMENTS):
        text = prose(path) if path.suffix == ".py" else path.read_text(encoding="utf-8")
        faults += [f"{path.relative_to(ROOT)}: {word}" for word in ARCHAIC.findall(text)]
    assert not faults, "\n".join(faults)
