"""Crops of pictures: their order, their crops made again, several folders as one, the cache of what enters learning."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgex.data import image_folders
from edgex.data.crops import crops_of, gather, joined_crops
from edgex.data.masks import Masks
from edgex.errors import DataError, UsageError
from edgex.models.self_explaining import normalise
from edgex.runtime.preprocessing import Preprocessing
from edgex.training.losses import ShapeTerm
from edgex.training.token_cache import TokenCache
from edgex.utils.processes import Processes
from pictures import picture_folder

PREPROCESSING = Preprocessing((32, 32), 36, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return picture_folder(tmp_path, {"a": 2, "b": 1})


def test_crops_are_made_again_from_their_seeds(root: Path) -> None:
    paths = image_folders.list_images([root / "a"])
    made = crops_of(paths, PREPROCESSING, crops=3, crop_scale=0.4, seed=5, chunk=4)
    assert made.picture.tolist() == [0, 1, 2, 3] * 3 + [4, 5] * 3
    pixels = torch.cat(list(made.batches(5)))
    assert torch.equal(pixels, torch.cat(list(made.batches(7))))
    chosen = torch.tensor([9, 2, 17])
    assert torch.equal(torch.cat(list(made.select(chosen).batches(2))), pixels[chosen])
    assert np.array_equal(pixels[1], PREPROCESSING.array(image_folders.open_picture(paths[1]))), "first the centre crop"
    assert not torch.equal(pixels[5], pixels[9])
    other = crops_of(paths, PREPROCESSING, crops=3, crop_scale=0.4, seed=6, chunk=4)
    assert not torch.equal(pixels[5], torch.from_numpy(other.shown(image_folders.open_picture(paths[1]), 5)))


def test_joined_crops_show_their_own_pictures(root: Path) -> None:
    parts = [
        crops_of(image_folders.list_images([root / name]), PREPROCESSING, crops=crops, crop_scale=0.4, seed=0, chunk=4)
        for name, crops in (("a", 2), ("b", 1))
    ]
    together = torch.cat(list(joined_crops(parts).batches(4)))
    assert torch.equal(together, torch.cat([pixels for part in parts for pixels in part.batches(4)]))


def test_gather_takes_each_folders_own_crops_and_limit(root: Path) -> None:
    folders = gather([root / "a", root / "b"], crops=[1, 4], limit=2)
    assert [(folder.crops_per_picture, len(folder.paths)) for folder in folders] == [(1, 2), (4, 2)]
    assert [folder.crops_per_picture for folder in gather([root / "a", root / "b"], crops=[3], limit=None)] == [3, 3]
    with pytest.raises(UsageError, match="limit of at least 1"):
        gather([root / "a"], crops=[1], limit=0)
    with pytest.raises(DataError, match="folder of pictures at"):
        gather([root / "absent"], crops=[1], limit=None)


@torch.no_grad()
def test_the_cache_holds_what_enters_the_blocks_of_crops_and_mirrors(
    random_model: Callable[..., Any], root: Path
) -> None:
    model, card = random_model("timm/test_vit", classes=3)
    made = crops_of(image_folders.list_images([root]), card.preprocessing, crops=1, crop_scale=1.0, seed=0, chunk=64)
    term = ShapeTerm(Masks(made, torch.rand(9, 100)), (10, 10))
    group = Processes(0, 1, torch.device("cpu"))
    cached = TokenCache(model, term, blocks=2, precision="fp32", group=group)
    images = torch.cat(list(made.batches(9)))
    batch = cached.batch(torch.tensor([3, 3]), torch.tensor([False, True]), group.device)
    for row, pixels in enumerate((images[3:4], images[3:4].flip(2))):
        image = normalise(pixels, card.preprocessing.mean, card.preprocessing.std)
        tokens = model.backbone.embed(image)
        for block in model.backbone.module.blocks[: cached.start]:
            tokens = block(tokens)
        assert torch.allclose(batch.tokens[row], tokens[0], atol=0.02 * float(tokens.abs().max())), "bfloat16"
        assert torch.allclose(batch.outputs[row], model(image).logits[0], atol=1e-4)
    assert batch.classes[0] == batch.outputs[0].argmax()
    assert torch.equal(batch.classes[0], batch.classes[1]), "a crop and its mirror explain the same class"
