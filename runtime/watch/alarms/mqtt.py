"""Alarms as messages to an MQTT broker. Needs the extra `mqtt` (paho-mqtt)."""

from __future__ import annotations

import contextlib
import re
import ssl
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, unquote, urlsplit

from edgex.runtime.errors import MissingExtraError, UsageError, install_hint
from edgex.runtime.watch.alarms.delivery import NotDeliveredError
from edgex.runtime.watch.alarms.webhook import TIMEOUT, network_reason
from edgex.runtime.watch.sources.url import public_name

if TYPE_CHECKING:
    from types import ModuleType

_PORTS = {"mqtt": 1883, "mqtts": 8883}
_QOS = 1
"""At least once: the broker confirms each message, MQTT 3.1.1, section 4.3.2."""
_BUSY = ("Server unavailable", "Server busy")
"""Why a broker refuses a connection that it may accept later, such as while it starts."""
_TICK = 0.1
"""Seconds between looks at the time-out."""


class MqttTopic:
    """A topic of a broker as a receiver of alarms: see `Receiver`. An alarm has arrived when the broker confirms it.

    Each alarm has a connection of its own, since alarms are rare: whatever happens to the broker or the network between
    two of them, the next one finds it as it is then.

    url: mqtt://user:password@host:port/topic, or mqtts:// for TLS; ports default to 1883 and 8883. Certificates are
        checked as in `edgex.runtime.watch.alarms.webhook.Webhook`.
    password: in place of one in the URL.
    timeout: seconds that the broker has for each answer.

    Raises UsageError for a URL that is none, without repeating what may be secret, MissingExtraError without paho-mqtt.
    """

    def __init__(self, url: str, *, password: str | None = None, timeout: float = TIMEOUT) -> None:
        self.name = f"MQTT broker {public_name(url)}"
        parts = _checked(url)
        self._host, self._port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
        self._secure, self._topic = parts.scheme == "mqtts", unquote(parts.path[1:])
        self._user = None if parts.username is None else unquote(parts.username)
        self._password = unquote(parts.password) if password is None and parts.password is not None else password
        self._timeout = timeout
        self._mqtt = _import_mqtt()

    def open(self) -> None:
        """See `Receiver`. Connects for a moment, to find a wrong address or password."""
        with self._connection():
            pass

    def send(self, message: bytes) -> None:
        """See `Receiver`."""
        with self._connection() as client:
            sent = client.publish(self._topic, message, _QOS)
            self._run(client, sent.is_published)

    def close(self) -> None:
        """Nothing is open."""

    @contextlib.contextmanager
    def _connection(self) -> Iterator[Any]:
        """A client of the broker that the broker has accepted."""
        answers: list[Any] = []
        client = self._mqtt.Client(self._mqtt.CallbackAPIVersion.VERSION2, reconnect_on_failure=False)
        client.connect_timeout = self._timeout
        client.on_connect = lambda *given: answers.append(given[3])
        if self._user is not None:
            client.username_pw_set(self._user, self._password)
        if self._secure:
            context = ssl.create_default_context()
            context.sslsocket_class = _Closing
            client.tls_set_context(context)
        try:
            client.connect(self._host, self._port)
        except OSError as error:
            raise NotDeliveredError(
                self._no_answer() if isinstance(error, TimeoutError) else network_reason(error)
            ) from error
        try:
            self._run(client, lambda: answers)
            if answers[0].is_failure:
                refused = answers[0].getName() not in _BUSY
                raise NotDeliveredError(f"it refuses the connection ({answers[0]})".lower(), refused=refused)
            yield client
        finally:
            client.disconnect()

    def _run(self, client: Any, done: Callable[[], Any]) -> None:
        """Lets the client talk to the broker until something is done. Raises NotDeliveredError where that fails."""
        deadline = time.monotonic() + self._timeout
        while not done():
            if time.monotonic() > deadline:
                raise NotDeliveredError(self._no_answer())
            found = client.loop(_TICK)
            if found == self._mqtt.MQTT_ERR_PROTOCOL:
                raise NotDeliveredError("its answer is no MQTT 3.1.1", refused=True)
            if found != self._mqtt.MQTT_ERR_SUCCESS and not done():
                raise NotDeliveredError("it closed the connection without an answer")

    def _no_answer(self) -> str:
        return f"no answer within {self._timeout:g} s"


class _Closing(ssl.SSLSocket):
    """Is closed where the handshake fails, which paho-mqtt leaves to the garbage collector."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise


def _checked(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in _PORTS and bool(parts.hostname) and parts.port != 0
        topic = unquote(parts.path[1:], errors="strict")
    except ValueError:
        usable, topic = False, ""
    # MQTT 3.1.1, section 4.7: + and # are for subscriptions; names of topics have at most 65535 bytes.
    fits = 0 < len(topic.encode()) < 65536 and not re.search(r"[+#\0]", topic)
    if not usable or not fits or re.search(r"[?#]", url) or not re.fullmatch(r"[\x21-\x7e]+", url):
        raise UsageError(
            "expected a URL such as mqtt://user:password@10.0.0.2:1883/line/3/alarms, in ASCII (%23 stands for #, %2F "
            f"for a / in a password) and with a topic without wildcards, found {public_name(url)}",
            argument="mqtt",
        )
    return parts


def _import_mqtt() -> ModuleType:
    try:
        from paho.mqtt import client
    except ImportError:
        raise MissingExtraError(f"MQTT needs paho-mqtt: {install_hint('mqtt')}", argument="mqtt") from None
    return client
