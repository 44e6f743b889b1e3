"""The exceptions of edgex, for the workstation side: those of the runtime, and DataError."""

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
]


class DataError(EdgexError):
    """A folder of pictures is missing, empty or laid out otherwise than expected."""
