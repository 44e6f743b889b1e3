"""The page in the browser: the newest picture with its heatmap, classes and times, and a place to ask "why not?".

Nothing is loaded from outside, and all addresses in the page are relative, so that it works under any path of a reverse
proxy. How requests are read, and which are refused, is in `page_server`.

| request | answer |
|---|---|
| GET / | the page: page.html, page.css, page.js of this folder |
| GET /about | JSON: model, source, classes, colours |
| GET /frame?after=N | waits for a state newer than N: length (4 bytes, little-endian), JSON, JPEG of the bare picture |
| GET /overlay.mjpg | the pictures with heatmap and caption as MJPEG, for other programs |
| POST /explain | {"class": position, name or null}: which class to explain from now on |
"""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from edgex.runtime.classes import class_name
from edgex.runtime.colormaps import COLORMAPS, colours
from edgex.runtime.drawing import Drawing
from edgex.runtime.errors import UsageError
from edgex.runtime.json_text import parse_json
from edgex.runtime.printable import printable, printable_values
from edgex.runtime.watch.page_server import HOST, Answer, RefusedError, Request, Routes, Server

if TYPE_CHECKING:
    import numpy as np

    from edgex.runtime.watch.stream import FrameResult, Stream

LARGEST = 960
"""Longest side of a picture on the page, in pixels."""
_QUALITY = 82
_PATIENCE = 10.0
"""Seconds that a request waits for a newer picture."""
_COLOURS = {"evidence": COLORMAPS[0], "for": "for", "against": "against"}
"""What the page draws with; the last two of evidence for and against a class."""
_FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}


class Page:
    """Serves a stream's newest result until `close`. A `Sink`.

    port: 0 for any free one; `url` says which. drawing: how pictures of /overlay.mjpg are drawn; defaults to
        `Drawing()`. The page draws heatmaps itself.

    Raises UsageError where the port is taken or not allowed.
    """

    def __init__(self, stream: Stream, port: int = 0, drawing: Drawing | None = None) -> None:
        self.stream = stream
        self.drawing = drawing or Drawing()
        self._changed = threading.Condition()
        self._version = 0
        self._newest: FrameResult | None = None
        self._note = ""
        self._making = threading.RLock()
        self._made: dict[str, tuple[object, bytes]] = {}
        self.closed = False
        try:
            self._server = Server(port, self._routes())
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UsageError(
                f"expected a free port on {HOST}, found {port}: {reason}; choose another, or 0 for any",
                argument="port",
            ) from error
        self.port, self.url = self._server.port, self._server.url

    def write(self, frame: FrameResult) -> None:
        """Shows a result."""
        with self._changed:
            self._newest = frame
            self._note = self._note if frame.is_rerun else ""
            self._version += 1
            self._changed.notify_all()

    def notice(self, text: str) -> None:
        """Shows a line, such as that the source is being opened again or has ended."""
        with self._changed:
            self._note = text
            self._version += 1
            self._changed.notify_all()

    def close(self) -> None:
        """Ends all requests and the server; returns when its threads have ended."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()
        self._server.close()

    def wait(self, after: int, patience: float = _PATIENCE) -> tuple[int, FrameResult | None, str] | None:
        """(version, result, note) newer than `after`; None where nothing came or the page is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self.closed or self._version != after, patience)
            return None if self.closed or self._version == after else (self._version, self._newest, self._note)

    def about(self) -> dict[str, Any]:
        """What does not change while the stream runs."""
        session = self.stream.session
        return {
            "model": printable(session.path.name),
            "provider": session.provider,
            "source": printable(self.stream.source.name),
            "policy": self.stream.policy,
            "classes": list(map(class_name, session.classes)),
            "colours": {role: colours(name).round().astype(int).tolist() for role, name in _COLOURS.items()},
        }

    def state(self, version: int, frame: FrameResult | None, note: str) -> dict[str, Any]:
        """JSON-ready: what the page shows beside the picture."""
        stream = self.stream
        state: dict[str, Any] = {
            "version": version,
            "state": stream.state,
            "note": note,
            "asked": stream.explain,
            "meter": stream.metrics.snapshot().to_dict(),
        }
        if frame is not None:
            result = frame.result
            present = result.present()
            state |= {
                **result.to_dict(),
                "frame": frame.number,
                "name": frame.source_frame.name,
                "top": [[index, float(result.probabilities[index])] for index in result.order(max(5, len(present)))],
                **({"present": present} if result.multi_label else {}),
                "heatmap": result.heatmap.round(5).tolist(),
                "outlines": result.outlines,
                "latency_ms": 1000 * frame.latency,
            }
        return printable_values(state)

    def _routes(self) -> Routes:
        files = {path: {"GET": partial(_file, *file)} for path, file in _FILES.items()}
        return files | {
            "/about": {"GET": lambda _: Answer(json.dumps(self.about()).encode(), "application/json")},
            "/frame": {"GET": self._frame},
            "/overlay.mjpg": {
                "GET": lambda _: Answer(self._motion_jpeg(), "multipart/x-mixed-replace; boundary=frame")
            },
            "/explain": {"POST": self._ask},
        }

    def _frame(self, request: Request) -> Answer:
        after = request.query.get("after", "")
        # Python refuses to read numbers of thousands of digits.
        news = self.wait(int(after) if after.isdecimal() and len(after) < 20 else -1)
        if news is None:
            return Answer(b"", "application/octet-stream", HTTPStatus.NO_CONTENT)
        return Answer(self._once("frame", news[0], lambda: self._state_and_picture(*news)), "application/octet-stream")

    def _state_and_picture(self, version: int, frame: FrameResult | None, note: str) -> bytes:
        text = json.dumps(self.state(version, frame, note)).encode()
        # Another class explained is the same picture.
        picture = b"" if frame is None else self._once("bare", frame.source_frame, lambda: encode(frame.pixels()))
        return len(text).to_bytes(4, "little") + text + picture

    def _motion_jpeg(self) -> Iterator[bytes]:
        version = 0
        while not self.closed:
            news = self.wait(version, 1.0)
            if news is None:
                continue
            version, frame, _ = news
            if frame is not None:
                yield self._once("overlay", version, partial(self._part, frame))

    def _part(self, frame: FrameResult) -> bytes:
        picture = encode(frame.captioned(self.drawing))
        head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
        return head.encode() + picture + b"\r\n"

    def _once(self, name: str, key: object, make: Callable[[], bytes]) -> bytes:
        """The newest of a kind, made once for all clients and only if one asks; another key asks for a newer one."""
        with self._making:
            known = self._made.get(name)
            if known is None or known[0] != key:
                known = self._made[name] = key, make()
            return known[1]

    def _ask(self, request: Request) -> Answer:
        try:
            wanted = parse_json(request.body, "question", error=UsageError)["class"]
        except (UsageError, TypeError, KeyError) as error:
            raise RefusedError(HTTPStatus.BAD_REQUEST, "The question names no class; ask on the page.") from error
        try:
            self.stream.explain = wanted
        except UsageError as error:
            raise RefusedError(HTTPStatus.BAD_REQUEST, str(error)) from error
        return Answer(b"{}", "application/json")


def encode(pixels: np.ndarray) -> bytes:
    """uint8 [H, W, 3] RGB as JPEG, at most `LARGEST` pixels long."""
    image = Image.fromarray(pixels)
    image.thumbnail((LARGEST, LARGEST), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=_QUALITY)
    return buffer.getvalue()


def _file(name: str, kind: str, _: Request) -> Answer:
    return Answer(Path(__file__).with_name(name).read_bytes(), kind)
