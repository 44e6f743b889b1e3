"""Runs a fused ONNX file with onnxruntime, on the execution provider that was asked for and no other."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from edgex.runtime.backends.backend import OUTPUTS, BackendOptions, FusedFile, output_shapes
from edgex.runtime.backends.binding import DeviceBinding, HostBinding
from edgex.runtime.errors import ArtefactError, MissingExtraError, ProviderError, UsageError, install_hint

if TYPE_CHECKING:
    from collections.abc import Mapping
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

_ON_CUDA = ("cuda", "tensorrt", "nv_tensorrt_rtx")

_HEAVY = ("MatMul", "Gemm", "Conv", "Attention")
"""Parts of the names of operators that multiply matrices. A provider that leaves one of them to the CPU does not run
the model; shape arithmetic may stay there."""


class OnnxRuntimeBackend:
    """One onnxruntime session; `run` may be called from several threads at once."""

    provider: str
    """The name in PROVIDERS that runs it."""
    shares_classes: bool
    """Whether the file gives explain_class a size of its own."""
    _session: Any
    _binding: HostBinding | DeviceBinding | None = None

    def __init__(self, file: FusedFile, options: BackendOptions) -> None:
        onnxruntime = import_onnxruntime()
        self._path = file.path
        provider = _SHORT.get(options.provider, options.provider)
        candidates = [provider]
        if provider == "auto":
            available = onnxruntime.get_available_providers()
            candidates = [name for name in AUTOMATIC if PROVIDERS[name] in available]
        given = dict(options.provider_options or {})
        if given and provider in ("auto", "cpu"):
            raise UsageError(
                f"expected provider_options with the provider that they are for, found provider={provider!r}, "
                "which takes none"
            )
        for candidate in candidates:
            try:
                self._open(file.metadata, candidate, options.threads, given, options.io_binding)
                break
            except ProviderError:
                if candidate == candidates[-1]:
                    raise

    def _open(
        self,
        metadata: Metadata,
        provider: str,
        threads: int | None,
        options: dict[str, Any],
        io_binding: bool | None,
    ) -> None:
        """Opens the file on one provider; on "cuda" replayed as a graph if that can be had and is wanted."""
        onnxruntime = import_onnxruntime()
        self.provider = provider
        outputs = output_shapes(metadata)
        if provider == "cuda" and io_binding is not False:
            device = device_id(options)
            try:
                self._use(open_session(self._path, provider, threads, {"enable_cuda_graph": 1, **options}))
                self._binding = DeviceBinding(onnxruntime, outputs, metadata.max_batch, "cuda", device)
                self.run(np.zeros((1, *metadata.preprocessing.image_size, 3), np.uint8), np.full(1, -1))
                return
            except ProviderError:
                # Some operator of this file cannot be captured; without a graph it may still run on the GPU.
                self.close()
                if io_binding:
                    raise
        elif "enable_cuda_graph" in options:
            raise UsageError("expected io_binding with the option enable_cuda_graph, found provider_options without it")
        self._use(open_session(self._path, provider, threads, options))
        self._binding = HostBinding(onnxruntime, outputs) if io_binding else None

    def _use(self, session: Any) -> None:
        self.shares_classes = _shares_classes(session)
        self._session = session

    def run(self, image: np.ndarray, explain_class: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """image uint8 [N, H, W, 3] and explain_class int64 [M] -> logits, heatmap and base.

        float32 [N, C], [M, rows, columns] and [M].
        """
        # The binding first: `close` takes it away last.
        binding, session = self._binding, self._session
        if session is None:
            raise UsageError(f"expected an open session, found one that was closed ({self._path})")
        inputs = {"image": image, "explain_class": explain_class}
        try:
            logits, heatmap, base = (
                session.run(list(OUTPUTS), inputs) if binding is None else binding.run(session, inputs)
            )
        except Exception as error:
            if self._session is None:
                raise UsageError(f"expected an open session, found one that was closed ({self._path})") from None
            raise ProviderError(f"onnxruntime could not run {self._path} on {self.provider}: {_line(error)}") from error
        return logits, heatmap, base

    def close(self) -> None:
        """Releases the model once the calls that are running have ended."""
        self._session = None
        binding, self._binding = self._binding, None
        if binding is not None:
            binding.close()

    @property
    def captured(self) -> bool:
        """Whether passes are replayed as CUDA graphs."""
        return isinstance(self._binding, DeviceBinding)


def import_onnxruntime() -> ModuleType:
    """The package, or MissingExtraError with the extra that brings it."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError(
            f"expected onnxruntime to run an ONNX file, found none that imports ({error}): "
            f"{install_hint('cpu')}, or '.[gpu]' for NVIDIA GPUs"
        ) from error
    return onnxruntime


def open_session(
    path: str | os.PathLike[str],
    provider: str,
    threads: int | None = None,
    provider_options: Mapping[str, Any] | None = None,
) -> Any:
    """Any ONNX file as an onnxruntime session that runs on `provider` and nowhere else.

    Arguments as of `Session`. Raises ArtefactError for a file that onnxruntime cannot load, ProviderError where it
    would run elsewhere, MissingExtraError without onnxruntime.
    """
    onnxruntime = import_onnxruntime()
    provider = _SHORT.get(provider, provider)
    name = PROVIDERS.get(provider, provider)
    available = onnxruntime.get_available_providers()
    if name not in available:
        raise ProviderError(_unavailable(provider, available))
    options = onnxruntime.SessionOptions()
    # Errors are raised as exceptions; do not log them to standard error as well.
    options.log_severity_level = 4
    if threads is not None:
        options.intra_op_num_threads = threads
    providers: list[Any] = [(name, _provider_options(provider, threads, provider_options))]
    if provider != "cpu":
        # Shape arithmetic of a graph may stay on the CPU; the heavy work may not: see the checks below.
        providers.append(PROVIDERS["cpu"])
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if provider in _ON_CUDA:
        _preload_cuda()
    try:
        session = onnxruntime.InferenceSession(os.fspath(path), options, providers=providers, enable_fallback=0)
    except Exception as error:
        # onnxruntime has no common base class for its errors.
        if provider == "cpu":
            raise ArtefactError(f"{path}: onnxruntime cannot load it: {_line(error)}") from error
        raise ProviderError(f"provider {provider!r} cannot run {path}: {_line(error)}") from error
    used = session.get_providers()
    if used[0] != name:
        hint = " (CUDA's libraries: pip install 'onnxruntime-gpu[cuda,cudnn]')" if provider in _ON_CUDA else ""
        raise ProviderError(
            f"expected onnxruntime to run on {provider!r}, found that it fell back to {', '.join(used)}; "
            f"the provider's libraries{hint} or its device are missing, see `edgex doctor`"
            + (", or it does not take these provider_options" if provider_options else "")
        )
    if provider != "cpu":
        _check_assignment(session, provider, path)
    return session


@lru_cache(maxsize=1)
def _preload_cuda() -> None:
    """Finds CUDA's libraries where pip put them. Once: it tells standard output, where results go, what it misses."""
    import onnxruntime

    if hasattr(onnxruntime, "preload_dlls"):
        with contextlib.redirect_stdout(io.StringIO()):
            onnxruntime.preload_dlls()


def device_id(options: Mapping[str, Any]) -> int:
    """The GPU that provider_options name, 0 without one; UsageError for what is no number."""
    value = options.get("device_id", 0)
    try:
        return int(value)
    except (TypeError, ValueError):
        raise UsageError(f"expected device_id as the number of a GPU, found {value!r}") from None


def _provider_options(provider: str, threads: int | None, provider_options: Mapping[str, Any] | None) -> dict[str, str]:
    """What onnxruntime's provider gets: texts, objects as JSON; OpenVINO counts its threads itself."""
    options = {
        key: json.dumps(v) if isinstance(v, (dict, list)) else str(v) for key, v in (provider_options or {}).items()
    }
    if provider == "openvino" and threads is not None:
        options.setdefault("num_of_threads", str(threads))
    return options


def _check_assignment(session: Any, provider: str, path: str | os.PathLike[str]) -> None:
    """Raises ProviderError where onnxruntime leaves matrix products to the CPU instead of the provider.

    onnxruntime 1.24 and newer tell which provider computes what; of older ones only the list of providers is known.
    """
    assignments = getattr(session, "get_provider_graph_assignment_info", None)
    if assignments is None:
        return
    left = Counter(
        node.op_type
        for part in assignments()
        if part.ep_name == PROVIDERS["cpu"]
        for node in part.get_nodes()
        if any(word in node.op_type for word in _HEAVY)
    )
    if left:
        advice = "export it in fp32, fp16 or the QDQ form of int8"
        if all("Attention" in kind for kind in left):
            advice = "export it with plain attention"
        found = ", ".join(f"{count} {kind}" for kind, count in left.most_common())
        raise ProviderError(
            f"{path}: expected every matrix product on {provider!r}, found that onnxruntime leaves {found} to the CPU; "
            f"{advice}, or run it on 'cpu'"
        )


def _unavailable(provider: str, available: list[str]) -> str:
    names = ", ".join(_SHORT.get(name, name) for name in available)
    message = f"expected one of the providers {names} that this onnxruntime has, found provider={provider!r}"
    if provider in _ON_CUDA:
        message += f"; onnxruntime for NVIDIA GPUs comes with {install_hint('gpu')}"
    if provider == "openvino":
        message += f"; onnxruntime with OpenVINO comes with {install_hint('openvino')}"
    return message


def _shares_classes(session: Any) -> bool:
    """Whether pictures and classes are counted by two names: [N] of image and logits, [M] of everything else."""
    sizes = {node.name: (node.shape or [None])[0] for node in [*session.get_inputs(), *session.get_outputs()]}
    pictures, classes = {sizes["image"], sizes["logits"]}, {sizes[key] for key in ("explain_class", "heatmap", "base")}
    named = all(isinstance(size, str) for size in pictures | classes)
    return named and len(pictures) == len(classes) == 1 and pictures != classes


def _line(error: Exception) -> str:
    """The first 300 characters of an error of onnxruntime, as one line."""
    return " ".join(str(error).split())[:300] or type(error).__name__
