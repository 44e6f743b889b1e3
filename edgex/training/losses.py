"""Explanation losses: the distance of a heatmap from its supervision; 0 is a perfect one, 1 a uniform one.

A term knows its supervision for all crops, brings it to a batch (mirrored where the picture is), and measures the
evidence of a forward pass against it. Optimising is `edgex.training.learning`.

`PairTerm` (labels of `edgex.shapley.labels`): squared error of the heatmap's own coalition differences, relative to
that of a uniform heatmap with the same total. `FeatureTerm`: the same for all classes at once, from the features that
the head reads; what is learned then serves heads that it never saw. `ShapeTerm` (masks of `edgex.data.masks`): 1 -
cosine between heatmap and mask, the mean of both removed, so that neither size nor scale counts.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from edgex.data.crops import Crops
from edgex.data.masks import Masks
from edgex.errors import UsageError
from edgex.shapley.labels import Labels
from edgex.shapley.solver import players_of_patches


class Term(Protocol):
    """What learning asks of a supervision.

    crops: what it is about. classes: int64 [V, K] to explain, or None for the class that the start predicts.
    of_features: whether evidence and totals are those of the D features that the head reads, instead of K classes.
    """

    crops: Crops
    classes: Tensor | None
    of_features: bool

    def targets(self, crops: Tensor, mirrored: Tensor) -> tuple[Tensor, ...]:
        """The supervision of these crops [N], turned over where `mirrored` (bool [N])."""
        ...

    def errors(
        self, scale: Tensor, evidence: Tensor, total: Tensor, targets: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor]:
        """Error of each crop and that of a uniform heatmap, both [N].

        evidence: unscaled, [N, K, P]. total: what the heatmap adds up to, [N, K]. Both in logit units; or of D
        features in place of K classes, see `of_features`.
        """
        ...

    def scale_sums(self, evidence: Tensor, total: Tensor, targets: tuple[Tensor, ...]) -> tuple[float, float]:
        """Numerator and denominator, summed over the crops, of the scale with the least squared error.

        Both 0 where the supervision has no scale: that of the start is kept.
        """
        ...


class PairTerm:
    """Coalition differences of superpixels."""

    of_features = False

    def __init__(self, labels: Labels, grid: tuple[int, int]) -> None:
        self.labels = labels
        self.crops = labels.crops
        self.classes: Tensor | None = labels.classes
        self.members = F.one_hot(players_of_patches(grid, labels.side), labels.side**2).float()

    def targets(self, crops: Tensor, mirrored: Tensor) -> tuple[Tensor, ...]:
        """Signs [N, M, Q], 1 for superpixels of the coalition and -1 for the others, and differences [N, M, K]."""
        coalitions = self.labels.coalitions[crops].unflatten(-1, (self.labels.side, self.labels.side))
        coalitions = torch.where(mirrored[:, None, None, None], coalitions.flip(-1), coalitions).flatten(-2)
        return coalitions.float() * 2 - 1, self.labels.differences[crops]

    def slope_and_offset(self, evidence: Tensor, total: Tensor, signs: Tensor) -> tuple[Tensor, Tensor]:
        """The heatmap's coalition differences are scale * slope + offset (both [N, M, K]), by its definition."""
        members = self.members.to(evidence.device)
        summed = (evidence - evidence.mean(dim=-1, keepdim=True)) @ members
        share = total[:, :, None] * (members.sum(dim=0) / len(members))
        return signs @ summed.transpose(1, 2), signs @ share.transpose(1, 2)

    def errors(
        self, scale: Tensor, evidence: Tensor, total: Tensor, targets: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor]:
        """See `Term`."""
        signs, differences = targets
        slope, offset = self.slope_and_offset(evidence, total, signs)
        wrong, null = scale * slope + offset - differences, offset - differences
        return wrong.square().mean(dim=(1, 2)), null.square().mean(dim=(1, 2))

    def scale_sums(self, evidence: Tensor, total: Tensor, targets: tuple[Tensor, ...]) -> tuple[float, float]:
        """See `Term`."""
        signs, differences = targets
        slope, offset = self.slope_and_offset(evidence, total, signs)
        return float((slope * (differences - offset)).sum()), float(slope.square().sum())


class FeatureError:
    """How far a heatmap of the features is from pairs' differences, measured in the classes' logits.

    The error is the mean square over all classes, and OWN_SHARE times the square of the predicted class's, each
    relative to the mean square of the differences in `sample`. Little of the predicted class, which few pairs overfit.
    """

    OWN_SHARE = 0.15

    def __init__(self, centred: Tensor, sample: Iterable[tuple[Tensor, Tensor]]) -> None:
        """centred: class weights less their mean, [C, D].

        sample: parts of differences [N, M, D] with the predicted classes int64 [N].
        """
        self.centred = centred.detach().float()
        # |root x|^2 is the mean square of x in all classes' logits: D numbers a pair instead of C.
        values, vectors = torch.linalg.eigh(self.centred.double().T @ self.centred.double() / len(self.centred))
        self.root = (vectors * values.clamp(min=0).sqrt()).float()
        squares = [self._squares(part.float(), self.own(classes)) for part, classes in sample]
        self.sizes = torch.cat(squares, dim=1).mean(dim=1)

    def own(self, classes: Tensor) -> Tensor:
        """Weights [N, D] of the predicted classes int64 [N]."""
        return self.centred[classes]

    def to(self, device: torch.device) -> FeatureError:
        """The same on another device."""
        moved = copy.copy(self)
        moved.centred, moved.root, moved.sizes = (t.to(device) for t in (self.centred, self.root, self.sizes))
        return moved

    def __call__(self, wrong: Tensor, own: Tensor) -> Tensor:
        """Error [N] of heatmaps that are off by `wrong` [N, M, D]. own: see there, [N, D]."""
        shares = torch.tensor([1.0, self.OWN_SHARE], device=own.device) / self.sizes.to(own.device)
        return shares @ self._squares(wrong, own)

    def _squares(self, differences: Tensor, own: Tensor) -> Tensor:
        """Mean square [2, N] of differences [N, M, D] in all classes' logits, and in the predicted class's."""
        every = (differences @ self.root.to(differences.device)).square().sum(dim=2).mean(dim=1)
        return torch.stack([every, (differences @ own[:, :, None]).square().mean(dim=(1, 2))])


class FeatureTerm(PairTerm):
    """Coalition differences of the features, measured in the classes' logits: see `FeatureError`."""

    of_features = True

    def __init__(self, labels: Labels, grid: tuple[int, int], centred: Tensor) -> None:
        """centred: class weights less their mean, [C, D]."""
        super().__init__(labels, grid)
        if labels.features is None or labels.features.shape[-1] != centred.shape[1]:
            found = "none" if labels.features is None else str(labels.features.shape[-1])
            raise UsageError(
                f"expected labels of the {centred.shape[1]} features that the head reads, found {found}: label the "
                "pictures with features",
                argument="labels",
            )
        self.features = labels.features
        # Kept where the labels are; batches are brought to the device.
        parts = zip(self.features.split(256), labels.classes[:, 0].split(256), strict=True)
        self.error = FeatureError(centred.cpu(), parts)

    def targets(self, crops: Tensor, mirrored: Tensor) -> tuple[Tensor, ...]:
        """Signs [N, M, Q], differences of the features [N, M, D], weights of the predicted class [N, D]."""
        signs, _ = super().targets(crops, mirrored)
        return signs, self.features[crops].float(), self.error.own(self.labels.classes[crops, 0])

    def errors(
        self, scale: Tensor, evidence: Tensor, total: Tensor, targets: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor]:
        """See `Term`."""
        signs, differences, own = targets
        slope, offset = self.slope_and_offset(evidence, total, signs)
        return self.error(scale * slope + offset - differences, own), self.error(offset - differences, own)

    def scale_sums(self, evidence: Tensor, total: Tensor, targets: tuple[Tensor, ...]) -> tuple[float, float]:
        """See `Term`."""
        signs, differences, _ = targets
        root = self.error.root.to(signs.device)
        slope, offset = (part @ root for part in self.slope_and_offset(evidence, total, signs))
        return float((slope * (differences @ root - offset)).sum()), float(slope.square().sum())


class ShapeTerm:
    """Masks on the patch grid."""

    of_features = False

    def __init__(self, masks: Masks, grid: tuple[int, int]) -> None:
        self.masks = masks
        self.crops = masks.crops
        self.classes: Tensor | None = None
        self.grid = grid

    def targets(self, crops: Tensor, mirrored: Tensor) -> tuple[Tensor, ...]:
        """Coverage [N, P] of the patches."""
        coverage = self.masks.coverage[crops].unflatten(-1, self.grid)
        return (torch.where(mirrored[:, None, None], coverage.flip(-1), coverage).flatten(1),)

    def errors(
        self,
        scale: Tensor,  # noqa: ARG002
        evidence: Tensor,
        total: Tensor,  # noqa: ARG002
        targets: tuple[Tensor, ...],
    ) -> tuple[Tensor, Tensor]:
        """See `Term`; a shape has neither scale nor total."""
        (coverage,) = targets
        shape = coverage - coverage.mean(dim=-1, keepdim=True)
        found = evidence - evidence.mean(dim=-1, keepdim=True)
        errors = 1 - F.cosine_similarity(found, shape[:, None], dim=-1).mean(dim=1)
        return errors, torch.ones_like(errors)

    def scale_sums(
        self,
        evidence: Tensor,  # noqa: ARG002
        total: Tensor,  # noqa: ARG002
        targets: tuple[Tensor, ...],  # noqa: ARG002
    ) -> tuple[float, float]:
        """A shape has no scale."""
        return 0.0, 0.0
