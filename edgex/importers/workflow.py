"""Importing from start to end: names of architectures, classes and weights, and the file that is written.

How weights become a model is `edgex.importers.assembly`.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from edgex.errors import UsageError
from edgex.files import hub
from edgex.files.model_file import ModelCard, save_model
from edgex.files.vector_file import STORAGE
from edgex.importers import assembly, checkpoint_files, configuration, openai_clip, torchvision_vit
from edgex.importers import pretrained as published
from edgex.importers.class_heads import parse_classes
from edgex.importers.settings import settle
from edgex.importers.weights import read_weights
from edgex.models import backbones
from edgex.runtime.file_names import check_name
from edgex.runtime.view import Fit
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
    arch: str | None = None,
    classes: str | None = None,
    weights: PathLike | None = None,
    *,
    pretrained: str | None = None,
    weights_key: str | None = None,
    template: Sequence[str] | None = None,
    head: PathLike | None = None,
    base_weights: PathLike | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    interpolation: str | None = None,
    crop_pct: float | None = None,
    resize: int | None = None,
    fit: Fit | None = None,
    image_size: int | tuple[int, int] | None = None,
    pooling: str | None = None,
    multi_label: bool | None = None,
    name: str | None = None,
    out: PathLike | None = None,
    dtype: str = "fp32",
    force: bool = False,
    report: Callable[[str], None] | None = None,
) -> ImportResult:
    """Makes an edgex model of weights from timm, open_clip or Hugging Face; every tensor's name and shape must fit.

    What the caller leaves out is taken from the configuration beside the weights: timm's and transformers' config.json,
    transformers' preprocessor_config.json, open_clip's open_clip_config.json. The provenance records who said what.

    arch: timm/<model> or open_clip/<model>. classes: "a,b,c", or "@FILE" with a name a line or a JSON list. Both are
        needed where no configuration states them.
    weights: a checkpoint, the folder it lies in, the output folder of transformers' Trainer, or
        hf://organisation/repository or a file of it, with "@revision" if need be; pretrained: a tag of the library
        instead, "default" is its own choice. One of the two.
    weights_key: which weights to take where the checkpoint holds several sets, see
        `edgex.importers.assembly.import_model`.
    template: prompts of a zero-shot head, "{}" is the class. head: file of a linear head, see
        `edgex.importers.assembly.import_model`. base_weights: the file that `weights` were fine-tuned from, so that
        vectors of that base fit.
    mean, std: of the channels R, G, B, of pixels scaled to [0, 1]. interpolation: "bicubic" or "bilinear".
    crop_pct: share of the resized short side that the centre crop keeps, in (0, 1]; resize: or the short side in
        pixels. fit: "crop", "squash" or "pad", see `edgex.runtime.view`. image_size: input size in pixels, one number
        or (height, width); learned positions of another size are interpolated. pooling: see
        `edgex.models.backbones.architectures.Pooling`. All these default to the configuration's, then to the
        architecture's.
    multi_label: whether a picture may have several classes, or none, each with a sigmoid of its own. Defaults to what
        the configuration states, then to False. A head of one output is a sigmoid's: it takes one class, or two for
        the softmax that is the same.
    name: of the model. Defaults to the file's, or to the architecture's. out: file to write. Defaults to
        <name>.safetensors in the current folder. dtype: of the stored weights, "fp32" or "fp16".
    force: replace an existing file. report: called with lines for people: what was taken from which file, what was
        assumed, and which argument replaces a statement.

    Raises UsageError for contradicting arguments and for classes of another number or order than those stated,
    MismatchError for tensors that do not fit, ArtefactError for damaged weights or configurations, UnsupportedError for
    a model or a preprocessing that edgex does not have.
    """
    if (weights is None) == (pretrained is None):
        raise UsageError("expected either a weights file or a pretrained tag", argument="weights")
    if pretrained is not None and base_weights is not None:
        raise UsageError("pretrained weights are their own base: leave base_weights out", argument="base_weights")
    if pretrained is not None and weights_key is not None:
        raise UsageError("a key chooses weights of a file: leave it out for pretrained ones", argument="weights_key")
    if dtype not in _DTYPES:
        raise UsageError(f"expected {' or '.join(_DTYPES)}, found '{dtype}'", argument="dtype")
    refuse_to_overwrite(out, force=force)
    given = {
        "arch": arch,
        "image_size": image_size,
        "pooling": pooling,
        "classes": None if classes is None else parse_classes(classes),
        "multi_label": multi_label,
        "mean": None if mean is None else tuple(mean),
        "std": None if std is None else tuple(std),
        "interpolation": interpolation,
        "resize": resize,
        "fit": fit,
        "crop_pct": crop_pct,
    }
    own_head = template is None and head is None
    if weights is not None:
        named, path = _found(weights, report)
        shards = [part.name for part in checkpoint_files.parts(path)[1:]]
        hub.fetch_beside(path, [*configuration.FILES, *shards])
        stated = configuration.beside(path)
        if not stated.files:
            tensors = read_weights(path, key=weights_key).tensors
            stated = openai_clip.state(tensors, torchvision_vit.state(tensors, stated))
        settings = settle(stated, given, source=path.name, own_head=own_head)
        make = functools.partial(
            assembly.import_model, path, base_weights=base_weights, weights_key=weights_key, report=report
        )
        chosen = check_name(named.absolute().name.partition(".")[0] if name is None else name)
    else:
        found = published.find(
            _architecture(arch, image_size, pooling), None if pretrained == "default" else pretrained
        )
        settings = settle(found.stated, given, source=found.name, own_head=own_head)
        make = functools.partial(assembly.import_pretrained, found)
        chosen = check_name(settings.architecture.model if name is None else name)
    for remark in settings.remarks:
        if report is not None:
            report(remark)
    model, card = make(
        settings.architecture,
        settings.classes,
        name=chosen,
        templates=template,
        head=head,
        preprocessing=settings.preprocessing,
        settings=settings,
        multi_label=settings.multi_label,
    )
    target = Path(out) if out is not None else Path(f"{chosen}.safetensors")
    refuse_to_overwrite(target, force=force)
    return ImportResult(target, card, save_model(target, model, card, dtype=STORAGE[dtype]))


def _found(weights: PathLike, report: Callable[[str], None] | None) -> tuple[Path, Path]:
    """What the model is called after, and the checkpoint's file."""
    source = hub.named(weights)
    if source is not None and not source.path:
        path = checkpoint_files.fetch(source, configuration.FILES, configuration.beside)
        return Path(source.repository), path
    named = hub.weights_file(weights)
    path = checkpoint_files.find(named)
    if report is not None and named.is_dir() and path.parent != named:
        report(f"weights taken from {path.relative_to(named)}")
    return named, path


def _architecture(
    arch: str | None, image_size: int | tuple[int, int] | None, pooling: str | None
) -> backbones.Architecture:
    if arch is None:
        raise UsageError("expected the architecture whose pretrained weights to take", argument="arch")
    return backbones.architecture(arch, image_size=image_size, pooling=pooling)
