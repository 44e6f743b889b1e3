from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from edgex.errors import ArtefactError, UsageError
from edgex.runtime import Session
from edgex.serving.batching import Batcher

Batchers = Callable[..., Batcher]


@pytest.fixture
def batchers(session: Session) -> Iterator[Batchers]:
    made: list[Batcher] = []

    def make(**options: Any) -> Batcher:
        made.append(Batcher(session, **options))
        return made[-1]

    yield make
    for batcher in made:
        batcher.close()
        assert not batcher.alive


@pytest.fixture
def frames() -> list[np.ndarray]:
    rng = np.random.default_rng(11)
    return [rng.integers(0, 256, (60, 80, 3), dtype=np.uint8) for _ in range(9)]


def test_pictures_that_wait_share_a_batch(
    session: Session, batchers: Batchers, frames: list[np.ndarray], hold: Callable[[], Any], same: Callable[..., None]
) -> None:
    """While the first is run, eight come: two full batches of four. Classes are mixed, answers are the session's."""
    seen: list[int] = []
    batcher = batchers(observe=lambda results, seconds: seen.append(len(results)))
    explain = [None, 0, 1, 2, 3, None, 2, 1, 0]
    wanted = [session(frame, explain=number).to_dict() for frame, number in zip(frames, explain, strict=True)]
    held = hold()
    prepared = [session.prepare(frame) for frame in frames]
    futures = [batcher.submit(prepared[0], explain[0])]
    held.entered.acquire()
    futures += [batcher.submit(one, number) for one, number in zip(prepared[1:], explain[1:], strict=True)]
    assert batcher.waiting == 8
    held.released.set()
    for future, answer in zip(futures, wanted, strict=True):
        same(future.result(30).to_dict(), answer)
    batcher.close()
    assert held.batches == seen == [1, 4, 4]


def test_most_and_window(session: Session, batchers: Batchers, frames: list[np.ndarray]) -> None:
    """With a window, pictures that come one after the other share a batch, of the size that is allowed."""
    seen: list[int] = []
    batcher = batchers(most=3, window=5.0, observe=lambda results, seconds: seen.append(len(results)))
    for future in [batcher.submit(session.prepare(frame), None) for frame in frames]:
        future.result(30)
    batcher.close()
    assert seen == [3, 3, 3]


def test_a_window_ends(session: Session, batchers: Batchers, frames: list[np.ndarray]) -> None:
    batcher = batchers(window=0.01)
    assert batcher.submit(session.prepare(frames[0]), 2).result(30).explained == "blue thing"


def test_cancelled_pictures_are_not_run(
    session: Session, batchers: Batchers, frames: list[np.ndarray], hold: Callable[[], Any]
) -> None:
    batcher, held = batchers(), hold()
    futures = [batcher.submit(session.prepare(frames[0]), None)]
    held.entered.acquire()
    futures += [batcher.submit(session.prepare(frame), None) for frame in frames[1:4]]
    assert futures[2].cancel()
    held.released.set()
    for index in (0, 1, 3):
        futures[index].result(30)
    assert held.batches == [1, 2]


def test_a_picture_that_cannot_be_run_fails_alone(
    session: Session, batchers: Batchers, frames: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = session.prepare(frames[3])
    classify = session.classify

    def failing(prepared: Sequence[Any], explain: Sequence[Any]) -> Any:
        if bad in prepared:
            raise ArtefactError("expected finite scores, found NaN or infinity")
        return classify(prepared, explain)

    monkeypatch.setattr(session, "classify", failing)
    batcher = batchers(window=5.0)
    futures = [batcher.submit(session.prepare(frame), None) for frame in frames[:3]]
    futures.append(batcher.submit(bad, None))
    assert [future.result(30).label for future in futures[:3]] == [session(frame).label for frame in frames[:3]]
    with pytest.raises(ArtefactError, match="finite scores"):
        futures[3].result(30)


def test_what_is_in_the_queue_is_run_before_the_end(session: Session, frames: list[np.ndarray]) -> None:
    batcher = Batcher(session)
    futures = [batcher.submit(session.prepare(frame), None) for frame in frames]
    batcher.close()
    assert all(future.done() for future in futures) and not batcher.alive


@pytest.mark.parametrize("options", [{"most": 0}, {"most": 5}, {"window": -1.0}, {"window": 11.0}])
def test_numbers_out_of_range(session: Session, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="expected [01] to") as caught:
        Batcher(session, **options)
    assert caught.value.argument in ("max_batch", "batch_window_ms")
