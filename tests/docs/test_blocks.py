"""Every block of README and documentation that can run does; the others say why they cannot."""

from __future__ import annotations

from pathlib import Path

import pytest
from blocks import PAGES, REPOSITORY, blocks, run

RUNS = [page for page in PAGES if any(not block.reason for block in blocks(page))]
EXPORTS_ITSELF = ("docs/quickstart.md",)


@pytest.fixture(scope="session")
def readme(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which README's blocks have run: the built-in cars, baked and exported, are in it."""
    folder = tmp_path_factory.mktemp("readme")
    with pytest.MonkeyPatch.context() as patch:
        _prepare(folder, patch)
        assert run("README.md", patch) >= 4
    return folder


@pytest.mark.filterwarnings("default")
def test_readmes_blocks_run(readme: Path) -> None:
    assert {path.name for path in readme.glob("*.onnx")} == {"imagenet-1k.onnx", "cars.onnx"}
    assert [path.name.split(".")[0] for path in (readme / "overlays").iterdir()] == ["suv"]


@pytest.mark.parametrize("page", [page for page in RUNS if page != "README.md"])
@pytest.mark.filterwarnings("default")
def test_blocks_run(page: str, readme: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _prepare(tmp_path, monkeypatch)
    if page not in EXPORTS_ITSELF:
        (tmp_path / "cars.onnx").symlink_to(readme / "cars.onnx")
    if page == "docs/your-own-model.md":
        _data_of_ones_own(tmp_path)
    if page == "docs/deciding.md":
        _validation(tmp_path / "val")
    assert run(page, monkeypatch) > 0


@pytest.mark.parametrize("page", PAGES)
def test_blocks_that_are_not_run_say_why_and_compile(page: str) -> None:
    for block in blocks(page):
        if block.reason:
            assert len(block.reason) > 10
            if block.language == "python":
                compile(block.text, page, "exec")


def _prepare(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with edgex's samples where a clone has them, and pictures for the gate; works in it from here on."""
    from edgex import samples

    monkeypatch.setenv("EDGEX_HOME", str(folder / "zoo"))
    monkeypatch.chdir(folder)
    (folder / "edgex").mkdir()
    (folder / "edgex" / "samples").symlink_to(samples.FOLDER)
    (folder / "pictures").mkdir()
    for path in samples.paths("cars"):
        (folder / "pictures" / path.name).symlink_to(path)


def _validation(folder: Path) -> None:
    """Parts of the samples of cars, in folders of the classes that the built-in model takes them for."""
    from PIL import Image

    from edgex import samples

    names = ("Cadillac Escalade EXT Crew Cab 2007", "Acura Integra Type R 2001")
    for name, path in zip(names, samples.paths("cars"), strict=True):
        (folder / name).mkdir(parents=True)
        with Image.open(path) as picture:
            for i in range(15):
                box = (i, i // 2, picture.width - i, picture.height - i // 2)
                picture.crop(box).save(folder / name / f"{i}.png")


def _data_of_ones_own(folder: Path) -> None:
    """A dataset of two classes, and DeiT-tiny's weights with random values."""
    import timm
    import torch
    from PIL import Image
    from safetensors.torch import save_file

    samples = REPOSITORY / "edgex" / "samples"
    for split in ("train", "val", "test"):
        for label, name in (("bike", "coffee"), ("car", "suv")):
            target = folder / "dataset" / split / label
            target.mkdir(parents=True)
            with Image.open(samples / f"{name}.jpg") as picture:
                for i in range(4):
                    picture.crop((4 * i, 4 * i, picture.width, picture.height)).save(target / f"{i}.jpg")
    torch.manual_seed(0)
    save_file(timm.create_model("deit_tiny_patch16_224").state_dict(), folder / "deit_tiny_patch16_224.safetensors")
    torch.save(timm.create_model("deit_tiny_patch16_224", num_classes=2).state_dict(), folder / "my_checkpoint.pt")
