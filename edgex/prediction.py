"""Classes and heatmaps of pictures, by an exported file (onnxruntime, TensorRT) or by a model file (PyTorch)."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from edgex.errors import EdgexError, ImageError, UsageError
from edgex.runtime import Result, Session
from edgex.runtime.drawing.options import Drawing
from edgex.runtime.file_names import class_components, shortened
from edgex.runtime.picture_files import describe, find_pictures, none_found
from edgex.runtime.view import Fit
from edgex.utils.output import save_picture

EXPORTED = (".onnx", ".engine")
"""Suffixes of exported files."""
_MOST_STEM_BYTES = 150
"""Of a picture's name that its overlay's repeats; file systems allow 255 bytes in all."""


class Predictor(Protocol):
    """What a `Session` and a model in PyTorch have in common."""

    def __call__(self, picture: Path, /, explain: str | None = None) -> Result:
        """One picture: its classes and the heatmap of `explain`, or of the predicted class."""
        ...

    def explain_labels(self, frame: Path, /) -> list[Result]:
        """One result for each label of a picture that is present, most probable first."""
        ...


@dataclasses.dataclass(frozen=True)
class Predictions:
    """Results by picture, in the order that was asked for, and the errors of pictures that could not be read.

    explained: the results whose heatmaps are drawn, which are the results, or one for each label of each picture.
    """

    results: tuple[tuple[Path, Result], ...]
    errors: tuple[EdgexError, ...]
    explained: tuple[tuple[Path, Result], ...]

    def write_overlays(
        self, folder: str | os.PathLike[str], drawing: Drawing | None = None, *, caption: bool = False
    ) -> list[Path]:
        """Writes each picture with its heatmap as <picture>.<explained class>.png; equal names are numbered.

        drawing: how; defaults to `Drawing()`. caption: whether class and probability are written into the pictures.
        """
        drawing = drawing or Drawing()
        draw = drawing.captioned if caption else drawing.overlay
        stems = Counter(path.stem for path, _ in self.results)
        numbers = {path: number for number, (path, _) in enumerate(self.results)}
        written: dict[Path, None] = {}
        for path, result in self.explained:
            label = class_components(result.classes)[result.explained_index]
            stem = shortened(path.stem, _MOST_STEM_BYTES)
            plain = [f"{stem}.{label}.png"] if stems[path.stem] == 1 else []
            names = itertools.chain(plain, (f"{stem}.{n}.{label}.png" for n in itertools.count(numbers[path])))
            target = next(target for name in names if (target := Path(folder) / name) not in written)
            save_picture(draw(result, path), target)
            written[target] = None
        return list(written)


def predict(
    model: str | os.PathLike[str],
    pictures: Sequence[str | os.PathLike[str]],
    *,
    explain: str | None = None,
    each_label: bool = False,
    provider: str = "auto",
    provider_options: Mapping[str, Any] | None = None,
    fit: Fit | None = None,
    tiles: tuple[int, int] | None = None,
    overlap: float | None = None,
    roi: Any = None,
    drawing: Drawing | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> Predictions:
    """Classifies and explains pictures.

    model: an exported file, a model file or a name of the zoo. pictures: files, and folders, which stand for every
    picture below them. explain: the class to explain. Defaults to each picture's predicted class. each_label:
    also explain every label that is present, of a multi-label model. provider, provider_options: for exported files,
    as `edgex.runtime.Session` takes them. fit: how a picture becomes the model's input, see `edgex.runtime.view`.
    Defaults to what the model says. tiles, overlap, roi: how each picture is cut into parts and what of it is looked
    at, as `edgex.runtime.Session` takes them. drawing: how overlays will be drawn; what the model's
    file does not allow is refused before a picture is read. report: called with lines for people; one of them says what
    the model does not see of the picture that loses most.

    A picture that cannot be read, or that tiles or regions do not fit, becomes an error of the result, and the others
    are classified. Raises UsageError for an unknown class, a folder without pictures, or a provider for a model that is
    not exported, for a drawing that the file does not allow, and where tiles or regions fit none of the pictures.
    """
    paths = _files(pictures, report)
    predictor = open_predictor(model, provider, provider_options, fit=fit, tiles=tiles, overlap=overlap, roi=roi)
    if drawing is not None:
        drawing.check_for(predictor.metadata.calibration if isinstance(predictor, Session) else None)
    if each_label and explain is not None:
        raise UsageError("expected either one class to explain or each label, found both", argument="each_label")
    results: list[tuple[Path, Result]] = []
    labelled: list[tuple[Path, Result]] = []
    errors: list[EdgexError] = []
    misfits: list[ImageError] = []
    for path in paths:
        try:
            result = predictor(path, explain=explain)
        except ImageError as error:
            errors.append(error)
            if error.argument is not None:
                # Tiles or regions that do not fit it: the message speaks of its size alone.
                misfits.append(error)
                errors[-1] = ImageError(f"{path}: {error}")
            continue
        if each_label and not result.multi_label:
            raise UsageError(f"{model} gives a picture one label, which is explained anyway", argument="each_label")
        results.append((path, result))
        labelled += [(path, found) for found in predictor.explain_labels(path)] if each_label else []
    if misfits and not results:
        raise UsageError(str(misfits[0]), argument=misfits[0].argument)
    remarks = [(result.view.seen_share, result.remark) for _, result in results if result.remark is not None]
    if remarks:
        report(min(remarks)[1])
    return Predictions(tuple(results), tuple(errors), tuple(labelled if each_label else results))


def _files(entries: Sequence[str | os.PathLike[str]], report: Callable[[str], None] = lambda _: None) -> list[Path]:
    """The files themselves, and every picture below each folder, in order of their paths."""
    paths: list[Path] = []
    for entry in map(Path, entries):
        if not os.path.isdir(entry):  # noqa: PTH112  # False, too, where the name is too long
            paths.append(entry)
            continue
        found = find_pictures(entry)
        if not found.pictures:
            raise UsageError(none_found(entry, found.passed_over))
        if said := describe(found.passed_over):
            report(f"{entry}: {said}")
        paths += found.pictures
    return paths


def open_predictor(
    model: str | os.PathLike[str],
    provider: str = "auto",
    provider_options: Mapping[str, Any] | None = None,
    **looks: Any,
) -> Predictor:
    """A session of an exported file, or a model of the zoo in PyTorch.

    looks: what both take about the frame: fit, tiles, overlap, roi.
    """
    if Path(model).suffix in EXPORTED:
        return Session(model, provider, provider_options=provider_options, **looks)
    if provider != "auto" or provider_options:
        raise UsageError(
            f"a provider and its options are for exported files, found the model {model}: export it first",
            argument="provider" if provider != "auto" else "provider_options",
        )
    from edgex.evaluation.torch_session import TorchSession
    from edgex.files import zoo

    return TorchSession(zoo.resolve(os.fspath(model), "model"), **looks)
