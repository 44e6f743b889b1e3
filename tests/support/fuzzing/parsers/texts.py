"""Text and JSON that people write or other programs leave beside files."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from fuzzing.campaign import picked
from fuzzing.mutations import changed_json, damaged, encoded, json_text
from fuzzing.parser import Case, Parser
from fuzzing.parsers.artefacts import CLASSES, write_model, write_pictures

_NAMES = ["cat", "Straße", "猫", "traffic light"]


def class_files() -> Parser:
    """`--classes @FILE`, text or JSON. Wrongly accepted: an empty name, two equal ones, one that is not printable."""
    return Parser("classes", _class_bases, _mutate, _classes, _wrong_classes, names_file=False)


def names_files() -> Parser:
    """names.json beside class folders. Wrongly accepted: as for class files."""
    return Parser("names", _names_bases, _mutate, _display_names, _wrong_display_names)


def boxes_files() -> Parser:
    """boxes.json beside pictures. Wrongly accepted: a box that is no four finite numbers."""
    return Parser("boxes", _boxes_bases, _mutate, _annotations, _wrong_annotations)


def configurations() -> Parser:
    """config.json and preprocessor_config.json beside imported weights. Wrongly accepted: unusable preprocessing."""
    return Parser(
        "configuration", _configuration_bases, _mutate, _import_beside, _wrong_preprocessing, names_file=False
    )


def bake_records() -> Parser:
    """The newest bake's record in the home. Wrongly accepted: another file than the one that was baked."""
    return Parser("bake-record", _record_bases, _mutate, _newest_bake, _wrong_bake, names_file=False)


def _mutate(random: Random, bases: Sequence[Case]) -> Case:
    base = picked(random, bases)
    if base.suffix.endswith(".json") and random.random() < 0.7:
        return Case(encoded(json_text(random, changed_json(random, json.loads(base.data)))), base.suffix)
    return Case(damaged(random, base.data, [other.data for other in bases]), base.suffix)


def _json(value: Any, suffix: str = ".json") -> Case:
    return Case(json.dumps(value).encode(), suffix)


def _class_bases(folder: Path) -> Sequence[Case]:
    return [Case("\n".join(_NAMES).encode() + b"\n", ".txt"), _json(_NAMES)]


def _classes(path: Path) -> Any:
    from edgex.importers.class_heads import parse_classes

    return parse_classes(f"@{path}")


def _wrong_classes(meaning: Any, case: Case) -> str | None:
    for name in meaning:
        if type(name) is not str or not name.strip():
            return "a class without a name"
        if any(unicodedata.category(character) in ("Cc", "Cs") or character in "\ufeff\u202e" for character in name):
            return "a name that is not printable"
    forms = {unicodedata.normalize("NFC", name.strip()) for name in meaning}
    return "two equal names" if len(forms) < len(meaning) else None


def _names_bases(folder: Path) -> Sequence[Case]:
    for name in ("n01", "n02"):
        write_pictures(folder / "data" / name, 1)
    return [_json({"n01": "cat", "n02": "Straße", "n99": "elsewhere"})]


def _display_names(path: Path) -> Any:
    from edgex.data import image_folders

    place = path.with_name("data") / "names.json"
    place.write_bytes(path.read_bytes())
    try:
        return image_folders.labelled(place.parent).classes
    except Exception as error:
        # The copy is what the message names.
        error.args = tuple(str(argument).replace("names.json", path.name) for argument in error.args)
        raise


def _wrong_display_names(meaning: Any, case: Case) -> str | None:
    return _wrong_classes(meaning, case) if len(meaning) == 2 else "another number of classes"


def _boxes_bases(folder: Path) -> Sequence[Case]:
    write_pictures(folder / "boxed")
    return [_json({"class 0/0.png": [[10, 20, 90, 80]], "class 0/1.png": [[0, 0, 50.5, 60], [60, 60, 99, 99]]})]


def _annotations(path: Path) -> Any:
    from edgex.data.masks import annotations_of

    place = path.with_name("boxed") / "boxes.json"
    place.write_bytes(path.read_bytes())
    try:
        known = annotations_of(place.parent)
        masks = [known.mask(picture) for picture in sorted(place.parent.rglob("*.png"))]
    except Exception as error:
        error.args = tuple(str(argument).replace("boxes.json", path.name) for argument in error.args)
        raise
    return known.boxes, masks


def _wrong_annotations(meaning: Any, case: Case) -> str | None:
    boxes, _ = meaning
    for name, found in boxes.items():
        for box in found:
            if len(box) != 4 or not all(type(number) is float and math.isfinite(number) for number in box):
                return f"no box under {ascii(name)[:30]}"
    return None


_CONFIGURATION = {
    "architecture": "fuzz_vit",
    "num_classes": 4,
    "global_pool": "token",
    "pretrained_cfg": {
        "tag": "fuzz",
        "input_size": [3, 16, 16],
        "interpolation": "bilinear",
        "crop_pct": 0.9,
        "crop_mode": "center",
        "mean": [0.4, 0.5, 0.6],
        "std": [0.2, 0.3, 0.25],
        "num_classes": 4,
        "label_names": ["a", "b", "c", "d"],
        "first_conv": "patch_embed.proj",
        "classifier": "head",
    },
}
_PREPROCESSOR = {
    "do_resize": True,
    "size": {"shortest_edge": 18},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 16, "width": 16},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}


def _configuration_bases(folder: Path) -> Sequence[Case]:
    (folder / "beside").mkdir()
    write_model(folder)
    (folder / "model.pt").rename(folder / "beside" / "model.pt")
    return [_json(_CONFIGURATION, ".timm.json"), _json(_PREPROCESSOR, ".processor.json")]


def _import_beside(path: Path) -> Any:
    from edgex.importers import workflow
    from fuzzing import tiny

    folder = path.with_name("beside")
    for name, suffix in (("config.json", ".timm.json"), ("preprocessor_config.json", ".processor.json")):
        (folder / name).unlink(missing_ok=True)
        if path.name.endswith(suffix):
            (folder / name).write_bytes(path.read_bytes())
    classes = CLASSES if path.name.endswith(".processor.json") else None
    out = path.with_name("imported.safetensors")
    return workflow.import_weights(tiny.ARCH, classes, folder / "model.pt", out=out, force=True).card


def _wrong_preprocessing(meaning: Any, case: Case) -> str | None:
    found = meaning.preprocessing
    numbers = [*found.mean, *found.std, *found.image_size, found.resize]
    if not all(type(number) in (int, float) and math.isfinite(number) for number in numbers):
        return "preprocessing without numbers"
    if min(found.std) <= 0 or min(found.image_size) < 1 or found.resize < 1:
        return "preprocessing that is impossible"
    return _wrong_classes(meaning.classes, case)


@dataclasses.dataclass
class _Bake:
    path: Path = Path()


def _record_bases(folder: Path) -> Sequence[Case]:
    from edgex.files import home
    from edgex.files.model_file import load_card

    _Bake.path = write_model(folder)
    os.environ["EDGEX_HOME"] = str(folder / "home")
    try:
        home.record_bake(_Bake.path, load_card(_Bake.path)[1])
        (record,) = (folder / "home").rglob("*.json")
        return [Case(record.read_bytes(), ".json")]
    finally:
        os.environ["EDGEX_HOME"] = str(folder.parent / "home")


def _newest_bake(path: Path) -> Any:
    from edgex.files import zoo

    before = os.environ["EDGEX_HOME"]
    os.environ["EDGEX_HOME"] = str(path.with_name("home"))
    try:
        (record,) = path.with_name("home").rglob("*.json")
        record.write_bytes(path.read_bytes())
        return zoo.newest_bake()
    finally:
        os.environ["EDGEX_HOME"] = before


def _wrong_bake(meaning: Any, case: Case) -> str | None:
    return None if meaning.samefile(_Bake.path) else "another file than was baked"
