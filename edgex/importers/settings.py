"""Architecture, classes and preprocessing of an imported model: what the caller gives, else what files state, else the
architecture's own.

Reading the files is `edgex.importers.configuration`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgex.errors import ArtefactError, UnsupportedError, UsageError
from edgex.importers.class_heads import class_names
from edgex.importers.configuration import Stated
from edgex.models import backbones
from edgex.models.backbones import Architecture
from edgex.models.backbones.options import shown
from edgex.runtime.classes import class_key, find_twins
from edgex.runtime.preprocessing import Preprocessing, check_fit, covering, enlarged
from edgex.runtime.view import Fit

ARGUMENT = "argument"
"""In `Settings.taken_from`: given by the caller."""
ASSUMED = "assumed"
"""In `Settings.taken_from`: the default of the architecture's name, since nothing states it."""
PREPROCESSING = ("mean", "std", "interpolation", "resize")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a model is made with, and who says so.

    taken_from: setting -> ARGUMENT, ASSUMED or the name of the file that states it. files: the files that were read.
    remarks: lines for people: what was taken from files, what was assumed, where an argument replaced a statement.
    """

    architecture: Architecture
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    multi_label: bool
    taken_from: dict[str, str]
    files: tuple[Path, ...] = ()
    remarks: tuple[str, ...] = ()


def settle(stated: Stated, given: Mapping[str, Any], *, source: str, own_head: bool = True) -> Settings:
    """Decides every setting: an argument before a statement before the architecture's default.

    given: the caller's arguments: "arch", "image_size", "pooling", "classes" (a tuple), "multi_label", "mean", "std",
        "interpolation", "resize", "crop_pct", "fit"; None for those left out. source: names the weights in errors.
        own_head: whether the weights' own head is used, which the stated classes are of.

    Raises UsageError where arguments contradict each other, where architecture or classes are known from nowhere, and
    where the classes given are more or fewer than those stated, or the same in another order; UnsupportedError for a
    statement that edgex cannot follow and that no argument replaces; ArtefactError for a stated value that is none.
    """
    given = {name: value for name, value in given.items() if value is not None}
    stated = stated if own_head else stated.without("classes", "multi_label")
    arch = _value("arch", stated, given)
    if arch is None:
        raise UsageError(
            f"no file beside {source} states the architecture: give it as timm/<model> or open_clip/<model>",
            argument="arch",
        )
    size = _value("image_size", stated, given)
    architecture = backbones.architecture(
        arch, image_size=size, pooling=_value("pooling", stated, given), options=_options(arch, stated)
    )
    taken_from = {name: _source(name, stated, given) for name in ("arch", "image_size", "pooling", "classes")}
    preprocessing, sources = preprocess(stated, given, backbones.build(architecture).preprocessing)
    taken_from |= sources
    if (multi_label := _value("multi_label", stated, given)) is not None:
        taken_from["multi_label"] = _source("multi_label", stated, given)
    classes = _classes(stated, given, source)
    remarks = _remarks(stated, taken_from, architecture, preprocessing, classes)
    if twins := find_twins(classes):
        remarks += (f"classes {twins[0]} and {twins[1]} are both '{classes[twins[0]]}': ask for them by number",)
    return Settings(architecture, classes, preprocessing, bool(multi_label), taken_from, stated.files, remarks)


def _options(arch: str, stated: Stated) -> Mapping[str, Any] | None:
    """The options that are stated of this very architecture."""
    return stated.values.get("options") if stated.values.get("arch") == arch else None


def preprocess(
    stated: Stated, given: Mapping[str, Any], default: Preprocessing
) -> tuple[Preprocessing, dict[str, str]]:
    """The preprocessing for the default's image size, and who says what of it."""
    changes = {name: {name: _value(name, stated, given)} for name in PREPROCESSING[:-1]}
    changes["resize"] = _resize(stated, given, default)
    sources = {name: _source(name, stated, given) for name in PREPROCESSING}
    result = default
    for name, change in changes.items():
        if None in change.values():
            continue
        try:
            result = dataclasses.replace(result, **change)
        except UsageError as error:
            if sources[name] == ARGUMENT:
                raise UsageError(str(error), argument=name) from None
            raise ArtefactError(f"{sources[name]}: {error}") from None
    return result, sources


def _resize(stated: Stated, given: Mapping[str, Any], default: Preprocessing) -> dict[str, Any]:
    """ "resize" and "fit" as in `Preprocessing`; nothing where neither argument nor file says anything of them."""
    fit = given.get("fit") and check_fit(given["fit"])
    named = [name for name in ("resize", "crop_pct") if name in given]
    if len(named) == 2:
        raise UsageError("resize and crop_pct say the same: leave one of them out", argument="crop_pct")
    if named and fit == "pad":
        raise UsageError("a padded picture is scaled to the input itself: leave this out", argument=named[0])
    if "resize" in given:
        box = covering(int(given["resize"]), default.image_size)
        return {"resize": (box, box) if fit == "squash" and isinstance(box, int) else box, "fit": fit or "crop"}
    if "crop_pct" in given:
        if not 0.01 <= given["crop_pct"] <= 1:
            raise UsageError(f"expected a share from 0.01 to 1, found {given['crop_pct']}", argument="crop_pct")
        fit = fit or stated.values.get("fit", "crop")
        return {"resize": enlarged(default.image_size, given["crop_pct"], fit), "fit": fit}
    if fit is None:
        return _stated_resize(stated, default)
    own = {} if "resize" in stated.refusals else _stated_resize(stated, default)
    same = fit == own.get("fit", default.fit)
    return own if same else {"resize": default.image_size, "fit": fit}


def _stated_resize(stated: Stated, default: Preprocessing) -> dict[str, Any]:
    """As `_resize`, of the files alone."""
    if "resize" in stated.refusals:
        raise UnsupportedError(stated.refusals["resize"])
    if "resize" in stated.values:
        size = stated.values.get("image_size", default.image_size)
        resize = stated.values["resize"]
        fit: Fit = "squash" if isinstance(resize, tuple) else "crop"
        own = dataclasses.replace(default, image_size=size, resize=resize, fit=fit)
        scaled = own.at_image_size(default.image_size)
        return {"resize": scaled.resize, "fit": scaled.fit}
    if "crop_pct" in stated.values:
        fit = stated.values.get("fit", "crop")
        return {"resize": enlarged(default.image_size, stated.values["crop_pct"], fit), "fit": fit}
    return {}


def _value(name: str, stated: Stated, given: Mapping[str, Any]) -> Any:
    if name in given:
        return given[name]
    if name in stated.refusals:
        raise UnsupportedError(stated.refusals[name])
    return stated.values.get(name)


def _source(name: str, stated: Stated, given: Mapping[str, Any]) -> str:
    names = ("resize", "crop_pct", "fit") if name == "resize" else (name,)
    if any(one in given for one in names):
        return ARGUMENT
    return next((stated.sources[one] for one in names if one in stated.sources), ASSUMED)


def _classes(stated: Stated, given: Mapping[str, Any], source: str) -> tuple[str, ...]:
    found, wanted = stated.values.get("classes"), given.get("classes")
    names = wanted if wanted is not None else found
    if names is None:
        raise UsageError(f"no file beside {source} states the classes: give their names", argument="classes")
    # A published configuration may hold two classes of one name, such as ImageNet's cranes.
    classes = class_names(names, twins=wanted is None)
    if found is None or wanted is None or find_twins(found):
        return classes
    where = stated.sources["classes"]
    if len(found) != len(classes):
        raise UsageError(f"expected the {len(found)} classes of {where}, found {len(classes)}", argument="classes")
    places = {class_key(name): index for index, name in enumerate(found)}
    for index, name in enumerate(classes):
        if places.get(class_key(name), index) != index:
            raise UsageError(
                f"class {index} is '{name}' here and '{found[index]}' in {where}: give the names in the order of that "
                "file, or leave them out",
                argument="classes",
            )
    return classes


def _renamed(stated: Stated, classes: tuple[str, ...]) -> list[str]:
    """A warning where the classes have other names than stated."""
    pairs = zip(stated.values["classes"], classes, strict=False)
    others = [(theirs, ours) for theirs, ours in pairs if class_key(theirs) != class_key(ours)]
    if not others:
        return []
    more = f" (and {len(others) - 1} more)" if len(others) > 1 else ""
    source = stated.sources["classes"]
    return [f"warning: class name '{others[0][1]}' as given replaces '{others[0][0]}' of {source}{more}"]


def _remarks(
    stated: Stated,
    taken_from: Mapping[str, str],
    architecture: Architecture,
    preprocessing: Preprocessing,
    classes: tuple[str, ...],
) -> tuple[str, ...]:
    by_source: dict[str, list[str]] = {}
    for name, source in taken_from.items():
        by_source.setdefault(source, []).append(name)
    given, assumed = by_source.pop(ARGUMENT, []), by_source.pop(ASSUMED, [])
    lines = [f"taken from {source}: {', '.join(names)}" for source, names in by_source.items()]
    if unknown := [name for name in assumed if name in PREPROCESSING]:
        lines.append(f"assumed from the name {architecture.name}, since no file states it: {', '.join(unknown)}")
    if architecture.options:
        lines.append(f"{architecture.name} with {shown(architecture.options)}")
    used = {"arch": architecture.name, "image_size": architecture.image_size, "pooling": architecture.pooling}
    used |= {name: getattr(preprocessing, name) for name in PREPROCESSING}
    if "classes" in given and "classes" in stated.values:
        lines += _renamed(stated, classes)
    for name in given:
        source = _source(name, stated, {})
        said = stated.values.get(name)
        if name == "resize" and not stated.refusals:
            said = _stated_resize(stated, preprocessing).get("resize")
        if name in stated.refusals:
            lines.append(f"warning: {name} {_shown(used[name])} as given replaces what {source} states")
        elif said is not None and name in used and used[name] != said:
            lines.append(f"warning: {name} {_shown(used[name])} as given replaces {_shown(said)} of {source}")
    return (*lines, *stated.notes)


def _shown(value: Any) -> str:
    return " ".join(f"{one:g}" for one in value) if isinstance(value, tuple) else str(value)
