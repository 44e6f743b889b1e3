"""Fresh environments that hold what `pip install '.[EXTRA]'` brings, for tests of what a device gets."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
_QUIET = ("--quiet", "--disable-pip-version-check")


def install(folder: Path, extra: str) -> Path:
    """Builds the wheel, installs it with an extra into a new environment; returns the environment's interpreter."""
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    interpreter = folder / "venv" / "bin" / "python"
    build_wheel(folder)
    add(interpreter, extra)
    return interpreter


def build_wheel(folder: Path) -> Path:
    """The wheel of this repository, built in a folder."""
    source = folder / "source"
    # Built from a copy, so that no build folder is left in the repository.
    skip = shutil.ignore_patterns("__pycache__", "*.egg-info")
    source.mkdir()
    for name in ("edgex", "export", "runtime"):
        shutil.copytree(REPOSITORY / name, source / name, ignore=skip)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source / name)
    pip = [sys.executable, "-m", "pip", *_QUIET]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(folder), str(source)], check=True)
    (wheel,) = folder.glob("edgex_xai-*.whl")
    return wheel


def add(python: Path, extra: str) -> None:
    """Installs another extra into an environment that `install` made."""
    (wheel,) = python.parents[2].glob("edgex_xai-*.whl")
    requirement = f"edgex-xai[{extra}] @ {wheel.as_uri()}"
    constraints = REPOSITORY / "constraints.txt"
    subprocess.run([str(python), "-m", "pip", *_QUIET, "install", "-c", constraints, requirement], check=True)


def run(python: Path, *arguments: object) -> str:
    """Standard output of the interpreter with arguments, away from this repository."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    command = [str(python), *map(str, arguments)]
    return subprocess.run(
        command, check=True, capture_output=True, text=True, env=environment, cwd=python.parent
    ).stdout
