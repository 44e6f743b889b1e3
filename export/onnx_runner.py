"""Runs an exported file in its own runtime: onnxruntime on the CPU."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from edgex.errors import GateError, MissingExtraError
from edgex.export.exported_module import INPUT_NAMES, OUTPUT_NAMES
from edgex.export.gate import Outputs, Runner
from edgex.runtime.errors import first_line


class OnnxRunner:
    """An ONNX file opened by onnxruntime's CPU provider; callable like every `Runner`.

    Raises GateError where onnxruntime cannot load the file or its inputs and outputs are not the contract's.
    """

    def __init__(self, model: Path | bytes, *, threads: int | None = None) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingExtraError("onnxruntime is not installed: pip install '.[cpu]'") from error

        options = onnxruntime.SessionOptions()
        # Errors come back as exceptions; warnings about graphs are nothing that a user can act on.
        options.log_severity_level = 4
        if threads is not None:
            options.intra_op_num_threads = threads
        source = str(model) if isinstance(model, Path) else model
        try:
            self._session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            # onnxruntime has no common base class for its errors.
            raise GateError(
                f"onnxruntime cannot load the exported file ({first_line(error)}): nothing was written"
            ) from error
        inputs = tuple(value.name for value in self._session.get_inputs())
        outputs = tuple(value.name for value in self._session.get_outputs())
        if inputs != INPUT_NAMES or outputs != OUTPUT_NAMES:
            raise GateError(f"expected inputs {INPUT_NAMES} and outputs {OUTPUT_NAMES}, found {inputs} and {outputs}")
        self.name = f"onnxruntime {onnxruntime.__version__} CPUExecutionProvider"

    def __call__(self, image: np.ndarray, explain_class: np.ndarray) -> Outputs:
        """See `edgex.export.gate.Runner`."""
        feeds = dict(zip(INPUT_NAMES, (image, explain_class), strict=True))
        try:
            return Outputs(*self._session.run(list(OUTPUT_NAMES), feeds))
        except Exception as error:
            raise GateError(
                f"the exported file does not run on a batch of {len(image)} ({first_line(error)}): nothing was written"
            ) from error


def latency_ms(run: Runner, picture: np.ndarray, *, runs: int = 7) -> float:
    """Median time in ms of one picture [H, W, 3], after two runs to warm up."""
    image, explain = picture[None], np.full(1, -1, dtype=np.int64)
    times = []
    for index in range(runs + 2):
        start = time.perf_counter()
        run(image, explain)
        if index >= 2:
            times.append(time.perf_counter() - start)
    return float(np.median(times)) * 1e3
