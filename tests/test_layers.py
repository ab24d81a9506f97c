"""Imports go down the layers only, and nothing heavy is loaded before it is needed."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
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
RANKS = tuple(f"pipeline.{name}" for name in ("launcher", "agent", "other_nodes", "rank_process"))
TORCH_HOMES = ("models", "train", "engines.local")
ANYWHERE = {
    "torch": (*TORCH_HOMES, "engines.remote", "stages", "export", "ranks", *RANKS, "pipeline.sharing"),
    "ray": ("cluster",),
    "vllm": ("engines.remote.vllm_worker",),
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
    "vllm",
)


def imports(node: ast.AST, *, at_top: bool = True, typing_only: bool = False) -> Iterator[tuple[str, bool]]:
    """Every imported dotted name in a file, and whether importing the file loads it."""
    for child in ast.iter_child_nodes(node):
        inner = at_top and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        checking = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
        if isinstance(child, ast.Import):
            yield from ((alias.name, at_top and not typing_only) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            yield "." * child.level + str(child.module), at_top and not typing_only
            yield from ((f"{child.module}.{alias.name}", at_top and not typing_only) for alias in child.names)
        else:
            yield from imports(child, at_top=inner, typing_only=typing_only or checking)


@pytest.fixture(scope="module")
def modules() -> dict[str, list[tuple[str, bool]]]:
    """What each module imports, by its dotted name below r1kit: "engines.local.engine"."""
    modules = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "r1kit"
        modules[name] = list(imports(ast.parse(path.read_text(encoding="utf-8"))))
    return modules


def within(module: str, homes: tuple[str, ...]) -> bool:
    return any(module == home or module.startswith(home + ".") for home in homes)


def test_imports_go_down_the_layers(modules: dict[str, list[tuple[str, bool]]]) -> None:
    faults = []
    for module, imported in modules.items():
        own = module.split(".")[0]
        assert own in LEVEL, f"{own} has no row: add it to ROWS here and to docs/architecture.md"
        for name, _ in imported:
            first, _, rest = name.partition(".")
            part = rest.split(".")[0]
            if not first:
                faults.append(f"r1kit.{module} imports {name}: write imports in full")
            elif first == "r1kit" and part in LEVEL and part != own and LEVEL[part] <= LEVEL[own]:
                faults.append(f"r1kit.{module} imports r1kit.{part}, which is not below it")
    assert not faults, "\n".join(faults)


def test_the_table_in_the_architecture_has_the_same_rows() -> None:
    text = (SOURCE.parents[1] / "docs" / "architecture.md").read_text(encoding="utf-8")
    first_cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    assert [tuple(cell.replace("`", "").split()) for cell in first_cells] == list(ROWS)


def test_heavy_packages_wait_until_they_are_needed(modules: dict[str, list[tuple[str, bool]]]) -> None:
    faults = []
    for module, imported in modules.items():
        for name, at_top in imported:
            package = name.split(".")[0]
            if package in ANYWHERE and not within(module, ANYWHERE[package]):
                faults.append(f"r1kit.{module} imports {package}: only {ANYWHERE[package]} may")
            homes = (*TORCH_HOMES, *ANYWHERE.get(package, ())) if package != "torch" else TORCH_HOMES
            if package in HEAVY and at_top and not within(module, homes):
                faults.append(f"r1kit.{module} imports {package} at its top: import it where it is used")
    assert not faults, "\n".join(faults)


def test_the_lowest_layer_and_the_command_line_load_the_standard_library_only(
    modules: dict[str, list[tuple[str, bool]]],
) -> None:
    known = {*sys.stdlib_module_names, "r1kit"}
    low = {
        module: imported for module, imported in modules.items() if module.split(".")[0] in ("types", "store", "cli")
    }
    faults = [(module, name) for module, imported in low.items() for name, at_top in imported if at_top]
    assert len(low) > 10 and [fault for fault in faults if fault[1].split(".")[0] not in known] == []


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
