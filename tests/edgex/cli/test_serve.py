"""`edgex serve` as a process."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgex import samples
from small_model import write

Start = Callable[..., tuple[subprocess.Popen[str], str]]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write(tmp_path / "colours.onnx")


@pytest.fixture
def start(model: Path) -> Iterator[Start]:
    """`start(*options, **environment)` -> a running `edgex serve`, and, unless `first` is False, its first line."""
    running: list[subprocess.Popen[str]] = []

    def run(*options: str, first: bool = True, **environment: str) -> tuple[subprocess.Popen[str], str]:
        command = [sys.executable, "-m", "edgex", "serve", str(model), "--port", "0", *options]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
        )
        running.append(process)
        assert process.stderr is not None
        return process, process.stderr.readline() if first else ""

    yield run
    for process in running:
        process.kill()
        process.communicate(timeout=30)


def address_in(line: str) -> str:
    found = re.search(r"at (http://[^ ]+/) ", line)
    assert found, line
    return found[1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_begins_with_one_line_and_ends_with_0(start: Start, number: signal.Signals) -> None:
    process, line = start()
    address = address_in(line)
    assert line == f"edgex: colours.onnx on cpu at {address} until Ctrl-C; see {address}docs\n"
    picture = samples.paths()[0].read_bytes()
    request = urllib.request.Request(f"{address}v1/predict", picture, {"X-Request-ID": "first"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert b'"heatmap"' in answer.read()
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "")
    assert re.fullmatch(r"edgex: first POST /v1/predict 200 \d+\.\d ms\n", err), err


def test_a_token_from_the_environment(start: Start) -> None:
    """It is neither shown nor logged, and the listening address may be any."""
    token = "correct-horse-battery"
    process, line = start("--host", "0.0.0.0", "--no-request-log", EDGEX_TOKEN=token)
    address = address_in(line).replace("0.0.0.0", "127.0.0.1")
    request = urllib.request.Request(f"{address}v1/model", headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.status == 200
    with pytest.raises(urllib.error.HTTPError, match="401") as caught:
        urllib.request.urlopen(f"{address}v1/model", timeout=60)
    caught.value.close()
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "", "")
    assert token not in line


def test_quiet_leaves_errors_and_the_log_has_every_line(start: Start, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = tmp_path / "serve.log"
    process, _ = start("--port", str(port), "--quiet", "--log-file", str(log), first=False)
    end = time.monotonic() + 60
    while not (log.exists() and " at http://" in log.read_text("utf-8")) and time.monotonic() < end:
        time.sleep(0.05)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/model", timeout=60) as answer:
        assert answer.status == 200
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=60) == ("", "") and process.returncode == 0
    command, address, request = (line.split(" ", 1)[1] for line in log.read_text("utf-8").splitlines())
    assert re.fullmatch(r"edgex \S+: .*edgex serve", command) and f"at http://127.0.0.1:{port}/ until" in address
    assert re.fullmatch(r"edgex: \w+ GET /v1/model 200 \d+\.\d ms", request)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--host", "0.0.0.0"], "--token-file: expected a token to listen at 0.0.0.0, which other machines reach"),
        (["--token-file", "nowhere"], "--token-file: expected a file with a token, found nowhere: No such file"),
        (["--port", "70000"], "--port: expected a port from 0 to 65535, found 70000"),
        (["--max-batch", "5"], "--max-batch: expected 1 to 4 pictures, as the file allows, found 5"),
        (["--batch-window-ms", "-1"], "--batch-window-ms: expected 0 to 10000 ms, found -1"),
        (["--timeout", "0"], "--timeout: expected a number above 0, found 0.0"),
        (["--max-pictures", "200"], "--max-pictures: expected at most max_pending, 128, found 200"),
        (["--threads", "0"], "--threads: expected at least 1 thread, found 0"),
    ],
)
def test_wrong_usage_is_one_line(
    model: Path, options: list[str], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from edgex.cli import main

    monkeypatch.delenv("EDGEX_TOKEN", raising=False)
    monkeypatch.setattr(sys, "argv", ["edgex", "serve", str(model), *options])
    with pytest.raises(SystemExit) as ending:
        main()
    said = capsys.readouterr()
    assert (ending.value.code, said.out) == (2, "")
    assert said.err.startswith(f"edgex: error: {words}") and said.err.count("\n") == 1


def test_the_documented_unit(tmp_path: Path) -> None:
    """systemd understands it, and its command has the options that it gives."""
    page = (Path(__file__).resolve().parents[3] / "docs" / "serve.md").read_text(encoding="utf-8")
    unit = page.partition("```ini\n")[2].partition("```")[0]
    command = re.search("^ExecStart=/opt/edgex/bin/edgex serve (.+)$", unit, re.MULTILINE)
    assert command is not None
    from typer.main import get_command

    from edgex.cli.application import app

    serve = get_command(app).commands["serve"]  # type: ignore[attr-defined]
    serve.make_context("serve", command[1].split())
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze here")
    path = tmp_path / "edgex.service"
    path.write_text(unit.replace("/opt/edgex/bin/edgex", "/bin/true"), encoding="utf-8")
    done = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_models_that_are_not_exported(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from edgex.cli import main

    monkeypatch.setattr(sys, "argv", ["edgex", "serve", "cars"])
    with pytest.raises(SystemExit):
        main()
    assert "MODEL: expected an exported file (.onnx, .engine), found 'cars'" in capsys.readouterr().err


def test_without_the_extra_it_names_it(model: Path) -> None:
    """What pip did not install does not import."""
    code = (
        "import sys; sys.modules['fastapi'] = None; import edgex.cli;"
        f"sys.argv = ['edgex', 'serve', {str(model)!r}]; edgex.cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "edgex: error: this command needs the package fastapi: pip install '.[serve]' in a clone" in done.stderr
