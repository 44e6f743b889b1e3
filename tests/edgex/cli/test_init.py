"""The command line without its extra, and what `edgex.utils.progress` does then."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs code in an interpreter of its own."""
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("missing", [["typer", "rich"], ["typer"], ["rich"]])
def test_without_its_extra_the_command_says_how_to_install_it(missing: list[str]) -> None:
    done = python(f"import sys; sys.modules.update(dict.fromkeys({missing})); from edgex.cli import main; main()")
    assert done.returncode == 1
    assert not done.stdout
    named = " and ".join(missing)
    assert done.stderr == f"edgex: error: the command line needs {named}: pip install '.[cli]' in a clone of edgex\n"


def test_the_base_has_none_of_the_command_lines_libraries() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {text.partition(">")[0] for text in project["dependencies"]} == {"numpy", "pillow"}
    assert {text.partition(">")[0] for text in project["optional-dependencies"]["cli"]} == {"typer", "rich", "jinja2"}


@pytest.mark.parametrize("blocked", ["", "sys.modules['rich'] = None; "])
def test_progress_is_silent_without_rich_and_where_there_is_no_terminal(blocked: str) -> None:
    code = (
        f"import sys; {blocked}from edgex.utils.progress import Progress\n"
        "with Progress('title', total=2) as progress: progress.advance('detail'); progress.advance()\n"
    )
    done = python(code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_progress_shows_a_bar_in_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from edgex.utils.progress import Progress

    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with Progress("training", total=2) as progress:
        progress.advance("loss 0.5")
        progress.advance("loss 0.4")
    said = capsys.readouterr().err
    assert "training" in said and "2/2" in said and "loss 0.4" in said
    with Progress("training", total=2, shown=False) as progress:
        progress.advance("loss 0.3")
    assert not capsys.readouterr().err


def test_the_runtime_works_without_typer_and_rich() -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['typer', 'rich', 'torch']));"
        "from edgex.runtime import Session, Stream, open_source; import edgex; print(Session.__name__)"
    )
    assert python(code).stdout == "Session\n"
