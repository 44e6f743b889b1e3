"""Names of files to be written: taken ones and impossible ones are refused before any work."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgex.errors import ArtefactError, UsageError
from edgex.utils.output import refuse_to_overwrite


def test_a_file_is_replaced_only_with_force(tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    with pytest.raises(UsageError, match="exists already: choose another name") as caught:
        refuse_to_overwrite(tmp_path / "there", force=False)
    assert caught.value.argument == "out"
    refuse_to_overwrite(tmp_path / "there", force=True)
    refuse_to_overwrite(tmp_path / "new", force=False)
    refuse_to_overwrite(None, force=False)


@pytest.mark.parametrize("force", [False, True])
def test_a_name_that_is_too_long_is_answered_before_the_work(tmp_path: Path, force: bool) -> None:
    with pytest.raises(ArtefactError, match=r"cannot write .* \(File name too long\): choose a shorter name"):
        refuse_to_overwrite(tmp_path / ("n" * 300), force=force)
    refuse_to_overwrite(tmp_path / ("n" * 255), force=force)


@pytest.mark.parametrize("force", [False, True])
def test_so_is_a_name_in_a_folder_that_is_still_to_be_made(tmp_path: Path, force: bool) -> None:
    with pytest.raises(ArtefactError, match=r"\(File name too long\)"):
        refuse_to_overwrite(tmp_path / "new" / "newer" / ("n" * 300), force=force)
    refuse_to_overwrite(tmp_path / "new" / "newer" / "name", force=force)
    (tmp_path / "file").touch()
    with pytest.raises(ArtefactError, match=r"cannot write .*file/new/name \(Not a directory\): choose a folder"):
        refuse_to_overwrite(tmp_path / "file" / "new" / "name", force=force)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_is_never_replaced(tmp_path: Path, force: bool) -> None:
    with pytest.raises(UsageError, match="expected a file to write, found the folder .*: name a file in it") as caught:
        refuse_to_overwrite(tmp_path, force=force, argument="model_out")
    assert caught.value.argument == "model_out"
