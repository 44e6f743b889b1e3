"""`edgex inspect`: what a file is, what it was made of, what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edgex.cli.command import Command
from edgex.cli.console import print_json, say
from edgex.vectors.transfer import METRIC, records_of


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("inspect", cls=Command)(inspect)


def inspect(
    file: Annotated[str, typer.Argument(help="A model, vector, ONNX or engine file, or a zoo name.")],
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Show a file's architecture, classes, provenance with hashes, alpha and measured numbers."""
    path = Path(file)
    # An existing file needs no zoo, and so no torch: a device can look into what it runs.
    if not path.is_file():
        from edgex.files import zoo

        path = zoo.resolve(file)
    show(path, as_json=json)


def show(path: Path, *, as_json: bool) -> None:
    """Prints what a file says of itself."""
    from edgex.inspection import inspect as read
    from edgex.runtime.calibration import CALIBRATION, in_words
    from edgex.runtime.metadata import evidence_in_words

    described = read(path)
    if as_json:
        print_json(described)
        return
    metadata = described["metadata"]
    rows = [
        ("file", f"{path} ({described['bytes'] / 1e6:.1f} MB)"),
        ("kind", described["file_kind"]),
        ("sha256 of the file", described["whole_file_sha256"]),
        ("sha256 in provenance", metadata.get("sha256")),
        ("name", metadata.get("name")),
        ("architecture", _architecture(metadata)),
        ("classes", _classes(metadata)),
        ("preprocessing", _preprocessing(metadata.get("preprocessing"))),
        ("heatmap", evidence_in_words(metadata["evidence"]) if metadata.get("evidence") else None),
        ("alpha", _alpha(metadata, described["file_kind"])),
        ("base", _base(metadata.get("base"))),
        ("source", metadata.get("source")),
        ("precision", metadata.get("precision") or ", ".join(described.get("dtypes", []))),
        ("labels", _compact(metadata["options"]) if described["file_kind"] == "labels" else None),
        ("max batch", metadata.get("max_batch")),
        ("parameters", f"{described['parameters']:,}" if "parameters" in described else None),
        ("edgex", metadata.get("edgex_version")),
    ]
    for name, value in rows:
        if value is not None:
            say(f"{name:<24}{value}")
    if metadata.get("calibration") is not None:
        for name, value in in_words(CALIBRATION(metadata["calibration"])):
            say(f"{name:<24}{value}")
    _print_measured(metadata)
    if metadata["provenance"]:
        say("provenance")
        _print_steps(metadata["provenance"], indent=2)


def _architecture(metadata: dict[str, Any]) -> str:
    value = metadata["architecture"]
    if isinstance(value, str):
        return f"{value}, {metadata['pooling']} pooling"
    options = "".join(f", {name}={option}" for name, option in value.get("options", {}).items())
    return f"{value['name']}, {value['image_size'][0]}x{value['image_size'][1]} px, {value['pooling']} pooling{options}"


def _classes(metadata: dict[str, Any]) -> str | None:
    names = metadata.get("classes")
    if names is None:
        return None
    listed = f"{len(names)}: {', '.join(names[:4])}{', ...' if len(names) > 4 else ''}"
    head = metadata.get("head", metadata)
    if head.get("activation", "softmax") == "softmax":
        return listed
    from edgex.runtime.activations import DEFAULT_THRESHOLD

    calibrated = (metadata.get("calibration") or {}).get("thresholds")
    thresholds = calibrated or head.get("thresholds") or [DEFAULT_THRESHOLD]
    return f"{listed}; several may be present, from a probability of {_range(thresholds)}"


def _range(values: list[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"


def _preprocessing(values: dict[str, Any] | None) -> str | None:
    if values is None:
        return None
    height, width = values["image_size"]
    mean, std = (" ".join(f"{value:.4g}" for value in values[name]) for name in ("mean", "std"))
    size = values["resize"]
    whole = isinstance(size, list)
    fit = values.get("fit") or ("squash" if whole else "crop")
    resize = "{}x{}".format(*size) if whole else f"short side {size}"
    cut = f", centre crop {height}x{width}" if fit == "crop" or size != [height, width] else ""
    return f"fit {fit}, {resize} px ({values['interpolation']}){cut}, mean {mean}, std {std}"


def _alpha(metadata: dict[str, Any], kind: str) -> str | None:
    value = metadata.get("alpha")
    if kind == "labels":
        return None
    if kind == "vector":
        return f"{value:g} recommended"
    return "none: not baked" if value is None else f"{value:g}"


def _base(values: dict[str, Any] | None) -> str | None:
    return f"{values['name']}, fingerprint {values['fingerprint']}" if values else None


def _print_measured(metadata: dict[str, Any]) -> None:
    for name, value in {**metadata.get("metrics", {}), "gate": metadata.get("gate")}.items():
        if name in ("history", METRIC) or value is None:
            continue
        say(f"{name:<24}{_compact(value)}")
    records = records_of(metadata.get("metrics", {}))
    if records:
        say("transfer, gain with its 95% interval")
    for record in records:
        say(f"  {record}")


def _compact(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_compact(entry)}" for key, entry in value.items())
    if isinstance(value, list):
        return "[" + "; ".join(_compact(entry) for entry in value) + "]"
    return str(value)


def _print_steps(steps: list[dict[str, Any]], indent: int) -> None:
    for step in steps:
        inputs = step.get("inputs", [])
        details = [f"{key} {_compact(step[key])}" for key in ("alpha", "date", "machine") if step.get(key) is not None]
        say(f"{' ' * indent}{step['step']}: {'; '.join(details)}")
        if taken := step.get("taken_from"):
            say(f"{' ' * (indent + 2)}settings: {_compact(taken)}")
        for source in inputs:
            digest = source.get("sha256") or source.get("fingerprint") or "unknown"
            key = f" ({source['key']})" if source.get("key") else ""
            say(f"{' ' * (indent + 2)}{source['role']} {source.get('hub', source['name'])}{key} {digest}")
            _print_steps(source.get("provenance", []), indent + 4)
