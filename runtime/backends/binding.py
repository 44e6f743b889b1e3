"""Memory that inputs and results of an onnxruntime session are bound to, so that no call has to allocate any.

In the host's memory each thread has its own. In a device's memory the addresses never change, which is what lets CUDA
replay a whole pass as one captured graph instead of launching its kernels one by one.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

Shapes = dict[str, tuple[int, ...]]
"""Name of an output -> its shape without the first dimension."""

_Inputs = dict[str, tuple[tuple[tuple[int, ...], np.dtype], Any]]
"""Name of an input -> (shape, type) and its place in the device's memory."""
_NO_GRAPH = -1

_turns = threading.Lock()
"""Held while a device works for any binding: what one thread does on a GPU can spoil a graph that another captures."""


class HostBinding(threading.local):
    """Results in host memory; each thread has its own, per number of pictures and classes."""

    def __init__(self, onnxruntime: ModuleType, outputs: Shapes) -> None:
        self._onnxruntime, self._shapes = onnxruntime, outputs
        self._ready: dict[tuple[int, int], tuple[Any, list[Any]]] = {}

    def run(self, session: Any, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """As `session.run`; the results are copies, since the next call writes to the same memory."""
        pictures, classes = sizes = len(inputs["image"]), len(inputs["explain_class"])
        if sizes not in self._ready:
            binding = session.io_binding()
            outputs = []
            for name, shape in self._shapes.items():
                values = np.empty((pictures if name == "logits" else classes, *shape), np.float32)
                outputs.append(self._onnxruntime.OrtValue.ortvalue_from_numpy(values))
                binding.bind_ortvalue_output(name, outputs[-1])
            self._ready[sizes] = binding, outputs
        binding, outputs = self._ready[sizes]
        for name, value in inputs.items():
            binding.bind_cpu_input(name, np.ascontiguousarray(value))
        session.run_with_iobinding(binding)
        return [output.numpy().copy() for output in outputs]

    def close(self) -> None:
        """Nothing to end: the memory goes with the threads."""


class DeviceBinding:
    """Inputs and float32 results in a device's memory, one set per batch size; callers in several threads take turns.

    outputs: of the session, in the order wanted. largest: batches that get memory and a graph of their own; others,
    and calls whose inputs differ in length, run as without a binding. device, device_id: where the session runs, as
    onnxruntime calls it.

    With the CUDA provider's option enable_cuda_graph, a batch size's first call captures the graph that its later
    calls replay. onnxruntime keeps a thread's graphs for that thread alone, so one thread of the binding's own does
    all the work.
    """

    def __init__(
        self, onnxruntime: ModuleType, outputs: Shapes, largest: int, device: str = "cuda", device_id: int = 0
    ) -> None:
        self._onnxruntime, self._shapes, self._largest = onnxruntime, outputs, largest
        self._device = device, device_id
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="edgex device")
        self._ready: dict[int, tuple[Any, Any, _Inputs, list[Any]]] = {}

    def run(self, session: Any, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """As `session.run` for the outputs of this binding. Raises RuntimeError after `close`."""
        return self._worker.submit(self._run, session, inputs).result()

    def close(self) -> None:
        """Ends its thread once the calls that wait for it are done."""
        self._worker.shutdown(wait=False)

    def _run(self, session: Any, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        lengths = {len(value) for value in inputs.values()}
        count = max(lengths)
        with _turns:
            if len(lengths) > 1 or not 1 <= count <= self._largest:
                return session.run(list(self._shapes), inputs, self._options(_NO_GRAPH))
            place = self._ready.get(count) or self._bind(session, inputs, count)
            binding, options, bound, outputs = place
            if any((value.shape, value.dtype) != bound[name][0] for name, value in inputs.items()):
                # Not what this model takes: onnxruntime says so.
                return session.run(list(self._shapes), inputs, self._options(_NO_GRAPH))
            for name, value in inputs.items():
                bound[name][1].update_inplace(np.ascontiguousarray(value))
            session.run_with_iobinding(binding, options)
            # Kept only once it ran: inputs of a wrong type or shape fail above.
            self._ready[count] = place
            return [output.numpy().copy() for output in outputs]

    def _bind(self, session: Any, inputs: Mapping[str, np.ndarray], count: int) -> tuple[Any, Any, _Inputs, list[Any]]:
        binding = session.io_binding()
        bound: _Inputs = {}
        for name, value in inputs.items():
            memory = self._allocate(value.shape, value.dtype)
            binding.bind_ortvalue_input(name, memory)
            bound[name] = (value.shape, value.dtype), memory
        outputs = []
        for name, shape in self._shapes.items():
            outputs.append(self._allocate((count, *shape), np.dtype(np.float32)))
            binding.bind_ortvalue_output(name, outputs[-1])
        return binding, self._options(count), bound, outputs

    def _allocate(self, shape: tuple[int, ...], dtype: np.dtype) -> Any:
        return self._onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, dtype.type, *self._device)

    def _options(self, graph: int) -> Any:
        """graph: the number by which onnxruntime tells captured graphs apart, -1 for none."""
        options = self._onnxruntime.RunOptions()
        options.add_run_config_entry("gpu_graph_id", str(graph))
        return options
