"""Leads by HTTP: one with an Idempotency-Key, or a stream of them; and what became of one.

What is answered 202 is on the source's topic, acknowledged by the broker. Whether it is a lead, intake judges.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import orjson
import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from services.bus.ports import Message
from services.contract.identity import reference_of
from services.contract.ids import partition_of
from services.gateway.bodies import media_type, pieces, refuse_declared, unsupported, whole_body
from services.gateway.checking import SUBMISSION_BYTES_MAX, Document, Unfit, read_submission
from services.gateway.desk import Desk
from services.gateway.idempotency import claim, key_of
from services.gateway.lines import Line, LineSplitter
from services.gateway.problems import Problem, too_large, unavailable, unfit
from services.gateway.statuses import status_json
from services.gateway.tokens import Caller, Kind

JSON = "application/json"
NDJSON = "application/x-ndjson"
LINES_AT_ONCE = 500
LINES_MAX = 50_000
_log = structlog.get_logger(__name__)


class LeadRoutes:
    """The handlers of `/v1/leads`."""

    def __init__(self, desk: Desk) -> None:
        """Share the desk."""
        self._desk = desk

    async def send(self, request: Request) -> Response:
        """Take one lead, or a stream of them, by the body's media type."""
        caller = await self._desk.admit(request, Kind.SOURCE)
        match media_type(request):
            case "application/json":
                return await self._send_one(request, caller)
            case "application/x-ndjson":
                return await self._send_stream(request, caller)
            case _:
                raise unsupported(JSON, NDJSON)

    async def status(self, request: Request) -> Response:
        """Tell what became of a lead of the caller's."""
        caller = await self._desk.admit(request, Kind.SOURCE)
        lead_id = _lead_id(request.path_params["lead_id"])
        found = await self._desk.ask(lambda store: store.status(lead_id, caller.owner_id))
        if found is None:
            raise Problem(
                "unknown-lead",
                404,
                "No lead of yours has this id; one that was just sent is known in a moment.",
                {"Retry-After": "1"},
            )
        return _json(200, status_json(found), {"Cache-Control": "no-store"})

    async def _send_one(self, request: Request, caller: Caller) -> Response:
        key = self._desk.keys.idempotency_key(caller.owner, key_of(request.headers.get("idempotency-key")))
        body = await whole_body(request, SUBMISSION_BYTES_MAX)
        try:
            document = read_submission(body)
        except Unfit as fault:
            raise unfit(fault.what, fault.field) from None
        stored = await claim(self._desk, caller, key, self._desk.keys.payload_hash(body))
        reply = stored or await self._append_one(caller, key, document, body)
        lead_id = orjson.loads(reply)["lead_id"]
        return Response(reply, 202, {"Location": f"/v1/leads/{lead_id}"}, JSON)

    async def _append_one(self, caller: Caller, key: str, document: Document, body: bytes) -> bytes:
        desk, lead_id = self._desk, self._name(caller, document)
        (error,) = await desk.appender.append([self._message(caller, lead_id, body)])
        if error is not None:
            desk.metrics.leads.labels("no").inc()
            await desk.ask(lambda store: store.give_back(caller.owner, key))
            raise unavailable("Kafka")
        desk.metrics.leads.labels("yes").inc()
        reply = orjson.dumps({"lead_id": lead_id})
        try:
            await desk.ask(lambda store: store.store_reply(caller.owner, key, reply))
        except Problem as fault:
            # The lead is taken all the same; the same sent again is the same lead.
            _log.warning("a reply was not stored", fault=fault.name)
        return reply

    async def _send_stream(self, request: Request, caller: Caller) -> Response:
        """Take lines as they come, batch by batch; answer when all are through.

        The answer waits for the end, because a client that sends all before it reads would otherwise lock up with us.
        """
        bytes_max = self._desk.limits.stream_bytes_max
        refuse_declared(request, bytes_max)
        stream = _Stream(self, caller)
        size = 0
        try:
            async for piece in pieces(request):
                size += len(piece)
                if size > bytes_max or stream.splitter.number > LINES_MAX:
                    raise too_large(bytes_max, {"lines_max": LINES_MAX, "lines_taken": stream.taken})
                await stream.feed(piece)
            await stream.end()
        except ClientDisconnect:
            self._desk.metrics.broken_off.inc()
            raise
        if stream.results and not stream.taken and stream.is_unavailable:
            raise unavailable("Kafka")
        return Response(b"".join(stream.results), 200, media_type=NDJSON)

    async def take(self, caller: Caller, lines: Sequence[Line]) -> list[dict[str, Any]]:
        """Append a batch of lines; tell for each, in order, its lead id or its problem."""
        results: list[dict[str, Any]] = []
        messages, awaited = [], []
        for line in lines:
            try:
                document = read_submission(line.content) if line.content is not None else None
            except Unfit as fault:
                results.append({"line": line.number, "problem": unfit(fault.what, fault.field).body()})
                continue
            if document is None or line.content is None:
                results.append({"line": line.number, "problem": too_large(SUBMISSION_BYTES_MAX).body()})
                continue
            lead_id = self._name(caller, document)
            messages.append(self._message(caller, lead_id, line.content))
            results.append({"line": line.number, "lead_id": lead_id})
            awaited.append(results[-1])
        errors = await self._desk.appender.append(messages)
        for result, error in zip(awaited, errors, strict=True):
            if error is not None:
                del result["lead_id"]
                result["problem"] = unavailable("Kafka").body()
        taken = sum("lead_id" in result for result in results)
        self._desk.metrics.leads.labels("yes").inc(taken)
        self._desk.metrics.leads.labels("no").inc(len(results) - taken)
        return results

    async def slow_down(self, caller: Caller, count: int) -> None:
        """Wait until the caller may send so many more lines: a stream is held back, and not cut off."""
        wait_s = self._desk.bucket(caller).borrow(count, self._desk.monotonic_s())
        if wait_s > 0:
            await asyncio.sleep(wait_s)

    def _name(self, caller: Caller, document: Document) -> str:
        keys = self._desk.keys
        return keys.lead_id(
            caller.owner_id, reference_of(document.body), keys.payload_hash(document.canonical)
        )

    def _message(self, caller: Caller, lead_id: str, body: bytes) -> Message:
        topic = self._desk.topics.source_leads(caller.owner_id)
        # A lead sent again comes behind itself.
        return Message(topic, partition_of(lead_id, self._desk.source_partitions), lead_id.encode(), body)


class _Stream:
    """Lines on their way through one request."""

    def __init__(self, routes: LeadRoutes, caller: Caller) -> None:
        self.splitter = LineSplitter(SUBMISSION_BYTES_MAX)
        self.results: list[bytes] = []
        self.taken = 0
        self.is_unavailable = False
        self._routes = routes
        self._caller = caller
        self._lines: list[Line] = []

    async def feed(self, piece: bytes) -> None:
        self._lines += self.splitter.feed(piece)
        while len(self._lines) >= LINES_AT_ONCE:
            batch, self._lines = self._lines[:LINES_AT_ONCE], self._lines[LINES_AT_ONCE:]
            await self._take(batch)

    async def end(self) -> None:
        self._lines += self.splitter.end()
        while self._lines:
            batch, self._lines = self._lines[:LINES_AT_ONCE], self._lines[LINES_AT_ONCE:]
            await self._take(batch)

    async def _take(self, lines: Sequence[Line]) -> None:
        await self._routes.slow_down(self._caller, len(lines))
        for result in await self._routes.take(self._caller, lines):
            problem = result.get("problem")
            self.taken += problem is None
            self.is_unavailable = self.is_unavailable or (problem is not None and problem["status"] == 503)
            self.results.append(orjson.dumps(result, option=orjson.OPT_APPEND_NEWLINE))


def _lead_id(text: str) -> str:
    """Read a lead id as we write it; anything else names no lead."""
    try:
        return str(UUID(text))
    except ValueError:
        return str(UUID(int=0))


def _json(status: int, body: object, headers: dict[str, str]) -> Response:
    return Response(orjson.dumps(body), status, headers, JSON)
