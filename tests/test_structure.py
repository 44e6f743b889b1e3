"""The rules that keep the three packages apart, and the public names of the first one."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import edgex

ROOT = Path(__file__).resolve().parents[1]
MAX_LINES = 400
EXPORT_MAY_IMPORT = {"edgex"} | {
    f"edgex.{name}" for name in ("artefact", "backbones", "checkpoint", "errors", "json_values", "model")
}


def modules(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def edgex_modules(path: Path) -> set[str]:
    """The edgex modules that a file imports; names that are no module files are left out."""
    found = set()
    for name in imported(path):
        parts = name.split(".")
        if parts[0] != "edgex":
            continue
        folder = {"export": ROOT / "export", "runtime": ROOT / "runtime"}.get(parts[1] if len(parts) > 1 else "")
        inner = parts[2:] if folder else parts[1:]
        place = (folder or ROOT / "edgex").joinpath(*inner)
        if place.with_suffix(".py").is_file() or place.is_dir():
            found.add(name)
    return found


@pytest.mark.parametrize("path", modules("runtime"), ids=lambda p: p.name)
def test_the_runtime_imports_nothing_else_of_edgex_and_no_torch(path: Path) -> None:
    assert not {n for n in edgex_modules(path) if not n.startswith("edgex.runtime")} - {"edgex"}
    assert not {n for n in imported(path) if n.split(".")[0] in ("torch", "timm", "open_clip", "onnx", "typer", "rich")}


@pytest.mark.parametrize("path", modules("export"), ids=lambda p: p.name)
def test_export_imports_model_and_checkpoint_and_the_runtime_only(path: Path) -> None:
    others = {n for n in edgex_modules(path) if not n.startswith(("edgex.runtime", "edgex.export"))}
    assert others <= EXPORT_MAY_IMPORT


@pytest.mark.parametrize(
    "path", [p for p in modules("edgex") if "cli" not in p.parts and p.name != "__main__.py"], ids=lambda p: p.name
)
def test_only_the_command_line_imports_export(path: Path) -> None:
    assert not {n for n in edgex_modules(path) if n.startswith(("edgex.export", "edgex.cli"))}


@pytest.mark.parametrize(
    "path", [*modules("edgex"), *modules("export"), *modules("runtime")], ids=lambda p: f"{p.parent.name}/{p.name}"
)
def test_modules_say_what_they_are_and_stay_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text)), "a module's first lines say what lives in it"
    assert text.count("\n") <= MAX_LINES


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, edgex.cli; "
        "heavy = {'torch', 'timm', 'onnx', 'onnxruntime', 'numpy', 'PIL', 'safetensors'} & set(sys.modules); "
        "sys.exit(repr(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_public_names() -> None:
    assert edgex.__all__ == ["__version__", "load_model", "load_vector"]
    for name in edgex.__all__:
        assert getattr(edgex, name) is not None


def test_the_readme_shows_the_gates_thresholds() -> None:
    from edgex.export import BOUNDS

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name, bound in BOUNDS.items():
        sign = "≥" if bound.at_least else "≤"
        values = " | ".join(f"{sign} {value:g}" for value in (bound.fp32, bound.fp16, bound.int8))
        assert f"| {name}: {bound.description} | {values} |" in readme
