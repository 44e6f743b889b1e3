"""Class names and class heads of imported models: a linear head of the weights, one in a file of its own, or zero-shot.

How a zero-shot head is computed is in `edgex.importers.zero_shot`.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from edgex.errors import MismatchError, UnsupportedError, UsageError
from edgex.files import model_file
from edgex.importers.state_dicts import StateDict
from edgex.importers.values import check_weights
from edgex.importers.weights import read_state_dict
from edgex.importers.zero_shot import DEFAULT_TEMPLATES, zero_shot_head
from edgex.models.backbones import Architecture, Backbone
from edgex.models.self_explaining import Head
from edgex.runtime import schema
from edgex.runtime.classes import class_name, describe_twins, find_twins
from edgex.runtime.json_text import read_json, read_text

_LINE_END = re.compile(r"\r\n|\r|\n")


def parse_classes(text: str) -> tuple[str, ...]:
    """Class names from the command line: "cat,dog", or "@file", see `read_classes`; checked by `class_names`."""
    return class_names(read_classes(Path(text[1:])) if text.startswith("@") else text.split(","))


def read_classes(path: str | os.PathLike[str]) -> list[str]:
    """The class names of a UTF-8 file: one a line, a JSON list (.json) or a table of one column (.csv)."""
    path = Path(path)
    if path.suffix.lower() == ".json":
        return list(schema.checked(schema.listed(schema.text), read_json(path), str(path), error=UsageError))
    lines = [line for line in _LINE_END.split(read_text(path)) if class_name(line)]
    if path.suffix.lower() != ".csv":
        return lines
    rows = list(csv.reader(lines, skipinitialspace=True))
    if wide := next((row for row in rows if len(row) != 1), None):
        raise UsageError(f"expected one column of class names in {path}, found {len(wide)}: {','.join(wide)[:80]}")
    return [row[0] for row in rows]


def class_names(names: Sequence[str], *, twins: bool = False) -> tuple[str, ...]:
    """The names as a model stores them, see `edgex.runtime.classes`.

    twins: let classes of one name pass, which are then asked for by number.

    Raises UsageError where there are none, where a class has no name, and where two have the same one.
    """
    found = tuple(map(class_name, names))
    if not found or not all(found):
        raise UsageError("expected the names of all classes, every one with a name", argument="classes")
    if not twins and (same := find_twins(found)):
        described = describe_twins(*(names[position] for position in same))
        raise UsageError(
            f"the classes {same[0]} and {same[1]}, counted from 0, have the same name: {described}; give each a name "
            "of its own, such as 'crane (bird)'",
            argument="classes",
        )
    return found


def class_head(
    state: StateDict,
    architecture: Architecture,
    classes: Sequence[str],
    templates: Sequence[str] | None,
    file: Path | None,
    source: str,
    *,
    multi_label: bool = False,
) -> Head:
    """The head from a file of its own, else the weights' linear head, else zero-shot through their text tower.

    A head of one output, whose sigmoid is a probability, becomes a sigmoid head of one class, or, for two names, the
    same as a softmax of two: softmax([0, z]) = [1 - sigmoid(z), sigmoid(z)].

    source: names the weights in errors. multi_label: whether each class has a sigmoid of its own. Raises UsageError
    where classes, templates and head contradict each other or the weights have neither a head nor a text tower,
    MismatchError for a head that is none.
    """
    linear = _read_head(file) if file is not None else state.head
    if templates is not None and linear:
        raise UsageError(
            f"prompt templates make a zero-shot head, but {file or source} has a linear one: leave one out",
            argument="template",
        )
    if linear:
        model_file.check_tensors(linear, source=str(file or source), prefix=model_file.HEAD_PREFIX)
        if "weight" not in linear:
            raise MismatchError(f"{source}: missing tensor 'head.weight' (the class weights)")
        weight, bias = linear["weight"], linear.get("bias")
        one_output = weight.ndim == 2 and len(weight) == 1 and (bias is None or bias.shape == (1,))
        if one_output and len(classes) == 2 and not multi_label:
            both = None if bias is None else torch.cat([torch.zeros_like(bias), bias])
            return Head(torch.cat([torch.zeros_like(weight), weight]), both, kind="linear")
        activation = "sigmoid" if multi_label or one_output else "softmax"
        return Head(weight, bias, kind="linear", activation=activation)
    if not state.text or architecture.family != "open_clip":
        raise UsageError(
            f"{source} has neither a class head nor a text tower for {architecture.name}: give the class weights as a "
            "file",
            argument="head",
        )
    if multi_label and "logit_bias" not in state.text:
        raise UsageError(
            f"{source} has no head for several labels: CLIP's prompts are compared with each other, in a softmax, and "
            "only SigLIP's are with a bias, in a sigmoid for each; give the class weights as a file",
            argument="multi_label",
        )
    if len(classes) < 2 and not multi_label:
        raise UsageError(
            f"expected at least two classes for a zero-shot head, which compares them, found '{classes[0]}' alone",
            argument="classes",
        )
    return zero_shot_head(
        architecture,
        state.text,
        class_names(classes),
        templates or DEFAULT_TEMPLATES,
        activation="sigmoid" if multi_label else "softmax",
        source=source,
    )


def _read_head(path: Path) -> dict[str, Tensor]:
    """A head file's tensors as "weight" and "bias", whatever prefix they have in common."""
    tensors = read_state_dict(path)
    check_weights(tensors, str(path))
    heads = {name.rpartition(".")[2]: tensor for name, tensor in tensors.items()}
    prefixes = {name.rpartition(".")[0] for name in tensors}
    if not {"weight"} <= heads.keys() <= {"weight", "bias"} or len(prefixes) > 1 or heads["weight"].ndim != 2:
        found = ", ".join(f"'{name}' {list(tensor.shape)}" for name, tensor in list(tensors.items())[:3])
        raise MismatchError(f"{path}: expected a weight [C, D] and perhaps a bias [C] of a linear head, found {found}")
    return heads


def check_head(
    head: Head, backbone: Backbone, classes: Sequence[str], source: str, *, names_of: str | None = None
) -> None:
    """Raises MismatchError where a head's shape is not that of the classes on the backbone, UnsupportedError where it
    cannot tell one class from another. names_of: the file that states the classes, if one does.
    """
    count, width = len(classes), backbone.output_width
    shape = tuple(head.weight.shape)
    if shape[1:] != (width,):
        raise MismatchError(
            f"{source}: the head's weight has shape {list(shape)}, expected {[count, width]} for "
            f"{count} classes on {backbone.architecture.name}"
        )
    if head.bias is not None and tuple(head.bias.shape) != shape[:1]:
        raise MismatchError(f"{source}: the head's bias has shape {list(head.bias.shape)}, expected {[shape[0]]}")
    if shape[0] != count:
        binary = "; a head of one output takes one name, or two for its sigmoid below and above one half"
        raise MismatchError(
            f"{source}: the head's weight has shape {list(shape)}, one row for each of {shape[0]} classes, found "
            f"{count} class names{f' in {names_of}' if names_of else ''}: give all names in the order of the rows"
            f"{binary if shape[0] == 1 else ''}"
        )
    if bool((head.weight == (0.0 if head.activation.multi_label else head.weight[:1])).all()):
        same = "no weights but zero" if head.activation.multi_label else "the same weights for every class"
        raise UnsupportedError(
            f"{source}: the head has {same}, so that no score depends on the picture: expected a trained head"
        )
