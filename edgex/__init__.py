"""edgex gives a trained Vision Transformer classifier a built-in heatmap and ships it to the edge.

From Python: `edgex.load_model`, `edgex.load_vector` and `edgex.vectors.bake.bake` on the workstation, `edgex.export` to
make files for devices, `edgex.runtime.Session` on the device. The names below load torch when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from edgex._version import __version__

if TYPE_CHECKING:
    from edgex.files.model_file import load_model
    from edgex.files.vector_file import load_vector

__all__ = ["__version__", "load_model", "load_vector"]

_HOMES = {"load_model": "files.model_file", "load_vector": "files.vector_file"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'edgex' has no attribute '{name}'")
    return getattr(importlib.import_module(f"edgex.{_HOMES[name]}"), name)
