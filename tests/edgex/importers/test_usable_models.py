"""The models of timm that docs/models.md lists are imported from their folders; those of transformers are tested in
`transformers/test_families.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import usable_models
from libraries import CLASSES, TOLERANCE, pictures

from edgex.files.model_file import load_model
from edgex.importers.workflow import import_weights


@pytest.mark.parametrize("name", usable_models.TIMM)
def test_timms_folder_alone_gives_its_own_logits(
    name: str, tmp_path: Path, record_property: Callable[[str, Any], None]
) -> None:
    module = usable_models.make_timm(name, tmp_path / "timm")
    result = import_weights(weights=tmp_path / "timm", out=tmp_path / "m.safetensors")
    assert result.card.classes == CLASSES
    images = pictures(32)
    with torch.no_grad():
        expected = module(images)
        found = load_model(result.path).network(images)
    difference = (found.logits - expected).abs().max().item()
    record_property("max_abs_difference", difference)
    assert difference < TOLERANCE
    score = found.logits.max(1).values - found.logits.mean(1)
    assert (found.heatmap.sum((1, 2)) + found.base - score).abs().max() < 1e-4


def test_the_page_lists_what_the_tests_import() -> None:
    page = usable_models.PAGE.read_text(encoding="utf-8")
    libraries = ("timm", "transformers", "torchvision", "open_clip")
    listed = [line for line in page.splitlines() if line.startswith(tuple(f"| {name} " for name in libraries))]
    assert listed == usable_models.rows(), "python tests/support/usable_models.py prints the rows"
