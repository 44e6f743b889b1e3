"""Runs a fused ONNX file with onnxruntime, on the execution provider that was asked for and no other."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from edgex.runtime.errors import ArtefactError, MissingExtraError, ProviderError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import ModuleType

    from edgex.runtime.metadata import Metadata

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "nv_tensorrt_rtx": "NvTensorRTRTXExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "directml": "DmlExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "rocm": "ROCMExecutionProvider",
    "qnn": "QNNExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
}
"""Names of edgex and of onnxruntime. A name outside of this table is handed to onnxruntime as it is."""

_SHORT = {name: key for key, name in PROVIDERS.items()}

AUTOMATIC = ("cuda", "migraphx", "rocm", "directml", "coreml", "openvino", "cpu")
"""What "auto" tries, best first. The TensorRT providers compile for seconds to minutes at the first start,
so they run only when asked for."""

OUTPUTS = ["logits", "heatmap", "base"]
_CONTRACT = {
    "image": "tensor(uint8) [N, H, W, 3]",
    "explain_class": "tensor(int64) [M]",
    "logits": "tensor(float) [N, C]",
    "heatmap": "tensor(float) [M, gh, gw]",
    "base": "tensor(float) [M]",
}


class OnnxRuntimeBackend:
    """One onnxruntime session; `run` may be called from several threads at once."""

    provider: str
    """The name in PROVIDERS that runs it."""
    shares_classes: bool
    """Whether the file gives explain_class a size of its own."""
    _session: Any

    def __init__(
        self,
        path: Path,
        metadata: Metadata,
        provider: str = "auto",
        threads: int | None = None,
        provider_options: Mapping[str, Any] | None = None,
        io_binding: bool = False,
    ) -> None:
        onnxruntime = _import_onnxruntime()
        provider = _SHORT.get(provider, provider)
        available = onnxruntime.get_available_providers()
        if provider == "auto":
            candidates = [name for name in AUTOMATIC if PROVIDERS[name] in available]
        else:
            candidates = [provider]
            if PROVIDERS.get(provider, provider) not in available:
                raise ProviderError(_unavailable(provider, available))
        for candidate in candidates:
            last = candidate == candidates[-1]
            try:
                self._session = _open(onnxruntime, path, candidate, threads, provider_options)
            except ProviderError:
                if last:
                    raise
                continue
            self.provider = candidate
            break
        self._path = path
        _check_contract(self._session, metadata, path)
        self.shares_classes = _shares_classes(self._session)
        self._bound = _Bound(onnxruntime, metadata) if io_binding else None

    def run(self, image: np.ndarray, explain_class: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """image uint8 [N, H, W, 3] and explain_class int64 [M] -> logits, heatmap and base.

        float32 [N, C], [M, rows, columns] and [M].
        """
        session = self._session
        if session is None:
            raise UsageError(f"expected an open session, found one that was closed ({self._path})")
        inputs = {"image": image, "explain_class": explain_class}
        bound = self._bound
        try:
            logits, heatmap, base = session.run(OUTPUTS, inputs) if bound is None else bound.run(session, inputs)
        except Exception as error:
            raise ProviderError(f"onnxruntime could not run the model on {self.provider}: {_line(error)}") from error
        return logits, heatmap, base

    def close(self) -> None:
        """Releases the model once the calls that are running have ended."""
        self._session = self._bound = None


class _Bound(threading.local):
    """Runs a session with inputs and outputs bound to memory; each thread has its own, per batch size."""

    def __init__(self, onnxruntime: ModuleType, metadata: Metadata) -> None:
        self._onnxruntime = onnxruntime
        self._shapes = {"logits": (len(metadata.classes),), "heatmap": metadata.grid, "base": ()}
        self._ready: dict[tuple[int, int], tuple[Any, list[Any]]] = {}

    def run(self, session: Any, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """As `session.run`; the results are copies, since the next call writes to the same memory."""
        pictures, classes = sizes = len(inputs["image"]), len(inputs["explain_class"])
        if sizes not in self._ready:
            binding = session.io_binding()
            outputs = []
            for name in OUTPUTS:
                values = np.empty((pictures if name == "logits" else classes, *self._shapes[name]), np.float32)
                outputs.append(self._onnxruntime.OrtValue.ortvalue_from_numpy(values))
                binding.bind_ortvalue_output(name, outputs[-1])
            self._ready[sizes] = binding, outputs
        binding, outputs = self._ready[sizes]
        for name, value in inputs.items():
            binding.bind_cpu_input(name, np.ascontiguousarray(value))
        session.run_with_iobinding(binding)
        return [output.numpy().copy() for output in outputs]


def _import_onnxruntime() -> ModuleType:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError(
            f"expected onnxruntime to run an ONNX file, found none that imports ({error}); install it with "
            "pip install 'edgex[cpu]', or 'edgex[gpu]' for NVIDIA GPUs"
        ) from error
    return onnxruntime


def _open(
    onnxruntime: ModuleType,
    path: Path,
    provider: str,
    threads: int | None,
    provider_options: Mapping[str, Any] | None,
) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    name = PROVIDERS.get(provider, provider)
    providers: list[Any] = [(name, dict(provider_options or {}))]
    if provider != "cpu":
        # Shape arithmetic of a graph may stay on the CPU; the heavy work may not: see the check below.
        providers.append(PROVIDERS["cpu"])
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=providers, enable_fallback=0)
    except Exception as error:
        if provider == "cpu":
            raise ArtefactError(f"{path}: onnxruntime cannot load it: {_line(error)}") from error
        raise ProviderError(f"provider {provider!r} cannot run {path}: {_line(error)}") from error
    used = session.get_providers()
    if used[0] != name:
        raise ProviderError(
            f"expected onnxruntime to run on {provider!r}, found that it fell back to {', '.join(used)}; "
            "the provider's libraries or its device are missing, see `edgex doctor`"
        )
    return session


def _unavailable(provider: str, available: list[str]) -> str:
    names = ", ".join(_SHORT.get(name, name) for name in available)
    message = f"expected one of the providers {names} that this onnxruntime has, found provider={provider!r}"
    if provider in ("cuda", "tensorrt", "nv_tensorrt_rtx"):
        message += "; onnxruntime for NVIDIA GPUs comes with pip install 'edgex[gpu]'"
    return message


def _check_contract(session: Any, metadata: Metadata, path: Path) -> None:
    """Raises ArtefactError unless inputs and outputs are those of the fused model contract."""
    height, width = metadata.preprocessing.image_size
    shapes = {
        "image": (None, height, width, 3),
        "explain_class": (None,),
        "logits": (None, len(metadata.classes)),
        "heatmap": (None, *metadata.grid),
        "base": (None,),
    }
    for kind, nodes in (("inputs", session.get_inputs()), ("outputs", session.get_outputs())):
        found = {node.name: node for node in nodes}
        wanted = [name for name in shapes if (name in OUTPUTS) == (kind == "outputs")]
        missing = [name for name in wanted if name not in found]
        extra = [name for name in found if name not in wanted] if kind == "inputs" else []
        if missing or extra:
            raise ArtefactError(
                f"{path}: expected the {kind} {', '.join(wanted)} of a fused model, found {', '.join(found) or 'none'}"
            )
        for name in wanted:
            node = found[name]
            if node.type != _CONTRACT[name].split()[0] or not _fits(node.shape, shapes[name]):
                sizes = ["N" if size is None else size for size in shapes[name]]
                raise ArtefactError(
                    f"{path}: expected {name} as {_CONTRACT[name]} = {sizes}, found {node.type} {node.shape}"
                )


def _shares_classes(session: Any) -> bool:
    """Whether pictures and classes are counted by two names: [N] of image and logits, [M] of everything else."""
    sizes = {node.name: (node.shape or [None])[0] for node in [*session.get_inputs(), *session.get_outputs()]}
    pictures, classes = {sizes["image"], sizes["logits"]}, {sizes[key] for key in ("explain_class", "heatmap", "base")}
    named = all(isinstance(size, str) for size in pictures | classes)
    return named and len(pictures) == len(classes) == 1 and pictures != classes


def _fits(found: list[Any], wanted: tuple[int | None, ...]) -> bool:
    """A named or unknown dimension fits any size; so does an output without a declared shape."""
    if not found:
        return True
    same = (not isinstance(a, int) or b is None or a == b for a, b in zip(found, wanted, strict=False))
    return len(found) == len(wanted) and all(same)


def _line(error: Exception) -> str:
    """The first 300 characters of an error of onnxruntime, as one line."""
    return " ".join(str(error).split())[:300] or type(error).__name__
