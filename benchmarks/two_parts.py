"""Evidence of two parts: how faithful and how well placed a readout is with a share of the model's own evidence.

    python benchmarks/two_parts.py --data DATA --weights DEIT_TINY --predictor IMAGENET_PREDICTOR --work WORK \
        [--vector imagenet]

The readout's evidence plus weight times that of the model's own last four blocks, of which a share is blurred
(`edgex.models.evidence.two_parts`); the vector is used as it is, nothing is learned here. For each mixture: insertion
minus deletion (mean fill) against unbaked in pairs, IoU at matched area, pointing game, border, mass with the mean
removed, and the relevance mass of both places of the correction: on all patches, or in the base.

Pictures that no report is made of, as in `localisation_ways.py`; neu's predictor is WORK/neu.safetensors, trained where
there is none. Results go to results/two_parts.json and .md.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import RESULTS, log, save
from localisation import SETS
from localisation_ways import HELD
from targets import Setting, described, folder_of, parser, pictures_of, trained

from edgex.bench.timing import machine
from edgex.data import image_folders
from edgex.data.image_folders import subsample_evenly
from edgex.evaluation import localisation
from edgex.evaluation.faithfulness import faithfulness
from edgex.files import zoo
from edgex.files.model_file import load_model
from edgex.files.vector_file import load_vector
from edgex.models.evidence import Own
from edgex.models.self_explaining import SelfExplainingViT, normalise
from edgex.training.vector_training import with_evidence
from edgex.utils.statistics import Estimate

OWN_BLOCKS = 4
MIXTURES = ((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (1.0, 0.0), (1.0, 1.0), (1.6, 1.0))
"""Weight and blur of the model's own part."""
PLACES = {"iou": "IoU", "pointing_game": "pointing", "border": "border", "centred_mass": "mass, mean removed"}


def main() -> None:
    arguments = _arguments()
    path = zoo.resolve(arguments.vector, "vector")
    report: dict[str, Any] = {"vector": described(path), "machine": machine(("torch", "timm")), "sets": {}}
    report["steps"] = arguments.steps
    for name in SETS:
        log(name)
        report["sets"][name] = measured(name, path, arguments)
        save(report, table(report), arguments.out)


def measured(name: str, vector: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Every mixture on one set of pictures with boxes."""
    setting = Setting.of(arguments)
    if name == "tinyimagenet":
        path, folder = arguments.predictor, setting.data / name
        paths = image_folders.list_images([folder / "train"])[HELD]
    else:
        path, folder = trained(name, setting), folder_of(name, setting)
        paths = pictures_of(folder, path, "train").paths
    paths = subsample_evenly(paths, arguments.pictures)
    model, card = load_model(path)
    found = localisation.objects(folder, paths, card.preprocessing, model.backbone.grid)
    assert found is not None
    chosen, coverage = found
    images = torch.from_numpy(image_folders.load_batch([paths[index] for index in chosen], card.preprocessing))
    pixels = normalise(images, card.preprocessing.mean, card.preprocessing.std)
    few = torch.tensor(list(subsample_evenly(range(len(pixels)), arguments.faithful)))
    with torch.inference_mode():
        tokens = model.backbone.embed(pixels)
        classes = model.logits(tokens).argmax(dim=1)

    def judged(network: SelfExplainingViT) -> dict[str, np.ndarray]:
        with torch.inference_mode():
            outputs = [network.explain(*part) for part in zip(tokens.split(32), classes.split(32), strict=True)]
            direct = [
                network.evidence.scale * network.evidence_of(those, explained[:, None])[1][:, 0]
                for those, explained in zip(tokens.split(32), classes.split(32), strict=True)
            ]
        heatmaps, evidence = torch.cat([output.heatmap for output in outputs]), torch.cat(direct).numpy()
        values = localisation.localise(heatmaps.numpy(), coverage)
        values["mass_base"] = localisation.relevance_mass(evidence, coverage)
        values["positive"] = (heatmaps.flatten(1) > 0).float().mean(dim=1).numpy()
        values["positive_base"] = (evidence > 0).mean(axis=1)
        areas = faithfulness(
            model, pixels[few], classes[few], heatmaps[few], steps=arguments.steps, precision=arguments.precision
        )
        return values | {"difference": areas.difference}

    unbaked = judged(model)
    rows = {"unbaked": _row(unbaked, unbaked)}
    for weight, blur in MIXTURES:
        own = Own(OWN_BLOCKS, weight, blur) if weight else None
        label = f"vector + {weight:g} own, blur {blur:g}" if weight else "vector"
        rows[label] = _row(judged(baked(model, vector, own)), unbaked)
        log(f"{label}: {rows[label]['gain']['mean']:+.4f}")
    return {"n": len(pixels), "n_faithful": len(few), "rows": rows}


def baked(model: SelfExplainingViT, path: Path, own: Own | None) -> SelfExplainingViT:
    """The model with the vector at its recommended alpha, and a part of its own."""
    deltas, card = load_vector(path)
    network = with_evidence(model, card.evidence.blocks, readout=True, own=own)
    network.evidence = network.evidence.learned(card.evidence.scale, {})
    assert network.readout is not None
    copies = network.readout.tensors()
    network.readout.load({name: copies[name].detach() + card.alpha * delta for name, delta in deltas.items()})
    return network.freeze()


def _row(values: dict[str, np.ndarray], unbaked: dict[str, np.ndarray]) -> dict[str, Any]:
    row: dict[str, Any] = {name: Estimate.of(found).to_dict() for name, found in values.items()}
    row["gain"] = Estimate.of(values["difference"] - unbaked["difference"]).with_interval()
    row["iou_gain"] = Estimate.of(values["iou"] - unbaked["iou"]).with_interval()
    return row


def table(report: dict[str, Any]) -> str:
    """Markdown per set."""
    lines = []
    for name, found in report["sets"].items():
        lines += [
            f"## {name} ({found['n']} pictures; insertion - deletion on {found['n_faithful']})",
            "",
            f"| heatmap | insertion - deletion | gain | {' | '.join(PLACES.values())} | mass, correction on patches | "
            "mass, in base | positive patches, on patches / in base |",
            "|" + "---|" * (len(PLACES) + 6),
        ]
        for label, row in found["rows"].items():
            gain = row["gain"]
            cells = [f"{row['difference']['mean']:.3f}", f"{gain['mean']:+.3f} ± {gain['standard_error']:.3f}"]
            cells += [f"{row[key]['mean']:.3f}" for key in (*PLACES, "relevance_mass", "mass_base")]
            cells.append(f"{row['positive']['mean']:.2f} / {row['positive_base']['mean']:.2f}")
            lines.append(f"| {label} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def _arguments() -> argparse.Namespace:
    options = parser(__doc__, RESULTS / "two_parts.json")
    options.add_argument("--predictor", type=Path, required=True, help="imported ImageNet-1k classifier, unbaked")
    options.add_argument("--vector", default="imagenet")
    options.add_argument("--pictures", type=int, default=130, help="most of each set")
    options.add_argument("--faithful", type=int, default=60, help="of these for insertion - deletion")
    options.add_argument("--steps", type=int, default=14)
    return options.parse_args()


if __name__ == "__main__":
    main()
