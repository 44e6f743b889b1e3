"""What `kernel_shap.py` makes of its figures: the project's ratios, quality beside latency, a table and a plot."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import measured_on
from figures import INSERTION_MINUS_DELETION, STYLES, figure, measured_where, style_of


def rows_of(group: dict[str, Any], precision: str, method: str) -> Iterator[dict[str, Any]]:
    yield from (row for row in group["rows"] if (row["precision"], row["method"]) == (precision, method))


def targets(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The project's ratios on this machine, one entry per provider and thread count."""
    found = []
    for group in report["groups"]:
        entry: dict[str, Any] = {"provider": group["provider"], "threads": group["threads"]}
        for precision in group["models"]:
            for row in rows_of(group, precision, "fused"):
                same = row.get("over_plain" if row["batch"] == 1 else "over_plain_of_same_batch")
                if same is not None:
                    entry[f"fused {precision} over plain {precision}, batch {row['batch']}"] = same
                if row["batch"] == 1 and "over_plain_fp32" in row and row["over_plain_fp32"] != row.get("over_plain"):
                    entry[f"fused {precision} over plain fp32"] = row["over_plain_fp32"]
            serial = {row["batch"]: row for row in rows_of(group, precision, "passes")}
            entry[f"{report['passes']} bare passes over fused {precision}, best"] = min(
                (row["over_fused"] for row in serial.values()), key=lambda ratio: float(ratio["median"])
            )
            for library in ("captum", "shap"):
                for row in rows_of(group, precision, library):
                    name = f"{library} over fused {precision}, {row['players']} players, batch {row['batch']}"
                    entry[name] = row["over_fused"]
        found.append(entry)
    return found


def read_quality(path: Path) -> dict[str, Any] | None:
    """method -> mean over targets of insertion minus deletion, from the results of benchmarks/ten_targets.py."""
    if not path.is_file():
        return None
    collected: dict[str, list[dict[str, float]]] = {}
    for target in json.loads(path.read_text(encoding="utf-8"))["targets"].values():
        for name, metrics in target["methods"].items():
            if " on " not in name:
                collected.setdefault(name, []).append(metrics["difference:mean"])
    return {
        name: {
            "mean": statistics.fmean(entry["mean"] for entry in entries),
            # Targets are measured independently of each other.
            "standard_error": math.sqrt(sum(entry["standard_error"] ** 2 for entry in entries)) / len(entries),
            "targets": len(entries),
        }
        for name, entries in collected.items()
    }


def _plotted(report: dict[str, Any]) -> dict[str, Any]:
    """The provider and thread count whose times are drawn: the last one where the PyTorch methods ran too."""
    groups = report["groups"]
    return ([group for group in groups if group["provider"] == "cpu" or "gpu" in group] or groups)[-1]


def quality_and_latency(report: dict[str, Any]) -> list[dict[str, Any]]:
    """One point per method: quality, and ms in fp32 where the PyTorch methods ran too, with the last thread count.

    Kernel SHAP's time is that of the bare passes in the best batch, below which no library goes, up to the slowest
    library call; other budgets than the measured one are scaled with their passes, and say so.
    """
    group = _plotted(report)
    single = {"unbaked": "fused", "baked": "fused", "grad-cam": "grad-cam", "rollout": "rollout"}
    points = []
    for name, quality in (report["quality"] or {}).items():
        players = 196 if name.endswith("@patches") else 49
        passes = int(name.removeprefix("kernel-shap:").split("@")[0].split("+")[0]) if ":" in name else 0
        methods = ("passes", "captum", "shap") if passes else (single[name],)
        times = [
            row["ms"]["median"]
            for method in methods
            for row in rows_of(group, "fp32", method)
            if (row["players"] in (None, players) if passes else row["batch"] == 1)
        ]
        if times:
            scale = passes / report["passes"] if passes else 1
            points.append(
                {
                    "method": name,
                    **quality,
                    "ms": [scale * min(times), scale * max(times)],
                    "scaled": passes not in (0, report["passes"]),
                    "threads": group["threads"],
                }
            )
    return points


def as_markdown(report: dict[str, Any]) -> str:
    lines = [
        f"# What an explanation costs: {report['model']} ({report['architecture']})",
        "",
        f"{measured_on(report)} Medians of {report['rounds']} rounds.",
    ]
    for group in report["groups"]:
        lines += [
            "",
            f"## {group['provider']}, " + (group.get("gpu") or f"{group['threads']} threads"),
            "",
            "| what | passes | ms per picture | quartiles | p95 | over fused | over plain fp32 |",
            "|---|---|---|---|---|---|---|",
        ]
        for row in group["rows"]:
            ms, plain = row["ms"], row.get("over_plain_fp32")
            lines.append(
                f"| {row['name']} | {row['evaluations']} | {ms['median']:.4g} | "
                f"{ms['quartiles'][0]:.4g} to {ms['quartiles'][1]:.4g} | {ms['p95']:.4g} | "
                f"{row['over_fused']['median']:.3g} | {plain['median'] if plain else math.nan:.3g} |"
            )
        for precision, model in group["models"].items():
            metrics = model["gate"]["metrics"]
            values = ", ".join(
                f"{name} {metrics[name]['value']:.3g}"
                for name in ("top1_agreement", "logits_max_abs", "heatmap_pearson_worst")
            )
            verdict = "passes" if model["gate"]["passed"] else "**fails**"
            lines.append(f"\nThe gate here, {precision}: {verdict} ({values}).")
        lines += [f"\nSkipped: {e['precision']}, {e['name']}: {e['reason']}." for e in group["skipped"]]
    if report["footprint"]:
        lines += ["", "## Start, memory, size", ""]
        lines += ["| file | first result, s | steady memory, MB | file, MB |", "|---|---|---|---|"]
    for name, found in report["footprint"].items():
        start, memory, size = found["cold_start_s"], found["steady_memory_mb"], found["file_bytes"] / 1e6
        lines.append(f"| {name} | {start:.2f} | {memory:.0f} | {size:.1f} |")
    lines += ["", "## Quality beside latency", ""]
    if points := quality_and_latency(report):
        lines += ["| method | insertion minus deletion | targets | ms per picture |", "|---|---|---|---|"]
        for point in points:
            low, high = point["ms"]
            time_text = f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"
            lines.append(
                f"| {point['method']} | {point['mean']:.3f} ± {point['standard_error']:.3f} | {point['targets']} | "
                f"{time_text}{' (scaled)' if point['scaled'] else ''} |"
            )
    else:
        lines.append("Quality was not measured yet when this was written: benchmarks/ten_targets.py measures it.")
    return "\n".join(lines) + "\n"


def draw(report: dict[str, Any], path: Path) -> None:
    """Quality against ms (logarithmic), or, without quality, the latencies alone."""
    gpus = [group["gpu"] for group in report["groups"] if "gpu" in group]
    group = _plotted(report)
    below = measured_where(report, threads=group["threads"], gpu=gpus[-1] if gpus else None)
    model = f"{report['model']} ({report['architecture']}), fp32 file, {group['provider']} in onnxruntime"
    points = quality_and_latency(report)
    if not points:
        title, subtitle = "What class and heatmap cost", f"{model}; medians of {report['rounds']} rounds."
        with figure(path, title, subtitle, below, (9, 1 + 0.22 * len(group["rows"]))) as (_, axes):
            for index, row in enumerate(reversed(group["rows"])):
                axes.plot(row["ms"]["median"], index, "o", color=STYLES["baked"].colour)
            axes.set_yticks(range(len(group["rows"])), [row["name"] for row in reversed(group["rows"])], fontsize=8)
            _milliseconds(axes)
        return
    said = [
        f"{model}.",
        "Higher is more faithful, left is faster.",
        "Vertical bars: standard error.",
        "Horizontal lines of Kernel SHAP: from its bare passes in batches to the slowest library.",
    ]
    if any(point["scaled"] for point in points):
        said.append(f"Budgets other than {report['passes']} passes were not timed: their times are scaled.")
    if any(point["method"] == "grad-cam" for point in points):
        said.append("Grad-CAM and attention rollout run in PyTorch.")
    subtitle = " ".join([*said, f"{INSERTION_MINUS_DELETION}."])
    title = "How faithful a heatmap is, and what it costs"
    with figure(path, title, subtitle, below, (9, 4.6), columns=2) as (_, axes):
        for point in points:
            style = style_of(point["method"])
            low, high = point["ms"]
            axes.plot([low, high], [point["mean"]] * 2, color=style.colour, linewidth=2.5, alpha=0.5, zorder=1)
            axes.errorbar(
                math.sqrt(low * high),
                point["mean"],
                yerr=point["standard_error"],
                capsize=4,
                markersize=9,
                label=style.name,
                **style.points(),
            )
        targets = max(point["targets"] for point in points)
        axes.set_ylabel(f"insertion minus deletion,\nmean over {targets} data sets")
        _milliseconds(axes)


def _milliseconds(axes: Any) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("milliseconds for a picture (logarithmic)")
    axes.grid(alpha=0.3)
