"""Baking from start to end: names of the zoo, checks, the choice of alpha, warnings about a target, where it goes.

The addition itself is `edgex.vectors.bake`, the rule for alpha `edgex.vectors.alpha`.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from edgex.data.multi_label import AnyPictures, for_model
from edgex.data.readable import ReadCheck
from edgex.errors import ArtefactError, UsageError
from edgex.evaluation.verdict import Verdict, check_bake, enforce, word_of
from edgex.files import home, zoo
from edgex.files.model_file import ModelCard, load_card
from edgex.files.vector_file import VectorCard, load_vector_card
from edgex.runtime.activations import ACTIVATIONS
from edgex.runtime.file_names import check_name
from edgex.utils.output import refuse_to_overwrite
from edgex.utils.statistics import Estimate
from edgex.utils.text import Report, silent
from edgex.vectors import bake as addition
from edgex.vectors.alpha import accuracies, choose
from edgex.vectors.bake import add_vector
from edgex.vectors.transfer import records_of, warnings_for

PathLike = str | os.PathLike[str]
MAX_DROP = 0.5
MAX_ALPHA = 2.0


@dataclasses.dataclass(frozen=True)
class BakeResult:
    """A baked model: its file, its card, and how it came about.

    alpha: the factor of this bake; `card.alpha` also counts earlier ones. target, vector: the names of both. curve:
    (alpha, value in [0, 1]) of every alpha that was measured, on `pictures` pictures: top-1 accuracy, or the mean
    average precision of a multi-label model. warnings: one line for each measured failure of the vector on this target.
    verdict: what the bake did to the heatmaps of the pictures it was checked on, None where it was not. gains: where a
    readout's alpha was chosen by heatmaps, each other alpha's gain in insertion - deletion over the recommended one.
    """

    path: Path
    card: ModelCard
    target: str
    vector: str
    alpha: float
    curve: tuple[tuple[float, float], ...] = ()
    pictures: int = 0
    gains: tuple[tuple[float, Estimate], ...] = ()
    warnings: tuple[str, ...] = ()
    verdict: Verdict | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        checked = {} if self.verdict is None else {"check": self.verdict.to_dict()}
        return checked | {
            "path": str(self.path),
            "alpha": self.alpha,
            "metrics": self.card.metrics,
            "evidence": self.card.evidence.to_dict(),
            "warnings": list(self.warnings),
        }


def bake(
    target: PathLike,
    vector: PathLike,
    *,
    alpha: float | Literal["auto"] | None = None,
    val: PathLike | None = None,
    labels: PathLike | None = None,
    max_drop: float | None = None,
    max_alpha: float | None = None,
    out: PathLike | None = None,
    check: PathLike | None = None,
    force: bool = False,
    device: str | None = None,
    skip_bad: bool = False,
    report: Report | None = None,
) -> BakeResult:
    """Adds a vector to a model, which becomes self-explaining: theta_baked = theta_target + alpha * tau.

    target, vector: files or names of the zoo.
    alpha: factor on the vector. Defaults to the one that the vector recommends. "auto" takes the largest that costs
        at most `max_drop` percentage points of accuracy on `val`; of a vector with a readout, which costs none, the
        one whose heatmaps are the most faithful there. See `edgex.vectors.alpha.choose`.
    val: folder of labelled pictures in class folders, for "auto"; with another alpha, the accuracy is recorded.
    labels: of a multi-label target, the file of the labels of `val` (.csv or .json, see `edgex.data.label_tables`);
        what is measured then is the mean average precision.
    max_drop: for "auto". Defaults to 0.5 points. max_alpha: for "auto", the largest to try. Defaults to 2.
    out: file to write. Defaults to <target>-baked in the local zoo, where it replaces an earlier bake.
    check: folder of pictures, labelled or not, on which heatmaps are compared with the target's before anything is
        written; see `edgex.evaluation.verdict`.
    force: add the vector across different bases where shapes agree, replace an existing `out`, and write a bake that
        `check` finds worse.
    device: where pictures are measured: "auto" (the default), "cpu", "cuda" or "cuda:<n>". skip_bad: with `val` or
        `check`, go on without the pictures that cannot be read.
    report: called with each warning and with the accuracies, as lines for people.

    Raises UsageError for contradicting arguments, MismatchError where the two do not fit together, ArtefactError for
    damaged files, DataError for an unusable folder and for pictures that cannot be read, VerdictError for a bake that
    `check` finds worse; then nothing is written.
    """
    refuse_to_overwrite(out, force=force)
    _check_arguments(alpha, val, labels, max_drop, max_alpha, _given_for_pictures(device, skip_bad), val or check)
    say = report or silent
    target_path, vector_path = zoo.resolve(os.fspath(target), "model"), zoo.resolve(os.fspath(vector), "vector")
    tau, _ = load_vector_card(vector_path)
    addition.check(target_path, vector_path, force=force)
    before, _ = load_card(target_path)
    if before.alpha is not None and out is None:
        raise UsageError(f"{target_path} was baked already: name a file to add another vector into", argument="out")
    warnings = warnings_for(records_of(tau.metrics), before)
    for warning in warnings:
        say(f"warning: {warning}")
    path = Path(out) if out is not None else _zoo_path(before)
    result = BakeResult(path, before, before.name, tau.name, tau.alpha, warnings=tuple(warnings))
    metrics: dict[str, Any] = {}
    if val is not None:
        allowed = MAX_DROP if max_drop is None else max_drop
        most = MAX_ALPHA if max_alpha is None else max_alpha
        several = ACTIVATIONS[before.head_activation].multi_label
        table = None if labels is None else Path(labels)
        known = for_model(Path(val), before.classes, table, multi_label=several, report=say)
        (pictures,) = ReadCheck(skip_bad, say).sets(known)
        measure = "mean average precision" if several else "accuracy"
        result = _measured(result, target_path, vector_path, tau, alpha, pictures, allowed, most, device or "auto")
        _report_curve(result, measure, Path(val), say)
        if alpha == "auto" and tau.evidence.readout:
            _report_gains(result, min(tau.alpha, most), say)
            if check is not None and _share_pictures(Path(val), Path(check)):
                say("warning: alpha is chosen by pictures that the bake is checked on, too: check it on others")
        curve = [list(point) for point in result.curve]
        metrics["bake"] = {
            f"{measure.replace(' ', '_')}_curve": curve,
            "n": result.pictures,
            "max_drop_points": allowed if alpha == "auto" else None,
            **({"heatmap_gains": [[a, gain.with_interval()] for a, gain in result.gains]} if result.gains else {}),
        }
    elif alpha is not None:
        result = dataclasses.replace(result, alpha=float(alpha))
    if check is not None:
        verdict = _checked(target_path, vector_path, result.alpha, Path(check), force, device, skip_bad, say)
        result = dataclasses.replace(result, verdict=verdict)
        metrics["check"] = verdict.to_dict()
    card, sha256 = add_vector(target_path, vector_path, path, alpha=result.alpha, force=force, metrics=metrics)
    try:
        home.record_bake(path, sha256)
    except ArtefactError as error:
        say(f"warning: exporting needs this model's name, since the bake was not recorded: {error}")
    return dataclasses.replace(result, card=card)


def _checked(
    target: Path,
    vector: Path,
    alpha: float,
    folder: Path,
    force: bool,
    device: str | None,
    skip_bad: bool,
    say: Report,
) -> Verdict:
    """The verdict on heatmaps of these pictures, said in words; VerdictError where the bake is worse and not forced."""
    with tempfile.TemporaryDirectory(prefix="edgex-") as scratch:
        baked = Path(scratch) / "baked.safetensors"
        add_vector(target, vector, baked, alpha=alpha, force=force)
        cache = zoo.home() / "cache" / "heatmaps"
        verdict = check_bake(baked, target, folder, cache, device=device or "auto", skip_bad=skip_bad, report=say)
    for line in verdict.lines:
        say(line)
    enforce(verdict, force=force)
    return verdict


def _zoo_path(target: ModelCard) -> Path:
    """Where a bake goes that is given no place; UsageError where the target's name cannot be that of a file."""
    return zoo.local_path(check_name(target.name, argument="out", what="a target's name") + "-baked")


def _check_arguments(
    alpha: float | Literal["auto"] | None,
    val: PathLike | None,
    labels: PathLike | None,
    max_drop: float | None,
    max_alpha: float | None,
    for_pictures: Sequence[str],
    measured: PathLike | None,
) -> None:
    """for_pictures: arguments that mean something where pictures are `measured` alone."""
    if isinstance(alpha, str) and alpha != "auto":
        raise UsageError(f"expected a number or 'auto', found '{alpha}'", argument="alpha")
    if alpha == "auto" and val is None:
        raise UsageError("alpha 'auto' needs labelled pictures: name their folder as val", argument="val")
    if alpha != "auto":
        for name, value in (("max_drop", max_drop), ("max_alpha", max_alpha)):
            if value is not None:
                raise UsageError(f"{name} is for alpha 'auto': set that, or leave {name} out", argument=name)
    if val is None and labels is not None:
        raise UsageError("labels are of labelled pictures: name val, or leave labels out", argument="labels")
    if measured is None:
        for name in for_pictures:
            raise UsageError(
                f"{name} is for pictures that are measured: name val or check, or leave {name} out", argument=name
            )


def _given_for_pictures(device: str | None, skip_bad: bool) -> list[str]:
    return [name for name, given in (("device", device is not None), ("skip_bad", skip_bad)) if given]


def _measured(
    result: BakeResult,
    target: Path,
    vector: Path,
    tau: VectorCard,
    alpha: float | Literal["auto"] | None,
    pictures: AnyPictures,
    max_drop: float,
    max_alpha: float,
    device: str,
) -> BakeResult:
    """The result with its alpha and with the accuracies on the labelled pictures."""
    gains: tuple[tuple[float, Estimate], ...] = ()
    if alpha == "auto":
        choice = choose(target, vector, pictures, max_drop=max_drop, max_alpha=max_alpha, device=device)
        factor, curve, gains = choice.alpha, choice.curve, choice.gains
    else:
        factor = tau.alpha if alpha is None else float(alpha)
        curve = accuracies(target, vector, pictures, sorted({0.0, factor}), device=device)
    return dataclasses.replace(result, alpha=factor, curve=curve, pictures=len(pictures), gains=gains)


def _report_curve(result: BakeResult, measure: str, val: Path, say: Callable[[str], None]) -> None:
    say(f"{measure} on {result.pictures} pictures of {val}:")
    start = result.curve[0][1]
    for alpha, accuracy in result.curve:
        mark = " <- chosen" if alpha == result.alpha else ""
        say(f"  alpha {alpha:<5g} {100 * accuracy:6.2f}%  ({100 * (accuracy - start):+.2f} points){mark}")


def _report_gains(result: BakeResult, start: float, say: Callable[[str], None]) -> None:
    """What a readout's alpha was chosen by. start: what every other alpha was compared with."""
    say(f"class scores are the same at every alpha; faithfulness of heatmaps against alpha {start:g}:")
    for alpha, gain in result.gains:
        low, high = gain.interval
        mark = " <- chosen" if alpha == result.alpha else ""
        interval = f" [{low:+.4f}, {high:+.4f}]" if gain.n > 1 else " on one picture"
        say(f"  alpha {alpha:<5g} {word_of(gain)}, {gain.mean:+.4f}{interval}{mark}")
    if all(alpha != result.alpha for alpha, _ in result.gains):
        say(f"nothing to choose: no other alpha's heatmaps are measurably more faithful than {result.alpha:g}'s")


def _share_pictures(one: Path, other: Path) -> bool:
    """Whether one folder is the other one or lies in it."""
    first, second = one.resolve(), other.resolve()
    return first.is_relative_to(second) or second.is_relative_to(first)
