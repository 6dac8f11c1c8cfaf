"""Cuts the connections of one process and of no other, as a network would: without its help and without its knowledge.

Each of its sockets is duplicated into this process (`pidfd_getfd(2)`, Linux 5.6) and shut down there. The kernel lets a
process do so to another of its own user, or to its own children where the system allows tracing no others.
"""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress

_PIDFD_GETFD = 438
_LIBC = ctypes.CDLL(None, use_errno=True)


class CannotCutError(Exception):
    """This system does not let one process shut another's sockets; the message says why."""


def cut(pid: int, ports: Collection[int]) -> int:
    """Shut a process's TCP connections to these ports; count them. A process that is gone has none."""
    count = 0
    for connection in _connections(pid):
        with connection, suppress(OSError):  # one that has just been closed has no peer any more
            if connection.getpeername()[1] in ports:
                connection.shutdown(socket.SHUT_RDWR)
                count += 1
    return count


def local_ports(pid: int, ports: Collection[int]) -> tuple[int, ...]:
    """Name the local ports of a process's connections to these ports, by which a server knows them."""
    found = []
    for connection in _connections(pid):
        with connection, suppress(OSError):
            if connection.getpeername()[1] in ports:
                found.append(int(connection.getsockname()[1]))
    return tuple(found)


def _connections(pid: int) -> Iterator[socket.socket]:
    """Duplicate each internet socket of a process; each is the caller's to close."""
    with _handle(pid) as handle:
        if handle is None:
            return
        for descriptor in _socket_descriptors(pid):
            found = _duplicate(handle, descriptor)
            if found is None:
                continue
            if found.family in (socket.AF_INET, socket.AF_INET6) and found.type == socket.SOCK_STREAM:
                yield found
            else:
                found.close()


@contextmanager
def _handle(pid: int) -> Iterator[int | None]:
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        yield None
        return
    try:
        yield handle
    finally:
        os.close(handle)


def _socket_descriptors(pid: int) -> list[int]:
    with suppress(OSError):
        return [int(name) for name in os.listdir(f"/proc/{pid}/fd") if _is_socket(pid, name)]
    return []


def _is_socket(pid: int, name: str) -> bool:
    with suppress(OSError):
        return os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:")
    return False


def _duplicate(handle: int, descriptor: int) -> socket.socket | None:
    """Duplicate another process's socket; None where it is closed by now. Raises `CannotCutError`."""
    number = _LIBC.syscall(_PIDFD_GETFD, handle, descriptor, 0)
    if number >= 0:
        return _socket_of(number)
    error = ctypes.get_errno()
    if isinstance(failed := OSError(error, os.strerror(error)), PermissionError) or error == _NO_SUCH_CALL:
        raise CannotCutError(f"The sockets of a worker can't be shut from outside: {failed.strerror}.")
    return None


def _socket_of(number: int) -> socket.socket | None:
    """Take over a descriptor; close it where its number went to something else between the look and the call."""
    try:
        return socket.socket(fileno=number)
    except OSError:
        os.close(number)
        return None


_NO_SUCH_CALL = 38
