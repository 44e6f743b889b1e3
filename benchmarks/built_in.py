"""What the built-in vector does to the built-in models: accuracy and insertion minus deletion, paired.

    python benchmarks/built_in.py --cars CARS/test --pictures PICTURES --predictor DEIT_TINY.safetensors

--cars: labelled test pictures of Stanford Cars, class folders. --pictures: photographs kept from the vector's training.
--predictor: `edgex import` of the weights that `imagenet-1k` started from. Results go to results/built_in.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import torch

from edgex import data, evaluate, zoo
from edgex.bake import bake
from edgex.checkpoint import load_card, load_model
from edgex.evaluate import Estimate, Faithfulness
from edgex.vector import load_vector_card

RESULTS = Path(__file__).parent / "results" / "built_in.json"


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
    with tempfile.TemporaryDirectory() as place:
        baked = Path(place) / "baked.safetensors"
        bake(target, vector, baked, alpha=alpha)
        found = {}
        for name, path in (("unbaked", target), ("baked", baked)):
            model, card = load_model(path)
            pictures = data.aligned(data.labelled(folder), card.classes, folder)
            found[name] = evaluate.measure(model, pictures, card.preprocessing, explained=explained)
    report = compared(found["unbaked"].faithfulness, found["baked"].faithfulness)
    for name, result in found.items():
        report[f"accuracy_{name}"] = {"value": result.accuracy, "n": result.n}
    return report


def source(folder: Path, predictor: Path, explained: int) -> dict[str, object]:
    """The predictor and the self-explaining source model on pictures without labels."""
    paths = data.loose([folder])[:explained]
    found = []
    for path in (predictor, zoo.BUILT_IN / "imagenet-1k.safetensors"):
        model, card = load_model(path)
        found.append(evaluate.explain_pictures(model, paths, card.preprocessing))
    report = compared(*found)
    report["predictor_sha256"] = load_card(predictor)[1]
    return report


def compared(before: Faithfulness, after: Faithfulness) -> dict[str, object]:
    """Estimates before and after, and of the paired gain."""
    return {
        "before": Estimate.of(before.difference).to_dict(),
        "after": Estimate.of(after.difference).to_dict(),
        "paired_gain": Estimate.of(after.difference - before.difference).to_dict(),
        "values_before": [round(float(v), 5) for v in before.difference],
        "values_after": [round(float(v), 5) for v in after.difference],
    }


if __name__ == "__main__":
    main()
