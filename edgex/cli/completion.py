"""Shell completion: the script that a shell loads, and the names of the zoo. The rest is typer's own.

Where no name fits, shells complete names of files.
"""

from __future__ import annotations

from typing import Annotated

import typer
from typer.completion import completion_init, get_completion_script, install

from edgex.cli.console import say
from edgex.errors import UsageError
from edgex.utils.text import nearest

SHELLS = ("bash", "zsh", "fish", "powershell")
_PROGRAM = {"prog_name": "edgex", "complete_var": "_EDGEX_COMPLETE"}

# Which typer adds to its applications itself only together with options that guess the shell.
completion_init()


def _show(shell: str | None) -> None:
    if shell is not None:
        for line in get_completion_script(shell=_known(shell, "show_completion"), **_PROGRAM).splitlines():
            say(line)
        raise typer.Exit


def _install(shell: str | None) -> None:
    if shell is not None:
        name, path = install(shell=_known(shell, "install_completion"), **_PROGRAM)
        say(f"{path}: completion for {name}, which works in shells that are opened from now on")
        raise typer.Exit


def _known(shell: str, argument: str) -> str:
    if shell not in SHELLS:
        flag = f"--{argument.replace('_', '-')}"
        raise UsageError(f"{flag}: expected {', '.join(SHELLS)}, found '{shell}'{nearest(shell, SHELLS)}")
    return shell


ShowCompletion = Annotated[
    str | None,
    typer.Option(
        metavar="SHELL", callback=_show, is_eager=True, help=f"Print completion for {', '.join(SHELLS)}, and exit."
    ),
]
InstallCompletion = Annotated[
    str | None,
    typer.Option(metavar="SHELL", callback=_install, is_eager=True, help="Add it to the shell's own files, and exit."),
]


def models(incomplete: str) -> list[str]:
    """Names of models that begin so."""
    return _names("model", incomplete)


def vectors(incomplete: str) -> list[str]:
    """Names of vectors that begin so."""
    return _names("vector", incomplete)


def artefacts(incomplete: str) -> list[str]:
    """Names of models and vectors that begin so."""
    return _names(None, incomplete)


def _names(kind: str | None, incomplete: str) -> list[str]:
    from edgex.files import names

    return [name for name in names.names(kind) if name.startswith(incomplete)]
