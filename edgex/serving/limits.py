"""What a server takes on at most."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgex.errors import UsageError

MB = 1_000_000
ARRIVAL = 10.0
"""Seconds from the opening of a connection to the end of its first request's headers."""
KEEP_ALIVE = 30.0
"""Seconds that a connection may wait for its next request."""
LINGER = 2.0
"""Seconds that the rest of a refused request is read and dropped: closing before that could undo the answer."""
MAX_CONNECTIONS = 1000
MAX_HEADERS = 32_768
"""Bytes of a request's line and headers."""


@dataclass(frozen=True)
class Limits:
    """What a server takes on at most. Raises UsageError for numbers that are none.

    max_body_mb: of one request's body, in MB (millions of bytes).
    max_held_mb: of the bodies of all requests that are there at once, in MB.
    max_pictures: in one request.
    max_pending: pictures that are read, wait or are worked on at once; further requests get status 503.
    timeout: seconds that a request's body may take to arrive, that its answer may take to be made, and that the client
        may take to read it.
    """

    max_body_mb: float = 20.0
    max_held_mb: float = 256.0
    max_pictures: int = 32
    max_pending: int = 128
    timeout: float = 30.0

    def __post_init__(self) -> None:
        for name in ("max_body_mb", "max_held_mb", "max_pictures", "max_pending", "timeout"):
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                raise UsageError(f"expected a number above 0, found {value!r}", argument=name)
        if self.max_pictures > self.max_pending:
            raise UsageError(
                f"expected at most max_pending, {self.max_pending}, found {self.max_pictures}", argument="max_pictures"
            )

    @property
    def body(self) -> int:
        """Bytes of one body."""
        return int(min(self.max_body_mb, self.max_held_mb) * MB)

    @property
    def held(self) -> int:
        """Bytes of all bodies."""
        return int(self.max_held_mb * MB)
