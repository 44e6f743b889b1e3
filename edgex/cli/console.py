"""What all commands share in talking to people and programs: results on stdout, progress and errors on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import typer

from edgex.errors import UsageError
from edgex.utils.json import dumps

EXIT_FAILURE = 1

ProviderOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--provider-option",
        metavar="KEY=VALUE",
        help="An option of onnxruntime's provider, objects as JSON; may be repeated.",
    ),
]
"""What `read_provider_options` reads, the same in every command that opens exported files."""


def print_error(error: BaseException) -> None:
    """One line on standard error."""
    text = " ".join(str(error).split())
    print(f"edgex: error: {text}", file=sys.stderr)


def note(text: str) -> None:
    """A line for people on standard error."""
    print(text, file=sys.stderr, flush=True)


def read_provider_options(entries: list[str] | None) -> dict[str, str] | None:
    """The values of --provider-option, each KEY=VALUE; None where there are none. Raises UsageError for others."""
    options = {}
    for entry in entries or []:
        key, equals, value = entry.partition("=")
        if not key or not equals:
            raise UsageError(f"expected KEY=VALUE, such as device_id=1, found '{entry}'", argument="provider_options")
        options[key] = value
    return options or None


def print_json(value: Any) -> None:
    """A result for programs on standard output; numbers that JSON does not know, NaN and infinity, become null."""
    print(dumps(value, indent=2))


WIDTH = 130
"""Of a table that goes to no terminal, in characters: there is nothing whose width could cut columns off."""


def print_table(
    title: str,
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    right: Sequence[str] = (),
    stderr: bool = False,
) -> None:
    """A table for people. headings: of its columns, none for names and values. right: headings of numbers.

    stderr: print to standard error.
    """
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title or None, title_justify="left", show_header=bool(headings))
    for heading in headings:
        table.add_column(heading, justify="right" if heading in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    stream = sys.stderr if stderr else sys.stdout
    Console(stderr=stderr, width=None if stream.isatty() else WIDTH).print(table)
