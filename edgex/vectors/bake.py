"""Adding a vector to a model: theta_baked = theta_target + alpha * tau, tensor by tensor.

A vector with a readout (`edgex.models.evidence.readout`) is added to copies of the target's weights, stored beside
them as "readout.<name>"; a target that has such copies already gets its vector added to those.
The files stream through: at any moment one tensor of the target, its delta and their sum are in memory.
The whole workflow, with names of the zoo and the choice of alpha, is `edgex.vectors.workflow`; what a vector is,
`edgex.files.vector_file`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, NamedTuple

import torch

from edgex.errors import MismatchError, UnsupportedError, UsageError
from edgex.files import tensor_file
from edgex.files.model_file import (
    BACKBONE_PREFIX,
    READOUT_PREFIX,
    ModelCard,
    backbone_shapes,
    card_of,
    check_finite,
    is_finite,
    match_shapes,
)
from edgex.files.tensor_file import TensorFile
from edgex.files.vector_file import VectorCard, delta_shapes, read_delta
from edgex.models.backbones import build, positions
from edgex.models.evidence.selection import strategy_of
from edgex.utils import provenance


def add_vector(
    target: Path,
    vector: Path,
    out: Path,
    *,
    alpha: float,
    force: bool = False,
    metrics: dict[str, Any] | None = None,
) -> tuple[ModelCard, str]:
    """Adds alpha times a vector to a target model and writes the baked model; returns its card and its sha256.

    The sum is computed in float32 and stored in the target's own type; tensors that the vector leaves alone,
    and every tensor when alpha is 0, are copied byte for byte. `force` bakes across different bases or
    architectures as long as every name and shape agrees. What was measured of the target stands under "target" in
    the result's metrics; `metrics` holds what was measured of the sum. Source: arXiv 2507.04380, section 3.

    Raises MismatchError where target and vector do not fit together, ArtefactError for damaged files.
    """
    if not math.isfinite(alpha):
        raise UsageError(f"expected a finite alpha, found {alpha}", argument="alpha")
    with TensorFile(target) as model_file, TensorFile(vector) as vector_file:
        card, tau, copies = _checked(model_file, vector_file, force=force)
        baked = dataclasses.replace(
            card,
            evidence=tau.evidence,
            alpha=(card.alpha or 0.0) + alpha,
            provenance=(*card.provenance, _step(card, model_file, tau, vector_file, alpha, forced=force)),
            metrics={"target": card.metrics.get("target", card.metrics), **(metrics or {})},
        )
        summands = _summands(model_file, vector_file, copies)
        specs = {
            name: (model_file.tensors[own].dtype, model_file.tensors[own].shape) for name, (own, _) in summands.items()
        }
        sha256 = tensor_file.write(out, baked.to_metadata(), specs, _sums(model_file, vector_file, summands, alpha))
    return baked, sha256


def check(target: Path, vector: Path, *, force: bool = False) -> None:
    """Raises MismatchError where `add_vector` would refuse this vector for this target; reads no tensor."""
    with TensorFile(target) as model_file, TensorFile(vector) as vector_file:
        _checked(model_file, vector_file, force=force)


class _Checked(NamedTuple):
    """Cards that fit together, and the names of the tensors that the baked model's readout consists of."""

    card: ModelCard
    tau: VectorCard
    copies: tuple[str, ...]


def _checked(model_file: TensorFile, vector_file: TensorFile, *, force: bool) -> _Checked:
    target, vector = model_file.path, vector_file.path
    card = card_of(model_file)
    tau = VectorCard.from_metadata(vector_file.metadata, vector)
    if not force:
        _check_same_origin(card, tau, target, vector, set(delta_shapes(vector_file)))
    _check_fit(model_file, vector_file, tau, target, vector)
    # Towers of both poolings can have the same tensors, so this is not implied by names and shapes.
    if tau.architecture.pooling != card.architecture.pooling:
        raise MismatchError(
            f"target {target} is {card.architecture}, vector {vector} explains by {tau.evidence.kind}: "
            "take a vector of the same pooling"
        )
    copies = _copied(card, tau, target, vector)
    if card.evidence.readout and not card.evidence.is_like(tau.evidence):
        raise MismatchError(
            f"target {target} explains by {card.evidence} from an earlier bake, vector {vector} by {tau.evidence}: "
            "bake the model that it was baked from"
        )
    own = {name for name in model_file.tensors if name.startswith(READOUT_PREFIX)}
    if card.evidence.readout and (missing := {READOUT_PREFIX + name for name in copies} - own):
        raise MismatchError(f"{target}: missing tensor '{min(missing)}' of its readout: bake it again")
    if copies and (stray := set(delta_shapes(vector_file)) - set(copies)):
        raise MismatchError(f"{vector}: tensor '{min(stray)}' has a delta, but no place in its readout")
    return _Checked(card, tau, copies)


def _copied(card: ModelCard, tau: VectorCard, target: Path, vector: Path) -> tuple[str, ...]:
    """Names of the tensors that the baked model's readout consists of, none without a readout.

    Raises MismatchError where the target could not be built with the vector's evidence.
    """
    try:
        with torch.device("meta"):
            weights = strategy_of(build(card.architecture), tau.evidence).weights
    except (UsageError, UnsupportedError) as error:
        raise MismatchError(f"vector {vector} does not fit target {target}: {error}") from error
    return () if weights is None else tuple(weights.tensors())


def _summands(
    model_file: TensorFile, vector_file: TensorFile, copies: Sequence[str]
) -> dict[str, tuple[str, str | None]]:
    """Baked tensor -> the target's tensor that it starts from, and the delta added to it, if any."""
    deltas = delta_shapes(vector_file)
    prefix = READOUT_PREFIX if copies else BACKBONE_PREFIX
    found: dict[str, tuple[str, str | None]] = {}
    for name in model_file.tensors:
        key = name.removeprefix(prefix)
        found[name] = (name, key if name.startswith(prefix) and key in deltas else None)
    for key in copies:
        found.setdefault(READOUT_PREFIX + key, (BACKBONE_PREFIX + key, key if key in deltas else None))
    return found


def _sums(
    model_file: TensorFile,
    vector_file: TensorFile,
    summands: Mapping[str, tuple[str, str | None]],
    alpha: float,
) -> Iterator[bytearray | memoryview]:
    """The baked tensors' bytes in file order; both inputs' digests are checked once everything was read."""
    for own, key in summands.values():
        spec = model_file.tensors[own]
        data = model_file.read_bytes(own)
        tensor = tensor_file.decode(data, spec)
        check_finite(tensor, own, source=str(model_file.path))
        if key is None:
            yield data
            continue
        delta = read_delta(vector_file, key)
        if alpha == 0:
            yield data
            continue
        # Product and sum are rounded one after the other: fused, they would differ between processors.
        total = tensor.float().add_(delta.mul_(alpha)).to(spec.dtype)
        if not is_finite(total):
            kind = str(spec.dtype).removeprefix("torch.")
            raise UsageError(
                f"expected an alpha that keeps the weights within {kind}, found {alpha:g}, which takes tensor '{own}' "
                f"beyond it with {vector_file.path}: choose a smaller one",
                argument="alpha",
            )
        yield tensor_file.encode(total)
    model_file.verify()
    vector_file.verify()


def _check_same_origin(card: ModelCard, tau: VectorCard, target: Path, vector: Path, deltas: Set[str]) -> None:
    size = card.architecture.image_size
    if size != tau.architecture.image_size and (changed := deltas & set(positions.NAMES)):
        raise MismatchError(
            f"target {target} is {card.architecture}, vector {vector} was learned on {tau.architecture} and changes "
            f"'{min(changed)}', which belongs to that image size: take a vector of the target's size, or a "
            "readout, which fits every size"
        )
    if not card.architecture.is_like(dataclasses.replace(tau.architecture, image_size=size)):
        raise MismatchError(
            f"target {target} is {card.architecture}, vector {vector} was learned on {tau.architecture}: "
            "take a vector for the target's architecture"
        )
    if card.base.fingerprint != tau.base.fingerprint:
        raise MismatchError(
            f"target {target} started from {card.base}, vector {vector} was learned from {tau.base}: "
            "take a vector of the same base, or force the sum"
        )


def _check_fit(model_file: TensorFile, vector_file: TensorFile, tau: VectorCard, target: Path, vector: Path) -> None:
    """Deltas and unchanged names together must be exactly the target's backbone, shape by shape."""
    expected = backbone_shapes(model_file.tensors)
    found = delta_shapes(vector_file)
    overlap = found.keys() & set(tau.unchanged)
    if overlap:
        raise MismatchError(f"{vector}: tensor '{min(overlap)}' has a delta and is listed as unchanged")
    found |= {name: expected[name] for name in tau.unchanged if name in expected}
    found |= {name: () for name in tau.unchanged if name not in expected}
    match_shapes(found, expected, source=str(vector), target=f"target {target}")


def _step(
    card: ModelCard,
    model_file: TensorFile,
    tau: VectorCard,
    vector_file: TensorFile,
    alpha: float,
    *,
    forced: bool,
) -> dict[str, Any]:
    inputs = [
        {"role": "target", "name": card.name, "sha256": model_file.metadata["sha256"]},
        {
            "role": "vector",
            "name": tau.name,
            "sha256": vector_file.metadata["sha256"],
            "provenance": list(tau.provenance),
        },
    ]
    return provenance.step("bake", alpha=alpha, forced=forced, inputs=inputs)
