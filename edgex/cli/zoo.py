"""`edgex zoo`: what has a name, and where it lies."""

from __future__ import annotations

from typing import Annotated

import typer

from edgex.cli.command import Command
from edgex.cli.console import print_json


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    group = typer.Typer(help="Named models and vectors.", no_args_is_help=True)
    group.command("list", cls=Command)(list_)
    group.command("path", cls=Command)(path)
    app.add_typer(group, name="zoo")


def list_(json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List everything that has a name."""
    from edgex.files import zoo

    rows = []
    for entry in zoo.entries():
        metadata = entry.metadata
        rows.append(
            {
                "name": entry.name,
                "kind": entry.kind if entry.kind == "vector" or metadata["alpha"] is None else "self-explaining model",
                "origin": entry.origin,
                "architecture": metadata["architecture"]["name"],
                "classes": len(metadata["classes"]) if "classes" in metadata else None,
                "bytes": entry.path.stat().st_size,
                "path": str(entry.path),
            }
        )
    if json:
        print_json(rows)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for heading in ("name", "kind", "origin", "architecture", "classes", "size"):
        table.add_column(heading, justify="right" if heading in ("classes", "size") else "left")
    for row in rows:
        classes = "" if row["classes"] is None else str(row["classes"])
        size = f"{int(str(row['bytes'])) / 1e6:.1f} MB"
        table.add_row(*(str(row[k]) for k in ("name", "kind", "origin", "architecture")), classes, size)
    Console().print(table)


def path(name: Annotated[str, typer.Argument(help="A zoo name, an hf:// name or a file.")]) -> None:
    """Print the path of the file that a name stands for."""
    from edgex.files import zoo

    print(zoo.resolve(name))
