"""A model run in PyTorch with the runtime's call: its result against the network's own output."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from edgex.evaluation.torch_session import TorchSession
from edgex.files.model_file import save_model
from edgex.models.self_explaining import normalise


def test_a_result_is_the_networks_output(
    random_model: Callable[..., Any], natural_pictures: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    model, card = random_model("timm/test_vit", classes=4)
    save_model(tmp_path / "model.safetensors", model, card)
    (picture,) = natural_pictures(1, (120, 200))
    Image.fromarray(picture).save(tmp_path / "picture.png")
    session = TorchSession(tmp_path / "model.safetensors")
    pixels = torch.from_numpy(card.preprocessing.array(picture))[None]
    image = normalise(pixels, card.preprocessing.mean, card.preprocessing.std)
    for name, number in ((None, -1), (card.classes[2], 2)):
        with torch.inference_mode():
            expected = model(image, torch.tensor([number]))
        found = session(tmp_path / "picture.png", explain=name)
        heatmap = expected.heatmap[0].numpy()
        assert not np.allclose(heatmap, heatmap.T, atol=1e-3), "a symmetric heatmap hides swapped rows and columns"
        np.testing.assert_allclose(found.logits, expected.logits[0].numpy(), atol=1e-5)
        np.testing.assert_allclose(found.heatmap, heatmap, atol=1e-5)
        assert abs(found.base - float(expected.base[0])) < 1e-5
        assert found.explained_index == (int(expected.logits.argmax()) if name is None else number)
        assert found.explained == card.classes[found.explained_index]
