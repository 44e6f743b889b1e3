"""Model artefacts: predictors and baked models, one safetensors file each, ready to load.

Holds a model file's metadata (`ModelCard`), strict loading and saving. The file format is defined in
`edgex.files.tensor_file`; weights of other libraries are imported in `edgex.importers`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgex._version import __version__
from edgex.errors import ArtefactError, MismatchError, UnsupportedError, UsageError
from edgex.files import tensor_file
from edgex.files.tensor_file import TensorFile, TensorSpec
from edgex.models.backbones import Architecture, Backbone, build
from edgex.models.backbones.architectures import ARCHITECTURE
from edgex.models.evidence import Evidence
from edgex.models.evidence.selection import EVIDENCE
from edgex.models.head import Head, HeadKind
from edgex.models.self_explaining import SelfExplainingViT
from edgex.runtime import schema
from edgex.runtime.activations import ACTIVATION, THRESHOLDS, check_thresholds
from edgex.runtime.metadata import PROVENANCE
from edgex.runtime.preprocessing import PREPROCESSING, Preprocessing

BACKBONE_PREFIX = "backbone."
HEAD_PREFIX = "head."
READOUT_PREFIX = "readout."


@dataclasses.dataclass(frozen=True)
class BaseWeights:
    """The weights that a model or a vector started from: a name to show, a fingerprint to compare."""

    name: str
    fingerprint: str

    def __str__(self) -> str:
        return f"{self.name} [{self.fingerprint[:12]}]"


@dataclasses.dataclass(frozen=True)
class ModelCard:
    """The metadata of a model artefact: everything in the file beside its tensors.

    head_activation: what turns logits into probabilities, "softmax" or "sigmoid" (multi-label). thresholds: of a
    sigmoid head's classes, the probability from which a label is present; None for 0.5 each, and with a softmax.
    alpha: the sum of the factors of the added vectors, None for a model without a vector. provenance: steps, oldest
    first, each with "step", "inputs" (name and sha256), parameters and the edgex version (`edgex.utils.provenance`).
    metrics: measured numbers.
    """

    name: str
    architecture: Architecture
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    head_kind: HeadKind
    head_scale: float
    evidence: Evidence
    base: BaseWeights
    alpha: float | None = None
    provenance: tuple[dict[str, Any], ...] = ()
    metrics: dict[str, Any] = dataclasses.field(default_factory=dict)
    head_activation: str = "softmax"
    thresholds: tuple[float, ...] | None = None

    def to_metadata(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "kind": "model",
            "name": self.name,
            "architecture": self.architecture.to_dict(),
            "classes": list(self.classes),
            "preprocessing": self.preprocessing.to_dict(),
            "head": {
                "kind": self.head_kind,
                "scale": self.head_scale,
                "activation": self.head_activation,
                "thresholds": None if self.thresholds is None else list(self.thresholds),
            },
            "evidence": self.evidence.to_dict(),
            "base": dataclasses.asdict(self.base),
            "alpha": self.alpha,
            "provenance": list(self.provenance),
            "metrics": self.metrics,
        }

    @classmethod
    def from_metadata(cls, data: Mapping[str, Any], path: Path) -> ModelCard:
        """Inverse of `to_metadata`; ArtefactError names what is missing or unusable."""
        check_kind(data, "model", path)
        return schema.checked(_CARD, data, str(path), advice=MAKE_AGAIN)


def _model_card(head: dict[str, Any], **values: Any) -> ModelCard:
    card = ModelCard(
        head_kind=head["kind"],
        head_scale=head["scale"],
        head_activation=head["activation"],
        thresholds=head["thresholds"],
        **values,
    )
    check_thresholds(card.thresholds, card.head_activation, len(card.classes))
    if card.preprocessing.image_size != card.architecture.image_size:
        raise ArtefactError(
            f"expected pictures of the architecture's size {card.architecture.image_size}, found preprocessing to "
            f"{card.preprocessing.image_size}"
        )
    return card


MAKE_AGAIN = "make the file again"
BASE = schema.record(BaseWeights, name=schema.text, fingerprint=schema.digest)
_CARD = schema.record(
    _model_card,
    name=schema.text,
    architecture=ARCHITECTURE,
    classes=schema.listed(schema.text, least=1),
    preprocessing=PREPROCESSING,
    head=schema.record(
        dict,
        kind=schema.one_of("linear", "cosine"),
        scale=schema.number,
        # Files from before there were multi-label heads mention neither.
        activation=schema.Default(ACTIVATION, "softmax"),
        thresholds=schema.Default(THRESHOLDS, None),
    ),
    evidence=EVIDENCE,
    base=BASE,
    alpha=schema.optional(schema.number),
    provenance=PROVENANCE,
    metrics=schema.mapping,
)


@dataclasses.dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model artefact in memory: the network, frozen, in float32 on the CPU, and the file's metadata.

    sha256: the digest that the file records of itself, checked against its content when it was read.
    Iterating yields network and card: `network, card = load_model(path)`.
    """

    network: SelfExplainingViT
    card: ModelCard
    path: Path
    sha256: str

    def __iter__(self) -> Iterator[Any]:
        return iter((self.network, self.card))


def check_kind(data: Mapping[str, Any], kind: str, path: Path) -> None:
    """Raises ArtefactError where a file's metadata is not that of an edgex artefact of this kind."""
    if not data:
        raise ArtefactError(
            f"expected an edgex {kind}, found a safetensors file without edgex metadata at {path}: "
            "bring weights from elsewhere in with 'edgex import'"
        )
    if data.get("format") != tensor_file.FORMAT:
        raise ArtefactError(
            f"{path} has format {ascii(data.get('format'))[:60]}, this edgex {__version__} reads "
            f"{tensor_file.FORMAT!r}: use the edgex version that wrote it"
        )
    if data.get("sha256") is None:
        raise ArtefactError(f"{path} records no sha256 of its data: the file was changed, get it again")
    schema.checked(schema.object_with(sha256=schema.digest), data, str(path), advice=MAKE_AGAIN)
    if data.get("kind") != kind:
        found = ascii(data.get("kind"))[:60].strip("'")
        raise ArtefactError(f"expected an edgex {kind}, found an edgex {found} at {path}")


def save_model(
    path: str | os.PathLike[str], model: SelfExplainingViT, card: ModelCard, *, dtype: torch.dtype = torch.float32
) -> str:
    """Writes a model artefact, floating-point tensors stored as `dtype`; returns its sha256."""
    tensors = {BACKBONE_PREFIX + name: tensor for name, tensor in model.backbone.tensors().items()}
    tensors |= {HEAD_PREFIX + name: tensor for name, tensor in model.head.state_dict().items()}
    if model.readout is not None:
        tensors |= {READOUT_PREFIX + name: tensor.detach() for name, tensor in model.readout.tensors().items()}
    check_tensors(tensors, source=str(path))
    stored = {name: converted(tensor, dtype, name) for name, tensor in tensors.items()}
    return tensor_file.write_tensors(path, card.to_metadata(), stored)


def load_card(path: str | os.PathLike[str]) -> tuple[ModelCard, str]:
    """The card of a model artefact and its recorded sha256, without reading the data."""
    with TensorFile(path) as file:
        return card_of(file), str(file.metadata["sha256"])


def card_of(file: TensorFile) -> ModelCard:
    """The card of an opened model artefact; MismatchError where its class weights are not one row for each class."""
    card, path = ModelCard.from_metadata(file.metadata, file.path), file.path
    weights = file.tensors.get(f"{HEAD_PREFIX}weight")
    if weights is None:
        raise MismatchError(f"{path}: missing tensor '{HEAD_PREFIX}weight' (the class weights)")
    if weights.shape[:1] != (len(card.classes),):
        rows = weights.shape[0] if weights.shape else 0
        raise MismatchError(f"{path}: {rows} rows of class weights for {len(card.classes)} classes")
    return card


def load_model(path: str | os.PathLike[str]) -> LoadedModel:
    """Loads a model artefact in float32, frozen for inference.

    Raises ArtefactError for a damaged file, MismatchError for a missing, extra or misshapen tensor or NaN.
    """
    with TensorFile(path) as file:
        card, path = card_of(file), file.path
        tensors = {name: _as_float32(file.read(name)) for name in file.tensors}
        file.verify()
        sha256 = str(file.metadata["sha256"])
    prefixes = (BACKBONE_PREFIX, HEAD_PREFIX, READOUT_PREFIX)
    backbone, head, readout = (
        {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        for prefix in prefixes
    )
    if (stray := _first(name for name in sorted(tensors) if not name.startswith(prefixes))) is not None:
        raise MismatchError(f"{path}: extra tensor '{stray}' belongs to none of backbone, head and readout")
    try:
        network = assemble_model(card, backbone, head, readout, source=str(path)).freeze()
    except (UsageError, UnsupportedError) as error:
        # What a file says of itself is not how edgex was called.
        raise MismatchError(f"{path}: {error}: {MAKE_AGAIN}") from error
    return LoadedModel(network, card, path, sha256)


def assemble_model(
    card: ModelCard,
    backbone: Mapping[str, Tensor],
    head: Mapping[str, Tensor],
    readout: Mapping[str, Tensor] | None = None,
    *,
    source: str,
) -> SelfExplainingViT:
    """A model from its card and its tensors, matched strictly; `source` names them in errors.

    readout: under the backbone's names; {} or None where the card says that there is none.
    """
    built = build(card.architecture)
    load_backbone(built, backbone, source=source, prefix=BACKBONE_PREFIX)
    count = len(card.classes)
    expected = {"weight": (count, built.output_width), **({"bias": (count,)} if "bias" in head else {})}
    match_shapes(
        {HEAD_PREFIX + name: tuple(tensor.shape) for name, tensor in head.items()},
        {HEAD_PREFIX + name: shape for name, shape in expected.items()},
        source=source,
        target=f"a head of {count} classes on {card.architecture}",
    )
    check_tensors(head, source=source, prefix=HEAD_PREFIX)
    classes = Head(
        head["weight"],
        head.get("bias"),
        kind=card.head_kind,
        scale=card.head_scale,
        activation=card.head_activation,
    )
    model = SelfExplainingViT(built, classes, card.evidence)
    _load_readout(model, readout or {}, source=source)
    return model


def _load_readout(model: SelfExplainingViT, tensors: Mapping[str, Tensor], *, source: str) -> None:
    own = {} if model.readout is None else model.readout.tensors()
    match_shapes(
        {READOUT_PREFIX + name: tuple(tensor.shape) for name, tensor in tensors.items()},
        {READOUT_PREFIX + name: tuple(tensor.shape) for name, tensor in own.items()},
        source=source,
        target=f"evidence of {model.evidence.blocks} blocks" + (" with a readout" if own else " without a readout"),
    )
    check_tensors(tensors, source=source, prefix=READOUT_PREFIX)
    if model.readout is not None:
        model.readout.load(tensors)


def load_backbone(backbone: Backbone, tensors: Mapping[str, Tensor], *, source: str, prefix: str = "") -> None:
    """Gives a backbone its weights: every key and shape must match, every value must be finite.

    source names the tensors' file in errors, prefix stands before the names of its tensors there.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in backbone.tensors().items()}
    match_shapes(
        {prefix + name: tuple(tensor.shape) for name, tensor in tensors.items()},
        {prefix + name: shape for name, shape in expected.items()},
        source=source,
        target=str(backbone.architecture),
    )
    check_tensors(tensors, source=source, prefix=prefix)
    backbone.module.load_state_dict(dict(tensors), strict=True, assign=True)


def match_shapes(
    found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], *, source: str, target: str
) -> None:
    """Raises MismatchError naming a tensor that `source` misses, has too many or has in another shape."""
    if (missing := _first(name for name in expected if name not in found)) is not None:
        more = sum(name not in found for name in expected) - 1
        raise MismatchError(f"{source}: missing tensor '{missing}'{_more(more)} that {target} needs")
    if (extra := _first(name for name in found if name not in expected)) is not None:
        more = sum(name not in expected for name in found) - 1
        raise MismatchError(f"{source}: extra tensor '{extra}'{_more(more)} that {target} does not have")
    if (wrong := _first(name for name in expected if found[name] != expected[name])) is not None:
        raise MismatchError(
            f"{source}: tensor '{wrong}' has shape {list(found[wrong])}, {target} expects {list(expected[wrong])}"
        )


def check_tensors(tensors: Mapping[str, Tensor], *, source: str, prefix: str = "") -> None:
    """Raises ArtefactError naming the first tensor that holds a NaN or an infinity."""
    for name, tensor in tensors.items():
        check_finite(tensor, f"{prefix}{name}", source=source)


def is_finite(tensor: Tensor) -> bool:
    """Whether a tensor holds neither NaN nor infinity."""
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    # One pass without a mask or a copy in memory; NaN makes both ends NaN, and nothing overflows on the way.
    return all(math.isfinite(end) for end in torch.aminmax(tensor))


def converted(tensor: Tensor, dtype: torch.dtype, name: str) -> Tensor:
    """A floating-point tensor in another type; UsageError where its finite values are too large for that type."""
    stored = tensor.to(dtype) if tensor.is_floating_point() else tensor
    if is_finite(tensor) and not is_finite(stored):
        kind = str(dtype).removeprefix("torch.")
        raise UsageError(f"tensor '{name}' holds values that {kind} cannot: store it in float32", argument="dtype")
    return stored


def check_finite(tensor: Tensor, name: str, *, source: str) -> None:
    """Raises ArtefactError where a tensor holds a NaN or an infinity."""
    if not is_finite(tensor):
        raise ArtefactError(f"{source}: tensor '{name}' holds NaN or infinite values: the weights are damaged")


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """sha256 of backbone tensors, rounded to float16, in order of their names.

    Rounded, so that a base stored in half precision keeps the fingerprint of its float32 original.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}{list(tensor.shape)}".encode())
        digest.update(tensor_file.encode(tensor.to(torch.float16) if tensor.is_floating_point() else tensor))
    return digest.hexdigest()


def backbone_shapes(tensors: Mapping[str, TensorSpec]) -> dict[str, tuple[int, ...]]:
    """Shapes of a model file's backbone tensors under the library's own names."""
    return {
        name.removeprefix(BACKBONE_PREFIX): spec.shape
        for name, spec in tensors.items()
        if name.startswith(BACKBONE_PREFIX)
    }


def _as_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _first(names: Iterable[str]) -> str | None:
    return next(iter(names), None)


def _more(count: int) -> str:
    return f" (and {count} more)" if count > 0 else ""
