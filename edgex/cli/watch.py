"""`edgex watch`: an exported file over a camera, a stream, a video, a folder or a pipe; results without a window."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from edgex.cli import alarms as acting
from edgex.cli.command import command
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
from edgex.cli.drawing import Colormap, Dim, Legend, Scale, Style, read_drawing
from edgex.cli.ending import stopped_by_signals
from edgex.cli.log import log
from edgex.cli.outputs import Outputs, Receivers, option_for
from edgex.cli.tiles import Overlap, Regions, Tiles, read_roi, read_tiles
from edgex.errors import SourceError, UsageError
from edgex.runtime.printable import printable
from edgex.runtime.watch.sources.url import shown_source

if TYPE_CHECKING:
    from edgex.runtime import Session, Stream
    from edgex.runtime.drawing.options import Drawing
    from edgex.runtime.watch.alarms.alarms import Alarms
    from edgex.runtime.watch.page.page import Page
    from edgex.runtime.watch.sources.source import Source
    from edgex.runtime.watch.stream import FrameResult, Policy

_REFRESH = 0.25
"""Seconds between two updates of the line on the screen."""


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("watch", cls=command(long=True))(watch)


def watch(
    model: Annotated[str, typer.Argument(help="An exported file: .onnx or .engine.")],
    source: Annotated[
        list[str],
        typer.Option(
            help="camera:0, rtsp://..., http://..., a video, a folder, or - (pictures or paths on stdin). Repeat it to "
            "watch several at once."
        ),
    ],
    policy: Annotated[
        str | None,
        typer.Option(help="latest (drop what is older) or every; default: latest for live sources, else every."),
    ] = None,
    explain: Annotated[str | None, typer.Option(help="Explain this class instead of the predicted one.")] = None,
    http: Annotated[
        str | None,
        typer.Option(
            metavar="[HOST:]PORT", help="Show a page on 127.0.0.1:PORT (0: any free port); another HOST needs a token."
        ),
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="File with the token that the page asks for; default: $EDGEX_TOKEN, if any.")
    ] = None,
    feedback: Annotated[
        Path | None, typer.Option(help="Let viewers of the page judge alarms: append a line of JSON per verdict.")
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
    scale: Scale = None,
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
    alarm: acting.Rules = None,
    inside: acting.Inside = None,
    alarm_after: acting.After = 1,
    alarm_every: acting.Every = None,
    webhook: acting.WebhookUrl = None,
    webhook_header: acting.WebhookHeaders = None,
    mqtt: acting.MqttUrl = None,
    snapshots: acting.Snapshots = None,
    keep: acting.Keep = None,
    exit_on_alarm: acting.ExitOnAlarm = False,
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
    is 1 where a source broke, a picture could not be read or a file not be written, and 3 where --exit-on-alarm ended
    it. Several sources share one session, and each has a thread of its own: a slow one holds none of the others.
    """
    _check_values(model, source, follow and loop)
    _check_page(http, token_file=token_file, feedback=feedback)
    outputs = Outputs(video, folder, jsonl, len(source), force)
    outputs.check()
    from edgex.runtime import Session
    from edgex.runtime.watch.together import stop_all

    pages: list[Page] = []

    def notice(number: int, text: str, show: Callable[[str], None] = note) -> None:
        show(f"edgex: {text}")
        for page in pages:
            page.feeds[number].notice(text)

    failure = partial(notice, show=log.error)
    drawing = read_drawing(style, colormap, scale=scale, dim=dim, legend=legend, opacity=opacity, font=font)
    opened = _opened(source, fps, timeout=timeout, follow=follow)
    options: dict[str, Any] = {"provider_options": read_provider_options(provider_options), "fit": fit}
    options |= {"tiles": read_tiles(tiles), "overlap": overlap, "roi": read_roi(roi)}
    with Session(model, provider, threads=threads, exact_resize=not fast_resize, **options) as session:
        drawing.check_for(session.metadata.calibration)
        streams = _streams(
            session,
            opened,
            notice,
            failure,
            policy=policy,
            explain=explain,
            fps=fps,
            limit=limit,
            retries=retries,
            loop=loop,
            stay=http is not None,
        )
        with stopped_by_signals(partial(stop_all, streams)), contextlib.ExitStack() as stack:
            if http is not None:
                pages.append(_page(stack, streams, http, drawing, token_file, feedback))
            alarms = acting.open_alarms(
                stack=stack,
                streams=streams,
                drawing=drawing,
                notice=failure,
                alarm=alarm,
                inside=inside,
                alarm_after=alarm_after,
                alarm_every=alarm_every,
                webhook=webhook,
                webhook_header=webhook_header,
                mqtt=mqtt,
                snapshots=snapshots,
                keep=keep,
                exit_on_alarm=exit_on_alarm,
            )
            sinks = outputs.open(stack, pages, drawing, fps=fps, top=top)
            receivers = Receivers(sinks, failure, others=bool(alarms))
            _run(streams, session, alarms, receivers, top, failure)
    _exit(streams, alarms, receivers)


def _exit(streams: list[Stream], alarms: list[Alarms], receivers: Receivers) -> None:
    if any(entry.ended_run for entry in alarms):
        raise typer.Exit(acting.EXIT_ALARM)
    if receivers.any_lost or any(stream.metrics.snapshot().unusable for stream in streams):
        raise typer.Exit(EXIT_FAILURE)


def _check_values(model: str, sources: list[str], endless_twice: bool) -> None:
    check_exported(model)
    if twice := [name for number, name in enumerate(sources) if name in sources[:number]]:
        raise UsageError(f"expected different sources, found {shown_source(twice[0])} twice", argument="source")
    if endless_twice:
        raise UsageError("expected a folder that is read once to follow it, found --loop beside it", argument="follow")


def _check_page(http: str | None, **options: Any) -> None:
    if http is None:
        acting.refuse_without("--http", options)


def _opened(sources: list[str], fps: float | None, **options: Any) -> list[Source]:
    from edgex.runtime import open_source

    interval = 1 / fps if fps and 0 < fps < float("inf") else 1.0
    return [open_source(name, interval=interval, **options) for name in sources]


def _streams(
    session: Session,
    sources: list[Source],
    notice: Callable[[int, str], None],
    failure: Callable[[int, str], None],
    policy: str | None,
    **options: Any,
) -> list[Stream]:
    from edgex.runtime import Stream

    # Any other word is refused there.
    known = cast("Policy | None", policy)
    return [
        Stream(session, one, policy=known, notice=partial(notice, n), failure=partial(failure, n), **options)
        for n, one in enumerate(sources)
    ]


def _page(
    stack: contextlib.ExitStack,
    streams: list[Stream],
    http: str,
    drawing: Drawing,
    token_file: Path | None,
    feedback: Path | None,
) -> Page:
    from edgex.runtime.access import read_token
    from edgex.runtime.watch.page.feedback import Feedback
    from edgex.runtime.watch.page.page import Page
    from edgex.runtime.watch.page.server import parse_address

    token = read_token(token_file)
    with option_for("http", "port"):
        host, port = parse_address(http)
        judged = None if feedback is None else Feedback(feedback)
        page = Page(streams, port, drawing, host=host, token=token, feedback=judged)
    stack.callback(page.close)
    asked = "" if token is None else "; the first time, add ?token= and the token"
    note(f"edgex: the page is at {page.url} until Ctrl-C{asked}")
    return page


def _run(
    streams: list[Stream],
    session: Session,
    alarms: list[Alarms],
    receivers: Receivers,
    top: int,
    broken: Callable[[int, str], None],
) -> None:
    """Runs them to their end, and says on standard error how it went, whatever ended it."""
    from edgex.runtime.watch.together import run_together

    saying = threading.Lock()
    try:
        with _screen() as show:

            def handle(number: int, frame: FrameResult) -> None:
                for entry in alarms:
                    entry.judges[number].write(frame)
                receivers.write(number, frame)
                if not receivers.any:
                    source = f"{frame.source}: " if len(streams) > 1 else ""
                    with saying:
                        say(f"{source}{_line(frame, top)}")
                show(streams[number], frame)

            run_together(streams, handle, lambda number, error: broken(number, str(error)))
    except SourceError as error:
        if not any(entry.ended_run for entry in alarms):
            raise
        # The exit code says that an alarm ended the run.
        note(f"edgex: {error}")
    except BrokenPipeError:
        # The reader of standard output has closed it. Python would report that again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    finally:
        for stream in streams:
            if (snapshot := stream.metrics.snapshot()).seconds:
                note(f"edgex: {stream.source.name}: {snapshot} on {session.provider}")


def _line(frame: FrameResult, top: int) -> str:
    best = answer_of(frame.result, top)
    asked = frame.result.explained_index != frame.result.index
    explained = f" (explained: {frame.result.explained})" if asked else ""
    alarms = f" - alarm: {', '.join(frame.alarms)}" if frame.alarms else ""
    return f"{frame.source_frame.name}: {best}{explained}{alarms}"


@contextlib.contextmanager
def _screen() -> Iterator[Any]:
    """A line that follows the stream, on standard error and only where that is a terminal."""
    from edgex.utils.progress import terminal

    if (console := terminal()) is None:
        yield lambda *_: None
        return
    from rich.live import Live
    from rich.text import Text

    shown: dict[Stream, float] = {}
    lines: dict[Stream, str] = {}
    lock = threading.Lock()
    with Live(console=console, auto_refresh=False, transient=True) as live:

        def show(stream: Stream, frame: FrameResult) -> None:
            with lock:
                now = time.monotonic()
                if now - shown.get(stream, 0.0) >= _REFRESH:
                    shown[stream] = now
                    lines[stream] = f"{printable(_line(frame, 1))}\n{stream.metrics.snapshot()}"
                    live.update(Text("\n".join(lines.values())), refresh=True)

        yield show
