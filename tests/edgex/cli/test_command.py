"""What all commands share: earlier names of options, and errors that name the flag they are about."""

from __future__ import annotations

from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from edgex.cli.command import Command, Renamed, command, present_names
from edgex.errors import ArtefactError, UsageError

RENAMED = (
    Renamed("--explained", "--num-images"),
    Renamed("--half", "--dtype", value="fp16", off="fp32"),
    Renamed("--side", "--players", convert=lambda text: str(int(text) ** 2)),
)


@pytest.mark.parametrize(
    ("given", "present", "noted"),
    [
        (["--num-images", "3", "x"], ["--num-images", "3", "x"], ()),
        (["--explained", "3", "x"], ["--num-images", "3", "x"], ("--explained is now --num-images;",)),
        (["--explained=3"], ["--num-images", "3"], ("--explained is now --num-images;",)),
        (["--half", "x"], ["--dtype", "fp16", "x"], ("--half is now --dtype fp16;",)),
        (["--no-half"], ["--dtype", "fp32"], ("--no-half is now --dtype fp32;",)),
        (["--side", "7"], ["--players", "49"], ("--side is now --players;",)),
        (["--side=5", "--half"], ["--players", "25", "--dtype", "fp16"], ("--side is now", "--half is now")),
        (["--", "--half"], ["--", "--half"], ()),
        (["--explained"], ["--num-images"], ("--explained is now",)),
    ],
)
def test_earlier_names_go_on_working_with_a_note(
    given: list[str], present: list[str], noted: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert present_names(given, RENAMED) == present
    said = capsys.readouterr()
    assert not said.out
    lines = said.err.splitlines()
    assert len(lines) == len(noted)
    assert all(text in line for text, line in zip(noted, lines, strict=True))


def bake(
    model: Annotated[str, typer.Argument()],
    picture: Annotated[str | None, typer.Argument(metavar="[FILE]")] = None,
    max_drop: Annotated[float, typer.Option("--max-drop", "-d")] = 1.0,
    about: Annotated[str | None, typer.Option()] = None,
) -> None:
    if about == "file":
        raise ArtefactError("expected a file", argument="nothing")
    raise UsageError("expected something else", argument=about)


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ("max_drop", "--max-drop: expected something else"),
        ("model", "MODEL: expected something else"),
        ("picture", "FILE: expected something else"),
        ("unknown", "expected something else"),
        ("file", "expected a file"),
    ],
)
def test_an_error_about_a_parameter_names_its_flag(about: str, message: str) -> None:
    app = typer.Typer()
    app.command(cls=Command)(bake)
    found = CliRunner().invoke(app, ["model", "--about", about]).exception
    assert str(found) == message


def test_renamed_options_are_hidden_from_the_help_and_set_the_new_ones() -> None:
    def show(num_images: int = 1, dtype: str = "fp32", players: int = 49) -> None:
        print(num_images, dtype, players)

    app = typer.Typer()
    app.command(cls=command(*RENAMED))(show)
    assert CliRunner().invoke(app, ["--explained", "2", "--half", "--side", "5"]).stdout == "2 fp16 25\n"
    shown = CliRunner().invoke(app, ["--help"]).stdout
    assert "--num-images" in shown
    assert not any(option.old in shown for option in RENAMED)
