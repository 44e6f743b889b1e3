"""edgex's own safetensors files: models, vectors and labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from fuzzing import formats
from fuzzing.campaign import picked
from fuzzing.mutations import damaged
from fuzzing.parser import Case, Parser

SUFFIX = ".safetensors"
CLASSES = "a,b,c,d"


def models() -> Parser:
    """A mutated model file, loaded, run and described.

    Wrongly accepted: a file whose digest is not right any more; names that are no text; scores of another shape.
    """
    return Parser("model", _model_bases, _mutate, _run_model, _wrong_model)


def vectors() -> Parser:
    """A mutated vector file, loaded and baked into its model. Wrongly accepted: as for models."""
    return Parser("vector", _vector_bases, _mutate, _bake_vector, _wrong_vector)


def labels() -> Parser:
    """A mutated labels file, read with its pictures. Wrongly accepted: as for models."""
    return Parser("labels", _label_bases, _mutate, _load_labels, _wrong_labels)


def write_model(folder: Path) -> Path:
    """A small predictor with random weights, and beside it the weights that it was imported from."""
    import torch

    from edgex.importers import workflow
    from fuzzing import tiny

    torch.save(tiny.state_dict(), folder / "model.pt")
    return workflow.import_weights(
        tiny.ARCH, CLASSES, folder / "model.pt", name="model", out=folder / f"model{SUFFIX}", force=True
    ).path


def write_vector(folder: Path, model: Path, *, dtype: str = "fp32") -> Path:
    """A vector that fits a model: random deltas of its last block."""
    import dataclasses

    import torch

    from edgex.files.model_file import load_model
    from edgex.files.vector_file import STORAGE, save_vector
    from vectors import CARD

    network, card = load_model(model)
    tensors = network.backbone.tensors()
    chosen = [name for name in tensors if name.startswith("blocks.1.")]
    generator = torch.Generator().manual_seed(1)
    deltas = {name: 0.01 * torch.randn(tensors[name].shape, generator=generator) for name in chosen}
    described = dataclasses.replace(
        CARD,
        architecture=card.architecture,
        base=card.base,
        evidence=card.evidence,
        unchanged=tuple(name for name in tensors if name not in deltas),
        metrics={},
    )
    path = folder / f"vector-{dtype}{SUFFIX}"
    save_vector(path, deltas, described, dtype=STORAGE[dtype])
    return path


def write_pictures(folder: Path, count: int = 2) -> Path:
    """A folder with pictures of one class."""
    from pictures import draw

    (folder / "class 0").mkdir(parents=True, exist_ok=True)
    for index in range(count):
        draw("blue disc", index, size=40).save(folder / "class 0" / f"{index}.png")
    return folder


def write_labels(folder: Path, model: Path, pictures: Path, *, out: Path | None = None, pairs: int = 2) -> Path:
    """Labels of a folder's pictures, with their cache in folder/work."""
    from edgex.shapley import labelling

    out = out or folder / f"labels{SUFFIX}"
    labelling.make_labels(
        model,
        pictures,
        out,
        cache_dir=folder / "work",
        pairs=pairs,
        players=4,
        classes=2,
        device="cpu",
        precision="fp32",
        force=True,
        workers=0,
    )
    return out


def _model_bases(folder: Path) -> Sequence[Case]:
    from edgex.files.model_file import load_model, save_model
    from edgex.vectors import workflow

    model = write_model(folder)
    baked = workflow.bake(model, write_vector(folder, model), alpha=1.0, out=folder / f"baked{SUFFIX}", force=True).path
    import torch

    network, card = load_model(model)
    save_model(folder / f"half{SUFFIX}", network, card, dtype=torch.float16)
    return [Case(path.read_bytes(), SUFFIX) for path in (model, baked, folder / f"half{SUFFIX}")]


def _vector_bases(folder: Path) -> Sequence[Case]:
    model = write_model(folder)
    return [Case(write_vector(folder, model, dtype=dtype).read_bytes(), SUFFIX) for dtype in ("fp32", "int8")]


def _label_bases(folder: Path) -> Sequence[Case]:
    path = write_labels(folder, write_model(folder), write_pictures(folder / "pictures"))
    return [Case(path.read_bytes(), SUFFIX)]


def _mutate(random: Random, bases: Sequence[Case]) -> Case:
    base = picked(random, bases)
    if random.random() < 0.6:
        return Case(formats.changed_artefact(random, base.data), SUFFIX)
    if random.random() < 0.3:
        return Case(formats.changed_safetensors(random, base.data), SUFFIX)
    return Case(damaged(random, base.data, [other.data for other in bases]), SUFFIX)


def _described(path: Path) -> None:
    from edgex.inspection import inspect
    from edgex.utils.json import dumps

    dumps(inspect(path))


def _run_model(path: Path) -> Any:
    import torch

    from edgex.files.model_file import load_model

    network, card = load_model(path)
    _described(path)
    height, width = card.preprocessing.image_size
    with torch.inference_mode():
        found = network(torch.zeros(1, 3, height, width))
    return card, found


def _wrong_model(meaning: Any, case: Case) -> str | None:
    card, found = meaning
    if not _sealed(case):
        return "the digest is not right"
    # Weights that were changed and sealed anew are another model's, also those that overflow.
    if found.logits.shape != (1, len(card.classes)):
        return "scores of another shape"
    return _wrong_card(
        name=type(card.name) is str,
        classes=all(type(name) is str for name in card.classes),
        alpha=card.alpha is None or _finite(card.alpha),
        head_scale=_finite(card.head_scale),
        base=type(card.base.name) is str and type(card.base.fingerprint) is str,
        provenance=all(isinstance(step, dict) for step in card.provenance),
        metrics=isinstance(card.metrics, dict),
    )


def _bake_vector(path: Path) -> Any:
    from edgex.files.vector_file import load_vector
    from edgex.vectors import workflow

    deltas, card = load_vector(path)
    _described(path)
    workflow.bake(path.with_name(f"model{SUFFIX}"), path, out=path.with_name(f"out{SUFFIX}"), force=True)
    return card, deltas


def _wrong_vector(meaning: Any, case: Case) -> str | None:
    card, deltas = meaning
    if not _sealed(case):
        return "the digest is not right"
    return _wrong_card(
        name=type(card.name) is str,
        alpha=_finite(card.alpha),
        source=type(card.source) is str and type(card.supervision) is str,
        unchanged=all(type(name) is str for name in card.unchanged),
        deltas=all(bool(delta.isfinite().all()) for delta in deltas.values()),
        provenance=all(isinstance(step, dict) for step in card.provenance),
        metrics=isinstance(card.metrics, dict),
    )


def _load_labels(path: Path) -> Any:
    from edgex.shapley.label_file import load_labels

    loaded = load_labels(path)
    _described(path)
    # Drawing the crops is what training does first.
    for batch in loaded.labels.crops.batches(4, workers=0):
        batch.sum()
    return loaded


def _wrong_labels(meaning: Any, case: Case) -> str | None:
    if not _sealed(case):
        return "the digest is not right"
    labels, card = meaning.labels, meaning.card
    return _wrong_card(
        name=type(card.name) is str,
        predictor=all(type(card.predictor[key]) is str for key in ("name", "sha256")),
        differences=bool(labels.differences.isfinite().all()),
        classes=bool((labels.classes >= 0).all()),
        picture=bool(((labels.crops.picture >= 0) & (labels.crops.picture < len(card.pictures))).all()),
        provenance=all(isinstance(step, dict) for step in card.provenance),
        metrics=isinstance(card.metrics, dict),
    )


def _sealed(case: Case) -> bool:
    return formats.is_sealed(case.data, formats.safetensors_digest(case.data))


def _finite(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _wrong_card(**right: bool) -> str | None:
    wrong = [name for name, is_right in right.items() if not is_right]
    return f"unusable {', '.join(wrong)}" if wrong else None
