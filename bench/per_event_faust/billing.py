"""The control's billing: inserts sales and their ledger rows in batches of 500 decisions, a transaction each."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import faust
import psycopg

from bench.per_event_faust.records import Decision
from bench.per_event_faust.settings import Settings, new_app

_BATCH_MAX = 500
_WITHIN_S = 0.1

_INSERT = """
with sold as (
    insert into faust_billing.sales (lead_id, sale_number, sale_id, buyer_id, price_cents, sold_at)
    select * from unnest(%s::uuid[], %s::smallint[], %s::uuid[], %s::text[], %s::bigint[], %s::timestamptz[])
    on conflict do nothing
    returning sale_id, buyer_id, price_cents
)
insert into faust_billing.ledger (sale_id, account, amount_cents)
select sale_id, 'buyer:' || buyer_id, price_cents from sold
union all
select sale_id, 'revenue', -price_cents from sold
"""


def build_app(settings: Settings) -> faust.App:
    """Wire the topic, the connection and the agent."""
    app = new_app(settings, "billing")
    decided = app.topic(settings.decisions, key_type=str, value_type=Decision)

    @app.agent(decided)
    async def bill(decisions: faust.StreamT[Decision]) -> None:
        async with await psycopg.AsyncConnection.connect(settings.database, autocommit=True) as connection:
            async for batch in decisions.take(_BATCH_MAX, within=_WITHIN_S):
                await connection.execute(_INSERT, _columns(batch))

    return app


def _columns(batch: Sequence[Decision]) -> tuple[list[object], ...]:
    rows = [
        (
            decision.lead_id,
            sale.sale_number,
            sale.sale_id,
            sale.buyer_id,
            sale.price_cents,
            datetime.fromtimestamp(decision.decided_at, tz=UTC),
        )
        for decision in batch
        for sale in decision.sales
    ]
    return tuple([list(column) for column in zip(*rows, strict=True)])
