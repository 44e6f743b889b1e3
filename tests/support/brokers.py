"""MQTT brokers on the loopback address: mosquitto where it is installed, and amqtt, which is Python."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

USER, PASSWORD = "door", "s3cret"
KINDS = ("mosquitto", "amqtt")


def mosquitto() -> str | None:
    """The program, which Debian has outside of users' paths."""
    return shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def run_mosquitto(
    folder: Path, port: int, *, login: bool = False, certificate: Path | None = None
) -> Callable[[], None]:
    """Starts a broker; returns what ends it. login: it wants USER and PASSWORD. certificate: it speaks TLS."""
    program = mosquitto()
    assert program is not None
    lines = [f"listener {port} 127.0.0.1", f"allow_anonymous {'false' if login else 'true'}"]
    if os.getuid() == 0:
        lines.append("user root")
    if login:
        passwords = folder / "passwords"
        subprocess.run(
            ["mosquitto_passwd", "-c", "-b", str(passwords), USER, PASSWORD], check=True, capture_output=True
        )
        passwords.chmod(0o600)
        lines.append(f"password_file {passwords}")
    if certificate is not None:
        lines += [f"certfile {certificate}", f"keyfile {certificate}"]
    configuration = folder / f"mosquitto-{port}.conf"
    configuration.write_text("\n".join(lines) + "\n")
    process = subprocess.Popen(
        [program, "-c", str(configuration)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _wait_until_open(port)

    def stop() -> None:
        process.terminate()
        process.wait()

    return stop


_AMQTT = """
import asyncio, json, sys
from amqtt.broker import Broker

async def main():
    broker = Broker(json.loads(sys.argv[1]))
    await broker.start()
    await asyncio.to_thread(sys.stdin.read)
    await broker.shutdown()

asyncio.run(main())
"""


def run_amqtt(folder: Path, port: int, *, login: bool = False, certificate: Path | None = None) -> Callable[[], None]:
    """The same, as a process of its own: its warnings are none of the tests'."""
    plugins: dict[str, Any] = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}
    if login:
        from pwdlib import PasswordHash

        passwords = folder / "amqtt-passwords"
        passwords.write_text(f"{USER}:{PasswordHash.recommended().hash(PASSWORD)}\n")
        plugins = {"amqtt.plugins.authentication.FileAuthPlugin": {"password_file": str(passwords)}}
    listener: dict[str, Any] = {"type": "tcp", "bind": f"127.0.0.1:{port}"}
    if certificate is not None:
        listener |= {"ssl": True, "certfile": str(certificate), "keyfile": str(certificate)}
    configuration = {"listeners": {"default": listener}, "plugins": plugins}
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", _AMQTT, json.dumps(configuration)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _wait_until_open(port)

    def stop() -> None:
        process.kill()
        process.communicate()

    return stop


def _wait_until_open(port: int) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return
        except OSError:
            assert time.monotonic() < deadline, "the broker does not start"
            time.sleep(0.05)


@contextmanager
def subscribed(port: int, topic: str, *, login: bool = False) -> Iterator[list[Any]]:
    """The JSON messages of a topic, as they come."""
    from paho.mqtt import client as mqtt

    messages: list[Any] = []
    ready = threading.Event()
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    client.on_message = lambda client, data, message: messages.append(json.loads(message.payload))
    client.on_subscribe = lambda *_: ready.set()
    if login:
        client.username_pw_set(USER, PASSWORD)
    client.connect("127.0.0.1", port)
    client.loop_start()
    client.subscribe(topic, qos=1)
    assert ready.wait(10)
    try:
        yield messages
    finally:
        client.disconnect()
        client.loop_stop()


def wait_for(messages: list[Any], count: int) -> None:
    deadline = time.monotonic() + 10
    while len(messages) < count:
        assert time.monotonic() < deadline, f"{len(messages)} of {count} messages came"
        time.sleep(0.01)
