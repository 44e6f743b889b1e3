"""The `edgex` command: its subcommands, and what becomes of their errors. Needs typer and rich (the extra `cli`).

Each command imports what is heavy inside its own function.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from edgex._version import __version__
from edgex.cli import (
    bake,
    bench,
    calibrate,
    demo,
    doctor,
    evaluate,
    export,
    import_,
    inspect,
    predict,
    report,
    serve,
    train,
    vector,
    watch,
    zoo,
)
from edgex.cli.completion import InstallCompletion, ShowCompletion
from edgex.cli.console import EXIT_FAILURE, print_error, say
from edgex.doctor import extra_of
from edgex.errors import EdgexError, MissingExtraError, UsageError
from edgex.runtime.errors import install_hint

app = typer.Typer(
    name="edgex",
    help="Gives a trained Vision Transformer classifier a built-in heatmap and ships it to the edge.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    show_completion: ShowCompletion = None,  # noqa: ARG001  # its callback does the work, and that of the next
    install_completion: InstallCompletion = None,  # noqa: ARG001
) -> None:
    if version:
        say(f"edgex {__version__}")
        raise typer.Exit


for _command in (
    bake,
    export,
    calibrate,
    predict,
    watch,
    report,
    serve,
    bench,
    evaluate,
    train,
    vector,
    import_,
    inspect,
    zoo,
    doctor,
    demo,
):
    _command.register(app)


def run() -> None:
    """Runs the command line; exit code 0 on success, 1 on a failure, 2 on wrong usage.

    What ends any program, such as signals and a full disk, is in `ending`.
    """
    try:
        app()
    except EdgexError as error:
        print_error(error)
        sys.exit(2 if isinstance(error, UsageError) else EXIT_FAILURE)
    except ModuleNotFoundError as error:
        # A package that an extra installs is missing by choice; any other missing module is a bug: show its traceback.
        if (extra := extra_of(error.name or "")) is None:
            raise
        print_error(MissingExtraError(f"this command needs the package {error.name}: {install_hint(extra)}"))
        sys.exit(EXIT_FAILURE)
