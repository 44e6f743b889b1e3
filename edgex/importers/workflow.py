"""Importing from start to end: names of architectures, classes and weights, and the file that is written.

How weights become a model is `edgex.importers.assembly`.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from edgex.errors import UsageError
from edgex.files import hub
from edgex.files.model_file import ModelCard, save_model
from edgex.files.vector_file import STORAGE
from edgex.importers import assembly
from edgex.importers.class_heads import parse_classes
from edgex.models import backbones
from edgex.utils.output import refuse_to_overwrite

PathLike = str | os.PathLike[str]
_DTYPES = ("fp32", "fp16")


@dataclasses.dataclass(frozen=True)
class ImportResult:
    """An imported model: its file, its card, and the sha256 that the file records of itself."""

    path: Path
    card: ModelCard
    sha256: str


def import_weights(
    arch: str,
    classes: str,
    weights: PathLike | None = None,
    *,
    pretrained: str | None = None,
    template: Sequence[str] | None = None,
    head: PathLike | None = None,
    base_weights: PathLike | None = None,
    resize: int | None = None,
    image_size: int | None = None,
    pooling: str | None = None,
    name: str | None = None,
    out: PathLike | None = None,
    dtype: str = "fp32",
    force: bool = False,
) -> ImportResult:
    """Makes an edgex model of weights from timm, open_clip or Hugging Face; every tensor's name and shape must fit.

    arch: timm/<model> or open_clip/<model>. classes: "a,b,c", or "@FILE" with a name a line or a JSON list.
    weights: a file or hf://organisation/repository/file; pretrained: a tag of the library instead, "default" is its
        own choice. One of the two.
    template: prompts of a zero-shot head, "{}" is the class. head: file of a linear head, see
        `edgex.importers.assembly.import_model`. base_weights: the file that `weights` were fine-tuned from, so that
        vectors of that base fit.
    resize: short side in pixels before the centre crop. image_size: input size in pixels. pooling: "token" or "avg".
        All three default to the architecture's.
    name: of the model. Defaults to the file's, or to the architecture's. out: file to write. Defaults to
        <name>.safetensors in the current folder. dtype: of the stored weights, "fp32" or "fp16".
    force: replace an existing file.

    Raises UsageError for contradicting arguments, MismatchError for tensors that do not fit, ArtefactError for damaged
    weights.
    """
    if (weights is None) == (pretrained is None):
        raise UsageError("expected either a weights file or a pretrained tag", argument="weights")
    if pretrained is not None and base_weights is not None:
        raise UsageError("pretrained weights are their own base: leave base_weights out", argument="base_weights")
    if dtype not in _DTYPES:
        raise UsageError(f"expected {' or '.join(_DTYPES)}, found '{dtype}'", argument="dtype")
    refuse_to_overwrite(out, force=force)
    architecture = backbones.architecture(arch, image_size=image_size, pooling=pooling)
    names = parse_classes(classes)
    linear = None if head is None else Path(head)
    if weights is not None:
        path = hub.weights_file(os.fspath(weights))
        chosen = name or path.name.partition(".")[0]
        base = None if base_weights is None else Path(base_weights)
        model, card = assembly.import_model(
            path, architecture, names, name=chosen, templates=template, head=linear, base_weights=base, resize=resize
        )
    else:
        chosen = name or architecture.model
        tag = None if pretrained == "default" else pretrained
        model, card = assembly.import_pretrained(
            architecture, names, name=chosen, tag=tag, templates=template, head=linear, resize=resize
        )
    target = Path(out) if out is not None else Path(f"{chosen}.safetensors")
    refuse_to_overwrite(target, force=force)
    return ImportResult(target, card, save_model(target, model, card, dtype=STORAGE[dtype]))
