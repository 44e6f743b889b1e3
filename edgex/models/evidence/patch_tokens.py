"""Patch tokens: each patch's own share of the mean that the head reads."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from edgex.models.backbones import Backbone, Pooling
from edgex.models.evidence.base import Encoded, EvidenceStrategy
from edgex.models.head import Head


class PatchTokens(EvidenceStrategy[None, Tensor]):
    """Evidence of average pooling.

        e[p, c] = z[p] . d_c / P

    z: the patch tokens that are averaged, [N, P, D]. d_c: the centred weights of class c folded backwards through what
    follows the mean, [N, D]: the projection and, in models that norm the mean, the final norm. The head is linear in
    the mean once the norm's sigma and CLIP's length are held, so the evidence of all patches adds up to the logit but
    for constants. It is a class activation map (Zhou et al., 2016, arXiv 1512.04150, section 2) of patch tokens.
    """

    kind: ClassVar[str] = "patch-tokens"
    poolings: ClassVar[tuple[Pooling, ...]] = ("avg",)

    @property
    def pools_before_norm(self) -> bool:
        """As the model has it."""
        return self.backbone.norm_after_pool

    @classmethod
    def default_blocks(cls, backbone: Backbone) -> int:  # noqa: ARG003
        """None of the blocks: the patch tokens after the last one are what is read."""
        return 0

    def pool(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The mean over patch tokens, normed and projected, and the patch tokens that it is taken over."""
        backbone = self.backbone
        patches = tokens[:, backbone.prefix_tokens :]
        if self.pools_before_norm:
            return backbone.project(backbone.norm(patches.mean(dim=1))), patches
        patches = backbone.norm(patches)
        return backbone.project(patches.mean(dim=1)), patches

    def read(self, tokens: Tensor, pooled: Tensor) -> Tensor:
        """All patch tokens alike."""
        weights = tokens.new_zeros(len(tokens), 1, tokens.shape[1])
        weights[..., self.backbone.prefix_tokens :] = 1 / pooled.shape[1]
        return weights

    def empty_features(self) -> Tensor:
        """Features [1, D'] of a mean that is zero."""
        backbone = self.backbone
        pooled = backbone.patch_projection.weight.new_zeros(1, backbone.width)
        return backbone.project(backbone.norm(pooled) if self.pools_before_norm else pooled)

    def evidence_along(self, rows: Tensor, tokens: Tensor, kept: list[None]) -> Tensor:  # noqa: ARG002
        """See the class."""
        direction = self.directions(rows) * self.norm_slope(tokens.mean(dim=1))
        return (tokens @ direction[:, :, None])[:, :, 0] / tokens.shape[1]

    def feature_evidence(self, encoded: Encoded[None, Tensor], head: Head) -> Tensor:
        """Unscaled evidence [N, D', P] of each feature that the head reads, where the norm comes before the mean."""
        if self.pools_before_norm:
            return super().feature_evidence(encoded, head)
        patches = encoded.tokens
        return self.backbone.project_share(patches * head.slope(encoded.features)[:, None]).mT / patches.shape[1]
