"""The exceptions of edgex, for the workstation side: those of the runtime, DataError and VerdictError."""

from edgex.runtime.errors import (
    ArtefactError,
    EdgexError,
    GateError,
    ImageError,
    MismatchError,
    MissingExtraError,
    ProviderError,
    SourceError,
    UnsupportedError,
    UsageError,
)

__all__ = [
    "ArtefactError",
    "DataError",
    "EdgexError",
    "GateError",
    "ImageError",
    "MismatchError",
    "MissingExtraError",
    "ProviderError",
    "SourceError",
    "UnsupportedError",
    "UsageError",
    "VerdictError",
]


class DataError(EdgexError):
    """A folder of pictures is missing, empty or laid out otherwise than expected."""


class VerdictError(EdgexError):
    """A baked model or a vector was measured to be worse than none, or no better; nothing was written."""
