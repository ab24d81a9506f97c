"""Imports go down the layers only, and nothing heavy is loaded before it is needed."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "r1kit"

# Each row may import the rows below it; neighbours on a row do not import each other. "r1kit" is the
# package itself, whose public functions import what they need when they are called.
ROWS = (
    ("__main__", "r1kit"),
    ("cli",),
    ("serve",),
    ("web", "commands", "recipes", "export"),
    ("stages",),
    ("report", "conformance", "tracking"),
    ("evaluate", "train"),
    ("rollout", "collect", "review"),
    ("rewards", "curate"),
    ("judges",),
    ("engines", "tasks"),
    ("verifiers", "models", "tiny", "data", "cluster"),
    ("sandbox", "chat", "pipeline"),
    ("content",),
    ("settings", "store", "event_loop", "cores", "terminal", "net"),
    ("types", "redaction", "numeric", "ranks"),
)
LEVEL = {name: level for level, row in enumerate(ROWS) for name in row}

# Where a package may be imported: at all, and at the top of a file (else only inside the function that needs it).
TORCH_HOMES = ("models", "train", "engines.local")
ANYWHERE = {
    "torch": (*TORCH_HOMES, "stages", "export", "ranks", "pipeline.launcher", "pipeline.sharing"),
    "ray": ("cluster",),
}
HEAVY = (
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "peft",
    "trl",
    "accelerate",
    "datasets",
    "pyarrow",
    "pandas",
    "gguf",
    "xllamacpp",
    "matplotlib",
    "reasoning_gym",
    "trackio",
    "tensorboard",
    "wandb",
    "mlflow",
    "ray",
)


def modules() -> list[tuple[str, Path]]:
    """Dotted names below r1kit, and files: ("engines.local.engine", .../engine.py)."""
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        found.append((".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "r1kit", path))
    return found


MODULES = [pytest.param(name, path, id=name) for name, path in modules()]


def imports(node: ast.AST, *, at_top: bool = True, typing_only: bool = False) -> Iterator[tuple[str, bool]]:
    """Every imported dotted name in a file, and whether importing the file loads it."""
    for child in ast.iter_child_nodes(node):
        inner = at_top and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        checking = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
        if isinstance(child, ast.Import):
            yield from ((alias.name, at_top and not typing_only) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"line {child.lineno}: write imports in full"
            yield str(child.module), at_top and not typing_only
            yield from ((f"{child.module}.{alias.name}", at_top and not typing_only) for alias in child.names)
        else:
            yield from imports(child, at_top=inner, typing_only=typing_only or checking)


@cache
def parsed(path: Path) -> list[tuple[str, bool]]:
    return list(imports(ast.parse(path.read_text(encoding="utf-8"))))


def within(module: str, homes: tuple[str, ...]) -> bool:
    return any(module == home or module.startswith(home + ".") for home in homes)


@pytest.mark.parametrize(("module", "path"), MODULES)
def test_imports_go_down_the_layers(module: str, path: Path) -> None:
    own = module.split(".")[0]
    assert own in LEVEL, f"{own} has no row: add it to ROWS here and to docs/architecture.md"
    for imported, _ in parsed(path):
        first, _, rest = imported.partition(".")
        part = rest.split(".")[0]
        if first != "r1kit" or part not in LEVEL or part == own:
            continue
        assert LEVEL[part] > LEVEL[own], f"r1kit.{module} imports r1kit.{part}, which is not below it"


def test_the_table_in_the_architecture_has_the_same_rows() -> None:
    text = (SOURCE.parents[1] / "docs" / "architecture.md").read_text(encoding="utf-8")
    first_cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    assert [tuple(cell.replace("`", "").split()) for cell in first_cells] == list(ROWS)


@pytest.mark.parametrize(("module", "path"), MODULES)
def test_heavy_packages_wait_until_they_are_needed(module: str, path: Path) -> None:
    for imported, at_top in parsed(path):
        package = imported.split(".")[0]
        if package in ANYWHERE:
            assert within(module, ANYWHERE[package]), f"r1kit.{module} imports {package}: only {ANYWHERE[package]} may"
        if package in HEAVY and at_top:
            homes = (*TORCH_HOMES, *ANYWHERE.get(package, ())) if package != "torch" else TORCH_HOMES
            assert within(module, homes), f"r1kit.{module} imports {package} at its top: import it where it is used"


STDLIB_ONLY = [case for case in MODULES if str(case.values[0]).split(".")[0] in ("types", "store", "cli")]


@pytest.mark.parametrize(("module", "path"), STDLIB_ONLY)
def test_the_lowest_layer_and_the_command_line_load_the_standard_library_only(module: str, path: Path) -> None:
    for imported, at_top in parsed(path):
        package = imported.split(".")[0]
        assert not at_top or package in (*sys.stdlib_module_names, "r1kit"), f"r1kit.{module} imports {package}"


HELP = "import r1kit.cli\ntry: r1kit.cli.main(['--help'])\nexcept SystemExit: pass"


@pytest.mark.parametrize("code", ["import r1kit", HELP])
def test_importing_r1kit_and_asking_for_help_load_nothing_from_outside(code: str) -> None:
    # what Python's start loads by itself (editable installs, coverage) does not count
    report = "import json, sys\nbefore = set(sys.modules)\n" + code
    report += "\nprint('\\n' + json.dumps(sorted({name.split('.')[0] for name in set(sys.modules) - before})))"
    done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True)
    loaded = json.loads(done.stdout.splitlines()[-1])
    assert "r1kit" in loaded
    assert [name for name in loaded if name not in sys.stdlib_module_names and name != "r1kit"] == []


def test_the_pipeline_knows_nothing_of_models() -> None:
    code = "import sys, r1kit.pipeline\nprint([name for name in sys.argv[1:] if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code, *HEAVY], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
