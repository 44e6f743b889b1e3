"""The exceptions of edgex, for the workstation side: the same classes that the runtime raises."""

from edgex.runtime.errors import (
    ArtefactError,
    EdgexError,
    GateError,
    ImageError,
    MismatchError,
    MissingExtraError,
    ProviderError,
    UnsupportedError,
    UsageError,
)

__all__ = [
    "ArtefactError",
    "EdgexError",
    "GateError",
    "ImageError",
    "MismatchError",
    "MissingExtraError",
    "ProviderError",
    "UnsupportedError",
    "UsageError",
]
