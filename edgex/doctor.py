"""What is installed, what this machine can run on, what is missing and how to get it. Needs numpy and pillow alone."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import platform
from pathlib import Path
from typing import Any

from edgex._version import __version__
from edgex.files.home import home_or_none
from edgex.runtime import telemetry
from edgex.runtime.errors import install_hint


@dataclasses.dataclass(frozen=True)
class Package:
    """A package that some part of edgex needs: its distribution and module, the extra that installs it ("" for the
    base), and its purpose.
    """

    distribution: str
    module: str
    extra: str
    purpose: str


PACKAGES = tuple(
    Package(*fields)
    for fields in (
        ("numpy", "numpy", "", "arrays"),
        ("pillow", "PIL", "", "pictures"),
        ("typer", "typer", "cli", "the command line"),
        ("jinja2", "jinja2", "cli", "edgex report"),
        ("rich", "rich", "cli", "tables and progress bars"),
        ("onnxruntime", "onnxruntime", "cpu", "running ONNX files on a CPU"),
        ("onnxruntime-gpu", "onnxruntime", "gpu", "running ONNX files on a GPU"),
        ("onnxruntime-openvino", "onnxruntime", "openvino", "running ONNX files on Intel hardware"),
        ("torch", "torch", "bake", "training, baking, exporting"),
        ("timm", "timm", "bake", "timm models"),
        ("open_clip_torch", "open_clip", "bake", "CLIP models"),
        ("torchvision", "torchvision", "bake", "what timm and open_clip build on"),
        ("safetensors", "safetensors", "bake", "artefact files"),
        ("onnx", "onnx", "bake", "exporting"),
        ("onnxscript", "onnxscript", "bake", "exporting"),
        ("onnx-ir", "onnx_ir", "bake", "exporting"),
        ("huggingface_hub", "huggingface_hub", "bake", "hf:// names"),
        ("accelerate", "accelerate", "distributed", "several processes in learning vectors"),
        ("tensorrt", "tensorrt", "trt", "TensorRT engines"),
        ("tensorrt-rtx", "tensorrt_rtx", "rtx", "TensorRT-RTX engines"),
        ("av", "av", "camera", "videos, cameras and network streams"),
        ("paho-mqtt", "paho", "mqtt", "alarms to an MQTT broker"),
        ("fastapi", "fastapi", "serve", "edgex serve"),
        ("uvicorn", "uvicorn", "serve", "edgex serve"),
        ("python-multipart", "python_multipart", "serve", "forms with pictures"),
        ("prometheus-client", "prometheus_client", "serve", "counts of edgex serve"),
        ("swagger-ui-bundle", "swagger_ui_bundle", "serve", "the documentation page of edgex serve"),
    )
)


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` found. packages: distribution -> version, None where it is not installed. providers: execution
    providers of onnxruntime. gpus: names of the GPUs that torch sees. home: the folder of the user's own models
    ($EDGEX_HOME), None where there is no place for it. newest_bake: what `edgex export` takes in this directory when no
    model is named, None where nothing was baked from it.
    """

    packages: dict[str, str | None]
    providers: list[str]
    gpus: list[str]
    advice: list[str]
    home: Path | None
    newest_bake: Path | None

    @property
    def runtimes(self) -> list[str]:
        """The packages of onnxruntime that are installed; they overwrite each other's files, so it should be one."""
        return _runtimes(self.packages)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form, with the versions of edgex and Python and the platform."""
        return {
            "edgex": __version__,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "packages": self.packages,
            "providers": self.providers,
            "gpus": self.gpus,
            "advice": self.advice,
            "onnxruntime_telemetry": telemetry.states()["onnxruntime"],
            "telemetry": telemetry.states() | dict.fromkeys(telemetry.WITHOUT, "none"),
            "home": None if self.home is None else str(self.home),
            "newest_bake": None if self.newest_bake is None else str(self.newest_bake),
        }


def diagnose() -> Diagnosis:
    """Looks at this installation and this machine."""
    packages = {package.distribution: _version(package.distribution) for package in PACKAGES}
    return Diagnosis(packages, _providers(), _gpus(), _advice(packages), home_or_none(), _newest_bake())


def extra_of(module: str) -> str | None:
    """The extra that installs a module, or None where none does."""
    name = module.partition(".")[0]
    return next((package.extra for package in PACKAGES if package.module == name and package.extra), None)


def _runtimes(packages: dict[str, str | None]) -> list[str]:
    return [p.distribution for p in PACKAGES if p.module == "onnxruntime" and packages[p.distribution]]


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _providers() -> list[str]:
    if importlib.util.find_spec("onnxruntime") is None:
        return []
    import onnxruntime

    return list(onnxruntime.get_available_providers())


def _gpus() -> list[str]:
    if importlib.util.find_spec("torch") is None:
        return []
    import torch

    if not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]


def _newest_bake() -> Path | None:
    # The zoo reads artefacts with torch; where there is no torch, nothing was baked.
    if importlib.util.find_spec("torch") is None:
        return None
    from edgex.errors import EdgexError
    from edgex.files import zoo

    try:
        return zoo.newest_bake()
    except EdgexError:
        return None


def _advice(packages: dict[str, str | None]) -> list[str]:
    advice = []
    runtimes = _runtimes(packages)
    if len(runtimes) > 1:
        advice.append(f"{' and '.join(runtimes)} overwrite each other's files: pip uninstall all, then install one")
    if importlib.util.find_spec("onnxruntime") is None:
        advice.append(
            f"no onnxruntime is installed to run ONNX files: {install_hint('cpu')} (gpu instead of cpu for CUDA GPUs, "
            "openvino for Intel hardware)"
        )
    if packages["torch"] is None:
        advice.append(f"this is a device installation; to train, bake and export: {install_hint('bake')}")
    if home_or_none() is None:
        advice.append("this user has no home folder: set EDGEX_HOME to a folder for edgex's own files")
    return advice
