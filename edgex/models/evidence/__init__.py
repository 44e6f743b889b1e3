"""Evidence strategies: how much each patch adds to a class's logit, read off one forward pass.

One file a strategy (`class_attention`, `readout`, `patch_tokens`); `selection` finds the one that a model's `Evidence`
names. A new file in this folder with a subclass of `EvidenceStrategy` is enough to add a strategy. What makes a heatmap
of evidence, the scale and the correction that adds it up to the logit, is `edgex.models.self_explaining`'s.
"""

from edgex.models.evidence.base import Encoded, EvidenceStrategy
from edgex.models.evidence.selection import Evidence, Own

__all__ = ["Encoded", "Evidence", "EvidenceStrategy", "Own"]
