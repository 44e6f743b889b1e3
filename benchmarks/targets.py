"""What the benchmarks of several targets share: their folders, predictors, one rule for alpha, what is kept in WORK.

DATA holds cars, flowers, gtsrb, ... each as <name>/{train,test}/<class>/*.jpg, and is never written to. WORK keeps
trained predictors as <name>.safetensors, heatmaps of other methods, baked models and figures, each named by what it
was made from, so that an interrupted run goes on. Delete WORK/kept after a change to DATA or to what figures mean.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import log
from torch import Tensor

from edgex.data import class_names, image_folders
from edgex.data.image_folders import Pictures
from edgex.evaluation import classification, comparison
from edgex.evaluation.faithfulness import Fill
from edgex.evaluation.measured import MeasuredModel, classifier_digest, own_heatmaps
from edgex.evaluation.methods import parse
from edgex.evaluation.methods.kernel_shap import KernelShap
from edgex.evaluation.plan import Plan
from edgex.evaluation.scores import cached_scores
from edgex.files import zoo
from edgex.files.model_file import load_card, load_model
from edgex.files.tensor_file import TensorFile
from edgex.files.vector_file import VectorCard, load_vector_card
from edgex.runtime.atomic_files import atomic_output
from edgex.training import predictor
from edgex.training.fine_tuning import TrainOptions
from edgex.utils import devices
from edgex.utils.json import finite
from edgex.utils.statistics import Estimate
from edgex.vectors.bake import add_vector

PEERS = "grad-cam,rollout,legrad,attn-lrp,transformer-attribution,recipro-cam"
"""Other methods of few passes, for every report."""
TARGETS = ("cars", "flowers", "gtsrb", "mnist", "cifar10", "dtd", "ucmerced", "scenes", "grocery", "neu")
UPRIGHT = ("gtsrb", "mnist")
"""Targets whose pictures mean something else in a mirror."""
RENAMED = {"grocery": {"brown_cap_mushroom": "mushroom"}}
"""Class folders that are called otherwise in train than in test: folder -> the class's one name."""
BASE = "timm/deit_tiny_patch16_224"
HELD_OUT = 0.1
METRIC = "difference:mean"
METRIC_IN_WORDS = "insertion minus deletion of the predicted class's probability, mean-colour fill, 14 steps"
RULE = "alpha: the vector's own recommended one, the same for every target"


@dataclasses.dataclass(frozen=True)
class Setting:
    """Where pictures, base weights and kept files lie. precision: of the many passes over masked pictures."""

    data: Path
    weights: Path
    work: Path
    precision: str

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Setting:
        """From the options that `parser` adds."""
        return cls(arguments.data, arguments.weights, arguments.work, arguments.precision)


def parser(description: str | None, out: Path) -> argparse.ArgumentParser:
    """The options that all of these benchmarks take."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data", type=Path, required=True)
    made.add_argument("--weights", type=Path, required=True, help="DeiT-tiny's, that predictors are trained from")
    made.add_argument("--work", type=Path, required=True, help="what is kept between runs")
    made.add_argument("--precision", default="auto", help="of the masked passes")
    made.add_argument("--out", type=Path, default=out)
    return made


def remembered(
    work: Path, kind: str, settings: Mapping[str, Any], make: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """What `make` returns, from WORK/kept where the same `settings` were measured before."""
    identity = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    stored = work / "kept" / f"{kind}-{identity[:24]}.json"
    if stored.is_file():
        log(f"{kind}: taken from {stored.name}")
        return dict(json.loads(stored.read_text(encoding="utf-8")))
    made = make()
    with atomic_output(stored) as temporary:
        temporary.write_text(json.dumps(made), encoding="utf-8")
    return made


def folder_of(name: str, setting: Setting) -> Path:
    """A target's folder of train and test; one with links to them where its class folders need other names."""
    if name not in RENAMED:
        return setting.data / name
    return with_names(setting.data / name, RENAMED[name], setting.work / "folders" / name)


def with_names(folder: Path, names: Mapping[str, str], place: Path) -> Path:
    """Makes `place`: links to the train and test of `folder`, and a names.json of their class folders."""
    place.mkdir(parents=True, exist_ok=True)
    for split in ("train", "test"):
        link = place / split
        link.unlink(missing_ok=True)
        link.symlink_to((folder / split).resolve(), target_is_directory=True)
    known = {**class_names.display_names(folder), **names}
    (place / "names.json").write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    return place


def trained(name: str, setting: Setting) -> Path:
    """The target's predictor, trained by the same recipe for all where WORK has none; `cars` is the built-in one."""
    if name == "cars":
        return zoo.BUILT_IN / "cars.safetensors"
    path = setting.work / f"{name}.safetensors"
    if not path.is_file():
        options = TrainOptions(epochs=4, batch_size=32, learning_rate=1e-4, mirror=name not in UPRIGHT)
        predictor.train(
            folder_of(name, setting),
            BASE,
            setting.weights,
            path,
            options,
            name=name,
            resize=224,
            val_fraction=HELD_OUT,
            dtype=torch.float16,
            report=log,
        )
    return path


def pictures_of(folder: Path, path: Path, split: str) -> Pictures:
    """The test pictures of a folder, or those held out of train ("train"), with the classes of the model at `path`."""
    found = image_folders.labelled(folder, split)
    chosen = found.split(HELD_OUT, 0)[1] if split == "train" else found
    return image_folders.remap_labels(chosen, load_card(path)[0].classes, folder)


def described(vector: Path) -> dict[str, Any]:
    """What a report says of a vector."""
    card, digest = load_vector_card(vector)
    return {
        "name": card.name,
        "sha256": digest,
        "tensors_sha256": identity_of(vector),
        "source": card.source,
        "alpha": card.alpha,
        "evidence": card.evidence.to_dict(),
    }


@functools.cache
def identity_of(vector: Path) -> str:
    """Digest of what a vector adds to a model: its tensors and evidence, not what was measured of it since."""
    with TensorFile(vector) as file:
        card = VectorCard.from_metadata(file.metadata, vector)
        digest = hashlib.sha256(json.dumps(card.evidence.to_dict(), sort_keys=True).encode())
        for name, spec in file.tensors.items():
            digest.update(f"{name} {spec.dtype} {spec.shape}".encode())
            digest.update(file.read_bytes(name))
    return digest.hexdigest()


def baked_file(path: Path, vector: Path, alpha: float, work: Path) -> Path:
    """The baked model, kept until its predictor or vector changes."""
    out = work / "baked" / f"{path.stem}-{load_card(path)[1][:8]}-{identity_of(vector)[:12]}-{alpha:g}.safetensors"
    if not out.is_file():
        add_vector(path, vector, out, alpha=alpha)
    return out


@dataclasses.dataclass(frozen=True)
class Own:
    """What a model is by itself: whether it is right on each of N pictures; insertion minus deletion of its heatmaps
    of n of them, float64 [n], and the heatmaps, [n, gh, gw].
    """

    correct: np.ndarray
    values: np.ndarray
    heatmaps: Tensor


def own(
    path: Path, pictures: Pictures, explained: int, setting: Setting, before: tuple[Path, np.ndarray] | None = None
) -> Own:
    """Measures a model's own heatmaps with METRIC, on at most `explained` of the pictures, evenly spread.

    What WORK/heatmaps holds is not measured again. before: the model that it was baked from, and what that was right
    on; a baked model that makes its classes of the same weights is right on the same.
    """
    loaded = load_model(path)
    model, card = loaded
    model.to(devices.device_of("auto")).freeze()
    if before is not None and classifier_digest(load_model(before[0]).network) == classifier_digest(model):
        correct = before[1]
    else:
        correct = classification.correct(model, pictures, card.preprocessing, title=f"accuracy of {path.stem}")
    measured = MeasuredModel(path.stem, loaded, correct)
    images = torch.from_numpy(
        image_folders.load_batch(image_folders.subsample_evenly(pictures.paths, explained), card.preprocessing)
    )
    made, _ = own_heatmaps(measured, images)
    plan = Plan(fills=("mean",), precision=setting.precision)
    values = cached_scores(measured, images, made, plan, path.stem, setting.work / "heatmaps")[METRIC]
    return Own(correct, values, made.heatmaps)


def against(
    baked: Path,
    unbaked: Path,
    folder: Path,
    rounds: Sequence[tuple[str, int]],
    fills: tuple[Fill, ...],
    setting: Setting,
    reference: KernelShap | None = None,
) -> dict[str, Any]:
    """Baked beside unbaked and other methods on the pictures of a folder: accuracy, every metric, paired differences.

    rounds: (methods, separated by commas; pictures to explain); a round without methods is left out. Other methods
    explain the unbaked model. reference: of Shapley values, for the first round.
    """
    rows: dict[str, Any] = {}
    costs: dict[str, Any] = {}
    agreement: dict[str, Any] = {}
    paired: dict[str, Any] = {}
    accuracy: dict[str, Any] = {}
    for methods, explained in (r for r in rounds if r[0]):
        plan = Plan(
            explained=explained,
            methods=tuple(parse(text) for text in methods.split(",")),
            fills=fills,
            precision=setting.precision,
            reference=None if rows else reference,
        )
        made = comparison.compare(("baked", baked), ("unbaked", unbaked), folder, plan, setting.work / "heatmaps")
        first = made.heatmaps[0]
        accuracy = {s.name: {"mean": float(s.correct.mean()), "n": len(s.correct)} for s in made.models}
        for row in made.heatmaps:
            if row.name in rows:
                continue
            rows[row.name] = {key: Estimate.of(values).to_dict() for key, values in row.values.items()}
            costs[row.name] = {"passes": str(row.cost), **finite({"milliseconds": row.milliseconds})}
            if row is not first:
                paired[row.name] = {key: e.with_interval() for key, e in made.paired(first, row).items()}
        agreement = agreement or {name: Estimate.of(found).to_dict() for name, found in made.reliability.items()}
    change = 100 * (accuracy["baked"]["mean"] - accuracy["unbaked"]["mean"])
    return {
        "accuracy": accuracy,
        "accuracy_change": change,
        "methods": rows,
        "baked_minus": paired,
        "costs": costs,
        "reference_halves": agreement,
    }


def methods_of(found: Mapping[str, Any], key: str) -> list[str]:
    """What was measured on any target, without the crossed rows (heatmaps of one model on another)."""
    return list(dict.fromkeys(m for t in found.values() for m in t[key] if comparison.ON_ORIGINAL not in m))


def plus_minus(estimate: Mapping[str, Any], digits: int = 3, sign: str = "") -> str:
    """ "0.273 ± 0.027", with the sign always where `sign` is "+"."""
    return f"{estimate['mean']:{sign}.{digits}f} ± {estimate['standard_error']:.{digits}f}"


def bracketed(estimate: Mapping[str, Any], digits: int = 4) -> str:
    """ "+0.0123 [+0.0010, +0.0236]"."""
    low, high = estimate["interval"]
    return f"{estimate['mean']:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"
