"""Alarms as HTTP POST requests of JSON."""

from __future__ import annotations

import base64
import contextlib
import http.client
import re
import socket
import ssl
import threading
from collections.abc import Mapping
from urllib.parse import SplitResult, unquote, urlsplit

from edgex.runtime.errors import UsageError
from edgex.runtime.watch.alarms.delivery import NotDeliveredError
from edgex.runtime.watch.sources.url import public_name

TIMEOUT = 10.0
"""Seconds that a receiver has to answer."""
_AGAIN = {408, 425, 429}
"""Statuses that ask for another attempt, besides 500 to 599: RFC 9110, section 15.5.9, RFC 8470, RFC 6585."""
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""Of the name of a header: RFC 9110, section 5.6.2."""
_VALUE = re.compile(r"[\x21-\x7e\xa0-\xff]([\t\x20-\x7e\xa0-\xff]*[\x21-\x7e\xa0-\xff])?")
_OWN = {"host", "content-length", "content-type", "transfer-encoding", "connection"}
"""Headers that the request itself needs."""


class Webhook:
    """A receiver of alarms: see `Receiver`.

    Statuses from 200 to 299 say that an alarm has arrived; 408, 425, 429 and those from 500 on that it is to be sent
    again; all others, redirections among them, that it is refused. Certificates are checked, against those of the
    system or of the file that the environment variable SSL_CERT_FILE names.

    url: http:// or https://; a name and a password in it are sent as HTTP's basic authentication.
    headers: more headers of the request, such as {"Authorization": "Bearer ..."}.
    timeout: seconds that a receiver has to answer.

    Raises UsageError for a URL or header that is none, without repeating what may be secret.
    """

    def __init__(self, url: str, headers: Mapping[str, str] | None = None, *, timeout: float = TIMEOUT) -> None:
        self.name = f"webhook {public_name(url)}"
        self._timeout = timeout
        parts = _checked(url)
        self._secure, self._host, self._port = parts.scheme == "https", parts.hostname or "", parts.port
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._headers = {"Content-Type": "application/json", "User-Agent": "edgex", "Connection": "close"}
        if parts.username is not None and "authorization" not in map(str.lower, headers or {}):
            login = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
            self._headers["Authorization"] = f"Basic {base64.b64encode(login).decode()}"
        for name, value in (headers or {}).items():
            _check_header(name, value)
            self._headers[name] = value

    def open(self) -> None:
        """Nothing: whether a receiver works is known when it gets an alarm."""

    def send(self, message: bytes) -> None:
        """See `Receiver`."""
        connection = self._connection()
        slow = threading.Event()

        def abort() -> None:
            slow.set()
            with contextlib.suppress(OSError, AttributeError):
                connection.sock.shutdown(socket.SHUT_RDWR)

        # The connection's own time-out begins again with every byte.
        timer = threading.Timer(self._timeout, abort)
        timer.daemon = True
        timer.start()
        try:
            connection.request("POST", self._path, message, self._headers)
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            raise NotDeliveredError(self._no_answer() if slow.is_set() else self._reason(error)) from error
        finally:
            timer.cancel()
            connection.close()
        if not 200 <= status < 300:
            raise NotDeliveredError(_describe(status), refused=status < 500 and status not in _AGAIN)

    def close(self) -> None:
        """Nothing is open."""

    def _connection(self) -> http.client.HTTPConnection:
        if self._secure:
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout, context=context)
        return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)

    def _no_answer(self) -> str:
        return f"no answer within {self._timeout:g} s"

    def _reason(self, error: Exception) -> str:
        if isinstance(error, TimeoutError):
            return self._no_answer()
        return network_reason(error)


def network_reason(error: Exception) -> str:
    """Why a connection failed, in words that hold nothing of the URL."""
    if isinstance(error, socket.gaierror):
        return "the host's name is not known"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message})"
    if isinstance(error, ssl.SSLError):
        return f"no connection over TLS ({error.reason or type(error).__name__})"
    if isinstance(error, http.client.RemoteDisconnected):
        return "it closed the connection without an answer"
    if isinstance(error, http.client.HTTPException):
        return "its answer is no HTTP"
    return (getattr(error, "strerror", None) or type(error).__name__).lower()


def _describe(status: int) -> str:
    words = http.client.responses.get(status)
    answer = f"it answers {status}{f' ({words})' if words else ''}"
    return f"{answer}: give the URL that it leads to" if 300 <= status < 400 else answer


def _checked(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not re.fullmatch(r"[\x21-\x7e]+", url):
        raise UsageError(
            f"expected a URL such as https://10.0.0.2/alarms, in ASCII and without spaces, found {public_name(url)}",
            argument="webhook",
        )
    return parts


def _check_header(name: str, value: str) -> None:
    if not _TOKEN.fullmatch(name) or name.lower() in _OWN:
        raise UsageError(
            f"expected the name of a header other than {', '.join(sorted(_OWN))}, found {name!r:.40}",
            argument="webhook_header",
        )
    if not _VALUE.fullmatch(value):
        raise UsageError(
            f"expected a value in Latin-1 without control characters for the header {name}, found another",
            argument="webhook_header",
        )
