"""The in-memory twin of the router's tables: the same transactions and the same constraints, without a database.

A `MemoryRouterTables` is what survives a crash; each worker has a `MemoryRouterStore` of its own on it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, MutableMapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, NamedTuple

from services.bus.memory import Faults, VirtualClock
from services.bus.ports import Stopped
from services.contract.market import Mode
from services.router.ports import (
    AS_STORED,
    FOR_GOOD,
    NEVER_CLOSED,
    NO_DRAWS,
    AcknowledgedRow,
    AuctionRow,
    Behind,
    CloseRow,
    CounterDraw,
    CounterRow,
    Draws,
    ErasureRow,
    Head,
    LimitsShort,
    LogRow,
    Mark,
    MoneyRow,
    Overtaken,
    PartitionCommit,
    PromiseBroken,
    SaleRow,
    Snapshot,
    UndeliveredRow,
)
from services.router.state_bytes import state_bytes, state_of

CONSTRAINTS = frozenset(
    {
        "one_sale_per_number",
        "never_the_same_buyer_twice",
        "no_more_than_sales_max",
        "exclusive_is_the_first",
        "shared_closes_nothing",
        "exclusive_closes",
        "nothing_beside_an_exclusive_sale",
        "follows_the_first_sale",
        "one_close_per_lead",
        "listed_once",
        "nothing_beside_the_archive",
        "one_auction_per_lead",
        "one_move_per_reference",
        "never_over_the_limit",
    }
)
"""The names that the constraints have in the database too."""

SALES_MAX = 10
TABLES = (
    *("erasures", "acknowledged"),
    *("heads", "log", "leads", "sales", "closes", "undelivered", "counters", "money", "auctions"),
    "archived",
)


class ArchivedLead(NamedTuple):
    """A lead in the archive, with all that stood about it in the other tables."""

    state: bytes
    close: CloseRow
    sales: tuple[SaleRow, ...]


@dataclass(slots=True)
class MemoryRouterTables:
    """The tables, and the `vault`'s rows, which are erased with the mark.

    `without`: constraints that a test takes away, to see the promise break.
    """

    heads: dict[int, Head] = field(default_factory=dict)
    log: dict[tuple[int, int], LogRow] = field(default_factory=dict)
    leads: dict[str, bytes] = field(default_factory=dict)
    sales: dict[tuple[str, int], SaleRow] = field(default_factory=dict)
    closes: dict[str, CloseRow] = field(default_factory=dict)
    undelivered: dict[tuple[int, int, int], UndeliveredRow] = field(default_factory=dict)
    counters: dict[str, CounterRow] = field(default_factory=dict)
    money: dict[MoneyRow, bool] = field(default_factory=dict)
    auctions: dict[str, AuctionRow] = field(default_factory=dict)
    archived: dict[str, ArchivedLead] = field(default_factory=dict)
    erasures: dict[tuple[str, str], ErasureRow] = field(default_factory=dict)
    acknowledged: dict[tuple[str, str], AcknowledgedRow] = field(default_factory=dict)
    vault: MutableMapping[str, Any] = field(default_factory=dict)
    without: frozenset[str] = frozenset()

    def write(self, commit: PartitionCommit) -> None:
        """Write one partition's rows; raise `PromiseBroken` at the first that a constraint refuses."""
        self.heads[commit.before.partition] = replace(commit.after, version=commit.before.version + 1)
        for row in commit.log:
            if (row.partition, row.seq) in self.log:
                raise Stopped(f"entry {row.seq} of partition {row.partition} is there already")
            self.log[row.partition, row.seq] = row
        for lead_id, state in commit.new_leads.items():
            self._require("listed_once", lead_id not in self.leads and lead_id not in self.archived, lead_id)
            assert state is not None
            self.leads[lead_id] = state_bytes(state)
        for lead_id, state in commit.changed_leads.items():
            self._recall(lead_id)
            assert lead_id in self.leads, "every changed lead has its row"
            assert state is not None
            self.leads[lead_id] = state_bytes(state)
        for lead_id in [sale.lead_id for sale in commit.sales] + [close.lead_id for close in commit.closes]:
            self._require("nothing_beside_the_archive", lead_id not in self.archived, lead_id)
        for sale in commit.sales:
            self._check_sale(sale)
            self.sales[sale.lead_id, sale.sale_number] = sale
        for lead_id in commit.upgrades:
            self._upgrade(lead_id)
        for close in commit.closes:
            self._require("one_close_per_lead", close.lead_id not in self.closes, close.lead_id)
            self.closes[close.lead_id] = close
        self.add_undelivered(commit.mark)
        for erasure in commit.erasures:
            self.erasures[erasure.lead_id, erasure.buyer_id] = erasure
            self.acknowledged.pop((erasure.lead_id, erasure.buyer_id), None)
        for done in commit.acknowledged:
            assert (done.lead_id, done.buyer_id) in self.erasures, "only who was asked acknowledges"
            self.acknowledged[done.lead_id, done.buyer_id] = done
        for lead_id in commit.auctions_ended:
            self.auctions.pop(lead_id, None)
        for auction in commit.auctions_opened:
            self._require("one_auction_per_lead", auction.lead_id not in self.auctions, auction.lead_id)
            self.auctions[auction.lead_id] = auction
        for move in commit.money:
            self._require("one_move_per_reference", move not in self.money, move.account_id)
            self.money[move] = True

    def draw(self, draws: Draws) -> Sequence[CounterRow]:
        """Apply what a batch draws; raise `LimitsShort` where that does not fit."""
        drawn = [draw for draw in draws.rows if draw.most != AS_STORED or draw.counter in self.counters]
        before = [self.counters.get(draw.counter, CounterRow(draw.counter)) for draw in drawn]
        pairs = list(zip(before, drawn, strict=True))
        if any(_is_short(row, draw, draws.market_version) for row, draw in pairs):
            raise LimitsShort(before)
        after = [_drawn(row, draw, draws.market_version) for row, draw in pairs]
        for row in after:
            if row.used > row.most + row.granted + row.shortfall:
                self._refuse_limit(row)
            self.counters[row.counter] = row
        return after

    def archive(self, lead_ids: Collection[str]) -> int:
        """Move closed leads, whole, out of the tables that commits write to; return how many."""
        whole = [lead_id for lead_id in lead_ids if lead_id in self.leads and lead_id in self.closes]
        for lead_id in whole:
            numbers = range(1, SALES_MAX + 1)
            self.archived[lead_id] = ArchivedLead(
                state=self.leads.pop(lead_id),
                close=self.closes.pop(lead_id),
                sales=tuple(
                    self.sales.pop((lead_id, number)) for number in numbers if (lead_id, number) in self.sales
                ),
            )
        return len(whole)

    def _recall(self, lead_id: str) -> None:
        """Take a lead that a commit changes back from the archive, if it is there."""
        found = self.archived.pop(lead_id, None)
        if found is not None:
            self.leads[lead_id], self.closes[lead_id] = found.state, found.close
            self.sales |= {(lead_id, sale.sale_number): sale for sale in found.sales}

    def _refuse_limit(self, row: CounterRow) -> None:
        if "never_over_the_limit" not in self.without:
            raise Stopped(f"constraint never_over_the_limit refused {row}")

    def _upgrade(self, lead_id: str) -> None:
        """Make the first sale exclusive; a foreign key of later sales points at its terms."""
        first = self.sales.get((lead_id, 1))
        shared = first is not None and first.mode is Mode.SHARED
        self._require("only_a_shared_sale_is_upgraded", shared, lead_id)
        self._require("follows_the_first_sale", (lead_id, 2) not in self.sales, lead_id)
        if first is not None:
            upgraded = first._replace(mode=Mode.EXCLUSIVE, closed_until_ms=FOR_GOOD)
            self.sales[lead_id, 1] = upgraded

    def erase(self, mark: Mark | None) -> None:
        """Delete the details of leads whose erasure is published, with the mark that says so."""
        for lead_id in mark.erased if mark else ():
            self.vault.pop(lead_id, None)

    def add_undelivered(self, mark: Mark | None) -> None:
        """Keep what a mark says is still to be delivered."""
        for row in mark.undelivered if mark else ():
            assert (row.partition, row.seq, row.n) not in self.undelivered
            self.undelivered[row.partition, row.seq, row.n] = row

    def _check_sale(self, sale: SaleRow) -> None:
        first = sale if sale.sale_number == 1 else self.sales.get((sale.lead_id, 1))
        numbers = range(1, SALES_MAX + 1)
        held_by = {row.buyer_id for number in numbers if (row := self.sales.get((sale.lead_id, number)))}
        shared, later = sale.mode is Mode.SHARED, sale.sale_number > 1
        checks = {
            "one_sale_per_number": (sale.lead_id, sale.sale_number) not in self.sales,
            "never_the_same_buyer_twice": sale.buyer_id not in held_by,
            "no_more_than_sales_max": 1 <= sale.sale_number <= sale.sales_max,
            "exclusive_is_the_first": shared or not later,
            "shared_closes_nothing": not shared or later or sale.closed_until_ms == NEVER_CLOSED,
            "exclusive_closes": shared or later or sale.closed_until_ms > sale.sold_at_ms,
            "nothing_beside_an_exclusive_sale": not later or sale.sold_at_ms >= sale.closed_until_ms,
            "follows_the_first_sale": first is not None
            and (first.sales_max, first.closed_until_ms) == (sale.sales_max, sale.closed_until_ms),
        }
        for constraint, holds in checks.items():
            self._require(constraint, holds, sale.lead_id)

    def _require(self, constraint: str, holds: bool, lead_id: str) -> None:
        if not holds and constraint not in self.without:
            raise PromiseBroken(lead_id, constraint)


@dataclass(slots=True)
class MemoryRouterStore:
    """A `RouterStore` on tables in memory. A crash at "committed" is a commit whose answer was lost."""

    tables: MemoryRouterTables
    clock: VirtualClock
    market_version: Callable[[], int]
    faults: Faults = field(default_factory=Faults)

    def heads(self, partitions: Collection[int]) -> Mapping[int, Head]:
        """See `RouterStore`."""
        missing = sorted(set(partitions) - self.tables.heads.keys())
        if missing:
            raise Stopped(f"no head for partitions {missing}")
        return {partition: self.tables.heads[partition] for partition in partitions}

    def read(
        self,
        partitions: Collection[int],
        lead_ids: Collection[str],
        *,
        counters: Collection[str] = (),
        money: Collection[MoneyRow] = (),
    ) -> Snapshot:
        """See `RouterStore`."""
        leads, archived = self.tables.leads, self.tables.archived
        found = {
            lead_id: state_of(leads[lead_id] if lead_id in leads else archived[lead_id].state)
            for lead_id in lead_ids
            if lead_id in leads or lead_id in archived
        }
        return Snapshot(
            heads=self.heads(partitions),
            now_ms=self.clock.now_ms,
            market_version=self.market_version(),
            leads=found,
            counters=self.counters(counters),
            money=frozenset(row for row in money if row in self.tables.money),
        )

    def counters(self, counters: Collection[str]) -> Sequence[CounterRow]:
        """See `RouterStore`."""
        return [self.tables.counters.get(counter, CounterRow(counter)) for counter in counters]

    def auctions(self, partitions: Collection[int]) -> Sequence[AuctionRow]:
        """See `RouterStore`."""
        return [row for row in self.tables.auctions.values() if row.partition in partitions]

    def commit(self, commits: Sequence[PartitionCommit], draws: Draws = NO_DRAWS) -> Sequence[CounterRow]:
        """See `RouterStore`: all or nothing. What others do meanwhile comes before the comparison."""
        self.faults.edge("commit")
        return self._commit(commits, draws)

    def commit_locked(
        self,
        partitions: Collection[int],
        counters: Collection[str],
        decide: Callable[[Sequence[CounterRow]], tuple[Sequence[PartitionCommit], Draws]],
    ) -> Sequence[CounterRow]:
        """See `RouterStore`. What others do comes before the locks, which keep them waiting until the end."""
        self.heads(partitions)
        self.faults.edge("lock")
        commits, draws = decide(self.counters(counters))
        return self._commit(commits, draws)

    def _commit(self, commits: Sequence[PartitionCommit], draws: Draws) -> Sequence[CounterRow]:
        overtaken = {
            commit.before.partition
            for commit in commits
            if not _is_same(self.tables.heads[commit.before.partition], commit.before)
        }
        if overtaken:
            raise Overtaken(overtaken)
        written = self._copied()
        for commit in sorted(commits, key=lambda commit: commit.before.partition):
            written.write(commit)
        rows = written.draw(draws)
        self._replace(written)
        for commit in commits:
            self.tables.erase(commit.mark)
        self.faults.edge("committed")
        return rows

    def move_marks(self, marks: Sequence[Mark]) -> None:
        """See `RouterStore`."""
        heads = self.tables.heads
        overtaken = {
            mark.partition for mark in marks if heads[mark.partition].published_seq != mark.before_seq
        }
        if overtaken:
            raise Overtaken(overtaken)
        self.faults.edge("mark")
        for mark in marks:
            heads[mark.partition] = replace(heads[mark.partition], published_seq=mark.after_seq)
            self.tables.add_undelivered(mark)
            self.tables.erase(mark)
        self.faults.edge("marked")

    def entries(self, partition: int, *, after_seq: int, limit: int) -> Sequence[LogRow]:
        """See `RouterStore`."""
        last = self.tables.heads[partition].seq
        wanted = range(after_seq + 1, min(last, after_seq + limit) + 1)
        return [self.tables.log[partition, seq] for seq in wanted]

    def behind(self, partition: int) -> Collection[str]:
        """See `RouterStore`."""
        rows = self.tables.undelivered.values()
        return {row.recipient for row in rows if row.partition == partition}

    def undelivered(self, behind: Collection[Behind], *, each: int, limit: int) -> Sequence[UndeliveredRow]:
        """See `RouterStore`."""
        rows = sorted(self.tables.undelivered.values())
        found = (
            [row for row in rows if (row.partition, row.recipient) == asked][:each] for asked in set(behind)
        )
        return sorted(chain.from_iterable(found))[:limit]

    def entry_values(self, rows: Collection[UndeliveredRow]) -> Mapping[tuple[int, int], bytes]:
        """See `RouterStore`."""
        return {(row.partition, row.seq): self.tables.log[row.partition, row.seq].value for row in rows}

    def delivered(self, rows: Collection[UndeliveredRow]) -> None:
        """See `RouterStore`."""
        self.faults.edge("forget delivered")
        for row in rows:
            self.tables.undelivered.pop((row.partition, row.seq, row.n), None)

    def adopt_log_topic(self, partition: int, topic_id: str) -> None:
        """See `RouterStore`."""
        self.tables.heads[partition] = replace(self.tables.heads[partition], log_topic_id=topic_id)

    def drop_old_log_ranges(self) -> Sequence[str]:
        """Keep everything: a test's history is short."""
        return ()

    def drop_old_counters(self) -> int:
        """Keep everything: a test's history is short."""
        return 0

    def _copied(self) -> MemoryRouterTables:
        copied = copy(self.tables)
        for name in TABLES:
            setattr(copied, name, dict(getattr(self.tables, name)))
        return copied

    def _replace(self, written: MemoryRouterTables) -> None:
        for name in TABLES:
            setattr(self.tables, name, getattr(written, name))


def _is_same(stored: Head, known: Head) -> bool:
    return (stored.version, stored.published_seq) == (known.version, known.published_seq)


def _limit(row: CounterRow, draw: CounterDraw, market_version: int) -> int:
    """Give the limit of the later market version."""
    return draw.most if draw.most != AS_STORED and market_version >= row.market_version else row.most


def _is_short(row: CounterRow, draw: CounterDraw, market_version: int) -> bool:
    most = _limit(row, draw, market_version)
    return row.used + draw.peak > most + row.granted or (draw.tells and row.told)


def _drawn(row: CounterRow, draw: CounterDraw, market_version: int) -> CounterRow:
    most = _limit(row, draw, market_version)
    used, granted = row.used + draw.amount, row.granted + draw.granted
    short_at_most = row.shortfall + draw.withdrawn + max(0, row.most - most)
    has_more_room = most + granted - used > row.most + row.granted - row.used
    return CounterRow(
        counter=row.counter,
        used=used,
        granted=granted,
        most=most,
        shortfall=max(0, min(used - most - granted, short_at_most)),
        market_version=row.market_version
        if draw.most == AS_STORED
        else max(row.market_version, market_version),
        told=draw.tells or (row.told and not has_more_room),
    )
