"""What a vector loses when it is stored in fewer bits, or trimmed to its largest entries.

    python benchmarks/vector_storage.py --data DATA --weights DEIT_TINY --work WORK [--vector imagenet]

The vector as it is (in fp32), in fp16, in int8, and trimmed to 50, 20 and 10% of its entries, each made by
`edgex.vectors.arithmetic.combine` and baked into a few targets at the same alpha. On pictures held out of train: the
paired gain in insertion - deletion over unbaked, the paired difference to fp32, how its heatmaps correlate with those
of fp32, and accuracy. A trimmed file stores its zeros and only gets smaller when it is compressed: both sizes are
given. Results go to results/vector_storage.json and .md.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import zlib
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, log, save
from targets import (
    METRIC_IN_WORDS,
    Own,
    Setting,
    bracketed,
    described,
    folder_of,
    identity_of,
    own,
    parser,
    pictures_of,
    plus_minus,
    remembered,
    trained,
)

from edgex.bench.timing import machine
from edgex.files import zoo
from edgex.files.model_file import load_card
from edgex.files.tensor_file import TensorFile
from edgex.files.vector_file import load_vector, load_vector_card
from edgex.utils.statistics import Estimate
from edgex.vectors.arithmetic import CombineOptions, combine
from edgex.vectors.bake import add_vector

REFERENCE = "fp32"
VARIANTS: dict[str, tuple[float | None, str]] = {
    REFERENCE: (None, "fp32"),
    "fp16": (None, "fp16"),
    "int8": (None, "int8"),
    "largest 50%": (0.5, "fp32"),
    "largest 20%": (0.2, "fp32"),
    "largest 10%": (0.1, "fp32"),
}
"""Name -> share of entries kept, storage."""


def main() -> None:
    arguments = _arguments()
    setting = Setting.of(arguments)
    vector = zoo.resolve(arguments.vector, "vector")
    card = load_vector_card(vector)[0]
    alpha = card.alpha if arguments.alpha is None else arguments.alpha
    report: dict[str, Any] = {
        "metric": METRIC_IN_WORDS,
        "pictures": f"held out of train, {arguments.explained} of each target",
        "vector": {**described(vector), "stored_as": stored_as(vector)},
        "alpha": alpha,
        "trimmed_within": arguments.scope,
        "precision_of_masked_passes": arguments.precision,
        "machine": machine(("torch", "timm")),
        "variants": {},
        "targets": {},
    }
    with tempfile.TemporaryDirectory() as place:
        files = {}
        for name, (keep, store) in VARIANTS.items():
            files[name] = Path(place) / f"{name}.safetensors"
            options = CombineOptions(keep=keep, scope=arguments.scope)
            combine([vector], files[name], name=card.name, options=options, dtype=store)
            content = files[name].read_bytes()
            report["variants"][name] = {
                "bytes": len(content),
                "compressed_bytes": len(zlib.compress(content)),
                "distance": distance(files[name], files[REFERENCE]),
            }
        for target in arguments.targets.split(","):
            report["targets"][target] = measured(target, files, alpha, vector, setting, arguments)
            save(report, table(report), arguments.out)


def measured(
    target: str, files: dict[str, Path], alpha: float, vector: Path, setting: Setting, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Every variant on one target."""
    path = trained(target, setting)
    settings = {
        "predictor": load_card(path)[1],
        "vector": identity_of(vector),
        "alpha": alpha,
        "variants": VARIANTS,
        "scope": arguments.scope,
        "explained": arguments.explained,
        "precision": setting.precision,
    }

    def measure() -> dict[str, Any]:
        pictures = pictures_of(folder_of(target, setting), path, "train")
        unbaked = own(path, pictures, arguments.explained, setting)
        found: dict[str, Own] = {}
        with tempfile.TemporaryDirectory(dir=setting.work) as place:
            for name, file in files.items():
                log(f"{target}: {name}")
                baked = Path(place) / f"{target}-{file.name}"
                add_vector(path, file, baked, alpha=alpha)
                found[name] = own(baked, pictures, arguments.explained, setting, (path, unbaked.correct))
        reference = found[REFERENCE]
        return {
            "accuracy_unbaked": {"mean": float(unbaked.correct.mean()), "n": len(pictures)},
            "variants": {
                name: {
                    "gain": Estimate.of(one.values - unbaked.values).with_interval(),
                    "minus_fp32": Estimate.of(one.values - reference.values).with_interval(),
                    "heatmap_correlation": float(correlation(one.heatmaps, reference.heatmaps).mean()),
                    "accuracy_change": 100 * float(one.correct.mean() - unbaked.correct.mean()),
                }
                for name, one in found.items()
            },
        }

    return remembered(setting.work, f"storage-{target}", settings, measure)


def distance(file: Path, reference: Path) -> float:
    """Euclidean distance of two vectors as a share of the second one's length; a tensor that one lacks is 0."""
    (found, _), (whole, _) = load_vector(file), load_vector(reference)
    lost = sum(float((whole[name] - found.get(name, 0.0)).double().square().sum()) for name in whole)
    return math.sqrt(lost / sum(float(delta.double().square().sum()) for delta in whole.values()))


def stored_as(vector: Path) -> str:
    """The types that a vector's matrices are stored in, such as "float16"."""
    with TensorFile(vector) as file:
        return ", ".join(
            sorted({str(s.dtype).removeprefix("torch.") for s in file.tensors.values() if len(s.shape) > 1})
        )


def correlation(heatmaps: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Pearson correlation [n] of heatmaps [n, gh, gw], patch by patch."""
    one, other = (maps.flatten(1).double() for maps in (heatmaps, others))
    return torch.cosine_similarity(one - one.mean(dim=1, keepdim=True), other - other.mean(dim=1, keepdim=True))


def table(report: dict[str, Any]) -> str:
    """Markdown: sizes of every variant, then one table per target."""
    lines = [
        f"Vector '{report['vector']['name']}' at alpha {report['alpha']:g}; {report['metric']}; {report['pictures']}. "
        f"Its own file is {report['vector']['stored_as']}. Trimmed within each {report['trimmed_within']}.",
        "",
        "| variant | file, MB | compressed (zlib), MB | distance to fp32, share of its length |",
        "|---|---|---|---|",
    ]
    for name, size in report["variants"].items():
        lines.append(
            f"| {name} | {size['bytes'] / 1e6:.2f} | {size['compressed_bytes'] / 1e6:.2f} | {size['distance']:.2g} |"
        )
    for target, found in report["targets"].items():
        lines += [
            "",
            f"## {target}",
            "",
            "| variant | gain over unbaked | minus fp32 (95%) | heatmap's correlation with fp32's | accuracy, points |",
            "|---|---|---|---|---|",
        ]
        for name, row in found["variants"].items():
            lines.append(
                f"| {name} | {plus_minus(row['gain'], 4, '+')} | {bracketed(row['minus_fp32'])} | "
                f"{row['heatmap_correlation']:.4f} | {row['accuracy_change']:+.2f} |"
            )
    return "\n".join(lines) + "\n"


def _arguments() -> argparse.Namespace:
    options = parser(__doc__, RESULTS / "vector_storage.json")
    options.add_argument("--vector", default="imagenet")
    options.add_argument("--alpha", type=float, help="default: the vector's recommended one")
    options.add_argument("--scope", choices=("tensor", "vector"), default="tensor", help="what a share is counted in")
    options.add_argument("--targets", default="ucmerced,scenes,dtd")
    options.add_argument("--explained", type=int, default=40)
    return options.parse_args()


if __name__ == "__main__":
    main()
