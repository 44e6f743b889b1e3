"""Errors that a client gets: {"error": one line} and an HTTP status."""

from __future__ import annotations

import json
from http import HTTPStatus

from edgex.errors import EdgexError, ImageError, UsageError
from edgex.runtime.errors import first_line
from edgex.runtime.printable import printable

RETRY_AFTER = 1
"""Seconds that a client is asked to wait where the server has too much to do."""


class RefusedError(Exception):
    """A request that gets no answer.

    headers: for the client, besides the usual ones. failure: whether the server itself failed, so that its operator has
    to know.
    """

    def __init__(
        self, status: HTTPStatus, message: str, headers: dict[str, str] | None = None, *, failure: bool = False
    ) -> None:
        super().__init__(message)
        self.status, self.failure = status, failure
        self.headers = dict(headers or {})
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            self.headers.setdefault("Retry-After", str(RETRY_AFTER))

    @property
    def body(self) -> bytes:
        """{"error": ...} as JSON."""
        return error_body(str(self))


def error_body(message: str) -> bytes:
    """{"error": message} as JSON, the message made printable."""
    return json.dumps({"error": printable(message)}, ensure_ascii=False).encode("utf-8")


def refusal_of(error: Exception) -> RefusedError:
    """What a client is told of an error: what it sent wrong is 422, what fails here is 503, a bug is 500."""
    if isinstance(error, RefusedError):
        return error
    if isinstance(error, (UsageError, ImageError)):
        about = f"{error.argument}: " if error.argument else ""
        return RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, f"{about}{error}")
    if isinstance(error, EdgexError):
        words = f"the model cannot be run: {first_line(error)}"
        return RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, words, failure=True)
    words = f"{type(error).__name__}: {first_line(error)}"
    return RefusedError(HTTPStatus.INTERNAL_SERVER_ERROR, words, failure=True)
