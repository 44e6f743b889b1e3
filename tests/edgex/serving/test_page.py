"""The documentation's page in a real browser: everything it shows comes from the server, and its try-outs work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from browsers import Screen, chromium


def test_the_documentation_in_a_browser(serve: Callable[..., Any], tmp_path: Path) -> None:
    client = serve()
    with chromium(tmp_path) as driver:
        screen = Screen(driver)
        screen.open(f"{client.base_url}docs")
        screen.until(lambda: len(screen.all(".opblock")) == 6)
        words = screen.run("return document.body.innerText")
        assert "/v1/predict" in words and "Classify several pictures" in words
        screen.click("#operations-state-model_v1_model_get .opblock-summary-control")
        screen.until(lambda: screen.all("#operations-state-model_v1_model_get .try-out__btn"))
        screen.click("#operations-state-model_v1_model_get .try-out__btn")
        screen.until(lambda: screen.all("#operations-state-model_v1_model_get .execute"))
        screen.click("#operations-state-model_v1_model_get .execute")
        screen.until(lambda: '"green thing"' in screen.run("return document.body.innerText"))
        loaded = screen.run("return performance.getEntriesByType('resource').map((entry) => entry.name)")
        assert loaded and all(name.startswith((str(client.base_url), "data:")) for name in loaded)
        assert screen.complaints() == []
        driver.save_screenshot(str(tmp_path / "docs.png"))
