"""Alarms of `edgex watch` as a user meets them, with real receivers that work and that do not."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from brokers import USER, free_port, mosquitto, run_amqtt, run_mosquitto, subscribed, wait_for
from PIL import Image

import small_model
from edgex.runtime import Session
from edgex.runtime.watch.alarms import alarms as module
from receivers import HookServer
from servers import Server, silent
from streams import coloured

SECRET = "s3cret"
RED = "red thing>0.8"
Watch = Callable[..., tuple[int, str, list[str]]]


@pytest.fixture
def watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Watch:
    """Runs `edgex watch` over red, green, blue, red, green, blue: exit code, standard output, lines of standard error.

    No line of it is a traceback or holds the secret.
    """
    from edgex.cli import main

    small_model.write(tmp_path / "model.onnx")
    (tmp_path / "pictures").mkdir()
    for number in range(6):
        Image.fromarray(coloured(number)).save(tmp_path / "pictures" / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "GRACE", 0.5)

    def call(*arguments: str, model: str = "model.onnx") -> tuple[int, str, list[str]]:
        monkeypatch.setattr(sys, "argv", ["edgex", "watch", model, "--source", "pictures", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        captured = capsys.readouterr()
        assert SECRET not in captured.out + captured.err
        assert all(line.startswith("edgex: ") for line in captured.err.splitlines())
        return int(end.value.code or 0), captured.out, captured.err.splitlines()

    return call


def test_all_at_once(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEX_WEBHOOK_TOKEN", f"{SECRET}\n")
    with HookServer() as server:
        options = ("--webhook", server.url, "--webhook-header", "X-Door: 7", "--snapshots", "alarms")
        code, out, err = watch("--alarm", RED, "--alarm", "'blue thing' >= 0.5", *options, "--jsonl", "-")
    assert code == 0
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["alarms"] for line in lines] == [[RED], [], ["'blue thing' >= 0.5"]] * 2
    assert [body["name"] for body in server.taken] == [f"pictures/{number}.png" for number in (0, 2, 3, 5)]
    assert {(headers["Authorization"], headers["X-Door"]) for headers in server.headers} == {(f"Bearer {SECRET}", "7")}
    for body, line in zip(server.taken, (lines[number] for number in (0, 2, 3, 5)), strict=True):
        for name in body["snapshot"].values():
            assert (Path("alarms") / name).stat().st_size
        kept = json.loads((Path("alarms") / body["snapshot"]["json"]).read_text("utf-8"))
        assert {key: kept[key] for key in body} == body
        assert kept["result"]["heatmap"] == line["heatmap"]
    assert err[-1] == (
        f"edgex: 4 alarms ({RED}: 2, 'blue thing' >= 0.5: 2); alarms: 4 written; "
        f"webhook {server.url.removesuffix('/hook')}/...: 4 delivered"
    )


def test_a_line_per_picture_says_it(watch: Watch) -> None:
    code, out, err = watch("--alarm", RED, "--limit", "2")
    assert code == 0
    assert [line.endswith(f" - alarm: {RED}") for line in out.splitlines()] == [True, False]
    assert err[-1] == f"edgex: 1 alarm ({RED}: 1)"


def test_the_exit_code_of_an_alarm(watch: Watch) -> None:
    """Files are finished first; without an alarm the exit code is that of the run."""
    code, _, err = watch("--alarm", "blue thing>0.8", "--exit-on-alarm", "--jsonl", "a.jsonl")
    assert code == 3
    assert len(Path("a.jsonl").read_text().splitlines()) == 3
    assert "3 frames" in err[-2]
    assert watch("--alarm", "nothing>0.8", "--exit-on-alarm")[0] == 0
    Path("pictures/1.png").write_bytes(b"no picture")
    assert watch("--alarm", "nothing>0.8", "--exit-on-alarm")[0] == 1
    assert watch("--alarm", "blue thing>0.8", "--exit-on-alarm")[0] == 3


def test_how_often_and_where(watch: Watch) -> None:
    def pictures(*options: str) -> list[int]:
        code, out, _ = watch("--alarm", RED, "--jsonl", "-", *options)
        assert code == 0
        return [line["frame"] for line in map(json.loads, out.splitlines()) if line["alarms"]]

    assert pictures() == [0, 3]
    assert pictures("--alarm-after", "2") == []
    assert pictures("--alarm-every", "60") == [0]
    assert pictures("--in", "0,0,1,1") == [0, 3]
    # The model does not see the frame's corners.
    assert pictures("--in", "0,0,2,2") == []


def test_regions_are_checked_with_the_first_picture(watch: Watch) -> None:
    """Whether it raises an alarm or not."""
    code, _, err = watch("--alarm", "nothing>0.8", "--in", "0,0,2000,2000")
    assert code == 2
    assert err[-1].startswith("edgex: error: --in: ")


def test_an_alarm_counts_more_than_a_source_that_broke(watch: Watch) -> None:
    Path("empty").mkdir()
    code, _, err = watch("--source", "empty", "--alarm", "blue thing>0.8", "--exit-on-alarm")
    assert code == 3
    assert not any("error" in line for line in err)


def test_an_option_that_would_do_nothing_is_refused(watch: Watch) -> None:
    for options in (("--alarm-after", "2"), ("--feedback", "f.jsonl"), ("--token-file", "token")):
        code, _, err = watch(*options)
        assert (code, len(err)) == (2, 1)
        assert err[0].startswith(f"edgex: error: {options[0]}: expected --")


def test_the_decision_of_a_calibrated_file(watch: Watch, tmp_path: Path) -> None:
    calibration = {"data": "validation", "pictures": 9, "alarm_classes": ["green thing"]}
    small_model.write(tmp_path / "calibrated.onnx", calibration=calibration)
    code, out, _ = watch("--alarm", "decision", "--jsonl", "-", model="calibrated.onnx")
    assert code == 0
    lines = [json.loads(line) for line in out.splitlines()]
    assert [(line["decision"], line["alarms"]) for line in lines[:2]] == [("ok", []), ("alarm", ["decision"])]
    code, _, err = watch("--alarm", "decision")
    assert code == 2
    assert len(err) == 1
    assert err[0].startswith(
        "edgex: error: --alarm: expected a file that was calibrated with alarm classes, found none"
    )


@pytest.mark.parametrize(
    "options, flag, message",
    [
        (("--alarm", "red thing"), "--alarm", "a class, a comparison and a probability"),
        (("--alarm", "pink thing>0.5"), "--alarm", "one of the model's 4 classes"),
        (("--alarm", RED, "--in", "1,2"), "--in", "a box"),
        (("--alarm", RED, "--in", "0,0,999,999"), "--in", "inside the frame of 96x64 pixels"),
        (("--alarm", RED, "--alarm-after", "0"), "--alarm-after", "at least 1 picture"),
        (("--alarm", RED, "--alarm-every", "-1"), "--alarm-every", "at least 0"),
        (("--alarm", RED, "--webhook", f"htp://a:{SECRET}@h"), "--webhook", "a URL such as https://"),
        (("--alarm", RED, "--webhook", "http://h/", "--webhook-header", SECRET), "--webhook-header", "NAME: VALUE"),
        (("--alarm", RED, "--webhook-header", "a: b"), "--webhook-header", "--webhook beside it"),
        (("--alarm", RED, "--mqtt", f"mqtt://{SECRET}@h"), "--mqtt", "a URL such as mqtt://"),
        (("--alarm", RED, "--keep", "3"), "--keep", "--snapshots beside it"),
        (("--alarm", RED, "--snapshots", "a", "--keep", "0"), "--keep", "at least 1"),
        (("--webhook", "http://h/"), "--webhook", "--alarm beside it"),
        (("--snapshots", "a"), "--snapshots", "--alarm beside it"),
        (("--exit-on-alarm",), "--exit-on-alarm", "--alarm beside it"),
    ],
)
def test_options_that_are_wrong(watch: Watch, options: tuple[str, ...], flag: str, message: str) -> None:
    code, _, err = watch(*options)
    assert code == 2
    (error,) = [line for line in err if line.startswith("edgex: error: ")]
    assert error.startswith(f"edgex: error: {flag}: expected")
    assert message in error


def closed() -> str:
    return f"http://127.0.0.1:{free_port()}/{SECRET}"


@pytest.mark.parametrize("kind", ["nobody listens", "500", "404", "no answer", "no TLS"])
def test_a_bad_webhook_costs_no_picture_and_no_alarm(watch: Watch, kind: str) -> None:
    """One line; the pictures go on, the exit code is that of the pictures, the alarms are in the folder."""
    reasons = {
        "nobody listens": "connection refused; alarms wait and are sent again",
        "500": "it answers 500 (Internal Server Error); alarms wait and are sent again",
        "404": "it answers 404 (Not Found)",
        "no answer": None,
        "no TLS": "no connection over TLS",
    }
    with HookServer(int(kind) if kind.isdecimal() else 200) as server, Server(silent) as silence:
        url = {
            "nobody listens": closed(),
            "no answer": f"http://{silence.address}/{SECRET}",
            "no TLS": server.url.replace("http:", "https:"),
        }.get(kind, server.url)
        code, out, err = watch("--alarm", RED, "--webhook", url, "--snapshots", "alarms", "--jsonl", "-")
    assert (code, len(out.splitlines())) == (0, 6)
    reason = reasons[kind]
    assert len(err) == (2 if reason is None else 3)
    if reason is not None:
        # It may fail before or after the pictures end.
        (line,) = [line for line in err[:-1] if "6 frames" not in line]
        assert re.match(rf"edgex: webhook https?://127\.0\.0\.1:\d+/\.\.\.: {re.escape(reason)}", line)
    assert "0 delivered, 2 not delivered" in err[-1]
    lost = [json.loads(line) for line in Path("alarms/undelivered.jsonl").read_text("utf-8").splitlines()]
    assert [entry["alarm"]["name"] for entry in lost] == ["pictures/0.png", "pictures/3.png"]
    assert SECRET not in json.dumps(lost)


@pytest.mark.parametrize("kind", ["mosquitto", "amqtt"])
def test_a_broker(watch: Watch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """One that works, a wrong password, and one that is gone."""
    pytest.importorskip("paho.mqtt")
    if kind == "mosquitto" and mosquitto() is None:
        pytest.skip("needs mosquitto")
    if kind == "amqtt":
        pytest.importorskip("amqtt")
    monkeypatch.setattr(module, "GRACE", 5.0)
    port = free_port()
    stop = (run_mosquitto if kind == "mosquitto" else run_amqtt)(tmp_path, port, login=True)
    try:
        with subscribed(port, "line/3", login=True) as messages:
            code, _, err = watch("--alarm", RED, "--mqtt", f"mqtt://{USER}:{SECRET}@127.0.0.1:{port}/line/3")
            wait_for(messages, 2)
            assert code == 0
            assert [message["name"] for message in messages] == ["pictures/0.png", "pictures/3.png"]
            assert err[-1].endswith(f"MQTT broker mqtt://127.0.0.1:{port}/...: 2 delivered")
            monkeypatch.setenv("EDGEX_MQTT_PASSWORD", SECRET)
            assert watch("--alarm", RED, "--mqtt", f"mqtt://{USER}@127.0.0.1:{port}/line/3")[0] == 0
            wait_for(messages, 4)
        monkeypatch.setenv("EDGEX_MQTT_PASSWORD", "wrong")
        code, _, err = watch("--alarm", RED, "--mqtt", f"mqtt://{USER}@127.0.0.1:{port}/line/3")
        assert code == 0
        assert sum("refuses the connection" in line for line in err) == 1
        assert "0 delivered, 2 not delivered" in err[-1]
    finally:
        stop()
    monkeypatch.setattr(module, "GRACE", 0.5)
    code, out, err = watch("--alarm", RED, "--mqtt", f"mqtt://127.0.0.1:{port}/line/3")
    assert (code, len(out.splitlines())) == (0, 6)
    assert sum("connection refused" in line for line in err) == 1


def test_without_a_token_there_is_none(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGEX_WEBHOOK_TOKEN", raising=False)
    with HookServer() as server:
        assert watch("--alarm", RED, "--webhook", server.url, "--limit", "1")[0] == 0
        assert "Authorization" not in server.headers[0]
        monkeypatch.setenv("EDGEX_WEBHOOK_TOKEN", SECRET)
        header = ("--webhook-header", "authorization: Basic abc")
        assert watch("--alarm", RED, "--webhook", server.url, "--limit", "1", *header)[0] == 0
    assert server.headers[1]["authorization"] == "Basic abc"
    assert "Authorization" not in server.headers[1]


def test_a_full_disk_costs_no_picture(watch: Watch, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    command = [sys.executable, "-c", "from edgex.cli import main; main()", "watch", "model.onnx"]
    command += ["--source", "pictures", "--alarm", RED, "--snapshots", "alarms", "--jsonl", "-"]
    limit = 600

    with HookServer() as server:
        done = subprocess.run(
            [*command, "--webhook", server.url],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        )
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 6)
    first, _, last = done.stderr.splitlines()
    assert re.match(r"edgex: cannot write alarms/.*\.jpg \(File too large\): nothing was written", first)
    assert "alarms: 0 written, 2 not written" in last
    assert list((tmp_path / "alarms").iterdir()) == []
    assert [body["snapshot"] for body in server.taken] == [None, None]


def test_frames_go_on_while_a_receiver_hangs(watch: Watch) -> None:
    """A receiver that takes connections and never answers holds up no picture."""
    with Server(silent) as server:
        code, out, _ = watch("--alarm", "nothing<0.9", "--webhook", f"http://{server.address}/", "--jsonl", "-")
    assert code == 0
    latencies = [json.loads(line)["latency_ms"] for line in out.splitlines()]
    assert len(latencies) == 6
    assert max(latencies) < 2000


def test_a_second_ctrl_c_waits_for_no_receiver(watch: Watch, tmp_path: Path) -> None:
    """The first one ends the pictures, and alarms have five more seconds; after the second they are in the file."""
    command = [sys.executable, "-c", "from edgex.cli import main; main()", "watch", "model.onnx", "--loop"]
    command += ["--source", "pictures", "--alarm", RED, "--snapshots", "alarms", "--jsonl", "a.jsonl"]
    with Server(silent) as server:
        command += ["--webhook", f"http://{server.address}/"]
        process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        try:
            while not server.connections:
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            assert process.stderr is not None
            summary = process.stderr.readline()
            assert " frames in " in summary
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 130
            rest = process.stderr.read().splitlines()
        finally:
            process.kill()
            process.communicate()
    (count,) = (int(found[1]) for line in rest if (found := re.search(r" 0 delivered, (\d+) not delivered", line)))
    lost = (tmp_path / "alarms" / "undelivered.jsonl").read_text("utf-8").splitlines()
    raised = [line for line in (tmp_path / "a.jsonl").read_text().splitlines() if json.loads(line)["alarms"]]
    assert count == len(lost) == len(raised) > 0


def test_several_sources(watch: Watch, tmp_path: Path) -> None:
    """One summary, one folder and one queue for all; each source has its own pictures in a row."""
    (tmp_path / "others").mkdir()
    Image.fromarray(coloured(0)).save(tmp_path / "others" / "red.png")
    with HookServer() as server:
        code, _, err = watch("--source", "others", "--alarm", RED, "--webhook", server.url, "--snapshots", "alarms")
    assert code == 0
    assert sorted((body["source"], body["name"]) for body in server.taken) == [
        ("others", "others/red.png"),
        ("pictures", "pictures/0.png"),
        ("pictures", "pictures/3.png"),
    ]
    assert len(list(Path("alarms").glob("*.json"))) == 3
    assert err[-1].startswith(f"edgex: 3 alarms ({RED}: 3); alarms: 3 written; webhook")


def test_the_librarys_session_is_the_commands(watch: Watch) -> None:
    """The score that is sent is the session's."""
    with HookServer() as server:
        assert watch("--alarm", RED, "--webhook", server.url, "--limit", "1")[0] == 0
    assert server.taken[0]["score"] == Session("model.onnx", "cpu")(coloured(0)).score
