"""A real browser for tests, and short words for what they do with it. Skips where none is installed."""

from __future__ import annotations

import base64
import io
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

WIDTH, HEIGHT = 1280, 900


@contextmanager
def chromium(folder: Path) -> Iterator[Any]:
    """A headless Chromium. folder: where it keeps its profile and puts downloads."""
    pytest.importorskip("selenium", reason="selenium is not installed")
    binary = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("no chromium with chromedriver on this machine")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (
        "headless",
        "no-sandbox",
        "disable-gpu",
        "disable-quic",
        "no-first-run",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
        f"user-data-dir={folder / 'profile'}",
        f"window-size={WIDTH},{HEIGHT}",
    ):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    (folder / "downloads").mkdir(exist_ok=True)
    behaviour = {"behavior": "allow", "downloadPath": str(folder / "downloads")}
    found.execute_cdp_cmd("Browser.setDownloadBehavior", behaviour)
    try:
        yield found
    finally:
        found.quit()


class Screen:
    """What a person sees and does. driver: of `chromium`."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, url: str, *, width: int = WIDTH, height: int = HEIGHT, dark: bool = False) -> None:
        """Loads a page into a window of so many CSS pixels."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
        # The page before may still complain that its server is gone.
        self.driver.get("about:blank")
        self.driver.get_log("browser")
        self.driver.get(url)

    def run(self, script: str, *arguments: Any) -> Any:
        """What a script returns, such as "return current.frame"."""
        return self.driver.execute_script(script, *arguments)

    def all(self, selector: str) -> list[Any]:
        """Elements of a CSS selector."""
        return list(self.driver.find_elements("css selector", selector))

    def text(self, name: str) -> str:
        """Of the element with an id; empty where it is hidden."""
        return str(self.driver.find_element("id", name).text)

    def click(self, selector: str) -> None:
        self.driver.find_element("css selector", selector).click()

    def type(self, text: str) -> None:
        """Presses keys wherever the focus is."""
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(text).perform()

    def until(self, condition: Callable[[], object]) -> None:
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.driver, 30, poll_frequency=0.1).until(lambda _: condition())

    def pixels(self, name: str) -> np.ndarray:
        """uint8 [H, W, 4] of the canvas with an id."""
        url = self.run("return document.getElementById(arguments[0]).toDataURL()", name)
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGBA"))

    def drawn(self) -> np.ndarray:
        """float [H, W, 3]: the page's frame with the heatmap over it."""
        heat = self.pixels("heat").astype(float)
        alpha = heat[..., 3:] / 255
        return self.pixels("frame")[..., :3] * (1 - alpha) + heat[..., :3] * alpha

    def complaints(self, but: str = "") -> list[str]:
        """What the browser itself reported as errors, but for those that mention a text."""
        messages = [str(entry["message"]) for entry in self.driver.get_log("browser")]
        return [message for message in messages if not but or but not in message]

    def unreadable(self) -> list[str]:
        """Texts whose contrast with what lies behind them is below 4.5, WCAG 2.2, 1.4.3; with the ratio."""
        return list(self.run(_CONTRAST))

    def small_targets(self) -> list[str]:
        """What is clicked and is less than 44 pixels high or wide."""
        return list(self.run(_TARGETS))


_CONTRAST = """
const parsed = (text) => { const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number); return [r, g, b, a]; };
const light = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
const luminance = ([r, g, b]) => 0.2126 * light(r) + 0.7152 * light(g) + 0.0722 * light(b);
const behind = (element) => {
  for (let at = element; at !== null; at = at.parentElement) {
    const colour = parsed(getComputedStyle(at).backgroundColor);
    if (colour[3] === 1) return colour;
  }
  return [255, 255, 255];
};
const fill = document.createElement("i");
fill.style.color = "var(--fill)";
document.body.append(fill);
const bad = [];
for (const element of document.querySelectorAll("body *")) {
  const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  if (!own || element.getClientRects().length === 0 || element.closest("canvas, .unseen")) continue;
  const grounds = [behind(element)];
  if (element.closest("#top button")) grounds.push(parsed(getComputedStyle(fill).color));
  for (const ground of grounds) {
    const both = [luminance(parsed(getComputedStyle(element).color)), luminance(ground)].sort((a, b) => b - a);
    const ratio = (both[0] + 0.05) / (both[1] + 0.05);
    if (ratio < 4.5) bad.push(`${ratio.toFixed(2)} ${element.tagName} ${element.textContent.trim().slice(0, 40)}`);
  }
}
fill.remove();
return bad;
"""
_TARGETS = """
const bad = [];
for (const element of document.querySelectorAll("button, input, label.check")) {
  const box = element.type === "checkbox" ? element.closest("label").getBoundingClientRect()
    : element.getBoundingClientRect();
  if (box.width && (box.width < 44 || box.height < 44)) {
    bad.push(`${element.id || element.textContent} ${box.width}x${box.height}`);
  }
}
return bad;
"""
