"""The files that `edgex watch` writes: videos, folders of pictures and JSON lines, of one source or of several."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgex.cli.console import note
from edgex.errors import ArtefactError, UsageError
from edgex.utils.output import refuse_to_overwrite

if TYPE_CHECKING:
    from edgex.runtime.drawing.options import Drawing
    from edgex.runtime.watch.page.page import Page
    from edgex.runtime.watch.sinks import Sink
    from edgex.runtime.watch.stream import FrameResult


@dataclass(frozen=True)
class Outputs:
    """Where results go; jsonl: a file, or "-" for standard output. force: replace what an earlier run wrote."""

    video: Path | None
    folder: Path | None
    jsonl: str | None
    sources: int
    force: bool

    def check(self) -> None:
        """Raises UsageError where files of an earlier run would be lost."""
        if self.video is None and self.folder is None and self.jsonl in (None, "-"):
            return
        from edgex.runtime.watch.sinks import holds_results

        for number in range(self.sources):
            if self.folder is not None and not self.force and holds_results(one := self._folder_of(number)):
                raise UsageError(
                    f"{one} holds pictures of an earlier run: choose another, or --force to replace", argument="folder"
                )
            if self.video is not None:
                refuse_to_overwrite(self._video_of(number), force=self.force, argument="video")
        refuse_to_overwrite(None if self.jsonl == "-" else self.jsonl, force=self.force, argument="jsonl")

    def open(
        self,
        stack: contextlib.ExitStack,
        pages: Sequence[Page],
        drawing: Drawing,
        *,
        fps: float | None,
        top: int,
    ) -> list[list[Sink]]:
        """The sinks of each source, pages first; `stack` closes them. JSON lines of all sources go into one file."""
        from edgex.runtime.watch.sinks import FolderSink, JsonLinesSink

        jsonl = self.jsonl
        lines = None if jsonl is None else JsonLinesSink(sys.stdout if jsonl == "-" else Path(jsonl), top)
        found: list[list[Sink]] = []
        for number in range(self.sources):
            sinks: list[Sink] = [page.feeds[number] for page in pages]
            if self.video is not None:
                sinks.append(_recording(self._video_of(number), drawing, fps or 2.0))
            if self.folder is not None:
                sinks.append(FolderSink(self._folder_of(number), drawing, replace=self.force))
            if lines is not None:
                sinks.append(lines)
            for sink in sinks:
                stack.callback(sink.close)
            found.append(sinks)
        return found

    def _folder_of(self, number: int) -> Path:
        """The folder itself, or of several sources a folder each in it: 1, 2, ..."""
        assert self.folder is not None
        return self.folder if self.sources == 1 else self.folder / str(number + 1)

    def _video_of(self, number: int) -> Path:
        """door.mp4, or of several sources door.1.mp4, door.2.mp4, ..."""
        assert self.video is not None
        return self.video if self.sources == 1 else self.video.with_suffix(f".{number + 1}{self.video.suffix}")


class Receivers:
    """Gives pictures to the sinks of their source. One that cannot write any more is left out, and said: frames go on.

    The last one of a source ends the run with its error, unless `others`, such as alarms, use the pictures, too.
    sinks: of each source. failure(number of the source, line): tells people.
    """

    def __init__(self, sinks: list[list[Sink]], failure: Callable[[int, str], None], *, others: bool) -> None:
        self._sinks, self._failure, self._others = sinks, failure, others
        self.any = any(sinks)
        """Whether there were sinks to begin with."""
        self.any_lost = False
        """Whether a sink was left out."""

    def write(self, number: int, frame: FrameResult) -> None:
        """number: of the source that the picture is from."""
        for sink in list(self._sinks[number]):
            try:
                sink.write(frame)
            except ArtefactError as error:
                if self._sinks[number] == [sink] and not self._others:
                    raise
                self._sinks[number].remove(sink)
                self.any_lost = True
                self._failure(number, f"{error}; the run goes on without it")


def _recording(path: Path, drawing: Drawing, fps: float) -> Sink:
    from edgex.runtime.watch.recording import unfinished
    from edgex.runtime.watch.sinks import VideoSink

    with option_for("video", "path"):
        sink = VideoSink(path, drawing, fps)
    for left in unfinished(path):
        note(f"edgex: {left}: a recording that was not finished, of a run that was killed or still goes on; it plays")
    return sink


@contextlib.contextmanager
def option_for(name: str, stands_for: str) -> Iterator[None]:
    """Errors about the parameter that an option stands for, or about none, are about the option."""
    try:
        yield
    except UsageError as error:
        if error.argument in (None, stands_for):
            error.argument = name
        raise
