"""Writes a TensorRT engine: one code path over `tensorrt` (10, 11) and `tensorrt_rtx`.

The precision is in the graph's own types (strong typing), so every version builds the same network. TensorRT-RTX
builds ahead of time on a machine without a GPU; only a machine with one can open the engine, and then it is
opened, inspected and gated. Without one, the typed network is inspected and the graph that it was built from is
gated in onnxruntime; the report says so.

File: 4-byte little-endian length, JSON metadata, plan.
"""

from __future__ import annotations

import ctypes
import dataclasses
import importlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx_ir as ir

from edgex.errors import GateError, MissingExtraError, ProviderError, UnsupportedError, UsageError
from edgex.export import metadata
from edgex.export.exported_module import INPUT_NAMES, OUTPUT_NAMES
from edgex.export.gate import GateResult, Outputs, Precision, Reference, Runner, reference, run_gate
from edgex.export.graph import weight_bytes
from edgex.export.graph_builder import DEFAULT_MAX_BATCH, Recipe, build_graph, check_arguments, notes
from edgex.export.onnx import describe_int8
from edgex.export.onnx_runner import OnnxRunner, latency_ms
from edgex.export.quantization_impact import Budget
from edgex.export.report import ExportReport, Progress, Stages
from edgex.files.model_file import ModelCard
from edgex.models.self_explaining import SelfExplainingViT
from edgex.runtime.atomic_files import atomic_output

PACKAGES = ("tensorrt", "tensorrt_rtx")
# CUdevice_attribute numbers of the CUDA driver API.
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76
_IO_TYPES = {"image": "UINT8", "explain_class": "INT64", "logits": "FLOAT", "heatmap": "FLOAT", "base": "FLOAT"}


def write_engine(
    model: SelfExplainingViT,
    card: ModelCard,
    out: Path,
    *,
    pictures: np.ndarray,
    model_sha256: str,
    precision: Precision = "fp16",
    max_batch: int = DEFAULT_MAX_BATCH,
    compute_capabilities: Sequence[str] = (),
    package: str | None = None,
    calibration: np.ndarray | None = None,
    budget: Budget | None = None,
    thresholds: Mapping[str, float] | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> ExportReport:
    """Builds an engine file; arguments as in `edgex.export.onnx.write_onnx`, and:

    calibration: int8 needs some, for an engine finds no ranges at run time.
    compute_capabilities: such as "86" or "8.9", for tensorrt_rtx; none means every GPU that it supports.
    package: "tensorrt" or "tensorrt_rtx". Defaults to the installed one, tensorrt_rtx where both are and
    compute capabilities are named.

    Raises MissingExtraError where neither is installed, UnsupportedError where TensorRT refuses the model,
    GateError where the engine cannot be opened here, came out in another precision or differs from the model.
    """
    if precision == "int8" and calibration is None:
        raise UsageError("int8 engines need pictures to calibrate with, found none", argument="calibration")
    recipe = Recipe(precision, int8_form="qdq", budget=budget or Budget(), for_tensorrt=True)
    check_arguments(
        card,
        out,
        pictures,
        recipe=recipe,
        max_batch=max_batch,
        calibration=calibration,
        overrides=thresholds,
        force=force,
    )
    builder = EngineBuilder(package, compute_capabilities)
    stages = Stages(progress)
    with stages("reference"):
        expected = reference(model, card.preprocessing, pictures, card.thresholds)
    built = build_graph(model, card, recipe, pictures if calibration is None else calibration, stages)
    data = ir.to_proto(built.graph).SerializeToString()
    with stages("gate"):
        twin = OnnxRunner(data)
        gate = _gate(twin, expected, recipe, max_batch, f"{twin.name} on the engine's graph", thresholds)
    with stages(f"build with {builder.package} {builder.version}"):
        engine = builder.build(data, card.preprocessing.image_size, max_batch)
    check_network(engine, built.graph, card, recipe)
    described = metadata.describe(
        model, card, precision=precision, max_batch=max_batch, model_sha256=model_sha256, gate=gate.to_dict()
    )
    described["tensorrt"] = {
        "package": builder.package,
        "version": builder.version,
        "compute_capabilities": list(builder.compute_capabilities),
        "layers": engine.layers,
    }
    if built.impacts:
        described["int8"] = describe_int8("qdq", built.impacts)
    with stages("inspect"):
        layers = builder.inspect(engine.plan, card, max_batch)
    latency = None
    remarks = [
        *notes(card),
        f"built with {builder.package} {builder.version}",
        f"share of half-precision layers: {engine.half_share:.0%}",
        f"plan of {len(engine.plan) / 1e6:.1f} MB for {weight_bytes(built.graph) / 1e6:.1f} MB of weights",
    ]
    if layers is None:
        remarks.append(
            "no CUDA driver here with a GPU that the engine is for: its typed network was inspected and its graph "
            "gated in onnxruntime; the engine itself was not run"
        )
    else:
        with stages("gate the engine"):
            runner = _engine_runner(engine.plan, out, described)
            gate = _gate(runner, expected, recipe, max_batch, f"{builder.package} {builder.version}", thresholds)
            latency = latency_ms(runner, pictures[0])
        described["gate"] = gate.to_dict()
    with atomic_output(out) as temporary:
        header = metadata.encode(described).encode()
        temporary.write_bytes(len(header).to_bytes(4, "little") + header + engine.plan)
        digest = metadata.seal(temporary)
    return ExportReport(
        path=out,
        kind="tensorrt",
        precision=precision,
        size=out.stat().st_size,
        sha256=digest,
        gate=gate,
        latency_ms=latency,
        seconds=stages.seconds,
        **built.described(),
        notes=tuple(remarks),
    )


def _gate(
    runner: Runner,
    expected: Reference,
    recipe: Recipe,
    max_batch: int,
    runtime: str,
    thresholds: Mapping[str, float] | None,
) -> GateResult:
    gate = run_gate(
        runner, expected, precision=recipe.precision, max_batch=max_batch, runtime=runtime, overrides=thresholds
    )
    gate.raise_if_failed()
    return gate


@dataclasses.dataclass(frozen=True)
class Engine:
    """A built plan and what its typed network was: tensor -> (type, shape), "KIND TYPE" -> number of layers."""

    plan: bytes
    tensors: dict[str, tuple[str, tuple[int, ...]]]
    layers: dict[str, int]

    @property
    def half_share(self) -> float:
        """Share of the layers that compute in half precision."""
        half = sum(count for kind, count in self.layers.items() if kind.endswith(" HALF"))
        return half / max(1, sum(self.layers.values()))


class EngineBuilder:
    """`tensorrt` or `tensorrt_rtx`, whichever is there, behind one method. package, version: what was found."""

    def __init__(self, package: str | None, compute_capabilities: Sequence[str]) -> None:
        wanted = [package] if package else list(PACKAGES)
        if package not in (None, *PACKAGES):
            raise UsageError(f"expected package {' or '.join(PACKAGES)}, found '{package}'")
        if compute_capabilities and package is None:
            wanted.reverse()
        self.package, self._trt = _import_first(wanted)
        self.version = str(self._trt.__version__)
        self._log = _collecting_logger(self._trt)
        self.compute_capabilities = tuple(self._capability(text) for text in compute_capabilities)

    def _capability(self, text: str) -> str:
        """ "86" or "8.6" -> "8.6", checked against what the package can build for."""
        digits = text.strip().replace(".", "")
        known = getattr(self._trt, "ComputeCapability", None)
        if known is None:
            raise UsageError(
                f"{self.package} builds for this machine's GPU only: compute capabilities need tensorrt_rtx "
                "(pip install '.[rtx]')"
            )
        names = [name.removeprefix("SM") for name in known.__members__ if name.startswith("SM")]
        if digits not in names:
            raise UsageError(
                f"{self.package} {self.version} builds for compute capabilities {', '.join(sorted(names, key=int))}, "
                f"found '{text}'"
            )
        return f"{digits[:-1]}.{digits[-1]}"

    def _builds_for(self, capability: str) -> bool:
        """Whether its engines are for GPUs of this compute capability, such as "8.6"."""
        if self.compute_capabilities:
            return capability in self.compute_capabilities
        known = getattr(self._trt, "ComputeCapability", None)
        return known is None or "SM" + capability.replace(".", "") in known.__members__

    def build(self, model: bytes, image_size: tuple[int, int], max_batch: int) -> Engine:
        """A serialised ONNX model -> plan. Raises UnsupportedError with TensorRT's own reason."""
        trt = self._trt
        try:
            builder = trt.Builder(self._log)
        except (TypeError, RuntimeError) as error:
            # `tensorrt` cannot even begin without a GPU; tensorrt_rtx can.
            raise ProviderError(
                f"{self.package} {self.version} finds no NVIDIA GPU here: build on the device, or ahead of time "
                "with tensorrt_rtx (pip install '.[rtx]')"
            ) from error
        flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
        network = builder.create_network(0 if flag is None else 1 << int(flag))
        parser = trt.OnnxParser(network, self._log)
        if not parser.parse(model):
            reason = parser.get_error(0).desc().splitlines()[0] if parser.num_errors else "no reason given"
            raise UnsupportedError(f"{self.package} {self.version} does not read the model: {reason}")
        config = builder.create_builder_config()
        # No timing cache: an engine must not depend on what was built here before.
        if hasattr(trt.BuilderFlag, "DISABLE_TIMING_CACHE"):
            config.set_flag(trt.BuilderFlag.DISABLE_TIMING_CACHE)
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        profile = builder.create_optimization_profile()
        for name, shape in zip(INPUT_NAMES, ((*image_size, 3), ()), strict=True):
            profile.set_shape(name, (1, *shape), (1, *shape), (max_batch, *shape))
        config.add_optimization_profile(profile)
        if self.compute_capabilities:
            config.num_compute_capabilities = len(self.compute_capabilities)
            for index, capability in enumerate(self.compute_capabilities):
                config.set_compute_capability(getattr(trt.ComputeCapability, "SM" + capability.replace(".", "")), index)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise UnsupportedError(f"{self.package} {self.version} cannot build the engine: {self._log.last_error()}")
        return Engine(bytes(plan), _tensors(network), _layers(network))

    def inspect(self, plan: bytes, card: ModelCard, max_batch: int) -> dict[str, Any] | None:
        """Opens the plan again and checks it against the contract; None without a GPU that it is for.

        Returns the engine inspector's own account of the layers. Raises GateError where the plan cannot be opened
        and for wrong names, types or shapes.
        """
        capability = local_capability()
        if capability is None or not self._builds_for(capability):
            return None
        trt = self._trt
        self._log.errors.clear()
        engine = trt.Runtime(self._log).deserialize_cuda_engine(plan)
        if engine is None:
            raise GateError(
                f"{self.package} {self.version} cannot open its own engine on this GPU of compute capability "
                f"{capability} ({self._log.last_error()}): nothing was written"
            )
        found = {}
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            found[name] = (engine.get_tensor_dtype(name).name, tuple(engine.get_tensor_shape(name)))
        _check_tensors(found, card, "the engine")
        largest = tuple(engine.get_tensor_profile_shape("image", 0)[2])
        if largest[0] != max_batch:
            raise GateError(f"expected an engine for up to {max_batch} pictures, found one for {largest[0]}")
        text = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
        return dict(json.loads(text))


def local_capability() -> str | None:
    """Compute capability of the first GPU here, such as "8.6"; None without a CUDA driver or a GPU."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), 0):
        return None
    for value, attribute in ((major, _CAPABILITY_MAJOR), (minor, _CAPABILITY_MINOR)):
        if driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device):
            return None
    return f"{major.value}.{minor.value}"


def check_network(engine: Engine, source: ir.Model, card: ModelCard, recipe: Recipe) -> None:
    """Raises GateError where the typed network is not in the precision, names or shapes that its graph has.

    Every product that is half precision in the graph must be one in the network; every quantised input too.
    """
    _check_tensors(engine.tensors, card, "the network")
    half = sum(
        node.op_type == "MatMul" and node.outputs[0].dtype == ir.DataType.FLOAT16 for node in source.graph.all_nodes()
    )
    quantised = sum(node.op_type == "QuantizeLinear" for node in source.graph.all_nodes())
    found = {
        "fp16": engine.layers.get("MATRIX_MULTIPLY HALF", 0),
        "int8": engine.layers.get("QUANTIZE INT8", 0),
    }
    expected = {"fp16": half, "int8": quantised}
    for name in ("fp16", "int8"):
        if found[name] < expected[name] or (recipe.precision == name and not expected[name]):
            raise GateError(
                f"expected {expected[name]} products in {name}, the engine has {found[name]}: nothing was written"
            )


def _check_tensors(found: Mapping[str, tuple[str, tuple[int, ...]]], card: ModelCard, what: str) -> None:
    height, width = card.preprocessing.image_size
    names = (*INPUT_NAMES, *OUTPUT_NAMES)
    if set(found) != set(names):
        raise GateError(f"expected tensors {', '.join(names)}, {what} has {', '.join(sorted(found))}")
    shapes: dict[str, tuple[int, ...]] = {
        "image": (-1, height, width, 3),
        "explain_class": (-1,),
        "logits": (-1, len(card.classes)),
        "base": (-1,),
    }
    for name in names:
        dtype, shape = found[name]
        if dtype != _IO_TYPES[name] or shape != shapes.get(name, shape):
            raise GateError(
                f"expected {name} {_IO_TYPES[name]} {list(shapes.get(name, shape))}, {what} has {dtype} {list(shape)}"
            )


def _engine_runner(plan: bytes, out: Path, described: dict[str, Any]) -> Runner:
    """The engine in the device's own backend."""
    from edgex.runtime.backends.backend import BackendOptions, FusedFile
    from edgex.runtime.backends.tensorrt import TensorRTBackend
    from edgex.runtime.metadata import Metadata

    backend = TensorRTBackend(FusedFile(out, Metadata.from_dict(described), plan), BackendOptions())

    def run(image: np.ndarray, explain_class: np.ndarray) -> Outputs:
        return Outputs(*backend.run(image, explain_class))

    return run


def _import_first(packages: Sequence[str]) -> tuple[str, ModuleType]:
    for package in packages:
        try:
            return package, importlib.import_module(package)
        except ImportError:
            continue
    raise MissingExtraError(
        f"{' and '.join(packages)} not installed: pip install '.[rtx]' for GeForce RTX and workstation GPUs "
        "(builds without a GPU), '.[trt]' for others"
    )


def _collecting_logger(trt: ModuleType) -> Any:
    """A TensorRT logger that keeps errors for our own messages instead of printing them."""

    class Collecting(trt.ILogger):  # type: ignore[name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            """Called by TensorRT."""
            if severity <= trt.ILogger.Severity.ERROR:
                self.errors.append(message)

        def last_error(self) -> str:
            """First line of the last error."""
            return self.errors[-1].splitlines()[0] if self.errors else "no reason given"

    return Collecting()


def _tensors(network: Any) -> dict[str, tuple[str, tuple[int, ...]]]:
    values = [network.get_input(index) for index in range(network.num_inputs)]
    values += [network.get_output(index) for index in range(network.num_outputs)]
    return {value.name: (value.dtype.name, tuple(value.shape)) for value in values}


def _layers(network: Any) -> dict[str, int]:
    """ "KIND TYPE" of every layer that computes with real numbers -> how many there are."""
    counted: Counter[str] = Counter()
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        dtype = layer.get_output(0).dtype.name
        if dtype in ("FLOAT", "HALF", "INT8", "BF16"):
            counted[f"{layer.type.name} {dtype}"] += 1
    return dict(counted.most_common())
