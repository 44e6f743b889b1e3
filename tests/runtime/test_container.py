from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgex.runtime import ArtefactError
from edgex.runtime.container import read_engine, read_onnx

PATH = Path("model.onnx")


def serialise(model: onnx.ModelProto, **entries: str) -> bytes:
    helper.set_model_props(model, entries)
    return bytes(model.SerializeToString())


def external(name: str = "w") -> onnx.TensorProto:
    tensor = numpy_helper.from_array(np.ones(3, np.float32), name)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../secret"
    return tensor


def constant(tensor: onnx.TensorProto) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["c"], value=tensor)


def test_reads_the_entry_among_others(make_graph: Callable[..., onnx.ModelProto]) -> None:
    assert read_onnx(serialise(make_graph(), other="x", edgex='{"ä": 1}'), PATH).text == '{"ä": 1}'


def test_a_model_without_the_entry(make_graph: Callable[..., onnx.ModelProto]) -> None:
    with pytest.raises(ArtefactError, match="entry 'edgex', found no such entries; make a fused model"):
        read_onnx(serialise(make_graph(), other="x"), PATH)


def test_two_entries(make_graph: Callable[..., onnx.ModelProto]) -> None:
    model = make_graph()
    helper.set_model_props(model, {"edgex": "{}"})
    entry = model.metadata_props.add()
    entry.key, entry.value = "edgex", "{}"
    with pytest.raises(ArtefactError, match="found 2 such entries"):
        read_onnx(model.SerializeToString(), PATH)


@pytest.mark.parametrize(
    "data", [b"", b"hello world, this is no model", b"\x89PNG\r\n\x1a\n", bytes(100), b"\xff" * 40]
)
def test_other_files_are_no_model(data: bytes) -> None:
    with pytest.raises(ArtefactError, match="expected an ONNX file or a TensorRT engine of edgex, found neither"):
        read_onnx(data, PATH)


def test_every_truncation_is_noticed(make_graph: Callable[..., onnx.ModelProto]) -> None:
    data = serialise(make_graph(), edgex="{}")
    for length in range(len(data)):
        with pytest.raises(ArtefactError, match=r"truncated|neither|no such entries"):
            read_onnx(data[:length], PATH)
    with pytest.raises(ArtefactError, match=rf"truncated or damaged after byte \d+ of {len(data) // 2}"):
        read_onnx(data[: len(data) // 2], PATH)


def test_random_damage_never_gets_past_as_another_error(make_graph: Callable[..., onnx.ModelProto]) -> None:
    data = serialise(make_graph(), edgex="{}")
    rng = np.random.default_rng(0)
    for _ in range(300):
        broken = bytearray(data)
        for position in rng.integers(0, len(data), 3):
            broken[position] = int(rng.integers(0, 256))
        try:
            read_onnx(bytes(broken), PATH)
        except ArtefactError:
            continue


def hide(model: onnx.ModelProto, tensor: onnx.TensorProto, place: str) -> None:
    """Puts a tensor where a graph may hold one."""
    if place == "initializer":
        model.graph.initializer.append(tensor)
    elif place == "constant":
        model.graph.node.append(constant(tensor))
    elif place == "branch":
        output = helper.make_tensor_value_info("c", TensorProto.FLOAT, [3])
        branch = helper.make_graph([constant(tensor)], "branch", [], [output])
        model.graph.node.append(helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch))
    elif place == "list":
        model.graph.node.append(helper.make_node("Anything", [], ["y"], tensors=[tensor]))
    elif place == "sparse":
        indices = numpy_helper.from_array(np.arange(3))
        model.graph.sparse_initializer.append(helper.make_sparse_tensor(tensor, indices, [9]))
    else:
        opset = [helper.make_opsetid("", 18)]
        model.functions.append(helper.make_function("own", "f", [], ["c"], [constant(tensor)], opset))


PLACES = ["initializer", "constant", "branch", "list", "sparse", "function"]


@pytest.mark.parametrize("place", PLACES)
def test_weights_in_other_files_are_found_wherever_they_hide(
    make_graph: Callable[..., onnx.ModelProto], place: str
) -> None:
    model = make_graph()
    hide(model, external(), place)
    with pytest.raises(ArtefactError, match="expected all weights inside the ONNX file"):
        read_onnx(serialise(model, edgex="{}"), PATH)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("raw", [False, True])
def test_weights_that_declare_more_than_they_hold_are_found(
    make_graph: Callable[..., onnx.ModelProto], place: str, raw: bool
) -> None:
    model = make_graph()
    tensor = helper.make_tensor("w", TensorProto.FLOAT, [3], [1.0, 2.0, 3.0])
    if raw:
        tensor = numpy_helper.from_array(np.ones(3, np.float32), "w")
    hide(model, tensor, place)
    assert read_onnx(serialise(model, edgex="{}"), PATH).text == "{}"
    tensor.dims[:] = [1 << 20, 1 << 20]
    model = make_graph()
    hide(model, tensor, place)
    with pytest.raises(ArtefactError, match="tensor 'w' declares 1099511627776 values and holds at most "):
        read_onnx(serialise(model, edgex="{}"), PATH)


@pytest.mark.parametrize("kind", [k for k in TensorProto.DataType.values() if k not in (0, 8, 27, 28)])
def test_one_value_more_than_the_bytes_hold_is_too_many(make_graph: Callable[..., onnx.ModelProto], kind: int) -> None:
    packed = {TensorProto.UINT4: 4, TensorProto.INT4: 4, TensorProto.FLOAT4E2M1: 4, 25: 2, 26: 2}
    bits = packed.get(kind) or 8 * helper.tensor_dtype_to_np_dtype(kind).itemsize
    for count, fits in ((16, True), (16 + 8, False)):
        model = make_graph()
        tensor = TensorProto(name="w", data_type=kind, dims=[count], raw_data=bytes(16 * bits // 8))
        model.graph.initializer.append(tensor)
        if fits:
            read_onnx(serialise(model, edgex="{}"), PATH)
            continue
        with pytest.raises(ArtefactError, match="declares 24 values and holds at most 16"):
            read_onnx(serialise(model, edgex="{}"), PATH)


def test_a_sparse_weight_is_no_larger_than_its_values(make_graph: Callable[..., onnx.ModelProto]) -> None:
    model = make_graph()
    values, indices = (numpy_helper.from_array(np.ones(3, kind), "w") for kind in (np.float32, np.int64))
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [1 << 40]))
    with pytest.raises(ArtefactError, match="tensor of a sparse weight declares 1099511627776 values"):
        read_onnx(serialise(model, edgex="{}"), PATH)


def test_inputs_and_outputs_are_read_as_onnxruntime_reads_them(make_graph: Callable[..., onnx.ModelProto]) -> None:
    import onnxruntime

    shapes = {"image": (TensorProto.UINT8, ["N", 32, None, 3]), "heatmap": (TensorProto.FLOAT, None)}
    model = make_graph(**shapes)
    model.graph.input.append(helper.make_tensor_value_info("weights", TensorProto.FLOAT, [3, 4]))
    found = read_onnx(serialise(model, edgex="{}"), PATH)
    assert str(found.inputs["image"]) == "tensor(uint8) [N, 32, ?, 3]"
    assert (str(found.outputs["heatmap"]), found.outputs["heatmap"].shape) == ("tensor(float)", None)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for values, nodes in ((found.inputs, session.get_inputs()), (found.outputs, session.get_outputs())):
        assert list(values) == [node.name for node in nodes]
        assert [value.type for value in values.values()] == [node.type for node in nodes]
        assert all(value.shape in (tuple(node.shape), None) for value, node in zip(values.values(), nodes, strict=True))


def test_endless_nesting_is_refused(make_graph: Callable[..., onnx.ModelProto]) -> None:
    def message(field: int, content: bytes) -> bytes:
        length, size = b"", len(content)
        while size >= 128:
            length, size = length + bytes([size & 127 | 128]), size >> 7
        return bytes([field << 3 | 2]) + length + bytes([size]) + content

    graph = b""
    for _ in range(2000):
        graph = message(1, message(5, message(6, graph)))  # a node's attribute's graph
    whole = serialise(make_graph(), edgex="{}")
    with pytest.raises(ArtefactError, match="truncated or damaged"):
        read_onnx(whole + message(7, graph), PATH)


def test_engine_file_is_length_text_plan() -> None:
    assert read_engine(b"\x02\0\0\0{}plan", PATH) == ("{}", b"plan")


@pytest.mark.parametrize("data", [b"\x02\0\0\0{}", b"\x09\0\0\0{}plan", b"\xff\xff\xff\xff{"])
def test_a_truncated_engine_file(data: bytes) -> None:
    with pytest.raises(ArtefactError, match="truncated"):
        read_engine(data, PATH)


def test_an_engine_file_without_text() -> None:
    with pytest.raises(ArtefactError, match="expected JSON"):
        read_engine(b"\x02\0\0\0{\xffplan", PATH)
