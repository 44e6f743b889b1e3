"""A connection of the server, with time limits that uvicorn leaves open, so that no client holds one for ever.

| a client that | is cut off after |
|---|---|
| never finishes the headers of its first request | `limits.ARRIVAL` |
| sends no further request, or bytes that begin none | `limits.KEEP_ALIVE` |
| does not read its answer | `Limits.timeout` |

The time limits of a request's body and of the work on it are in `gate`.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from edgex.serving import limits
from edgex.serving.refusals import RETRY_AFTER, error_body


class Connection(H11Protocol):
    """timeout: seconds that a client may take to read an answer."""

    def __init__(self, *arguments: Any, timeout: float, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._timeout = timeout
        self._arriving: asyncio.TimerHandle | None = None
        self._reading: asyncio.TimerHandle | None = None
        self._refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Takes the connection, unless there are too many."""
        self._refused = len(self.connections) >= limits.MAX_CONNECTIONS
        super().connection_made(transport)
        self._awaits(limits.ARRIVAL)
        if self._refused:
            self._answer(
                HTTPStatus.SERVICE_UNAVAILABLE, "too many connections at once; try again in a second", RETRY_AFTER
            )

    def data_received(self, data: bytes) -> None:
        """Ends the wait for a request where the data begin one."""
        if self._refused:
            return
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before and not self.cycle.response_complete:
            self._awaits(None)

    def on_response_complete(self) -> None:
        """Waits for the next request."""
        before = self.cycle
        super().on_response_complete()
        self._awaits(limits.KEEP_ALIVE if self.cycle is before else None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops the clocks."""
        self._awaits(None)
        self._reads()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client reads more slowly than it is answered."""
        super().pause_writing()
        self._reads()
        self._reading = self.loop.call_later(self._timeout, self.transport.abort)

    def resume_writing(self) -> None:
        """It has caught up."""
        super().resume_writing()
        self._reads()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        """Answers what is no HTTP; in the middle of another answer it only ends."""
        self._refused = True
        if self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete:
            self.transport.close()
            return
        self._answer(HTTPStatus.BAD_REQUEST, "expected an HTTP/1.1 request, found something else")

    def _answer(self, status: HTTPStatus, message: str, retry_after: int | None = None) -> None:
        body = error_body(message)
        wait = "" if retry_after is None else f"Retry-After: {retry_after}\r\n"
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n{wait}Connection: close\r\n\r\n"
        )
        self.transport.write(head.encode("ascii") + body)
        self.transport.close()

    def _awaits(self, seconds: float | None) -> None:
        if self._arriving is not None:
            self._arriving.cancel()
        self._arriving = None if seconds is None else self.loop.call_later(seconds, self.transport.abort)

    def _reads(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None
