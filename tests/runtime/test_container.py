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


@pytest.mark.parametrize("place", ["initializer", "constant", "branch", "list", "sparse", "function"])
def test_weights_in_other_files_are_found_wherever_they_hide(
    make_graph: Callable[..., onnx.ModelProto], place: str
) -> None:
    model = make_graph()
    if place == "initializer":
        model.graph.initializer.append(external())
    elif place == "constant":
        model.graph.node.append(constant(external()))
    elif place == "branch":
        output = helper.make_tensor_value_info("c", TensorProto.FLOAT, [3])
        branch = helper.make_graph([constant(external())], "branch", [], [output])
        model.graph.node.append(helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch))
    elif place == "list":
        model.graph.node.append(helper.make_node("Anything", [], ["y"], tensors=[external()]))
    elif place == "sparse":
        indices = numpy_helper.from_array(np.arange(3))
        model.graph.sparse_initializer.append(helper.make_sparse_tensor(external(), indices, [9]))
    else:
        opset = [helper.make_opsetid("", 18)]
        model.functions.append(helper.make_function("own", "f", [], ["c"], [constant(external())], opset))
    with pytest.raises(ArtefactError, match="expected all weights inside the ONNX file"):
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
