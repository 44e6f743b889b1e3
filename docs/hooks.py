"""What MkDocs runs while it builds the documentation: pages and pictures that are made from the code.

- `command-line.md` is written from the commands themselves.
- `::: edgex.NAME` and `::: edgex.runtime.NAME` on a page stand for the public object of that name, wherever it is
  defined, and `::: edgex` for all that the workstation has.
- Figures of benchmarks/results appear under `results/`.
- build/docs holds a copy of the three folders of source code as the one package that they are installed as.
"""

from __future__ import annotations

import importlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mkdocs.plugins import event_priority
from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]


@event_priority(100)
def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Lays the source out as `edgex`, `edgex.export` and `edgex.runtime` for mkdocstrings.

    Before mkdocstrings' own `on_config`, which drops search paths that do not exist yet.
    """
    package = ROOT / "build" / "docs" / "edgex"
    shutil.rmtree(package, ignore_errors=True)
    # Copies, not links: griffe follows a link to the folder that a file lies in, and looks for the rest beside it.
    skip = shutil.ignore_patterns("__pycache__", "built_in", "*.jpg")
    for folder, place in (("edgex", package), ("export", package / "export"), ("runtime", package / "runtime")):
        shutil.copytree(ROOT / folder, place, ignore=skip)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the generated page and the figures of the benchmarks."""
    files.append(File.generated(config, "command-line.md", content=command_line()))
    for figure in sorted((ROOT / "benchmarks" / "results").glob("*.png")):
        files.append(File.generated(config, f"results/{figure.name}", abs_src_path=str(figure)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Public names become the names under which their objects are defined."""
    public = "\n\n".join(f"::: edgex.{name}" for name in workstation_names())
    markdown = re.sub(r"^::: edgex$", public, markdown, flags=re.MULTILINE)
    return re.sub(
        r"^::: (edgex(?:\.runtime)?)\.([A-Za-z]\w*)$",
        lambda match: f"::: {home_of(match[1], match[2])}",
        markdown,
        flags=re.MULTILINE,
    )


def workstation_names() -> list[str]:
    """The public names of `edgex`, less those that `edgex.runtime` has too."""
    import edgex
    from edgex import runtime

    return sorted(set(edgex.__all__) - set(runtime.__all__) - {"__version__"})


def home_of(package: str, name: str) -> str:
    """Where a public object is defined: "edgex", "Session" -> "edgex.runtime.session.Session"."""
    found = getattr(importlib.import_module(package), name)
    return f"{found.__module__}.{found.__qualname__}" if hasattr(found, "__qualname__") else f"{package}.{name}"


def command_line() -> str:
    """The page of all commands, options and arguments, as the command line itself declares them."""
    import typer

    from edgex.cli.application import app

    lines = [
        "# Command line",
        "",
        "This page is generated from the commands. `edgex COMMAND --help` prints the same.",
        "",
        "Results go to standard output (with `--json` as JSON), progress and notes to standard error. The exit code is "
        "0 on success, 1 on a failure and 2 on wrong usage; an error is one line that says what was expected, what was "
        "found and what to do. A model or vector is named by a path, by its name in the local or the built-in zoo, or "
        "as `hf://org/repo/file`.",
        "",
    ]
    for name, command in _commands("edgex", typer.main.get_command(app)):
        lines += _section(name, command)
    return "\n".join(lines)


def _commands(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    children = getattr(command, "commands", {})
    if not children:
        yield name, command
    for child, subcommand in children.items():
        if not subcommand.hidden:
            yield from _commands(f"{name} {child}", subcommand)


def _section(name: str, command: Any) -> list[str]:
    import typer

    context = typer.Context(command)
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    lines = [f"## {name}", "", (command.help or "").strip(), "", "```text", usage, "```", ""]
    records = [p.get_help_record(context) for p in command.params if p.name != "help"]
    # Arguments first, then options, each in the order of its declaration.
    rows = sorted((record for record in records if record), key=lambda record: record[0].startswith("-"))
    if rows:
        lines += ["| argument or option | meaning |", "|---|---|"]
        lines += [f"| `{names}` | {_meaning(text)} |" for names, text in rows]
        lines.append("")
    return lines


def _meaning(text: str) -> str:
    text = text.strip().replace("|", "\\|").replace("<", "&lt;")
    text = re.sub(r"\[(default: [^]]*|required)\]", r"*(\1)*", text)
    return re.sub(r"(?<![\w-])(--[a-z][a-z0-9-]*)", r"`\1`", text)
