"""`edgex serve`: an exported file over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edgex.cli.command import command
from edgex.cli.console import Fit, ProviderOptions, check_exported, note, read_provider_options
from edgex.cli.ending import stopped_by_signals
from edgex.cli.log import log


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("serve", cls=command(long=True))(serve)


def serve(
    model: Annotated[str, typer.Argument(help="An exported file: .onnx or .engine.")],
    host: Annotated[str, typer.Option(help="Address to listen at; others than 127.0.0.1 need a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen at; 0: any free one.")] = 8080,
    token_file: Annotated[
        Path | None,
        typer.Option(help="File with the token that clients must send; default: the environment's EDGEX_TOKEN."),
    ] = None,
    batch_window_ms: Annotated[
        float, typer.Option(help="Milliseconds that a batch waits for more pictures; for GPUs a few.")
    ] = 0.0,
    max_batch: Annotated[
        int | None, typer.Option(help="Pictures in a batch; default: as many as the file takes.")
    ] = None,
    max_body_mb: Annotated[float, typer.Option(help="Size of a request, in MB.")] = 20.0,
    max_held_mb: Annotated[float, typer.Option(help="Size of all requests that are there at once, in MB.")] = 256.0,
    max_pictures: Annotated[int, typer.Option(help="Pictures in a request.")] = 32,
    max_pending: Annotated[int, typer.Option(help="Pictures that wait or are worked on; then requests get 503.")] = 128,
    timeout: Annotated[
        float, typer.Option(help="Seconds for a request to arrive, to be answered, and to be read by its client.")
    ] = 30.0,
    provider: Annotated[str, typer.Option(help="Execution provider: auto, cpu, cuda, ...")] = "auto",
    provider_options: ProviderOptions = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads of one inference; default: one per core.")] = None,
    fit: Fit = None,
    fast_resize: Annotated[
        bool,
        typer.Option(
            "--fast-resize", help="Resize pictures in half the time; pixels rarely differ by more than one grey level."
        ),
    ] = False,
    request_log: Annotated[
        bool,
        typer.Option("--request-log/--no-request-log", help="A line for each request; failures are said in any case."),
    ] = True,
) -> None:
    """Answer requests with pictures: classes, heatmaps, overlays; documentation at /docs, counts at /metrics.

    Pictures of all requests go through the model together. Ctrl-C ends it cleanly: what was taken on is answered, the
    exit code is 0.
    """
    check_exported(model)
    from edgex.runtime import Session
    from edgex.runtime.access import check_address, read_token
    from edgex.serving import Limits, Server

    token = read_token(token_file)
    check_address(host, token)
    limits = Limits(
        max_body_mb=max_body_mb,
        max_held_mb=max_held_mb,
        max_pictures=max_pictures,
        max_pending=max_pending,
        timeout=timeout,
    )
    options: dict[str, Any] = {"provider_options": read_provider_options(provider_options)}
    options |= {"threads": threads, "exact_resize": not fast_resize, "fit": fit, "warmup": 0}
    with Session(model, provider, **options) as session:
        server = Server(
            session,
            host=host,
            port=port,
            token=token,
            limits=limits,
            batch_window_ms=batch_window_ms,
            max_batch=max_batch,
            report=_say,
            report_failure=_say_failure,
            log_requests=request_log,
        )
        with stopped_by_signals(server.stop):
            note(f"edgex: {session.path.name} on {session.provider} at {server.url} until Ctrl-C; see {server.url}docs")
            server.run()


def _say(line: str) -> None:
    note(f"edgex: {line}")


def _say_failure(line: str) -> None:
    log.error(f"edgex: {line}")
