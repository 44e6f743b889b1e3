"""Every block of README and documentation that can run does; the others say why they cannot."""

from __future__ import annotations

from pathlib import Path

import pytest
from blocks import PAGES, REPOSITORY, blocks, run

RUNS = [page for page in PAGES if any(not block.reason for block in blocks(page))]
EXPORTS_ITSELF = ("README.md", "docs/quickstart.md")


@pytest.fixture(scope="session")
def cars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in cars, baked and exported."""
    from edgex import samples
    from edgex.files import zoo
    from edgex.runtime.frames import as_frame

    folder = tmp_path_factory.mktemp("cars")
    with pytest.MonkeyPatch.context() as patch:
        from blocks import run_edgex

        patch.chdir(folder)
        (folder / "pictures").mkdir()
        for path in samples.paths("cars"):
            (folder / "pictures" / path.name).symlink_to(path)
        assert zoo.BUILT_IN.is_dir() and as_frame(samples.paths("cars")[0]).width
        run_edgex(["bake", "--target", "cars", "--vector", "imagenet", "--out", "baked.safetensors"], patch)
        run_edgex(["export", "baked.safetensors", "--onnx", "fp32", "--out", "cars.onnx"], patch)
    return folder / "cars.onnx"


@pytest.mark.parametrize("page", RUNS)
@pytest.mark.filterwarnings("default")
def test_blocks_run(page: str, cars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEX_HOME", str(tmp_path / "zoo"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "edgex").mkdir()
    (tmp_path / "edgex" / "samples").symlink_to(REPOSITORY / "edgex" / "samples")
    (tmp_path / "pictures").symlink_to(cars.parent / "pictures")
    if page not in EXPORTS_ITSELF:
        (tmp_path / "cars.onnx").symlink_to(cars)
    if page == "docs/your-own-model.md":
        _data_of_ones_own(tmp_path)
    assert run(page, monkeypatch) > 0


@pytest.mark.parametrize("page", PAGES)
def test_blocks_that_are_not_run_say_why(page: str) -> None:
    for block in blocks(page):
        assert not block.reason or len(block.reason) > 10


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
