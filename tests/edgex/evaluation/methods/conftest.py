from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from edgex.models.self_explaining import SelfExplainingViT, normalise

Model = tuple[SelfExplainingViT, Tensor]


@pytest.fixture
def model_and_images(random_model: Callable[..., Any], natural_pictures: Callable[..., np.ndarray]) -> Model:
    """timm's smallest ViT, 10x10 patches, and two normalised pictures."""
    model, card = random_model("timm/test_vit", classes=4)
    pictures = torch.from_numpy(natural_pictures(2, (160, 160)))
    return model, normalise(pictures, card.preprocessing.mean, card.preprocessing.std)
