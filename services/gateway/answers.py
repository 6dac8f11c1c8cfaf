"""Buyers' answers by HTTP: the same JSON as on `buyers.<id>.answers`, and then on it."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from services.bus.ports import Message
from services.gateway.appending import Appender
from services.gateway.bodies import media_type, unsupported, whole_body
from services.gateway.checking import ANSWER_BYTES_MAX, Unfit, read_answer
from services.gateway.desk import Desk
from services.gateway.problems import unavailable, unfit
from services.gateway.tokens import Kind

JSON = "application/json"
ANSWERS_PARTITION = 0
"""A buyer's answers have one partition."""


class AnswerRoutes:
    """The handler of `/v1/answers`."""

    def __init__(self, desk: Desk) -> None:
        """Share the desk."""
        self._desk = desk

    async def send(self, request: Request) -> Response:
        """Take an answer; it counts from its append, which is before this returns."""
        caller = await self._desk.admit(request, Kind.BUYER)
        if media_type(request) != JSON:
            raise unsupported(JSON)
        body = await whole_body(request, ANSWER_BYTES_MAX)
        try:
            answer = read_answer(body).body
        except Unfit as fault:
            raise unfit(fault.what, fault.field) from None
        topic = self._desk.topics.buyer_answers(caller.owner_id)
        if await append_answer(self._desk.appender, topic, answer["lead_id"], body) is not None:
            raise unavailable("Kafka")
        self._desk.metrics.answers.inc()
        return Response(orjson.dumps(_said(answer)), 202, media_type=JSON)


async def append_answer(appender: Appender, topic: str, lead_id: str, value: bytes) -> str | None:
    """Append an answer; say what went wrong, if anything."""
    (error,) = await appender.append([Message(topic, ANSWERS_PARTITION, lead_id.encode(), value)])
    return error


def _said(answer: dict[str, Any]) -> dict[str, Any]:
    return {"type": answer["type"], "lead_id": answer["lead_id"]}
