"""What is measured of heatmaps: on how many pictures, against what, how."""

from __future__ import annotations

import dataclasses

from edgex.errors import UsageError
from edgex.evaluation.faithfulness import FILLS, STEPS, Fill
from edgex.evaluation.methods import Method
from edgex.evaluation.methods.kernel_shap import KernelShap
from edgex.shapley.solver import FEWEST_PASSES

REFERENCE = KernelShap(4000)
"""The Shapley reference that a report should use; its two halves tell how well it agrees with itself."""
SMALLEST_REFERENCE = 2 * FEWEST_PASSES


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is measured: on how many pictures, evenly spread; against which methods; with which fills and steps.

    reference: a Kernel SHAP of many passes, whose correlation with every heatmap is measured. precision: of the many
    passes over masked pictures; classes and the models' own heatmaps are computed in fp32. workers: see
    `edgex.data.loading.loaded`.
    """

    explained: int = 50
    methods: tuple[Method, ...] = ()
    fills: tuple[Fill, ...] = FILLS
    steps: int = STEPS
    reference: KernelShap | None = None
    device: str = "auto"
    precision: str = "auto"
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.explained < 2:
            raise UsageError(f"expected at least 2 pictures to explain, found {self.explained}", argument="num_images")
        names = [str(method) for method in self.methods]
        if not self.fills or len(set(self.fills)) < len(self.fills) or len(set(names)) < len(names):
            raise UsageError(f"expected every fill and method once, found {', '.join([*self.fills, *names])}")
        reference = self.reference
        if reference and (not isinstance(reference, KernelShap) or reference.passes < SMALLEST_REFERENCE):
            raise UsageError(
                f"expected a reference kernel-shap:PASSES of at least {SMALLEST_REFERENCE} passes, found {reference}",
                argument="reference",
            )
