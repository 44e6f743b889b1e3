"""The page in the browser: newest pictures with their heatmaps, classes and times, and a place to ask "why not?".

Nothing is loaded from outside, and all addresses in the page are relative, so that it works under any path of a reverse
proxy. How requests are read, and which are refused, is in `server`; who may send them from another machine in
`access`. A feed is one of the page's streams, see `feed`, which says what a part is.

| request | answer |
|---|---|
| GET / | the page: page.html, page.css, page*.js of this folder |
| GET /token | what is shown instead to a browser without the token, where one is needed |
| GET /about | JSON: model, sources, classes, colours, and a name of this run of the page |
| GET /frame?after=N | waits for something newer than version N: a part of each feed that has it, one after the other |
| GET /overlay.mjpg?feed=K | the pictures with heatmap and caption as MJPEG, for other programs |
| POST /explain | {"class": position, name or null, "feed": K}: which class to explain from now on |
| POST /hold | {"feed": K, "version": N}: keeps the picture that came with version N; a part with its name, `held` |
| POST /explain | ... and "held": of that picture alone; the new JSON of its part |
| GET /snapshot.png, /snapshot.json ?feed=K&held=NAME | that picture with heatmap and caption; what is known of it |
| GET /events, /event?id=I | JSON: the strip of alarms and unsure frames; the part of one entry |
| POST /feedback | {"id": I, "verdict": "ok" or "not-ok"}: what somebody says of an entry |
"""

from __future__ import annotations

import io
import json
import secrets
from collections.abc import Iterator, Sequence
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from edgex.runtime.access import check_address
from edgex.runtime.activations import ACTIVATIONS
from edgex.runtime.classes import ClassIndex, class_name
from edgex.runtime.drawing.colormaps import COLORMAPS, colours
from edgex.runtime.drawing.options import Drawing
from edgex.runtime.errors import ArtefactError, UsageError
from edgex.runtime.json_text import parse_json
from edgex.runtime.printable import printable, printable_json, printable_values
from edgex.runtime.watch.page.access import Access
from edgex.runtime.watch.page.events import Event, Events
from edgex.runtime.watch.page.feed import Feed, News, encode
from edgex.runtime.watch.page.feedback import VERDICTS, Feedback
from edgex.runtime.watch.page.server import HOST, Answer, RefusedError, Request, Routes, Server
from edgex.runtime.watch.stream import Stream

if TYPE_CHECKING:
    from edgex.runtime.session import Session
    from edgex.runtime.watch.stream import FrameResult

_PATIENCE = 10.0
"""Seconds that a request waits for a newer picture."""
_SCRIPTS = ("page.js", "page_heat.js", "page_strip.js", "page_tiles.js", "page_save.js")
_FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/token": ("token.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    **{f"/{name}": (name, "text/javascript; charset=utf-8") for name in _SCRIPTS},
}
_SIGNED = "signed"
_LONGEST = 60
"""Characters of an unknown class that an answer repeats."""
_GONE = "This picture is no longer kept here. Unfreeze, and freeze again."


class Page:
    """Serves the newest results of streams until `close`; `feeds` are their sinks.

    streams: one, or several that share a session. port: 0 for any free one; `url` says which. drawing: how pictures of
    /overlay.mjpg and snapshots are drawn; defaults to `Drawing()`. The page draws heatmaps itself. host: the address to
    listen on, by default one that only this machine reaches; any other needs a token. token: what a browser has to
    bring along, see `edgex.runtime.watch.page.access`. feedback: where verdicts on alarms go; without it nobody is
    asked for any.

    Raises UsageError where the port is taken or not allowed, and for another machine's access without a token.
    """

    def __init__(
        self,
        streams: Stream | Sequence[Stream],
        port: int = 0,
        drawing: Drawing | None = None,
        *,
        host: str = HOST,
        token: str | None = None,
        feedback: Feedback | None = None,
    ) -> None:
        check_address(host, token)
        self.drawing, self._feedback = drawing or Drawing(), feedback
        self._events, self._news = Events(), News()
        several = [streams] if isinstance(streams, Stream) else list(streams)
        self.feeds = tuple(
            Feed(stream, number, self._news, self._events, self.drawing.scale) for number, stream in enumerate(several)
        )
        self._classes = ClassIndex(self._session.classes)
        self._run = secrets.token_hex(8)
        try:
            self._server = Server(port, self._routes(), host, None if token is None else Access(token))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UsageError(
                f"expected a free port on {host}, found {port}: {reason}; choose another, or 0 for any", argument="port"
            ) from error
        self.port, self.url = self._server.port, self._server.url

    def close(self) -> None:
        """Ends all requests and the server; returns when its threads have ended."""
        self._news.close()
        self._server.close()

    @property
    def _session(self) -> Session:
        return self.feeds[0].stream.session

    def about(self) -> dict[str, Any]:
        """What does not change while the streams run."""
        streams = [feed.stream for feed in self.feeds]
        return {
            "run": self._run,
            "model": printable(self._session.path.name),
            "provider": self._session.provider,
            "sources": [{"name": printable(stream.source.name), "policy": stream.policy} for stream in streams],
            "classes": list(map(class_name, self._session.classes)),
            "multi_label": ACTIVATIONS[self._session.metadata.activation].multi_label,
            "feedback": self._feedback is not None,
            "signed": self.drawing.colormap == _SIGNED,
            "colours": {role: colours(name).round().astype(int).tolist() for role, name in self._colours().items()},
        }

    def _colours(self) -> dict[str, str]:
        """The maps that the page draws with: of evidence alone, and of evidence for and against a class."""
        chosen = self.drawing.colormap
        return {"evidence": COLORMAPS[0] if chosen == _SIGNED else chosen, "for": "for", "against": "against"}

    def _routes(self) -> Routes:
        files = {path: {"GET": partial(_file, *file)} for path, file in _FILES.items()}
        return files | {
            "/about": {"GET": lambda _: _json(self.about())},
            "/frame": {"GET": self._frame},
            "/overlay.mjpg": {"GET": self._motion_jpeg},
            "/explain": {"POST": self._ask},
            "/hold": {"POST": self._hold},
            "/snapshot.png": {"GET": self._snapshot},
            "/snapshot.json": {"GET": lambda request: _json(self._held(request).to_dict())},
            "/events": {"GET": lambda _: _json(self._events.to_dicts())},
            "/event": {"GET": lambda request: _parts(self._event(request.query.get("id")).part)},
            "/feedback": {"POST": self._judge},
        }

    def _feed(self, number: Any) -> Feed:
        """The feed of a position, as a number or its digits; None stands for the first."""
        known = {**{str(feed.number): feed for feed in self.feeds}, "None": self.feeds[0]}
        if isinstance(number, bool) or (feed := known.get(str(number))) is None:
            raise RefusedError(HTTPStatus.NOT_FOUND, "There is no such source here.")
        return feed

    def _frame(self, request: Request) -> Answer:
        after = number_of(request.query.get("after"), -1)
        if not self._news.wait(after, _PATIENCE):
            return Answer(b"", "application/octet-stream", HTTPStatus.NO_CONTENT)
        return _parts(b"".join(feed.part(shown) for feed, shown in self._news.newer(self.feeds, after)))

    def _motion_jpeg(self, request: Request) -> Answer:
        feed = self._feed(request.query.get("feed"))
        return Answer(self._pictures(feed), "multipart/x-mixed-replace; boundary=frame")

    def _pictures(self, feed: Feed) -> Iterator[bytes]:
        version, sent = 0, -1
        while not self._news.closed:
            if not self._news.wait(version, 1.0):
                continue
            shown = feed.shown
            version = self._news.version
            if shown.frame is not None and shown.version != sent:
                sent = shown.version
                yield feed.once("overlay", sent, partial(self._picture, shown.frame))

    def _picture(self, frame: FrameResult) -> bytes:
        picture = encode(frame.captioned(self.drawing))
        head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
        return head.encode() + picture + b"\r\n"

    def _ask(self, request: Request) -> Answer:
        question = _question(request, "class")
        feed, wanted = self._feed(question.get("feed")), question["class"]
        try:
            if (held := question.get("held")) is not None:
                return _json(feed.ask(str(held), wanted))
            feed.stream.explain = wanted
        except UsageError as error:
            raise RefusedError(HTTPStatus.BAD_REQUEST, _unknown(self._classes, wanted)) from error
        except LookupError as error:
            raise RefusedError(HTTPStatus.GONE, _GONE) from error
        return _json({"asked": feed.stream.explain})

    def _hold(self, request: Request) -> Answer:
        question = _question(request, "feed")
        try:
            return _parts(self._feed(question["feed"]).hold(number_of(question.get("version"), -1)))
        except LookupError as error:
            raise RefusedError(HTTPStatus.CONFLICT, "There is no picture yet.") from error

    def _held(self, request: Request) -> FrameResult:
        try:
            return self._feed(request.query.get("feed")).held(request.query.get("held", ""))
        except LookupError as error:
            raise RefusedError(HTTPStatus.GONE, _GONE) from error

    def _snapshot(self, request: Request) -> Answer:
        picture = Image.fromarray(self._held(request).captioned(self.drawing))
        buffer = io.BytesIO()
        picture.save(buffer, format="PNG", compress_level=1)
        return Answer(buffer.getvalue(), "image/png")

    def _event(self, number: Any) -> Event:
        try:
            return self._events.entry(number_of(number, 0))
        except LookupError as error:
            raise RefusedError(HTTPStatus.GONE, "Newer pictures took this one's place in the strip.") from error

    def _judge(self, request: Request) -> Answer:
        question = _question(request, "id", "verdict")
        if self._feedback is None:
            raise RefusedError(HTTPStatus.FORBIDDEN, "Verdicts are not recorded here.")
        event, verdict = self._event(question["id"]), question["verdict"]
        if verdict not in VERDICTS:
            raise RefusedError(HTTPStatus.BAD_REQUEST, f"A verdict is {' or '.join(VERDICTS)}.")
        try:
            self._feedback.add(event.about, verdict)
        except ArtefactError as error:
            raise RefusedError(HTTPStatus.INSUFFICIENT_STORAGE, f"The verdict is not recorded: {error}.") from error
        self._events.judge(event, verdict)
        return _json({"verdict": verdict})


def number_of(given: Any, otherwise: int) -> int:
    """A number of 0 or more, or its digits; anything else stands for `otherwise`."""
    text = "" if isinstance(given, bool) else str(given)
    # Python refuses to read numbers of thousands of digits.
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else otherwise


def _unknown(classes: ClassIndex, wanted: Any) -> str:
    """What a person reads who asks for a class that is not there."""
    count = len(classes.names)
    if isinstance(wanted, bool) or not isinstance(wanted, (str, int)):
        return "Ask for a class by its name or its number."
    if isinstance(wanted, int) or wanted.strip().isdecimal():
        return f"There is no class number {str(wanted).strip()[:_LONGEST]}: they are numbered from 0 to {count - 1}."
    name = f"\u201c{wanted[:_LONGEST]}{'...' if len(wanted) > _LONGEST else ''}\u201d"
    if len(numbers := classes.numbers(wanted)) > 1:
        return f"{len(numbers)} classes are called {name}: ask for one by its number, {' or '.join(map(str, numbers))}."
    near = " or ".join(f"\u201c{other}\u201d" for other in classes.near(wanted))
    return (
        f"There is no class {name}. Did you mean {near}?" if near else f"None of the {count} classes is called {name}."
    )


def _question(request: Request, *keys: str) -> dict[str, Any]:
    """The object that a request's body holds; RefusedError where it is none or lacks a key."""
    try:
        question = parse_json(request.body, "question", error=UsageError)
    except UsageError:
        question = None
    if not isinstance(question, dict) or any(key not in question for key in keys):
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"The question lacks its {' or '.join(keys)}; ask on the page.")
    return question


def _json(value: Any) -> Answer:
    return Answer(printable_json(json.dumps(printable_values(value))).encode(), "application/json")


def _parts(parts: bytes) -> Answer:
    return Answer(parts, "application/octet-stream")


def _file(name: str, kind: str, _: Request) -> Answer:
    return Answer(Path(__file__).with_name(name).read_bytes(), kind)
