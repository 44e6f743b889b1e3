"""Real servers around the small fused model, on free ports, in threads."""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from edgex.runtime import Session, decode_heatmap
from edgex.serving import Limits, Server
from small_model import write


class Served(httpx.Client):
    """A client of a running server, which is an attribute of it, as is the log."""

    def __init__(self, server: Server, log: list[str], **options: Any) -> None:
        super().__init__(base_url=server.url, timeout=30, trust_env=False, **options)
        self.server, self.log = server, log

    @property
    def address(self) -> tuple[str, int]:
        return str(self.base_url.host), int(self.base_url.port or 0)


@contextlib.contextmanager
def run_server(session: Session, *, token: str | None = None, **options: Any) -> Iterator[Served]:
    """Runs a server for the time of the block; its threads have ended afterwards."""
    log: list[str] = []
    names = [one for one in ("max_body_mb", "max_held_mb", "max_pictures", "max_pending", "timeout") if one in options]
    limits = Limits(**{name: options.pop(name) for name in names})
    server = Server(session, port=0, token=token, limits=limits, report=log.append, **options)
    thread = threading.Thread(target=server.run)
    thread.start()
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    try:
        with Served(server, log, headers=headers) as client:
            yield client
    finally:
        server.stop()
        thread.join(30)
        assert not thread.is_alive()
    assert not [one for one in threading.enumerate() if one.name.startswith("edgex ")]


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    with Session(write(tmp_path / "colours.onnx"), "cpu", threads=1) as opened:
        yield opened


@pytest.fixture
def serving() -> Callable[..., contextlib.AbstractContextManager[Served]]:
    """`with serving(session, ...) as client`: see `run_server`."""
    return run_server


@pytest.fixture
def serve(session: Session) -> Iterator[Callable[..., Served]]:
    """`serve(max_pending=2, ...)` gives a client of a running server of the small model."""
    with contextlib.ExitStack() as stack:
        yield lambda **options: stack.enter_context(run_server(session, **options))


@pytest.fixture
def client(serve: Callable[..., Served]) -> Served:
    return serve()


def encode(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


@pytest.fixture
def pictures() -> list[bytes]:
    """Five JPEG and PNG files of noise in several sizes."""
    rng = np.random.default_rng(5)
    sizes = [(90, 160), (64, 64), (48, 200), (200, 48), (33, 47)]
    drawn = [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for height, width in sizes]
    return [encode(pixels, "JPEG" if index % 2 else "PNG") for index, pixels in enumerate(drawn)]


def check_same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """The same answer but for what a batch changes: the last bits of sums, which may round a float16 up or down."""
    heatmap, expected_heatmap = (decode_heatmap(one["heatmap"]) for one in (found, wanted))
    np.testing.assert_allclose(heatmap, expected_heatmap, rtol=2e-3, atol=1e-5)
    assert found.keys() == wanted.keys()
    for key in found.keys() - {"heatmap", "explained", "top"}:
        assert found[key] == (pytest.approx(wanted[key], abs=1e-5) if key in ("score", "base") else wanted[key])
    assert found["explained"] == pytest.approx(wanted["explained"], abs=1e-5)
    for (label, probability), (other, expected) in zip(found["top"], wanted["top"], strict=True):
        assert label == other and probability == pytest.approx(expected, abs=1e-5)


@pytest.fixture
def same() -> Callable[[dict[str, Any], dict[str, Any]], None]:
    """`same(found, wanted)`: see `check_same`."""
    return check_same


class Held:
    """Holds up the passes of a session until it is released."""

    def __init__(self, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered, self.released, self.batches = threading.Semaphore(0), threading.Event(), list[int]()
        classify = session.classify

        def held(prepared: Any, explain: Any) -> Any:
            self.batches.append(len(prepared))
            self.entered.release()
            assert self.released.wait(30)
            return classify(prepared, explain)

        monkeypatch.setattr(session, "classify", held)


@pytest.fixture
def hold(session: Session, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Held]]:
    """`hold()`, after the server is made, holds up its passes until `released.set()` or the test's end."""
    held: list[Held] = []

    def make() -> Held:
        held.append(Held(session, monkeypatch))
        return held[-1]

    yield make
    for one in held:
        one.released.set()
