"""Reads request bodies within limits of size and time, and knows when the caller has left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from starlette.requests import Request

from services.gateway.problems import Problem, too_large

SILENT_MAX_S = 30.0
"""A caller that sends nothing for so long is sent away."""


def media_type(request: Request) -> str:
    """Read the media type of a body, without its parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def unsupported(*taken: str) -> Problem:
    """Say which media types are taken."""
    return Problem("media-type", 415, f"Taken are: {', '.join(taken)}.", {"Accept": ", ".join(taken)})


def refuse_declared(request: Request, bytes_max: int) -> None:
    """Refuse a body that says by itself that it is too large, before any of it is read."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > bytes_max:
        raise too_large(bytes_max)


async def whole_body(request: Request, bytes_max: int) -> bytes:
    """Read a body; raise `Problem` 408 or 413, or starlette's ClientDisconnect."""
    refuse_declared(request, bytes_max)
    body = bytearray()
    async for piece in pieces(request):
        body += piece
        if len(body) > bytes_max:
            raise too_large(bytes_max)
    return bytes(body)


async def pieces(request: Request) -> AsyncIterator[bytes]:
    """Give a body piece by piece; raise `Problem` 408 when nothing comes, or starlette's ClientDisconnect."""
    stream = aiter(request.stream())
    while True:
        try:
            piece = await asyncio.wait_for(anext(stream), SILENT_MAX_S)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise Problem("too-slow", 408, "Nothing came for too long.", {"Connection": "close"}) from None
        yield piece
