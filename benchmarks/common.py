"""What the benchmarks of one model share: the model with its pictures, its fused file, where results go."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results"
PICTURES = 64


@dataclasses.dataclass(frozen=True)
class Subject:
    """The model of a benchmark. pictures: uint8 [N, H, W, 3], for the gate and, if `calibrated`, int8's ranges."""

    name: str
    path: Path
    sha256: str
    model: Any
    card: Any
    pictures: np.ndarray
    calibrated: bool

    @classmethod
    def load(cls, name: str, calibration: Path | None) -> Subject:
        """A model file or zoo name, with pictures from a folder or, without one, edgex's samples."""
        from edgex import samples
        from edgex.data import image_folders
        from edgex.files import zoo
        from edgex.files.model_file import load_model

        path = zoo.resolve(name, "model")
        loaded = load_model(path)
        model, card = loaded
        found = (
            image_folders.subsample_evenly(image_folders.list_images([calibration]), PICTURES)
            if calibration
            else samples.paths()
        )
        pictures = image_folders.load_batch(found, card.preprocessing)
        return cls(path.stem, path, loaded.sha256, model, card, pictures, calibration is not None)

    def describe(self) -> dict[str, Any]:
        """How a report begins: the model, int8's form, the machine and the versions."""
        from edgex.bench.latency import PACKAGES
        from edgex.bench.timing import machine

        return {
            "model": self.name,
            "architecture": self.card.architecture.name,
            "model_sha256": self.sha256,
            "int8": "static" if self.calibrated else "dynamic",
            "machine": machine(PACKAGES),
        }

    def export(
        self,
        precision: str,
        out: Path,
        max_batch: int = 8,
        int8_form: str | None = None,
        attention: str | None = None,
    ) -> Any:
        """Writes the fused file, gated; returns the export's report. int8_form, attention: None for its choice."""
        from edgex.export.onnx import write_onnx

        log(f"exporting {precision}")
        return write_onnx(
            self.model,
            self.card,
            out,
            pictures=self.pictures,
            model_sha256=self.sha256,
            precision=precision,  # type: ignore[arg-type]
            calibration=self.pictures if self.calibrated and precision == "int8" else None,
            int8_form=int8_form,  # type: ignore[arg-type]
            attention=attention,  # type: ignore[arg-type]
            max_batch=max_batch,
        )


def measured_on(report: dict[str, Any]) -> str:
    """One line for a table's head: machine, load average at the start and the end, date, versions, int8's form."""
    machine = report["machine"]
    loads = f"{machine['load_average'][0]} at the start and {machine['load_average_at_end'][0]} at the end"
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (
        f"{machine['processor']}, {machine['cores']} cores, load average {loads}; {machine['date'][:10]}; {versions}; "
        f"int8 is {report['int8']}."
    )


def save(report: dict[str, Any], text: str, out: Path) -> None:
    """Writes the JSON report and, beside it, its Markdown; prints the latter."""
    save_json(report, out)
    out.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)


def save_json(report: dict[str, Any], out: Path) -> None:
    """The figures alone: before anything is made of them, so that a slip there costs no measurement."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def log(text: str) -> None:
    """A line on standard error."""
    print(text, file=sys.stderr, flush=True)
