from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgex.runtime import Session
from export_checks import centred_of, session


@pytest.mark.parametrize("kind", ["fp32", "fp16", "dynamic", "static"])
def test_one_picture_with_five_classes_is_five_runs_of_one_class(
    exported: Callable[[str], Any], small_pictures: np.ndarray, kind: str
) -> None:
    file = session(exported(kind)[0])
    image, explain = small_pictures[:1], np.array([-1, 4, 0, 4, 6])
    logits, heatmap, base = file.run(None, {"image": image, "explain_class": explain})
    assert logits.shape == (1, 7) and heatmap.shape == (5, 10, 10) and base.shape == (5,)
    for index, number in enumerate(explain):
        one = file.run(None, {"image": image, "explain_class": np.array([number])})
        for together, alone in zip((logits, heatmap[index : index + 1], base[index : index + 1]), one, strict=True):
            assert np.allclose(together, alone, atol=1e-5)
    centred = centred_of(np.repeat(logits, 5, axis=0), explain)
    assert np.abs(heatmap.sum((1, 2)) + base - centred).max() < 1e-4


def test_several_pictures_with_another_number_of_classes_are_refused(
    exported: Callable[[str], Any], small_pictures: np.ndarray
) -> None:
    with pytest.raises(Exception, match="[Bb]roadcast"):
        session(exported("fp32")[0]).run(None, {"image": small_pictures[:2], "explain_class": np.arange(3)})


def test_a_session_runs_an_export_once_for_many_classes(
    exported: Callable[[str], Any], small_pictures: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More classes than the largest batch: only a shared pass takes them at once."""
    opened = Session(exported("fp32")[0], "cpu")
    assert opened.shares_classes and opened.metadata.max_batch == 8
    ran: list[tuple[int, int]] = []
    run = opened._backend.run

    def counted(image: np.ndarray, explain: np.ndarray) -> Any:
        ran.append((len(image), len(explain)))
        return run(image, explain)

    monkeypatch.setattr(opened._backend, "run", counted)
    together = opened(small_pictures[0], explain=[*range(7), None, 2, 3])
    assert ran == [(1, 10)]
    for number, result in enumerate(together[:7]):
        alone = opened(small_pictures[0], explain=number)
        assert result.explained_index == number and np.allclose(result.heatmap, alone.heatmap, atol=1e-5)
        assert np.allclose(result.heatmap.sum() + result.base, alone.heatmap.sum() + alone.base, atol=1e-4)
