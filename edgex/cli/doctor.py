"""`edgex doctor`: what is installed, what this machine can run on, what is missing and how to get it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
from typing import Annotated, Any

import typer

from edgex._version import __version__
from edgex.cli.console import print_json

# distribution, module, the extra that brings it, what it is for
_PACKAGES = (
    ("numpy", "numpy", "", "arrays"),
    ("pillow", "PIL", "", "pictures"),
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
)


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("doctor")(doctor)


def doctor(json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show versions, execution providers, devices, and what is missing."""
    packages = {name: _version(name) for name, *_ in _PACKAGES}
    found = {
        "edgex": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": packages,
        "providers": _providers(),
        "gpus": _gpus(),
        "advice": _advice(packages),
    }
    if json:
        print_json(found)
        return
    print(f"edgex {found['edgex']}, Python {found['python']}, {found['platform']}")
    runtimes = _installed_runtimes(packages)
    for name, module, extra, purpose in _PACKAGES:
        state = packages[name] or f"not installed (pip install '.[{extra}]')"
        if module == "onnxruntime" and runtimes and not packages[name]:
            state = f"not installed ({runtimes[0]} is: one at a time)"
        print(f"  {name:<22}{state:<44}{purpose}")
    print(f"execution providers: {', '.join(found['providers']) or 'none'}")
    print(f"GPUs that torch sees: {', '.join(found['gpus']) or 'none'}")
    for line in found["advice"]:
        print(f"advice: {line}")


def extra_of(module: str) -> str | None:
    """The extra that brings a module, or None where none does."""
    return next((extra for _, name, extra, _ in _PACKAGES if name == module.partition(".")[0] and extra), None)


def _installed_runtimes(packages: dict[str, Any]) -> list[str]:
    """The packages of onnxruntime that are here; they overwrite each other's files, so one should be."""
    return [name for name, module, *_ in _PACKAGES if module == "onnxruntime" and packages[name]]


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


def _advice(packages: dict[str, Any]) -> list[str]:
    advice = []
    runtimes = _installed_runtimes(packages)
    if len(runtimes) > 1:
        advice.append(f"{' and '.join(runtimes)} overwrite each other's files: pip uninstall all, then install one")
    if importlib.util.find_spec("onnxruntime") is None:
        advice.append("nothing runs ONNX files yet: pip install '.[cpu]' (or '.[gpu]' with a CUDA GPU, '.[openvino]')")
    if packages["torch"] is None:
        advice.append("this is a device installation; for train, bake and export: pip install '.[bake]'")
    return advice
