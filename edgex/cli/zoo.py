"""`edgex zoo`: what has a name, and where it lies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgex.cli.command import Command
from edgex.cli.completion import artefacts
from edgex.cli.console import print_json, print_table, say

if TYPE_CHECKING:
    from edgex.files.zoo import Entry


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    group = typer.Typer(help="Named models and vectors.", no_args_is_help=True)
    group.command("list", cls=Command)(list_)
    group.command("path", cls=Command)(path)
    app.add_typer(group, name="zoo")


def list_(json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List everything that has a name."""
    from edgex.files import zoo

    rows = [_described(entry) for entry in zoo.entries()]
    if json:
        print_json(rows)
        return
    print_table(
        "",
        ("name", "kind", "origin", "architecture", "classes", "size"),
        [
            (
                *(str(row[key]) for key in ("name", "kind", "origin", "architecture")),
                "" if row["classes"] is None else str(row["classes"]),
                f"{row['bytes'] / 1e6:.1f} MB",
            )
            for row in rows
        ],
        right=("classes", "size"),
    )


def path(
    name: Annotated[str, typer.Argument(help="A zoo name, an hf:// name or a file.", autocompletion=artefacts)],
) -> None:
    """Print the path of the file that a name stands for."""
    from edgex.files import zoo

    say(str(zoo.resolve(name)))


def _described(entry: Entry) -> dict[str, Any]:
    metadata = entry.metadata
    return {
        "name": entry.name,
        "kind": entry.kind if entry.kind == "vector" or metadata["alpha"] is None else "self-explaining model",
        "origin": entry.origin,
        "architecture": metadata["architecture"]["name"],
        "classes": len(metadata["classes"]) if "classes" in metadata else None,
        "bytes": entry.path.stat().st_size,
        "path": str(entry.path),
    }
