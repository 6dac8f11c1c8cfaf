"""What every request goes through: whose key it is, whether it may ask for so much, and the way to the database.

It knows no route. Keys are looked up again after a moment, so that a revoked one is refused within seconds.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from starlette.requests import Request

from services.bus.ports import PassingFault
from services.contract.identity import IdentityKeys
from services.contract.topics import Topics
from services.gateway.allowance import Bucket
from services.gateway.appending import Appender
from services.gateway.desk_store import DeskStore
from services.gateway.metrics import GatewayMetrics
from services.gateway.problems import not_yours, too_many, unauthorized, unavailable
from services.gateway.tokens import Caller, Kind, StoredKey, caller_of, read_bearer

T = TypeVar("T")

KEY_GOOD_FOR_S = 2.0
"""A key is looked up again after this: so long a revoked one may still be used."""

KEYS_MAX = 10_000
DATABASE_THREADS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much is taken: requests or lines of one key in a second, and bytes of one stream."""

    rate_per_s: int
    stream_bytes_max: int


@dataclass(slots=True)
class _Known:
    key: StoredKey | None
    until_s: float


@dataclass(slots=True)
class Desk:
    """Everything that the routes share."""

    store: DeskStore
    appender: Appender
    topics: Topics
    keys: IdentityKeys
    limits: Limits
    metrics: GatewayMetrics
    source_partitions: int
    now_ms: Callable[[], int]
    monotonic_s: Callable[[], float]
    threads: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(DATABASE_THREADS, thread_name_prefix="database")
    )
    _known: OrderedDict[str, _Known] = field(default_factory=OrderedDict)
    _buckets: OrderedDict[str, Bucket] = field(default_factory=OrderedDict)

    async def admit(self, request: Request, kind: Kind) -> Caller:
        """Say who asks, and count the request; raise `Problem` 401, 403, 429 or 503."""
        caller = await self._caller(request)
        if caller.kind is not kind:
            raise not_yours(kind)
        bucket = self.bucket(caller)
        may = bucket.take(self.monotonic_s())
        request.state.allowance = bucket.allowance()
        if not may:
            raise too_many(bucket.wait_s())
        return caller

    def bucket(self, caller: Caller) -> Bucket:
        """Find the caller's bucket: all keys of one owner share it."""
        bucket = self._buckets.get(caller.owner)
        if bucket is None:
            bucket = self._buckets[caller.owner] = Bucket.full(self.limits.rate_per_s, self.monotonic_s())
            _bound(self._buckets)
        self._buckets.move_to_end(caller.owner)
        return bucket

    async def ask(self, call: Callable[[DeskStore], T]) -> T:
        """Ask the database, in a thread; raise `Problem` 503 where it does not answer."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self.threads, call, self.store)
        except PassingFault:
            raise unavailable("The database") from None

    async def _caller(self, request: Request) -> Caller:
        token = read_bearer(request.headers.get("authorization"))
        if token is None:
            raise unauthorized()
        now_s = self.monotonic_s()
        known = self._known.get(token.prefix)
        if known is None or now_s >= known.until_s:
            key = await self.ask(lambda store: store.key(token.prefix))
            known = self._known[token.prefix] = _Known(key, now_s + KEY_GOOD_FOR_S)
            _bound(self._known)
        caller = caller_of(token, known.key)
        if caller is None:
            raise unauthorized()
        return caller


def _bound(kept: OrderedDict[str, T]) -> None:
    while len(kept) > KEYS_MAX:
        kept.popitem(last=False)
