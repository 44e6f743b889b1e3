"""Simulated streams: how often a monitor warns of nothing, and what it finds. benchmarks/drift.py has larger ones."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence

import numpy as np
import pytest

from edgex.runtime import ArtefactError, Session
from edgex.runtime.drift import EVERY, FEWEST, LEVEL, WINDOW, DriftMonitor, autocorrelation_time, observation_of
from edgex.runtime.sketch import Observation, Sketch

NAMES = [f"class {number}" for number in range(6)]


def draw(
    seed: int,
    count: int,
    *,
    shift: float = 0.0,
    spread: float = 2.0,
    scene: int = 1,
    classes: int = 6,
    border: float = 3,
) -> list[Observation]:
    """Pictures of a normal operation: log odds of scores are normal, classes even. scene: frames that one lasts."""
    rng = np.random.default_rng(seed)
    which = np.arange(count) // scene
    odds = rng.normal(2 - shift, spread, count)[which]
    label = rng.integers(0, classes, count)[which]
    share, entropy = rng.beta(border, 8, count)[which], rng.beta(8, 2, count)[which]
    return [
        Observation(1 / (1 + float(np.exp(-odds[i]))), int(label[i]), float(share[i]), float(entropy[i]))
        for i in range(count)
    ]


def monitor(seed: int = 0, pictures: int = 1000) -> tuple[DriftMonitor, list[str]]:
    said: list[str] = []
    return DriftMonitor(Sketch.of(draw(seed, pictures), len(NAMES)), NAMES, said.append), said


def feed(to: DriftMonitor, seen: Sequence[Observation]) -> None:
    for observation in seen:
        to.observe(lambda value: value, observation)


def test_pictures_like_those_of_validation_raise_nothing() -> None:
    for seed in range(10):
        watched, said = monitor(2 * seed)
        feed(watched, draw(2 * seed + 1, 1500))
        assert (said, watched.raised, watched.warnings) == ([], 0, ())


def test_scenes_that_last_are_not_taken_for_many_pictures() -> None:
    for seed in range(5):
        watched, said = monitor(2 * seed)
        feed(watched, draw(2 * seed + 1, 1500, scene=20))
        assert said == []


@pytest.mark.parametrize(
    "how, quantity, words",
    [
        ({"shift": 2.5}, "score", "scores are lower than in validation: median 0."),
        ({"shift": -3}, "score", "scores are higher than in validation: median 0.9"),
        ({"spread": 0.3}, "score", "scores vary less than in validation: the middle half is 0.8"),
        ({"border": 12}, "border", "more evidence lies at the border than in validation: median share 0.3"),
        ({"classes": 1}, "classes", "classes come in other shares than in validation: class 0 100%, was 1"),
    ],
)
def test_what_changes_is_said_once_and_when_it_is_over(how: dict[str, float], quantity: str, words: str) -> None:
    watched, said = monitor()
    feed(watched, draw(1, 600))
    feed(watched, draw(2, 2 * WINDOW, **how))  # type: ignore[arg-type]
    assert len(said) == watched.raised == 1
    assert said[0].startswith(f"drift: {words}") and said[0].endswith(f", over the last {WINDOW} frames")
    (warning,) = watched.warnings
    assert warning.quantity == quantity and warning.distance >= warning.threshold >= 0.2
    assert warning.message.startswith(words[:20])
    assert json.loads(json.dumps(warning.to_dict()))["pictures"] == WINDOW
    feed(watched, draw(3, 2 * WINDOW))
    assert watched.warnings == () and watched.raised == 1
    assert len(said) == 2 and said[1].endswith(f"as in validation again, over the last {WINDOW} frames")


def test_a_difference_that_does_not_matter_is_not_reported() -> None:
    """However many pictures: the distance of these two distributions is 0.1."""
    watched, said = monitor(pictures=20_000)
    feed(watched, draw(1, 3000, shift=0.5))
    assert said == []


def test_few_pictures_of_validation_need_a_larger_difference() -> None:
    thresholds = []
    for pictures in (30, 1000):
        watched, _ = monitor(pictures=pictures)
        feed(watched, draw(1, 500, shift=6))
        (score,) = [warning for warning in watched.warnings if warning.quantity == "score"]
        thresholds.append(score.threshold)
    size = 1 / (1 / 500 + 1 / 30)
    # The scores' autocorrelation time is 1 but for chance.
    assert thresholds[0] == pytest.approx(np.sqrt(np.log(2 / LEVEL) / (2 * size)), rel=0.05)
    assert thresholds[1] < thresholds[0]


def test_many_classes_with_a_picture_each() -> None:
    """1000 classes, one picture of each in validation: even shares are not reported, one class alone is."""
    names = [str(number) for number in range(1000)]
    reference = Sketch.of([Observation(0.9, number, 0.3, 0.8) for number in range(1000)], 1000)
    rng = np.random.default_rng(0)
    for seen, raised in (([int(i) for i in rng.integers(0, 1000, 1000)], set()), ([7] * 1000, {"classes"})):
        watched = DriftMonitor(reference, names)
        feed(watched, [Observation(0.9, index, 0.3, 0.8) for index in seen])
        assert {warning.quantity for warning in watched.warnings} == raised


def test_at_most_one_frame_a_second_counts() -> None:
    watched, _ = monitor()
    calls = []
    for number, observation in enumerate(draw(1, 300)):
        watched.observe(lambda value: calls.append(1) or value, observation, time=number / 10)
    assert watched.live.pictures == len(calls) == 30
    # A source that was opened again counts from 0 again.
    watched.observe(lambda value: value, draw(1, 1)[0], time=0.0)
    assert watched.live.pictures == 31


def test_looks_begin_with_enough_pictures() -> None:
    watched, said = monitor()
    seen = draw(1, FEWEST + EVERY, shift=5)
    feed(watched, seen[: FEWEST - 1])
    assert said == []
    feed(watched, seen[FEWEST - 1 : FEWEST])
    assert said and f"over the last {FEWEST} frames" in said[0]


def test_the_window_forgets() -> None:
    watched, _ = monitor()
    seen = draw(1, WINDOW + 300)
    feed(watched, seen)
    assert watched.live == Sketch.of(seen[300:], len(NAMES))


@pytest.mark.parametrize("scene", [1, 5, 25])
def test_autocorrelation_time_of_scenes(scene: int) -> None:
    """Scenes of a geometric length with mean m have the time (1 + r) / (1 - r) with r = 1 - 1 / m."""
    rng = np.random.default_rng(0)
    lengths = rng.geometric(1 / scene, 20_000 // scene)
    wanted = 2 * scene - 1
    for numeric in (True, False):
        values = np.repeat(rng.integers(0, 6, len(lengths)), lengths)
        assert autocorrelation_time(values, numeric) == pytest.approx(wanted, rel=0.25)
    assert autocorrelation_time(np.full(100, 3), True) == autocorrelation_time(np.full(100, 3), False) == 1


def test_a_step_is_not_taken_for_a_scene() -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0, 1, 250), rng.normal(3, 1, 250)])
    assert autocorrelation_time(values, True, most=1.0) < 2 < autocorrelation_time(values, True)


def test_results_of_other_classes_than_the_predicted_one_are_left_out(session: Session, frame: np.ndarray) -> None:
    watched = DriftMonitor(Sketch.of([observation_of(session(frame))], 4), session.classes)
    predicted = session(frame)
    other = (predicted.index + 1) % 4
    assert watched.add(session(frame, explain=other)) == ()
    assert watched.live.pictures == 0
    watched.add(predicted)
    assert watched.live.pictures == 1


def test_a_sketch_of_another_model() -> None:
    with pytest.raises(ArtefactError, match="expected a sketch of 2 classes, found one of 6"):
        DriftMonitor(Sketch.of(draw(0, 10), 6), ["a", "b"])


def test_hostile_names_in_messages() -> None:
    said: list[str] = []
    names = ["\x1b[2J", *NAMES[1:]]
    watched = DriftMonitor(Sketch.of(draw(0, 500), 6), names, said.append)
    feed(watched, draw(1, 500, classes=1))
    assert said and said[0].isprintable() and r"\x1b[2J" in said[0]


def test_several_threads() -> None:
    watched, _ = monitor()
    threads = [threading.Thread(target=feed, args=(watched, draw(seed, 400))) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert watched.live.pictures == WINDOW
