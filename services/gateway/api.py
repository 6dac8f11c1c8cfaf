"""The HTTP application: which route is whose, and what becomes of a no. It opens nothing, and reads no setting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson
import structlog
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.bus.logging import told
from services.bus.ports import BusFailed, PassingFault
from services.gateway import describing, registry
from services.gateway.answers import AnswerRoutes
from services.gateway.desk import Desk
from services.gateway.leads import LeadRoutes
from services.gateway.metrics import GatewayMetrics
from services.gateway.problems import MEDIA_TYPE, Problem, unavailable
from services.gateway.registry import NotThere, SchemaRegistry

READY_WITHIN_S = 1.0
_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the application is told of the process around it."""

    version: str
    schemas: SchemaRegistry
    metrics_page: Callable[[], bytes]
    is_healthy: Callable[[], bool]
    fail: Callable[[BaseException], None]


def build_api(desk: Desk, around: Surroundings) -> FastAPI:
    """Build the application."""
    api = FastAPI(
        title="Gavel",
        version=around.version,
        description=describing.DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
    )
    _add_routes(api, desk)
    _add_registry(api, around.schemas)
    _add_probes(api, desk, around)
    _add_noes(api, around.fail)
    api.add_middleware(_Around, metrics=desk.metrics, monotonic_s=desk.monotonic_s)
    _describe(api)
    return api


def _add_routes(api: FastAPI, desk: Desk) -> None:
    leads, answers = LeadRoutes(desk), AnswerRoutes(desk)

    @api.post(
        "/v1/leads",
        summary="Send a lead, or a stream of them",
        status_code=202,
        response_class=Response,
        responses={
            200: describing.answered("Each line's result, a line each.", "Line", "application/x-ndjson"),
            202: describing.answered("The lead is on its topic.", "Taken"),
            **describing.problems(400, 401, 403, 408, 409, 413, 415, 422, 429, 503),
        },
        openapi_extra=describing.SEND_LEADS,
    )
    async def send_leads(request: Request) -> Response:
        return await leads.send(request)

    @api.get(
        "/v1/leads/{lead_id}",
        summary="What became of a lead",
        response_class=Response,
        responses={
            200: describing.answered("What its receipts say.", "Status"),
            **describing.problems(401, 403, 404, 429, 503),
        },
        openapi_extra=describing.READ_STATUS,
    )
    async def read_status(request: Request) -> Response:
        return await leads.status(request)

    @api.post(
        "/v1/answers",
        summary="Answer a ping or an offer, or tell of a lead",
        status_code=202,
        response_class=Response,
        responses={
            202: describing.answered("The answer is on its topic.", "AnswerTaken"),
            **describing.problems(401, 403, 408, 413, 415, 422, 429, 503),
        },
        openapi_extra=describing.SEND_ANSWER,
    )
    async def send_answer(request: Request) -> Response:
        return await answers.send(request)


def _add_registry(api: FastAPI, schemas: SchemaRegistry) -> None:
    def reply(content: Any, status: int = 200) -> Response:
        return Response(orjson.dumps(content), status, media_type=registry.MEDIA_TYPE)

    @api.get("/subjects", include_in_schema=False)
    async def subjects() -> Response:
        return reply(schemas.subjects())

    @api.get("/subjects/{subject}/versions", include_in_schema=False)
    async def versions(subject: str) -> Response:
        return reply(schemas.versions(subject))

    @api.get("/subjects/{subject}/versions/{version}", include_in_schema=False)
    async def version(subject: str, version: str) -> Response:
        return reply(schemas.version(subject, version))

    @api.get("/schemas/ids/{schema_id}", include_in_schema=False)
    async def schema(schema_id: str) -> Response:
        return reply(schemas.schema(schema_id))

    @api.exception_handler(NotThere)
    async def not_there(_: Request, fault: NotThere) -> Response:
        return reply({"error_code": fault.error_code, "message": fault.message}, fault.status)


def _add_probes(api: FastAPI, desk: Desk, around: Surroundings) -> None:
    @api.get("/healthz", include_in_schema=False)
    async def healthz() -> Response:
        healthy = around.is_healthy()
        return _json({"healthy": healthy}, 200 if healthy else 503)

    @api.get("/readyz", include_in_schema=False)
    async def readyz() -> Response:
        kafka = await asyncio.to_thread(desk.appender.reachable, READY_WITHIN_S)
        database = await _database_answers(desk)
        return _json({"kafka": kafka, "database": database}, 200 if kafka and database else 503)

    @api.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        return Response(around.metrics_page(), headers={"content-type": _METRICS_TYPE})


async def _database_answers(desk: Desk) -> bool:
    try:
        return await desk.ask(lambda store: store.answers())
    except (Problem, PassingFault):
        return False


def _add_noes(api: FastAPI, fail: Callable[[BaseException], None]) -> None:
    @api.exception_handler(Problem)
    async def problem(_: Request, fault: Problem) -> Response:
        return _problem(fault)

    @api.exception_handler(HTTPException)
    async def by_the_library(_: Request, fault: HTTPException) -> Response:
        name = {404: "not-there", 405: "method"}.get(fault.status_code, "refused")
        headers = dict(fault.headers or {})
        return _problem(Problem(name, fault.status_code, str(fault.detail), headers))

    @api.exception_handler(BusFailed)
    async def bus_failed(_: Request, fault: BusFailed) -> Response:
        fail(fault)
        return _problem(unavailable("Kafka"))

    @api.exception_handler(ClientDisconnect)
    async def has_left(_: Request, _fault: ClientDisconnect) -> Response:
        # Nobody reads this; the server wants an answer all the same.
        return _problem(Problem("has-left", 400, "The caller has left."))

    @api.exception_handler(Exception)
    async def defect(_: Request, fault: Exception) -> Response:
        _log.error("a request failed", error=told(fault))
        return _problem(Problem("defect", 500, "That was our fault. It is in our log."))


def _describe(api: FastAPI) -> None:
    """Put the published schemas into the document that FastAPI makes."""
    made = api.openapi

    def described() -> dict[str, Any]:
        document = made()
        document["components"] = describing.components()
        return document

    api.openapi = described  # type: ignore[method-assign]  # FastAPI's own way to extend the document


def _problem(fault: Problem) -> Response:
    return Response(orjson.dumps(fault.body()), fault.status, dict(fault.headers), MEDIA_TYPE)


def _json(content: Any, status: int) -> Response:
    return Response(orjson.dumps(content), status, media_type="application/json")


class _Around:
    """Counts requests, and adds what is left of the caller's allowance to each answer."""

    def __init__(self, app: ASGIApp, metrics: GatewayMetrics, monotonic_s: Callable[[], float]) -> None:
        self._app = app
        self._metrics = metrics
        self._monotonic_s = monotonic_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        started_s, status = self._monotonic_s(), 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                allowance = state.get("allowance")
                if allowance is not None:
                    message["headers"] = [*message["headers"], *_encoded(allowance.headers())]
            await send(message)

        try:
            await self._app(scope, receive, answer)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            self._metrics.requests.labels(route, str(status)).inc()
            self._metrics.request_seconds.labels(route).observe(self._monotonic_s() - started_s)


def _encoded(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]
