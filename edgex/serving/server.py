"""Binds an address, runs the application with uvicorn until it is stopped, and finishes what it took on."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import uvicorn

from edgex import samples
from edgex.errors import UsageError
from edgex.runtime.access import check_address
from edgex.runtime.drift import DriftMonitor
from edgex.serving import limits as fixed
from edgex.serving.application import create_application
from edgex.serving.batching import Batcher
from edgex.serving.connection import Connection
from edgex.serving.gate import Gate, Slots
from edgex.serving.limits import Limits
from edgex.serving.metrics import Metrics
from edgex.serving.request_log import RequestLog
from edgex.serving.service import Service
from edgex.utils.text import Report, silent

if TYPE_CHECKING:
    from edgex.runtime import Result, Session


class Server:
    """An open session over HTTP. It listens from its construction on, and answers while `run` runs.

    host, port: the address; port 0 takes any that is free, see `url`. token: what clients must send; an address that
    other machines reach needs one. limits: what it takes on at most. batch_window_ms, max_batch: see `Batcher`, in
    milliseconds. report: called with lines for people, in a thread of its own: one for each request, unless
    `log_requests` is False, and those about drift (see `edgex.runtime.drift`). report_failure: called in that thread
    with lines about failures of the server itself. Defaults to `report`.

    Raises UsageError for an address that cannot be had, or needs a token, and for numbers out of their range.
    """

    def __init__(
        self,
        session: Session,
        *,
        host: str = "127.0.0.1",
        port: int = 8080,
        token: str | None = None,
        limits: Limits | None = None,
        batch_window_ms: float = 0.0,
        max_batch: int | None = None,
        report: Report = silent,
        report_failure: Report | None = None,
        log_requests: bool = True,
    ) -> None:
        check_address(host, token)
        limits = limits or Limits()
        with contextlib.ExitStack() as stack:
            self._socket = stack.enter_context(_listen(host, port))
            log = RequestLog(report, report_failure)
            stack.callback(log.close)
            metrics, slots, drift = Metrics(session), Slots(limits.max_pending), DriftMonitor.of(session, log.add)

            def observe(results: list[Result], seconds: float) -> None:
                metrics.passed(results, seconds)
                if drift is not None:
                    for result in results:
                        drift.add(result)

            batcher = Batcher(session, most=max_batch, window=batch_window_ms / 1000, observe=observe)
            self._service = Service(session, batcher)
            stack.callback(self._service.close)
            metrics.follow(lambda: slots.taken, lambda: batcher.waiting)
            if drift is not None:
                metrics.follow_drift(drift)
            # Also the pass that warms it up, whatever the session did.
            example = session.classify([session.prepare(samples.paths()[0])], [None])[0].to_dict(3)
            app = create_application(self._service, metrics, limits, slots, self._is_ready, example)
            gate = Gate(
                app,
                limits=limits,
                slots=slots,
                metrics=metrics,
                token=token,
                report=log.add,
                report_failure=log.add_failure,
                log_requests=log_requests,
            )
            self._uvicorn = _Uvicorn(_configuration(gate, limits))
            self._resources = stack.pop_all()
        name = f"[{host}]" if ":" in host else host
        self.url = f"http://{name}:{self._socket.getsockname()[1]}/"

    def run(self) -> None:
        """Answers requests until `stop`, then those that it took on; closes itself."""
        try:
            self._uvicorn.run([self._socket])
        finally:
            self.close()

    def stop(self) -> None:
        """From a signal handler or another thread: no new requests; `run` returns when the last one is answered."""
        self._uvicorn.should_exit = True

    def close(self) -> None:
        """Ends its threads; the session stays open."""
        self._resources.close()

    def _is_ready(self) -> bool:
        return not self._uvicorn.should_exit and self._service.batcher.alive


class _Uvicorn(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the command's: uvicorn would end the process by them after it was stopped by them."""
        yield


def _configuration(gate: Gate, limits: Limits) -> uvicorn.Config:
    return uvicorn.Config(
        gate,
        http=partial(Connection, timeout=limits.timeout),  # type: ignore[arg-type]  # called as a class is
        ws="none",
        lifespan="off",
        log_config=None,
        log_level=logging.CRITICAL,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=int(fixed.KEEP_ALIVE),
        timeout_graceful_shutdown=int(limits.timeout) + 1,
        h11_max_incomplete_event_size=fixed.MAX_HEADERS,
    )


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65_535:
        # The system would take what lies above modulo 65536.
        raise UsageError(f"expected a port from 0 to 65535, found {port}", argument="port")
    try:
        found: Any = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"expected an address of this machine, found {host!r}: {reason}", argument="host") from None
    try:
        return socket.create_server(found[4][:2], family=found[0], backlog=fixed.MAX_CONNECTIONS)
    except OSError as error:
        # Not the error's own text, to which Python adds the address.
        reason = os.strerror(error.errno) if error.errno else error
        raise UsageError(f"cannot listen at {host}, port {port}: {reason}", argument="port") from None
