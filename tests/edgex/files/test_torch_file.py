"""Files of torch.save and torch.jit.save: what they hold is read as torch reads it, what they lack is refused."""

from __future__ import annotations

import argparse
import collections
import datetime
import decimal
import io
import os
import pathlib
import pickle
import random
import re
import struct
import uuid
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgex.errors import ArtefactError
from edgex.files import torch_file
from edgex.files.torch_pickle import Placeholder

MEMBERS = ("data.pkl", "data/0", "data/1")


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {"a": torch.randn(4, 6, generator=generator), "b": torch.arange(5)}


def saved(path: Path, content: Any, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


def equal(found: Any, expected: Any) -> bool:
    if isinstance(expected, torch.Tensor):
        return (
            found.dtype == expected.dtype
            and found.shape == expected.shape
            and found.stride() == expected.stride()
            and bool(torch.equal(found, expected.detach()))
        )
    if isinstance(expected, dict):
        return list(found) == list(expected) and all(equal(found[key], expected[key]) for key in expected)
    if isinstance(expected, (list, tuple)):
        return type(found) is type(expected) and all(equal(*both) for both in zip(found, expected, strict=True))
    return type(found) is type(expected) and found == expected


def contents() -> Iterator[Any]:
    base = torch.arange(24.0).reshape(4, 6)
    for dtype in (torch.float64, torch.float16, torch.bfloat16, torch.int32, torch.int8, torch.uint8, torch.bool):
        yield {"w": base.to(dtype)}
    yield {"w": torch.arange(6).to(torch.uint16), "z": torch.zeros(2, dtype=torch.complex64)}
    yield {"shared": base, "row": base[1:3, ::2], "turned": base.T, "empty": torch.empty(0, 3), "scalar": base.sum()}
    yield {"p": torch.nn.Parameter(base), "text": "ä\u4e2d", "bytes": b"\x00\xff", "none": None, (1, "a"): 2}
    yield collections.OrderedDict(a=base, n=[1, 2.5, True, -(2**40), (1, (2,), ())])
    model = torch.nn.Linear(2, 3)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    yield {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "rng": torch.get_rng_state()}


@pytest.mark.parametrize("options", [{}, {"pickle_protocol": 4}, {"_use_new_zipfile_serialization": False}])
@pytest.mark.parametrize("content", [*contents()])
def test_contents_come_back(tmp_path: Path, content: Any, options: dict[str, Any]) -> None:
    assert equal(torch_file.load(saved(tmp_path / "c.pth", content, **options)), content)


def test_tensors_that_share_a_storage_share_it_again(tmp_path: Path) -> None:
    weight = torch.zeros(3)
    found = torch_file.load(saved(tmp_path / "c.pth", {"a": weight, "b": weight}))
    found["a"][0] = 1
    assert found["b"][0] == 1


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize("traced", [False, True])
def test_a_torchscript_archive_is_read_without_running_it(tmp_path: Path, traced: bool) -> None:
    class Tower(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 4, 2).half()
            self.blocks = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.LayerNorm(4))
            self.register_buffer("steps", torch.tensor(3))
            self.scale = torch.nn.Parameter(torch.ones([]))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.blocks(x) * self.scale

    model = Tower()
    script = torch.jit.trace(model, torch.ones(1, 4)) if traced else torch.jit.script(model)
    torch.jit.save(script, tmp_path / "t.pt")
    found = torch_file.load(tmp_path / "t.pt")
    expected = torch.jit.load(tmp_path / "t.pt").state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert found["conv.weight"].dtype == torch.float16


def settings() -> list[Any]:
    return [
        argparse.Namespace(lr=1e-3, output=pathlib.PurePosixPath("o"), data=Path("x")),
        np.float64(80.1),
        np.float32(1),
        np.arange(3),
        collections.Counter([3, 5, 5]),
        collections.deque([1.0]),
        datetime.datetime(2026, 1, 2, 3, 4),
        datetime.timedelta(hours=1),
        uuid.UUID(int=7),
        decimal.Decimal("0.5"),
        range(3),
    ]


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4}])
@pytest.mark.parametrize("setting", settings(), ids=lambda setting: type(setting).__name__)
def test_settings_beside_tensors_are_passed_over(tmp_path: Path, setting: Any, options: dict[str, Any]) -> None:
    path = saved(tmp_path / "c.pth", {"args": setting, "model": tensors()}, **options)
    found = torch_file.load(path)
    assert equal(found["model"], tensors())
    assert isinstance(found["args"], Placeholder)


class Calling:
    """Unpickling this calls a function of the file's choosing."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.called = function, arguments

    def __reduce__(self) -> Any:
        return self.called


class Settled:
    """Unpickling this gives state to an object of the file's choosing."""

    def __init__(self, target: Callable[..., Any], arguments: tuple[Any, ...], state: Any) -> None:
        self.parts = target, arguments, state

    def __reduce__(self) -> Any:
        return self.parts


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4}])
@pytest.mark.parametrize(
    "harmful",
    [
        Calling(os.mkdir, "harmed"),
        Calling(os.system, "mkdir harmed"),
        Calling(eval, "__import__('os').mkdir('harmed')"),
        Calling(Path("harmed").mkdir),
        Calling(getattr, Path, "touch"),
        Calling(torch.zeros, 1 << 40),
        Calling(torch.FloatTensor, 1 << 40),
        Calling(bytearray, 1 << 40),
        torch.nn.Linear(2, 2),
    ],
    ids=["mkdir", "system", "eval", "bound", "getattr", "zeros", "tensor", "bytearray", "module"],
)
def test_a_pickle_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harmful: Any, options: dict[str, Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = saved(tmp_path / "c.pth", {"w": harmful}, **options)
    with pytest.raises(ArtefactError, match="edgex loads no pickled code, and it holds ") as caught:
        torch_file.load(path)
    assert "\n" not in str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == ["c.pth"]


def test_state_changes_no_object_of_this_process(tmp_path: Path) -> None:
    path = saved(tmp_path / "c.pth", {"w": Settled(collections.OrderedDict, (), {"items": 1}), "v": torch.ones(2)})
    assert next(iter(torch_file.load(path).items())) == ("w", {})


@pytest.mark.parametrize("protocol", [2, 4])
def test_sets_and_dictionaries_with_defaults_come_back(tmp_path: Path, protocol: int) -> None:
    content = {"set": {1, 2}, "frozen": frozenset("ab"), "default": collections.defaultdict(list, a=[1])}
    path = saved(tmp_path / "c.pth", content, pickle_protocol=protocol)
    assert torch_file.load(path) == {"set": {1, 2}, "frozen": {"a", "b"}, "default": {"a": [1]}}


def test_a_whole_training_state_is_read(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(2)).sum().backward()
    optimizer.step()
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 5])
    parts: dict[str, Any] = {"model": model, "optimizer": optimizer, "schedule": schedule}
    path = saved(tmp_path / "c.pth", {name: part.state_dict() for name, part in parts.items()})
    assert equal(torch_file.load(path)["model"], dict(model.state_dict()))


SET = pickle.GLOBAL + b"__builtin__\nset\n"
DEEP = pickle.NONE + pickle.TUPLE1 * 1_000_000


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (pickle.EMPTY_DICT + DEEP + pickle.NONE + pickle.SETITEM, "a key of type tuple"),
        (pickle.EMPTY_DICT + pickle.MARK + DEEP + pickle.NONE + pickle.SETITEMS, "a key of type tuple"),
        (
            pickle.GLOBAL
            + b"__builtin__\nset\n"
            + pickle.EMPTY_LIST
            + DEEP
            + pickle.APPEND
            + pickle.TUPLE1
            + pickle.REDUCE,
            "a key of type tuple",
        ),
        (pickle.EMPTY_SET + pickle.MARK + DEEP + pickle.ADDITEMS, "a key of type tuple"),
        (pickle.MARK + DEEP + pickle.FROZENSET, "a key of type tuple"),
        (pickle.NONE + pickle.INST + b"os\nsystem\n", "an opcode that torch.save never writes"),
        (pickle.BYTEARRAY8 + struct.pack("<Q", 1 << 40), "an opcode that torch.save never writes"),
        (pickle.LONG_BINPUT + struct.pack("<I", (1 << 32) - 1), "list index out of range"),
        (b"", "pop from empty list"),
    ],
    ids=["item", "items", "set", "additems", "frozenset", "inst", "bytearray", "memo", "nothing"],
)
def test_a_hostile_pickle_takes_neither_stack_nor_memory(tmp_path: Path, code: bytes, message: str) -> None:
    path = tmp_path / "c.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("c/data.pkl", pickle.PROTO + b"\x02" + code + pickle.STOP)
    with pytest.raises(ArtefactError, match=message):
        torch_file.load(path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("torch._utils\n_rebuild_qtensor", "those are quantised tensors"),
        ("torch.distributed.tensor\nDTensor", "those are shards of tensors"),
        ("timm.models.vision_transformer\nVisionTransformer", "save the model's state_dict()"),
    ],
)
def test_what_is_refused_names_its_way_out(tmp_path: Path, name: str, message: str) -> None:
    path = tmp_path / "c.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("c/data.pkl", pickle.PROTO + b"\x02" + pickle.GLOBAL + name.encode() + b"\n" + pickle.STOP)
    with pytest.raises(ArtefactError, match=re.escape(message)):
        torch_file.load(path)


def test_other_files_are_told_from_damaged_ones(tmp_path: Path) -> None:
    other = tmp_path / "photo.jpg"
    other.write_bytes(b"\xff\xd8\xff\xe0 no checkpoint")
    with pytest.raises(ArtefactError, match="is no checkpoint: expected safetensors or a file of torch.save"):
        torch_file.load(other)
    whole = saved(tmp_path / "c.pth", tensors())
    whole.write_bytes(whole.read_bytes()[:-200])
    with pytest.raises(ArtefactError, match="the end of its archive is missing.: copy or download it again"):
        torch_file.load(whole)


def test_plain_pickles_are_refused(tmp_path: Path) -> None:
    (tmp_path / "c.pkl").write_bytes(pickle.dumps({"w": [1.0]}, protocol=2))
    with pytest.raises(ArtefactError, match="is a pickle, but none of torch.save"):
        torch_file.load(tmp_path / "c.pkl")


@pytest.mark.parametrize("name", MEMBERS)
def test_a_flipped_bit_is_refused_by_the_members_name(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path / "c.pth", tensors())
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(f"c/{name}")
        size = struct.unpack_from("<HH", whole, info.header_offset + 26)
    start = info.header_offset + 30 + sum(size)
    for place in (0, info.file_size // 2, info.file_size - 1):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[start + place] ^= 1 << bit
            path.write_bytes(damaged)
            with pytest.raises(ArtefactError, match=rf"not a whole torch checkpoint \(.*CRC.*'c/{name}'"):
                torch_file.load(path)


def test_files_without_any_crc_are_read(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        path = saved(tmp_path / "c.pth", tensors())
    finally:
        torch.serialization.set_crc32_options(True)
    assert equal(torch_file.load(path), tensors())


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}])
def test_random_damage_is_one_line_or_whole_tensors(tmp_path: Path, options: dict[str, Any]) -> None:
    """A file without CRC cannot show a changed value; its names, shapes and sizes are still checked."""
    path = saved(tmp_path / "c.pth", tensors(), **options)
    whole, randomly = path.read_bytes(), random.Random(0)
    for _ in range(150):
        damaged = bytearray(whole)
        match randomly.randrange(3):
            case 0:
                damaged = damaged[: randomly.randrange(len(damaged))]
            case 1:
                damaged[randomly.randrange(len(damaged))] ^= 1 << randomly.randrange(8)
            case _:
                place = randomly.randrange(len(damaged))
                damaged[place : place + 4] = randomly.choice([b"\xff" * 4, b"\x00" * 4, b"\x7f\xff\xff\xff"])
        path.write_bytes(damaged)
        try:
            found = torch_file.load(path)
        except ArtefactError as error:
            assert "\n" not in str(error) and str(path) in str(error)
        else:
            assert options or equal(found, tensors())


def renumbered(path: Path, old: int, new: int) -> None:
    """Replaces an integer (BININT1 or BININT2) of the archive's pickle by another, with the right CRC."""
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    code = pickle.BININT + struct.pack("<i", new)
    (name,) = (name for name in members if name.endswith("data.pkl"))
    changed = members[name].replace(pickle.BININT2 + struct.pack("<H", old), code)
    assert changed != members[name]
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in members.items():
            archive.writestr(member, changed if member == name else data)


def test_more_memory_than_the_file_holds_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "c.pth", {"w": torch.zeros(300), "v": torch.zeros(7)})
    renumbered(path, 300, 1 << 30)
    with pytest.raises(ArtefactError, match=r"1073741824 values of torch.float32 declared for c/data/0, .* 1200 bytes"):
        torch_file.load(path)
    stretched = torch.zeros(1).expand(300, 300)
    with pytest.raises(ArtefactError, match=r"a tensor of shape \[300, 300\] has 1 values in the file"):
        torch_file.load(saved(path, {"w": stretched}))


def test_old_files_declare_no_more_than_they_hold(tmp_path: Path) -> None:
    path = saved(tmp_path / "c.pth", {"w": torch.zeros(300)}, _use_new_zipfile_serialization=False)
    count = pickle.BININT2 + struct.pack("<H", 300)
    for new in (1 << 30, -1):
        path.write_bytes(path.read_bytes().replace(count, pickle.BININT + struct.pack("<i", new)))
        with pytest.raises(ArtefactError, match="more than the file holds"):
            torch_file.load(path)
        saved(path, {"w": torch.zeros(300)}, _use_new_zipfile_serialization=False)


def test_compressed_and_overlapping_members_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "c.pth", {"w": torch.zeros(1 << 20)})
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    with pytest.raises(ArtefactError, match="its member .* is compressed, which torch.save never does"):
        torch_file.load(path)
    stored = io.BytesIO()
    with zipfile.ZipFile(stored, "w") as archive:
        archive.writestr("c/data.pkl", b"x" * 1000)
        first = archive.infolist()[0]
        archive.infolist().extend([first] * 3)
        archive.filelist.extend([first] * 3)
    path.write_bytes(stored.getvalue())
    with pytest.raises(ArtefactError, match=r"declares members of \d+ bytes in a file of \d+"):
        torch_file.load(path)


def test_other_archives_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", w=np.zeros(3))
    with pytest.raises(ArtefactError, match="is a zip archive, but none of torch.save"):
        torch_file.load(tmp_path / "a.npz")
    with pytest.raises(ArtefactError, match="found a folder"):
        torch_file.load(tmp_path)
    with pytest.raises(ArtefactError, match="found nothing"):
        torch_file.load(tmp_path / "none.pth")
