"""One browser for all tests of pages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from browsers import Screen, chromium


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A headless Chromium."""
    folder = tmp_path_factory.mktemp("chromium")
    with chromium(folder) as found:
        found.downloads = folder / "downloads"
        yield found


@pytest.fixture
def screen(browser: Any) -> Screen:
    """The browser with short words for what a person does."""
    return Screen(browser)
