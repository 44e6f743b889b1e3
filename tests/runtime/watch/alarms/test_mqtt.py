from __future__ import annotations

import json
import shutil
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from brokers import KINDS, PASSWORD, USER, free_port, mosquitto, run_amqtt, run_mosquitto, subscribed, wait_for

from edgex.runtime import MissingExtraError, UsageError
from edgex.runtime.watch.alarms import delivery
from edgex.runtime.watch.alarms.delivery import Delivery, NotDeliveredError
from edgex.runtime.watch.alarms.mqtt import MqttTopic
from receivers import make_certificate
from servers import Server, answer, drip, silent

pytest.importorskip("paho.mqtt")

Start = Callable[..., Callable[[], None]]


@pytest.fixture(params=KINDS)
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Start:
    """Starts a broker on a port: `start(port, ...)`, with the options of `run_mosquitto`, returns what ends it."""
    if request.param == "mosquitto" and mosquitto() is None:
        pytest.skip("needs mosquitto")
    if request.param == "amqtt":
        pytest.importorskip("amqtt")
    begin = run_mosquitto if request.param == "mosquitto" else run_amqtt

    def call(port: int, **options: Any) -> Callable[[], None]:
        stop = begin(tmp_path, port, **options)
        request.addfinalizer(stop)
        return stop

    return call


def failure(topic: MqttTopic) -> NotDeliveredError:
    with pytest.raises(NotDeliveredError) as found:
        topic.send(b"{}")
    with pytest.raises(NotDeliveredError):
        topic.open()
    return found.value


def test_a_message_arrives(start: Start) -> None:
    port = free_port()
    start(port)
    topic = MqttTopic(f"mqtt://127.0.0.1:{port}/line/3/alarms%20now")
    with subscribed(port, "line/+/alarms now") as messages:
        topic.open()
        for number in range(3):
            topic.send(json.dumps({"number": number, "name": "Füchse"}).encode())
        wait_for(messages, 3)
    assert messages == [{"number": number, "name": "Füchse"} for number in range(3)]


def test_name_and_password(start: Start) -> None:
    port = free_port()
    start(port, login=True)
    with subscribed(port, "alarms", login=True) as messages:
        MqttTopic(f"mqtt://{USER}:{PASSWORD}@127.0.0.1:{port}/alarms").send(b"1")
        MqttTopic(f"mqtt://{USER}@127.0.0.1:{port}/alarms", password=PASSWORD).send(b"2")
        for url in (f"{USER}:wrong@127.0.0.1", "127.0.0.1"):
            error = failure(MqttTopic(f"mqtt://{url}:{port}/alarms"))
            assert error.refused
            assert str(error) in (
                "it refuses the connection (not authorized)",
                "it refuses the connection (bad user name or password)",
            )
        wait_for(messages, 2)
    assert messages == [1, 2]


def test_a_broker_that_goes_and_comes_back(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "FIRST_WAIT", 0.1)
    monkeypatch.setattr(delivery, "LONGEST_WAIT", 0.2)
    port = free_port()
    stop = start(port)
    notices: list[str] = []
    sending = Delivery(MqttTopic(f"mqtt://127.0.0.1:{port}/alarms", timeout=2.0), notices.append)
    with subscribed(port, "alarms") as messages:
        sending.put({"number": 1})
        wait_for(messages, 1)
    stop()
    sending.put({"number": 2})
    while not notices:
        time.sleep(0.01)
    start(port)
    with subscribed(port, "alarms") as messages:
        # The second one may have come before anybody listened.
        sending.put({"number": 3})
        sending.close(time.monotonic() + 10)
        while {"number": 3} not in messages:
            time.sleep(0.01)
    assert (sending.delivered, sending.lost) == (3, 0)
    assert notices == [f"MQTT broker mqtt://127.0.0.1:{port}/...: connection refused; alarms wait and are sent again"]


def test_nobody_listens() -> None:
    error = failure(MqttTopic(f"mqtt://127.0.0.1:{free_port()}/alarms"))
    assert (str(error), error.refused) == ("connection refused", False)
    assert str(failure(MqttTopic("mqtt://nowhere.invalid/alarms"))) == "the host's name is not known"


def test_a_broker_that_is_not_ready_is_asked_again() -> None:
    def starting(connection: socket.socket, closing: object) -> None:
        connection.recv(1 << 16)
        connection.sendall(bytes([0x20, 2, 0, 3]))  # CONNACK: server unavailable

    with Server(starting) as server:
        error = failure(MqttTopic(f"mqtt://{server.address}/alarms"))
    assert (str(error), error.refused) == ("it refuses the connection (server unavailable)", False)


@pytest.mark.parametrize("scheme", ["mqtt", "mqtts"])
def test_a_broker_that_does_not_answer(scheme: str) -> None:
    with Server(silent) as server:
        begin = time.monotonic()
        error = failure(MqttTopic(f"{scheme}://{server.address}/alarms", timeout=0.5))
        assert time.monotonic() - begin < 5
    assert (str(error), error.refused) == ("no answer within 0.5 s", False)


def test_a_server_of_something_else() -> None:
    def refuse(connection: socket.socket, closing: object) -> None:
        connection.recv(1 << 16)
        connection.sendall(bytes([0x20, 2, 0, 1]))  # CONNACK: unacceptable protocol version

    for behaviour, reason in (
        (refuse, "its answer is no MQTT 3.1.1"),
        (answer(b"hello", "text/plain"), "it closed the connection without an answer"),
        (drip, "no answer within 0.5 s"),
    ):
        with Server(behaviour) as server:
            assert str(failure(MqttTopic(f"mqtt://{server.address}/alarms", timeout=0.5))) == reason


def test_tls(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    certificate = make_certificate(tmp_path, ["IP:127.0.0.1"])
    port = free_port()
    start(port, certificate=certificate)
    topic = MqttTopic(f"mqtts://127.0.0.1:{port}/alarms")
    error = failure(topic)
    assert (str(error), error.refused) == ("its certificate is not trusted (self-signed certificate)", False)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    topic.open()
    topic.send(b"1")
    assert "certificate is not trusted" in str(failure(MqttTopic(f"mqtts://localhost:{port}/alarms")))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "s3cret",
        "http://host/s3cret",
        "mqtt://host",
        "mqtt://host/",
        "mqtt://host/s3cret/#",
        "mqtt://host/+/s3cret",
        "mqtt://host/a?s3cret",
        "mqtt://host/%00s3cret",
        "mqtt://host:x/s3cret",
        "mqtt://host/s3 cret",
        "mqtt:///s3cret",
        "mqtt://user:s3/cret@host/alarms",
    ],
)
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(UsageError, match="expected a URL such as mqtt://") as found:
        MqttTopic(url)
    assert found.value.argument == "mqtt"
    assert "s3" not in str(found.value).replace("%23", "")


def test_without_paho(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "paho.mqtt", None)
    with pytest.raises(MissingExtraError, match="mqtt") as found:
        MqttTopic("mqtt://host/alarms")
    assert found.value.argument == "mqtt"


def test_its_name_holds_no_secret() -> None:
    url = "mqtts://user:s3cret@broker.example.com/s3cret"
    assert MqttTopic(url).name == "MQTT broker mqtts://broker.example.com/..."
