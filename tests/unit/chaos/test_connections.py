"""A process's connections are cut from outside: those to the ports given, and no others."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from chaos import connections
from chaos.connections import cut, local_ports

_CLIENT = """
import socket, sys
sockets = [socket.create_connection(("127.0.0.1", int(port))) for port in sys.argv[1:]]
print("ready", flush=True)
for each in sockets:
    print(each.recv(1), flush=True)
"""


@pytest.fixture
def servers() -> Iterator[list[socket.socket]]:
    with ExitStack() as ending:
        yield [ending.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]


def _port(server: socket.socket) -> int:
    return int(server.getsockname()[1])


def test_cuts_the_connections_to_these_ports_and_leaves_the_others(servers: list[socket.socket]) -> None:
    first, second = map(_port, servers)
    with subprocess.Popen(
        [sys.executable, "-c", _CLIENT, str(first), str(second)], stdout=subprocess.PIPE, text=True
    ) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == "ready\n"
        with servers[0].accept()[0] as cut_off, servers[1].accept()[0] as kept:
            assert local_ports(client.pid, {first}) == (cut_off.getpeername()[1],)
            assert cut(client.pid, {first}) == 1
            assert client.stdout.readline() == "b''\n", "the client reads the end of its connection"
            assert cut_off.recv(1) == b"", "and so does the server"
            kept.sendall(b"x")
            assert client.stdout.readline() == "b'x'\n"


def test_process_that_is_gone_has_no_connections() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    assert cut(process.pid, {1}) == 0


def test_descriptor_that_is_no_socket_any_more_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at a worker's descriptors and the call for one, its number may go to a file."""
    with Path(__file__).open() as file:
        before = set(os.listdir("/proc/self/fd"))
        monkeypatch.setattr(connections, "_socket_descriptors", lambda _: [file.fileno()])
        assert cut(os.getpid(), {1}) == 0
        assert set(os.listdir("/proc/self/fd")) == before, "and nothing is left open"
