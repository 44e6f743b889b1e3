"""Exceptions of edgex, and their wording. They live in the runtime, since it imports nothing else of edgex.

EdgexError                  everything that edgex raises on purpose; its text is one line for a person
├── UsageError              the call itself is wrong: options that contradict, an unknown name or class
├── ArtefactError           a file is missing, truncated, tampered with or not what it was said to be
│   └── MismatchError       two artefacts do not fit together: architecture, base, tensor names or shapes
├── ImageError              a picture cannot be read or has an unusable shape or type
├── SourceError             a stream of pictures cannot be opened, or breaks off
├── UnsupportedError        a model that edgex cannot explain: its pooling, attention or architecture
├── MissingExtraError       an optional package is not installed; the message names the extra
├── ProviderError           an execution provider that was asked for is not available
└── GateError               an exported file does not match its source model; nothing was written
"""


class EdgexError(Exception):
    """Base of every error that edgex raises on purpose.

    argument: the parameter of the public function that the message is about, such as "alpha", or None. The command
    line puts the flag of that name before the message, so that messages themselves need not know any flag.
    """

    def __init__(self, message: str = "", *, argument: str | None = None) -> None:
        super().__init__(message)
        self.argument = argument


class UsageError(EdgexError):
    """The call is wrong: contradicting options, an unknown name, an unknown class."""


class ArtefactError(EdgexError):
    """A file is missing, truncated, corrupt, tampered with or of another kind than expected."""


class MismatchError(ArtefactError):
    """Two artefacts do not fit together: architecture, base fingerprint, tensor names or shapes."""


class ImageError(EdgexError):
    """A picture cannot be read, or its shape, size or dtype is unusable."""


class SourceError(EdgexError):
    """A camera, network stream, video or folder cannot be opened as a stream of pictures, or breaks off."""


class UnsupportedError(EdgexError):
    """A model that cannot be explained: unsupported pooling, attention or architecture."""


class MissingExtraError(EdgexError):
    """An optional dependency is not installed; the message names the extra that brings it."""


class ProviderError(EdgexError):
    """The execution provider that was asked for is not available on this machine."""


class GateError(EdgexError):
    """An exported file failed its parity gate against the source model; nothing was written."""


_LONGEST_REASON = 300
"""Characters of another library's message that one of edgex repeats."""


def install_hint(extra: str) -> str:
    """The command that installs one of the optional parts of edgex, such as "cpu" or "bake"."""
    return f"pip install '.[{extra}]' in a clone of edgex"


def first_line(error: BaseException) -> str:
    """The first line that an exception says, or its type where it says nothing.

    Some libraries repeat what they found in a file; what is longer than a message for people is cut off.
    """
    lines = (line.strip() for line in str(error).splitlines())
    line = next((line for line in lines if line), type(error).__name__)
    return line if len(line) <= _LONGEST_REASON else f"{line[:_LONGEST_REASON]}..."
