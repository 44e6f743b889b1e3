"""Fresh environments that hold what `pip install '.[EXTRA]'` brings, for tests of what a device gets."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def install(folder: Path, extra: str) -> Path:
    """Builds the wheel, installs it with an extra into a new environment; returns the environment's interpreter."""
    source = folder / "source"
    # Built from a copy, so that no build folder is left in the repository.
    skip = shutil.ignore_patterns("__pycache__", "*.egg-info")
    source.mkdir()
    for name in ("edgex", "export", "runtime"):
        shutil.copytree(REPOSITORY / name, source / name, ignore=skip)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source / name)
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    interpreter = folder / "venv" / "bin" / "python"
    pip = [str(interpreter), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(folder), str(source)], check=True)
    add(interpreter, extra)
    return interpreter


def add(python: Path, extra: str) -> None:
    """Installs another extra into an environment that `install` made."""
    (wheel,) = python.parents[2].glob("edgex_xai-*.whl")
    pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", f"edgex-xai[{extra}] @ {wheel.as_uri()}"], check=True)


def run(python: Path, *arguments: object) -> str:
    """Standard output of the interpreter with arguments, away from this repository."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    command = [str(python), *map(str, arguments)]
    return subprocess.run(
        command, check=True, capture_output=True, text=True, env=environment, cwd=python.parent
    ).stdout
