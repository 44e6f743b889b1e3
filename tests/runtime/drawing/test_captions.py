"""Captions in every script: with a font that has the characters, or without."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fonts import write_font

from edgex.runtime import UsageError
from edgex.runtime.drawing import captions
from edgex.runtime.drawing.captions import fit_text, font_folders


@pytest.fixture(autouse=True)
def system_fonts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """The folder of the system's fonts, empty."""
    folder = tmp_path / "system" / "fonts"
    folder.mkdir(parents=True)
    monkeypatch.setattr(captions, "font_folders", lambda: [tmp_path / "absent", folder])
    captions._system_fonts.cache_clear()
    captions._font_with.cache_clear()
    yield folder
    captions._system_fonts.cache_clear()
    captions._font_with.cache_clear()


def test_pillows_own_font_is_enough_for_ascii(system_fonts: Path) -> None:
    write_font(system_fonts / "x.ttf", "cat")
    assert fit_text(["cat 96%", "class 0 96%"], 20)[0] == "cat 96%"
    assert fit_text(["cat"], 20)[1].getname()[0] == "Aileron"


@pytest.mark.parametrize("name", ["猫", "Käfer", "кот"])
def test_the_next_text_is_drawn_where_no_font_has_the_characters(name: str) -> None:
    text, font = fit_text([f"{name} 96%", "class 3 96%"], 20)
    assert text == "class 3 96%"
    assert font.getname()[0] == "Aileron"
    assert fit_text([name], 20)[0] == name.encode("ascii", "backslashreplace").decode()


def test_a_font_of_the_system_that_has_all_characters_is_found(system_fonts: Path) -> None:
    (system_fonts / "a.ttf").write_bytes(b"no font")
    write_font(system_fonts / "b.ttf", "0猫")
    write_font(system_fonts / "deep.TTF", "0123456789% 猫")
    text, font = fit_text(["猫 96%", "class 3 96%"], 20)
    assert text == "猫 96%"
    assert font.path == str(system_fonts / "deep.TTF")
    assert font.size == 20
    assert fit_text(["狗 96%", "class 3 96%"], 20)[0] == "class 3 96%"


def test_a_font_file_is_used_where_it_has_the_characters(tmp_path: Path) -> None:
    path = write_font(tmp_path / "mine.ttf", "cat猫")
    assert fit_text(["cat"], 20, path)[1].path == str(path)
    assert fit_text(["猫", "class 3"], 20, str(path))[0] == "猫"
    assert fit_text(["dog"], 20, path)[1].getname()[0] == "Aileron"


@pytest.mark.parametrize("content", [None, b"no font"])
def test_a_font_file_that_is_none_is_refused(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "x.ttf").write_bytes(content)
    with pytest.raises(UsageError, match=r"expected a font file .*x\.ttf, which cannot be read") as raised:
        fit_text(["cat"], 20, tmp_path / "x.ttf")
    assert raised.value.argument == "font"


def test_control_characters_are_drawn_as_escapes() -> None:
    assert fit_text(["a\x1b[2J\u202eb"], 20)[0] == r"a\x1b[2J\u202eb"


def test_text_from_right_to_left_needs_the_libraries_for_it(
    system_fonts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_font(system_fonts / "x.ttf", "خلق")
    monkeypatch.setattr(captions.features, "check", lambda name: name != "fribidi")
    assert fit_text(["خلق", "class 3"], 20)[0] == "class 3"


def test_folders_of_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("XDG_DATA_DIRS", "/opt/share:/usr/share")
    monkeypatch.setenv("WINDIR", "/windows")
    found = font_folders()
    assert {Path("/opt/share/fonts"), Path("/usr/share/fonts"), Path("/windows/Fonts")} <= set(found)


def test_a_text_is_shrunk_to_its_width_and_gives_way_where_that_is_not_enough() -> None:
    text, font = fit_text(["german shepherd", "dog"], 20, width=100, smallest=10)
    assert text == "german shepherd"
    assert 10 <= font.size < 20
    assert font.getlength(text) <= 100 < fit_text([text], round(font.size) + 1)[1].getlength(text)
    assert fit_text(["german shepherd", "dog"], 20, width=50, smallest=18)[0] == "dog"
    text, font = fit_text(["german shepherd", "a long dog"], 20, width=5, smallest=9)
    assert (text, font.size) == ("a long dog", 9)


def test_the_smallest_size_is_no_larger_than_the_wanted_one() -> None:
    assert fit_text(["dog"], 6, width=100, smallest=9)[1].size == 6
