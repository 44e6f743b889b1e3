"""Kernel SHAP of a picture by captum and by shap, called as their documentation calls them. No torch but captum's.

Both hide superpixels behind the mean colour and score the hidden pictures with one function; both are given the
score of the explained class only, since shap otherwise fits every class, which takes longer and explains nothing
that was asked for. edgex's own Kernel SHAP, for comparing quality, is `edgex.shapley.solver`.

captum: `KernelShap(score).attribute(picture, baselines=mean colour, feature_mask=superpixels, n_samples=N,
    perturbations_per_eval=batch)`, with `return_input_shape` and `interpretable_model` at their defaults. The
    picture stays uint8, a quarter of the bytes that float32 would move.
shap: `KernelExplainer(score of masks, zeros).shap_values(ones, nsamples=N)` as in its ImageNet example, with
    `l1_reg` at its default ("num_features(10)"). It evaluates the empty and the full coalition besides. It hands
    all masks over at once; the function that it calls takes them in batches.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Literal

import numpy as np

from edgex.errors import MissingExtraError, UsageError
from edgex.runtime.preprocessing import Preprocessing
from edgex.shapley.superpixels import superpixels

Library = Literal["captum", "shap"]
LIBRARIES: tuple[Library, ...] = ("captum", "shap")

Score = Callable[[np.ndarray], np.ndarray]
"""Pictures uint8 [N, H, W, 3] -> the explained class's score of each, float32 [N]."""


def segments_of(size: tuple[int, int], players: int) -> np.ndarray:
    """Superpixel index of each pixel, int64 [H, W]: players is a square number, cut into as many rows as columns.

    size: (H, W). Raises UsageError for another number, or for more rows than pixels.
    """
    side = math.isqrt(max(players, 0))
    if side * side != players or not 2 <= side <= min(size):
        raise UsageError(
            f"expected a square number of players from 4 to {min(size) ** 2}, such as 49 or 196, found {players}",
            argument="players",
        )
    return superpixels(size, side)


def mean_colour(preprocessing: Preprocessing) -> np.ndarray:
    """The colour that normalisation makes 0, uint8 [3]: captum's default and `edgex.evaluation.faithfulness`'s fill."""
    return np.array(preprocessing.mean_colour, np.uint8)


def kernel_shap(
    library: Library,
    score: Score,
    picture: np.ndarray,
    segments: np.ndarray,
    colour: np.ndarray,
    *,
    evaluations: int,
    batch: int,
) -> np.ndarray:
    """Shapley values of superpixels, spread over their pixels: float64 [H, W] in units of the score.

    picture: uint8 [H, W, 3]. segments: int64 [H, W], see `segments_of`. colour: uint8 [3] that hides. evaluations:
    as the library counts them. batch: pictures that `score` is given at once.

    Raises MissingExtraError where the library is not installed.
    """
    function = _by_captum if library == "captum" else _by_shap
    try:
        return function(score, picture, segments, colour, evaluations, batch)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"Kernel SHAP by {library} needs the package {error.name}: pip install '.[bench]'"
        ) from error


def _by_captum(
    score: Score, picture: np.ndarray, segments: np.ndarray, colour: np.ndarray, evaluations: int, batch: int
) -> np.ndarray:
    import torch
    from captum.attr import KernelShap

    inputs = torch.from_numpy(np.ascontiguousarray(picture))[None]
    values = KernelShap(lambda pictures: torch.from_numpy(score(pictures.numpy()))).attribute(
        inputs,
        baselines=torch.from_numpy(colour).expand_as(inputs),
        feature_mask=torch.from_numpy(segments)[None, :, :, None],
        n_samples=evaluations,
        perturbations_per_eval=batch,
    )
    return values[0, :, :, 0].double().numpy()


def _by_shap(
    score: Score, picture: np.ndarray, segments: np.ndarray, colour: np.ndarray, evaluations: int, batch: int
) -> np.ndarray:
    with warnings.catch_warnings():
        # It sets up its plots when it is imported, through parts of matplotlib that are deprecated.
        warnings.simplefilter("ignore")
        import shap

    def scores(masks: np.ndarray) -> np.ndarray:
        shown = masks.astype(bool)
        parts = [
            score(np.where(shown[start : start + batch, segments][..., None], picture, colour))
            for start in range(0, len(shown), batch)
        ]
        return np.concatenate(parts)

    players = int(segments.max()) + 1
    with warnings.catch_warnings():
        # Its default regularisation warns where fewer evaluations than players leave the fit open.
        warnings.simplefilter("ignore")
        explainer = shap.KernelExplainer(scores, np.zeros((1, players)))
        values = explainer.shap_values(np.ones((1, players)), nsamples=evaluations, silent=True)
    return np.asarray(values, np.float64)[0][segments]
