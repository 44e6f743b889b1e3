"""What a person types to reach a camera holds passwords: none is in what `edgex watch` prints or writes.

As real processes, since FFmpeg writes to standard error by itself.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import small_model
from servers import MULTIPART, Behaviour, Server, answer, multipart, silent
from streams import jpeg

pytest.importorskip("av")

SECRET = "s3cret"
MOVED = b"HTTP/1.0 302 Found\r\nLocation: http://127.0.0.1:9/other?token=s3cret\r\nConnection: close\r\n\r\n"
DENIED = b"HTTP/1.0 401 Unauthorized\r\nWWW-Authenticate: Basic realm=x\r\nConnection: close\r\n\r\n"


def says(data: bytes) -> Behaviour:
    def behave(connection: object, closing: object) -> None:
        connection.recv(1 << 16)  # type: ignore[attr-defined]
        connection.sendall(data)  # type: ignore[attr-defined]

    return behave


PICTURES = answer(multipart([jpeg(number) for number in range(5)]), MULTIPART, then=silent)
NOISE = answer(b"\xff\xd8\xff" + b"noise" * 500, "image/jpeg", length=2503)


@pytest.mark.parametrize(
    "url, behaviour",
    [
        ("http://admin:s3cret@{}/videostream.cgi?usr=admin&pwd=s3cret", PICTURES),
        ("http://{}/videostream.cgi?usr=admin&pwd=s3cret", says(MOVED)),
        ("http://admin:s3cret@{}/videostream.cgi", says(DENIED)),
        ("http://{}/snapshot.cgi?token=s3cret", NOISE),
        ("rtsp://{}/user=admin&password=s3cret&channel=1&stream=0.sdp", says(b"RTSP/1.0 454 s3cret\r\n\r\n")),
        ("rtsp://admin:s3/cret@{}/ch0", silent),
    ],
)
def test_no_password_in_what_is_printed(tmp_path: Path, url: str, behaviour: Behaviour) -> None:
    small_model.write(tmp_path / "model.onnx")
    with Server(behaviour) as server:
        command = [sys.executable, "-c", "from edgex.cli import main; main()", "watch", "model.onnx", "--retries", "0"]
        command += ["--source", url.format(server.address), "--timeout", "0.3", "--jsonl", "-"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    for secret in (SECRET, "s3/cret", "cret@", "admin"):
        assert secret not in done.stdout + done.stderr
    assert done.stderr.splitlines()
    assert all(line.startswith("edgex: ") for line in done.stderr.splitlines())
