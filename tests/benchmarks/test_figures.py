"""The project's figures: one name and look for each method, and texts that lie inside the picture."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
RESULTS = BENCHMARKS / "results"
DRAWN = {
    "kernel_shap": ("kernel_shap_report", "draw"),
    "kernel_shap_cuda": ("kernel_shap_report", "draw"),
    "kernel_shap_openvino": ("kernel_shap_report", "draw"),
    "ten_targets": ("ten_targets", "plot"),
    "transfer_matrix": ("transfer_matrix", "plot"),
}

pytest.importorskip("matplotlib", reason="matplotlib is not installed: figures are not drawn")


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("figures")


def read(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text("utf-8"))


def test_every_measured_method_has_a_look_of_its_own(figures: Any) -> None:
    methods = {m for target in read("ten_targets")["targets"].values() for m in target["methods"]}
    methods |= set(read("kernel_shap")["quality"])
    assert methods <= set(figures.STYLES)
    styles = list(figures.STYLES.values())
    assert len({style.name for style in styles}) == len(styles)
    assert len({(style.colour, style.marker, style.hollow) for style in styles}) == len(styles)


def test_other_budgets_are_named_like_their_family(figures: Any) -> None:
    found = figures.style_of("kernel-shap:300@patches")
    assert (found.name, found.colour) == ("Kernel SHAP, 300 passes, patches", figures.STYLES["kernel-shap:150"].colour)
    assert figures.style_of("rise:200").name == "RISE, 200 passes"
    assert figures.style_of("new-method").name == "new-method"


def test_where_it_was_measured(figures: Any) -> None:
    report = read("kernel_shap")
    assert "2 cores, 1 thread, onnxruntime 1.32.0" in figures.measured_where(report, threads=1)
    assert "2 cores, 2 threads, " in figures.measured_where(report, threads="all")
    assert figures.measured_where(report, gpu="H100").startswith("Measured on H100, onnxruntime ")


@pytest.mark.parametrize("name", DRAWN)
def test_texts_lie_inside_the_figure(figures: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib import pyplot

    module, function = DRAWN[name]
    kept: list[Any] = []
    monkeypatch.setattr(pyplot, "close", kept.append)
    getattr(importlib.import_module(module), function)(read(name), tmp_path / "drawn.png")
    monkeypatch.undo()
    (drawn,) = kept
    assert (tmp_path / "drawn.png").stat().st_size > 10_000
    frame = drawn.bbox
    texts = [*drawn.texts, *(text for legend in drawn.legends for text in legend.get_texts())]
    texts += [label for axes in drawn.axes for label in (axes.xaxis.label, axes.yaxis.label)]
    assert len(texts) > 3
    for text in texts:
        box = text.get_window_extent()
        assert frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1, text
    pyplot.close(drawn)
