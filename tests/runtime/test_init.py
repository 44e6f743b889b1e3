from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import edgex.runtime

FOLDER = Path(edgex.runtime.__file__).parent
LAZY = {"onnxruntime": "backend_onnxruntime.py", "av": "video.py"}
ALLOWED = set(sys.stdlib_module_names) | {"numpy", "PIL"}


def test_public_api() -> None:
    assert edgex.runtime.__all__ == [
        "ArtefactError",
        "Box",
        "EdgexError",
        "GateError",
        "ImageError",
        "MismatchError",
        "MissingExtraError",
        "Preprocessing",
        "ProviderError",
        "Result",
        "Session",
        "SourceError",
        "Stream",
        "UnsupportedError",
        "UsageError",
        "View",
        "decode_heatmap",
        "open_source",
    ]
    assert all(hasattr(edgex.runtime, name) for name in edgex.runtime.__all__)


@pytest.mark.parametrize("module", sorted(FOLDER.glob("*.py")), ids=lambda path: path.name)
def test_imports_nothing_but_numpy_pillow_and_itself(module: Path) -> None:
    tree = ast.parse(module.read_text())
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
            elif LAZY.get(root) == module.name:
                assert id(node) not in top_level, f"{root} must be imported when it is needed"
            else:
                assert root in ALLOWED, f"{module.name} imports {name}"


def test_modules_stay_short() -> None:
    for module in FOLDER.glob("*.py"):
        assert len(module.read_text().splitlines()) < 400, module.name


def test_import_is_light(tmp_path: Path) -> None:
    """In a fresh interpreter: no heavy module comes along; the CPU time is that of this package alone."""
    program = """
import sys, time
import numpy, PIL.Image
start = time.process_time()
import edgex.runtime
from edgex.runtime import Session
seconds = time.process_time() - start
print(seconds, *sorted({name.partition(".")[0] for name in sys.modules}))
"""
    # As installed: with byte code, which the first run writes.
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(tmp_path)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, "-c", program]
    runs = []
    for _ in range(5):
        output = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        seconds, *modules = output.stdout.split()
        runs.append(float(seconds))
        assert not {"torch", "onnxruntime", "typer", "rich", "onnx", "timm", "tensorrt"} & set(modules)
    assert min(runs) <= 0.030
