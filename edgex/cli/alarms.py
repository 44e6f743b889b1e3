"""Options of `edgex watch` about alarms: when there is one, and what is done then."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgex.cli.console import note
from edgex.cli.tiles import read_roi
from edgex.errors import UsageError

if TYPE_CHECKING:
    from edgex.runtime import Stream
    from edgex.runtime.drawing.options import Drawing
    from edgex.runtime.watch.alarms.alarms import Alarms
    from edgex.runtime.watch.alarms.delivery import Receiver

EXIT_ALARM = 3
"""Exit code of a run that --exit-on-alarm ended."""
TOKEN, PASSWORD = "EDGEX_WEBHOOK_TOKEN", "EDGEX_MQTT_PASSWORD"
"""Environment variables of what others could read in the list of processes."""

Rules = Annotated[
    list[str] | None,
    typer.Option(
        metavar="RULE",
        help="Raise an alarm where a class's probability is above or below a number, such as 'scratch>0.8' (>, >=, <, "
        "<=), or where a calibrated file's decision is alarm: decision; may be repeated.",
    ),
]
Inside = Annotated[
    list[str] | None,
    typer.Option(
        "--in",
        metavar="REGION",
        help="Only where heat of the alarm's class lies in this region, as for --roi; may be repeated.",
    ),
]
After = Annotated[int, typer.Option(metavar="N", help="Pictures in a row that have to fulfil a rule.")]
Every = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        help="Least time between two alarms of a rule; default: 10 for cameras and videos, 0 for pictures.",
    ),
]
WebhookUrl = Annotated[
    str | None,
    typer.Option(metavar="URL", help=f"Send alarms by HTTP POST, as JSON; ${TOKEN} becomes a bearer token."),
]
WebhookHeaders = Annotated[
    list[str] | None, typer.Option(metavar="'NAME: VALUE'", help="A header of these requests; may be repeated.")
]
MqttUrl = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help=f"Send alarms to mqtt://user:password@host:port/topic, or mqtts://; ${PASSWORD} is a password, too.",
    ),
]
Snapshots = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="Write picture, heatmap and JSON of each alarm there.")
]
Keep = Annotated[
    int | None,
    typer.Option(metavar="N", help="Keep the newest N alarms in --snapshots; default: all, up to 1000 in the folder."),
]
ExitOnAlarm = Annotated[
    bool, typer.Option("--exit-on-alarm", help=f"End the run at the first alarm, with exit code {EXIT_ALARM}.")
]


def open_alarms(
    stack: contextlib.ExitStack,
    streams: list[Stream],
    drawing: Drawing,
    notice: Callable[[int, str], None],
    *,
    alarm: list[str] | None,
    inside: list[str] | None,
    alarm_after: int,
    alarm_every: float | None,
    snapshots: Path | None,
    keep: int | None,
    exit_on_alarm: bool,
    **receivers: Any,
) -> list[Alarms]:
    """What judges the pictures, to be closed by the stack, which says how it went then; none without --alarm.

    The others are the options by their names. Raises UsageError for options that lack the one that they belong to.
    """
    given = {**receivers, "inside": inside, "alarm_every": alarm_every, "snapshots": snapshots, "keep": keep}
    if not alarm:
        after = None if alarm_after == 1 else alarm_after
        refuse_without("--alarm", {**given, "alarm_after": after, "exit_on_alarm": exit_on_alarm or None})
        return []
    if snapshots is None:
        refuse_without("--snapshots", {"keep": keep})
    from edgex.runtime.watch.alarms.alarms import Alarms
    from edgex.runtime.watch.alarms.snapshots import SnapshotFolder

    folder = None
    if snapshots is not None:
        folder = SnapshotFolder(snapshots, drawing, keep=keep, notice=partial(notice, 0))
    alarms = Alarms(
        streams,
        alarm,
        inside=_regions(inside),
        after=alarm_after,
        every=alarm_every,
        once=exit_on_alarm,
        receivers=_receivers(**receivers),
        snapshots=folder,
        notice=notice,
    )
    stack.callback(lambda: note(f"edgex: {alarms}"))
    stack.callback(alarms.close)
    return [alarms]


def refuse_without(missing: str, options: dict[str, Any]) -> None:
    """UsageError about the first option with a value: it does nothing without the missing one."""
    for name, value in options.items():
        if value is not None:
            raise UsageError(f"expected {missing} beside it, found none", argument=name)


def _receivers(webhook: str | None, webhook_header: list[str] | None, mqtt: str | None) -> list[Receiver]:
    receivers: list[Receiver] = []
    if webhook is not None:
        from edgex.runtime.watch.alarms.webhook import Webhook

        receivers.append(Webhook(webhook, _headers(webhook_header or [])))
    else:
        refuse_without("--webhook", {"webhook_header": webhook_header or None})
    if mqtt is not None:
        from edgex.runtime.watch.alarms.mqtt import MqttTopic

        receivers.append(MqttTopic(mqtt, password=os.environ.get(PASSWORD)))
    return receivers


def _headers(entries: list[str]) -> dict[str, str]:
    """Of --webhook-header, and of the token in the environment where none of them is an authorization."""
    headers = {}
    for entry in entries:
        name, colon, value = entry.partition(":")
        if not colon:
            # Without the entry, which may be a token.
            raise UsageError("expected NAME: VALUE, found a text without a colon", argument="webhook_header")
        headers[name.strip()] = value.strip()
    token = os.environ.get(TOKEN, "").strip()
    if token and "authorization" not in map(str.lower, headers):
        headers["Authorization"] = f"Bearer {token}"
    return headers


def _regions(entries: list[str] | None) -> Any:
    try:
        return read_roi(entries)
    except UsageError as error:
        error.argument = "inside"
        raise
