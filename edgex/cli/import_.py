"""`edgex import`: weights from timm, open_clip or Hugging Face become an edgex model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgex.cli.command import HALF, command
from edgex.cli.console import Fit, ImageSize, note, read_image_size, say


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("import", cls=command(HALF, long=True))(import_weights)


def import_weights(
    arch: Annotated[
        str | None, typer.Option(help="timm/<model> or open_clip/<model>; default: the one a config.json states.")
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(help="Class names: 'a,b,c', or @FILE (one a line, or a JSON list); default: a config.json's."),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Argument(
            metavar="FILE",
            help="Weights: a file, its folder, hf://organisation/repository or a file of it, perhaps @revision.",
        ),
    ] = None,
    pretrained: Annotated[
        str | None, typer.Option(help="A pretrained tag of the library instead of FILE ('default': its own).")
    ] = None,
    weights_key: Annotated[
        str | None,
        typer.Option(help="Which weights to take of FILE, such as state_dict beside state_dict_ema; default: the EMA."),
    ] = None,
    template: Annotated[
        list[str] | None, typer.Option(help="Prompt of a zero-shot head, '{}' is the class; may be repeated.")
    ] = None,
    head: Annotated[Path | None, typer.Option(help="Linear head in a file of its own: weight, bias.")] = None,
    base_weights: Annotated[
        Path | None, typer.Option(help="Weights that FILE was fine-tuned from, so that their vectors fit.")
    ] = None,
    mean: Annotated[
        tuple[float, float, float] | None,
        typer.Option(metavar="R G B", help="Of pixels in [0, 1], where no configuration states it."),
    ] = None,
    std: Annotated[tuple[float, float, float] | None, typer.Option(metavar="R G B", help="The same.")] = None,
    interpolation: Annotated[str | None, typer.Option(help="bicubic or bilinear.")] = None,
    crop_pct: Annotated[float | None, typer.Option(help="Share of the short side that the crop keeps.")] = None,
    resize: Annotated[int | None, typer.Option(help="Short side in pixels before the centre crop.")] = None,
    fit: Fit = None,
    image_size: ImageSize = None,
    pooling: Annotated[
        str | None,
        typer.Option(help="token, avg, attention, token+avg or token+distillation, where not the architecture's."),
    ] = None,
    multi_label: Annotated[
        bool | None,
        typer.Option(
            "--multi-label/--single-label",
            help="Whether a picture may have several classes, or none: a sigmoid for each; default: a config.json's.",
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the model; default: the file's.")] = None,
    out: Annotated[Path | None, typer.Option(help="File to write; default: <name>.safetensors here.")] = None,
    dtype: Annotated[str, typer.Option(help="How the weights are stored: fp32 or fp16.")] = "fp32",
    force: Annotated[bool, typer.Option(help="Overwrite an existing file.")] = False,
) -> None:
    """Import a model of another library: every tensor's name and shape must fit the architecture.

    Architecture, classes and preprocessing come from the configuration beside FILE (config.json,
    preprocessor_config.json, open_clip_config.json) unless they are given here.
    """
    from edgex.importers import workflow

    result = workflow.import_weights(
        arch,
        classes,
        weights,
        pretrained=pretrained,
        weights_key=weights_key,
        template=template,
        head=head,
        base_weights=base_weights,
        mean=mean,
        std=std,
        interpolation=interpolation,
        crop_pct=crop_pct,
        resize=resize,
        fit=fit,  # type: ignore[arg-type]  # others are refused by name
        image_size=read_image_size(image_size),
        pooling=pooling,
        multi_label=multi_label,
        name=name,
        out=out,
        dtype=dtype,
        force=force,
        report=note,
    )
    card = result.card
    described = f"{card.architecture}, {len(card.classes)} classes, {card.head_kind} head, {card.head_activation}"
    say(f"{result.path}: {described}, sha256 {result.sha256[:12]}…")
