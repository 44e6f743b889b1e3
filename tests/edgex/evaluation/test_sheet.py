from __future__ import annotations

import numpy as np

from edgex.evaluation.sheet import grid, sheet


def test_pictures_stand_side_by_side_at_one_height() -> None:
    red = np.zeros((100, 50, 3), np.uint8)
    red[..., 0] = 255
    blue = np.zeros((40, 40, 3), np.uint8)
    blue[..., 2] = 255
    pixels = np.asarray(sheet([("a", [red, blue]), ("b", [blue]), ("c", [red])], height=80, columns=2))
    assert (pixels == (255, 0, 0)).all(axis=-1).sum() == 2 * 80 * 40
    assert (pixels == (0, 0, 255)).all(axis=-1).sum() == 2 * 80 * 80
    top = np.flatnonzero((pixels == (255, 0, 0)).all(axis=-1).any(axis=0))[0]
    assert (pixels[60, top] == (255, 0, 0)).all()


def test_a_grid_has_a_column_for_every_title() -> None:
    red, blue = np.zeros((50, 50, 3), np.uint8), np.zeros((40, 40, 3), np.uint8)
    red[..., 0], blue[..., 2] = 255, 255
    rows = [("first", [red, blue]), ("second", [blue, red])]
    pixels = np.asarray(grid(["input", "a title that is much longer than its column"], rows, side=60))
    for colour in ((255, 0, 0), (0, 0, 255)):
        assert (pixels == colour).all(axis=-1).sum() == 2 * 60 * 60
    first, second = (pixels[top : top + 60] == (255, 0, 0) for top in (52, 142))
    assert first[:, 8:68].all()
    assert second[:, 76:136].all()
    title = (pixels[:28] < 128).all(axis=-1)
    assert np.flatnonzero(title.any(axis=0)).max() < 8 + 60 + 8 + 60
