"""The gateway's tables in PostgreSQL, as its step writes them: a batch a statement.

No rule is here. Every exception that leaves is `PassingFault` or `Overtaken`, or means that the worker must stop.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import orjson
from psycopg import Connection

from services.bus.database import Session
from services.bus.ports import TopicPartition
from services.contract.market import Market
from services.contract.times import DAY_MS
from services.gateway.domain import Pointer, Waiting
from services.gateway.ports import Directory, Endpoint, Move, Overtaken, Settled
from services.gateway.statuses import LeadStatus
from services.market.store import Markets, current_version, load

LEADS_KEPT_MS = 90 * DAY_MS
REPLIES_KEPT_MS = DAY_MS
GIVEN_UP_KEPT_MS = 30 * DAY_MS
SECRETS_OVERLAP_MS = DAY_MS

_SOURCES = (
    "select distinct owner_id from gateway.keys where kind = 'source' and revoked_at_ms is null order by 1"
)
_ENDPOINTS = "select buyer_id, secret_number, previous_until_ms, disabled_url from gateway.endpoints"
_BEGIN = """
insert into gateway.positions (topic, partition) select * from unnest(%s::text[], %s::int[]) on conflict do nothing
"""
_POSITIONS = """
select stored.topic, stored.partition, stored.next_offset
from gateway.positions as stored
join unnest(%s::text[], %s::int[]) as asked (topic, partition) using (topic, partition)
"""
_MOVE = """
update gateway.positions as stored set next_offset = moved.after
from unnest(%s::text[], %s::int[], %s::bigint[], %s::bigint[]) as moved (topic, partition, before, after)
where stored.topic = moved.topic and stored.partition = moved.partition
    and stored.next_offset is not distinct from moved.before
"""
_STATUSES = """
select lead_id::text, source_id, log_seq, happened from gateway.leads where lead_id = any(%s::text[]::uuid[])
"""
_KEEP_STATUSES = """
insert into gateway.leads (lead_id, source_id, log_seq, happened, updated_at_ms)
select *, %s from unnest(%s::text[]::uuid[], %s::text[], %s::bigint[], %s::text[]::jsonb[])
on conflict (lead_id) do update
set log_seq = excluded.log_seq, happened = excluded.happened, updated_at_ms = excluded.updated_at_ms
"""
_KEEP_WAITING = """
insert into gateway.webhooks
    (topic, partition, position, buyer_id, next_try_at_ms, answer_by_ms, made_at_ms)
select *, %s from unnest(%s::text[], %s::int[], %s::bigint[], %s::text[], %s::bigint[], %s::bigint[])
on conflict do nothing
"""
_NEXT = """
select row.topic, row.partition, row.position, row.buyer_id, row.attempts, row.next_try_at_ms, row.answer_by_ms
from unnest(%s::text[], %s::int[]) as asked (topic, most)
cross join lateral (
    select * from gateway.webhooks
    where topic = asked.topic and given_up_at_ms is null
    order by next_try_at_ms, position
    limit asked.most
) as row
"""
_AT = "row.topic = at.topic and row.partition = at.partition and row.position = at.position"
_DONE = f"""
delete from gateway.webhooks as row
using unnest(%s::text[], %s::int[], %s::bigint[]) as at (topic, partition, position)
where {_AT}
"""
_LATER = f"""
update gateway.webhooks as row
set attempts = at.attempts, next_try_at_ms = at.next_try_at_ms, last_error = at.error
from unnest(%s::text[], %s::int[], %s::bigint[], %s::int[], %s::bigint[], %s::text[])
    as at (topic, partition, position, attempts, next_try_at_ms, error)
where {_AT}
"""
_GIVE_UP = f"""
update gateway.webhooks as row
set given_up_at_ms = %s, attempts = attempts + 1, last_error = at.error
from unnest(%s::text[], %s::int[], %s::bigint[], %s::text[]) as at (topic, partition, position, error)
where {_AT}
"""
_DISABLE = """
insert into gateway.endpoints (buyer_id, disabled_url, disabled_at_ms)
select *, %s from unnest(%s::text[], %s::text[])
on conflict (buyer_id) do update
set disabled_url = excluded.disabled_url, disabled_at_ms = excluded.disabled_at_ms
"""
_FORGET_LEADS = """
delete from gateway.leads where lead_id = any(array(
    select lead_id from gateway.leads where updated_at_ms < %s order by updated_at_ms limit %s
))
"""
_FORGET_REPLIES = """
delete from gateway.replies where (owner, idempotency_key) in (
    select owner, idempotency_key from gateway.replies where claimed_at_ms < %s order by claimed_at_ms limit %s
)
"""
_FORGET_GIVEN_UP = """
delete from gateway.webhooks where (topic, partition, position) in (
    select topic, partition, position from gateway.webhooks where given_up_at_ms < %s limit %s
)
"""


class PostgresGatewayStore:
    """A `GatewayStore`."""

    def __init__(self, connect: Callable[[], Connection]) -> None:
        """Take how to connect as `gavel_gateway`, with autocommit."""
        self._session = Session(connect)
        self._markets = Markets(self._load_market)

    def directory(self, now_ms: int) -> Directory:
        """Read who uses HTTP, of the market in force; nobody before the first."""
        with self._session.connection() as connection:
            version = current_version(connection)
            if not version:
                return Directory()
            market = self._markets.get(version)
            with_keys = [source_id for (source_id,) in connection.execute(_SOURCES)]
            stored = {row[0]: row[1:] for row in connection.execute(_ENDPOINTS)}
        return Directory(
            sources=tuple(source_id for source_id in with_keys if source_id in market.sources),
            endpoints=_endpoints(market, stored, now_ms),
        )

    def positions(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int | None]:
        """Read how far partitions were handled, and make the rows that compare-and-set needs."""
        asked = sorted(partitions)
        columns = ([where.topic for where in asked], [where.partition for where in asked])
        with self._session.connection() as connection:
            connection.execute(_BEGIN, columns)
            rows = connection.execute(_POSITIONS, columns).fetchall()
        return {TopicPartition(topic, partition): offset for topic, partition, offset in rows}

    def statuses(self, lead_ids: Collection[str]) -> Mapping[str, LeadStatus]:
        """Read what is known of these leads."""
        with self._session.connection() as connection:
            rows = connection.execute(_STATUSES, (list(lead_ids),)).fetchall()
        return {row[0]: status_of(row) for row in rows}

    def keep(
        self,
        moves: Mapping[TopicPartition, Move],
        statuses: Collection[LeadStatus],
        waiting: Collection[Waiting],
        now_ms: int,
    ) -> None:
        """In one transaction, move the positions and write what follows; raise `Overtaken` with nothing written."""
        with self._session.connection() as connection, connection.transaction():
            self._move(connection, moves)
            if statuses:
                connection.execute(_KEEP_STATUSES, (now_ms, *_status_columns(statuses)))
            if waiting:
                connection.execute(_KEEP_WAITING, (now_ms, *_waiting_columns(waiting)))

    def next_in(self, topics: Mapping[str, int]) -> Mapping[str, Sequence[Waiting]]:
        """Of each topic give the rows whose turn is next, soonest first, so many at most."""
        found: dict[str, list[Waiting]] = {topic: [] for topic in topics}
        with self._session.connection() as connection:
            rows = connection.execute(_NEXT, (list(topics), list(topics.values()))).fetchall()
        for topic, partition, position, buyer_id, attempts, next_try_at_ms, answer_by_ms in rows:
            found[topic].append(
                Waiting(
                    pointer=Pointer(topic, partition, position),
                    buyer_id=buyer_id,
                    attempts=attempts,
                    next_try_at_ms=next_try_at_ms,
                    answer_by_ms=answer_by_ms,
                )
            )
        return found

    def settle(self, settled: Settled, now_ms: int) -> None:
        """Write what became of webhooks."""
        with self._session.connection() as connection, connection.transaction():
            if settled.done:
                connection.execute(_DONE, _pointer_columns(settled.done))
            if settled.later:
                connection.execute(_LATER, _later_columns(settled.later))
            if settled.given_up:
                pointers = [pointer for pointer, _ in settled.given_up]
                said = [error for _, error in settled.given_up]
                connection.execute(_GIVE_UP, (now_ms, *_pointer_columns(pointers), said))
            if settled.disabled:
                columns = (list(settled.disabled), list(settled.disabled.values()))
                connection.execute(_DISABLE, (now_ms, *columns))

    def forget(self, now_ms: int, limit: int) -> int:
        """Delete what was kept long enough, about `limit` rows of each kind at most; say how many."""
        old = (
            (_FORGET_LEADS, LEADS_KEPT_MS),
            (_FORGET_REPLIES, REPLIES_KEPT_MS),
            (_FORGET_GIVEN_UP, GIVEN_UP_KEPT_MS),
        )
        with self._session.connection() as connection:
            return sum(connection.execute(text, (now_ms - kept_ms, limit)).rowcount for text, kept_ms in old)

    def _move(self, connection: Connection, moves: Mapping[TopicPartition, Move]) -> None:
        where = sorted(moves)
        moved = connection.execute(
            _MOVE,
            (
                [at.topic for at in where],
                [at.partition for at in where],
                [moves[at].before for at in where],
                [moves[at].after for at in where],
            ),
        ).rowcount
        if moved != len(moves):
            raise Overtaken(tuple(moves))

    def _load_market(self, version: int) -> Market:
        return load(self._session.opened(), version)


def status_of(row: tuple[Any, ...]) -> LeadStatus:
    """Make a status of its row."""
    lead_id, source_id, log_seq, happened = row
    return LeadStatus(lead_id=lead_id, source_id=source_id, log_seq=log_seq, happened=tuple(happened))


def _endpoints(market: Market, stored: Mapping[str, tuple[Any, ...]], now_ms: int) -> Mapping[str, Endpoint]:
    found = {}
    for buyer in market.buyers.values():
        if buyer.deliver.webhook is None:
            continue
        number, previous_until_ms, disabled_url = stored.get(buyer.id, (1, 0, None))
        changing_over = number > 1 and now_ms < previous_until_ms
        found[buyer.id] = Endpoint(
            buyer_id=buyer.id,
            url=buyer.deliver.webhook,
            secret_numbers=(number, number - 1) if changing_over else (number,),
            disabled_url=disabled_url,
        )
    return found


def _status_columns(statuses: Collection[LeadStatus]) -> tuple[list[Any], ...]:
    # In the order of their ids: two workers that hold one partition wait, and don't deadlock.
    rows = sorted(statuses, key=lambda status: status.lead_id)
    return (
        [row.lead_id for row in rows],
        [row.source_id for row in rows],
        [row.log_seq for row in rows],
        [orjson.dumps(row.happened).decode() for row in rows],
    )


def _waiting_columns(waiting: Collection[Waiting]) -> tuple[list[Any], ...]:
    rows = list(waiting)
    return (
        *_pointer_columns([row.pointer for row in rows]),
        [row.buyer_id for row in rows],
        [row.next_try_at_ms for row in rows],
        [row.answer_by_ms for row in rows],
    )


def _later_columns(later: Sequence[tuple[Waiting, str]]) -> tuple[list[Any], ...]:
    return (
        *_pointer_columns([row.pointer for row, _ in later]),
        [row.attempts for row, _ in later],
        [row.next_try_at_ms for row, _ in later],
        [error for _, error in later],
    )


def _pointer_columns(pointers: Sequence[Pointer]) -> tuple[list[Any], ...]:
    return (
        [pointer.topic for pointer in pointers],
        [pointer.partition for pointer in pointers],
        [pointer.position for pointer in pointers],
    )
