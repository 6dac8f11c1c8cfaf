"""The thread that serves HTTP and makes webhooks, beside the worker's own threads."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import uvicorn
from starlette.types import ASGIApp

from services.bus.ports import BusFailed
from services.gateway.postman import HttpPostman

ENDS_WITHIN_S = 20.0
GRACE_S = 10
THREADS = 32
"""For what blocks: names to be looked up, records to be read again. One slow name must not hold up all others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """Where HTTP is served, and how many requests at once."""

    listener: socket.socket
    requests_max: int


def listen(host: str, port: int) -> socket.socket:
    """Take the port; raise OSError where somebody has it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=1_024)
    # Accepted connections inherit it; asyncio sets it by itself only on sockets made for TCP by name. Without it, head
    # and body of each answer are 40 ms apart.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.setblocking(False)
    return listener


class Web:
    """Runs the server until told to end; ends the worker where it ends by itself."""

    def __init__(
        self,
        listening: Listening,
        api: Callable[[], ASGIApp],
        postman: HttpPostman,
        fail: Callable[[BaseException], None],
    ) -> None:
        """Wire it; nothing runs before `start`."""
        self._listening = listening
        self._api = api
        self._postman = postman
        self._fail = fail
        self._server: uvicorn.Server | None = None
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def end(self) -> None:
        """Take no more requests, answer those that are there, and return."""
        self._ending.set()
        if self._server is not None:
            self._server.should_exit = True
        self._thread.join(ENDS_WITHIN_S)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
            if not self._ending.is_set():
                raise BusFailed("HTTP has ended by itself")
        except BaseException as error:  # noqa: BLE001  # whatever it was, the worker ends with it
            self._fail(error)

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(THREADS, thread_name_prefix="http"))
        self._postman.begin(loop)
        self._server = uvicorn.Server(
            uvicorn.Config(
                self._api(),
                log_config=None,
                access_log=False,
                lifespan="off",
                server_header=False,
                limit_concurrency=self._listening.requests_max,
                timeout_graceful_shutdown=GRACE_S,
            )
        )
        if not self._ending.is_set():
            await self._server.serve(sockets=[self._listening.listener])
        await self._postman.end()
