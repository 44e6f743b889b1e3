"""Heatmaps of a method for many pictures, kept on disk, since 1000 passes a picture take long."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgex.data import image_folders
from edgex.evaluation.methods import Method
from edgex.files import cache_file
from edgex.files.model_file import LoadedModel
from edgex.models.self_explaining import SelfExplainingViT, normalise
from edgex.runtime.preprocessing import Preprocessing
from edgex.utils import devices
from edgex.utils.progress import Progress
from edgex.utils.text import Report, silent

_FORMAT = 2
_KIND = f"heatmap {_FORMAT}"


@dataclasses.dataclass(frozen=True)
class Explanations:
    """Heatmaps float32 [N, gh, gw] of one class per picture, int64 [N].

    milliseconds: what each picture's heatmap took alone, float64 [N]; not a number where it was not timed.
    """

    classes: Tensor
    heatmaps: Tensor
    milliseconds: np.ndarray


def cached_heatmaps(
    model: LoadedModel,
    paths: Sequence[Path],
    method: Method,
    cache: Path,
    *,
    device: str = "auto",
    precision: str = "auto",
    report: Report = silent,
) -> Explanations:
    """Heatmaps of each picture's predicted class, from the cache folder where they are there already.

    One file per picture, named by the model's digest, the method and the pixels that the model sees: an interrupted
    run resumes with the next picture, and a picture's heatmap does not depend on those beside it. The model itself is
    left as it is.
    """
    where = devices.device_of(device)
    network, preprocessing = model.network.inference_copy(where), model.card.preprocessing
    computed = f"{where.type} {devices.precision_of(where, precision)}"
    settings = f"{_FORMAT} {model.sha256} {method.key} {computed}"
    folder = cache / hashlib.sha256(settings.encode()).hexdigest()[:24]
    found: list[dict[str, Any]] = []
    with Progress(str(method), total=len(paths), unit="pictures") as progress:
        for path in paths:
            image = torch.from_numpy(image_folders.load_batch([path], preprocessing))
            digest = hashlib.sha256(image.numpy().tobytes()).hexdigest()
            stored = folder / f"{digest[:24]}.pt"
            if (content := cache_file.find(stored, _KIND, report)) is None:
                content = _explain(network, image, preprocessing, method, digest, where, precision)
                cache_file.save(stored, content, _KIND)
            found.append(content)
            progress.advance()
    return Explanations(
        torch.cat([content["class"] for content in found]),
        torch.cat([content["heatmap"] for content in found]),
        # Heatmaps that an earlier edgex kept were not timed.
        np.array([content.get("milliseconds", math.nan) for content in found]),
    )


def _explain(
    model: SelfExplainingViT,
    image: Tensor,
    preprocessing: Preprocessing,
    method: Method,
    digest: str,
    device: torch.device,
    precision: str,
) -> dict[str, Any]:
    pixels = normalise(image.to(device), preprocessing.mean, preprocessing.std)
    with torch.inference_mode():
        predicted = model.logits(model.backbone.embed(pixels)).argmax(dim=-1)
    # Reading it from a GPU also waits for it, so that what follows is timed alone.
    chosen = predicted.cpu()
    # The coalitions are a picture's own, so that their noise averages out over pictures.
    generator = np.random.default_rng((method.seed, int(digest[:16], 16)))
    began = time.perf_counter()
    heatmap = method.explain(model, pixels, predicted, generator, precision=precision).cpu()
    return {"class": chosen, "heatmap": heatmap, "milliseconds": 1000 * (time.perf_counter() - began)}
