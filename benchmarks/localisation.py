"""Do heatmaps lie on the objects that people boxed? Steel defects (neu) and everyday objects (tinyimagenet).

    python benchmarks/localisation.py --data DATA --weights DEIT_TINY --predictor IMAGENET_PREDICTOR --work WORK

Relevance mass inside the boxes, pointing game and IoU at matched area, as `edgex eval` measures them, of the baked
and unbaked heatmaps, Kernel SHAP with 150 passes on 49 superpixels, Grad-CAM and rollout; paired differences with 95%
intervals on test pictures. neu has its predictor from WORK (trained where there is none); on tinyimagenet
--predictor, an imported ImageNet classifier, explains its own predictions: its classes are known by the WordNet
numbers in file names, sorted as ImageNet sorts its classes (DATA/imagenet has one picture of each). Alpha is the one
that the vector recommends. Pointing game and IoU depend on the order of the patches
alone; relevance mass counts positive values, so it also depends on the additive correction that makes a heatmap add up
to the class's score, and thereby on the vector's scale. Results go to results/localisation.json and .md.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from common import RESULTS, log, save
from targets import (
    METRIC,
    METRIC_IN_WORDS,
    PEERS,
    RULE,
    Setting,
    against,
    baked_file,
    bracketed,
    described,
    folder_of,
    identity_of,
    methods_of,
    parser,
    plus_minus,
    remembered,
    trained,
    with_names,
)

from edgex.bench.timing import machine
from edgex.data import image_folders
from edgex.errors import DataError
from edgex.evaluation.localisation import METRICS
from edgex.files import zoo
from edgex.files.model_file import load_card
from edgex.files.vector_file import load_vector_card

SETS = ("neu", "tinyimagenet")
WORDNET_DIGITS = 9
"""Length of a WordNet number as in n01443537_goldfish."""


def main() -> None:
    arguments = _arguments()
    vector = zoo.resolve(arguments.vector, "vector")
    report: dict[str, Any] = {
        "metrics": [*METRICS, f"{METRIC}: {METRIC_IN_WORDS}"],
        "rule": RULE,
        "vector": described(vector),
        "precision_of_masked_passes": arguments.precision,
        "machine": machine(("torch", "timm")),
        "sets": {},
    }
    for name in arguments.sets:
        log(name)
        report["sets"][name] = boxed(name, vector, arguments)
        save(report, table(report), arguments.out)


def boxed(name: str, vector: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything about one set of pictures with boxes."""
    setting = Setting.of(arguments)
    if name == "tinyimagenet":
        path = arguments.predictor
        folder = with_names(setting.data / name, imagenet_names(path, setting.data), setting.work / "folders" / name)
    else:
        path, folder = trained(name, setting), folder_of(name, setting)
    alpha = load_vector_card(vector)[0].alpha
    settings = {
        "predictor": load_card(path)[1],
        "vector": identity_of(vector),
        "alpha": alpha,
        "methods": arguments.against,
        "measures": [*METRICS, METRIC, "saco:mean"],
        "explained": arguments.explained,
        "precision": arguments.precision,
    }

    def measure() -> dict[str, Any]:
        baked = baked_file(path, vector, alpha, setting.work)
        rounds = ((arguments.against, arguments.explained),)
        return against(baked, path, folder / "test", rounds, ("mean",), setting)

    return {
        "predictor_sha256": settings["predictor"],
        "alpha": alpha,
        **remembered(setting.work, f"boxed-{name}", settings, measure),
    }


def imagenet_names(path: Path, root: Path) -> dict[str, str]:
    """Folders of tinyimagenet -> class names of an ImageNet model, by their places among the WordNet numbers."""
    classes = load_card(path)[0].classes
    numbers = sorted({picture.name[:WORDNET_DIGITS] for picture in image_folders.list_images([root / "imagenet"])})
    if len(numbers) != len(classes):
        raise DataError(
            f"expected pictures of {len(classes)} WordNet numbers in {root / 'imagenet'}, one per class of "
            f"{path.name}, found {len(numbers)}: name an ImageNet-1k classifier with --predictor"
        )
    known = dict(zip(numbers, classes, strict=True))
    folders = (entry.name for entry in (root / "tinyimagenet" / "test").iterdir() if entry.is_dir())
    return {name: known[name[:WORDNET_DIGITS]] for name in sorted(folders)}


def table(report: dict[str, Any]) -> str:
    """Markdown per set: every method's metrics, then the paired differences of the baked heatmap."""
    lines = [
        f"Test pictures; mean ± standard error. Rule of {report['rule']}. Relevance mass counts positive values and so "
        "depends on the evidence's scale too; pointing game and IoU depend on the order of the patches alone.",
        "",
    ]
    keys = (*METRICS, METRIC, "saco:mean")
    for name, found in report["sets"].items():
        accuracy = " -> ".join(f"{100 * found['accuracy'][m]['mean']:.2f}%" for m in ("unbaked", "baked"))
        methods = methods_of({name: found}, "methods")
        n = found["methods"]["baked"][METRICS[0]]["n"]
        lines += [
            f"## {name} (alpha {found['alpha']:g}, accuracy {accuracy}, {n} pictures with boxes)",
            "",
            f"| heatmap | {' | '.join(keys)} |",
            "|" + "---|" * (len(keys) + 1),
            *(f"| {m} | {' | '.join(plus_minus(found['methods'][m][key]) for key in keys)} |" for m in methods),
            "",
            f"| baked minus (95%) | {' | '.join(keys)} |",
            "|" + "---|" * (len(keys) + 1),
            *(
                f"| {m} | {' | '.join(bracketed(found['baked_minus'][m][key], 3) for key in keys)} |"
                for m in methods
                if m != "baked"
            ),
            "",
        ]
    return "\n".join(lines)


def _arguments() -> argparse.Namespace:
    options = parser(__doc__, RESULTS / "localisation.json")
    options.add_argument("--predictor", type=Path, required=True, help="imported ImageNet-1k classifier, unbaked")
    options.add_argument("--vector", default="imagenet")
    options.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    options.add_argument("--explained", type=int, default=50)
    options.add_argument("--against", default=f"{PEERS},kernel-shap:150")
    return options.parse_args()


if __name__ == "__main__":
    main()
