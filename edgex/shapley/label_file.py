"""Labels artefacts: Shapley labels of crops of pictures in one file, for inspection and for learning.

Tensors of V crops, K classes, M pairs and Q superpixels (row by row over the picture):

    picture int64 [V]         position in the card's list of pictures
    seeds int64 [V, 4]        what the crop is drawn from, see `edgex.data.crops`
    classes int64 [V, K]      the predictor's best classes, best first
    coalitions bool [V, M, Q] superpixels that were visible; a pair's other coalition is the complement
    differences f32 [V, M, K] v(coalition) - v(complement), v a class's logit less the mean logit
    totals f32 [V, K]         v(everything) - v(nothing)
    values f32 [V, K, Q]      estimated Shapley values, adding up to the totals
    features f16 [V, M, D]    the same differences of what the class weights are multiplied with; where asked for

Training uses the differences; the values are stored for inspection and other programs. Making labels is
`edgex.shapley.labelling`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from edgex.data import image_folders
from edgex.data.crops import Crops, Folder
from edgex.errors import ArtefactError, DataError, MismatchError, UsageError
from edgex.files import tensor_file
from edgex.files.model_file import check_finite, check_kind
from edgex.files.tensor_file import TensorFile
from edgex.models.backbones import Architecture
from edgex.models.backbones.architectures import ARCHITECTURE
from edgex.runtime import schema
from edgex.runtime.metadata import PROVENANCE
from edgex.runtime.preprocessing import PREPROCESSING, Preprocessing
from edgex.shapley.labels import LabelOptions, Labels, shapley_values


@dataclasses.dataclass(frozen=True)
class LabelsCard:
    """The metadata of a labels artefact.

    predictor: name and sha256 of the model that made the labels. folders: where the pictures were, with how many
    crops of each. pictures: for each picture its folder's position, its path in that folder and the first 16 digits
    of its sha256. options: as they were given, crops aside, which stand with the folders.
    """

    name: str
    architecture: Architecture
    predictor: dict[str, str]
    preprocessing: Preprocessing
    options: LabelOptions
    folders: tuple[tuple[str, int], ...]
    pictures: tuple[tuple[int, str, str], ...]
    provenance: tuple[dict[str, Any], ...] = ()
    metrics: dict[str, Any] = dataclasses.field(default_factory=dict)

    def to_metadata(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "kind": "labels",
            "name": self.name,
            "architecture": self.architecture.to_dict(),
            "predictor": self.predictor,
            "preprocessing": self.preprocessing.to_dict(),
            "options": dataclasses.asdict(self.options),
            "folders": [{"path": path, "crops": crops} for path, crops in self.folders],
            "pictures": [list(entry) for entry in self.pictures],
            "provenance": list(self.provenance),
            "metrics": self.metrics,
        }

    @classmethod
    def from_metadata(cls, data: Mapping[str, Any], path: Path) -> LabelsCard:
        """Inverse of `to_metadata`; ArtefactError names what is missing or unusable."""
        check_kind(data, "labels", path)
        return schema.checked(_CARD, data, str(path), advice="label again")


def _folder(path: str, crops: int) -> tuple[str, int]:
    return path, crops


def _labels_card(pictures: tuple[tuple[int, str, str], ...], **values: Any) -> LabelsCard:
    card = LabelsCard(pictures=pictures, **values)
    for index, (folder, _, _) in enumerate(pictures):
        if folder >= len(card.folders):
            raise ArtefactError(f"expected pictures[{index}] in one of {len(card.folders)} folders, found {folder}")
    return card


_CARD = schema.record(
    _labels_card,
    name=schema.text,
    architecture=ARCHITECTURE,
    predictor=schema.record(dict, name=schema.text, sha256=schema.digest),
    preprocessing=PREPROCESSING,
    options=schema.record(
        LabelOptions,
        crops=schema.Default(schema.whole(1), LabelOptions.crops),
        crop_scale=schema.Default(schema.positive, LabelOptions.crop_scale),
        pairs=schema.Default(schema.whole(1), LabelOptions.pairs),
        side=schema.Default(schema.whole(2, schema.MAX_SIDE), LabelOptions.side),
        classes=schema.Default(schema.whole(1), LabelOptions.classes),
        seed=schema.Default(schema.whole(), LabelOptions.seed),
        features=schema.Default(schema.flag, LabelOptions.features),
    ),
    folders=schema.listed(schema.record(_folder, path=schema.any_text, crops=schema.whole(1))),
    pictures=schema.listed(schema.row(schema.whole(), schema.any_text, schema.text)),
    provenance=PROVENANCE,
    metrics=schema.object_with(split_half_cosine=schema.optional(schema.number)),
)


class LoadedLabels(NamedTuple):
    """The content of a labels artefact, the present folders of its pictures and its recorded sha256."""

    labels: Labels
    card: LabelsCard
    folders: tuple[Folder, ...]
    sha256: str


def save_labels(path: Path, labels: Labels, total: Tensor, card: LabelsCard) -> str:
    """Writes a labels artefact, Shapley values solved on the way; returns its sha256. total: float32 [V, K]."""
    tensors = {
        "picture": labels.crops.picture,
        "seeds": labels.crops.seeds,
        "classes": labels.classes,
        "coalitions": labels.coalitions,
        "differences": labels.differences,
        "totals": total,
        "values": shapley_values(labels, total),
    }
    if labels.features is not None:
        tensors["features"] = labels.features
    return tensor_file.write_tensors(path, card.to_metadata(), tensors)


def load_labels(path: Path, roots: Sequence[Path] | None = None) -> LoadedLabels:
    """Reads a labels artefact; roots: the present folders of its pictures, in the card's order.

    Raises ArtefactError for a damaged file, DataError for a picture that is missing or was changed since.
    """
    with TensorFile(path) as file:
        card = LabelsCard.from_metadata(file.metadata, path)
        _check_shapes(file, card)
        file.verify()
        tensors = {name: file.read(name) for name in file.tensors}
    _check_values(tensors, card, path)
    places = [Path(folder) for folder, _ in card.folders] if roots is None else list(roots)
    if len(places) != len(card.folders):
        raise UsageError(
            f"expected {len(card.folders)} folders for the pictures of {path}, found {len(places)}", argument="data"
        )
    paths = [places[folder] / inside for folder, inside, _ in card.pictures]
    for picture, (_, _, recorded) in zip(paths, card.pictures, strict=True):
        if not picture.is_file():
            raise DataError(
                f"expected the labelled picture {picture}, found nothing: name its present folder",
                argument="data",
            )
        if image_folders.digest_of(picture) != recorded:
            raise DataError(f"{picture} was changed after it was labelled: restore it or label again")
    crops = Crops(tuple(paths), tensors["picture"], tensors["seeds"], card.preprocessing, card.options.crop_scale)
    folders = tuple(
        Folder(root, tuple(p for p, (owner, _, _) in zip(paths, card.pictures, strict=True) if owner == index), crops)
        for index, (root, (_, crops)) in enumerate(zip(places, card.folders, strict=True))
    )
    labels = Labels(crops, tensors["classes"], tensors["coalitions"], tensors["differences"], tensors.get("features"))
    return LoadedLabels(labels, card, folders, str(file.metadata["sha256"]))


def check_predictor(card: LabelsCard, sha256: str, path: Path, model: Path) -> None:
    """Raises MismatchError where another model made these labels: they describe that model's scores."""
    if card.predictor["sha256"] != sha256:
        raise MismatchError(
            f"{path} holds labels of {card.predictor['name']} [{card.predictor['sha256'][:12]}], {model} is "
            f"[{sha256[:12]}]: learn with the model that made the labels, or label again"
        )


def _check_values(tensors: Mapping[str, Tensor], card: LabelsCard, path: Path) -> None:
    """Positions must be those of pictures and of classes, and numbers finite."""
    for name, count in (("picture", len(card.pictures)), ("classes", None)):
        found = tensors[name]
        if found.numel() and (int(found.min()) < 0 or (count is not None and int(found.max()) >= count)):
            raise ArtefactError(
                f"{path}: expected positions from 0{f' to {count - 1}' if count else ''} in the tensor '{name}', found "
                f"{int(found.min())} to {int(found.max())}: label again"
            )
    for name, found in tensors.items():
        check_finite(found, name, source=str(path))


def _check_shapes(file: TensorFile, card: LabelsCard) -> None:
    """Every tensor must be there with the type and shape that the module's first lines say."""
    crops, classes = (*file.tensors["classes"].shape, 0, 0)[:2] if "classes" in file.tensors else (0, 0)
    pairs, players = card.options.pairs, card.options.side**2
    expected: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {
        "picture": (torch.int64, (crops,)),
        "seeds": (torch.int64, (crops, 4)),
        "classes": (torch.int64, (crops, classes)),
        "coalitions": (torch.bool, (crops, pairs, players)),
        "differences": (torch.float32, (crops, pairs, classes)),
        "totals": (torch.float32, (crops, classes)),
        "values": (torch.float32, (crops, classes, players)),
    }
    if card.options.features:
        width = (*file.tensors["features"].shape, 0, 0, 0)[2] if "features" in file.tensors else 0
        expected["features"] = (torch.float16, (crops, pairs, width))
    found = {name: (spec.dtype, spec.shape) for name, spec in file.tensors.items()}
    for name in expected | found:
        if expected.get(name) != found.get(name):
            raise ArtefactError(
                f"{file.path}: expected the tensor '{name}' as {expected.get(name)}, found {found.get(name)}: "
                "label again"
            )
