"""What the files beside weights state: architecture, classes and preprocessing, as each library writes them.

- timm: config.json with "architecture" and "pretrained_cfg" (`timm.models.save_for_hf`);
- transformers: config.json with "architectures", and preprocessor_config.json or processor_config.json
  (`save_pretrained`);
- open_clip: open_clip_config.json with "model_cfg" and "preprocess_cfg" (`open_clip.push_to_hf_hub`).

What is made of it, beside what the caller asks for, is decided in `edgex.importers.settings`; the tensors are read in
`edgex.importers.weights`.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from edgex.errors import ArtefactError, UnsupportedError
from edgex.importers.checkpoint_files import TRAINER_CHECKPOINT
from edgex.importers.transformers import registry, zero_shot_clip
from edgex.models.backbones.options import OPTIONS, checked_options
from edgex.runtime import schema
from edgex.runtime.json_text import read_json
from edgex.runtime.preprocessing import INTERPOLATIONS
from edgex.runtime.view import Fit

CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
PROCESSOR = "processor_config.json"
"""What transformers 5 writes for a processor of pictures and texts, such as CLIP's; it holds that of pictures."""
OPEN_CLIP = "open_clip_config.json"
T = TypeVar("T")
FILES = (CONFIG, PREPROCESSOR, PROCESSOR, OPEN_CLIP)
Source = Path | str
"""What states something: a file, or the name of an entry in a library's own list of published weights."""

# Arguments of timm's models that leave the structure and the result of inference as they are, and those read here.
_TIMM_ARGUMENTS = (
    *("num_classes", "img_size", "global_pool", "pretrained", "checkpoint_path"),
    *("dynamic_img_size", "dynamic_img_pad", "strict_img_size"),
)
_TIMM_POOLINGS = {"map": "attention"}
"""timm's names of poolings -> ours, where they differ."""
_SIDE = schema.whole(1, schema.MAX_SIDE)
# PIL's filters by the numbers that transformers stores.
_FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")


@dataclasses.dataclass
class Stated:
    """What files state; a setting that they say nothing of is missing from `values`.

    values: "arch" (edgex's name), "options" (what differs from the named model), "image_size" (height, width),
        "pooling", "classes" (a tuple of names), "multi_label" (whether each class has a sigmoid of its own), "mean",
        "std", "interpolation", and for the resize before the centre crop either "resize" (as in `Preprocessing`, at
        image_size) or "crop_pct" (the crop's share of it) and "fit".
    refusals: setting -> why edgex cannot do what is stated. It matters only where the caller does not set it.
    sources: setting -> name of the file that states it.
    files: the files that were read. notes: lines for people on what is taken otherwise than stated.
    """

    values: dict[str, Any] = dataclasses.field(default_factory=dict)
    refusals: dict[str, str] = dataclasses.field(default_factory=dict)
    sources: dict[str, str] = dataclasses.field(default_factory=dict)
    files: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()

    def add(self, file: Source, **values: Any) -> None:
        """Takes settings from a file or a library's own list; None is no statement."""
        given = {name: value for name, value in values.items() if value is not None}
        self.values |= given
        self._note(file, given)

    def refuse(self, file: Source, setting: str, reason: str) -> None:
        """Notes that edgex cannot do what a file states of a setting."""
        self.refusals[setting] = f"{file}: {reason}"
        self._note(file, [setting])

    def without(self, *settings: str) -> Stated:
        """The same without what is said of some settings."""
        values, refusals, sources = (
            {name: value for name, value in said.items() if name not in settings}
            for said in (self.values, self.refusals, self.sources)
        )
        return Stated(values, refusals, sources, self.files, self.notes)

    def _note(self, file: Source, settings: Iterable[str]) -> None:
        self.sources |= dict.fromkeys(settings, file.name if isinstance(file, Path) else file)
        if isinstance(file, Path):
            self.files = tuple(dict.fromkeys((*self.files, file)))


def beside(weights: str | os.PathLike[str]) -> Stated:
    """What is stated beside a file of weights, or in a folder of them; nothing where no known file is there.

    Raises ArtefactError for a configuration that cannot be read or holds another type than its library writes,
    UnsupportedError for a model that edgex cannot make.
    """
    weights = Path(weights)
    folder = weights if weights.is_dir() else weights.parent
    stated = Stated()
    config, open_clip = folder / CONFIG, folder / OPEN_CLIP
    if open_clip.is_file() and (weights.name.startswith("open_clip") or not config.is_file()):
        read_open_clip(open_clip, _object(read_json(open_clip), open_clip), stated)
        return stated
    any_size = None
    content = read_json(config) if config.is_file() else None
    if not isinstance(content, dict):
        content = {}  # some other program's file
    if isinstance(content.get("architecture"), str) or isinstance(content.get("pretrained_cfg"), dict):
        read_timm(config, content, stated)
    elif "architectures" in content or "model_type" in content:
        any_size = _read_transformers(config, content, stated)
    if (processor := _processor(folder)) is not None:
        said = _object(read_json(processor), processor)
        if processor.name == PROCESSOR:
            said = _object(said.get("image_processor") or {}, processor, "image_processor")
        _read_processor(processor, said, stated)
    if any_size is not None and "image_size" not in stated.sources:
        _add_size(stated, config, "image_size", any_size)
    return stated


def _processor(folder: Path) -> Path | None:
    """The processor's file, if there is one: a Trainer saves it beside its checkpoints, or in every one of them."""
    folders = [folder, folder.parent] if TRAINER_CHECKPOINT.fullmatch(folder.name) else [folder]
    files = (folder / name for folder in folders for name in (PREPROCESSOR, PROCESSOR))
    return next((file for file in files if file.is_file()), None)


def read_timm(file: Source, content: Mapping[str, Any], stated: Stated) -> None:
    """Reads timm's config.json, or the entry of its own list of pretrained models under "pretrained_cfg"."""
    cfg = _object(content.get("pretrained_cfg", content), file, "pretrained_cfg")
    arguments = _object(content.get("model_args") or {}, file, "model_args")
    options = {
        name: value
        for name, value in arguments.items()
        if name not in _TIMM_ARGUMENTS and not name.endswith("_rate") and value is not None
    }
    for name in options:
        if name not in OPTIONS and options[name] is not False:
            raise UnsupportedError(
                f"{file}: the model was made with {name}={repr(options[name])[:60]}, which edgex cannot build: "
                f"expected a model of timm that has a name of its own, or some of the options {', '.join(OPTIONS)}"
            )
    options = {name: value for name, value in options.items() if name in OPTIONS and (name, value) != ("in_chans", 3)}
    if isinstance(cfg.get("input_size"), (list, tuple)) and len(cfg["input_size"]) == 3 and cfg["input_size"][0] == 1:
        options["in_chans"] = 1
    schema.checked(checked_options, options, _where(file, "model_args"))
    _add_size(stated, file, "img_size", arguments.get("img_size") or cfg.get("input_size"))
    pooling = content.get("global_pool") or arguments.get("global_pool")
    architecture = content.get("architecture") or cfg.get("architecture")
    stated.add(
        file,
        arch=f"timm/{_text(architecture, file, 'architecture')}" if architecture else None,
        options=options or None,
        pooling=_TIMM_POOLINGS.get(_text(pooling, file, "global_pool"), pooling) if pooling else None,
        classes=_names(content.get("label_names") or cfg.get("label_names"), file, "label_names"),
        mean=_channels(cfg.get("mean"), file, "mean"),
        std=_channels(cfg.get("std"), file, "std"),
        crop_pct=_checked(_share, cfg.get("crop_pct"), file, "crop_pct"),
    )
    _add_interpolation(stated, file, cfg.get("interpolation"))
    _add_mode(stated, file, cfg.get("crop_mode") or "center", {"center": "crop", "squash": "squash", "border": "pad"})


def _read_transformers(file: Path, content: Mapping[str, Any], stated: Stated) -> tuple[int, int] | None:
    """Reads transformers' config.json; returns the size of a model that takes pictures of any other size as well."""
    name = registry.class_of(content)
    if name is None:
        raise UnsupportedError(f"{file}: expected architectures with the name of a class, found none")
    stated.add(file, classes=_labels(content.get("id2label"), file))
    _add_problem(stated, file, content.get("problem_type"))
    described = registry.describe(name, content, str(file))
    if described is None:
        stated.add(file, arch=zero_shot_clip.open_clip_architecture(content, str(file)))
        vision = _object(content.get("vision_config") or content, file, "vision_config")
        _add_size(stated, file, "image_size", vision.get("image_size"))
        return None
    stated.add(file, arch=described.arch, options=described.options or None, pooling=described.pooling)
    if described.resizes:
        return described.image_size
    _add_size(stated, file, "image_size", described.image_size)
    return None


def _add_problem(stated: Stated, file: Path, problem: Any) -> None:
    """transformers' problem_type, which says what the model's loss was: of one class, of several, of a number."""
    problems = {"single_label_classification": False, "multi_label_classification": True}
    if problem == "regression":
        stated.refuse(
            file,
            "multi_label",
            "the model was trained for regression, so that its outputs are measures and no scores of classes: expected "
            "a classifier",
        )
    elif problem is not None:
        stated.add(
            file, multi_label=problems[schema.checked(schema.one_of(*problems), problem, f"{file}: problem_type")]
        )


def _read_processor(file: Path, content: Mapping[str, Any], stated: Stated) -> None:
    """transformers' preprocessor_config.json: resize, centre crop, rescale, normalise, each if its "do_" says so."""
    kind = content.get("image_processor_type") or content.get("feature_extractor_type")
    if kind is None and "image_mean" not in content:
        return  # of sound or text
    for step in ("do_flip_channel_order", "do_pad", "do_thumbnail", "do_align_long_axis"):
        if _flag(content, step, file, default=False):
            stated.refuse(file, "resize", f"edgex has no step '{step}'")
    _add_scale(stated, file, content)
    number = content.get("resample")
    if number is not None:
        name = _FILTERS[number] if isinstance(number, int) and 0 <= number < len(_FILTERS) else str(number)
        _add_interpolation(stated, file, name)
    _add_resize(stated, file, content, square=not str(kind).startswith("CLIP"))


def _add_scale(stated: Stated, file: Source, content: Mapping[str, Any]) -> None:
    """mean and std for pixels in [0, 1], whichever factor the file multiplies pixels in [0, 255] by."""
    factor = _checked(schema.positive, content.get("rescale_factor"), file, "rescale_factor") or 1 / 255
    unit = 255.0 * factor if _flag(content, "do_rescale", file) else 255.0
    unit = 1.0 if math.isclose(unit, 1.0, rel_tol=1e-6) else unit
    if _flag(content, "do_normalize", file):
        mean, std = (_channels(content.get(name), file, name) for name in ("image_mean", "image_std"))
    else:
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    stated.add(
        file,
        mean=None if mean is None else tuple(value / unit for value in mean),
        std=None if std is None else tuple(value / unit for value in std),
    )


def _add_resize(stated: Stated, file: Source, content: Mapping[str, Any], *, square: bool) -> None:
    """The resize and the centre crop. square: a plain number under "size" stands for both sides."""
    size, crop = content.get("size"), content.get("crop_size")
    crops = _flag(content, "do_center_crop", file, default=crop is not None)
    short_side = size.get("shortest_edge") if isinstance(size, dict) else None if square else size
    both = size if square or (isinstance(size, dict) and {"height", "width"} <= size.keys()) else None
    if not _flag(content, "do_resize", file):
        stated.refuse(file, "resize", _no_resize("do_resize false"))
    elif short_side is not None and crops:
        stated.add(file, resize=_checked(_SIDE, short_side, file, "size"))
    elif both is not None and short_side is None:
        stated.add(file, resize=_checked(_sides, both, file, "size"))
        _add_size(stated, file, "size", None if crops else both)
    elif size is not None:
        stated.refuse(file, "resize", _no_resize(f"size {size}" + (" without a centre crop" if not crops else "")))
    _add_size(stated, file, "crop_size", crop if crops else None)


def read_open_clip(file: Source, content: Mapping[str, Any], stated: Stated) -> None:
    """Reads open_clip_config.json, or the entry of its own list of pretrained weights under "preprocess_cfg"."""
    model = _object(content.get("model_cfg") or {}, file, "model_cfg")
    vision = _object(model.get("vision_cfg") or {}, file, "vision_cfg")
    cfg = _object(content.get("preprocess_cfg") or {}, file, "preprocess_cfg")
    _add_size(stated, file, "size", cfg.get("size") or vision.get("image_size"))
    stated.add(
        file,
        arch=_open_clip_name(model),
        mean=_channels(cfg.get("mean"), file, "mean"),
        std=_channels(cfg.get("std"), file, "std"),
        crop_pct=1.0,
    )
    _add_interpolation(stated, file, cfg.get("interpolation"))
    _add_mode(stated, file, cfg.get("resize_mode") or "shortest", {"shortest": "crop", "squash": "squash"})


def _open_clip_name(model: Mapping[str, Any]) -> str | None:
    """The name under which open_clip knows a configuration, if it does."""
    if not {"embed_dim", "vision_cfg", "text_cfg"} <= model.keys():
        return None
    import open_clip

    known = (name for name in open_clip.list_models() if open_clip.get_model_config(name) == model)
    name = next(known, None)
    return f"open_clip/{name}" if name else None


def _add_size(stated: Stated, file: Source, name: str, size: Any) -> None:
    if size is None:
        return
    height, width = _checked(_sides, size, file, name) or (0, 0)
    earlier = stated.values.get("image_size")
    if earlier not in (None, (height, width)):
        source = stated.sources["image_size"]
        stated.refuse(
            file,
            "image_size",
            f"crops to {height}x{width} pixels, {source} says {earlier[0]}x{earlier[1]}: give the image size",
        )
        # Where the caller gives one: what the file says of a resize is at its own size.
        stated.values["image_size"] = height, width
    elif earlier is None:
        stated.add(file, image_size=(height, width))


def _add_mode(stated: Stated, file: Source, mode: Any, fits: Mapping[str, Fit]) -> None:
    if _text(mode, file, "mode") in fits:
        stated.add(file, fit=fits[mode])
    else:
        stated.refuse(file, "resize", _no_resize(f"mode '{mode}'"))


def _add_interpolation(stated: Stated, file: Source, name: Any) -> None:
    if name is None:
        return
    stated.add(file, interpolation=_text(name, file, "interpolation"))
    if name not in INTERPOLATIONS:
        stated.refuse(
            file, "interpolation", f"expected interpolation {' or '.join(INTERPOLATIONS)}, found '{str(name)[:60]}'"
        )


def _no_resize(found: str) -> str:
    return f"edgex resizes the short side or both and crops the centre, found {found}: give a resize to do so here"


def _object(value: Any, file: Source, name: str = "") -> dict[str, Any]:
    return schema.checked(schema.mapping, value, _where(file, name))


def _text(value: Any, file: Source, name: str) -> str:
    return schema.checked(schema.text, value, _where(file, name))


def _flag(content: Mapping[str, Any], name: str, file: Source, *, default: bool = True) -> bool:
    value = content.get(name)
    return default if value is None else schema.checked(schema.flag, value, _where(file, name))


def _checked(check: schema.Check[T], value: Any, file: Source, name: str) -> T | None:
    return schema.checked(schema.optional(check), value, _where(file, name))


def _share(value: Any) -> float:
    """A crop's share of a side; a smaller one than a hundredth would only take the memory."""
    if schema.positive(value) < 0.01:
        raise schema.MisfitError(f"expected a number of at least 0.01, found {value}")
    return float(value)


def _sides(value: Any) -> tuple[int, int]:
    """Height and width: of a list, whose first of three is the channels, of an object, or one number for both."""
    if isinstance(value, dict):
        value = schema.object_with(height=_SIDE, width=_SIDE)(value)
        return value["height"], value["width"]
    if isinstance(value, (list, tuple)):
        height, width = schema.row(_SIDE, _SIDE)(value[1:] if len(value) == 3 else value)
        return height, width
    return _SIDE(value), _SIDE(value)


def _channels(value: Any, file: Source, name: str) -> tuple[float, ...] | None:
    """Three numbers; one stands for all channels."""
    if value is None:
        return None
    numbers = value if isinstance(value, (list, tuple)) else [value]
    numbers = numbers * 3 if len(numbers) == 1 else numbers
    return schema.checked(schema.row(*[schema.number] * 3), numbers, _where(file, name))


def _names(value: Any, file: Source, name: str) -> tuple[str, ...] | None:
    """Class names in order: a list, or an object whose keys count from 0."""
    if not value:
        return None
    if isinstance(value, dict):
        try:
            numbered = {int(key): entry for key, entry in value.items()}
            value = [numbered[index] for index in range(len(value))]
        except (KeyError, ValueError):
            raise _mistyped(value, file, name, "names numbered from 0 without gaps") from None
    return schema.checked(schema.listed(schema.text), value, _where(file, name))


def _labels(value: Any, file: Source) -> tuple[str, ...] | None:
    """The names of "id2label", unless they are the numbers that transformers puts where none were given."""
    names = _names(value, file, "id2label")
    return None if names and all(re.fullmatch(r"LABEL_\d+", name) for name in names) else names


def _mistyped(value: Any, file: Source, name: str, expected: str) -> ArtefactError:
    return ArtefactError(f"{_where(file, name)}: expected {expected}, found {repr(value)[:80]}")


def _where(file: Source, name: str) -> str:
    return f"{file}: {name}" if name else f"{file}"
