"""Receivers of alarms on the loopback address: an HTTP server that answers as it is told, and certificates for TLS."""

from __future__ import annotations

import json
import ssl
import subprocess
import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any


class HookServer:
    """Notes each POST, and answers with the statuses in turn, the last one again from then on.

    certificate: of TLS, see `make_certificate`.
    """

    def __init__(self, *statuses: int, certificate: Path | None = None) -> None:
        self.statuses = list(statuses or (200,))
        self.bodies: list[Any] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.paths.append(self.path)
                outer.headers.append(dict(self.headers))
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status = outer.statuses.pop(0) if len(outer.statuses) > 1 else outer.statuses[0]
                self.send_response(status)
                self.end_headers()
                # Behind the answer, so that whoever waits for the body knows that it was taken or refused.
                outer.bodies.append((status, body))

            def log_message(self, format: str, *args: Any) -> None:
                """Tests print nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        scheme = "http"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
            self.server.handle_error = lambda *_: None  # type: ignore[method-assign]
            scheme = "https"
        self.url = f"{scheme}://127.0.0.1:{self.server.server_address[1]}/hook"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    @property
    def taken(self) -> list[Any]:
        """The bodies that were answered with 200 to 299, with those of requests that have begun."""
        until = time.monotonic() + 5
        while len(self.bodies) < len(self.paths) and time.monotonic() < until:
            time.sleep(0.005)
        return [body for status, body in self.bodies if 200 <= status < 300]

    def __enter__(self) -> HookServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def make_certificate(folder: Path, names: Sequence[str] = ("IP:127.0.0.1", "DNS:localhost")) -> Path:
    """A private key and a certificate that it signed, in one file: for the server, and for clients to trust it."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=test", "-addext", f"subjectAltName={','.join(names)}"]
    command += ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    certificate.write_bytes(certificate.read_bytes() + key.read_bytes())
    return certificate
