"""`edgex watch` as a user meets it: sources, sinks, exit codes, one-line errors, Ctrl-C."""

from __future__ import annotations

import http.client
import inspect
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import small_model
from edgex.cli import main
from edgex.runtime import Session
from edgex.runtime.drawing.options import Drawing
from edgex.runtime.watch.sources.open_source import TIMEOUT
from servers import MULTIPART, Server, answer, drip, multipart, silent
from streams import LABELS, coloured, jpeg, write_video

Watch = Callable[..., tuple[int, str, str]]


@pytest.fixture
def watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Watch]:
    """Runs `edgex watch model.onnx ...` in a folder of its own: exit code, standard output, standard error."""
    small_model.write(tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    ending = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
    handlers = [signal.getsignal(number) for number in ending]

    def call(*arguments: str, model: str = "model.onnx") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["edgex", "watch", model, *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return int(end.value.code or 0), captured.out, captured.err

    yield call
    assert [signal.getsignal(number) for number in ending] == handlers
    assert [thread.name for thread in threading.enumerate() if thread.name == "edgex page"] == []


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder: red, green and blue."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(3):
        Image.fromarray(coloured(number)).save(folder / f"{number}.png")
    return folder


def error_line(stderr: str) -> str:
    lines = [line for line in stderr.splitlines() if line.startswith("edgex: error: ")]
    assert len(lines) == 1, stderr
    return lines[0]


def test_a_folder_line_by_line(watch: Watch, pictures: Path) -> None:
    code, out, err = watch("--source", "pictures")
    assert code == 0
    lines = out.splitlines()
    assert len(lines) == 3
    for number, line in enumerate(lines):
        assert re.fullmatch(rf"pictures/{number}\.png: {LABELS[number]} \d+\.\d%, .*, .*", line)
    assert re.search(r"edgex: pictures: 3 frames in .* s \(.*/s\); latency ms p50 .*, p95 .*, p99 .* on cpu", err)


def test_json_lines_say_what_the_session_says(watch: Watch, pictures: Path) -> None:
    code, out, _ = watch("--source", "pictures", "--jsonl", "-", "--explain", "nothing", "--top", "2")
    assert code == 0
    session = Session("model.onnx")
    lines = out.splitlines()
    assert len(lines) == 3
    for number, line in enumerate(lines):
        found = json.loads(line)
        wanted = session(coloured(number), explain="nothing").to_dict(2)
        assert {key: found[key] for key in wanted} == wanted


def test_all_sinks_at_once(watch: Watch, pictures: Path, tmp_path: Path) -> None:
    pytest.importorskip("av")
    sinks = ("--video", "out/a.mp4", "--folder", "frames", "--jsonl", "out/a.jsonl")
    code, out, _ = watch("--source", "pictures", *sinks)
    assert (code, out) == (0, "")
    assert [json.loads(line)["label"] for line in Path("out/a.jsonl").read_text().splitlines()] == list(LABELS)
    assert len(list(Path("frames").iterdir())) == 3
    assert sorted(path.name for path in Path("out").iterdir()) == ["a.jsonl", "a.mp4"]
    for option in (("--video", "out/a.mp4"), ("--jsonl", "out/a.jsonl"), ("--folder", "frames")):
        code, _, err = watch("--source", "pictures", *option)
        assert code == 2
        assert "force" in error_line(err)
    assert watch("--source", "pictures", *sinks, "--force", "--limit", "2")[0] == 0
    assert sorted(path.name for path in Path("frames").iterdir()) == ["000000.red-thing.jpg", "000001.green-thing.jpg"]
    # What was written is a source again.
    code, out, _ = watch("--source", "out/a.mp4", "--limit", "2")
    assert code == 0
    assert [line.partition(": ")[2].partition(" 9")[0][:3] for line in out.splitlines()] == ["red", "gre"]


def test_opacity_and_rate_of_what_is_written(watch: Watch, pictures: Path) -> None:
    """Without opacity the upper part, above the caption, is the picture itself."""
    av = pytest.importorskip("av")
    code, _, _ = watch("--source", "pictures", "--folder", "a", "--video", "a.mkv", "--opacity", "0", "--fps", "8")
    assert code == 0
    with av.open("a.mkv") as container:
        frames = list(container.decode(video=0))
    assert [frame.time for frame in frames] == [0, 0.125, 0.25]
    for number, (path, frame) in enumerate(zip(sorted(Path("a").iterdir()), frames, strict=True)):
        for found in (np.asarray(Image.open(path)), frame.to_ndarray(format="rgb24")):
            assert np.abs(found[:30].astype(int) - coloured(number)[:30]).mean() < 6
    assert watch("--source", "pictures", "--folder", "b")[0] == 0
    drawn = np.asarray(Image.open(next(Path("b").iterdir())))
    assert np.abs(drawn[:30].astype(int) - coloured(0)[:30]).mean() > 20


def test_every_option_arrives(watch: Watch, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import edgex.runtime
    from edgex.runtime.watch.page import page

    arguments: dict[str, Any] = {}

    def record(module: ModuleType, name: str) -> None:
        real = getattr(module, name)

        def call(*given: Any, **named: Any) -> Any:
            arguments.update(inspect.signature(real).bind(*given, **named).arguments)
            return real(*given, **named)

        monkeypatch.setattr(module, name, call, raising=False)

    for name in ("Session", "Stream", "open_source"):
        record(edgex.runtime, name)
    record(page, "Page")
    options: tuple[str, ...] = (
        "--policy",
        "every",
        "--explain",
        "nothing",
        "--fps",
        "90",
        "--limit",
        "2",
        "--loop",
        "--retries",
        "7",
        "--timeout",
        "3",
    )
    options += ("--threads", "2", "--fast-resize", "--provider", "cpu", "--fit", "pad")
    code, out, _ = watch("--source", "pictures", *options, "--top", "1")
    assert (code, len(out.splitlines())) == (0, 2)
    assert all(
        re.fullmatch(r"pictures/.*: \w+ thing [\d.]+% \(explained: nothing\)", line) for line in out.splitlines()
    )
    wanted = {"policy": "every", "explain": "nothing", "fps": 90, "limit": 2, "loop": True, "retries": 7, "threads": 2}
    wanted |= {
        "timeout": 3,
        "follow": False,
        "interval": 1 / 90,
        "provider": "cpu",
        "exact_resize": False,
        "fit": "pad",
        "provider_options": None,
    }
    assert {name: arguments[name] for name in wanted} == wanted
    assert watch("--source", "pictures", "--provider", "cpu", "--provider-option", "a=1")[0] == 2
    assert arguments["provider_options"] == {"a": "1"}
    assert arguments["exact_resize"] is True
    assert watch("--source", "pictures", "--follow", "--timeout", "0.1")[0] == 0
    assert (arguments["follow"], arguments["interval"], arguments["timeout"]) == (True, 1.0, 0.1)
    assert watch("--source", "pictures", "--http", "127.0.0.1:99999", "--opacity", "0.25")[0] == 2
    assert arguments["port"] == 99999
    drawn = ("--style", "contour", "--colormap", "viridis", "--dim", "--no-legend")
    assert watch("--source", "pictures", "--http", "99999", "--opacity", "0.25", *drawn)[0] == 2
    assert arguments["drawing"] == Drawing("viridis", 0.25, "contour", dim=True, legend=False)


def test_a_pipe_of_pictures_and_of_paths(watch: Watch, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"".join((pictures / f"{number}.png").read_bytes() for number in range(3))
    paths = "".join(f"pictures/{number}.png\n" for number in range(3)).encode()
    for given in (data, paths):
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(given)))
        code, out, _ = watch("--source", "-")
        assert code == 0
        assert [label in line for label, line in zip(LABELS, out.splitlines(), strict=True)] == [True] * 3


@pytest.mark.parametrize("content", [b"no picture", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"])
def test_a_bad_picture_costs_the_exit_code_and_not_the_others(watch: Watch, pictures: Path, content: bytes) -> None:
    (pictures / "1.png").write_bytes(content)
    code, out, err = watch("--source", "pictures")
    assert code == 1
    assert len(out.splitlines()) == 2
    assert "pictures/1.png: expected a picture" in err
    assert "1 unreadable" in err
    code, quietly, err = watch("--source", "pictures", "--quiet")
    assert (code, quietly) == (1, out)
    assert err.startswith("edgex: pictures/1.png: expected a picture") and err.count("\n") == 1


def test_policy_limit_fps_and_loop(watch: Watch, pictures: Path) -> None:
    start = time.monotonic()
    code, out, _ = watch("--source", "pictures", "--loop", "--limit", "7", "--fps", "50", "--threads", "1")
    assert (code, len(out.splitlines())) == (0, 7)
    assert time.monotonic() - start >= 6 / 50
    code, out, err = watch("--source", "pictures", "--policy", "latest")
    dropped = re.search(r"(\d+) dropped", err)
    assert code == 0
    assert len(out.splitlines()) + (int(dropped.group(1)) if dropped else 0) == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_ends_it_cleanly(watch: Watch, pictures: Path, number: signal.Signals) -> None:
    pytest.importorskip("av")

    def interrupt() -> None:
        while not Path("a.jsonl").exists() or Path("a.jsonl").read_text().count("\n") < 5:
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    killer = threading.Thread(target=interrupt)
    killer.start()
    code, _, err = watch("--source", "pictures", "--loop", "--video", "a.mkv", "--jsonl", "a.jsonl", "--fps", "30")
    killer.join()
    assert code == 0
    lines = [json.loads(line) for line in Path("a.jsonl").read_text().splitlines()]
    assert f"edgex: pictures: {len(lines)} frames in" in err
    code, out, _ = watch("--source", "a.mkv")
    assert code == 0
    assert len(out.splitlines()) == len(lines) >= 5


def test_a_folder_that_fills(watch: Watch, pictures: Path) -> None:
    thread = threading.Timer(2.0, lambda: Image.fromarray(coloured(1)).save(pictures / "0 new.png"))
    thread.start()
    code, out, _ = watch("--source", "pictures", "--follow", "--limit", "4")
    thread.join()
    assert code == 0
    assert [line.partition(":")[0] for line in out.splitlines()] == [
        "pictures/0.png",
        "pictures/1.png",
        "pictures/2.png",
        "pictures/0 new.png",
    ]


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(pictures: Path, tmp_path: Path) -> Iterator[Start]:
    """Starts `edgex watch model.onnx --source pictures --loop ...` as a process of its own; standard error is kept."""
    small_model.write(tmp_path / "model.onnx")
    begun: list[subprocess.Popen[str]] = []

    def call(*arguments: str, **options: Any) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", "from edgex.cli import main; main()", "watch", "model.onnx", "--loop"]
        command += ["--source", "pictures", "--threads", "1", *arguments]
        begun.append(subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, **options))
        return begun[-1]

    yield call
    for process in begun:
        process.kill()
        process.communicate()


def wait_for_lines(path: Path, count: int) -> None:
    while not path.exists() or path.read_text().count("\n") < count:
        time.sleep(0.02)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_killed_run_leaves_a_video_that_plays(start: Start, tmp_path: Path, suffix: str) -> None:
    av = pytest.importorskip("av")
    process = start("--video", f"a{suffix}", "--jsonl", "a.jsonl")
    wait_for_lines(tmp_path / "a.jsonl", 30)
    process.kill()
    process.wait()
    (left,) = tmp_path.glob(f".a{suffix}.*.part")
    with av.open(str(left)) as container:
        # The second that was being written is lost in .mkv, a picture in .mp4.
        assert sum(1 for _ in container.decode(video=0)) >= 20
    again = start("--video", f"a{suffix}", "--limit", "3")
    assert again.wait() == 0
    assert again.stderr is not None
    assert f"edgex: {left.name}: a recording that was not finished" in again.stderr.read()
    assert left.exists()


def test_a_closed_terminal_finishes_the_files(start: Start, tmp_path: Path) -> None:
    """Closing the window hangs up, and nothing can be written to the terminal any more."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    process = start("--video", "a.mkv", "--jsonl", "a.jsonl", "--fps", "50", stdin=theirs, start_new_session=True)
    os.close(theirs)
    wait_for_lines(tmp_path / "a.jsonl", 5)
    os.close(ours)
    process.send_signal(signal.SIGHUP)
    assert process.wait(60) == 0
    assert list(tmp_path.glob(".*.part")) == []
    assert (tmp_path / "a.mkv").stat().st_size > 0


def test_nohup_keeps_it_running(start: Start, tmp_path: Path) -> None:
    process = start(
        "--jsonl", "a.jsonl", "--fps", "50", preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)
    )
    wait_for_lines(tmp_path / "a.jsonl", 3)
    process.send_signal(signal.SIGHUP)
    wait_for_lines(tmp_path / "a.jsonl", (tmp_path / "a.jsonl").read_text().count("\n") + 3)
    process.send_signal(signal.SIGQUIT)
    assert process.wait(60) == 0


@pytest.mark.parametrize("sink", ["--video", "--jsonl", "--folder"])
def test_a_disk_that_fills_ends_the_run_with_one_line(start: Start, tmp_path: Path, sink: str) -> None:
    """A limit on the size of files stands for the disk."""
    import resource

    av = pytest.importorskip("av")
    size = {"--video": 30_000, "--jsonl": 5_000, "--folder": 200}[sink]
    name = {"--video": "a.mp4", "--jsonl": "a.jsonl", "--folder": "out"}[sink]
    process = start(sink, name, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)))
    assert process.wait(60) == 1
    assert process.stderr is not None
    lines = process.stderr.read().splitlines()
    assert [line.startswith("edgex: ") for line in lines] == [True] * 2
    assert re.match(rf"edgex: error: cannot write {name}.* \(File too large\): .*free space", lines[1])
    assert "frames in" in lines[0]
    assert list(tmp_path.rglob("*.part")) == []
    if sink == "--video":
        with av.open(str(tmp_path / name)) as container:
            assert next(container.decode(video=0), None) is not None
    if sink == "--jsonl":
        whole = (tmp_path / name).read_text().splitlines()[:-1]
        assert [json.loads(line)["frame"] for line in whole] == list(range(len(whole)))


def test_frames_go_on_where_one_of_two_files_cannot_be_written(start: Start, tmp_path: Path) -> None:
    import resource

    limit = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, 5_000))}
    process = start("--jsonl", "a.jsonl", "--folder", "out", "--limit", "40", **limit)
    assert process.wait(60) == 1
    assert process.stderr is not None
    lost, summary = process.stderr.read().splitlines()
    assert re.match(r"edgex: cannot write a.jsonl.* \(File too large\): .*; the run goes on without it", lost)
    assert "40 frames in" in summary and len([*(tmp_path / "out").iterdir()]) == 40


@pytest.mark.parametrize("arguments", [("--jsonl", "-"), ("--jsonl", "/dev/full", "--force"), ()])
def test_a_full_device_is_one_line(start: Start, arguments: tuple[str, ...]) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    with Path("/dev/full").open("w") as full:
        process = start(*arguments, "--limit", "100", stdout=full)
        assert process.wait(60) == 1
    assert process.stderr is not None
    summary, error = process.stderr.read().splitlines()
    assert " frames in " in summary
    assert re.match(r"edgex: error: cannot write .*(standard output|/dev/full).*No space left on device", error)


def test_the_page_stays_until_ctrl_c(watch: Watch, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found: dict[str, object] = {}

    def visit() -> None:
        try:
            while not (match := re.search(r"127\.0\.0\.1:(\d+)/", capsys.readouterr().err)):
                time.sleep(0.05)
            connection = http.client.HTTPConnection("127.0.0.1", int(match.group(1)), timeout=20)
            version = -1
            while found.get("state") != "ended":
                connection.request("GET", f"/frame?after={version}")
                body = connection.getresponse().read()
                found.update(json.loads(body[4 : 4 + int.from_bytes(body[:4], "little")]))
                version = int(str(found["version"]))
            connection.close()
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    visitor = threading.Thread(target=visit)
    visitor.start()
    code, _, err = watch("--source", "pictures", "--http", "0")
    visitor.join()
    assert code == 0
    assert (found["label"], found["frame"]) == ("blue thing", 2)
    assert "3 frames in" in err


def test_several_sources_share_a_session(watch: Watch, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    for number in range(2):
        Image.fromarray(coloured(1)).save(tmp_path / "other" / f"{number}.png")
    both = ("--source", "pictures", "--source", "other")
    code, out, err = watch(*both)
    assert code == 0
    assert sorted(line.partition(" thing")[0] for line in out.splitlines()) == [
        "other: other/0.png: green",
        "other: other/1.png: green",
        *(f"pictures: pictures/{number}.png: {LABELS[number].partition(' ')[0]}" for number in range(3)),
    ]
    assert "edgex: pictures: 3 frames in" in err and "edgex: other: 2 frames in" in err
    assert watch(*both, "--jsonl", "out.jsonl", "--folder", "frames")[0] == 0
    found = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert sorted((line["source"], line["frame"]) for line in found) == [
        ("other", 0),
        ("other", 1),
        ("pictures", 0),
        ("pictures", 1),
        ("pictures", 2),
    ]
    assert len(list(Path("frames/1").iterdir())) == 3 and len(list(Path("frames/2").iterdir())) == 2
    code, _, err = watch(*both, "--folder", "frames")
    assert code == 2 and "frames/1 holds pictures of an earlier run" in error_line(err)
    code, _, err = watch("--source", "pictures", "--source", "pictures")
    assert code == 2
    assert "--source: expected different sources, found pictures twice" in error_line(err)


def test_a_video_of_each_source(watch: Watch, pictures: Path, tmp_path: Path) -> None:
    pytest.importorskip("av")
    write_video(tmp_path / "a.mp4", 4)
    assert watch("--source", "pictures", "--source", "a.mp4", "--video", "out/all.mkv")[0] == 0
    assert sorted(path.name for path in Path("out").iterdir()) == ["all.1.mkv", "all.2.mkv"]
    assert watch("--source", "pictures", "--source", "a.mp4", "--video", "out/all.mkv")[0] == 2


def test_a_source_that_breaks_leaves_the_others(watch: Watch, pictures: Path) -> None:
    pytest.importorskip("av")
    with Server(silent) as server:
        camera = f"rtsp://{server.address}/live"
        code, out, err = watch("--source", camera, "--source", "pictures", "--timeout", "0.3", "--quiet")
    assert (code, len(out.splitlines())) == (1, 3)
    assert f"edgex: {camera}: no answer within 0.3 s\n" in err
    assert error_line(err) == "edgex: error: 1 of 2 sources broke"


def test_other_machines_need_a_token(
    watch: Watch, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EDGEX_TOKEN", raising=False)
    code, out, err = watch("--source", "pictures", "--http", "0.0.0.0:0", "--jsonl", "a.jsonl")
    assert (code, out) == (2, "")
    assert not Path("a.jsonl").exists()
    assert "--token-file: expected a token to listen at 0.0.0.0" in error_line(err)
    (tmp_path / "token").write_text("short")
    code, _, err = watch("--source", "pictures", "--http", "0.0.0.0:0", "--token-file", "token")
    assert code == 2 and "short" not in error_line(err)
    assert "--http: expected PORT or HOST:PORT" in error_line(watch("--source", "pictures", "--http", "x")[2])


def test_a_page_on_a_scale_that_the_file_lacks(watch: Watch, pictures: Path) -> None:
    code, _, err = watch("--source", "pictures", "--http", "0", "--scale", "calibrated")
    assert code == 2
    assert "--scale: expected a file with a calibrated scale" in error_line(err)


def test_a_page_with_a_token_and_verdicts(
    watch: Watch, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    token = "0123456789abcdef-secret"
    monkeypatch.setenv("EDGEX_TOKEN", token)
    found: dict[str, Any] = {}

    def visit() -> None:
        try:
            shown = ""
            while not (match := re.search(r"http://[^/]*:(\d+)/", shown)):
                shown += capsys.readouterr().err
                time.sleep(0.05)
            found["shown"] = shown
            connection = http.client.HTTPConnection("127.0.0.1", int(match.group(1)), timeout=20)
            for headers in ({}, {"Authorization": f"Bearer {token}"}):
                connection.request("GET", "/about", headers=headers)
                answer = connection.getresponse()
                found[str(answer.status)] = answer.read()
            connection.close()
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    visitor = threading.Thread(target=visit)
    visitor.start()
    code, _, err = watch("--source", "pictures", "--http", "0.0.0.0:0", "--feedback", "out/verdicts.jsonl")
    visitor.join()
    assert code == 0
    assert found["401"].startswith(b"This page asks for a token")
    assert json.loads(found["200"])["feedback"] is True
    assert Path("out/verdicts.jsonl").read_text() == ""
    assert token not in found["shown"] + err
    assert "add ?token= and the token" in found["shown"]


def test_a_terminal_shows_rate_and_latency(watch: Watch, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    from edgex.utils import progress

    screen = io.StringIO()
    monkeypatch.setattr(progress, "terminal", lambda: Console(file=screen, force_terminal=True, width=200))
    assert watch("--source", "pictures", "--limit", "2", "--jsonl", "a.jsonl")[0] == 0
    assert re.search(r"pictures/0\.png: red thing .*%", screen.getvalue())
    assert re.search(r"1 frames in .*; latency ms p50 .*, p95 .*, p99", screen.getvalue())


@pytest.mark.parametrize("scheme, behaviour", [("rtsp", silent), ("http", drip), ("http", "pictures, then silence")])
def test_ctrl_c_while_a_camera_is_silent(watch: Watch, scheme: str, behaviour: Any) -> None:
    """FFmpeg waits for its time-out; the command does not."""
    pytest.importorskip("av")
    if not callable(behaviour):
        behaviour = answer(multipart([jpeg(number) for number in range(5)]), MULTIPART, then=silent)
    moment: list[float] = []

    def interrupt(server: Server) -> None:
        while not server.connections:
            time.sleep(0.01)
        time.sleep(0.3)
        moment.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    with Server(behaviour) as server:
        killer = threading.Thread(target=interrupt, args=(server,))
        killer.start()
        code, _, err = watch("--source", f"{scheme}://{server.address}/a.mjpg")
        took = time.monotonic() - moment[0]
        killer.join()
    assert code == 0
    assert "no answer" not in err
    assert took < TIMEOUT / 4, "the command ends before the source's time-out does"


def test_a_camera_that_never_answers_is_one_line(watch: Watch) -> None:
    pytest.importorskip("av")
    with Server(silent) as server:
        code, out, err = watch("--source", f"rtsp://admin:s3cret@{server.address}/live", "--timeout", "0.3")
    assert (code, out) == (1, "")
    assert err == f"edgex: error: rtsp://{server.address}/live: no answer within 0.3 s\n"


def test_a_port_in_use(watch: Watch, pictures: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, out, err = watch("--source", "pictures", "--http", str(port), "--jsonl", "a.jsonl", "--folder", "b")
    assert (code, out) == (2, "")
    assert not Path("a.jsonl").exists()
    assert not Path("b").exists()
    assert f"--http: expected a free port on 127.0.0.1, found {port}: Address already in use" in error_line(err)


@pytest.mark.parametrize(
    "arguments, code, words",
    [
        (("--source", "nothing.mp4"), 1, "--source: expected camera:0,"),
        (("--source", "noise.mp4"), 1, "noise.mp4: expected a video that FFmpeg reads"),
        (("--source", "empty"), 1, "expected pictures"),
        (("--source", "-"), 1, "standard input: expected pictures, found none"),
        (("--source", "camera:63"), 1, "camera:63: expected a camera or stream that answers"),
        (("--source", "camera:"), 2, "--source: expected a camera as camera:0, found no number after the colon"),
        (("--source", "rtsp://127.0.0.1:9/a"), 1, "Connection refused"),
        (("--source", "pictures", "--policy", "newest"), 2, "--policy: expected latest or every"),
        (("--source", "pictures", "--explain", "gren thing"), 2, "did you mean 'green thing'"),
        (("--source", "pictures", "--limit", "0"), 2, "--limit: expected at least 1 picture, found 0"),
        (("--source", "pictures", "--fps", "-1"), 2, "--fps: expected a rate above 0"),
        (("--source", "pictures", "--fps", "inf"), 2, "--fps: expected a rate above 0"),
        (("--source", "pictures", "--timeout", "0"), 2, "--timeout: expected a number of seconds above 0, found 0.0"),
        (("--source", "pictures", "--follow", "--loop"), 2, "--follow: expected a folder that is read once"),
        (("--source", "rtsp:/a:s3cret@h/x"), 1, "found nothing at '...'"),
        (
            ("--source", "rtsp://a:s3cret@h/x", "--follow"),
            2,
            "--follow: expected a folder to follow, found nothing at",
        ),
        (
            ("--source", "noise.mp4", "--follow"),
            2,
            "--follow: expected a folder to follow, found a file at 'noise.mp4'",
        ),
        (("--source", "pictures", "--retries", "-1"), 2, "--retries: expected 0 or more attempts, found -1"),
        (("--source", "pictures", "--opacity", "2"), 2, "--opacity"),
        (("--source", "pictures", "--video", "a.gif"), 2, "ends in .mp4"),
        (("--source", "pictures", "--threads", "0"), 2, "--threads: expected at least 1 thread, found 0"),
        (("--source", "pictures", "--provider", "abacus"), 1, "found provider='abacus'"),
        (("--source", "camera:0", "--loop"), 2, "--loop: expected a source that ends, found camera:0"),
        (("--source", "pictures", "--folder", "noise.mp4"), 1, "cannot write noise.mp4"),
    ],
)
def test_what_cannot_be_is_one_line(
    watch: Watch,
    pictures: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    code: int,
    words: str,
) -> None:
    pytest.importorskip("av")
    Path("noise.mp4").write_bytes(np.random.default_rng(0).bytes(3000))
    Path("empty").mkdir()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO()))
    before = sorted(Path().rglob("*"))
    found, out, err = watch(*arguments)
    assert (found, out) == (code, "")
    assert words in error_line(err)
    assert "s3cret" not in err
    assert sorted(Path().rglob("*")) == before


def test_models_must_be_exported(watch: Watch, pictures: Path) -> None:
    code, _, err = watch("--source", "pictures", model="cars")
    assert code == 2
    assert "make one with `edgex export`" in error_line(err)
    code, _, err = watch("--source", "pictures", model="none.onnx")
    assert code == 1
    assert "found No such file" in error_line(err)


def test_a_video_is_refused_without_pyav(watch: Watch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("av")
    write_video(tmp_path / "a.mp4")
    monkeypatch.setitem(sys.modules, "av", None)
    code, _, err = watch("--source", "a.mp4")
    assert code == 1
    assert "pip install '.[camera]'" in error_line(err)


def test_ctrl_c_while_a_pipe_is_silent(watch: Watch, pictures: Path, tmp_path: Path) -> None:
    """The reading thread still waits for the pipe when Python ends."""
    command = [sys.executable, "-c", "from edgex.cli import main; main()", "watch", "model.onnx", "--source", "-"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=tmp_path, **pipes) as process:  # type: ignore[call-overload]
        process.stdin.write(b"pictures/0.png\n")
        process.stdin.flush()
        assert b"red thing" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert len(process.stderr.read().splitlines()) == 1


def test_a_closed_standard_output_ends_the_run(watch: Watch, pictures: Path, tmp_path: Path) -> None:
    """As with `| head -1`: no error, no noise."""
    command = [sys.executable, "-c", "from edgex.cli import main; main()", "watch", "model.onnx"]
    command += ["--source", "pictures", "--loop", "--limit", "3000", "--threads", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    assert "red thing" in process.stdout.readline()
    process.stdout.close()
    noise = process.stderr.read()
    process.stderr.close()
    assert process.wait(60) == 0
    assert len(noise.splitlines()) == 1
    assert "frames in" in noise


def test_options_of_the_provider_and_fast_resizing(watch: Watch, pictures: Path) -> None:
    code, out, _ = watch("--source", "pictures", "--fast-resize", "--provider", "cpu")
    assert code == 0
    assert len(out.splitlines()) == 3
    code, _, err = watch("--source", "pictures", "--provider-option", "device_id")
    assert code == 2
    assert "--provider-option: expected KEY=VALUE, such as device_id=1, found 'device_id'" in error_line(err)
