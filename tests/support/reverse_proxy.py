"""A small reverse proxy that serves another server under a sub-path, with the headers that nginx sends by default."""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


@contextlib.contextmanager
def reverse_proxy(upstream: str, prefix: str) -> Iterator[str]:
    """Serves `upstream` under a prefix such as "/door/" and yields the address; anything outside of it is 404."""
    host = urlsplit(upstream).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if not self.path.startswith(prefix):
                self.send_error(404)
                return
            headers = {name: value for name, value in self.headers.items() if name not in ("Host", "Connection")}
            headers |= {"Host": host, "X-Forwarded-Host": self.headers["Host"]}
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))) or None
            connection = http.client.HTTPConnection(host, timeout=30)
            with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
                connection.request(self.command, "/" + self.path.removeprefix(prefix), body, headers)
                answer = connection.getresponse()
                content = answer.read()
                self.send_response_only(answer.status)
                for name, value in answer.getheaders():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)
                return
            self.close_connection = True

        do_POST = do_GET  # noqa: N815

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}{prefix}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
