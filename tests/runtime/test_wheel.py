"""What a device gets: the wheel, installed with the extra `cpu` into an environment of its own."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from edgex.runtime import Session
from environments import add, install, run

PROGRAM = """
import json, sys
import edgex.runtime
model, picture = sys.argv[1:]
with edgex.runtime.Session(model, "cpu") as session:
    result = session(picture)
    assert result.overlay(picture).shape == (90, 160, 3)
heavy = {"torch", "torchvision", "timm", "open_clip", "onnx", "typer", "rich"}
print(json.dumps({
    "heavy": sorted(heavy & set(sys.modules)),
    "result": result.to_dict(),
    "file": edgex.runtime.__file__,
}))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment that holds what `pip install '.[cpu]'` brings."""
    return install(tmp_path_factory.mktemp("wheel"), "cpu")


def test_the_wheel_runs_without_torch(python: Path, model_path: Path, frame: np.ndarray, tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(frame).save(tmp_path / "frame.png")
    found = json.loads(run(python, "-c", PROGRAM, model_path, tmp_path / "frame.png"))
    assert found["heavy"] == []
    assert Path(found["file"]).is_relative_to(python.parents[1])
    assert found["result"] == Session(model_path, "cpu")(frame).to_dict()


def test_a_session_imports_without_what_a_device_lacks(python: Path) -> None:
    """The extra `cpu` brings neither typer nor rich nor torch; nothing else is needed."""
    packages = ("typer", "rich", "torch", "click")
    program = f"import importlib.util as u; print(*(name for name in {packages} if u.find_spec(name)))"
    assert run(python, "-c", program).split() == []
    assert run(python, "-c", "from edgex.runtime import Session; print(Session.__name__)") == "Session\n"


def test_only_light_packages_are_installed(python: Path) -> None:
    listed = json.loads(run(python, "-m", "pip", "list", "--format", "json", "--disable-pip-version-check"))
    names = {package["name"].lower() for package in listed}
    assert {"edgex-xai", "numpy", "pillow", "onnxruntime"} <= names
    assert not {"typer", "rich", "torch", "torchvision", "timm", "open-clip-torch", "onnx", "safetensors"} & names


def test_watch_works_without_torch_and_pyav(python: Path, model_path: Path, frame: np.ndarray, tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "pictures").mkdir()
    for number in range(2):
        Image.fromarray(frame).save(tmp_path / "pictures" / f"{number}.png")
    program = (
        "import sys, edgex.cli\n"
        "try: edgex.cli.main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "assert not {'torch', 'av'} & set(sys.modules)\n"
    )
    watch = (python, "-c", program, "watch", model_path, "--source", tmp_path / "pictures", "--jsonl", "-")
    with pytest.raises(subprocess.CalledProcessError) as caught:
        run(*watch)
    assert "the command line needs typer and rich: pip install '.[cli]'" in caught.value.stderr
    add(python, "cli")
    found = run(*watch)
    wanted = Session(model_path, "cpu")(frame).to_dict(3)
    lines = found.splitlines()
    assert len(lines) == 2
    for line in lines:
        line_found = json.loads(line)
        assert {key: line_found[key] for key in wanted} == wanted
    page = (
        "from edgex.runtime.watch.page import page; from pathlib import Path;"
        "print(*(Path(page.__file__).with_name(name).is_file() for name, _ in page._FILES.values()))"
    )
    assert set(run(python, "-c", page).split()) == {"True"}
