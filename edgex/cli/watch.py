"""`edgex watch`: an exported file over a camera, a stream, a video, a folder or a pipe; results without a window."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from edgex.cli.command import Command
from edgex.cli.console import (
    EXIT_FAILURE,
    Fit,
    ProviderOptions,
    answer_of,
    check_exported,
    note,
    read_provider_options,
    say,
)
from edgex.cli.drawing import Colormap, Dim, Legend, Style, read_drawing
from edgex.cli.ending import stopped_by_signals
from edgex.cli.tiles import Overlap, Regions, Tiles, read_roi, read_tiles
from edgex.errors import UsageError
from edgex.runtime.printable import printable
from edgex.utils.output import refuse_to_overwrite

if TYPE_CHECKING:
    from edgex.runtime import Session, Stream
    from edgex.runtime.drawing import Drawing
    from edgex.runtime.watch.page import Page
    from edgex.runtime.watch.sinks import Sink
    from edgex.runtime.watch.stream import FrameResult, Policy

_REFRESH = 0.25
"""Seconds between two updates of the line on the screen."""


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("watch", cls=Command)(watch)


def watch(
    model: Annotated[str, typer.Argument(help="An exported file: .onnx or .engine.")],
    source: Annotated[
        str,
        typer.Option(help="camera:0, rtsp://..., http://..., a video, a folder, or - (pictures or paths on stdin)."),
    ],
    policy: Annotated[
        str | None,
        typer.Option(help="latest (drop what is older) or every; default: latest for live sources, else every."),
    ] = None,
    explain: Annotated[str | None, typer.Option(help="Explain this class instead of the predicted one.")] = None,
    http: Annotated[
        int | None, typer.Option(metavar="PORT", help="Show a page on 127.0.0.1:PORT (0: any free port).")
    ] = None,
    video: Annotated[Path | None, typer.Option(help="Write a video with heatmaps: .mp4, .mkv or .mov.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Write a picture with heatmap per frame.")] = None,
    jsonl: Annotated[str | None, typer.Option(help="Write a line of JSON per frame; - for standard output.")] = None,
    fps: Annotated[float | None, typer.Option(help="Largest frame rate, in frames per second.")] = None,
    limit: Annotated[int | None, typer.Option(help="Number of frames to stop after.")] = None,
    follow: Annotated[
        bool,
        typer.Option("--follow", help="Wait for new pictures in a folder; until Ctrl-C, or --timeout without one."),
    ] = False,
    loop: Annotated[bool, typer.Option("--loop", help="Restart a video or folder at its end.")] = False,
    retries: Annotated[int, typer.Option(help="Attempts to open a broken live source again.")] = 10,
    timeout: Annotated[
        float | None,
        typer.Option(help="Seconds a camera or network source may keep silent; default: 10, playlists: 30."),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Number of classes per frame.")] = 3,
    opacity: Annotated[
        float | None, typer.Option(help="Opacity in written pictures, 0 to 1; default: 0.6, lines and boxes 1.")
    ] = None,
    style: Style = "heat",
    colormap: Colormap = "plasma",
    dim: Dim = False,
    legend: Legend = None,
    font: Annotated[
        Path | None, typer.Option(help="Font file for captions; default: one of the system with the characters.")
    ] = None,
    provider: Annotated[str, typer.Option(help="Execution provider: auto, cpu, cuda, ...")] = "auto",
    provider_options: ProviderOptions = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads of one inference; default: one per core.")] = None,
    fit: Fit = None,
    tiles: Tiles = None,
    overlap: Overlap = None,
    roi: Regions = None,
    fast_resize: Annotated[
        bool,
        typer.Option(
            "--fast-resize", help="Resize frames in half the time; pixels rarely differ by more than one grey level."
        ),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace existing files, and in --folder the pictures of earlier runs.")
    ] = False,
) -> None:
    """Run an exported file over a stream of pictures.

    Without --http, --video, --folder and --jsonl, a line per frame goes to standard output. With --http the page stays
    when the source has ended. Ctrl-C ends it cleanly: files are finished, a summary is printed, the exit code is 0. It
    is 1 where the source broke or a picture could not be read.
    """
    _check_values(model, follow and loop)
    _check_files(video, folder, jsonl, force)
    from edgex.runtime import Session, Stream, open_source

    pages: list[Page] = []

    def notice(text: str) -> None:
        note(f"edgex: {text}")
        for page in pages:
            page.notice(text)

    drawing = read_drawing(style, colormap, dim=dim, legend=legend, opacity=opacity, font=font)
    opened = open_source(
        source, timeout=timeout, follow=follow, interval=1 / fps if fps and 0 < fps < float("inf") else 1.0
    )
    options: dict[str, Any] = {"provider_options": read_provider_options(provider_options)}
    options |= {"threads": threads, "exact_resize": not fast_resize, "fit": fit}
    options |= {"tiles": read_tiles(tiles), "overlap": overlap, "roi": read_roi(roi)}
    with Session(model, provider, **options) as session:
        stream = Stream(
            session,
            opened,
            # Any other word is refused there.
            policy=cast("Policy | None", policy),
            explain=explain,
            fps=fps,
            limit=limit,
            retries=retries,
            loop=loop,
            stay=http is not None,
            notice=notice,
        )
        with stopped_by_signals(stream.stop), contextlib.ExitStack() as stack:
            if http is not None:
                pages.append(_page(stack, stream, http, drawing))
            sinks = [*pages, *_sinks(stack, video, folder, jsonl, fps, top, drawing, force)]
            _run(stream, session, sinks, top)
    if stream.metrics.snapshot().unusable:
        raise typer.Exit(EXIT_FAILURE)


def _check_values(model: str, endless_twice: bool) -> None:
    check_exported(model)
    if endless_twice:
        raise UsageError("expected a folder that is read once to follow it, found --loop beside it", argument="follow")


def _check_files(video: Path | None, folder: Path | None, jsonl: str | None, force: bool) -> None:
    if video is None and folder is None and jsonl in (None, "-"):
        return
    from edgex.runtime.watch.sinks import holds_results

    if folder is not None and not force and holds_results(folder):
        raise UsageError(
            f"{folder} holds pictures of an earlier run: choose another, or --force to replace", argument="folder"
        )
    refuse_to_overwrite(video, force=force, argument="video")
    refuse_to_overwrite(None if jsonl == "-" else jsonl, force=force, argument="jsonl")


def _page(stack: contextlib.ExitStack, stream: Stream, port: int, drawing: Drawing) -> Page:
    from edgex.runtime.watch.page import Page

    with _argument("http", "port"):
        page = Page(stream, port, drawing)
    stack.callback(page.close)
    note(f"edgex: the page is at {page.url} until Ctrl-C")
    return page


def _sinks(
    stack: contextlib.ExitStack,
    video: Path | None,
    folder: Path | None,
    jsonl: str | None,
    fps: float | None,
    top: int,
    drawing: Drawing,
    force: bool,
) -> list[Sink]:
    from edgex.runtime.watch.recording import unfinished
    from edgex.runtime.watch.sinks import FolderSink, JsonLinesSink, VideoSink

    sinks: list[Sink] = []
    if video is not None:
        with _argument("video", "path"):
            sinks.append(VideoSink(video, drawing, fps or 2.0))
        for path in unfinished(video):
            note(
                f"edgex: {path}: a recording that was not finished, of a run that was killed or still goes on; it plays"
            )
    if folder is not None:
        sinks.append(FolderSink(folder, drawing, replace=force))
    if jsonl is not None:
        sinks.append(JsonLinesSink(sys.stdout if jsonl == "-" else Path(jsonl), top))
    for sink in sinks:
        stack.callback(sink.close)
    return sinks


@contextlib.contextmanager
def _argument(name: str, stands_for: str) -> Iterator[None]:
    """Errors about the parameter that an option stands for, or about none, are about the option."""
    try:
        yield
    except UsageError as error:
        if error.argument in (None, stands_for):
            error.argument = name
        raise


def _run(stream: Stream, session: Session, sinks: list[Sink], top: int) -> None:
    """Runs it to its end, and says on standard error how it went, whatever ended it."""
    try:
        with _screen() as show:
            for frame in stream:
                for sink in sinks:
                    sink.write(frame)
                if not sinks:
                    say(_line(frame, top))
                show(stream, frame)
    except BrokenPipeError:
        # The reader of standard output has closed it. Python would report that again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    finally:
        if (snapshot := stream.metrics.snapshot()).seconds:
            note(f"edgex: {stream.source.name}: {snapshot} on {session.provider}")


def _line(frame: FrameResult, top: int) -> str:
    best = answer_of(frame.result, top)
    asked = frame.result.explained_index != frame.result.index
    return f"{frame.source_frame.name}: {best}" + (f" (explained: {frame.result.explained})" if asked else "")


@contextlib.contextmanager
def _screen() -> Iterator[Any]:
    """A line that follows the stream, on standard error and only where that is a terminal."""
    from edgex.utils.progress import terminal

    if (console := terminal()) is None:
        yield lambda *_: None
        return
    from rich.live import Live
    from rich.text import Text

    last = 0.0
    with Live(console=console, auto_refresh=False, transient=True) as live:

        def show(stream: Stream, frame: FrameResult) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= _REFRESH:
                last = now
                live.update(Text(f"{printable(_line(frame, 1))}\n{stream.metrics.snapshot()}"), refresh=True)

        yield show
