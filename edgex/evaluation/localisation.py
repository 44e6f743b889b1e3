"""Localisation: whether a heatmap is on the object that an annotated mask or boxes mark.

Only evidence for the class counts, so negative values are taken as 0. Finding masks and bringing them to the patch
grid is `edgex.data.masks`.

Sources: relevance mass, Arras et al., 2022, arXiv 2003.07258, section 3.3; pointing game, Zhang et al., 2016, arXiv
1608.00507, section 4.1; overlap at matched area, the relevance rank of Arras et al. as intersection over union.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgex.data import masks
from edgex.data.crops import Folder
from edgex.errors import DataError
from edgex.runtime.preprocessing import Preprocessing

METRICS = ("relevance_mass", "centred_mass", "pointing_game", "iou", "border")


def objects(
    root: Path, paths: Sequence[Path], preprocessing: Preprocessing, grid: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray] | None:
    """Which of the pictures below `root` show a marked object in part, and where it lies on the model's patches.

    Returns positions int64 [n] in `paths` and coverage float32 [n, P], the share of each patch that belongs to the
    object, in [0, 1]; None where no picture has a mask or a box, or none shows its object in part.
    """
    known = masks.annotations_of(root)
    # Every mask is read, so that one that does not fit its picture is an error here.
    if not sum(known.mask(path) is not None for path in paths):
        return None
    try:
        found = masks.masked_crops([Folder(root, tuple(paths), 1)], [None], preprocessing, grid, crop_scale=1.0, seed=0)
    except DataError:
        # All of them could be read: what is left is objects that are everywhere or nowhere in view.
        return None
    return found.crops.picture.numpy(), found.coverage.numpy()


def relevance_mass(heatmaps: np.ndarray, coverage: np.ndarray) -> np.ndarray:
    """Share of the positive evidence that lies on the object, [N] in [0, 1]; 0 where there is none.

    heatmaps, coverage: [N, P]. A heatmap that is the same everywhere gets the object's share of the picture.
    """
    positive = np.maximum(heatmaps, 0)
    total = positive.sum(axis=1)
    inside = (positive * coverage).sum(axis=1)
    return np.divide(inside, total, out=np.zeros_like(inside), where=total > 0)


def centred_mass(heatmaps: np.ndarray, coverage: np.ndarray) -> np.ndarray:
    """Relevance mass of heatmaps less their own means, [N] in [0, 1]: the same amount on every patch is no evidence.

    heatmaps, coverage: [N, P].
    """
    return relevance_mass(heatmaps - heatmaps.mean(axis=1, keepdims=True), coverage)


def strongest_at_border(heatmaps: np.ndarray) -> np.ndarray:
    """1 where the strongest patch of a heatmap lies at the picture's border, else 0: [N]. heatmaps: [N, gh, gw]."""
    rows, columns = heatmaps.shape[1:]
    row, column = np.divmod(heatmaps.reshape(len(heatmaps), -1).argmax(axis=1), columns)
    return (np.isin(row, (0, rows - 1)) | np.isin(column, (0, columns - 1))).astype(np.float64)


def pointing_game(heatmaps: np.ndarray, coverage: np.ndarray) -> np.ndarray:
    """1 where the object covers at least half of the strongest patch, else 0: [N]. heatmaps, coverage: [N, P]."""
    strongest = heatmaps.argmax(axis=1)
    return (np.take_along_axis(coverage, strongest[:, None], axis=1)[:, 0] >= 0.5).astype(np.float64)


def matched_iou(heatmaps: np.ndarray, coverage: np.ndarray) -> np.ndarray:
    """Intersection over union of the object and as many of the strongest patches as it covers in area, [N].

    heatmaps, coverage: [N, P]. Without a threshold to choose, heatmaps of any scale compare fairly.
    """
    area = coverage.sum(axis=1)
    count = np.maximum(1, np.round(area)).astype(np.int64)
    order = np.argsort(-heatmaps, axis=1, kind="stable")
    rank = np.argsort(order, axis=1, kind="stable")
    inside = np.where(rank < count[:, None], coverage, 0).sum(axis=1)
    return inside / (count + area - inside)


def localise(heatmaps: np.ndarray, coverage: np.ndarray) -> dict[str, np.ndarray]:
    """Every metric [N] of heatmaps [N, gh, gw] by its name, see METRICS. coverage: [N, P]."""
    flat = heatmaps.reshape(len(heatmaps), -1)
    values = [f(flat, coverage) for f in (relevance_mass, centred_mass, pointing_game, matched_iou)]
    return dict(zip(METRICS, [*values, strongest_at_border(heatmaps)], strict=True))


def concentration(heatmaps: np.ndarray) -> np.ndarray:
    """Share of a heatmap's excess over its mean that the strongest tenth of its patches holds, [N] in [0, 1].

    heatmaps: [N, gh, gw]. 0 where all patches are the same.
    """
    flat = heatmaps.reshape(len(heatmaps), -1).astype(np.float64)
    above = np.maximum(flat - flat.mean(axis=1, keepdims=True), 0)
    strongest = np.sort(above, axis=1)[:, -max(1, flat.shape[1] // 10) :].sum(axis=1)
    total = above.sum(axis=1)
    return np.divide(strongest, total, out=np.zeros_like(strongest), where=total > 0)


def measured(heatmaps: np.ndarray, marked: tuple[np.ndarray, np.ndarray] | None) -> dict[str, np.ndarray]:
    """What is known of where heatmaps [N, gh, gw] lie, by its name. marked: what `objects` gives.

    Every heatmap's concentration; of those on marked objects all METRICS; without any, every heatmap's border share.
    """
    values = {"concentration": concentration(heatmaps)}
    if marked is None:
        return values | {"border": strongest_at_border(heatmaps)}
    places, coverage = marked
    return values | localise(heatmaps[places], coverage)
