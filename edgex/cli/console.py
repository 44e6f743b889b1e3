"""What all commands share in talking to people and programs: results on stdout, progress and errors on stderr."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgex.runtime.atomic_files import atomic_output
from edgex.runtime.errors import UsageError
from edgex.utils.json import dumps

if TYPE_CHECKING:
    import numpy as np

EXIT_FAILURE = 1

ProviderOption = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=VALUE", help="An option of onnxruntime's provider, objects as JSON; may be repeated."),
]
"""What `provider_options` reads, the same in every command that opens exported files."""


def print_error(error: BaseException) -> None:
    """One line on standard error."""
    text = " ".join(str(error).split())
    print(f"edgex: error: {text}", file=sys.stderr)


def note(text: str) -> None:
    """A line for people on standard error."""
    print(text, file=sys.stderr, flush=True)


def provider_options(entries: list[str] | None) -> dict[str, str] | None:
    """What --provider-option was given, each KEY=VALUE; None where it was not. Raises UsageError for anything else."""
    options = {}
    for entry in entries or []:
        key, equals, value = entry.partition("=")
        if not key or not equals:
            raise UsageError(f"expected --provider-option as KEY=VALUE, such as device_id=1, found '{entry}'")
        options[key] = value
    return options or None


def refuse_to_overwrite(*paths: Path | None, force: bool) -> None:
    """UsageError for the first of these files that is there already, unless `force`; None stands for no file."""
    for path in paths:
        if path is not None and path.exists() and not force:
            raise UsageError(f"{path} exists: choose another file, or --force to overwrite it")


def save_picture(pixels: np.ndarray, path: Path) -> None:
    """uint8 [H, W, 3] RGB -> a PNG file, whole or not at all; ArtefactError where it cannot be written."""
    from PIL import Image

    with atomic_output(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG")


def print_json(value: Any) -> None:
    """A result for programs on standard output; numbers that JSON does not know, NaN and infinity, become null."""
    print(dumps(value, indent=2))
