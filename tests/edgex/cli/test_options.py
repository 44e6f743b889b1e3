"""Every option of a command reaches the library function under its own name; none is dropped or swapped."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import typer

from edgex.cli.application import app
from edgex.errors import UsageError

COMMANDS = {
    "bake": "edgex.vectors.workflow:bake",
    "train": "edgex.training.workflow:train",
    "calibrate": "edgex.calibration:calibrate",
    "eval": "edgex.evaluation.workflow:evaluate",
    "import": "edgex.importers.workflow:import_weights",
    "vector label": "edgex.shapley.labelling:make_labels",
    "vector train": "edgex.training.workflow:learn_vector",
}
PRINTED = {"json", "help", "quiet", "log_file"}
"""Options that say how the command prints."""
SPECIAL: dict[tuple[str, str], tuple[str, Any]] = {
    ("bake", "alpha"): ("0.25", 0.25),
    ("calibrate", "provider_options"): ("device_id=1", {"device_id": "1"}),
    ("import", "classes"): ("cat,dog", "cat,dog"),
    ("train", "image_size"): ("256x448", (256, 448)),
    ("import", "image_size"): ("256", 256),
    ("import", "mean"): ("0.1 0.2 0.3", (0.1, 0.2, 0.3)),
    ("import", "std"): ("0.4 0.5 0.6", (0.4, 0.5, 0.6)),
}
"""Options that are converted on their way or take several values: what is given, what arrives."""


def options_of(name: str) -> list[Any]:
    found: Any = typer.main.get_command(app)
    for part in name.split():
        found = found.commands[part]
    return [p for p in found.params if p.param_type_name == "option" and p.name not in PRINTED and not p.hidden]


def given(command: str, option: Any, index: int) -> tuple[list[str], Any]:
    """Arguments that set an option to a value that is not its default, and the value that should arrive."""
    flag = next(name for name in option.opts if name.startswith("--"))
    if option.is_flag:
        off = option.secondary_opts
        return ([off[0]], False) if option.default is True else ([flag], True)
    if (command, option.name) in SPECIAL:
        text, value = SPECIAL[command, option.name]
        return [flag, *text.split()], value
    kind = option.type_descriptor.annotation
    kind = next(iter(get_args(kind)), kind)
    value = {int: 100 + index, float: 100.5 + index}.get(kind, f"given-{option.name}")
    return [flag, str(value)], value


def plain(arrived: Any) -> Any:
    """What arrived, without the list around a repeatable option's one value, paths as text."""
    if isinstance(arrived, (list, tuple)) and len(arrived) == 1:
        (arrived,) = arrived
    return str(arrived) if isinstance(arrived, Path) else arrived


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_reaches_the_library(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    module, _, function = COMMANDS[command].partition(":")
    seen: dict[str, Any] = {}

    def record(*positional: Any, **named: Any) -> None:
        seen.update(named, positional=positional)
        raise UsageError("noted")

    monkeypatch.setattr(importlib.import_module(module), function, record)
    options = options_of(command)
    assert len(options) > 5
    arguments, wanted = [], {}
    for index, option in enumerate(options):
        words, value = given(command, option, index)
        arguments += words
        wanted[str(option.name)] = value
    positional = ["model"] if command in ("calibrate", "eval", "import") else []
    errors = run(*command.split(), *positional, *arguments, code=2)
    assert "noted" in errors
    for name, value in wanted.items():
        places = [seen[name]] if name in seen else seen["positional"]
        assert any(plain(place) == value for place in places), name
