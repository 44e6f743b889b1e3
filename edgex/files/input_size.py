"""Another input size for a trained model: position embeddings interpolated to the new grid."""

from __future__ import annotations

import dataclasses

from edgex.errors import UnsupportedError
from edgex.files.model_file import HEAD_PREFIX, ModelCard, assemble_model
from edgex.models.backbones import build, input_size
from edgex.models.backbones.positions import fit_positions
from edgex.models.self_explaining import SelfExplainingViT
from edgex.utils import provenance


def at_image_size(
    model: SelfExplainingViT, card: ModelCard, image_size: int | tuple[int, int]
) -> tuple[SelfExplainingViT, ModelCard]:
    """The same model for pictures of another size, one number or (height, width); the preprocessing is scaled alike.

    Position embeddings are interpolated, see `edgex.models.backbones.positions`; everything else is shared. Raises
    UsageError for a size that is no multiple of the patch, UnsupportedError for a model with other tensors that depend
    on the size.
    """
    image_size, old = input_size(image_size), card.architecture.image_size
    if image_size == old:
        return model, card
    # Without a date: an export of the same model gives the same file on any day.
    taken = provenance.step("resize", dated=False, image_size=list(image_size), **{"from": list(old)})
    resized = dataclasses.replace(
        card,
        architecture=dataclasses.replace(card.architecture, image_size=image_size),
        preprocessing=card.preprocessing.at_image_size(image_size),
        provenance=(*card.provenance, taken),
    )
    backbone = build(resized.architecture)
    tensors = fit_positions(model.backbone.tensors(), backbone, grid=model.backbone.grid, source=card.name)
    for name, expected in backbone.tensors().items():
        if tensors[name].shape != expected.shape:
            raise UnsupportedError(
                f"{card.architecture.name} has '{name}', which is made for {old[0]}x{old[1]} px and cannot be resampled"
            )
    head = {key.removeprefix(HEAD_PREFIX): value for key, value in model.head.state_dict().items()}
    readout = None if model.readout is None else model.readout.tensors()
    return assemble_model(resized, tensors, head, readout, source=card.name).freeze(), resized
