"""Packs what `gpu_vectors.py` needs into one folder of at most 60 MB: weights in half precision, smaller pictures.

    python benchmarks/pack_gpu_vectors.py --data DATA --weights DEIT_TINY --out PACK

PACK/weights.safetensors are the base's weights. PACK/pictures.tar holds `source/<folder>/...` to learn from, and of
each target `<target>/{train,tune,test}/<class>/...`: `tune` is a part of the target's train split that no predictor
sees, `test` a part of its test split. `marked/{learn,tune}` are training pictures of tinyimagenet with boxes, of which
vectors see those in `learn` alone. Pictures are made smaller where their short side is longer than SIDE pixels, and
stored as WebP.
"""

from __future__ import annotations

import argparse
import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from common import log
from PIL import Image
from safetensors.torch import load_file, save
from targets import RENAMED, TARGETS

from edgex.data import image_folders
from edgex.data.image_folders import subsample_evenly
from edgex.runtime.atomic_files import atomic_output

SIDE = 224
QUALITY = 50
BUDGET = 60e6
BOXED = ("neu",)
TRAIN = {"cars": 0, "gtsrb": 1720, "mnist": 1500, "cifar10": 1500}
"""Pictures of a predictor, where not `--train`: none where edgex has the predictor, all where they are small."""


def main() -> None:
    arguments = _arguments()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with atomic_output(arguments.out / "weights.safetensors") as temporary:
        half = {name: tensor.half() for name, tensor in load_file(arguments.weights).items()}
        temporary.write_bytes(save(half))
    with atomic_output(arguments.out / "pictures.tar") as temporary, tarfile.open(temporary, "w") as archive:
        for name in ("imagenet", "varied"):
            paths = image_folders.list_images([arguments.data / name])
            chosen = subsample_evenly(paths, arguments.source)
            _add(archive, chosen, [f"source/{name}/{path.stem}.webp" for path in chosen])
        _add_marked(archive, arguments.data / "tinyimagenet", arguments.marked)
        for name in TARGETS:
            _add_target(archive, arguments.data / name, name, arguments)
    size = sum(path.stat().st_size for path in arguments.out.iterdir())
    log(f"{arguments.out}: {size / 1e6:.1f} MB")
    if size > BUDGET:
        raise SystemExit(f"expected at most {BUDGET / 1e6:.0f} MB: take fewer pictures (--source, --train, --marked)")


def _add_target(archive: tarfile.TarFile, folder: Path, name: str, arguments: argparse.Namespace) -> None:
    """train: what the predictor learns from; tune: the rest of train, for choices; test: for the report."""
    names = RENAMED.get(name, {})
    training = image_folders.labelled(folder, "train")
    learnt, held = training.split(0.2, 0)
    parts = {"train": (learnt, TRAIN.get(name, arguments.train)), "tune": (held, arguments.tune)}
    parts["test"] = (image_folders.labelled(folder, "test"), arguments.test)
    for part, (pictures, count) in parts.items():
        chosen = subsample_evenly(range(len(pictures)), count)
        paths = [pictures.paths[i] for i in chosen]
        classes = [pictures.paths[i].relative_to(folder).parts[1] for i in chosen]
        places = [
            f"{name}/{part}/{names.get(label, label)}/{number}.webp"
            for number, label in zip(chosen, classes, strict=True)
        ]
        factors = _add(archive, paths, places)
        if name in BOXED:
            known = json.loads((folder / "boxes.json").read_text(encoding="utf-8"))
            _add_boxes(archive, f"{name}/{part}", folder, known, paths, places, factors)


def _add_marked(archive: tarfile.TarFile, folder: Path, count: int) -> None:
    """Training pictures with boxes: nine of ten to learn from, one of ten to look at."""
    known = json.loads((folder / "boxes.json").read_text(encoding="utf-8"))
    paths = subsample_evenly(image_folders.list_images([folder / "train"]), count)
    for part, chosen in (("learn", [p for i, p in enumerate(paths) if i % 10]), ("tune", paths[::10])):
        places = [f"marked/{part}/{path.parent.name}/{path.stem}.webp" for path in chosen]
        factors = _add(archive, chosen, places)
        _add_boxes(archive, f"marked/{part}", folder, known, chosen, places, factors)


def _add(archive: tarfile.TarFile, paths: Sequence[Path], places: Sequence[str]) -> list[float]:
    """Adds pictures; returns how much smaller each was made."""
    factors = []
    for place, (data, factor) in zip(places, _small(paths), strict=True):
        _add_bytes(archive, place, data)
        factors.append(factor)
    return factors


def _small(paths: Sequence[Path]) -> Iterator[tuple[bytes, float]]:
    for path in paths:
        image = image_folders.open_picture(path)
        factor = min(1.0, SIDE / min(image.size))
        if factor < 1:
            size = (round(image.width * factor), round(image.height * factor))
            image = image.resize(size, Image.Resampling.BICUBIC)
        stored = io.BytesIO()
        image.save(stored, "WEBP", quality=QUALITY)
        yield stored.getvalue(), factor


def _add_boxes(
    archive: tarfile.TarFile,
    root: str,
    folder: Path,
    known: dict[str, list[list[float]]],
    paths: Sequence[Path],
    places: Sequence[str],
    factors: Sequence[float],
) -> None:
    found = {}
    for path, place, factor in zip(paths, places, factors, strict=True):
        boxes = known.get(path.relative_to(folder).as_posix())
        if boxes:
            found[place.removeprefix(f"{root}/")] = [[round(value * factor, 1) for value in box] for box in boxes]
    _add_bytes(archive, f"{root}/boxes.json", json.dumps(found).encode())


def _add_bytes(archive: tarfile.TarFile, place: str, data: bytes) -> None:
    entry = tarfile.TarInfo(place)
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))


def _arguments() -> argparse.Namespace:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data", type=Path, required=True)
    made.add_argument("--weights", type=Path, required=True, help="DeiT-tiny's")
    made.add_argument("--out", type=Path, required=True, help="folder to write")
    made.add_argument("--source", type=int, default=2000, help="pictures of each source folder")
    made.add_argument("--marked", type=int, default=3000, help="pictures with boxes")
    made.add_argument("--train", type=int, default=300, help="pictures of each target that its predictor sees")
    made.add_argument("--tune", type=int, default=40, help="pictures of each target for choices")
    made.add_argument("--test", type=int, default=100, help="pictures of each target for the report")
    return made.parse_args()


if __name__ == "__main__":
    main()
