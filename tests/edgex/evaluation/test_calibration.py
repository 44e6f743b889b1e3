"""Temperatures, calibration errors and bands: against values by hand, scipy and scikit-learn."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest

from edgex.errors import DataError
from edgex.evaluation.calibration import (
    Answers,
    evidence_scale,
    expected_calibration_error,
    fit,
    fit_temperature,
    least_error,
    measure,
)
from edgex.evaluation.multi_label import best_thresholds
from edgex.runtime.calibration import Calibration, Unsure

Make = Callable[..., Answers]

CLASSES = ("fine", "crack", "scratch")


def answers(count: int, temperature: float = 1.0, seed: int = 0, spread: float = 2.0) -> Answers:
    """Pictures whose classes are drawn from the softmax of true logits; the model says `temperature` times those."""
    rng = np.random.default_rng(seed)
    true = spread * rng.normal(size=(count, 3))
    odds = np.exp(true)
    targets = (rng.random((count, 1)) > (odds / odds.sum(axis=1, keepdims=True)).cumsum(axis=1)).sum(axis=1)
    return Answers((temperature * true).astype(np.float32), targets, "softmax", CLASSES)


def labels(count: int, temperature: float = 1.0, seed: int = 0) -> Answers:
    """Pictures whose labels are drawn from the sigmoids of true logits."""
    rng = np.random.default_rng(seed)
    true = 5 * rng.normal(size=(count, 3)) - 1
    targets = (rng.random(true.shape) < 1 / (1 + np.exp(-true))).astype(np.float32)
    return Answers((temperature * true).astype(np.float32), targets, "sigmoid", CLASSES)


def test_the_calibration_error_by_hand() -> None:
    confidence = np.array([0.95, 0.95, 0.55, 0.55, 0.35])
    correct = np.array([True, False, True, True, False])
    # Ten bins: two pictures in (0.9, 1], two in (0.5, 0.6], one in (0.3, 0.4].
    expected = 2 / 5 * abs(0.5 - 0.95) + 2 / 5 * abs(1 - 0.55) + 1 / 5 * abs(0 - 0.35)
    assert expected_calibration_error(confidence, correct, bins=10) == pytest.approx(expected)
    # Fifteen: 0.95 in (14/15, 1], 0.55 in (8/15, 9/15], 0.35 in (5/15, 6/15].
    assert expected_calibration_error(confidence, correct) == pytest.approx(expected)


def test_bins_hold_their_upper_end_and_the_first_one_zero() -> None:
    found = expected_calibration_error(np.array([0.0, 0.5, 0.50001, 1.0]), np.array([False, False, True, True]), bins=2)
    assert found == pytest.approx((abs(0 - 0.5) + abs(2 - 1.50001)) / 4)


def test_the_calibration_error_like_scikit_learns_curve() -> None:
    curve = pytest.importorskip("sklearn.calibration").calibration_curve
    rng = np.random.default_rng(1)
    confidence = rng.random(500)
    correct = rng.random(500) < confidence**2
    accuracy, mean = curve(correct, confidence, n_bins=15)
    weights = np.histogram(confidence, np.linspace(0, 1, 16))[0]
    assert weights.all()
    expected = (weights / 500 * np.abs(accuracy - mean)).sum()
    assert expected_calibration_error(confidence, correct) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
@pytest.mark.parametrize("make", [answers, labels])
def test_the_temperature_of_logits_that_are_too_large_or_too_small(make: Make, temperature: float) -> None:
    assert fit_temperature(make(20_000, temperature)) == pytest.approx(temperature, rel=0.03)


@pytest.mark.parametrize("given", [answers(400, 2.5), labels(400, 2.5), answers(40, 0.3, spread=9)])
def test_the_temperature_is_where_the_likelihood_has_its_minimum(given: Answers) -> None:
    optimize = pytest.importorskip("scipy.optimize")

    def loss(log_temperature: float) -> float:
        logits = given.logits.astype(np.float64) / math.exp(log_temperature)
        rest = 1 / (len(given) + 2)
        if given.multi_label:
            targets = given.targets * (1 - 2 * rest) + rest
            return float((np.logaddexp(0, logits) - targets * logits).mean())
        targets = np.where(given.targets[:, None] == np.arange(3), 1 - rest, rest / 2)
        return float((np.logaddexp.reduce(logits, axis=1) - (targets * logits).sum(axis=1)).mean())

    best = optimize.minimize_scalar(loss, bounds=(-4, 4), method="bounded", options={"xatol": 1e-10})
    assert fit_temperature(given) == pytest.approx(math.exp(best.x), rel=1e-5)


@pytest.mark.parametrize("make", [answers, labels])
@pytest.mark.parametrize("factor", [0.01, 1, 1000])
def test_answers_without_a_mistake_are_as_sure_as_their_number_allows(make: Make, factor: float) -> None:
    """Platt's rule, whatever the model's own logits: the mean probability of what is true is (N + 1) / (N + 2)."""
    shown = make(98).shown
    given = Answers(factor * np.where(shown, 3.0, -3.0), make(98).targets, make(98).activation, CLASSES)
    scores = given.probabilities(Calibration("", 98, fit_temperature(given)))
    assert scores[shown] == pytest.approx(0.99, abs=1e-4)


def test_answers_no_better_than_chance_are_refused() -> None:
    given = answers(200)
    worst = dataclasses.replace(given, targets=given.logits.argmin(axis=1))
    with pytest.raises(DataError, match="better than chance"):
        fit_temperature(worst)


@pytest.mark.parametrize("make", [answers, labels])
def test_a_fit_makes_unseen_answers_as_sure_as_they_are_right(make: Make) -> None:
    quality = measure(make(4000, 3.0), [], 0.02)
    assert quality.ece.before > 0.05 and quality.ece.after < 0.02
    assert sum(quality.decided.values()) == quality.pictures == 4000


@pytest.mark.parametrize("make, target", [(answers, 0.05), (labels, 0.1)])
def test_the_band_leaves_the_rate_of_errors_that_was_asked_for(make: Make, target: float) -> None:
    given, unseen = make(4000, 2.0), make(4000, 2.0, seed=5)
    calibration = fit(given, [], target)
    decided, new = np.array(given.decisions(calibration)), np.array(unseen.decisions(calibration))
    assert given.wrong(calibration).mean() > 2 * target
    assert given.wrong(calibration)[decided == "ok"].mean() <= target and set(decided) == {"ok", "review"}
    assert (decided == "ok").mean() > 0.1, "and no more pictures for review than that takes"
    assert unseen.wrong(calibration)[new == "ok"].mean() < 1.2 * target
    quality = measure(given, [], target)
    assert quality.wrong / quality.decided["ok"] < 1.2 * target < quality.wrong_limit + 0.1 * target


def test_the_band_is_as_narrow_as_possible() -> None:
    """Twenty answers, surest first; of these, the 13th, the 14th and the 17th are wrong."""
    score = np.linspace(0.99, 0.55, 20)
    logits = np.stack([np.log(score), np.log(1 - score), np.full(20, -30)], axis=1)
    wrong = np.zeros(20, int)
    wrong[[12, 13, 16]] = 1
    given = Answers(logits, wrong, "softmax", CLASSES)
    # 12 answers without a mistake: the band begins between the 12th and the 13th.
    assert fit_band(given, 0.05) == pytest.approx((0, (score[11] + score[12]) / 2))
    # 2 of 16 are 0.125; the 17th makes it 3 of 17, and from then on at least 3 of 20.
    assert fit_band(given, 0.13) == pytest.approx((0, (score[15] + score[16]) / 2))
    # Where no band is needed, it holds what is less sure than all that was seen, and nothing that was seen.
    lowest = fit_band(given, 0.5)
    assert lowest == pytest.approx((0, score[-1]), abs=1e-5)
    calibration = Calibration("", 20, thresholds=(0.5, 0.5, 0.5), unsure=lowest)
    assert set(given.decisions(calibration)) == {"ok"}
    less = Answers(np.log([[score[-1] - 1e-4, 0.45 + 1e-4, 1e-30]]), np.array([0]), "softmax", CLASSES)
    assert less.decisions(calibration) == ["review"]


def fit_band(given: Answers, target_error: float) -> Unsure | None:
    from edgex.evaluation.calibration import _band

    return _band(given, Calibration("", len(given), thresholds=(0.5, 0.5, 0.5)), target_error)


def test_where_no_band_is_enough_everything_is_for_review() -> None:
    given = answers(300)
    wrong = dataclasses.replace(given, targets=np.where(np.arange(300) % 3 > 0, given.targets, 2 - given.targets))
    calibration = fit(wrong, [], 0.001)
    assert calibration.unsure == Unsure(0, 1) and set(wrong.decisions(calibration)) == {"review"}
    assert least_error(wrong, calibration) > 0.001
    assert fit(wrong, [], least_error(wrong, calibration)).unsure != Unsure(0, 1)


def test_what_is_measured_is_not_what_was_fitted_to() -> None:
    """On few pictures a band fits their mistakes: among those pictures it keeps its promise, among others less well."""
    fitted, unseen = np.zeros(2), np.zeros(2)
    for seed in range(30):
        given = answers(60, seed=seed)
        calibration = fit(given, [], 0.1)
        ok = np.array(given.decisions(calibration)) == "ok"
        fitted += given.wrong(calibration)[ok].sum(), ok.sum()
        quality = measure(given, [], 0.1)
        unseen += quality.wrong, quality.decided["ok"]
    assert fitted[0] / fitted[1] <= 0.1 < unseen[0] / unseen[1]


def test_alarms_are_counted() -> None:
    given = answers(2000, 2.0)
    quality = measure(given, ["crack"], 0.05)
    assert quality.alarm_pictures == (given.targets == 1).sum()
    assert quality.caught > 0.6 * quality.alarm_pictures
    assert quality.missed < 0.06 * quality.alarm_pictures
    assert quality.decided["alarm"] >= quality.caught
    assert measure(given, [], 0.05).decided["alarm"] == 0


def test_thresholds_have_the_best_f1_of_classes_that_enough_pictures_show() -> None:
    given = labels(500)
    rare = given.targets.copy()
    rare[:, 2] = np.arange(500) < 9
    found = fit(dataclasses.replace(given, targets=rare), [], 0.05)
    scores = dataclasses.replace(given, targets=rare).probabilities(found)
    assert found.thresholds is not None
    assert found.thresholds[:2] == best_thresholds(scores, rare)[:2]
    assert found.thresholds[2] == 0.5


def test_the_scale_of_evidence_is_that_of_typical_pictures() -> None:
    maps = np.zeros((5, 2, 4), np.float32)
    maps[:, 0] = 0.1
    maps[:, 0, 0] = [1, 2, 3, 4, 5]
    scale = evidence_scale(list(maps))
    assert scale is not None and scale.full == 3 and scale.floor == pytest.approx(0.05)
    assert evidence_scale(list(-maps - 1)) is None
