"""Making labels for folders of pictures: what `edgex vector label` writes and `edgex vector train` starts with.

Evaluating the coalitions is `edgex.shapley.labels`, the file `edgex.shapley.label_file`.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import time
from collections.abc import Sequence
from pathlib import Path

from edgex.data import image_folders
from edgex.data.crops import Folder, gather
from edgex.data.loading import check_workers
from edgex.data.readable import ReadCheck
from edgex.errors import UsageError
from edgex.files import zoo
from edgex.files.model_file import LoadedModel, load_model
from edgex.files.tensor_file import check_writable
from edgex.models.self_explaining import SelfExplainingViT
from edgex.runtime.file_names import name_of
from edgex.runtime.preprocessing import Preprocessing
from edgex.shapley.label_file import LabelsCard, save_labels
from edgex.shapley.labels import LabelOptions, Labels, joined, label, reliability, totals
from edgex.shapley.superpixels import side_of, usual_side
from edgex.utils import devices, processes, provenance
from edgex.utils.output import refuse_to_overwrite
from edgex.utils.processes import Processes
from edgex.utils.text import Report, silent

PathLike = str | os.PathLike[str]


def make_labels(
    model: PathLike,
    data: PathLike | Sequence[PathLike],
    out: PathLike,
    *,
    name: str | None = None,
    cache_dir: PathLike | None = None,
    pairs: int = 24,
    players: int | None = None,
    crops: int | Sequence[int] | None = None,
    classes: int = 3,
    features: bool = True,
    limit: int | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
    force: bool = False,
    skip_bad: bool = False,
    workers: int | None = None,
    report: Report | None = None,
) -> LabelsCard:
    """Labels pictures with Shapley values of a predictor's own scores and writes a labels artefact; returns its card.

    An interrupted run resumes from its cache when it is called again with the same arguments. Where a launcher started
    several processes, they share the work; the first one writes and reports.

    model: predictor that is evaluated on masked inputs, a file or a name of the zoo. data: folders of pictures. out:
        file to write (.safetensors). name: of the labels. Defaults to the file's.
    cache_dir: folder of the label cache. Defaults to `<out>.work`.
    pairs: paired coalitions per crop. players: superpixels per crop, a square number. Defaults to 49, or the nearest
        that divide the grid of patches. crops: crops per picture, the centre crop and then random ones; one number, or
        one for each folder. Defaults to 1. classes: highest-scoring
        classes that are labelled per crop. features: whether to keep differences of the features too, which learning
        a readout needs. limit: pictures per folder, evenly spaced. Defaults to all.
    device: "auto", "cpu", "cuda" or "cuda:<n>". precision: of the computation, "auto", "fp32" or "bf16".
    force: replace an existing `out`. skip_bad: go on without the pictures that cannot be read.
    workers: processes that decode pictures, see `edgex.data.loading.loaded`. report: called with lines for people.

    All pictures are opened before work starts. Raises UsageError for wrong arguments, DataError for an unusable folder
    and for pictures that cannot be read, ArtefactError for a damaged model.
    """
    refuse_to_overwrite(out, force=force)
    check_workers(workers)
    options = LabelOptions(pairs=pairs, classes=classes, seed=seed, features=features)
    side = None if players is None else side_of(players)
    model_path, path = zoo.resolve(os.fspath(model), "model"), Path(out)
    chosen = name_of(path, name)
    roots = [Path(data)] if isinstance(data, (str, os.PathLike)) else [Path(root) for root in data]
    work = path.with_name(path.name + ".work") if cache_dir is None else Path(cache_dir)
    with processes.joined(device) as group:
        loaded = load_predictor(model_path)
        network, predictor, digest = loaded.network, loaded.card, loaded.sha256
        options = dataclasses.replace(options, side=side or usual_side(network.backbone.grid))
        each = (crops,) if isinstance(crops, int) else tuple(crops or (1,))
        tell = report if report is not None and group.is_main else silent
        folders = gather(roots, crops=each, limit=limit, check=ReadCheck(skip_bad, tell, workers, group))
        if group.is_main:
            check_writable(path)
        started = time.monotonic()
        labels = label_folders(
            network,
            folders,
            predictor.preprocessing,
            options,
            work,
            group=group,
            precision=precision,
            digest=digest,
            report=tell,
        )
        total = totals(network, labels, group=group, precision=precision, workers=workers)
        seconds = time.monotonic() - started
        stable = reliability(labels, total)
        card = LabelsCard(
            name=chosen,
            architecture=predictor.architecture,
            predictor={"name": predictor.name, "sha256": digest},
            preprocessing=predictor.preprocessing,
            options=options,
            folders=tuple((str(folder.root.resolve()), folder.crops_per_picture) for folder in folders),
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
            tell(describe(labels, stable))
            save_labels(path, labels, total, card)
    return card


def load_predictor(path: Path) -> LoadedModel:
    """A model trained for prediction only; UsageError for one that was baked."""
    loaded = load_model(path)
    if loaded.card.alpha is not None:
        raise UsageError(f"expected a predictor to learn from, found {path}, which was baked already", argument="model")
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
    report: Report = silent,
) -> Labels:
    """Labels for the folders' pictures, in order; neighbours with equal numbers of crops share their chunks."""
    parts = []
    for crops, same in itertools.groupby(folders, key=lambda folder: folder.crops_per_picture):
        paths = [path for folder in same for path in folder.paths]
        chosen = dataclasses.replace(options, crops=crops)
        report(
            f"labelling {crops * len(paths)} crops of {len(paths)} pictures: {options.pairs} pairs of coalitions "
            f"each, of the {options.classes} highest classes of {model.head.classes}"
        )
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
                report=report,
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
