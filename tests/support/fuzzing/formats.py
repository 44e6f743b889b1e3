"""Containers with digests and checksums: taken apart, changed, and sealed again without edgex's own readers."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import zipfile
from random import Random
from typing import Any

import onnx

from fuzzing.mutations import VALUES, changed_json, damaged, encoded, json_text

_ZEROS = "0" * 64


def resealed(data: bytes, recorded: str) -> bytes:
    """The file with its own digest right again: sha256 of the bytes with the digest as zeros."""
    blank = data.replace(recorded.encode(), _ZEROS.encode())
    return blank.replace(_ZEROS.encode(), hashlib.sha256(blank).hexdigest().encode())


def is_sealed(data: bytes, recorded: Any) -> bool:
    """Whether a file that holds its own digest is as it was when that was computed."""
    if not isinstance(recorded, str) or len(recorded) != 64:
        return False
    return hashlib.sha256(data.replace(recorded.encode("utf-8", "replace"), _ZEROS.encode())).hexdigest() == recorded


# safetensors: 8 bytes little-endian length, JSON header, data.


def split_safetensors(data: bytes) -> tuple[dict[str, Any], bytes]:
    """(header, tensors' bytes); ValueError or struct.error where it is none."""
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def joined_safetensors(header: Any, body: bytes) -> bytes:
    """Inverse of `split_safetensors`."""
    text = header if isinstance(header, bytes) else encoded(json.dumps(header, ensure_ascii=False))
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + body


def safetensors_digest(data: bytes) -> Any:
    """The digest that an artefact records of itself, or None."""
    try:
        header, _ = split_safetensors(data)
        return json.loads(header["__metadata__"]["edgex"])["sha256"]
    except Exception:  # whatever is wrong with it
        return None


def changed_artefact(random: Random, data: bytes) -> bytes:
    """An artefact of edgex with other metadata or other tensors, and with the right digest for them."""
    header, body = split_safetensors(data)
    described = json.loads(header["__metadata__"]["edgex"])
    if random.random() < 0.7:
        described = changed_json(random, {key: value for key, value in described.items() if key != "sha256"})
    else:
        header, body = _changed_tensors(random, header, body)
    if isinstance(described, dict):
        described["sha256"] = _ZEROS
    header["__metadata__"] = {"edgex": json_text(random, described)}
    return resealed(joined_safetensors(header, body), _ZEROS)


def changed_safetensors(random: Random, data: bytes) -> bytes:
    """A safetensors file with another header or other values."""
    header, body = split_safetensors(data)
    if random.random() < 0.5:
        header, body = _changed_tensors(random, header, body)
    else:
        header = changed_json(random, header)
    return joined_safetensors(header, body)


def _changed_tensors(random: Random, header: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
    names = sorted(name for name in header if name != "__metadata__")
    name, other = random.choice(names), random.choice(names)
    header = {key: dict(entry) for key, entry in header.items()}
    begin, end = header[name]["data_offsets"]
    action = random.choice(("dtype", "shape", "swap", "value", "rename", "offsets", "entry", "grow"))
    if action == "dtype":
        header[name]["dtype"] = random.choice(("F16", "F64", "I32", "I64", "BOOL", "F8_E4M3", "BF16", "U8", "X", 7))
    elif action == "shape":
        shape = header[name]["shape"]
        header[name]["shape"] = random.choice((shape[::-1], [*shape, 1], [1, *shape], [], [0], [2**40, 2**40], [-1]))
    elif action == "swap":
        header[name], header[other] = header[other], header[name]
    elif action == "value" and end - begin >= 4:
        place = begin + 4 * random.randrange((end - begin) // 4)
        value = random.choice((float("nan"), float("inf"), 3e38, -3e38, 1e-40))
        body = body[:place] + struct.pack("<f", value) + body[place + 4 :]
    elif action == "rename":
        header[random.choice(("extra", "\x1b[31m", name + ".", "", "../x"))] = header.pop(name)
    elif action == "offsets":
        header[name]["data_offsets"] = random.choice(([0, 0], [end, begin], [begin, 2**63], [-1, end], [begin], "x"))
    elif action == "grow":
        header["extra"] = {"dtype": "F32", "shape": [1024], "data_offsets": [len(body), len(body) + 4096]}
        body += bytes(4096)
    else:
        header[name] = random.choice(VALUES)
    return header, body


# ONNX: a protobuf whose metadata entry "edgex" is JSON.


def onnx_text(data: bytes) -> str:
    """The text of the entry "edgex", read by the library of onnx itself."""
    return {entry.key: entry.value for entry in onnx.load_from_string(data).metadata_props}["edgex"]


def onnx_digest(data: bytes) -> Any:
    """The digest that a fused ONNX file records of itself, or None."""
    try:
        return json.loads(onnx_text(data))["file_sha256"]
    except Exception:  # whatever is wrong with it
        return None


def changed_onnx(random: Random, data: bytes) -> bytes:
    """A fused ONNX file with other metadata or another graph, and with the right digest for them."""
    model = onnx.load_from_string(data)
    described = json.loads(onnx_text(data))
    if random.random() < 0.7:
        described = changed_json(random, {key: value for key, value in described.items() if key != "file_sha256"})
    else:
        _change_graph(random, model.graph)
    if isinstance(described, dict):
        described["file_sha256"] = _ZEROS
    text = json_text(random, described).encode("utf-8", "replace").decode()
    onnx.helper.set_model_props(model, {"edgex": text})
    return resealed(model.SerializeToString(), _ZEROS)


def _change_graph(random: Random, graph: onnx.GraphProto) -> None:
    action = random.choice(("drop", "operator", "input", "dims", "type", "external", "huge", "attribute"))
    node = random.choice(list(graph.node))
    weights = random.choice(list(graph.initializer))
    value = random.choice([*graph.input, *graph.output])
    if action == "drop":
        graph.node.remove(node)
    elif action == "operator":
        node.op_type = random.choice(("Identity", "Loop", "If", "Nonsense", "Add", "ArgMin"))
    elif action == "input" and node.input:
        node.input[0] = random.choice(("", "image", "logits", node.output[0], "nothing"))
    elif action == "dims":
        weights.dims[:] = random.choice(([], [0], [2**40], [-1], [1, 1]))
    elif action == "type":
        if random.random() < 0.5:
            value.type.tensor_type.elem_type = random.choice((0, 1, 7, 10, 99))
        else:
            value.name = random.choice(("", "other", "image", "heatmap"))
    elif action == "external":
        weights.data_location = onnx.TensorProto.EXTERNAL
        weights.external_data.add(key="location", value=random.choice(("/etc/passwd", "../x", "weights.bin")))
    elif action == "huge":
        shape = onnx.helper.make_tensor("shape", onnx.TensorProto.INT64, [2], random.choice(([2**20, 2**20], [-5, 3])))
        graph.initializer.append(shape)
        graph.node.insert(0, onnx.helper.make_node("ConstantOfShape", ["shape"], ["surplus"]))
    elif node.attribute:
        node.attribute[0].i = random.choice((-(2**63), 2**63 - 1, 99))


def engine(text: bytes, plan: bytes) -> bytes:
    """An engine file: 4-byte little-endian length, JSON, plan."""
    return len(text).to_bytes(4, "little") + text + plan


def engine_digest(data: bytes) -> Any:
    """The digest that an engine file records of itself, or None."""
    try:
        length = int.from_bytes(data[:4], "little")
        return json.loads(data[4 : 4 + length])["file_sha256"]
    except Exception:  # whatever is wrong with it
        return None


def changed_engine(random: Random, data: bytes) -> bytes:
    """An engine file with other metadata and with the right digest for it."""
    length = int.from_bytes(data[:4], "little")
    described = json.loads(data[4 : 4 + length])
    described = changed_json(random, {key: value for key, value in described.items() if key != "file_sha256"})
    if isinstance(described, dict):
        described["file_sha256"] = _ZEROS
    return resealed(engine(encoded(json_text(random, described)), data[4 + length :]), _ZEROS)


# torch.save: a zip archive with data.pkl and one member for each storage.


def zip_is_whole(data: bytes) -> bool:
    """Whether every member of a zip archive has the checksum that its directory says."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return archive.testzip() is None
    except Exception:  # no archive, or a damaged directory
        return False


def changed_zip(random: Random, data: bytes) -> bytes:
    """A zip archive with one member changed, removed, repeated, renamed or blown up, its checksums right for that."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    pickles = [index for index, (name, _) in enumerate(members) if name.endswith(".pkl")]
    index = random.choice(pickles) if random.random() < 0.6 else random.randrange(len(members))
    name, content = members[index]
    compression = zipfile.ZIP_STORED
    action = random.choice(("damage", "damage", "damage", "remove", "repeat", "rename", "swap", "bomb", "pickle"))
    if action == "damage":
        members[index] = name, damaged(random, content, [other for _, other in members])
    elif action == "remove":
        del members[index]
    elif action == "repeat":
        members.append((name, members[random.randrange(len(members))][1]))
    elif action == "rename":
        members[index] = random.choice(("../../x", "archive/data/99", name.upper(), "\x1b[31m")), content
    elif action == "swap":
        other = random.randrange(len(members))
        members[index], members[other] = (name, members[other][1]), (members[other][0], content)
    elif action == "bomb":
        members[index] = name, bytes(300 << 20)
        compression = zipfile.ZIP_DEFLATED
    else:
        members[index] = name, random.choice(PICKLES)
    return packed(members, compression)


def packed(members: list[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip archive of these members."""
    import warnings

    buffer = io.BytesIO()
    # The module warns of two members of one name, which is what a mutation wants.
    with (
        warnings.catch_warnings(action="ignore"),
        zipfile.ZipFile(buffer, "w", compression) as archive,
    ):
        for name, content in members:
            archive.writestr(name, content, compresslevel=1)
    return buffer.getvalue()


PICKLES = (
    b"cos\nsystem\n(S'touch FUZZ_WAS_HERE'\ntR.",
    b"\x80\x02cposix\nsystem\nX\x13\x00\x00\x00touch FUZZ_WAS_HERE\x85R.",
    b"\x80\x02}.",
    b"\x80\x02]q\x00h\x00a.",
    b"\x80\x02K\x01.",
    b"(" * 200_000 + b".",
    b"\x80\x02X\xff\xff\xff\x7f.",
    b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x01a\x85R.",
    b"",
)
"""Programs, loops, and containers that are no state dict."""
