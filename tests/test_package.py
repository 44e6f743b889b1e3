"""The distribution: its name, what its wheel holds, its dependencies, and the files that speak of it."""

from __future__ import annotations

import collections
import re
import subprocess
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import edgex
from environments import build_wheel

ROOT = Path(__file__).resolve().parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES = {"edgex": "edgex", "export": "edgex/export", "runtime": "edgex/runtime"}
"""Folder of the repository -> folder in the wheel."""
UNTESTED = {"tensorrt"}
"""Direct dependencies of which no version was tested."""


def tracked() -> list[Path]:
    """The files of the repository that git tracks."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a git clone: which files belong to the repository is unknown")
    return [path for name in done.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def requirements() -> list[Requirement]:
    """What the project and its extras ask for, other than the project's own extras."""
    extras = PROJECT["project"]["optional-dependencies"].values()
    found = [
        Requirement(line) for line in [*PROJECT["project"]["dependencies"], *(r for extra in extras for r in extra)]
    ]
    return [requirement for requirement in found if requirement.name != PROJECT["project"]["name"]]


def constraints() -> dict[str, Version]:
    """The tested versions by canonical name."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): Version(version) for name, version in pins}


def test_no_text_names_the_registry_package_of_somebody_else() -> None:
    """`edgex` on the package registry is another project; this one's distribution is edgex-xai."""
    wrong = re.compile(r"(?<![\w-])edgex\\?\[[a-z]|pip3? install (?:-\S+ )*['\"]?edgex(?!-xai)\b")
    found = []
    for path in tracked():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {match[0]}" for match in wrong.finditer(text)]
    assert not found, found


@pytest.mark.parametrize(
    "text",
    ["pip install " + "edgex", "pip install -U '" + "edgex" + "[cpu]'", "`edgex" + "[openvino]` in an environment"],
)
def test_the_search_for_that_name_finds_it(text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(text, encoding="utf-8")
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    subprocess.run(["git", "add", "page.md"], cwd=tmp_path, check=True)
    with pytest.raises(AssertionError, match="page.md"):
        test_no_text_names_the_registry_package_of_somebody_else()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Name -> content of every file in the wheel."""
    with zipfile.ZipFile(build_wheel(tmp_path_factory.mktemp("package"))) as archive:
        names = archive.namelist()
        assert len(names) == len(set(names))
        return {name: archive.read(name) for name in names}


def test_the_wheel_holds_every_module_and_nothing_else_of_python(wheel: dict[str, bytes]) -> None:
    modules = {
        f"{target}/{path.relative_to(ROOT / folder).as_posix()}": path.read_bytes()
        for folder, target in PACKAGES.items()
        for path in (ROOT / folder).rglob("*.py")
    }
    assert {name: content for name, content in wheel.items() if name.endswith(".py")} == modules


def test_the_wheel_holds_weights_samples_page_and_licences_once(wheel: dict[str, bytes]) -> None:
    data = {
        f"{target}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder, target in PACKAGES.items()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    licences = {path for path in data if path.rsplit("/", 1)[1].startswith(("NOTICE", "LICENSE"))}
    information = f"edgex_xai-{edgex.__version__}.dist-info/"
    assert {name for name in wheel if not name.endswith(".py") and not name.startswith(information)} == data - licences
    stored = {name.removeprefix(f"{information}licenses/") for name in wheel if "/licenses/" in name}
    assert stored == licences | {"LICENSE"}
    contents = collections.Counter(content for content in wheel.values() if content)
    assert max(contents.values()) == 1, "a file is in the wheel twice"


def test_the_wheel_says_what_it_is(wheel: dict[str, bytes]) -> None:
    metadata = wheel[f"edgex_xai-{edgex.__version__}.dist-info/METADATA"].decode()
    lines = metadata.partition("\n\n")[0].splitlines()
    for line in ("Name: edgex-xai", f"Version: {edgex.__version__}", "License-Expression: Apache-2.0"):
        assert line in lines
    assert [line for line in lines if line.startswith("Project-URL: ")]
    floor = PROJECT["project"]["requires-python"].removeprefix(">=")
    classifiers = [line.removeprefix("Classifier: ") for line in lines if line.startswith("Classifier: ")]
    assert f"Programming Language :: Python :: {floor}" in classifiers
    assert "Typing :: Typed" in classifiers
    # PEP 639: a licence classifier beside a licence expression is refused by registries.
    assert not [name for name in classifiers if name.startswith("License ::")]


def test_the_version_stands_in_one_module() -> None:
    literal = re.compile(rf"(?<![\d.]){re.escape(edgex.__version__)}(?![\d.])")
    code = [path for path in tracked() if path.suffix in (".py", ".toml") and path.parts[len(ROOT.parts)] != "tests"]
    found = [path.relative_to(ROOT).as_posix() for path in code if literal.search(path.read_text(encoding="utf-8"))]
    assert found == ["edgex/_version.py"]


def test_the_changelog_knows_the_version() -> None:
    assert f"\n## [{edgex.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_citation_names_the_paper_and_its_authors() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    # What the schema of CFF 1.2.0 requires of a file and of a reference.
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(citation)
    assert citation["version"] == edgex.__version__
    assert citation["license"] == PROJECT["project"]["license"]
    paper = citation["preferred-citation"]
    assert {"type", "title", "authors", "year", "url"} <= set(paper)
    assert [author["family-names"] for author in paper["authors"]] == ["Yoshikawa", "Shimizu", "Kawashima", "Saito"]
    assert paper["url"] == PROJECT["project"]["urls"]["Paper"]


@pytest.mark.parametrize("requirement", requirements(), ids=str)
def test_a_tested_version_lies_in_the_supported_range(requirement: Requirement) -> None:
    name = canonicalize_name(requirement.name)
    if name in UNTESTED:
        assert name not in constraints(), f"{name} has a tested version: take it from UNTESTED"
        return
    assert name in constraints(), f"constraints.txt: expected a line {requirement.name}==VERSION, the tested one"
    assert requirement.specifier.contains(constraints()[name])


@pytest.mark.parametrize(
    "name", ["onnx", "onnx-ir", "onnxruntime", "onnxscript", "open-clip-torch", "timm", "torch", "torchvision"]
)
def test_libraries_that_results_depend_on_have_an_upper_bound(name: str) -> None:
    found = [requirement for requirement in requirements() if canonicalize_name(requirement.name) == name]
    assert found
    for requirement in found:
        assert any(part.operator in ("<", "<=", "==", "~=") for part in requirement.specifier), str(requirement)


def test_make_installs_the_tested_versions() -> None:
    installs = [line for line in (ROOT / "Makefile").read_text(encoding="utf-8").splitlines() if "pip install" in line]
    assert installs
    for line in installs:
        assert "--constraint constraints.txt" in line or "--upgrade pip" in line, line
