"""The file format: bytes in and out, damage, and writes that fail leave nothing behind."""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from edgex.errors import ArtefactError
from edgex.files import tensor_file
from edgex.files.tensor_file import TensorFile, decode, encode
from edgex.runtime.atomic_files import atomic_output

TENSORS = {
    "float": torch.tensor([[0.0, -0.0, 1.5], [float("inf"), -2.0, 3e-45]]),
    "half": torch.tensor([1.0, -0.0, 65504.0], dtype=torch.float16),
    "brain": torch.randn(4, 1, 3, generator=torch.Generator().manual_seed(0)).bfloat16(),
    "scalar": torch.tensor(7),
    "empty": torch.zeros(0, 3),
    "flags": torch.tensor([True, False]),
    "bytes": torch.arange(5, dtype=torch.uint8),
}
METADATA: dict[str, Any] = {"kind": "model", "name": 'Ünïcode "quoted" 名前', "numbers": [1, 2.5, None]}


def raw(path: Path) -> tuple[dict[str, Any], bytes]:
    """Header and data of a file, parsed by the specification."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def with_header(path: Path, header: dict[str, Any], data: bytes) -> None:
    encoded = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + data)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    tensor_file.write_tensors(tmp_path / "a.safetensors", METADATA, TENSORS)
    return tmp_path / "a.safetensors"


def test_round_trip(file: Path) -> None:
    with TensorFile(file) as opened:
        assert list(opened.tensors) == list(TENSORS)
        for name, tensor in TENSORS.items():
            found = opened.read(name)
            assert found.dtype == tensor.dtype
            assert found.shape == tensor.shape
            assert bytes(encode(found)) == bytes(encode(tensor)), "bit for bit, the sign of zero too"
        assert {key: opened.metadata[key] for key in METADATA} == METADATA
        assert opened.metadata["format"] == "edgex/1"
        opened.verify()


def test_the_library_reads_the_same(file: Path) -> None:
    with safe_open(file, framework="pt") as opened:
        assert set(opened.keys()) == set(TENSORS)
        for name, tensor in TENSORS.items():
            assert torch.equal(opened.get_tensor(name), tensor)


def test_the_digest_is_of_the_whole_file(tmp_path: Path) -> None:
    # A metadata value that looks like the place kept for the digest stays what it is.
    metadata = {**METADATA, "fingerprint": "0" * 64}
    found = tensor_file.write_tensors(tmp_path / "a.safetensors", metadata, TENSORS)
    header, data = raw(tmp_path / "a.safetensors")
    recorded = json.loads(header["__metadata__"]["edgex"])
    content = (tmp_path / "a.safetensors").read_bytes()
    assert content.count(found.encode()) == 1
    zeroed = content.replace(found.encode(), b"0" * 64)
    assert found == recorded["sha256"] == hashlib.sha256(zeroed).hexdigest()
    assert recorded["fingerprint"] == "0" * 64
    assert (len((tmp_path / "a.safetensors").read_bytes()) - len(data)) % 8 == 0


def test_equal_input_gives_equal_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        tensor_file.write_tensors(tmp_path / name, METADATA, TENSORS)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_numbers_that_json_does_not_know_are_stored_as_null(tmp_path: Path) -> None:
    metrics = {"split_half_cosine": math.nan, "history": [{"step": 0.0, "train": -math.inf}]}
    tensor_file.write_tensors(tmp_path / "a", {**METADATA, "metrics": metrics}, TENSORS)
    header, _ = raw(tmp_path / "a")
    stored = json.loads(header["__metadata__"]["edgex"], parse_constant=pytest.fail)
    assert stored["metrics"] == {"split_half_cosine": None, "history": [{"step": 0.0, "train": None}]}
    with TensorFile(tmp_path / "a") as opened:
        assert opened.metadata == stored
        opened.verify()


def test_reading_in_order_hashes_on_the_way(file: Path) -> None:
    with TensorFile(file) as opened:
        for name in opened.tensors:
            opened.read(name)
        file_position = opened._file.tell()
        opened.verify()
        assert opened._file.tell() == file_position, "nothing is read twice"


@pytest.mark.parametrize("order", [[], ["brain"], ["float", "brain", "half"], [*TENSORS][::-1]])
def test_a_flipped_bit_is_found_however_it_was_read(file: Path, order: list[str]) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with TensorFile(file) as opened:
        for name in order:
            opened.read(name)
        with pytest.raises(ArtefactError, match="the file was changed or damaged"):
            opened.verify()


def test_a_changed_header_is_found(file: Path) -> None:
    content = file.read_bytes()
    with TensorFile(file) as opened:
        shift = str(opened.metadata["format"])
    assert content.count(shift.encode()) == 1
    file.write_bytes(content.replace(shift.encode(), b"edgex/2"))
    with TensorFile(file) as opened, pytest.raises(ArtefactError, match="the file was changed or damaged"):
        opened.verify()


def test_foreign_files_have_no_metadata(tmp_path: Path) -> None:
    save_file({"w": torch.zeros(2)}, tmp_path / "w.safetensors", metadata={"format": "pt"})
    with TensorFile(tmp_path / "w.safetensors") as opened:
        assert opened.metadata == {}
        assert opened.raw_metadata == {"format": "pt"}
        opened.verify()


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match=r"expected a safetensors file at .*none, found nothing"):
        TensorFile(tmp_path / "none")
    with pytest.raises(ArtefactError, match="found a folder"):
        TensorFile(tmp_path)


def test_damaged_files_are_refused(file: Path) -> None:
    whole = file.read_bytes()
    header, data = raw(file)
    overlapping = json.loads(json.dumps(header))
    overlapping["half"]["data_offsets"] = overlapping["float"]["data_offsets"]
    for damaged in (whole[:-1], whole[:100], whole[:5], b"", b"text" * 100, whole + b"\0"):
        file.write_bytes(damaged)
        with pytest.raises(ArtefactError, match="is not a whole safetensors file") as caught:
            TensorFile(file)
        assert "\n" not in str(caught.value)
    with_header(file, overlapping, data)
    with pytest.raises(ArtefactError, match="is not a whole safetensors file"):
        TensorFile(file)


@pytest.mark.parametrize(("value", "message"), [("{", "expected JSON"), ("[1]", "expected an object, found a list")])
def test_damaged_metadata_is_refused(file: Path, value: str, message: str) -> None:
    header, data = raw(file)
    header["__metadata__"]["edgex"] = value
    with_header(file, header, data)
    with pytest.raises(ArtefactError, match=f"edgex metadata: {message}"):
        TensorFile(file)


def test_types_that_edgex_does_not_read_are_named(tmp_path: Path) -> None:
    save_file({"w": torch.zeros(2, dtype=torch.float8_e4m3fn)}, tmp_path / "w.safetensors")
    with pytest.raises(ArtefactError, match="tensor 'w' has type F8_E4M3, which edgex does not read"):
        TensorFile(tmp_path / "w.safetensors")


def test_encode_and_decode_take_any_layout() -> None:
    tensor = torch.arange(12.0).reshape(3, 4).T
    spec = tensor_file.TensorSpec(torch.float32, (4, 3), 0, 48)
    assert torch.equal(decode(bytearray(encode(tensor)), spec), tensor)
    assert torch.equal(
        decode(bytearray(encode(tensor[1])), tensor_file.TensorSpec(torch.float32, (3,), 0, 12)), tensor[1]
    )


class TestWritesThatFail:
    """Whatever goes wrong, the folder holds what it held before."""

    def test_an_error_of_the_source(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(b"older")

        def tensors() -> Any:
            yield memoryview(b"\0" * 8)
            raise ArtefactError("the source broke")

        specs: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {"x": (torch.float32, (2,)), "y": (torch.float32, (2,))}
        with pytest.raises(ArtefactError, match="the source broke"):
            tensor_file.write(tmp_path / "a", {}, specs, tensors())
        assert [path.name for path in tmp_path.iterdir()] == ["a"]
        assert (tmp_path / "a").read_bytes() == b"older"

    def test_tensors_that_do_not_match_the_header(self, tmp_path: Path) -> None:
        with pytest.raises(AssertionError):
            tensor_file.write(tmp_path / "a", {}, {"x": (torch.float32, (2,))}, [bytearray(4)])
        assert list(tmp_path.iterdir()) == []

    def test_a_place_below_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(ArtefactError, match="cannot write .*choose a folder that can be written"):
            tensor_file.write_tensors(tmp_path / "file" / "a", {}, TENSORS)

    @pytest.mark.skipif(not Path("/proc/sys").is_dir(), reason="no /proc, whose folders nobody can write to")
    def test_a_folder_that_nobody_can_write_to(self) -> None:
        with pytest.raises(ArtefactError, match="cannot write /proc/a .*choose a folder"):
            tensor_file.write_tensors(Path("/proc/a"), {}, TENSORS)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root writes to read-only folders")
    def test_a_read_only_folder(self, tmp_path: Path) -> None:
        (tmp_path / "folder").mkdir(mode=0o500)
        with pytest.raises(ArtefactError, match="Permission denied"):
            tensor_file.write_tensors(tmp_path / "folder" / "a", {}, TENSORS)

    def test_a_folder_in_the_files_place(self, tmp_path: Path) -> None:
        (tmp_path / "a" / "inner").mkdir(parents=True)
        with pytest.raises(ArtefactError, match="cannot write .*choose another name"):
            tensor_file.write_tensors(tmp_path / "a", {}, TENSORS)
        assert [path.name for path in tmp_path.iterdir()] == ["a"]

    def test_a_full_disk(self, tmp_path: Path) -> None:
        """A limit on file sizes stands in for the disk: the kernel refuses the write half-way."""
        script = """
import resource, signal, sys
from pathlib import Path
import torch
from edgex.files import tensor_file
from edgex.errors import ArtefactError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    tensor_file.write_tensors(Path(sys.argv[1]), {}, {str(i): torch.zeros(10_000) for i in range(8)})
except ArtefactError as error:
    print(error)
"""
        out = tmp_path / "a"
        finished = subprocess.run([sys.executable, "-c", script, str(out)], capture_output=True, text=True, check=True)
        assert finished.stdout.startswith(f"cannot write {out} (File too large): nothing was written")
        assert finished.stdout.count("\n") == 1
        assert list(tmp_path.iterdir()) == []

    def test_an_interrupt(self, tmp_path: Path) -> None:
        with pytest.raises(KeyboardInterrupt), atomic_output(tmp_path / "a") as temporary:
            temporary.write_bytes(b"half")
            raise KeyboardInterrupt
        assert list(tmp_path.iterdir()) == []


def test_new_folders_are_made_and_permissions_are_ordinary(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a"
    tensor_file.write_tensors(path, {}, TENSORS)
    (tmp_path / "plain").write_bytes(b"")
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode
