"""Names of the classes of an image folder: class folders, names.json, and their places among a model's classes.

When two names are the same is decided in `edgex.runtime.classes`; which files are pictures, in `image_folders`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgex.errors import DataError
from edgex.runtime import schema
from edgex.runtime.classes import ClassIndex, class_key, class_name, describe_twins, find_twins
from edgex.runtime.json_text import read_json
from edgex.utils.text import nearest


def names_of(class_folders: Sequence[Path], root: Path) -> tuple[str, ...]:
    """The classes of these folders, named by the names.json of `root` or else after the folder.

    Raises DataError where two folders are one class, and for an unusable names.json.
    """
    displayed = {class_key(folder): name for folder, name in display_names(root).items()}
    names = [displayed.get(class_key(folder.name), folder.name) for folder in class_folders]
    for folder, name in zip(class_folders, names, strict=True):
        if not class_key(name):
            remedy = ": rename it" if name == folder.name else " in names.json: give it one there"
            raise DataError(f"the class folder {str(folder)!r} has no name that can be seen{remedy}")
    if twins := find_twins(names):
        first, second = (class_folders[position] for position in twins)
        folders = describe_twins(first.name, second.name)
        named = "" if names[twins[0]] == first.name and names[twins[1]] == second.name else ", by names.json,"
        raise DataError(
            f"the class folders {folders} in {first.parent} have{named} the same name "
            f"'{class_name(names[twins[0]])}': rename one, or put their pictures into one folder"
        )
    return tuple(map(class_name, names))


def display_names(root: Path) -> dict[str, str]:
    """Folder name -> display name from `<root>/names.json`, or from the folder above; {} without one."""
    for place in (root / "names.json", root.parent / "names.json"):
        if place.is_file():
            advice = "map folder names to class names"
            parsed = read_json(place, error=DataError)
            parsed = schema.checked(schema.keyed(schema.text), parsed, str(place), advice=advice, error=DataError)
            folders = list(parsed)
            if twins := find_twins(folders):
                described = describe_twins(*(folders[position] for position in twins))
                raise DataError(f"{place} names one class folder twice: {described}; leave one out")
            return parsed
    return {}


def places_among(
    names: Sequence[str], classes: Sequence[str], folder: Path, *, lack: str = "the model does not know"
) -> list[int]:
    """For each name of a class of `folder`, its position among `classes`, those of a model.

    lack: ends the message about a name that is not among them, "... has a class 'x' that ".

    Raises DataError for a name that is not among them or is there twice, and where two names are one of the classes.
    """
    index = ClassIndex(classes)
    taken: dict[int, str] = {}
    for name in names:
        found = index.numbers(name)
        if not found:
            raise DataError(f"{folder} has a class '{name}' that {lack}{nearest(name, classes)}")
        if len(found) > 1:
            raise DataError(
                f"{folder} has a class '{name}', and several of the model's classes have that name: {found}"
            )
        if found[0] in taken:
            described = describe_twins(taken[found[0]], name)
            raise DataError(f"{folder}: {described} are both the class '{classes[found[0]]}': rename one")
        taken[found[0]] = name
    return list(taken)
