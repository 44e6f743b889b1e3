"""The rules that keep the three packages apart, and the public names of the first one."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import edgex

ROOT = Path(__file__).resolve().parents[1]
# The rooms from the ground up, and what each may import of the others besides itself. A module that lies directly in
# edgex/ is a room of its own ("" is edgex/__init__.py).
GROUND = {"_version", "errors", "runtime", "samples"}
MODELS = GROUND | {"utils", "data", "models"}
FILES = MODELS | {"files"}
LEARNED_FROM = FILES | {"importers", "shapley"}
JUDGED = LEARNED_FROM | {"evaluation"}
WORKFLOWS = JUDGED | {
    "training",
    "vectors",
    "export",
    "bench",
    "inspection",
    "doctor",
    "prediction",
    "calibration",
    "report",
    "serving",
    "demo",
}
MAY_IMPORT: dict[str, set[str]] = {
    "runtime": set(),
    "samples": set(),
    "_version": set(),
    "errors": {"runtime"},
    "utils": GROUND,
    "data": GROUND | {"utils"},
    "models": GROUND | {"utils"},
    "files": MODELS,
    "importers": FILES,
    "shapley": FILES,
    "export": FILES,
    "evaluation": LEARNED_FROM,
    "training": JUDGED,
    "vectors": JUDGED,
    "bench": JUDGED | {"export"},
    "inspection": FILES | {"shapley"},
    "doctor": FILES,
    "prediction": JUDGED,
    "calibration": JUDGED,
    "report": GROUND | {"utils"},
    "serving": GROUND | {"utils"},
    "demo": WORKFLOWS - {"demo"},
    "": WORKFLOWS,
    "cli": WORKFLOWS | {""},
    "__main__": {"cli"},
}


def room_of(module: str) -> str:
    """The room that a module's dotted name lies in: "edgex.files.zoo" -> "files"."""
    return [*module.split("."), ""][1]


def modules() -> dict[str, Path]:
    """Every module of the three packages: dotted name -> file."""
    found = {}
    for folder, package in (("edgex", "edgex"), ("export", "edgex.export"), ("runtime", "edgex.runtime")):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join([package, *(part for part in parts if part != "__init__")])] = path
    return found


MODULES = modules()


def imported(path: Path) -> set[str]:
    """All names that a file imports, at its top and inside its functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def edgex_modules(name: str) -> set[str]:
    """The edgex modules that a module imports; packages that only lead to an imported module are left out."""
    found = imported(MODULES[name]) & set(MODULES)
    return {n for n in found if n == name or not any(other.startswith(f"{n}.") for other in found)} - {name}


@pytest.mark.parametrize("name", MODULES)
def test_a_room_imports_only_what_the_table_allows(name: str) -> None:
    room = room_of(name)
    used = {room_of(other) for other in edgex_modules(name)} - {room}
    assert used <= MAY_IMPORT[room], f"{name} imports {sorted(used - MAY_IMPORT[room])}"


@pytest.mark.parametrize("name", [n for n in MODULES if room_of(n) == "runtime"])
def test_the_runtime_imports_no_library_of_the_workstation(name: str) -> None:
    heavy = ("torch", "timm", "open_clip", "onnx", "typer", "rich", "safetensors")
    assert not {n for n in imported(MODULES[name]) if n.split(".")[0] in heavy}


@pytest.mark.parametrize("name", [n for n in MODULES if n != "edgex.cli.console"])
def test_only_the_console_prints(name: str) -> None:
    """It escapes what would steer a terminal. What runs without typer and rich prints a text of its own."""
    calls = [node for node in ast.walk(ast.parse(MODULES[name].read_text("utf-8"))) if isinstance(node, ast.Call)]
    printing = [ast.unparse(node.func) for node in calls if ast.unparse(node.func) in ("print", "typer.echo")]
    assert printing in ([], *([["print"]] if name in ("edgex.cli", "edgex.cli.log") else []))


def test_no_module_imports_itself_in_a_circle() -> None:
    """Also no circle that only an import inside a function closes."""
    state: dict[str, int] = {}

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert state.get(name) != 1, f"a circle of imports: {' -> '.join([*trail[trail.index(name) :], name])}"
        if name in state:
            return
        state[name] = 1
        for other in sorted(edgex_modules(name)):
            visit(other, (*trail, name))
        state[name] = 2

    for name in MODULES:
        visit(name, ())


@pytest.mark.parametrize("name", MODULES)
def test_modules_say_what_they_are(name: str) -> None:
    text = MODULES[name].read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text)), "a module's first lines say what lives in it"


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, edgex.cli.application; "
        "heavy = {'torch', 'timm', 'onnx', 'onnxruntime', 'numpy', 'PIL', 'safetensors'} & set(sys.modules); "
        "sys.exit(repr(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_public_names_are_what_the_package_imports() -> None:
    """Whatever edgex/__init__.py imports for type checkers is public, found where they find it, and shown by dir()."""
    tree = ast.parse((ROOT / "edgex" / "__init__.py").read_text(encoding="utf-8"))
    checked = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    found = {
        alias.name: node.module for node in checked[0].body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert edgex.__all__ == dir(edgex) == sorted(["__version__", *found])
    for name, module in found.items():
        assert getattr(edgex, name) is getattr(importlib.import_module(str(module)), name)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        edgex.nothing  # noqa: B018


def test_importing_the_package_is_light() -> None:
    code = "import sys, edgex; print(*{'torch', 'numpy', 'PIL', 'onnxruntime', 'typer'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not done.stdout.split()


def commands() -> dict[str, ast.FunctionDef]:
    """The function of each command: those that take options, by the name of their module and their own."""
    found = {}
    for path in sorted((ROOT / "edgex" / "cli").glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and "typer.Option" in ast.unparse(node.args):
                found[f"{path.stem}.{node.name}"] = node
    return found


@pytest.mark.parametrize("name", commands())
def test_a_command_parses_calls_one_function_and_prints(name: str) -> None:
    """Its body has at most 30 lines; the docstring and lines that only hand an option on do not count."""
    body = [node for node in commands()[name].body if not isinstance(node, ast.Expr) or not is_text(node.value)]
    lines = {line for node in body for line in range(node.lineno, (node.end_lineno or 0) + 1)}
    handed = {
        word.lineno
        for node in body
        for word in ast.walk(node)
        if isinstance(word, ast.keyword) and isinstance(word.value, ast.Name) and word.arg == word.value.id
    }
    assert len(lines - handed) <= 30


def is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def test_the_readme_shows_the_gates_thresholds() -> None:
    from edgex.export import BOUNDS

    page = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    for name, bound in BOUNDS.items():
        sign = "≥" if bound.at_least else "≤"
        values = " | ".join(f"{sign} {value:g}" for value in (bound.fp32, bound.fp16, bound.int8))
        assert f"| {name}: {bound.description} | {values} |" in page
