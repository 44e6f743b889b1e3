"""Why less of a baked heatmap's positive evidence lies inside boxes than of the unbaked one's, and what helps.

    python benchmarks/localisation_ways.py --data DATA --weights DEIT_TINY --predictor IMAGENET_PREDICTOR --work WORK \
        [--vector imagenet --vector mixed.safetensors ...]

Relevance mass counts positive values, so it depends on how large evidence is beside the additive correction, which lies
on every patch alike. Hence each vector is measured at its own scale, at others, and without any correction in the
picture: the mass of a heatmap whose mean was removed depends on neither. Pointing game and IoU never did.

Pictures that no report is made of: of neu those held out of train, of tinyimagenet every tenth of train. The built-in
vector was learned on those too, without their boxes; a vector taught by boxes must have left them out. Paired
differences to unbaked.
Results go to results/localisation_ways.json and .md.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import RESULTS, log, save
from localisation import SETS
from targets import Setting, baked_file, bracketed, described, folder_of, parser, pictures_of, trained

from edgex.bench.timing import machine
from edgex.data import image_folders
from edgex.evaluation import localisation
from edgex.evaluation.localisation import METRICS
from edgex.evaluation.measured import MeasuredModel, own_heatmaps
from edgex.files import zoo
from edgex.files.model_file import load_model
from edgex.files.vector_file import load_vector_card
from edgex.utils import devices
from edgex.utils.statistics import Estimate

HELD = slice(5, None, 10)
"""The pictures of tinyimagenet/train, sorted, whose boxes no vector saw."""


def main() -> None:
    arguments = _arguments()
    vectors = {name: zoo.resolve(name, "vector") for name in arguments.vector}
    report: dict[str, Any] = {
        "metrics": list(METRICS),
        "vectors": {path.stem: described(path) for path in vectors.values()},
        "machine": machine(("torch", "timm")),
        "sets": {},
    }
    for name in SETS:
        log(name)
        report["sets"][name] = measured(name, list(vectors.values()), arguments)
        save(report, table(report), arguments.out)


def measured(name: str, vectors: Sequence[Path], arguments: argparse.Namespace) -> dict[str, Any]:
    """Unbaked, then every vector at every scale, on one set of pictures with boxes."""
    setting = Setting.of(arguments)
    if name == "tinyimagenet":
        path, folder = arguments.predictor, setting.data / name
        paths = image_folders.list_images([folder / "train"])[HELD]
    else:
        path, folder = trained(name, setting), folder_of(name, setting)
        paths = pictures_of(folder, path, "train").paths
    model, card = load_model(path)
    found = localisation.objects(folder, paths, card.preprocessing, model.backbone.grid)
    assert found is not None
    chosen, coverage = found
    images = torch.from_numpy(image_folders.load_batch([paths[index] for index in chosen], card.preprocessing))

    def metrics(file: Path, scale: float | None = None) -> dict[str, np.ndarray]:
        loaded = load_model(file)
        model = loaded.network
        if scale is not None:
            model.evidence = dataclasses.replace(model.evidence, scale=scale)
        model.to(devices.device_of("auto")).freeze()
        measured = MeasuredModel(file.stem, loaded, np.zeros(0))
        return localisation.localise(own_heatmaps(measured, images)[0].heatmaps.numpy(), coverage)

    unbaked = metrics(path)
    rows: dict[str, Any] = {"unbaked": {key: {"value": Estimate.of(unbaked[key]).to_dict()} for key in METRICS}}
    cases: list[tuple[str, Path, float | None]] = []
    for vector in vectors:
        tau = load_vector_card(vector)[0]
        file = baked_file(path, vector, tau.alpha, setting.work)
        scales = (tau.evidence.scale, *arguments.scales)
        cases += [(f"{vector.stem}, scale {scale:.3g}", file, scale) for scale in scales]
    cases += [(f"unbaked, scale {scale:.3g}", path, scale) for scale in arguments.scales if scale != 1]
    for label, file, scale in cases:
        values = metrics(file, scale)
        rows[label] = {
            key: {
                "value": Estimate.of(values[key]).to_dict(),
                "minus_unbaked": Estimate.of(values[key] - unbaked[key]).with_interval(),
            }
            for key in METRICS
        }
    return {"n": len(images), "rows": rows}


def table(report: dict[str, Any]) -> str:
    """Markdown per set: one row per heatmap, its mean and the paired difference to unbaked."""
    lines = [
        "Pictures that no report is made of; mean, and paired difference to unbaked with its 95% interval. "
        "centred_mass is the relevance mass of a heatmap less its mean, which no scale changes.",
        "",
    ]
    for name, found in report["sets"].items():
        lines += [f"## {name} ({found['n']} pictures)", "", f"| heatmap | {' | '.join(METRICS)} |"]
        lines.append("|" + "---|" * (len(METRICS) + 1))
        for label, row in found["rows"].items():
            cells = [
                f"{row[key]['value']['mean']:.3f}"
                + (f" ({bracketed(row[key]['minus_unbaked'], 3)})" if "minus_unbaked" in row[key] else "")
                for key in METRICS
            ]
            lines.append(f"| {label} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def _arguments() -> argparse.Namespace:
    options = parser(__doc__, RESULTS / "localisation_ways.json")
    options.add_argument("--predictor", type=Path, required=True, help="imported ImageNet-1k classifier, unbaked")
    options.add_argument("--vector", action="append", default=None)
    options.add_argument("--scales", nargs="+", type=float, default=[1.0, 1.6])
    chosen = options.parse_args()
    chosen.vector = chosen.vector or ["imagenet"]
    return chosen


if __name__ == "__main__":
    main()
