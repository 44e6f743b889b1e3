"""Several streams at once: one session, a thread for each stream, so that a slow source holds none of the others."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from edgex.runtime.errors import SourceError

if TYPE_CHECKING:
    from edgex.runtime.watch.stream import FrameResult, Stream

_TICK = 0.1
"""Seconds between looks at the threads, which a signal may interrupt."""


def run_together(
    streams: Sequence[Stream],
    handle: Callable[[int, FrameResult], None],
    broken: Callable[[int, SourceError], None] = lambda *_: None,
) -> None:
    """Iterates over streams until all have ended: the first on the calling thread, each other on one of its own.

    handle: called with a stream's position and each of its results, on the stream's thread.
    broken: called with a stream's position and the reason, at once, where one of several cannot be opened or broke for
        good. The others go on.

    Raises SourceError at the end where a source broke: of one stream its own, of several one that counts them. Any
    other error of a stream or of `handle` stops all streams and is raised.
    """
    lost: list[SourceError] = []
    failed: list[BaseException] = []

    def run(number: int) -> None:
        try:
            with contextlib.closing(iter(streams[number])) as frames:
                for frame in frames:
                    handle(number, frame)
        except SourceError as error:
            lost.append(error)
            if len(streams) > 1:
                broken(number, error)
        except BaseException as error:
            failed.append(error)
            stop_all(streams)

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(1, len(streams))]
    for thread in threads:
        thread.start()
    run(0)
    try:
        while not failed and any(thread.is_alive() for thread in threads):
            time.sleep(_TICK)
    finally:
        stop_all(streams)
    for thread in threads:
        # The model or a sink may be busy with its last picture, as on the calling thread.
        thread.join()
    if failed:
        raise failed[0]
    if lost:
        raise lost[0] if len(streams) == 1 else SourceError(f"{len(lost)} of {len(streams)} sources broke")


def stop_all(streams: Sequence[Stream]) -> None:
    """Ends each after the picture at hand; safe in a signal handler."""
    for stream in streams:
        stream.stop()
