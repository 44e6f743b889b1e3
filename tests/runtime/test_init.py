from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import edgex.runtime
from edgex.runtime import errors

FOLDER = Path(edgex.runtime.__file__).parent
LAZY = {
    "onnxruntime": "backends/onnxruntime.py",
    "av": "watch/sources/video.py",
    "paho": "watch/alarms/mqtt.py",
    "pillow_heif": "picture_files.py",
}
ALLOWED = set(sys.stdlib_module_names) | {"numpy", "PIL"}
MODULES = sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.py"))


def test_public_names_are_the_errors_and_what_is_imported_when_asked_for() -> None:
    raised = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert sorted(raised | set(edgex.runtime._HOMES)) == edgex.runtime.__all__
    assert set(edgex.runtime.__all__) <= set(dir(edgex.runtime))


@pytest.mark.parametrize("name", edgex.runtime.__all__)
def test_every_public_name_comes_from_its_home(name: str) -> None:
    home = edgex.runtime._HOMES.get(name, "errors")
    assert getattr(edgex.runtime, name) is getattr(importlib.import_module(f"edgex.runtime.{home}"), name)


def test_an_unknown_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'sesion'"):
        edgex.runtime.sesion  # noqa: B018


@pytest.mark.parametrize("module", MODULES)
def test_imports_nothing_but_numpy_pillow_and_itself(module: str) -> None:
    tree = ast.parse((FOLDER / module).read_text(encoding="utf-8"))
    top_level = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0
            names = [node.module or ""]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            root = name.partition(".")[0]
            if root == "edgex":
                assert name.startswith("edgex.runtime")
            elif LAZY.get(root) == module:
                assert id(node) not in top_level, f"{root} must be imported when it is needed"
            else:
                assert root in ALLOWED, f"{module} imports {name}"


def test_the_rooms_are_looked_at() -> None:
    assert set(LAZY.values()) <= set(MODULES)


def test_import_is_light() -> None:
    """In a fresh interpreter: no heavy module comes along. benchmarks/startup.py measures how long it takes."""
    program = """
import sys
import edgex.runtime
assert not {"numpy", "PIL"} & set(sys.modules), "errors alone need neither"
from edgex.runtime import Session
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""
    output = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    modules = set(output.stdout.split())
    assert {"edgex", "numpy", "PIL"} <= modules
    assert not {"torch", "onnxruntime", "typer", "rich", "onnx", "timm", "tensorrt", "av"} & modules


def test_a_session_leaves_nothing_in_the_users_home(model_path: Path, tmp_path: Path) -> None:
    """onnxruntime's telemetry would write a device id there, and look up a host."""
    home = tmp_path / "home"
    home.mkdir()
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("ORT_", "XDG_"))}
    program = f"from edgex.runtime import Session; Session({str(model_path)!r}, 'cpu').close()"
    subprocess.run([sys.executable, "-B", "-c", program], check=True, env={**kept, "HOME": str(home)})
    assert not list(home.rglob("*"))
