"""Making labels for folders of pictures: what `edgex vector label` writes and `edgex vector train` starts with.

Playing the coalitions is `edgex.shapley.labels`, the file `edgex.shapley.label_file`.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from edgex.data import image_folders
from edgex.data.crops import Folder, gather
from edgex.errors import UsageError
from edgex.files.model_file import LoadedModel, load_model
from edgex.files.tensor_file import check_writable
from edgex.models.self_explaining import SelfExplainingViT
from edgex.runtime.preprocessing import Preprocessing
from edgex.shapley.label_file import LabelsCard, save_labels
from edgex.shapley.labels import LabelOptions, Labels, joined, label, reliability, totals
from edgex.utils import devices, processes, provenance
from edgex.utils.processes import Processes


def make(
    model_path: Path,
    roots: Sequence[Path],
    out: Path,
    *,
    name: str,
    options: LabelOptions,
    crops: Sequence[int],
    work: Path,
    limit: int | None,
    device: str,
    precision: str,
    report: Callable[[str], None],
) -> LabelsCard:
    """Labels the pictures below `roots` with the predictor at `model_path` and writes a labels artefact.

    crops: how many of each picture, one number or one per folder. work: folder of the label cache; an interrupted run
    goes on from there. limit: pictures per folder. Returns the card.
    """
    with processes.joined(device) as group:
        loaded = load_predictor(model_path)
        model, predictor, digest = loaded.network, loaded.card, loaded.sha256
        folders = gather(roots, crops=crops, limit=limit)
        if group.is_main:
            check_writable(out)
        started = time.monotonic()
        labels = label_folders(
            model, folders, predictor.preprocessing, options, work, group=group, precision=precision, digest=digest
        )
        total = totals(model, labels, group=group, precision=precision)
        seconds = time.monotonic() - started
        stable = reliability(labels, total)
        card = LabelsCard(
            name=name,
            architecture=predictor.architecture,
            predictor={"name": predictor.name, "sha256": digest},
            preprocessing=predictor.preprocessing,
            options=options,
            folders=tuple((str(folder.root.resolve()), folder.crops) for folder in folders),
            pictures=tuple(
                (index, path.relative_to(folder.root).as_posix(), image_folders.digest_of(path))
                for index, folder in enumerate(folders)
                for path in folder.paths
            ),
            provenance=(
                provenance.step(
                    "label",
                    inputs=[{"role": "predictor", "name": predictor.name, "sha256": digest}],
                    limit=limit,
                    seconds_this_run=round(seconds, 1),
                    machine=devices.machine(),
                ),
            ),
            metrics={"views": len(labels), "pictures": len(labels.crops.paths), "split_half_cosine": stable},
        )
        if group.is_main:
            report(describe(labels, stable))
            save_labels(out, labels, total, card)
    return card


def load_predictor(path: Path) -> LoadedModel:
    """A model trained for prediction only; UsageError for one that was baked."""
    loaded = load_model(path)
    if loaded.card.alpha is not None:
        raise UsageError(f"expected a predictor to learn from, found {path}, which was baked already")
    return loaded


def label_folders(
    model: SelfExplainingViT,
    folders: Sequence[Folder],
    preprocessing: Preprocessing,
    options: LabelOptions,
    work: Path,
    *,
    group: Processes,
    precision: str,
    digest: str,
) -> Labels:
    """Labels for the folders' pictures, in order; neighbours with equal numbers of crops share their chunks."""
    parts = []
    for crops, same in itertools.groupby(folders, key=lambda folder: folder.crops):
        paths = [path for folder in same for path in folder.paths]
        chosen = dataclasses.replace(options, crops=crops)
        parts.append(
            label(
                model,
                paths,
                preprocessing,
                chosen,
                work / "labels",
                group=group,
                precision=precision,
                model_digest=digest,
            )
        )
    return joined(parts)


def describe(labels: Labels, stable: float | None) -> str:
    """One line for the log."""
    return (
        f"labels: {len(labels)} crops of {len(labels.crops.paths)} pictures, {labels.coalitions.shape[1]} paired "
        f"coalitions each; {describe_reliability(stable)}"
    )


def describe_reliability(stable: float | None) -> str:
    """What is known of how much the labels' halves agree."""
    return "split-half cosine " + ("not known: one pair has no halves" if stable is None else f"{stable:.3f}")
