"""A page with the streams behind it, and a browser that looks at it."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from edgex.runtime import Session, SourceError, Stream
from edgex.runtime.watch.page.page import Page
from edgex.runtime.watch.together import run_together, stop_all


class Running:
    """Streams that stay at their end, their page, and the thread that runs them.

    options: of the page.
    """

    def __init__(self, session: Session, *sources: Any, **options: Any) -> None:
        self.streams = [
            Stream(session, source, stay=True, notice=partial(self._notice, number))
            for number, source in enumerate(sources)
        ]
        self.stream = self.streams[0]
        self.page = Page(self.streams, **options)
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _notice(self, number: int, text: str) -> None:
        self.page.feeds[number].notice(text)

    def _run(self) -> None:
        with contextlib.suppress(SourceError):
            run_together(
                self.streams,
                lambda number, frame: self.page.feeds[number].write(frame),
                lambda number, error: self._notice(number, str(error)),
            )

    def ask(self, path: str, body: Any = None, method: str = "GET", **headers: str) -> tuple[int, bytes, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.page.port, timeout=20)
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, names)
        answer = connection.getresponse()
        found = answer.status, answer.read(), answer.headers
        connection.close()
        return found

    def explain(self, value: Any, **headers: str) -> tuple[int, bytes]:
        body = json.dumps({"class": value})
        return self.ask("/explain", body, "POST", **{"Content_Type": "application/json", **headers})[:2]

    def frame(self, after: int = -1) -> tuple[dict[str, Any], np.ndarray]:
        """State and picture newer than `after`; before the first picture, one without pixels."""
        status, body, _ = self.ask(f"/frame?after={after}")
        assert status == 200
        length = int.from_bytes(body[:4], "little")
        picture = body[4 + length :]
        assert len(picture) == json.loads(body[4 : 4 + length])["picture_bytes"]
        pixels = np.asarray(Image.open(io.BytesIO(picture))) if picture else np.empty((0, 0, 3), np.uint8)
        return json.loads(body[4 : 4 + length]), pixels

    def until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first state that fulfils a condition."""
        version = -1
        while True:
            state, _ = self.frame(version)
            if wanted(state):
                return state
            version = state["version"]

    def close(self) -> None:
        stop_all(self.streams)
        self.thread.join()
        self.page.close()
