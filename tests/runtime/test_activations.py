from __future__ import annotations

import numpy as np
import pytest

from edgex.runtime.activations import ACTIVATIONS, check_thresholds
from edgex.runtime.errors import ArtefactError

LOGITS = np.array([-200.0, -2.0, 0.0, 1.0, 90.0], np.float32)


def test_probabilities_of_any_logits() -> None:
    """Also of those whose exponential is no float32."""
    found = ACTIVATIONS["sigmoid"].probabilities(LOGITS)
    assert found.dtype == np.float32 and found[0] == 0 and found[2] == 0.5 and found[4] == 1
    assert found[1:4] == pytest.approx([0.11920292, 0.5, 0.73105858])
    assert ACTIVATIONS["softmax"].probabilities(LOGITS).sum() == pytest.approx(1)


def test_what_heatmaps_add_up_to() -> None:
    assert ACTIVATIONS["sigmoid"].explained(LOGITS) is LOGITS
    assert abs(float(ACTIVATIONS["softmax"].explained(LOGITS[1:4]).sum())) < 1e-6


def test_thresholds_are_one_for_each_class_of_a_multi_label_model() -> None:
    check_thresholds(None, "softmax", 3)
    check_thresholds((0.1, 0.2), "sigmoid", 2)
    with pytest.raises(ArtefactError, match="a threshold for each of 3 classes, found 2"):
        check_thresholds((0.1, 0.2), "sigmoid", 3)
    with pytest.raises(ArtefactError, match="no thresholds with the activation softmax, found 2"):
        check_thresholds((0.1, 0.2), "softmax", 2)
