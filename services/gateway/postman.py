"""Makes webhooks: signs a record, posts it, and puts a reply that is an answer on the buyer's topic.

It runs in the loop of HTTP and is asked from the step's thread; which record is due when, the step says. Nothing here
is remembered: what is lost with the process is in the step's table still.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import orjson
import structlog

from services.bus.logging import told
from services.bus.ports import Record
from services.contract.topics import Topics
from services.gateway.answers import append_answer
from services.gateway.appending import Appender
from services.gateway.calling import NoReply, Reply, WebhookCaller
from services.gateway.checking import Unfit, read_answer
from services.gateway.domain import (
    Expired,
    Failed,
    Outcome,
    Pointer,
    Posted,
    judge,
    reply_as_answer,
)
from services.gateway.metrics import GatewayMetrics
from services.gateway.ports import Post
from services.gateway.signing import WebhookSecrets, signature_headers

ANSWERS_WITHIN_S = 10.0
_DEFAULT_TYPE = "application/json"
_log = structlog.get_logger(__name__)


class Fetcher(Protocol):
    """Reads single records from Kafka; blocks."""

    def fetch(self, pointer: Pointer) -> Record | None:
        """Read one; None where it is not in the topic any more. Raise `BusFailed`."""
        ...


class HttpPostman:
    """A `Postman` that calls over HTTP."""

    def __init__(
        self,
        *,
        caller: WebhookCaller,
        appender: Appender,
        fetcher: Fetcher,
        secrets: WebhookSecrets,
        topics: Topics,
        metrics: GatewayMetrics,
        now_ms: Callable[[], int],
    ) -> None:
        """Begin with nothing under way; it posts from `begin` on."""
        self._caller = caller
        self._appender = appender
        self._fetcher = fetcher
        self._secrets = secrets
        self._topics = topics
        self._metrics = metrics
        self._now_ms = now_ms
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended: deque[Outcome] = deque()

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Post in this loop."""
        self._loop = loop

    def post(self, post: Post) -> None:
        """Begin with one. Called by the step's thread."""
        if self._loop is None or self._loop.is_closed():
            self._ended.append(Failed(waiting=post.waiting, error="the gateway is stopping"))
            return
        self._loop.call_soon_threadsafe(self._start, post)

    def outcomes(self) -> Sequence[Outcome]:
        """Take what has ended since the last call. Called by the step's thread."""
        ended = []
        while self._ended:
            ended.append(self._ended.popleft())
        return ended

    async def end(self) -> None:
        """Give up what is under way; its rows stay, and another worker posts them."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._caller.end()

    def _start(self, post: Post) -> None:
        task = asyncio.get_running_loop().create_task(self._post(post))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _post(self, post: Post) -> None:
        try:
            self._ended.append(await self._outcome(post))
        except Exception as error:  # noqa: BLE001  # one post's defect is told, and tried again like any failure
            _log.error("webhook failed", record=str(post.waiting.pointer), error=told(error))
            self._ended.append(Failed(waiting=post.waiting, error=f"a defect: {type(error).__name__}"))

    async def _outcome(self, post: Post) -> Outcome:
        waiting = post.waiting
        record = post.record or await asyncio.to_thread(self._fetcher.fetch, waiting.pointer)
        if record is None:
            _log.error("a record to be posted is not in its topic any more", record=str(waiting.pointer))
            return Expired(waiting=waiting)
        started_ms = self._now_ms()
        try:
            reply = await self._called(post, record)
        except NoReply as fault:
            return Failed(waiting=waiting, error=str(fault))
        self._metrics.webhook_seconds.observe((self._now_ms() - started_ms) / 1_000)
        outcome = judge(waiting, status=reply.status, url=post.endpoint.url)
        if isinstance(outcome, Posted) and not await self._answered(post, record, reply):
            return Failed(waiting=waiting, error="its answer could not be appended")
        return outcome

    async def _called(self, post: Post, record: Record) -> Reply:
        body = record.value or b""
        now_ms = self._now_ms()
        headers = dict(record.headers)
        answer_by_ms = post.waiting.answer_by_ms
        within_s = ANSWERS_WITHIN_S
        if answer_by_ms is not None:
            within_s = min(within_s, (answer_by_ms - now_ms) / 1_000)
        if within_s <= 0:
            raise NoReply("its time was over")
        signed = signature_headers(
            message_id(record),
            at_s=now_ms // 1_000,
            body=body,
            secrets=[
                self._secrets.secret(post.endpoint.buyer_id, number)
                for number in post.endpoint.secret_numbers
            ],
        )
        content_type = headers.get("content-type", b"").decode("ascii", "replace") or _DEFAULT_TYPE
        about = {"content-type": content_type, "user-agent": "Gavel"}
        return await self._caller.call(post.endpoint.url, about | signed, body, within_s=within_s)

    async def _answered(self, post: Post, record: Record, reply: Reply) -> bool:
        """Append the answer that a reply is, if it is one; False where Kafka did not take it."""
        answer = reply_as_answer(_object(record.value), status=reply.status, reply=_object(reply.body))
        if answer is None:
            return True
        value = orjson.dumps(answer)
        try:
            read_answer(value)
        except Unfit:
            self._metrics.unusable_replies.inc()
            return True
        topic = self._topics.buyer_answers(post.endpoint.buyer_id)
        if await append_answer(self._appender, topic, answer["lead_id"], value) is not None:
            return False
        self._metrics.answers.inc()
        return True


def message_id(record: Record) -> str:
    """Name a message: the record's own id, the same each time that it is posted. A full stop would break signatures."""
    own = dict(record.headers).get("ce_id", b"").decode("ascii", "replace")
    return own.replace(".", "-") or f"{record.partition}:{record.offset}"


def _object(value: bytes | None) -> Mapping[str, Any]:
    try:
        read = orjson.loads(value or b"")
    except orjson.JSONDecodeError:
        return {}
    return read if isinstance(read, dict) else {}
