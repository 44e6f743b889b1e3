"""What a source of pictures is: the protocol that every source follows, and the pictures that it hands out.

| source | module |
|---|---|
| a folder of pictures, one picture | folder |
| a folder that fills | followed_folder |
| standard input | pipe |
| a video, a camera, a network stream | video |
| an HTTP camera or playlist | http_source |

`open_source` chooses among them by name. When a source is read, and when it is opened again, is decided in `stream`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from edgex.runtime.frames import Frame


@dataclass(frozen=True, eq=False)
class SourceFrame:
    """One picture of a source."""

    frame: Frame
    name: str
    """For people: the picture's path, or its position in the source."""
    time: float | None = None
    """Seconds since the source's first picture; None where the source has no clock."""


class Source(Protocol):
    """Pictures one after the other. One thread calls `open`, `read` and `close`, and `open` again after `close`.

    A source may have two more members. `remark`: a line for people, said once. `cancel()`: makes a `read` that waits in
    another thread end soon, by returning None.
    """

    name: str
    """For people."""
    live: bool
    """Whether pictures come at the source's own pace and are lost unless read: a camera, a network stream."""

    def open(self) -> None:
        """Makes ready to read, from the beginning. Raises SourceError."""

    def read(self) -> SourceFrame | None:
        """The next picture; None at the end.

        Raises ImageError for a picture that cannot be used (the next call continues after it), SourceError where the
        source broke off.
        """

    def close(self) -> None:
        """Releases what `open` took."""
