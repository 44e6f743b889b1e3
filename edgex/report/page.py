"""The page: what a run adds up to, in one HTML file that works from a disk. Needs jinja2 (the extra `cli`)."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgex.errors import UsageError
from edgex.report.charts import Chart, chart
from edgex.report.pictures import Pictures, Shown
from edgex.report.reading import Frame, Run, read_run
from edgex.runtime.atomic_files import atomic_output
from edgex.runtime.printable import printable, printable_values
from edgex.utils.output import refuse_to_overwrite

MOST_ROWS = 20
"""Of a table; the rest is one row."""
WHY = {"alarm": "alarm", "review": "to review", "low": "low score", "even": "sample"}
"""What the page says of why a picture is shown."""
_TIMES = {
    "latency_ms": "from arrival to result",
    "queue_ms": "waiting for the model",
    "model_ms": "preprocessing and model",
}
_DECISIONS = ("ok", "review", "alarm")


def write_report(
    run: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    snapshots: Sequence[str | os.PathLike[str]] = (),
    force: bool = False,
) -> Run:
    """Writes one HTML page about a run, without scripts and with everything inside.

    run: the JSON lines of `edgex watch --jsonl`. out: the page. snapshots: folders with pictures of the run, see
    `edgex.report.pictures`; heatmaps are drawn alone where there is no picture. force: replace an existing page.

    The page holds at most 30 pictures, whatever the length of the run. Returns what the lines add up to. Raises
    DataError for lines that are none and for a folder that there is not, UsageError for a page that exists or is the
    run itself.
    """
    if Path(out).resolve() == Path(run).resolve():
        raise UsageError(f"expected another file than the run itself, found {os.fspath(out)}", argument="out")
    refuse_to_overwrite(out, force=force)
    pictures = Pictures(snapshots)
    found = read_run(run)
    text = _environment().get_template("report.html").render(_values(found, pictures))
    with atomic_output(out) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return found


def _environment() -> Any:
    import jinja2

    folder = jinja2.FileSystemLoader(Path(__file__).parent)
    return jinja2.Environment(
        autoescape=True, loader=folder, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


def _values(run: Run, pictures: Pictures) -> dict[str, Any]:
    """What the template is filled with; every text in it is printable, and escaped there."""
    shown = [_figure(why, frame, pictures.show(frame)) for why, frame in run.chosen]
    spans = [(span.first, span.last) for span in run.drift]
    values = {
        "name": run.name,
        "frames": run.frames,
        "sources": [name for name, _ in run.sources.most_common() if name],
        "remarks": run.remarks,
        "numbers": _numbers(run),
        "drift": [
            {"message": span.message, "first": span.first + 1, "last": span.last + 1} for span in run.drift[:MOST_ROWS]
        ],
        "more_drift": max(0, len(run.drift) - MOST_ROWS),
        "alarms": _rows(run.alarms, run.frames),
        "classes": _rows(run.classes, run.frames),
        "times": _times(run),
        "figures": shown,
        "alone": sum(not figure["is_picture"] for figure in shown),
        "samples": ", ".join(_samples(run, Counter(why for why, _ in run.chosen))),
    }
    return {
        **printable_values(values),
        "scores": chart(run.scores, 1.0, run.alarm_positions, spans),
        "latency": _latency(run),
    }


def _numbers(run: Run) -> list[tuple[str, str]]:
    scores = np.asarray(run.scores)
    numbers = [("frames", f"{run.frames:,}"), ("median score", f"{np.median(scores):.0%}")]
    if run.decisions:
        numbers += [(f"decision: {name}", f"{run.decisions[name]:,}") for name in _DECISIONS]
    if run.alarms:
        numbers.append(("alarms by rules", f"{run.alarms.total():,}"))
    numbers.append(("drift warnings", f"{len(run.drift):,}"))
    if latency := run.times["latency_ms"]:
        numbers.append(("median latency", f"{np.median(np.asarray(latency)):.1f} ms"))
    return numbers


def _rows(counter: Counter[str], frames: int) -> list[dict[str, Any]]:
    """The most frequent names, and how many frames all others have."""
    best = counter.most_common(MOST_ROWS)
    if rest := counter.total() - sum(count for _, count in best):
        best.append((f"{len(counter) - len(best)} others", rest))
    return [{"name": name, "count": count, "share": count / frames} for name, count in best]


def _times(run: Run) -> list[dict[str, Any]]:
    rows = []
    for key, words in _TIMES.items():
        if values := run.times[key]:
            series = np.asarray(values)
            rows.append({"what": words, "values": [*np.percentile(series, (50, 95, 99)), series.max()]})
    return [{**row, "values": [f"{value:.1f}" for value in row["values"]]} for row in rows]


def _latency(run: Run) -> Chart | None:
    values = run.times["latency_ms"]
    if not values:
        return None
    return chart(values, max(float(np.percentile(np.asarray(values), 99)) * 1.2, 1e-3))


def _figure(why: str, frame: Frame, shown: Shown | None) -> dict[str, Any]:
    explained = frame.explained if frame.explained not in (None, frame.label) else None
    return {
        "why": why,
        "reason": WHY[why],
        "number": frame.frame,
        "label": frame.label,
        "score": f"{frame.score:.0%}",
        "explained": explained,
        "name": frame.name,
        "source": frame.source,
        "alarms": list(frame.alarms),
        "uri": shown and shown.uri,
        "width": shown.width if shown else 0,
        "height": shown.height if shown else 0,
        "is_picture": bool(shown and shown.is_picture),
    }


def _samples(run: Run, chosen: Counter[str]) -> list[str]:
    """Which frames are shown, of how many."""
    words = {"alarm": "with an alarm", "review": "to review"}
    parts = [f"{chosen[why]} of {run.candidates[why]:,} {words[why]}" for why in words if run.candidates[why]]
    parts += [f"the {chosen['low']} of the lowest scores"] if chosen["low"] else []
    parts += [f"{chosen['even']} spread evenly over the run"] if chosen["even"] else []
    return [printable(part) for part in parts]
