"""`edgex import`: weights from timm, open_clip or Hugging Face become an edgex model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgex.cli.command import Command
from edgex.errors import UsageError
from edgex.utils.output import refuse_to_overwrite


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("import", cls=Command)(import_weights)


def import_weights(
    arch: Annotated[str, typer.Option(help="timm/<model> or open_clip/<model>.")],
    classes: Annotated[str, typer.Option(help="Class names: 'a,b,c', or @FILE (one a line, or a JSON list).")],
    weights: Annotated[
        str | None, typer.Argument(metavar="FILE", help="Weights: a file or hf://organisation/repository/file.")
    ] = None,
    pretrained: Annotated[
        str | None, typer.Option(help="A pretrained tag of the library instead of FILE ('default': its own).")
    ] = None,
    template: Annotated[
        list[str] | None, typer.Option(help="Prompt of a zero-shot head, '{}' is the class; may be repeated.")
    ] = None,
    head: Annotated[Path | None, typer.Option(help="Linear head in a file of its own: weight, bias.")] = None,
    base_weights: Annotated[
        Path | None, typer.Option(help="Weights that FILE was fine-tuned from, so that their vectors fit.")
    ] = None,
    resize: Annotated[int | None, typer.Option(help="Short side in pixels before the centre crop.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Input size in pixels, where not the architecture's.")] = None,
    pooling: Annotated[str | None, typer.Option(help="token or avg, where not the architecture's.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the model; default: the file's.")] = None,
    out: Annotated[Path | None, typer.Option(help="File to write; default: <name>.safetensors here.")] = None,
    half: Annotated[bool, typer.Option(help="Store the weights in half precision.")] = False,
    force: Annotated[bool, typer.Option(help="Overwrite an existing file.")] = False,
) -> None:
    """Bring a model from elsewhere: every tensor's name and shape must fit the architecture."""
    if (weights is None) == (pretrained is None):
        raise UsageError("expected either a weights FILE or --pretrained TAG")
    if pretrained is not None and base_weights is not None:
        raise UsageError("--pretrained weights are their own base: leave out --base-weights")
    refuse_to_overwrite(out, force=force)
    import torch

    from edgex.files import hub
    from edgex.files.model_file import save_model
    from edgex.importers import assembly
    from edgex.models import backbones

    architecture = backbones.architecture(arch, image_size=image_size, pooling=pooling)
    names = assembly.parse_classes(classes)
    if weights is not None:
        path = hub.weights_file(weights)
        chosen = name or path.name.partition(".")[0]
        model, card = assembly.import_model(
            path,
            architecture,
            names,
            name=chosen,
            templates=template,
            head=head,
            base_weights=base_weights,
            resize=resize,
        )
    else:
        chosen = name or architecture.model
        model, card = assembly.import_pretrained(
            architecture,
            names,
            name=chosen,
            tag=None if pretrained == "default" else pretrained,
            templates=template,
            head=head,
            resize=resize,
        )
    target = out or Path(f"{chosen}.safetensors")
    refuse_to_overwrite(target, force=force)
    digest = save_model(target, model, card, dtype=torch.float16 if half else torch.float32)
    print(f"{target}: {card.architecture}, {len(card.classes)} classes, {card.head_kind} head, sha256 {digest[:12]}…")
