"""What a model says about one picture: classes, heatmap, and what can be drawn or stored of them.

Nothing is computed before it is asked for.
"""

from __future__ import annotations

import base64
import json
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from edgex.runtime.activations import ACTIVATIONS, DEFAULT_THRESHOLD
from edgex.runtime.calibration import EvidenceScale, decide, probabilities, scale_range
from edgex.runtime.drawing.colormaps import COLORMAPS
from edgex.runtime.drawing.overlay import Floor, Style, median_floor, overlay
from edgex.runtime.drawing.seen import Seen
from edgex.runtime.drawing.upsampling import upsample
from edgex.runtime.errors import ArtefactError, ImageError, UsageError
from edgex.runtime.frames import ColorOrder, as_frame
from edgex.runtime.printable import printable_json
from edgex.runtime.regions import LEAST_AREA, MERGE, THRESHOLD, Box, find_boxes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgex.runtime.calibration import Calibration, Decision, Scale
    from edgex.runtime.view import View


class Result:
    """One picture's classes and the heatmap of one class.

    logits: float32 [C].
    heatmap: float32 [rows, columns]: evidence of each patch for the explained class, in logits.
        heatmap.sum() + base is the explained class's logit less the mean logit, or the logit itself where the model
        is multi-label.
    base: what the heatmap is added to to give the explained class's score, in logits: the score with nothing visible,
        or, where the file's evidence says "correction": "base", the part of the score that evidence leaves over.
    view: where the model's pixels lie in the frame.
    color: channel order of overlays, the one that the session was called with.
    activation: "softmax" (one class is true) or "sigmoid" (multi-label), see `edgex.runtime.activations`.
    thresholds: the probability from which each class's label is present in a multi-label model; defaults to 0.5 each.
    calibration: what the file learned from validation pictures, see `edgex.runtime.calibration`; its thresholds count
        before others. None where it learned nothing.
    """

    def __init__(
        self,
        logits: np.ndarray,
        heatmap: np.ndarray,
        base: float,
        *,
        classes: tuple[str, ...],
        view: View,
        explained_index: int | None = None,
        color: ColorOrder = "rgb",
        activation: str = "softmax",
        thresholds: Sequence[float] | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        self.logits = logits
        self.heatmap = heatmap
        self.base = base
        self.classes = classes
        self.view = view
        self._explained_index = explained_index
        self.color = color
        self.activation = activation
        self.thresholds = calibration.thresholds or thresholds if calibration is not None else thresholds
        self.calibration = calibration

    def __repr__(self) -> str:
        return f"Result(label={self.label!r}, score={self.score:.3f}, explained={self.explained!r})"

    @cached_property
    def index(self) -> int:
        """The predicted class's position in `classes`: the most probable one's."""
        return int(self.logits.argmax())

    @property
    def label(self) -> str:
        """The predicted class's name."""
        return self.classes[self.index]

    @cached_property
    def probabilities(self) -> np.ndarray:
        """Softmax of the logits, or the sigmoid of each where the model is multi-label: float32 [C].

        Where the file is calibrated, logits are divided by its temperature first.
        """
        return probabilities(self.logits, self.activation, self.calibration)

    @property
    def score(self) -> float:
        """The predicted class's probability, 0 to 1."""
        return float(self.probabilities[self.index])

    @property
    def explained_index(self) -> int:
        """Position in `classes` of the class that the heatmap explains."""
        return self.index if self._explained_index is None else self._explained_index

    @property
    def explained(self) -> str:
        """Name of the class that the heatmap explains: the predicted one unless `explain` named another."""
        return self.classes[self.explained_index]

    @property
    def multi_label(self) -> bool:
        """Whether a picture may have several labels, or none: each class has a probability of its own."""
        return ACTIVATIONS[self.activation].multi_label

    def labels(self, threshold: float | None = None) -> list[tuple[str, float]]:
        """The labels that are present as (label, probability), most probable first.

        threshold: the probability, 0 to 1, from which a label is present. Defaults to each class's own, which the
            model's file states.

        Of a model that is not multi-label it is the predicted class alone, or none where that is less probable than
        `threshold`.
        """
        return [(self.classes[index], float(self.probabilities[index])) for index in self.present(threshold)]

    def present(self, threshold: float | None = None) -> list[int]:
        """Positions in `classes` of `labels`."""
        if threshold is not None and not 0 <= threshold <= 1:
            raise UsageError(f"expected a probability from 0 to 1, found {threshold!r}", argument="threshold")
        if not self.multi_label:
            return [self.index] if threshold is None or self.score >= threshold else []
        least = self.thresholds or DEFAULT_THRESHOLD if threshold is None else threshold
        chosen = self.probabilities >= np.asarray(least, np.float32)
        return [index for index in self.order(len(self.classes)) if chosen[index]]

    @property
    def decision(self) -> Decision | None:
        """What to do about the picture, "ok", "review" or "alarm", see `edgex.runtime.calibration.decide`.

        None where the file is not calibrated.
        """
        return self._decision_by_scores()

    def _decision_by_scores(self) -> Decision | None:
        if self.calibration is None:
            return None
        scores = self.probabilities[np.newaxis]
        return decide(scores, self.classes, multi_label=self.multi_label, calibration=self.calibration)[0]

    @property
    def outlines(self) -> tuple[tuple[tuple[float, float], ...], ...]:
        """Polygons of corners (x, y) in frame pixels that show how the frame was cut, for drawing; here none."""
        return ()

    def top(self, k: int = 5) -> list[tuple[str, float]]:
        """The k most probable classes as (label, probability), most probable first."""
        if k < 1:
            raise UsageError(f"top: expected at least 1 class, found {k!r}")
        return [(self.classes[index], float(self.probabilities[index])) for index in self.order(k)]

    def order(self, k: int) -> list[int]:
        """Positions in `classes` of the k most probable classes, most probable first."""
        return [int(index) for index in np.argsort(-self.logits, kind="stable")[:k]]

    @property
    def calibrated_scale(self) -> EvidenceScale | None:
        """(floor, full): evidence that drawing begins and ends with, in logits per cell of the heatmap.

        None where the file is not calibrated.
        """
        if self.calibration is None or self.calibration.evidence is None:
            return None
        floor, full = self.calibration.evidence
        return EvidenceScale(floor / self._cells_per_patch**2, full / self._cells_per_patch**2)

    def evidence_scale(self, scale: Scale | None = None) -> tuple[Floor, float | None]:
        """What colours of a drawn heatmap mean: the `floor` and `limit` of `overlay`.

        scale: "picture" for this heatmap's own median and strongest evidence, so that colours compare places within
            the picture; "calibrated" for those of the pictures that the file was calibrated on, so that a weak map
            looks weak; a number for a limit in logits per patch. Defaults to "calibrated" where the file has such a
            scale, else to "picture".

        Returns both in logits per cell of the heatmap, of which a patch has several where the heatmap is a finer one.

        Raises UsageError for another scale, and for "calibrated" where the file has none.
        """
        floor, full = scale_range(scale, self.calibrated_scale)
        return floor, full / self._cells_per_patch**2 if isinstance(scale, (int, float)) and full else full

    def heatmap_on(self, frame: Any = None) -> np.ndarray:
        """The heatmap in frame coordinates, bilinear between patch centres.

        frame: the picture that was explained; only its size is used, and it may be left out.

        Returns float32 [H, W] in logits per patch, NaN where the crop left the model nothing to see.
        """
        if frame is not None:
            self._check_size(as_frame(frame))
        return upsample(self.heatmap, self.view)

    def overlay(
        self,
        frame: Any,
        colormap: str = COLORMAPS[0],
        opacity: float | None = None,
        limit: float | None = None,
        *,
        floor: Floor | None = None,
        style: Style = "heat",
        scale: Scale | None = None,
        dim: bool = False,
        legend: bool = False,
    ) -> np.ndarray:
        """The frame with the heatmap drawn over it.

        frame: the picture that was explained, as it was given to the session.
        colormap: "plasma", "inferno", "viridis" or "turbo" show the evidence for the class and leave the rest as it is;
            "signed" shows evidence for it in yellow to red and against it in blue.
        opacity: of the strongest evidence, 0 to 1. Defaults to 0.6, for lines and boxes to 1.
        limit: evidence of the full colour, in logits per patch; defaults to that of `scale`.
        floor: evidence up to which nothing is painted, in logits per patch; "median" is the heatmap's own, or 0 where
            that lies below. Defaults to that of `scale`. It is lowered to nine tenths of the limit where it is higher.
        style: "heat" tints the places of evidence, "contour" draws lines around them, "boxes" draws `boxes` above the
            floor with their evidence, "spotlight" darkens all other places.
        scale: "picture", "calibrated" or a limit, see `evidence_scale`.
        dim: darken what the model did not see.
        legend: draw a colour bar from floor to limit, with the numbers, in the upper right corner; not in pictures with
            a side of less than 128 pixels.

        Returns uint8 [H, W, 3], RGB, or BGR where the session was called with color="bgr". What the model
        did not see stays as it is, but for "spotlight", `dim` and the line where what it saw ends.
        """
        checked = as_frame(frame, self.color)
        self._check_size(checked)
        floor, limit = self._range(scale, floor, limit)
        if floor == "median":
            floor = median_floor(self._looked_at, colormap == "signed")
        drawn = overlay(
            checked.rgb(),
            self.heatmap,
            self.view,
            colormap,
            opacity,
            limit,
            floor=floor,
            style=style,
            dim=dim,
            legend=legend,
            seen=self._seen,
            cells=self._cells_per_patch,
        )
        return np.ascontiguousarray(drawn[..., ::-1]) if self.color == "bgr" else drawn

    @property
    def _seen(self) -> Seen:
        """What of the frame the model saw."""
        return Seen(self.view)

    @property
    def _cells_per_patch(self) -> int:
        """Of the heatmap, in each direction."""
        return 1

    @property
    def _looked_at(self) -> np.ndarray:
        """The heatmap's values where it lies in what the model saw."""
        return self.view.trimmed(self.heatmap)[0]

    @property
    def remark(self) -> str | None:
        """A line for people where the model did not see a part of the frame for its shape, else None; see `View`."""
        return self.view.remark

    def boxes(self, threshold: float = THRESHOLD, *, least_area: float = LEAST_AREA, merge: float = MERGE) -> list[Box]:
        """Connected regions with at least `threshold` times the strongest evidence, in frame pixels.

        threshold: above 0, at most 1. least_area: of a region, in patches; smaller ones are left out. merge: regions
            less than so many patches apart are one.

        Strongest first, each (top, left, bottom, right, evidence), evidence being the region's sum in logits; `score`
        is its share of the heatmap's positive evidence, above 0 to 1, which is no probability that something is there.
        Empty where no patch speaks for the class.
        """
        cells = self._cells_per_patch
        return find_boxes(self.heatmap, self.view, threshold, least_area=least_area, merge=merge, cells=cells)

    def _range(self, scale: Scale | None, floor: Floor | None, limit: float | None) -> tuple[Floor, float | None]:
        """The floor and limit to draw with, of the arguments of `overlay`."""
        lowest, full = self.evidence_scale(scale)
        return lowest if floor is None else floor, full if limit is None else limit

    def to_dict(self, top: int = 5) -> dict[str, Any]:
        """JSON-ready: classes, scores, and the heatmap as `encode_heatmap` gives it.

        decision, and evidence_scale {floor, full} as `calibrated_scale` says, are there where the file is calibrated.
        labels are those of a multi-label model that are present; other models' results lack the key. seen is the part
        of the frame that the model saw, input_area where its input lies, which goes beyond the frame where it was
        padded: each [top, left, bottom, right] in pixels.
        """
        return {
            "label": self.label,
            "index": self.index,
            "score": self.score,
            "top": [[label, probability] for label, probability in self.top(top)],
            **({} if self.decision is None else {"decision": self.decision}),
            **({"labels": [[label, probability] for label, probability in self.labels()]} if self.multi_label else {}),
            "explained": {
                "label": self.explained,
                "index": self.explained_index,
                "score": float(self.probabilities[self.explained_index]),
                "logit": float(self.logits[self.explained_index]),
            },
            "base": self.base,
            **({} if self.calibrated_scale is None else {"evidence_scale": self.calibrated_scale._asdict()}),
            "heatmap": encode_heatmap(self.heatmap),
            "frame_size": list(self.view.frame_size),
            "seen": list(self.view.seen),
            "input_area": list(self.view.extent),
        }

    def to_json(self, top: int = 5) -> str:
        """`to_dict` as one line of JSON."""
        return printable_json(json.dumps(self.to_dict(top), ensure_ascii=False))

    def _check_size(self, frame: Any) -> None:
        if (frame.height, frame.width) != self.view.frame_size:
            height, width = self.view.frame_size
            raise ImageError(
                f"expected the frame that was explained, {width}x{height} pixels, found {frame.width}x{frame.height}"
            )


def encode_heatmap(heatmap: np.ndarray) -> dict[str, Any]:
    """{"shape": [rows, columns], "float16": text}, the text being base64 of row-major little-endian float16.

    14 x 14 patches take 524 characters; the rounding is at most 2^-11 of each value.
    """
    return {
        "shape": list(heatmap.shape),
        "float16": base64.b64encode(heatmap.astype("<f2").tobytes()).decode("ascii"),
    }


def decode_heatmap(encoded: Any) -> np.ndarray:
    """The inverse of `encode_heatmap`: float32 [rows, columns]."""
    try:
        rows, columns = encoded["shape"]
        values = np.frombuffer(base64.b64decode(encoded["float16"], validate=True), "<f2")
        return values.astype(np.float32).reshape(rows, columns)
    except (KeyError, TypeError, ValueError) as error:
        raise ArtefactError(
            f"expected a heatmap as {{shape: [rows, columns], float16: base64}}, found another: {error}"
        ) from None
