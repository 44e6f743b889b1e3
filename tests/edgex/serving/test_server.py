from __future__ import annotations

import io
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from edgex.errors import UsageError
from edgex.runtime import Session
from edgex.runtime.drift import FEWEST, observation_of
from edgex.runtime.frames import decode_picture
from edgex.runtime.sketch import Sketch
from edgex.serving import Limits, Server
from edgex.serving.request_log import RequestLog
from small_model import write

Client = Any


def test_sixteen_clients(client: Client, session: Session, pictures: list[bytes], same: Callable[..., None]) -> None:
    """Each with connections of its own, without a pause: no error, and every answer is the session's."""
    wanted = [session(decode_picture(data, "")).to_dict() for data in pictures]

    def ask(number: int) -> list[tuple[int, Any]]:
        with httpx.Client(base_url=client.base_url, timeout=60, trust_env=False) as own:
            order = [(number + step) % len(pictures) for step in range(6)]
            return [(index, own.post("/v1/predict", content=pictures[index])) for index in order]

    with ThreadPoolExecutor(16) as pool:
        answers = [answer for found in pool.map(ask, range(16)) for answer in found]
    assert len(answers) == 96
    for index, answer in answers:
        assert answer.status_code == 200, answer.text
        same(answer.json(), wanted[index])


def test_what_was_taken_on_is_finished(session: Session, hold: Callable[[], Any], pictures: list[bytes]) -> None:
    server = Server(session, port=0)
    held = hold()
    runs = threading.Thread(target=server.run)
    runs.start()
    with httpx.Client(base_url=server.url, timeout=30, trust_env=False) as client, ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(client.post, "/v1/predict", content=pictures[0])
        held.entered.acquire()
        server.stop()
        end = time.monotonic() + 20
        while time.monotonic() < end:
            try:
                socket.create_connection((client.base_url.host, client.base_url.port or 0)).close()
            except ConnectionRefusedError:
                break
        assert runs.is_alive()
        held.released.set()
        assert waiting.result(30).json()["label"] == session(decode_picture(pictures[0], "")).label
    runs.join(30)
    assert not runs.is_alive()
    assert session.classify([session.prepare(decode_picture(pictures[0], ""))], [None])


def test_readiness_ends_before_the_server(client: Client) -> None:
    client.server._service.batcher.close()
    assert client.get("/readyz").status_code == 503
    assert client.get("/healthz").status_code == 200


def test_addresses_that_cannot_be_had(session: Session) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            UsageError, match=f"cannot listen at 127.0.0.1, port {port}: Address already in use$"
        ) as caught:
            Server(session, port=port)
        assert caught.value.argument == "port"
    with pytest.raises(UsageError, match="expected a port from 0 to 65535, found 70000"):
        Server(session, port=70_000)
    with pytest.raises(UsageError, match="expected an address of this machine, found 'no such host'"):
        Server(session, host="no such host", token="0123456789abcdef", port=0)
    with pytest.raises(UsageError, match="expected a token to listen at 0.0.0.0, which other machines reach"):
        Server(session, host="0.0.0.0", port=0)
    assert not [one for one in threading.enumerate() if one.name.startswith("edgex ")]


def test_any_address_with_a_token(session: Session) -> None:
    server = Server(session, host="0.0.0.0", port=0, token="0123456789abcdef")
    assert server.url.startswith("http://0.0.0.0:")
    server.stop()
    server.run()


def test_drift_and_decisions(
    tmp_path: Path, pictures: list[bytes], serving: Callable[..., AbstractContextManager[Client]]
) -> None:
    """A calibrated file: answers have decisions, which are counted; other pictures than validation's are said, once."""
    drawn = np.random.default_rng(3).integers(0, 60, (120, 40, 60, 3), dtype=np.uint8)
    drawn[..., 0] += np.linspace(60, 190, 120).astype(np.uint8)[:, None, None]
    with Session(write(tmp_path / "plain.onnx"), "cpu", threads=1) as session:
        found = [observation_of(result) for result in session([*drawn])]
    calibration = {
        "data": "val",
        "pictures": len(found),
        "temperature": 2.0,
        "thresholds": [0.5] * 4,
        "sketch": Sketch.of(found, 4).to_dict(),
    }
    path = write(tmp_path / "calibrated.onnx", calibration=calibration)
    with Session(path, "cpu", threads=1) as session, serving(session, log_requests=False) as client:
        wanted = session(decode_picture(pictures[0], ""))
        assert wanted.decision is not None
        blue = io.BytesIO()
        Image.new("RGB", (60, 40), (10, 20, 250)).save(blue, "PNG")
        files = [("files", (f"{number}", blue.getvalue())) for number in range(30)]
        batches = FEWEST // 30 + 3
        for _ in range(batches):
            answers = client.post("/v1/batch", files=files).json()["results"]
            assert all(answer["label"] == "blue thing" and answer["decision"] for answer in answers)
        counts = client.get("/metrics").text
        assert f'edgex_decisions_total{{decision="{answers[0]["decision"]}"}} {30 * batches}.0' in counts
        assert 'edgex_drift{quantity="score"}' in counts
        assert client.post("/v1/predict", content=pictures[0]).json()["decision"] == wanted.decision
    assert client.log and len(set(client.log)) == len(client.log) and not any("POST" in line for line in client.log)


@pytest.mark.parametrize(
    ("changes", "argument"),
    [
        ({"max_body_mb": 0.0}, "max_body_mb"),
        ({"max_held_mb": float("nan")}, "max_held_mb"),
        ({"max_pending": -1}, "max_pending"),
        ({"timeout": float("inf")}, "timeout"),
        ({"max_pictures": 9, "max_pending": 8}, "max_pictures"),
    ],
)
def test_limits_out_of_range(changes: dict[str, Any], argument: str) -> None:
    with pytest.raises(UsageError, match="expected a") as caught:
        Limits(**changes)
    assert caught.value.argument == argument


def test_a_log_that_is_stuck_holds_up_nothing() -> None:
    """What comes on top is counted, and said once the log can be written again."""
    released, written = threading.Event(), list[str]()

    def write(line: str) -> None:
        assert released.wait(30)
        written.append(line)

    log = RequestLog(write)
    for number in range(1101):
        log.add(str(number))
    released.set()
    log.close()
    assert written[:3] == ["0", "1", "2"] and len(written) in (1001, 1002)
    left_out = 1101 - (len(written) - 1)
    assert written[-1] == f"{left_out} lines of the log were left out: they came faster than they could be written"


def test_it_needs_no_torch() -> None:
    code = "import sys, edgex.serving.server; print(*{'torch', 'timm', 'onnx', 'typer'} & set(sys.modules))"
    assert not subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
