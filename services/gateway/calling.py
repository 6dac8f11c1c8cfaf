"""Calls webhooks: at addresses that were checked when the connection is made, without redirects, within limits.

The check is where the connection is opened, so that no name can stand for one address when it is looked at and for
another when it is called.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import httpcore

from services.gateway.addresses import Forbidden, Network, require_addresses, require_url
from services.gateway.domain import REPLY_BYTES_MAX

CONNECTIONS_MAX = 40
KEPT_ALIVE_S = 30.0
POOLS_MAX = 1_000


class Reply(NamedTuple):
    """What a webhook answered, its body cut at the limit."""

    status: int
    body: bytes


class NoReply(Exception):
    """It did not answer; the message says why in our words."""


class WebhookCaller:
    """Posts to webhooks, with connections of each one's own."""

    def __init__(self, allowed: Sequence[Network]) -> None:
        """Take the networks of the house that webhooks may go to."""
        self._allowed = allowed
        self._ssl = ssl.create_default_context()
        self._pools: OrderedDict[str, httpcore.AsyncConnectionPool] = OrderedDict()

    async def call(self, url: str, headers: Mapping[str, str], body: bytes, *, within_s: float) -> Reply:
        """Post; raise `NoReply`."""
        try:
            require_url(url, self._allowed)
            async with asyncio.timeout(within_s):
                return await self._call(url, headers, body)
        except Forbidden as fault:
            raise NoReply(f"must not be called: {fault}") from None
        except TimeoutError:
            raise NoReply("no answer in time") from None
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, OSError) as fault:
            raise NoReply(f"no answer: {type(fault).__name__}") from None
        except (httpcore.UnsupportedProtocol, UnicodeError, ValueError) as fault:
            raise NoReply(f"no URL that can be called: {type(fault).__name__}") from None

    async def end(self) -> None:
        """Close all connections."""
        for pool in self._pools.values():
            await pool.aclose()
        self._pools.clear()

    async def _call(self, url: str, headers: Mapping[str, str], body: bytes) -> Reply:
        pool = await self._pool(url)
        async with pool.stream("POST", url, headers=list(headers.items()), content=body) as response:
            return Reply(response.status, await _bounded(response))

    async def _pool(self, url: str) -> httpcore.AsyncConnectionPool:
        pool = self._pools.get(url)
        if pool is None:
            pool = self._pools[url] = httpcore.AsyncConnectionPool(
                ssl_context=self._ssl,
                max_connections=CONNECTIONS_MAX,
                max_keepalive_connections=CONNECTIONS_MAX,
                keepalive_expiry=KEPT_ALIVE_S,
                network_backend=GuardedNetwork(self._allowed),
            )
            if len(self._pools) > POOLS_MAX:
                _, oldest = self._pools.popitem(last=False)
                await oldest.aclose()
        self._pools.move_to_end(url)
        return pool


class GuardedNetwork(httpcore.AsyncNetworkBackend):
    """Opens connections to permitted addresses only."""

    def __init__(self, allowed: Sequence[Network]) -> None:
        """Take the networks of the house that are permitted, too."""
        self._allowed = allowed
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Look the name up, check every address that it has, and connect to one of these."""
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = [str(address[0]) for *_, address in found]
        require_addresses(addresses, self._allowed)
        return await self._network.connect_tcp(addresses[0], port, timeout, local_address, socket_options)

    async def connect_unix_socket(
        self,
        path: str,  # noqa: ARG002  # the library's signature
        timeout: float | None = None,  # noqa: ARG002
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,  # noqa: ARG002
    ) -> httpcore.AsyncNetworkStream:
        """Refuse: no webhook is a socket of this machine."""
        raise Forbidden("a socket of this machine")

    async def sleep(self, seconds: float) -> None:
        """Wait, as the library asks."""
        await asyncio.sleep(seconds)


async def _bounded(response: httpcore.Response) -> bytes:
    body = bytearray()
    async for piece in response.aiter_stream():
        body += piece
        if len(body) > REPLY_BYTES_MAX:
            break
    return bytes(body[:REPLY_BYTES_MAX])
