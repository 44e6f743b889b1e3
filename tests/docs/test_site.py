"""The documentation builds without a warning and loads nothing from elsewhere; README's size and numbers."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from html import unescape
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from blocks import REPOSITORY

RESULTS = REPOSITORY / "benchmarks" / "results"
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
METHODS = {
    "baked": "baked",
    "unbaked": "unbaked",
    "kernel-shap:150": "Kernel SHAP",
    "grad-cam": "Grad-CAM",
    "rollout": "rollout",
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 10
    for page in pages:
        html = page.read_text(encoding="utf-8")
        assert not re.findall(r'<(?:script|img|iframe)[^>]*src="?https?:', html), page
        assert not re.findall(r'<link[^>]*rel="?(?:stylesheet|preconnect|preload)[^>]*href="?https?:', html), page


def test_every_command_and_option_is_on_the_page(site: Path) -> None:
    import typer

    from edgex.cli.application import app

    html = unescape((site / "command-line" / "index.html").read_text(encoding="utf-8"))
    seen = 0
    for name, command in _hooks()._commands("edgex", typer.main.get_command(app)):
        assert f'id="{name.replace(" ", "-")}"' in html, name
        for parameter in command.params:
            for option in parameter.opts if parameter.param_type_name == "option" and not parameter.hidden else ():
                assert option in html, f"{name} {option}"
                seen += 1
    assert seen > 50


def test_the_public_names_are_on_the_page(site: Path) -> None:
    import edgex

    html = (site / "python-api" / "index.html").read_text(encoding="utf-8")
    for name in set(edgex.__all__) - {"__version__"}:
        assert f'id="{_hooks().home_of("edgex", name)}"' in html, name
    assert "<strong>provider_options</strong>" in html, "parameters are lists"


def test_parameters_of_docstrings_become_lists() -> None:
    as_lists = _load("docstrings").as_lists
    text = "Does it.\n\npath: where.\n    Second line.\nother: what.\n\nNote: not a parameter."
    assert as_lists(text, {"path", "other"}) == (
        "Does it.\n\n- **path**: where.\n    Second line.\n- **other**: what.\n\nNote: not a parameter."
    )


def test_readme_fits_a_screen_or_three() -> None:
    assert len(README.splitlines()) <= 150


@pytest.mark.parametrize("page", ["README.md", "examples/README.md", "benchmarks/README.md"])
def test_links_between_files_lead_somewhere(page: str) -> None:
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("http://", "https://", "#")):
            assert ((REPOSITORY / page).parent / target.split("#")[0]).exists(), target


def test_readmes_results_are_the_committed_ones() -> None:
    targets = _read("ten_targets")["targets"].values()
    sets = _read("localisation")["sets"]
    (table,) = (block for block in README.split("\n\n") if block.startswith("| heatmap |"))
    rows = [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    assert len(rows) == len(METHODS)
    for row, method in zip(rows, METHODS, strict=True):
        assert METHODS[method] in row[0]
        difference = [target["methods"][method]["difference:mean"]["mean"] for target in targets]
        expected = [sum(difference) / len(difference)]
        for name in ("tinyimagenet", "neu"):
            measured = sets[name]["methods"][method]
            expected += [measured[key]["mean"] for key in ("difference:mean", "pointing_game", "iou")]
        assert row[2:] == [f"{value:.3f}" for value in expected]


def test_the_benchmarks_pages_tables_are_the_committed_ones() -> None:
    page = (REPOSITORY / "docs" / "benchmarks.md").read_text(encoding="utf-8").replace("**", "")
    columns = ("baked", "unbaked", "kernel-shap:150", "kernel-shap:150@patches", "grad-cam", "rollout")
    for name, target in _read("ten_targets")["targets"].items():
        values = " | ".join(f"{target['methods'][m]['difference:mean']['mean']:.3f}" for m in columns)
        gain = target["baked_minus"]["unbaked"]["difference:mean"]
        low, high = gain["interval"]
        top1 = f"{100 * target['accuracy']['baked']['mean']:.1f}%"
        assert f"| {name} | {top1} | {values} | {gain['mean']:+.4f} [{low:+.4f}, {high:+.4f}] |" in page, name
    sets = _read("localisation")["sets"]
    for method, shown in METHODS.items():
        keys = ("relevance_mass", "pointing_game", "iou", "difference:mean")
        values = " | ".join(
            f"{sets[s]['methods'][method][k]['mean']:.3f}" for s in ("neu", "tinyimagenet") for k in keys
        )
        assert re.search(rf"\| {shown}[^|]* \| {re.escape(values)} \|", page), method


def test_every_benchmark_is_listed() -> None:
    listed = (REPOSITORY / "benchmarks" / "README.md").read_text(encoding="utf-8")
    for script in (REPOSITORY / "benchmarks").glob("*.py"):
        assert f"`{script.name}`" in listed, script.name
    for result in RESULTS.glob("*.json"):
        assert f"`{result.name}`" in listed, result.name


def _read(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def _hooks() -> ModuleType:
    return _load("hooks")


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"docs_{name}", REPOSITORY / "docs" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
