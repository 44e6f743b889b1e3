"""`edgex.evaluate`: measuring a model from start to end, with the command line's defaults.

Names of the zoo, where heatmaps are kept and what is drawn are here; what is measured is
`edgex.evaluation.comparison`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgex.data.loading import check_workers
from edgex.errors import UsageError
from edgex.evaluation.comparison import Comparison, compare
from edgex.evaluation.faithfulness import FILLS
from edgex.evaluation.methods import Method, parse
from edgex.evaluation.methods.kernel_shap import KernelShap
from edgex.evaluation.plan import REFERENCE, Plan
from edgex.evaluation.sheet import comparison_sheet
from edgex.files import zoo
from edgex.files.model_file import LoadedModel
from edgex.files.tensor_file import check_writable
from edgex.utils import devices
from edgex.utils.output import save_picture
from edgex.utils.text import Report, silent

PathLike = str | os.PathLike[str]


def evaluate(
    model: PathLike | LoadedModel,
    data: PathLike,
    *,
    unbaked: PathLike | LoadedModel | None = None,
    baselines: str | Sequence[str] = (),
    num_images: int = 50,
    fill: str | Sequence[str] = FILLS,
    steps: int = 14,
    reference: str | None = "auto",
    labels: PathLike | None = None,
    sheet: PathLike | None = None,
    cache_dir: PathLike | None = None,
    device: str = "auto",
    precision: str = "auto",
    skip_bad: bool = False,
    workers: int | None = None,
    report: Report | None = None,
) -> Comparison:
    """Measures top-1 accuracy and heatmaps: insertion, deletion, agreement with Shapley values, localisation.

    Localisation is measured where `boxes.json` or `<picture>.mask.png` mark objects. The models are left as they are.

    model: a file, a name of the zoo, or a loaded model. data: folder of pictures in class folders.
    labels: of a multi-label model, the file of the pictures' labels (.csv or .json, see `edgex.data.label_tables`),
        which names files relative to `data`; mean average precision and F1 at the model's thresholds are measured then.
    unbaked: the model before baking, for paired differences; baselines then explain this one.
    baselines: other methods, each once: "kernel-shap:PASSES", "kernel-shap:PASSES@patches", "grad-cam", "rollout" and
        others; see `edgex.evaluation.methods`. As a list or as one text with commas.
    num_images: how many pictures' heatmaps are measured, evenly spaced over the folder.
    fill: what hidden patches show, "mean" (colour), "blur", or both. steps: of the insertion and deletion curves.
    reference: Kernel SHAP of many passes to correlate heatmaps with, such as "kernel-shap:4000". "auto" takes that one
        on a GPU and none on a CPU, where `report` says how long it would take. None for none.
    sheet: PNG file to draw pictures and heatmaps into, side by side.
    cache_dir: folder that keeps baselines' heatmaps and scores. Defaults to one below the user's own folder.
    device: "auto", "cpu", "cuda" or "cuda:<n>". precision: of masked passes, "auto", "fp32" or "bf16".
    skip_bad: go on without the pictures that cannot be read. workers: processes that decode pictures, see
        `edgex.data.loading.loaded`. report: called with lines for people.

    All pictures are opened before work starts. Raises UsageError for contradicting arguments or models that do not fit
    together, DataError for an unusable folder and for pictures that cannot be read.
    """
    check_workers(workers)
    fills, methods = _listed(fill), _listed(baselines)
    for name in fills:
        if name not in FILLS:
            raise UsageError(f"expected {' or '.join(FILLS)}, or both, found '{name}'", argument="fill")
    plan = Plan(
        explained=num_images,
        methods=tuple(_method(text, "baselines") for text in methods),
        fills=fills,  # type: ignore[arg-type]  # checked above
        steps=steps,
        reference=_reference(reference, device),
        device=device,
        precision=precision,
        workers=workers,
    )
    if sheet is not None:
        check_writable(Path(sheet))
    original = None if unbaked is None else _named(unbaked)
    cache = zoo.home() / "cache" / "heatmaps" if cache_dir is None else Path(cache_dir)
    say = report or silent
    table = None if labels is None else Path(labels)
    found = compare(_named(model), original, Path(data), plan, cache, labels=table, skip_bad=skip_bad, report=say)
    if reference == "auto" and plan.reference is None:
        say(_left_out(found))
    if sheet is not None:
        save_picture(np.asarray(comparison_sheet(found)), Path(sheet))
        say(f"wrote {os.fspath(sheet)}")
    return found


def _named(model: PathLike | LoadedModel) -> tuple[str, Path | LoadedModel]:
    """A model with the name that it goes by in a report."""
    if isinstance(model, LoadedModel):
        return model.card.name, model
    return os.fspath(model), zoo.resolve(os.fspath(model), "model")


def _method(text: str, argument: str) -> Method:
    try:
        return parse(text)
    except UsageError as error:
        error.argument = argument
        raise


def _reference(text: str | None, device: str) -> KernelShap | None:
    if text == "auto":
        return REFERENCE if devices.device_of(device).type == "cuda" else None
    return _method(text, "reference") if text else None  # type: ignore[return-value]  # Plan refuses other methods.


def _left_out(found: Comparison) -> str:
    """What the Shapley reference would have cost."""
    passes = REFERENCE.passes * len(found.paths)
    minutes = passes * found.heatmaps[0].milliseconds / 60_000
    return (
        f"agreement with Shapley values was not measured: {REFERENCE.passes} passes for each of {len(found.paths)} "
        f"pictures take about {max(1, round(minutes))} minutes here; ask for reference {REFERENCE}"
    )


def _listed(given: str | Sequence[str]) -> tuple[str, ...]:
    if isinstance(given, str):
        return tuple(given.split(",")) if given else ()
    return tuple(given)
