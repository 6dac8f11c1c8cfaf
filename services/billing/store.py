"""The ledger in PostgreSQL: the rows of a batch and the log positions behind them, in one transaction.

It must not decide what an entry means; `services.billing.domain` has said so already.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from operator import attrgetter
from typing import Any, LiteralString, TypeAlias

import psycopg
from psycopg import sql

from services.billing.rows import (
    CloseRow,
    LeadRow,
    Postings,
    ReturnDecisionRow,
    ReturnRow,
    SaleChange,
    SaleRow,
    Total,
    TotalKey,
    TransferRow,
)
from services.bus.database import Session
from services.bus.log_reader import Move, Overtaken
from services.bus.ports import Stopped
from services.contract.entries import Position
from services.contract.times import iso_time

Connection: TypeAlias = psycopg.Connection[Any]

ROLE = "gavel_billing"
SCHEMA = "billing"
_NULL = r"\N"


class PostgresLedger:
    """Keeps the ledger in the tables of one schema."""

    def __init__(self, connect: Callable[[], Connection], *, schema: str = SCHEMA) -> None:
        """Take how to connect. The connection is autocommitting, or inside a transaction of the caller's."""
        self._session = Session(connect)
        self._sql = _Statements(schema)

    def positions(self, partitions: Collection[int]) -> Mapping[int, Position]:
        """Read the stored positions, making that of a partition never read."""
        with self._session.connection() as connection:
            return self._read_positions(connection, sorted(partitions))

    def record(self, rows: Postings, moves: Mapping[int, Move]) -> None:
        """Store the rows and move the positions by compare-and-set, in one transaction.

        Raise `Overtaken` with nothing stored where another owner has moved on, `PassingFault` where nobody can say
        whether the commit arrived, and `Stopped` where a constraint is violated.
        """
        with self._session.connection() as connection:
            try:
                with connection.transaction():
                    self._write(connection, rows, moves)
            except psycopg.IntegrityError as error:
                raise _stopped(error) from error

    def imbalance_cents(self) -> Mapping[str, int]:
        """Sum debits less credits of all accounts, by currency."""
        with self._session.connection() as connection:
            return {currency: int(cents) for currency, cents in connection.execute(self._sql.weigh)}

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    def _read_positions(self, connection: Connection, partitions: list[int]) -> Mapping[int, Position]:
        connection.execute(self._sql.begin_positions, (partitions,))
        return _positions(connection.execute(self._sql.read_positions, (partitions,)))

    def _write(self, connection: Connection, rows: Postings, moves: Mapping[int, Move]) -> None:
        # Positions first: whoever holds their locks owns all rows of these partitions, totals included.
        self._lock_positions(connection, moves)
        self._copy(connection, self._sql.copy_leads, map(_lead_line, rows.leads))
        self._copy(connection, self._sql.copy_sales, map(_sale_line, rows.sales))
        self._copy(connection, self._sql.copy_transfers, map(_transfer_line, rows.transfers))
        self._close_leads(connection, rows.closes)
        self._change_sales(connection, rows.changes)
        self._take_back_of_leads(connection, rows.changes)
        # Decisions first: while a return of a sale is pending, there is no room for its next one.
        self._decide_returns(connection, rows.return_decisions)
        self._copy(connection, self._sql.copy_returns, map(_return_line, rows.returns))
        self._add_totals(connection, rows.totals)
        self._move_positions(connection, moves)

    def _lock_positions(self, connection: Connection, moves: Mapping[int, Move]) -> None:
        stored = _positions(connection.execute(self._sql.lock_positions, (sorted(moves),)))
        overtaken = [at for at, move in moves.items() if stored.get(at) != move.before]
        if overtaken:
            raise Overtaken(overtaken)

    def _copy(self, connection: Connection, statement: sql.Composed, lines: Iterable[str]) -> None:
        text = "".join(lines)
        if text:
            with connection.cursor() as cursor, cursor.copy(statement) as copy:
                copy.write(text)

    # These statements are never prepared: a plan made while the table was small would go through all of it.
    def _close_leads(self, connection: Connection, closes: Sequence[CloseRow]) -> None:
        if closes:
            leads, outcomes, times_ms = (list(column) for column in zip(*closes, strict=True))
            times = [_moment(at_ms) for at_ms in times_ms]
            closed = connection.execute(
                self._sql.close_leads, (leads, outcomes, times), prepare=False
            ).rowcount
            if closed != len(closes):
                raise Stopped(
                    f"{len(closes) - closed} of {len(closes)} leads that the log closes are not listed or closed before"
                )

    def _change_sales(self, connection: Connection, changes: Sequence[SaleChange]) -> None:
        if changes:
            changed = connection.execute(
                self._sql.change_sales, _columns(_sale_change(change) for change in changes), prepare=False
            ).rowcount
            if changed != len(changes):
                raise Stopped(
                    f"{len(changes) - changed} of {len(changes)} sales that the log changes are unknown, of another "
                    "buyer or currency, or were upgraded, returned or undeliverable before"
                )

    def _take_back_of_leads(self, connection: Connection, changes: Sequence[SaleChange]) -> None:
        taken = [(change.sale_id, change.payout_back_cents) for change in changes if change.payout_back_cents]
        if taken:
            connection.execute(self._sql.take_back_of_leads, _columns(taken), prepare=False)

    def _decide_returns(self, connection: Connection, decisions: Sequence[ReturnDecisionRow]) -> None:
        if decisions:
            decided = connection.execute(
                self._sql.decide_returns, _columns(_decision(row) for row in decisions), prepare=False
            ).rowcount
            if decided != len(decisions):
                raise Stopped(
                    f"{len(decisions) - decided} of {len(decisions)} returns that the log decides are not pending"
                )

    def _add_totals(self, connection: Connection, totals: Mapping[TotalKey, Total]) -> None:
        if totals:
            connection.execute(
                self._sql.add_totals, _columns((*key, *total) for key, total in totals.items())
            )

    def _move_positions(self, connection: Connection, moves: Mapping[int, Move]) -> None:
        after = [
            (at, move.after.offset, move.after.seq, move.after.hash) for at, move in sorted(moves.items())
        ]
        connection.execute(self._sql.move_positions, _columns(after))


class _Statements:
    """The SQL, for one schema: the ledger's, or that of a rebuilt one beside it."""

    def __init__(self, schema: str) -> None:
        self._schema = sql.Identifier(schema)
        self.begin_positions = self._compose(
            "insert into {}.positions (partition, next_offset, seq, hash) "
            "select partition, 0, 0, decode(repeat('00', 32), 'hex') from unnest(%s::int[]) as partition "
            "on conflict do nothing"
        )
        self.read_positions = self._compose(
            "select partition, next_offset, seq, hash from {}.positions where partition = any(%s)"
        )
        self.lock_positions = self._compose(
            "select partition, next_offset, seq, hash from {}.positions where partition = any(%s) "
            "order by partition for update"
        )
        self.move_positions = self._compose(
            "update {}.positions as stored set next_offset = moved.next_offset, seq = moved.seq, hash = moved.hash "
            "from unnest(%s::int[], %s::bigint[], %s::bigint[], %s::bytea[]) "
            "as moved (partition, next_offset, seq, hash) where stored.partition = moved.partition"
        )
        self.weigh = self._compose(
            "select currency, sum(debits_cents) - sum(credits_cents) from {}.account_totals group by currency"
        )
        self.copy_leads = self._copy("leads", _LEAD_COLUMNS)
        self.copy_sales = self._copy("sales", _SALE_COLUMNS)
        self.copy_transfers = self._copy("transfers", _TRANSFER_COLUMNS)
        self.copy_returns = self._copy("returns", _RETURN_COLUMNS)
        self.close_leads = self._compose(
            "update {}.leads as lead set outcome = ended.outcome, closed_at = ended.closed_at "
            "from unnest(%s::uuid[], %s::text[], %s::timestamptz[]) as ended (lead_id, outcome, closed_at) "
            "where lead.lead_id = ended.lead_id and lead.outcome is null"
        )
        self.change_sales = self._compose(
            "update {}.sales as sale set "
            "upgrade_fee_cents = sale.upgrade_fee_cents + change.upgrade_fee_cents, "
            "credited_cents = sale.credited_cents + change.credited_cents, "
            "payout_cents = sale.payout_cents + change.payout_cents, "
            # What the sale has not earned is taken back of its lead, by another statement.
            "payout_back_cents = sale.payout_back_cents "
            "+ case when sale.payout_cents + change.payout_cents > 0 then change.payout_back_cents else 0 end, "
            "upgraded_at = coalesce(change.upgraded_at, sale.upgraded_at), "
            "delivery_failed_at = coalesce(change.delivery_failed_at, sale.delivery_failed_at), "
            "returned_at = coalesce(change.returned_at, sale.returned_at), "
            "disposition = coalesce(change.disposition, sale.disposition), "
            "disposition_at = coalesce(change.disposition_at, sale.disposition_at) "
            "from unnest(%s::uuid[], %s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], "
            "%s::timestamptz[], %s::timestamptz[], %s::timestamptz[], %s::text[], %s::timestamptz[]) "
            "as change (sale_id, buyer_id, currency, upgrade_fee_cents, credited_cents, payout_cents, "
            "payout_back_cents, upgraded_at, delivery_failed_at, returned_at, disposition, disposition_at) "
            "where sale.sale_id = change.sale_id and sale.buyer_id = change.buyer_id "
            "and (change.currency is null or sale.currency = change.currency) "
            "and (change.upgraded_at is null or sale.upgraded_at is null) "
            "and (change.delivery_failed_at is null or sale.delivery_failed_at is null) "
            "and (change.returned_at is null or sale.returned_at is null)"
        )
        self.take_back_of_leads = self._compose(
            "update {0}.leads as lead set payout_back_cents = lead.payout_back_cents + taken.cents "
            "from (select sale.lead_id, sum(back.cents) as cents "
            "from unnest(%s::uuid[], %s::bigint[]) as back (sale_id, cents) "
            "join {0}.sales as sale using (sale_id) where sale.payout_cents = 0 group by sale.lead_id) as taken "
            "where lead.lead_id = taken.lead_id"
        )
        self.decide_returns = self._compose(
            "update {}.returns as asked set decision = decided.decision, decided_at = decided.decided_at, "
            "refusal = decided.refusal, automatic = decided.automatic, refund_cents = decided.refund_cents "
            "from unnest(%s::uuid[], %s::text[], %s::timestamptz[], %s::text[], %s::boolean[], %s::bigint[]) "
            "as decided (sale_id, decision, decided_at, refusal, automatic, refund_cents) "
            "where asked.sale_id = decided.sale_id and asked.decision = 'pending'"
        )
        self.add_totals = self._compose(
            "insert into {}.account_totals as stored (account, currency, partition, debits_cents, credits_cents) "
            "select * from unnest(%s::text[], %s::text[], %s::int[], %s::bigint[], %s::bigint[]) order by 1, 2, 3 "
            "on conflict (account, currency, partition) do update set "
            "debits_cents = stored.debits_cents + excluded.debits_cents, "
            "credits_cents = stored.credits_cents + excluded.credits_cents"
        )

    def _compose(self, statement: LiteralString) -> sql.Composed:
        return sql.SQL(statement).format(self._schema)

    def _copy(self, table: str, columns: str) -> sql.Composed:
        names = sql.SQL(", ").join(map(sql.Identifier, columns.split()))
        return sql.SQL("copy {}.{} ({}) from stdin").format(self._schema, sql.Identifier(table), names)


def _positions(rows: Iterable[tuple[int, int, int, bytes]]) -> dict[int, Position]:
    return {at: Position(offset=next_offset, seq=seq, hash=digest) for at, next_offset, seq, digest in rows}


def _columns(rows: Iterable[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


def _sale_change(change: SaleChange) -> tuple[Any, ...]:
    *amounts, upgraded_at_ms, failed_at_ms, returned_at_ms, disposition, disposition_at_ms = change
    times = map(_moment, (upgraded_at_ms, failed_at_ms, returned_at_ms))
    return (*amounts, *times, disposition, _moment(disposition_at_ms))


def _decision(row: ReturnDecisionRow) -> tuple[Any, ...]:
    return (row.sale_id, row.decision, _moment(row.decided_at_ms), *row[3:])


def _stopped(error: psycopg.IntegrityError) -> Stopped:
    found = error.diag
    return Stopped(
        f"the log says what the ledger cannot hold: {found.table_name}, constraint {found.constraint_name}: "
        f"{found.message_detail or found.message_primary}. Compare: gavel billing rebuild --verify"
    )


# COPY's text format by hand, as psycopg's own formatting, value by value, takes three times as long. What comes back
# in row after row (a time, the terms of a sale) keeps its text.
_LEAD_COLUMNS = (
    "lead_id listed_at partition outcome closed_at lead_type plan source_id is_test payout_cents currency"
)
_LEAD_TERMS = attrgetter(*_LEAD_COLUMNS.split()[5:])
_SALE_COLUMNS = (
    "sale_id lead_id sale_number sold_at exclusive_until partition seq "
    "sales_max mode price_cents currency buyer_id order_id source_id lead_type plan stage is_test payout_cents"
)
_SALE_TERMS = attrgetter(*_SALE_COLUMNS.split()[7:])
_TRANSFER_COLUMNS = (
    "transfer_id sale_id lead_id reference amount_cents posted_at seq "
    "kind debit_account credit_account currency partition"
)
_RETURN_COLUMNS = (
    "sale_id seq partition requested_at decided_at reason decision refusal automatic refund_cents"
)


def _lead_line(row: LeadRow) -> str:
    lead_id, listed_at_ms, partition, listed, outcome, closed_at_ms = row
    return (
        f"{lead_id}\t{_time(listed_at_ms)}\t{partition}\t{outcome.value if outcome else _NULL}\t"
        f"{_time(closed_at_ms)}\t{_texts(_LEAD_TERMS(listed))}\n"
    )


def _sale_line(row: SaleRow) -> str:
    lead_id, sold_at_ms, partition, seq, sold = row
    return (
        f"{sold.sale_id}\t{lead_id}\t{sold.sale_number}\t{_time(sold_at_ms)}\t{_time(sold.exclusive_until_ms)}\t"
        f"{partition}\t{seq}\t{_texts(_SALE_TERMS(sold))}\n"
    )


def _transfer_line(row: TransferRow) -> str:
    transfer_id, sale_id, amount_cents, posted_at_ms, seq, *_, lead_id, reference = row
    return (
        f"{transfer_id}\t{sale_id or _NULL}\t{lead_id or _NULL}\t{_text(reference)}\t{amount_cents}\t"
        f"{_time(posted_at_ms)}\t{seq}\t{_texts(row[5:10])}\n"
    )


def _return_line(row: ReturnRow) -> str:
    return (
        f"{row.sale_id}\t{row.seq}\t{row.partition}\t{_time(row.requested_at_ms)}\t{_time(row.decided_at_ms)}\t"
        f"{_texts((row.reason, row.decision, row.refusal, row.automatic, row.refund_cents))}\n"
    )


@lru_cache(maxsize=65_536)
def _texts(values: tuple[str | int | None, ...]) -> str:
    return "\t".join(map(_text, values))


def _text(value: str | int | None) -> str:
    """Write a value for COPY, in which backslash, tab and line ends have their own meaning."""
    if value is None:
        return _NULL
    return str(value).replace("\\", r"\\").replace("\t", r"\t").replace("\n", r"\n").replace("\r", r"\r")


@lru_cache(maxsize=4_096)
def _time(at_ms: int | None) -> str:
    return _NULL if at_ms is None else iso_time(at_ms)


@lru_cache(maxsize=4_096)
def _moment(at_ms: int | None) -> datetime | None:
    if at_ms is None:
        return None
    return datetime.fromtimestamp(at_ms // 1_000, tz=UTC).replace(microsecond=at_ms % 1_000 * 1_000)
