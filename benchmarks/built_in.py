"""What the built-in vector does to the built-in models: accuracy and insertion minus deletion, paired.

    python benchmarks/built_in.py --cars CARS/test --pictures PICTURES --predictor DEIT_TINY.safetensors

--cars: labelled test pictures of Stanford Cars, class folders. --pictures: photographs kept from the vector's training.
--predictor: `edgex import` of the weights that `imagenet-1k` started from. Results go to results/built_in.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from edgex.data import image_folders
from edgex.evaluation import classification
from edgex.evaluation.measured import MeasuredModel, own_heatmaps
from edgex.evaluation.plan import Plan
from edgex.evaluation.scores import curves
from edgex.files import zoo
from edgex.files.model_file import load_card, load_model
from edgex.files.vector_file import load_vector_card
from edgex.utils import devices
from edgex.utils.statistics import Estimate
from edgex.vectors.bake import add_vector

RESULTS = Path(__file__).parent / "results" / "built_in.json"
PLAN = Plan(fills=("mean",), precision="fp32")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cars", type=Path, required=True)
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--predictor", type=Path, required=True)
    parser.add_argument("--explained", type=int, default=100)
    arguments = parser.parse_args()
    vector = zoo.BUILT_IN / "imagenet.safetensors"
    alpha = load_vector_card(vector)[0].alpha
    report = {
        "metric": "insertion minus deletion of the predicted class's probability, mean-colour fill, 14 steps",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "vector_sha256": load_vector_card(vector)[1],
        "alpha": alpha,
        "cars": cars(arguments.cars, vector, alpha, arguments.explained),
        "imagenet-1k": source(arguments.pictures, arguments.predictor, arguments.explained),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    for name in ("cars", "imagenet-1k"):
        row = report[name]
        assert isinstance(row, dict)
        print(name, json.dumps({key: value for key, value in row.items() if "values" not in key}, indent=1))


def cars(folder: Path, vector: Path, alpha: float, explained: int) -> dict[str, object]:
    """The unbaked and the baked target on the same test pictures."""
    target = zoo.BUILT_IN / "cars.safetensors"
    accuracies: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as place:
        baked = Path(place) / "baked.safetensors"
        add_vector(target, vector, baked, alpha=alpha)
        differences = []
        for name, path in (("unbaked", target), ("baked", baked)):
            model, card = load_model(path)
            pictures = image_folders.remap_labels(image_folders.labelled(folder), card.classes, folder)
            value = classification.accuracy(model, pictures, card.preprocessing)
            accuracies[f"accuracy_{name}"] = {"value": value, "n": len(pictures)}
            differences.append(difference(path, image_folders.subsample_evenly(pictures.paths, explained)))
    return compared(*differences) | accuracies


def source(folder: Path, predictor: Path, explained: int) -> dict[str, object]:
    """The predictor and the self-explaining source model on pictures without labels."""
    paths = image_folders.list_images([folder])[:explained]
    report = compared(*(difference(path, paths) for path in (predictor, zoo.BUILT_IN / "imagenet-1k.safetensors")))
    report["predictor_sha256"] = load_card(predictor)[1]
    return report


def difference(path: Path, pictures: Sequence[Path]) -> np.ndarray:
    """Insertion minus deletion [N] of the heatmap of each picture's predicted class."""
    loaded = load_model(path)
    loaded.network.to(devices.device_of("auto"))
    measured = MeasuredModel(path.stem, loaded, np.empty(0))
    images = torch.from_numpy(image_folders.load_batch(pictures, loaded.card.preprocessing))
    explanations, _ = own_heatmaps(measured, images)
    return curves(measured, images, explanations, PLAN, "mean", measured.name)["difference:mean"]


def compared(before: np.ndarray, after: np.ndarray) -> dict[str, object]:
    """Estimates before and after, and of the paired gain."""
    return {
        "before": Estimate.of(before).to_dict(),
        "after": Estimate.of(after).to_dict(),
        "paired_gain": Estimate.of(after - before).to_dict(),
        "values_before": [round(float(v), 5) for v in before],
        "values_after": [round(float(v), 5) for v in after],
    }


if __name__ == "__main__":
    main()
