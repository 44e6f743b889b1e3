"""Average precision, F1 and thresholds against scikit-learn where it is installed, and against values by hand."""

from __future__ import annotations

import numpy as np
import pytest

from edgex.evaluation.multi_label import LabelQuality, average_precision, best_thresholds, f1


def test_average_precision_by_hand() -> None:
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    true = np.array([True, False, True, True, False])
    # Precision at each true picture, in order of the scores: 1/1, 2/3, 3/4.
    assert average_precision(scores, true) == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)
    assert average_precision(scores, np.array([True] * 5)) == 1
    # Equal scores are passed together: any order of them gives the same.
    tied = np.array([0.5, 0.5, 0.5, 0.1])
    for place in range(3):
        assert average_precision(tied, np.arange(4) == place) == pytest.approx(1 / 3)


def test_f1_by_hand() -> None:
    decided, true = np.array([1, 1, 0, 0, 1], bool), np.array([1, 0, 1, 0, 1], bool)
    assert f1(decided, true) == pytest.approx(2 * 2 / (3 + 3))
    assert f1(np.zeros(3, bool), np.zeros(3, bool)) == 0


def drawn() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    targets = (rng.random((300, 5)) < [0.5, 0.2, 0.05, 0.9, 0.0]).astype(np.float32)
    logits = 1.5 * targets + rng.normal(size=targets.shape) - 1
    return (1 / (1 + np.exp(-logits))).round(2).astype(np.float32), targets


def test_like_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    scores, targets = drawn()
    found = LabelQuality.of(scores, targets, (0.5, 0.3, 0.2, 0.6, 0.5))
    decided = scores >= np.array((0.5, 0.3, 0.2, 0.6, 0.5), np.float32)
    # scikit-learn counts a class that no picture shows as 0; here it is left out.
    shown = slice(0, 4)
    wanted = metrics.average_precision_score(targets[:, shown], scores[:, shown], average="macro")
    assert found.mean_average_precision == pytest.approx(wanted)
    assert found.micro_f1 == pytest.approx(metrics.f1_score(targets, decided, average="micro"))
    assert found.macro_f1 == pytest.approx(metrics.f1_score(targets[:, shown], decided[:, shown], average="macro"))


def test_a_class_that_no_picture_shows_counts_for_nothing() -> None:
    scores, targets = drawn()
    found, without = LabelQuality.of(scores, targets), LabelQuality.of(scores[:, :4], targets[:, :4])
    assert found.mean_average_precision == without.mean_average_precision and found.macro_f1 == without.macro_f1
    nothing = LabelQuality.of(scores, np.zeros_like(targets))
    assert nothing.mean_average_precision is None and nothing.macro_f1 is None and nothing.micro_f1 == 0
    assert (
        str(nothing)
        == "mAP unknown, no class is shown, micro F1 0.00%, macro F1 unknown, no class is shown of 300 pictures"
    )


def test_thresholds_are_the_best_of_all() -> None:
    scores, targets = drawn()
    found = best_thresholds(scores, targets)
    assert found[4] == 0.5, "no picture shows it"
    for place in range(4):
        true = targets[:, place] > 0
        best = max(f1(scores[:, place] >= threshold, true) for threshold in np.linspace(0, 1, 1001))
        assert f1(scores[:, place] >= np.float32(found[place]), true) == pytest.approx(best)
    assert best_thresholds(np.array([[0.2], [0.9]]), np.array([[0], [1]])) == (0.5,)
    assert best_thresholds(np.array([[0.2], [0.3]]), np.array([[0], [1]])) == (pytest.approx(0.25),)
