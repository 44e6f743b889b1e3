from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgex.runtime import ArtefactError
from edgex.runtime.atomic_files import atomic_output
from edgex.runtime.errors import first_line


def test_the_file_appears_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    with atomic_output(str(path)) as temporary:
        temporary.write_text("whole")
        assert temporary.parent == path.parent and not path.exists()
    assert path.read_text() == "whole"
    assert [entry.name for entry in path.parent.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("durable", [True, False])
def test_a_failure_keeps_what_was_there(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "a.txt"
    path.write_text("older")
    for error in (ValueError, KeyboardInterrupt, ArtefactError):
        with pytest.raises(error), atomic_output(path, durable=durable) as temporary:
            temporary.write_text("half")
            raise error
    assert path.read_text() == "older"
    assert list(tmp_path.iterdir()) == [path]


def test_several_writers_do_not_meet(tmp_path: Path) -> None:
    with atomic_output(tmp_path / "a") as first, atomic_output(tmp_path / "a") as second:
        first.write_text("first")
        second.write_text("second")
    assert (tmp_path / "a").read_text() == "first"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_permissions_are_those_of_any_new_file(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with atomic_output(tmp_path / "a"):
            pass
        (tmp_path / "b").touch()
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_link_is_replaced_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("kept")
    (tmp_path / "a").symlink_to(tmp_path / "elsewhere")
    with atomic_output(tmp_path / "a") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "elsewhere").read_text() == "kept"
    assert (tmp_path / "a").read_text() == "new" and not (tmp_path / "a").is_symlink()


@pytest.mark.parametrize("name", ["x" * 255, "é" * 127, "x.png"])
def test_every_name_that_the_file_system_takes(tmp_path: Path, name: str) -> None:
    with atomic_output(tmp_path / name) as temporary:
        temporary.write_text("new")
    assert (tmp_path / name).read_text() == "new"


def test_refusals_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    cases = {
        tmp_path / ("x" * 256): r"\(File name too long\): choose a shorter name",
        tmp_path / "file" / "a": r"\(Not a directory\): choose a folder that can be written to",
        tmp_path / "file" / "deep" / "a": r"\(Not a directory\): choose a folder",
        tmp_path / "folder": r"\(Is a directory\): choose another name",
    }
    for path, words in cases.items():
        with pytest.raises(ArtefactError, match=words) as caught, atomic_output(path):
            pytest.fail("nothing can be written there")
        assert str(caught.value).startswith(f"cannot write {path} (")
        assert len(str(caught.value).splitlines()) == 1
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "folder"]


def test_the_umask_of_the_process_is_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread that writes at that moment would make files for everybody."""
    monkeypatch.setattr(os, "umask", lambda _: pytest.fail("it changes for all threads"))
    with atomic_output(tmp_path / "a"):
        pass


@pytest.mark.parametrize("durable", [True, False])
def test_the_content_is_on_the_disk_before_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durable: bool
) -> None:
    done: list[tuple[str, bytes]] = []
    fsync, replace = os.fsync, os.replace

    def flushed(descriptor: int) -> None:
        fsync(descriptor)
        done.append(("fsync", os.pread(descriptor, 100, 0)))

    def renamed(source: Path, target: Path) -> None:
        done.append(("rename", Path(source).read_bytes()))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "replace", renamed)
    with atomic_output(tmp_path / "a", durable=durable) as temporary:
        temporary.write_text("whole")
    assert done == [("fsync", b"whole")] * durable + [("rename", b"whole")]


WRITER = """
import sys, time
from edgex.runtime.atomic_files import atomic_output
with atomic_output(sys.argv[1], recoverable=sys.argv[2] == "recoverable") as temporary:
    temporary.write_text("half")
    print(temporary, flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def writer(path: Path, recoverable: bool = False) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process that is in the middle of writing a file, and its temporary file."""
    arguments = [sys.executable, "-c", WRITER, str(path), "recoverable" if recoverable else ""]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process, Path(process.stdout.readline().strip())


def write_again(folder: Path) -> set[str]:
    """Writes a file in a process of its own and returns what the folder holds then."""
    code = "import sys; from edgex.runtime.atomic_files import atomic_output\nwith atomic_output(sys.argv[1]): pass"
    subprocess.run([sys.executable, "-c", code, folder / "b"], check=True)
    return {entry.name for entry in folder.iterdir()}


@pytest.mark.skipif(os.name != "posix", reason="locks of POSIX")
def test_what_a_killed_process_left_is_removed_at_the_next_write(tmp_path: Path) -> None:
    with writer(tmp_path / "a") as (process, left):
        assert write_again(tmp_path) == {left.name, "b"}, "its process lives"
        process.kill()
    assert left.read_text() == "half"
    assert write_again(tmp_path) == {"b"}


@pytest.mark.skipif(os.name != "posix", reason="locks of POSIX")
def test_a_recoverable_file_stays(tmp_path: Path) -> None:
    with writer(tmp_path / "a", recoverable=True) as (process, left):
        process.kill()
    assert write_again(tmp_path) == {left.name, "b"}


@pytest.mark.skipif(os.name != "posix", reason="locks of POSIX")
def test_files_of_others_stay(tmp_path: Path) -> None:
    with writer(tmp_path / "a") as (process, left):
        process.kill()
    host, _, token = left.suffixes[-2].removeprefix(".").partition("-")
    another_host = left.rename(tmp_path / f".a.{host[::-1]}x-{token}.part").name
    (tmp_path / "elsewhere").touch()
    (tmp_path / f".link.{host}-{token}.part").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(tmp_path / f".pipe.{host}-{token}.part")
    (tmp_path / f".folder.{host}-{token}.part").mkdir()
    names = [another_host, "elsewhere", f"of-no-dot.{host}-{token}.part", ".video.part", f".a.{token}.part"]
    for name in names:
        (tmp_path / name).touch()
    before = {entry.name for entry in tmp_path.iterdir()}
    assert write_again(tmp_path) == before | {"b"}


@pytest.mark.skipif(os.name != "posix", reason="locks of POSIX")
def test_many_processes_that_write_and_clean_at_once(tmp_path: Path) -> None:
    """No process removes the file that another has just made."""
    code = """
import sys
from edgex.runtime import atomic_files
for number in range(200):
    atomic_files._cleaned.clear()
    with atomic_files.atomic_output(sys.argv[1], durable=False) as temporary:
        temporary.write_text(sys.argv[1])
"""
    names = [str(tmp_path / f"file {number}") for number in range(4)]
    processes = [subprocess.Popen([sys.executable, "-c", code, name]) for name in names]
    assert [process.wait(120) for process in processes] == [0] * 4
    assert {entry.read_text() for entry in tmp_path.iterdir()} == set(names)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root writes to read-only folders")
def test_a_read_only_folder(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir(mode=0o500)
    with (
        pytest.raises(ArtefactError, match=r"Permission denied\): choose a folder"),
        atomic_output(tmp_path / "folder" / "a"),
    ):
        pytest.fail("nothing can be written there")


@pytest.mark.skipif(os.name != "posix", reason="limits of POSIX")
def test_a_full_disk(tmp_path: Path) -> None:
    """A limit on file sizes stands in for the disk: the kernel refuses the write half-way."""
    script = """
import resource, signal, sys
from edgex.runtime import ArtefactError
from edgex.runtime.atomic_files import atomic_output
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    with atomic_output(sys.argv[1]) as temporary:
        temporary.write_bytes(bytes(2000))
except ArtefactError as error:
    print(error)
"""
    out = tmp_path / "a"
    done = subprocess.run([sys.executable, "-c", script, out], capture_output=True, text=True, check=True)
    wanted = f"cannot write {out} (File too large): nothing was written, free space or choose another folder\n"
    assert done.stdout == wanted
    assert list(tmp_path.iterdir()) == []


def test_an_error_about_another_file_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_output(tmp_path / "a") as temporary:
        temporary.write_bytes((tmp_path / "missing").read_bytes())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "error, line",
    [
        (ValueError("one\ntwo"), "one"),
        (ValueError("\n  one \n"), "one"),
        (ValueError(), "ValueError"),
        (RuntimeError(" "), "RuntimeError"),
        (ValueError("x" * 301), "x" * 300 + "..."),
    ],
)
def test_the_first_line_of_an_error(error: Exception, line: str) -> None:
    assert first_line(error) == line
