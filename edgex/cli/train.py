"""`edgex train`: fine-tune a predictor on an image folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgex.cli.command import HALF, command
from edgex.cli.console import Fit, ImageSize, note, read_image_size, say


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("train", cls=command(HALF, resumes=True))(train)


def train(
    data: Annotated[Path, typer.Option(help="Image folder: train/<class>/*.jpg, with val and test beside train.")],
    base: Annotated[str, typer.Option(help="Architecture to start from, e.g. timm/deit_tiny_patch16_224.")],
    out: Annotated[Path, typer.Option(help="File to write the predictor to (.safetensors).")],
    weights: Annotated[Path | None, typer.Option(help="Weights of the base: safetensors or a checkpoint.")] = None,
    pretrained: Annotated[bool, typer.Option(help="Get the base's weights through its library's hub.")] = False,
    name: Annotated[str | None, typer.Option(help="Name of the predictor; default: the file's.")] = None,
    epochs: Annotated[int, typer.Option(help="Passes over the training pictures.")] = 20,
    batch_size: Annotated[int, typer.Option(help="Pictures per step.")] = 64,
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate of the backbone.")] = 2e-4,
    crop_scale: Annotated[float, typer.Option(help="Smallest share of a picture that a random crop keeps.")] = 0.35,
    mirror: Annotated[bool, typer.Option(help="Mirror pictures at random; not for digits and signs.")] = True,
    resize: Annotated[int | None, typer.Option(help="Short side in pixels before the centre crop.")] = None,
    fit: Fit = None,
    image_size: ImageSize = None,
    val_fraction: Annotated[float, typer.Option(help="Share of train held out where there is no val.")] = 0.1,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:<n>.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32 or bf16.")] = "auto",
    dtype: Annotated[str, typer.Option(help="How the weights are stored: fp32 or fp16.")] = "fp32",
    force: Annotated[bool, typer.Option(help="Overwrite an existing file.")] = False,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Go on without pictures that cannot be read.")] = False,
    multi_label: Annotated[
        bool,
        typer.Option("--multi-label", help="Let a picture have several labels, or none: a sigmoid for each class."),
    ] = False,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="The labels, with --multi-label: a .csv with 'file,label;label' or a 0-1 column a class; .json."
        ),
    ] = None,
) -> None:
    """Fine-tune a predictor on an image folder, starting from a pretrained base.

    An interrupted run resumes from its last epoch when the same command is given again. Accuracy is measured on
    val (or on the share of train held out) and, where the folder has one, on test.
    """
    from edgex.evaluation.multi_label import LabelQuality
    from edgex.training import workflow

    card = workflow.train(
        data,
        base,
        out,
        weights=weights,
        pretrained=pretrained,
        name=name,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        crop_scale=crop_scale,
        mirror=mirror,
        resize=resize,
        fit=fit,  # type: ignore[arg-type]  # others are refused by name
        image_size=read_image_size(image_size),
        val_fraction=val_fraction,
        seed=seed,
        device=device,
        precision=precision,
        dtype=dtype,
        force=force,
        skip_bad=skip_bad,
        multi_label=multi_label,
        labels=labels,
        report=note,
    ).card
    say(f"{out}: {len(card.classes)} classes, {card.architecture}")
    for key in ("val", "test"):
        if measured := card.metrics.get(f"accuracy_{key}"):
            say(f"accuracy on {key}: {100 * measured['value']:.2f}% of {measured['n']} pictures")
        if measured := card.metrics.get(f"labels_{key}"):
            say(f"labels on {key}: {LabelQuality(**measured)}")
