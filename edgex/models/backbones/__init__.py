"""Backbones: one uniform view of the Vision Transformers of timm and open_clip.

Nothing outside this package asks how a library lays out its modules. A family of models is one file here
(`timm`, `open_clip`); `registry` lists them. How a heatmap is read off a backbone lives in `edgex.models.evidence`.
"""

from edgex.models.backbones.architectures import Architecture, Pooling
from edgex.models.backbones.backbone import NO_PLACES, AttentionPool, Backbone, Block
from edgex.models.backbones.registry import architecture, build, input_size

__all__ = [
    "NO_PLACES",
    "Architecture",
    "AttentionPool",
    "Backbone",
    "Block",
    "Pooling",
    "architecture",
    "build",
    "input_size",
]
