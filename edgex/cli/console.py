"""What all commands share in talking to people and programs: results on stdout, progress and errors on stderr."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from edgex.cli.log import log
from edgex.errors import UsageError
from edgex.runtime.printable import printable, printable_json
from edgex.utils.json import dumps

if TYPE_CHECKING:
    from edgex.runtime import Result

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

Fit = Annotated[
    str | None,
    typer.Option(
        help="How a picture becomes the input: crop (its middle), squash (the whole, out of proportion) or pad (the "
        "whole, with borders); default: what the model says."
    ),
]
"""The same in every command that makes or opens models; the libraries refuse other words."""

ImageSize = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Input size in pixels: 256, or HEIGHTxWIDTH such as 256x448; learned positions are interpolated to it. "
        "Default: the model's own.",
    ),
]
"""What `read_image_size` reads, the same in every command that makes models of another size."""


def read_image_size(text: str | None) -> int | tuple[int, int] | None:
    """The value of --image-size; UsageError for others than a whole number or two with an x between them."""
    sides = (text or "").lower().split("x")
    if text is None:
        return None
    if len(sides) > 2 or not all(side.isascii() and side.isdecimal() and len(side) < 10 for side in sides):
        raise UsageError(
            f"expected a size in pixels such as 256, or HEIGHTxWIDTH such as 256x448, found '{text[:60]}'",
            argument="image_size",
        )
    numbers = [int(side) for side in sides]
    return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])


def check_exported(model: str) -> None:
    """UsageError for a model of a command that runs exported files only, where its name says that it is none."""
    if Path(model).suffix not in (".onnx", ".engine"):
        raise UsageError(
            f"expected an exported file (.onnx, .engine), found {model!r}: make one with `edgex export`",
            argument="model",
        )


def say(text: str) -> None:
    """A line for people on standard output, made safe by `printable`; the only way to print in a command."""
    print(printable(text), flush=True)
    log.record(text)


def note(text: str) -> None:
    """A line for people on standard error, made safe by `printable`; with --quiet only in the file of --log-file."""
    log.note(text)


def print_error(error: BaseException) -> None:
    """One line on standard error."""
    log.error(f"edgex: error: {' '.join(str(error).split())}")


def read_provider_options(entries: list[str] | None) -> dict[str, str] | None:
    """The values of --provider-option, each KEY=VALUE; None where there are none. Raises UsageError for others."""
    options = {}
    for entry in entries or []:
        key, equals, value = entry.partition("=")
        if not key or not equals:
            raise UsageError(f"expected KEY=VALUE, such as device_id=1, found '{entry}'", argument="provider_options")
        options[key] = value
    return options or None


def answer_of(result: Result, top: int) -> str:
    """What a model says of a picture: its `top` classes, or all labels that are present where it is multi-label.

    The decision comes first, where the file is calibrated.
    """
    first = "" if result.decision is None else f"{result.decision}: "
    named = result.labels() if result.multi_label else result.top(top)
    if not named:
        return f"{first}no label, most probable {result.label} {100 * result.score:.1f}%"
    return first + ", ".join(f"{label} {100 * score:.1f}%" for label, score in named)


def print_json(value: Any) -> None:
    """A result for programs on standard output; numbers that JSON does not know, NaN and infinity, become null."""
    print(printable_json(dumps(value, indent=2), sys.stdout.encoding))


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
    from rich.text import Text

    # As Text, since rich reads square brackets in a plain string as markup.
    shown = Text(printable(title)) if title else None
    table = Table(title=shown, title_justify="left", show_header=bool(headings))
    for heading in headings:
        justify: Literal["left", "right"] = "right" if heading in right else "left"
        table.add_column(Text(printable(heading)), justify=justify, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    stream = sys.stderr if stderr else sys.stdout
    Console(stderr=stderr, width=None if stream.isatty() else WIDTH).print(table)
    if log.keeps:
        kept = io.StringIO()
        Console(file=kept, width=WIDTH).print(table)
        for line in kept.getvalue().splitlines():
            log.record(line)
