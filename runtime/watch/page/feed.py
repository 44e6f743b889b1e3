"""What the page shows of one stream: its newest picture, the pictures that viewers hold, and parts for the browser.

A part is one picture with what is said about it: the length of the JSON (4 bytes, little-endian), the JSON, and a JPEG
of the bare picture, whose length the JSON's `picture_bytes` gives. The browser draws the heatmap itself.
"""

from __future__ import annotations

import io
import json
import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image

from edgex.runtime.printable import printable_values
from edgex.runtime.watch.page.events import Events

if TYPE_CHECKING:
    import numpy as np

    from edgex.runtime.calibration import Scale
    from edgex.runtime.watch.stream import FrameResult, Stream

LARGEST = 960
"""Longest side of a picture on the page, in pixels."""
HELD = 4
"""Pictures of one stream that are kept for viewers who froze them; the one that was asked about longest ago goes."""
_QUALITY = 82
_SENT = 4
"""The last pictures that went to browsers: what a viewer freezes may be a little older than the newest."""


class News:
    """Counts what changes on a page, and lets requests wait for the next change."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._version = 0
        self.closed = False

    @property
    def version(self) -> int:
        """Of the newest change."""
        return self._version

    @contextmanager
    def change(self) -> Iterator[int]:
        """Holds the lock of all that is shown, yields the version that the change makes."""
        with self._changed:
            self._version += 1
            yield self._version
            self._changed.notify_all()

    def close(self) -> None:
        """Ends all waits, now and later."""
        with self.change():
            self.closed = True

    def wait(self, after: int, patience: float) -> bool:
        """Whether there is something newer than `after` before `patience` seconds are over; never once it is closed.

        A version that was not reached yet is of an earlier run: everything is newer.
        """
        with self._changed:
            self._changed.wait_for(lambda: self.closed or self._version != after, patience)
            return not self.closed and self._version != after

    def newer(self, feeds: Iterable[Feed], after: int) -> list[tuple[Feed, Shown]]:
        """What is newer than `after`, see `wait`, all of one moment: what is left out came before the last of it."""
        with self._changed:
            known = after if after <= self._version else -1
            return [(feed, feed.shown) for feed in feeds if feed.shown.version > known]


class Shown(NamedTuple):
    """What the page shows of one stream."""

    version: int = 0
    frame: FrameResult | None = None
    note: str = ""
    moment: float = 0.0
    """When the frame came, on the clock of time.monotonic()."""


class Feed:
    """One stream on the page. A `Sink`.

    number: its position among the page's streams. scale: of colours, see `Result.evidence_scale`.
    """

    def __init__(self, stream: Stream, number: int, news: News, events: Events, scale: Scale | None = None) -> None:
        self._scale = scale
        self.stream, self.number = stream, number
        self.shown = Shown()
        self._news, self._events = news, events
        self._sent: deque[Shown] = deque(maxlen=_SENT)
        self._held: OrderedDict[str, FrameResult] = OrderedDict()
        self._making = threading.RLock()
        self._made: dict[str, tuple[object, bytes]] = {}

    def write(self, frame: FrameResult) -> None:
        """Shows a result. Raises UsageError where the file lacks the scale that was asked for."""
        frame.result.evidence_scale(self._scale)
        if not frame.is_rerun:
            self._events.consider(self.number, frame, lambda: self.part_of(frame), live=self.stream.source.live)
        with self._news.change() as version:
            self.shown = Shown(version, frame, self.shown.note if frame.is_rerun else "", time.monotonic())

    def notice(self, text: str) -> None:
        """Shows a line, such as that the source is being opened again or has ended."""
        with self._news.change() as version:
            self.shown = self.shown._replace(version=version, note=text)

    def close(self) -> None:
        """Nothing is open."""

    def part(self, shown: Shown) -> bytes:
        """What is shown, with `age_ms`: milliseconds from the picture's arrival until now."""
        if (frame := shown.frame) is None:
            return packed(self._text(shown, b""), b"")
        with self._making:
            if not self._sent or self._sent[-1].version != shown.version:
                self._sent.append(shown)
            # Another class explained is the same picture.
            picture = self.once("bare", frame.source_frame, lambda: encode(frame.pixels()))
            text = self.once("text", shown.version, lambda: self._text(shown, picture))
        age = 1000 * (frame.latency + time.monotonic() - shown.moment)
        return packed(b'{"age_ms": %.1f, ' % age + text[1:], picture)

    def _text(self, shown: Shown, picture: bytes) -> bytes:
        state = self.state(shown.version, shown.frame, shown.note)
        return json.dumps({**state, "picture_bytes": len(picture)}).encode()

    def part_of(self, frame: FrameResult, **more: Any) -> bytes:
        """One picture of the past."""
        picture = encode(frame.pixels())
        state = {**self.state(0, frame, ""), "picture_bytes": len(picture), **more}
        return packed(json.dumps(state).encode(), picture)

    def state(self, version: int, frame: FrameResult | None, note: str) -> dict[str, Any]:
        """JSON-ready: what the page shows beside the picture."""
        stream = self.stream
        state: dict[str, Any] = {
            "version": version,
            "feed": self.number,
            "state": stream.state,
            "note": note,
            "asked": stream.explain,
            "events": self._events.version,
            "meter": stream.metrics.snapshot().to_dict(),
        }
        return printable_values(state if frame is None else state | said_of(frame, self._scale))

    def hold(self, version: int) -> bytes:
        """Keeps the picture that was sent with a version, else the newest, for a viewer; a part with its name, `held`.

        Raises LookupError where there is no picture yet.
        """
        with self._making:
            sent = next((shown for shown in self._sent if shown.version == version), self.shown)
            if (frame := sent.frame) is None:
                raise LookupError
            name = secrets.token_hex(8)
            self._held[name] = frame
            while len(self._held) > HELD:
                self._held.popitem(last=False)
        return self.part_of(frame, held=name)

    def held(self, name: str) -> FrameResult:
        """A picture that is kept; LookupError where it is no longer."""
        with self._making:
            self._held.move_to_end(name)
            return self._held[name]

    def ask(self, name: str, wanted: str | int | None) -> dict[str, Any]:
        """Explains a class of a picture that is kept; the stream goes on with its own. The new state.

        wanted: as of `Stream.explain`. Raises LookupError where it is not kept, UsageError for an unknown class.
        """
        number = None if wanted is None else self.stream.session.class_number(wanted)
        frame = self.held(name)
        result = self.stream.session(frame.source_frame.frame, explain=number)
        asked = frame.explained_as(result)
        with self._making:
            if name in self._held:
                self._held[name] = asked
        return {**self.state(0, asked, ""), "asked": number, "held": name}

    def once(self, name: str, key: object, make: Callable[[], bytes]) -> bytes:
        """The newest of a kind, made once for all clients and only if one asks; another key asks for a newer one."""
        with self._making:
            known = self._made.get(name)
            if known is None or known[0] != key:
                known = self._made[name] = key, make()
            return known[1]


def said_of(frame: FrameResult, scale: Scale | None) -> dict[str, Any]:
    """JSON-ready: what the page needs of one result, with the heatmap as numbers.

    The floor of its `scale` is "median" for the heatmap's own, its full null for the strongest evidence.
    """
    result = frame.result
    floor, full = result.evidence_scale(scale)
    present = result.present()
    return {
        **frame.to_dict(),
        "top": [[index, float(result.probabilities[index])] for index in result.order(max(5, len(present)))],
        **({"present": present} if result.multi_label else {}),
        "scale": {"floor": floor, "full": full},
        "heatmap": result.heatmap.round(5).tolist(),
        "outlines": result.outlines,
    }


def packed(text: bytes, picture: bytes) -> bytes:
    """A part of its JSON and its picture."""
    return len(text).to_bytes(4, "little") + text + picture


def encode(pixels: np.ndarray, largest: int = LARGEST) -> bytes:
    """uint8 [H, W, 3] RGB as JPEG, at most `largest` pixels long."""
    image = Image.fromarray(pixels)
    image.thumbnail((largest, largest), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=_QUALITY)
    return buffer.getvalue()
