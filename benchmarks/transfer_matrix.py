"""Vectors of several sources on all targets: where does transfer gain, where does it fail?

    python benchmarks/transfer_matrix.py imagenet=FILE flowers=FILE ... --data DATA --weights DEIT_TINY --work WORK

Every vector is baked into every target's predictor at the vector's own recommended alpha, and its heatmaps are
compared with the unbaked ones on the same pictures: the paired gain in insertion - deletion. --split test takes test
pictures, train those held out of training. NAME is the source's; where DATA has a folder of that name, its likeness
to every target is the cosine of the mean class-token features that the models' common base has for 64 (training)
pictures of each. Finished pairs are kept in WORK, so an interrupted run goes on. With --write every
vector's file gets its records: `edgex vector info` shows them, and `edgex bake` warns of targets that it failed on.
Results go to results/transfer_matrix.json, .md and .png.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import RESULTS, log, save
from figures import INSERTION_MINUS_DELETION, figure, measured_where
from targets import (
    BASE,
    METRIC_IN_WORDS,
    TARGETS,
    Setting,
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
from edgex.data import image_folders
from edgex.files import zoo
from edgex.files.model_file import load_card
from edgex.files.vector_file import load_vector_card
from edgex.importers.base_weights import load_base
from edgex.models import backbones
from edgex.models.self_explaining import normalise
from edgex.utils import devices
from edgex.utils.statistics import Estimate
from edgex.vectors.bake import add_vector
from edgex.vectors.transfer import TransferRecord, records_of, write_records

FEATURES_OF = 64


def main() -> None:
    arguments = _arguments()
    setting = Setting.of(arguments)
    vectors = {name: zoo.resolve(file, "vector") for name, file in (text.split("=", 1) for text in arguments.vectors)}
    report: dict[str, Any] = {
        "metric": f"{METRIC_IN_WORDS}, baked minus unbaked",
        "pictures": f"{arguments.split}, {arguments.explained} each, evenly spread",
        "similarity": f"cosine of the base's mean class-token features over {FEATURES_OF} pictures",
        "precision_of_masked_passes": arguments.precision,
        "machine": machine(("torch", "timm")),
        "vectors": {name: described(path) for name, path in vectors.items()},
        "pairs": {name: {} for name in vectors},
    }
    for target in arguments.targets.split(","):
        for name, vector in vectors.items():
            log(f"{name} onto {target}")
            report["pairs"][name][target] = pair(name, vector, target, setting, arguments)
        # After every target, so that a stopped run leaves what it had.
        save(report, table(report), arguments.out)
        plot(report, arguments.out.with_suffix(".png"))
    if arguments.write:
        for name, vector in vectors.items():
            write(vector, [record_of(target, found) for target, found in report["pairs"][name].items()])
            report["vectors"][name] = described(vector)
        save(report, table(report), arguments.out)


def pair(name: str, vector: Path, target: str, setting: Setting, arguments: argparse.Namespace) -> dict[str, Any]:
    """One vector on one target: paired gain, accuracy before and after, similarity of source and target."""
    path = trained(target, setting)
    folder = folder_of(target, setting)
    alpha = load_vector_card(vector)[0].alpha
    settings = {
        "predictor": load_card(path)[1],
        "split": arguments.split,
        "explained": arguments.explained,
        "precision": setting.precision,
    }

    def measure() -> dict[str, Any]:
        pictures = pictures_of(folder, path, arguments.split)

        def alone() -> dict[str, Any]:
            found = own(path, pictures, arguments.explained, setting)
            return {"values": found.values.tolist(), "correct": found.correct.tolist()}

        unbaked = remembered(setting.work, f"unbaked-{target}", settings, alone)
        correct = np.array(unbaked["correct"], dtype=bool)
        with tempfile.TemporaryDirectory(dir=setting.work) as place:
            baked = Path(place) / f"{name}-{target}.safetensors"
            add_vector(path, vector, baked, alpha=alpha)
            found = own(baked, pictures, arguments.explained, setting, (path, correct))
        before, after = float(correct.mean()), float(found.correct.mean())
        return {
            "gain": Estimate.of(found.values - np.array(unbaked["values"])).with_interval(),
            "unbaked": Estimate.of(unbaked["values"]).to_dict(),
            "accuracy": {"unbaked": before, "baked": after, "n": len(pictures)},
            "accuracy_change": 100 * (after - before),
            "alpha": alpha,
        }

    kept = remembered(
        setting.work, f"pair-{target}", {**settings, "vector": identity_of(vector), "alpha": alpha}, measure
    )
    return {**kept, "similarity": similarity(setting.data / name, setting.data / target, setting)}


def similarity(source: Path, target: Path, setting: Setting) -> float | None:
    """Cosine of two folders' mean features; None where the source's pictures are not there."""
    if not source.is_dir():
        return None
    one, other = mean_features(source, setting), mean_features(target, setting)
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


@functools.cache
def mean_features(folder: Path, setting: Setting) -> np.ndarray:
    """Mean class token behind the base's final norm, float64 [D], over pictures of a folder, or of its train."""
    backbone, base = load_base(backbones.architecture(BASE), setting.weights)
    shown = folder / "train" if image_folders.has_split(folder, "train") else folder

    def measure() -> dict[str, Any]:
        where = devices.device_of("auto")
        backbone.module.to(where).eval()
        preprocessing = backbone.preprocessing
        pictures = image_folders.load_batch(
            image_folders.subsample_evenly(image_folders.list_images([shown]), FEATURES_OF), preprocessing
        )
        with torch.inference_mode():
            images = torch.from_numpy(pictures).to(where)
            tokens = backbone.embed(normalise(images, preprocessing.mean, preprocessing.std))
            for block in backbone.blocks:
                tokens = block.module(tokens)
            features = backbone.norm(tokens)[:, 0]
        return {"mean": features.double().mean(dim=0).tolist()}

    settings = {"base": base.fingerprint, "pictures": FEATURES_OF, "folder": folder.name}
    return np.array(remembered(setting.work, f"features-{folder.name}", settings, measure)["mean"])


def record_of(target: str, found: dict[str, Any]) -> TransferRecord:
    gain = found["gain"]
    return TransferRecord(
        target,
        gain["mean"],
        gain["standard_error"],
        gain["n"],
        found["accuracy_change"],
        found["alpha"],
        found["similarity"],
    )


def write(vector: Path, records: list[TransferRecord]) -> None:
    """Puts the records into the vector's header; those of targets that were not measured now stay."""
    measured = {record.target for record in records}
    earlier = records_of(load_vector_card(vector)[0].metrics)
    digest = write_records(vector, [*records, *(r for r in earlier if r.target not in measured)])
    log(f"{vector.name}: {len(records)} records written, sha256 {digest[:12]}")


def table(report: dict[str, Any]) -> str:
    """Markdown: gains with standard errors, accuracy changes and similarities, then the failures in words."""
    pairs = report["pairs"]
    columns = list(next(iter(pairs.values())))
    head = [f"| vector of | alpha | {' | '.join(columns)} | mean |", "|" + "---|" * (len(columns) + 3)]
    gains, others, failed = [*head], [*head], []
    for name, row in pairs.items():
        records = {target: record_of(target, row[target]) for target in columns}
        alpha = f"{report['vectors'][name]['alpha']:g}"
        cells = [_marked(plus_minus(row[t]["gain"], sign="+"), r) for t, r in records.items()]
        mean = float(np.mean([r.gain for r in records.values()]))
        gains.append(f"| {name} | {alpha} | {' | '.join(cells)} | {mean:+.3f} |")
        likeness = {t: "" if r.similarity is None else f" ({r.similarity:.2f})" for t, r in records.items()}
        changes = [f"{r.accuracy_change:+.2f}{likeness[t]}" for t, r in records.items()]
        mean = float(np.mean([r.accuracy_change for r in records.values()]))
        others.append(f"| {name} | {alpha} | {' | '.join(changes)} | {mean:+.2f} |")
        failed += [f"- {name} onto {target}: {r.failure}" for target, r in records.items() if r.failure]
    return "\n".join(
        [
            f"Paired gain in {report['metric']}; {report['pictures']}. Bold: the 95% interval lies below 0.",
            "",
            *gains,
            "",
            f"Accuracy change in points; in brackets the similarity of source and target ({report['similarity']}).",
            "",
            *others,
            "",
            *(failed or ["No pair failed: no interval below 0, no more than one point of accuracy lost."]),
            "",
        ]
    )


def _marked(text: str, record: TransferRecord) -> str:
    return f"**{text}**" if record.interval[1] < 0 else text


def plot(report: dict[str, Any], out: Path) -> None:
    """The matrix of gains; framed where the interval lies below 0, starred where accuracy fell by over a point."""
    from matplotlib.patches import Rectangle

    pairs = report["pairs"]
    sources, columns = list(pairs), list(next(iter(pairs.values())))
    values = np.array([[pairs[s][t]["gain"]["mean"] for t in columns] for s in sources])
    limit = max(float(np.abs(values).max()), 1e-3)
    subtitle = (
        "What a vector that was learned on one data set adds to the faithfulness of another's heatmaps, ± standard "
        f"error (pictures: {report['pictures']}). Blue: more faithful. Black frame: the gain's 95% interval lies below "
        f"0. *: accuracy fell by more than a percentage point. {INSERTION_MINUS_DELETION}."
    )
    size = (3 + 0.95 * len(columns), 1.6 + 0.75 * len(sources))
    title = f"Vectors of {len(sources)} sources on {len(columns)} data sets"
    with figure(out, title, subtitle, measured_where(report), size) as (drawn, axes):
        picture = axes.imshow(values, cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto")
        for row, source in enumerate(sources):
            for column, target in enumerate(columns):
                record = record_of(target, pairs[source][target])
                star = "*" if record.failure and "accuracy" in record.failure else ""
                axes.text(
                    column,
                    row,
                    f"{record.gain:+.3f}{star}\n±{record.standard_error:.3f}",
                    ha="center",
                    va="center",
                    fontsize=9,
                    color="white" if abs(record.gain) > 0.6 * limit else "black",
                )
                if record.interval[1] < 0:
                    corner = (column - 0.46, row - 0.45)
                    axes.add_patch(Rectangle(corner, 0.92, 0.9, fill=False, edgecolor="black", linewidth=2.5))
        axes.set_xticks(range(len(columns)), columns, rotation=30, ha="right")
        axes.set_yticks(range(len(sources)), sources)
        axes.set_xlabel("classifier that the vector is added to")
        axes.set_ylabel("vector learned on")
        drawn.colorbar(picture, ax=axes, label="gain in insertion minus deletion")


def _arguments() -> argparse.Namespace:
    options = parser(__doc__, RESULTS / "transfer_matrix.json")
    options.add_argument("vectors", nargs="+", metavar="NAME=FILE", help="source's name and vector (file or zoo name)")
    options.add_argument("--targets", default=",".join(TARGETS))
    options.add_argument("--split", choices=("test", "train"), default="test")
    options.add_argument("--explained", type=int, default=50)
    options.add_argument("--write", action="store_true", help="put the records into the vectors' files")
    found = options.parse_args()
    if any("=" not in text for text in found.vectors):
        options.error(f"expected NAME=FILE for every vector, found {', '.join(found.vectors)}")
    return found


if __name__ == "__main__":
    main()
