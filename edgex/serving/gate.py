"""What every request passes before it reaches an address, and what every answer passes on its way out.

Access, a request id, the limits on bodies and on requests at once, the time limit, a line of the log, the counts. What
it lets through has its whole body in memory.

Without a token the server is on a loopback address, where any web page that the user has open may send requests. So the
Host header must be a name of this machine, which stops DNS rebinding, and an Origin header must be that host.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgex.runtime.access import is_allowed, is_loopback
from edgex.runtime.errors import first_line
from edgex.runtime.printable import printable
from edgex.serving import limits as fixed
from edgex.serving.limits import Limits
from edgex.serving.metrics import Metrics
from edgex.serving.refusals import RefusedError, error_body, refusal_of

OPEN = ("/healthz", "/readyz")
"""Addresses that need no token: container managers ask them."""
PROBLEM = "edgex.problem"
"""Where the application leaves, in the scope, the RefusedError that it told a client of."""
_GONE = 499
"""What logs and counts call a request whose client went away, as nginx does."""
_ID = re.compile(r"[\w.:-]{1,64}", re.ASCII)
_HEADERS = [(b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store")]


class _Gone(Exception):  # noqa: N818
    """The client closed its connection."""


class Slots:
    """How many pictures are worked on at once; RefusedError with status 503 where there are too many."""

    def __init__(self, most: int) -> None:
        self.most, self.taken = most, 0

    @contextlib.asynccontextmanager
    async def take(self, count: int) -> AsyncIterator[None]:
        """Takes so many for the time of the block."""
        if self.taken + count > self.most:
            raise RefusedError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"{self.taken} of {self.most} pictures are pending; try again in a second",
            )
        self.taken += count
        try:
            yield
        finally:
            self.taken -= count


class Gate:
    """An ASGI application around another.

    token: what clients must send, None for nothing. report: called with a line for each request, unless `log_requests`
    is False. report_failure: called instead with the line of each that failed because of the server itself.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        limits: Limits,
        slots: Slots,
        metrics: Metrics,
        token: str | None,
        report: Callable[[str], None],
        report_failure: Callable[[str], None],
        log_requests: bool,
    ) -> None:
        self._app, self._limits, self._slots, self._metrics = app, limits, slots, metrics
        self._token, self._log_requests = token, log_requests
        self._report, self._report_failure = report, report_failure
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        answer = _Answer(send, given if _ID.fullmatch(given) else secrets.token_hex(8))
        problem, failed = "", False
        try:
            self._check_access(scope, headers)
            await self._pass(scope, headers, receive, answer)
        except _Gone:
            answer.status, problem = _GONE, "the client went away"
        except Exception as error:
            refusal = refusal_of(error)
            problem, failed = first_line(refusal), refusal.failure
            if not answer.started:
                await _refuse(refusal, headers, receive, answer)
        seconds = time.perf_counter() - start
        if (told := scope.get(PROBLEM)) is not None and not problem:
            problem, failed = str(told), told.failure
        route = scope.get("route")
        self._metrics.answered(getattr(route, "path", "other"), answer.status, seconds)
        line = f"{answer.identity} {scope['method']} {scope['path'][:200]} {answer.status} {1000 * seconds:.1f} ms"
        if failed or self._log_requests:
            report = self._report_failure if failed else self._report
            report(printable(f"{line}: {problem}" if problem else line))

    def _check_access(self, scope: Scope, headers: Headers) -> None:
        if self._token is not None:
            if scope["path"] not in OPEN and not is_allowed(headers.get("authorization", ""), self._token):
                raise RefusedError(
                    HTTPStatus.UNAUTHORIZED,
                    "expected the header Authorization: Bearer TOKEN with the server's token, found none or another",
                    {"WWW-Authenticate": 'Bearer, Basic realm="edgex, any user, the token as password"'},
                )
            return
        host, origin = headers.get("host", ""), headers.get("origin")
        if not is_loopback(_hostname(host)):
            raise RefusedError(
                HTTPStatus.FORBIDDEN,
                "this server answers this machine only; give it a token to be asked by other names",
            )
        if origin is not None and origin.partition("://")[2] != host:
            raise RefusedError(HTTPStatus.FORBIDDEN, "this request came from a web page of another address")

    async def _pass(self, scope: Scope, headers: Headers, receive: Receive, answer: _Answer) -> None:
        if scope["method"] != "POST":
            await self._app(scope, receive, answer)
            return
        async with self._slots.take(1):
            body = await self._body(headers, receive)
            try:
                await self._answered(scope, body, receive, answer)
            finally:
                self._held -= len(body)

    async def _body(self, headers: Headers, receive: Receive) -> bytes:
        """All of it; its length counts as held from here on."""
        declared = headers.get("content-length", "0")
        if len(declared) > 15 or int(declared) > self._limits.body:
            raise self._too_large()
        body, held = bytearray(), 0
        try:
            async with asyncio.timeout(self._limits.timeout):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _Gone
                    piece = message.get("body", b"")
                    body += piece
                    held += len(piece)
                    self._held += len(piece)
                    if len(body) > self._limits.body:
                        raise self._too_large()
                    if self._held > self._limits.held:
                        raise RefusedError(
                            HTTPStatus.SERVICE_UNAVAILABLE,
                            f"the requests that are there take {self._limits.max_held_mb:g} MB; try again in a second",
                        )
                    if not message.get("more_body", False):
                        return bytes(body)
        except BaseException as error:
            self._held -= held
            if isinstance(error, TimeoutError):
                raise RefusedError(
                    HTTPStatus.REQUEST_TIMEOUT, f"expected the whole request within {self._limits.timeout:g} s"
                ) from None
            raise

    def _too_large(self) -> RefusedError:
        return RefusedError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"expected at most {self._limits.body / fixed.MB:g} MB in a request, found more",
        )

    async def _answered(self, scope: Scope, body: bytes, receive: Receive, answer: _Answer) -> None:
        """Lets the request through; ends the work where it takes too long, or where its client goes away."""
        message: Message | None = {"type": "http.request", "body": body, "more_body": False}

        async def replay() -> Message:
            nonlocal message
            found, message = message, None
            return found or await receive()

        task, gone, over = asyncio.current_task(), False, False

        def left(_: object) -> None:
            nonlocal gone
            if not over and not answer.complete and task is not None:
                gone = task.cancel()

        leaving = asyncio.ensure_future(receive())
        leaving.add_done_callback(left)
        try:
            async with asyncio.timeout(self._limits.timeout):
                await self._app(scope, replay, answer)
        except TimeoutError:
            raise RefusedError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"no answer within {self._limits.timeout:g} s; try again in a second",
            ) from None
        except asyncio.CancelledError:
            if not gone or task is None:
                raise
            task.uncancel()
            raise _Gone from None
        finally:
            over = True
            leaving.cancel()


class _Answer:
    """Sends an answer, with the headers that all have; knows how far it is."""

    def __init__(self, send: Send, identity: str) -> None:
        self._send, self.identity = send, identity
        self.status, self.started, self.complete = 0, False, False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self.started = message["status"], True
            common = [*_HEADERS, (b"x-request-id", self.identity.encode("ascii"))]
            message = {**message, "headers": [*message.get("headers", []), *common]}
        else:
            self.complete = not message.get("more_body", False)
        await self._send(message)


async def _refuse(refusal: RefusedError, headers: Headers, receive: Receive, send: Send) -> None:
    """Sends an error. What the client still sends is read for a moment: it might miss the answer otherwise."""
    body = error_body(str(refusal))
    fields = {"Content-Type": "application/json", "Content-Length": str(len(body)), **refusal.headers}
    unread = "content-length" in headers or "transfer-encoding" in headers
    if unread:
        fields["Connection"] = "close"
    encoded: Any = [(name.lower().encode("ascii"), value.encode("ascii")) for name, value in fields.items()]
    await send({"type": "http.response.start", "status": int(refusal.status), "headers": encoded})
    await send({"type": "http.response.body", "body": body, "more_body": unread})
    if not unread:
        return
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(fixed.LINGER):
            while (message := await receive())["type"] == "http.request" and message.get("more_body", False):
                pass
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def _hostname(host: str) -> str:
    """The name in a Host header; empty where it is malformed."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
