"""Names of models and classes never lead out of their folder."""

from __future__ import annotations

import os

import pytest

from edgex.runtime import UsageError
from edgex.runtime.file_names import check_name, class_components, name_of, shortened


@pytest.mark.parametrize(
    "name", ["cars", "ViT-B_16.v2", "käfer", "猫 2", "a..b", "console", "com10", "x" * 200, "deit (1)", "100%"]
)
def test_names(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        ".hidden",
        "../../x",
        "/etc/x",
        "a/b",
        "a\\b",
        "C:x",
        "x.",
        "x ",
        " x",
        "x\n",
        "a\x1b[2J",
        "a\x00b",
        "a\u202eb",
        "a\u200bb",
        "caf\udce9",
        "CON",
        "nul.tar",
        "com1.x",
        "LPT9 .x",
        "x" * 201,
        "猫" * 67,
    ],
)
def test_what_is_no_name_of_a_file(name: str) -> None:
    with pytest.raises(UsageError, match="expected a name that can be that of a file, found '") as raised:
        check_name(name)
    assert raised.value.argument == "name"
    assert str(raised.value).isprintable()


def test_the_name_of_what_is_in_a_file() -> None:
    assert name_of("runs/cars.safetensors") == "cars"
    assert name_of("cars.2026-11-27T10:00.safetensors") == "cars.2026-11-27T10-00"
    assert name_of("runs/cars.safetensors", "mine") == "mine"
    for out, name in ((".hidden.safetensors", None), ("cars.safetensors", "a:b")):
        with pytest.raises(UsageError, match="expected a name that can be that of a file"):
            name_of(out, name)


def test_classes_in_names_of_files() -> None:
    assert class_components(("Audi TT 2011", "Käfer", "猫")) == ("audi-tt-2011", "käfer", "猫")
    assert class_components(("../../x", "a\x1b[2Jb", "caf\udce9", ".")) == ("x", "a-2jb", "caf", "class-3")


@pytest.mark.parametrize(
    "classes",
    [
        ("C", "C++", "C#", "c 1", "c-1-1"),
        ("Cat", "cat", "cat 1", "🚗", "🚙", "class 3"),
        ("crane", "crane"),
        tuple("x" * 100 + str(number) for number in range(3)),
    ],
)
def test_no_two_classes_are_called_the_same(classes: tuple[str, ...]) -> None:
    found = class_components(classes)
    assert len(set(found)) == len(classes)
    assert all(check_name(component) and len(component.encode()) <= 80 for component in found)


@pytest.mark.parametrize(("text", "kept"), [("cat", "ca"), ("猫狗", ""), ("aé", "a"), ("\udce9x", "\udce9x")])
def test_shortened_by_bytes(text: str, kept: str) -> None:
    assert shortened(text, 2) == kept
    assert len(os.fsencode(shortened("猫" * 99 + "\udce9", 100))) <= 100
