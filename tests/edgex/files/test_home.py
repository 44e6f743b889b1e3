"""The record of bakes: what each process finds while others bake, in real shells that run at the same time."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from wrong_values import with_wrong_values

from edgex.errors import ArtefactError
from edgex.files import home

BAKE = "import sys; from edgex.files import home; home.record_bake(sys.argv[1], 'of ' + sys.argv[1])"
NEWEST = "from edgex.files import home; print(home.newest_record().path.name)"


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEX_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def shells_at_once(folders: dict[str, Path], homes: dict[str, Path]) -> dict[str, str]:
    """In one shell per name: bake the name, wait until all have, and take the newest bake."""
    script = f'{sys.executable} -c "{BAKE}" "$1"; touch "$1.done"; read go; {sys.executable} -c "{NEWEST}"'
    shells = {
        name: subprocess.Popen(
            ["sh", "-c", script, "sh", name],
            cwd=folder,
            env={**os.environ, "EDGEX_HOME": str(homes[name])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name, folder in folders.items()
    }
    deadline = time.monotonic() + 60
    while not all((folders[name] / f"{name}.done").exists() for name in shells):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return {name: shell.communicate("go\n", timeout=60)[0].strip() for name, shell in shells.items()}


NAMES = ("one", "two", "three")


def test_shells_in_different_directories_get_their_own(tmp_path: Path, own_home: Path) -> None:
    folders = {name: tmp_path / name for name in NAMES}
    for folder in folders.values():
        folder.mkdir()
    assert shells_at_once(folders, dict.fromkeys(NAMES, own_home)) == {name: name for name in NAMES}


def test_shells_with_homes_of_their_own_get_their_own(tmp_path: Path) -> None:
    found = shells_at_once(dict.fromkeys(NAMES, tmp_path), {name: tmp_path / f"home of {name}" for name in NAMES})
    assert found == {name: name for name in NAMES}


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc")
def test_shells_in_one_directory_get_their_own(tmp_path: Path, own_home: Path) -> None:
    found = shells_at_once(dict.fromkeys(NAMES, tmp_path), dict.fromkeys(NAMES, own_home))
    assert found == {name: name for name in NAMES}
    # Another shell takes what was baked last of all.
    records = [json.loads(path.read_text()) for path in own_home.rglob("*.json")]
    assert len(records) == 3, "no record is lost"
    last = max(records, key=lambda record: record["nanoseconds"])
    other = subprocess.run(
        ["sh", "-c", f'{sys.executable} -c "{NEWEST}"; true'], capture_output=True, text=True, check=True
    )
    assert other.stdout.strip() == Path(last["path"]).name


def test_a_process_prefers_its_own_bake_to_a_later_one(tmp_path: Path) -> None:
    home.record_bake("mine", "0")
    subprocess.run([sys.executable, "-c", BAKE, "theirs"], check=True)
    newest = home.newest_record()
    assert newest is not None
    assert (newest.path, newest.sha256, newest.directory) == (tmp_path / "mine", "0", str(tmp_path))
    latest = home.newest_record_anywhere()
    assert latest is not None
    assert (latest.path, latest.sha256) == (tmp_path / "theirs", "of theirs")


def test_nothing_baked_here_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert home.newest_record() is None
    assert home.newest_record_anywhere() is None
    home.record_bake("a", "0")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert home.newest_record() is None


def test_damaged_records_are_passed_over_and_old_ones_removed(own_home: Path) -> None:
    home.record_bake("a", "0")
    (record,) = own_home.rglob("*.json")
    for index, text in enumerate(("", "{", "[]", '{"path": "b"}')):
        record.with_name(f"9{index}.json").write_text(text)
    newest = home.newest_record()
    assert newest is not None and newest.path.name == "a"
    for path in own_home.rglob("*.json"):
        os.utime(path, (0, 0))
    home.record_bake("c", "1")
    (kept,) = own_home.rglob("*.json")
    assert json.loads(kept.read_text())["sha256"] == "1"


def test_the_home_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, own_home: Path) -> None:
    assert home.home() == own_home
    monkeypatch.setenv("EDGEX_HOME", "")
    assert home.home() == Path.home() / ".edgex"


def test_it_needs_nothing_heavy() -> None:
    code = "import sys, edgex.files.home; sys.exit(bool({'numpy', 'torch', 'safetensors'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


UNKNOWN_USER = ["unshare", "--user", "--map-user=54321", "env", "-i", "PYTHONDONTWRITEBYTECODE=1"]
"""Runs a command without any environment, as a user that the system does not know."""


def as_unknown_user(code: str, folder: Path, **environment: str) -> str:
    variables = [f"{name}={value}" for name, value in environment.items()]
    command = [*UNKNOWN_USER, *variables, sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def unknown_user() -> None:
    if shutil.which("unshare") is None or subprocess.run([*UNKNOWN_USER, "true"], check=False).returncode != 0:
        pytest.skip("no user namespaces here")


@pytest.mark.usefixtures("unknown_user")
def test_a_user_without_a_home(tmp_path: Path) -> None:
    """What only reads goes on without; what has to write says what to set."""
    code = """
from edgex.errors import ArtefactError
from edgex.errors import ArtefactError
from edgex.files import home
assert (home.home_or_none(), home.newest_record(), home.newest_record_anywhere()) == (None, None, None)
try:
    home.record_bake("a", "0")
except ArtefactError as error:
    print(error)
"""
    said = as_unknown_user(code, tmp_path)
    assert said == "expected a folder for edgex's own files, found no home folder of this user: set EDGEX_HOME to one"
    assert list(tmp_path.iterdir()) == []
    code = "from edgex.files import home; home.record_bake('a', '0'); print(home.newest_record().path)"
    assert as_unknown_user(code, tmp_path, EDGEX_HOME=str(tmp_path / "home")) == str(tmp_path / "a")
    assert [entry.name for entry in tmp_path.iterdir()] == ["home"]


@pytest.mark.usefixtures("unknown_user")
def test_the_command_line_of_a_user_without_a_home(tmp_path: Path) -> None:
    code = "import sys; sys.argv = ['edgex', 'doctor', '--json']; from edgex.cli import main; main()"
    found = json.loads(as_unknown_user(code, tmp_path))
    assert (found["home"], found["newest_bake"]) == (None, None)
    assert "this user has no home folder: set EDGEX_HOME to a folder for edgex's own files" in found["advice"]
    assert list(tmp_path.iterdir()) == [], "no library makes a folder named ~"


def test_homes_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    for value, words in (("file", "Not a directory"), ("file/deep", "Not a directory"), ("x" * 300, "name too long")):
        monkeypatch.setenv("EDGEX_HOME", str(tmp_path / value))
        assert home.newest_record() is None
        with pytest.raises(ArtefactError, match=words):
            home.record_bake("a", "0")


def test_a_tilde_that_no_shell_has_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As in a service's or container's file of settings."""
    monkeypatch.setenv("HOME", str(tmp_path / "someone"))
    monkeypatch.setenv("EDGEX_HOME", "~/models")
    assert home.home() == tmp_path / "someone" / "models"
    home.record_bake("a", "0")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["someone"]


def test_many_processes_that_record_and_read_at_once(tmp_path: Path, own_home: Path) -> None:
    """Old records are removed meanwhile, and some are damaged."""
    code = """
import sys
from edgex.errors import ArtefactError
from edgex.files import home
for number in range(40):
    home.record_bake(f"{sys.argv[1]}-{number}", sys.argv[1])
    found = home.newest_record()
    assert found.sha256 == sys.argv[1], found
    assert home.newest_record_anywhere() is not None
"""
    home.record_bake("a", "0")
    folder = next(own_home.rglob("*.json")).parent
    for number in range(50):
        (folder / f"{number}.json").write_text("{")
        os.utime(folder / f"{number}.json", (0, 0))
    processes = [subprocess.Popen([sys.executable, "-c", code, name]) for name in NAMES]
    assert [process.wait(120) for process in processes] == [0, 0, 0]
    records = [json.loads(path.read_text()) for path in own_home.rglob("*.json")]
    assert len(records) == 1 + 3 * 40
    assert [entry for entry in folder.iterdir() if entry.suffix == ".part"] == []


def test_a_record_with_wrong_values_is_passed_over_or_taken_as_it_is(tmp_path: Path, own_home: Path) -> None:
    home.record_bake(tmp_path / "model", "0" * 64)
    (record,) = own_home.rglob("*.json")
    for what, changed in with_wrong_values(json.loads(record.read_text())):
        record.write_text(json.dumps(changed))
        found = home.newest_record()
        assert found is None or vars(found).items() <= {**changed, "path": Path(changed["path"])}.items(), what
        assert (found is None) == (home.newest_record_anywhere() is None), what
