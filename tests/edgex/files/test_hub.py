"""Hub files against a small hub on this machine that speaks the real one's protocol, and against none."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from small_hub import NO_HUB, SmallHub, point_client, serve

from edgex.errors import ArtefactError, MismatchError, UsageError
from edgex.files.hub import fetch, fetch_beside, origin, weights_file

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NEXT = "89abcdef0123456789abcdef0123456789abcdef"
FILES = {"model.bin": b"weights", "deep/er.bin": b"deeper", "deep/config.json": b"{}"}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[SmallHub]:
    """A running hub; the client talks to it and caches in a folder of the test's own."""
    with serve() as running:
        running.publish(COMMIT, FILES)
        point_client(monkeypatch, tmp_path, running.address)
        yield running


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A client whose hub does not answer."""
    point_client(monkeypatch, tmp_path, NO_HUB)


def test_downloads_and_caches(hub: SmallHub) -> None:
    path = weights_file("hf://org/repo/model.bin")
    assert path.read_bytes() == b"weights"
    assert weights_file("hf://org/repo/deep/er.bin").read_bytes() == b"deeper"
    assert fetch("org/repo", ["model.bin"]) == path


def test_takes_the_first_file_that_exists(hub: SmallHub) -> None:
    assert fetch("org/repo", ["model.safetensors", "model.bin"]).name == "model.bin"


def test_the_cache_serves_where_the_hub_does_not(
    hub: SmallHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = fetch("org/repo", ["model.bin"])
    point_client(monkeypatch, tmp_path, NO_HUB)
    assert fetch("org/repo", ["model.safetensors", "model.bin"]) == path


def test_missing_files_and_repositories_are_named(hub: SmallHub) -> None:
    with pytest.raises(ArtefactError, match=r"repository org/repo has no file a\.bin or b\.bin"):
        fetch("org/repo", ["a.bin", "b.bin"])
    with pytest.raises(ArtefactError, match=r"does not give hf://org/other/a\.bin .*check the name"):
        fetch("org/other", ["a.bin"])
    with pytest.raises(ArtefactError, match=r"does not give hf://org/secret/a\.bin .*your access"):
        fetch("org/secret", ["a.bin"])


def test_no_hub_is_one_line_and_is_not_tried_again(no_hub: None, monkeypatch: pytest.MonkeyPatch) -> None:
    # The client's download retries for half a minute.
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_, **__: pytest.fail("the client would retry"))
    with pytest.raises(ArtefactError) as caught:
        weights_file("hf://org/repo/model.bin")
    message = str(caught.value)
    assert message.startswith("cannot get hf://org/repo/model.bin: the hub was not reached")
    assert "give its path instead" in message
    assert "\n" not in message


def test_offline_mode_is_no_different(monkeypatch: pytest.MonkeyPatch, no_hub: None) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ArtefactError, match="the hub was not reached"):
        fetch("org/repo", ["model.bin"])


@pytest.mark.parametrize(
    "name", ["hf://org/repo", "hf://org", "hf:///a/b", "hf://org//file", "hf://o/r/f@", "hf://o/r/@1", "hf://o/r@1/f"]
)
def test_incomplete_names_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="expected hf://organisation/repository/file"):
        weights_file(name)


def test_paths_are_left_alone() -> None:
    assert weights_file("folder/model.bin") == weights_file(Path("folder/model.bin")) == Path("folder/model.bin")


def test_a_revision_pins_the_file(hub: SmallHub) -> None:
    hub.publish(NEXT, {"model.bin": b"other weights"})
    assert weights_file(f"hf://org/repo/model.bin@{COMMIT}").read_bytes() == b"weights"
    assert weights_file("hf://org/repo/model.bin@main").read_bytes() == b"other weights"
    with pytest.raises(ArtefactError, match=r"does not give hf://org/repo/model.bin@v9 .*check the name"):
        weights_file("hf://org/repo/model.bin@v9")


def test_a_file_that_was_published_anew_is_refused(hub: SmallHub, tmp_path: Path) -> None:
    weights_file("hf://org/repo/model.bin")
    hub.publish(NEXT[::-1], FILES)
    weights_file("hf://org/repo/model.bin")  # another commit, the same file
    hub.publish(NEXT, {"model.bin": b"other weights"})
    with pytest.raises(MismatchError) as caught:
        weights_file("hf://org/repo/model.bin")
    message = str(caught.value)
    assert sha256(b"weights").hexdigest() in message
    assert sha256(b"other weights").hexdigest() in message
    earlier, present = f"hf://org/repo/model.bin@{COMMIT}", f"hf://org/repo/model.bin@{NEXT}"
    assert f"name {earlier} for the earlier file or {present} for the present one" in message
    assert weights_file(earlier).read_bytes() == b"weights"
    assert weights_file(present).read_bytes() == b"other weights"
    with pytest.raises(MismatchError):
        weights_file("hf://org/repo/model.bin")
    record = Path(message.partition("delete ")[2].partition(" to take")[0])
    assert record.parent == tmp_path / "home" / "hub"
    record.unlink()
    assert weights_file("hf://org/repo/model.bin").read_bytes() == b"other weights"


def test_a_damaged_copy_is_refused_with_or_without_a_hub(
    hub: SmallHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = weights_file("hf://org/repo/model.bin")
    path.resolve().write_bytes(b"weighty")
    for address in (hub.address, NO_HUB):
        point_client(monkeypatch, tmp_path, address)
        with pytest.raises(MismatchError, match="the downloaded copy is damaged, delete .*blobs") as caught:
            weights_file("hf://org/repo/model.bin")
    Path(str(caught.value).partition("delete ")[2].partition(" to get")[0]).unlink()
    point_client(monkeypatch, tmp_path, hub.address)
    assert weights_file("hf://org/repo/model.bin").read_bytes() == b"weights"


def test_a_damaged_record_is_named(hub: SmallHub, tmp_path: Path) -> None:
    weights_file("hf://org/repo/model.bin")
    (record,) = (tmp_path / "home" / "hub").iterdir()
    record.write_text("[]")
    with pytest.raises(ArtefactError, match="expected an object, found a list of 0; delete this record"):
        weights_file("hf://org/repo/model.bin")


def test_origin_and_neighbours_of_a_downloaded_file(hub: SmallHub, tmp_path: Path) -> None:
    path = weights_file("hf://org/repo/deep/er.bin")
    assert str(origin(path)) == f"hf://org/repo/deep/er.bin@{COMMIT}"
    fetch_beside(path, ["config.json", "preprocessor_config.json"])
    assert [file.name for file in sorted(path.parent.iterdir())] == ["config.json", "er.bin"]
    assert origin(tmp_path / "er.bin") is None
    fetch_beside(tmp_path / "er.bin", ["config.json"])
