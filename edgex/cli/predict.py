"""`edgex predict`: classes and heatmaps of pictures, from an exported file or straight from a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgex.cli.command import Command
from edgex.cli.console import ProviderOption, note, print_error, print_json, provider_options, save_picture
from edgex.runtime.errors import ImageError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgex.runtime import Result


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("predict", cls=Command)(predict)


def predict(
    model: Annotated[str, typer.Argument(help="An exported file, a model file or a zoo name.")],
    images: Annotated[list[Path], typer.Argument(help="Pictures, or folders of pictures.")],
    explain: Annotated[str | None, typer.Option(help="Explain this class instead of the predicted one.")] = None,
    top: Annotated[int, typer.Option(min=1, help="How many classes to print per picture.")] = 3,
    overlay: Annotated[Path | None, typer.Option(help="Folder to write overlay pictures (PNG) to.")] = None,
    provider: Annotated[str, typer.Option(help="Exported files: what to run on.")] = "auto",
    provider_option: ProviderOption = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, heatmaps included.")] = False,
) -> None:
    """Classify pictures and say why."""
    paths = _pictures(images)
    run = _runner(model, provider, provider_options(provider_option))
    results: list[tuple[Path, Result]] = []
    failed = False
    for path in paths:
        try:
            results.append((path, run(path, explain)))
        except ImageError as error:
            # One bad picture must not cost the others; the exit code still tells.
            print_error(error)
            failed = True
    if overlay is not None:
        _write_overlays(results, overlay)
    if json:
        print_json([{"picture": str(path), **result.to_dict(top=top)} for path, result in results])
    else:
        for path, result in results:
            best = ", ".join(f"{label} {100 * score:.1f}%" for label, score in result.top(top))
            print(f"{path}: {best}" + (f" (explained: {result.explained})" if explain else ""))
    if failed:
        raise typer.Exit(1)


def _pictures(images: list[Path]) -> list[Path]:
    """The pictures themselves, and every one below each folder."""
    from edgex.runtime.frames import list_pictures

    paths: list[Path] = []
    for entry in images:
        if entry.is_dir():
            found = list_pictures(entry)
            if not found:
                raise UsageError(f"expected pictures in {entry}, found none")
            paths += found
        else:
            paths.append(entry)
    return paths


def _runner(model: str, provider: str, options: dict[str, str] | None) -> Callable[[Path, str | None], Result]:
    """Exported files run in the runtime; models and zoo names run in PyTorch."""
    if Path(model).suffix in (".onnx", ".engine"):
        from edgex.runtime import Session

        session = Session(model, provider, provider_options=options)
        return lambda path, explain: session(path, explain=explain)
    if provider != "auto" or options:
        raise UsageError(f"--provider and its options are for exported files, found the model {model}: export it first")
    from edgex.evaluation.torch_session import TorchSession
    from edgex.files import zoo

    return TorchSession(zoo.resolve(model, "model"))


def _write_overlays(results: list[tuple[Path, Any]], folder: Path) -> None:
    stems = [path.stem for path, _ in results]
    for number, (path, result) in enumerate(results):
        # Two pictures of one name from two folders must not overwrite each other.
        stem = path.stem if stems.count(path.stem) == 1 else f"{path.stem}.{number}"
        target = folder / f"{stem}.{_slug(result.explained)}.png"
        save_picture(result.overlay(path), target)
        note(f"wrote {target}")


def _slug(text: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in text.lower())
