"""How the project's figures are drawn: one name, colour and marker for each method, titles, and where it was measured.

`python benchmarks/figures.py` draws the figures of results/ again from the committed JSON, without measuring anything.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from common import RESULTS


@dataclasses.dataclass(frozen=True)
class Style:
    """How a method looks in every figure. hollow: drawn as an outline."""

    name: str
    colour: str
    marker: str = "o"
    hollow: bool = False

    def points(self) -> dict[str, Any]:
        """Keywords of matplotlib's plot and errorbar."""
        return {
            "color": self.colour,
            "marker": self.marker,
            "markerfacecolor": "white" if self.hollow else self.colour,
            "markeredgecolor": self.colour,
            "linestyle": "none",
        }


# Colours of Okabe and Ito (2008, "Color Universal Design"), and of Tol's muted scheme (2021, technical note
# SRON/EPS/TN/09-002) where those are used up. Markers differ too, so that a print in grey can be read.
STYLES = {
    "baked": Style("edgex: the model with a vector, 1 pass", "#D55E00", "o"),
    "unbaked": Style("edgex: the same model without a vector, 1 pass", "#D55E00", "o", hollow=True),
    "kernel-shap:150": Style("Kernel SHAP, 150 passes, 49 superpixels", "#56B4E9", "s"),
    "kernel-shap:150@patches": Style("Kernel SHAP, 150 passes, 196 patches", "#56B4E9", "D", hollow=True),
    "kernel-shap:1000": Style("Kernel SHAP, 1000 passes, 49 superpixels", "#0072B2", "s"),
    "rise:4000": Style("RISE, 4000 passes", "#882255", "X"),
    "grad-cam": Style("Grad-CAM", "#009E73", "^"),
    "rollout": Style("Attention rollout", "#CC79A7", "v"),
    "legrad": Style("LeGrad", "#E69F00", "P"),
    "attn-lrp": Style("AttnLRP", "#000000", "<"),
    "transformer-attribution": Style("Transformer attribution (Chefer et al., 2021)", "#999933", ">"),
    "recipro-cam": Style("ViT-ReciproCAM", "#44AA99", "h"),
}
INSERTION_MINUS_DELETION = (
    "Insertion minus deletion: the area between two curves of the class's probability, with the strongest patches "
    "shown first and with the strongest hidden first"
)
"""What the measure of faithfulness is, for the line under a title."""

GREY = "#666666"
_OTHER = Style("", GREY, "d")


def style_of(method: str) -> Style:
    """The style of a method, also of a budget that is not in the table: "kernel-shap:300" is drawn as the family is."""
    if method in STYLES:
        return STYLES[method]
    kind, _, rest = method.partition(":")
    passes, at, players = rest.partition("@")
    family = next((style for name, style in STYLES.items() if name.startswith(f"{kind}:")), _OTHER)
    name = family.name.partition(",")[0] or kind
    words = [name, *([f"{passes} passes"] if passes else []), *([players] if at else [])]
    return dataclasses.replace(family, name=", ".join(words))


def measured_where(report: dict[str, Any], *, threads: int | str | None = None, gpu: str | None = None) -> str:
    """The line under a figure: hardware, threads, versions, date. threads: a number, "all", or None where unknown."""
    machine = report["machine"]
    count = machine["cores"] if threads == "all" else threads
    words = [gpu] if gpu else [machine["processor"], _counted(machine["cores"], "core")]
    if count is not None and not gpu:
        words.append(_counted(count, "thread"))
    shown = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "torch")
    words += [f"{name} {version}" for name, version in machine["versions"].items() if name in shown]
    return "Measured on " + ", ".join([*words, machine["date"][:10]])


def _counted(count: int | str, noun: str) -> str:
    return f"{count} {noun}" + ("" if count in (1, "1") else "s")


@contextlib.contextmanager
def figure(
    path: Path, title: str, subtitle: str, below: str, size: tuple[float, float], *, columns: int = 1
) -> Iterator[tuple[Any, Any]]:
    """A figure and its axes, written to `path`, with a legend of what has a label in the axes.

    below: where it was measured. size: inches, without texts and legend. columns: of the legend.
    """
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    with matplotlib.rc_context({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False}):
        drawn: Any
        drawn, axes = pyplot.subplots(layout="constrained", dpi=130)
        yield drawn, axes
        # Characters of 10 points are about 0.078 inches wide.
        lines = textwrap.wrap(subtitle, int(size[0] / 0.078))
        methods = axes.get_legend_handles_labels()
        head = 0.6 + 0.19 * len(lines)
        foot = 0.3 + 0.23 * math.ceil(len(methods[0]) / columns)
        width, height = size[0], size[1] + head + foot
        drawn.set_size_inches(width, height)
        drawn.get_layout_engine().set(rect=(0, foot / height, 1, 1 - (head + foot) / height))
        left, font = 0.15 / width, {"fontsize": 10, "color": "#333333"}
        drawn.text(left, 1 - 0.12 / height, title, fontsize=14, fontweight="bold", va="top")
        drawn.text(left, 1 - 0.42 / height, "\n".join(lines), va="top", **font)
        drawn.text(left, 0.1 / height, below, fontsize=8.5, color=GREY, va="bottom")
        if methods[0]:
            place = {"loc": "lower left", "bbox_to_anchor": (left, 0.28 / height), "borderaxespad": 0.0}
            found = drawn.legend(*methods, ncols=columns, fontsize=10, frameon=False, **place)
            # The layout would make room for it a second time.
            found.set_in_layout(False)
        drawn.savefig(path)
        pyplot.close(drawn)


def main() -> None:
    """Draws every figure of results/."""
    import kernel_shap_report
    import ten_targets
    import transfer_matrix

    drawn: dict[str, Callable[[dict[str, Any], Path], None]] = {
        "kernel_shap": kernel_shap_report.draw,
        "kernel_shap_cuda": kernel_shap_report.draw,
        "kernel_shap_openvino": kernel_shap_report.draw,
        "ten_targets": ten_targets.plot,
        "transfer_matrix": transfer_matrix.plot,
    }
    for name, draw in drawn.items():
        report = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
        draw(report, RESULTS / f"{name}.png")


if __name__ == "__main__":
    main()
