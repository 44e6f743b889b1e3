"""`edgex.calibrate`: an exported file learns from validation pictures how sure it may be, and stores it.

What is fitted and measured is in `edgex.evaluation.calibration`, what the file means by it in
`edgex.runtime.calibration`. Needs no torch: a device can calibrate the file that it runs.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgex.data.multi_label import AnyPictures, for_model
from edgex.errors import DataError, ImageError, UsageError
from edgex.evaluation.calibration import (
    FEWEST_OF_CLASS,
    FEWEST_PICTURES,
    Answers,
    Quality,
    evidence_scale,
    least_error,
    measure,
)
from edgex.evaluation.calibration import fit as fitted
from edgex.runtime import Result, Session
from edgex.runtime.activations import ACTIVATIONS
from edgex.runtime.calibration import Calibration, Unsure, in_words
from edgex.runtime.classes import ClassIndex
from edgex.runtime.frames import as_frame
from edgex.runtime.metadata import load
from edgex.runtime.metadata_update import update_metadata
from edgex.runtime.sketch import Observation, Sketch
from edgex.runtime.view import Fit
from edgex.utils.output import check_writable, refuse_to_overwrite
from edgex.utils.progress import Progress
from edgex.utils.text import Report, listing, silent

PathLike = str | os.PathLike[str]

_NOT_REACHED = (
    "every picture that is no alarm is for review, since a band leaves at best {1:.1%} of wrong answers; ask for a "
    "target error above that instead of {0:.1%}"
)


@dataclasses.dataclass(frozen=True)
class Calibrated:
    """What `calibrate` wrote, and how good it is on pictures that it was not fitted to.

    path: the file. target_error: the rate of wrong answers that was asked for. least_error: the lowest that an unsure
    band can leave.
    """

    path: Path
    calibration: Calibration
    quality: Quality
    target_error: float
    least_error: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "path": str(self.path),
            "calibration": self.calibration.to_dict(),
            "target_error": self.target_error,
            "least_error": self.least_error,
            "cross_fitted": self.quality.to_dict(),
        }

    def lines(self) -> list[tuple[str, str]]:
        """What people want to know, as (name, value)."""
        quality, ok = self.quality, self.quality.decided["ok"]
        found = [
            *in_words(self.calibration),
            (
                "on unseen pictures",
                ", ".join(f"{name} {count / quality.pictures:.1%}" for name, count in quality.decided.items()),
            ),
            (
                "wrong among ok",
                f"{quality.wrong} of {ok}, {quality.wrong / ok:.2%} (95% interval up to {quality.wrong_limit:.2%})"
                if ok
                else "no picture is ok",
            ),
        ]
        if self.calibration.alarm_classes:
            found.append(
                (
                    "pictures of alarms",
                    f"{quality.alarm_pictures}: {quality.caught} alarm, {quality.missed} ok; "
                    f"{quality.decided['alarm'] - quality.caught} false alarms",
                )
            )
        if self.calibration.unsure == Unsure(0.0, 1.0):
            found.append(("no band is enough", _NOT_REACHED.format(self.target_error, self.least_error)))
        return found


def calibrate(
    model: PathLike,
    data: PathLike,
    *,
    labels: PathLike | None = None,
    alarm: Sequence[str] = (),
    target_error: float = 0.01,
    out: PathLike | None = None,
    provider: str = "auto",
    provider_options: Mapping[str, Any] | None = None,
    fit: Fit | None = None,
    skip_bad: bool = False,
    force: bool = False,
    report: Report = silent,
) -> Calibrated:
    """Fits temperature, thresholds, an unsure band and the scale of drawn heatmaps, and stores them in the file.

    Once it is stored, `Result.probabilities` have the temperature, `Result.decision` is "ok", "review" or "alarm", and
    overlays are drawn on the calibrated scale. Logits and heatmaps stay as they are, to the last bit. What an earlier
    calibration stored is replaced.

    model: an exported file, .onnx or .engine. data: pictures that the model was not trained on, in class folders.
    labels: of a multi-label model, the file of the pictures' labels (.csv or .json, see `edgex.data.label_tables`).
    alarm: names of classes that make a picture an alarm. Defaults to none.
    target_error: the largest rate of wrong answers, above 0 and below 1, among pictures that are decided to be "ok";
        less certain ones are for "review".
    out: the file to write. Defaults to `model`, which is replaced.
    provider, provider_options, fit: as `edgex.runtime.Session` takes them; decide with what will run.
    skip_bad: go on without the pictures that cannot be read. force: replace `out` where it exists.
    report: called with lines for people.

    Raises UsageError for an unknown class or an unusable rate, DataError for an unusable folder, too few pictures or
    answers that are no better than chance, ArtefactError for a file that is no exported one.
    """
    if not 0 < target_error < 1:
        raise UsageError(f"expected a rate above 0 and below 1, found {target_error!r}", argument="target_error")
    target = Path(model if out is None else out)
    refuse_to_overwrite(out, force=force)
    metadata, _ = load(model)
    if target.suffix != Path(model).suffix:
        words = f"expected a name that ends in {Path(model).suffix} like the model's, found {target}"
        raise UsageError(words, argument="out")
    check_writable(target)
    names = _alarm_classes(metadata.classes, alarm)
    folder, table = Path(data), None if labels is None else Path(labels)
    activation = ACTIVATIONS[metadata.activation]
    pictures = for_model(folder, metadata.classes, table, multi_label=activation.multi_label, report=report)
    _check_classes(pictures, folder)
    with Session(model, provider, provider_options=provider_options, fit=fit) as session:
        pictures, results = _run(session, pictures, folder, skip_bad, report)
    logits = np.stack([result.logits for result in results])
    answers = Answers(logits, np.asarray(pictures.targets), activation.name, metadata.classes)
    _report_classes(answers, names, report)
    quality = measure(answers, names, target_error)
    calibration = fitted(answers, names, target_error)
    heatmaps = [result.view.trimmed(result.heatmap)[0] for result in results]
    calibration = dataclasses.replace(
        calibration,
        data="/".join(folder.resolve().parts[-2:]),
        ece=quality.ece,
        evidence=evidence_scale(heatmaps),
        fit=fit,
        sketch=_sketch(answers.probabilities(calibration), heatmaps),
    )
    update_metadata(model, {"calibration": calibration.to_dict()}, out)
    return Calibrated(target, calibration, quality, target_error, least_error(answers, calibration))


def _alarm_classes(classes: Sequence[str], alarm: Sequence[str]) -> tuple[str, ...]:
    """The alarm classes as the model calls them, each once, in the model's order."""
    index = ClassIndex(classes)
    try:
        places = {index.number(name) for name in alarm}
    except UsageError as error:
        error.argument = "alarm"
        raise
    return tuple(classes[place] for place in sorted(places))


def _check_classes(pictures: AnyPictures, folder: Path) -> None:
    if len(pictures) < FEWEST_PICTURES:
        raise DataError(f"expected at least {FEWEST_PICTURES} pictures in {folder}, found {len(pictures)}: add some")
    if len(pictures.shown) < 2:
        named = [f"'{pictures.classes[place]}'" for place in pictures.shown]
        raise DataError(f"expected pictures of at least two classes in {folder}, found {named[0] if named else 'none'}")


def _run(
    session: Session, pictures: AnyPictures, folder: Path, skip_bad: bool, report: Report
) -> tuple[AnyPictures, list[Result]]:
    """The pictures that can be read, and one result for each."""
    results: dict[int, Result] = {}
    bad: list[ImageError] = []
    step = session.metadata.max_batch
    with Progress("calibrating", total=len(pictures)) as progress:
        for start in range(0, len(pictures), step):
            frames = {}
            for place in range(start, min(start + step, len(pictures))):
                try:
                    frames[place] = as_frame(pictures.paths[place])
                except ImageError as error:
                    bad.append(error)
            results.update(zip(frames, session([*frames.values()]), strict=True))
            progress.advance(steps=min(step, len(pictures) - start))
    if bad:
        words = f"{len(bad)} of {len(pictures)} pictures cannot be read: {listing(bad, separator='; ')}"
        if not skip_bad:
            raise DataError(f"{words}. Mend or remove them, or go on without them", argument="skip_bad")
        report(f"left out, {words}")
        pictures = pictures.subset([*results])
        _check_classes(pictures, folder)
    return pictures, [*results.values()]


def _sketch(scores: np.ndarray, heatmaps: Sequence[np.ndarray]) -> Sketch:
    """How scores [N, C] and heatmaps are distributed, to be compared with those of a camera."""
    observations = (
        Observation.of(float(row.max()), int(row.argmax()), heatmap)
        for row, heatmap in zip(scores, heatmaps, strict=True)
    )
    return Sketch.of(observations, scores.shape[1])


def _report_classes(answers: Answers, alarm: Sequence[str], report: Report) -> None:
    """Says which classes too few pictures tell about."""
    few = np.flatnonzero(answers.shown.sum(axis=0) < FEWEST_OF_CLASS)
    names = [answers.classes[place] for place in few]
    # Alarm classes first: a threshold that is a guess matters there.
    names.sort(key=lambda name: name not in alarm)
    if names:
        report(
            f"{len(names)} of {len(answers.classes)} classes have less than {FEWEST_OF_CLASS} pictures and keep the "
            f"threshold 0.5: {listing(names, most=5)}"
        )
