"""One file of librdkafka properties with TLS in it serves every client: each shakes hands with a real TLS server."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError

from services.bus.hosting import faust_credentials
from services.bus.kafka import Connection, read_properties
from tests.support.tls import Authority, authority

pytestmark = pytest.mark.timeout(60)

WAITS_S = 10.0
ASKS_FOR_S = 2.0


@dataclass(frozen=True, slots=True)
class Listener:
    """A server that shakes hands and hangs up; `heard` is set when a client that trusts it has spoken."""

    port: int
    heard: threading.Event


@contextmanager
def listening(own: Authority) -> Iterator[Listener]:
    """Serve until the end."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own.certificate, own.key)
    with socket.create_server(("127.0.0.1", 0)) as server:
        listener = Listener(server.getsockname()[1], threading.Event())
        thread = threading.Thread(target=_serve, args=(server, context, listener.heard))
        thread.start()
        try:
            yield listener
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(WAITS_S)


def _serve(server: socket.socket, context: ssl.SSLContext, heard: threading.Event) -> None:
    while True:
        try:
            plain, _ = server.accept()
        except OSError:
            return
        plain.settimeout(WAITS_S)
        # In TLS 1.3 a server is ready before its client has judged it: what the client says next is the proof.
        with plain, suppress(OSError), context.wrap_socket(plain, server_side=True) as secured:
            if secured.recv(1):
                heard.set()


def ask_librdkafka(connection: Connection) -> None:
    with suppress(KafkaException):
        AdminClient(connection.librdkafka()).list_topics(timeout=ASKS_FOR_S)


def ask_kafka_python(connection: Connection) -> None:
    with suppress(KafkaError):
        KafkaAdminClient(**connection.kafka_python(), bootstrap_timeout_ms=int(ASKS_FOR_S * 1_000)).close()
    with warnings.catch_warnings():
        # Where it is refused, kafka-python leaves a transport to the collector, which must not find it in another test.
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def ask_with_fausts_context(connection: Connection) -> None:
    """Connect as aiokafka does for Faust, with the context that the credentials hold."""
    host, _, port = connection.bootstrap.partition(":")

    async def speak() -> None:
        context = faust_credentials(connection).context
        with suppress(OSError):
            _, writer = await asyncio.open_connection(host, int(port), ssl=context)
            writer.write(b"\0")
            try:
                await writer.drain()
            finally:
                writer.close()
                # A transport still open at the loop's end is found by the collector, in whatever test runs by then.
                await writer.wait_closed()

    asyncio.run(speak())


CLIENTS = pytest.mark.parametrize(
    "ask",
    [ask_librdkafka, ask_kafka_python, ask_with_fausts_context],
    ids=["librdkafka", "kafka-python", "faust"],
)


@CLIENTS
def test_every_client_trusts_the_authority_that_the_file_names(
    ask: Callable[[Connection], None], tmp_path: Path
) -> None:
    own = authority(tmp_path, "own")
    with listening(own) as listener:
        ask(_connection(listener, own))
        assert listener.heard.wait(WAITS_S)


@CLIENTS
def test_no_client_speaks_to_a_server_of_another_authority(
    ask: Callable[[Connection], None], tmp_path: Path
) -> None:
    with listening(authority(tmp_path, "foreign")) as listener:
        ask(_connection(listener, authority(tmp_path, "own")))
        assert not listener.heard.is_set()


def _connection(listener: Listener, trusted: Authority) -> Connection:
    text = f"security.protocol=SSL\nssl.ca.location={trusted.certificate}\n"
    return Connection(bootstrap=f"127.0.0.1:{listener.port}", properties=read_properties(text))
