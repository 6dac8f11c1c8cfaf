"""The ledger against the log: which transfers follow from a lead, and whether the table holds these and no others.

The router's rows of sales and closes are held against the log likewise.

Both sides are added up in buckets, so that millions of transfers are compared without being held: a transfer adds to
its bucket a number that its subject and content determine. Only where a bucket differs is each transfer looked at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple, TypeAlias

from services.audit.evidence import CloseRow, SaleRow, TransferRow
from services.audit.findings import Findings
from services.audit.lead_state import LeadState, Listed, Sale, Terms
from services.audit.rules import Rule
from services.audit.violations import Where
from services.contract.ids import sale_id_of
from services.contract.market import Mode

BUCKETS = 4_096
LOOKED_AT_MAX = 200_000
"""So many rows of differing buckets are held at a time."""

_LAST_BUCKET = BUCKETS - 1
_MASK = (1 << 64) - 1
_SUBJECT_AT = -12
_NO_SUBJECT = 1 << 48
TRANSFERS = "billing.transfers"

FOR_GOOD = (1 << 63) - 1
NOT_CLOSED = -(1 << 63)
"""What stands in a first sale's row where it closes the lead for good, and where it does not."""


class Due(NamedTuple):
    """A transfer that follows from the log."""

    kind: str
    debit: str
    credit: str
    amount_cents: int
    currency: str
    sale_id: str
    lead_id: str
    seq: int
    offset: int
    at_ms: int


_About: TypeAlias = tuple[str, str, str, int, int, int]


class _Table(NamedTuple):
    rule: Rule
    name: str
    key_size: int


_SALES = _Table(Rule.SALES_TABLE_IS_THE_LOG, "router.sales", 2)
_CLOSES = _Table(Rule.CLOSES_TABLE_IS_THE_LOG, "router.closes", 1)


class _Logged(NamedTuple):
    """A row that follows from the log, and from which entry. `may_be`: as the log has it, and as it may be since."""

    key: tuple[Any, ...]
    may_be: tuple[SaleRow | CloseRow, ...]
    seq: int
    offset: int
    at_ms: int


class Tally:
    """Rows added up in buckets: two tallies are equal when their rows are, in whatever order they were added."""

    def __init__(self, sums: Iterable[int] | None = None) -> None:
        """Begin with nothing, or with the sums that were kept."""
        self._sums = [0] * BUCKETS if sums is None else list(sums)

    @property
    def sums(self) -> list[int]:
        """What each bucket has come to, in 64 bits."""
        return [total & _MASK for total in self._sums]

    def add(self, subject: int, weight: int) -> None:
        """Add a row about this subject (`subject_of`) whose content has this weight (`weight_of`)."""
        self._sums[subject & _LAST_BUCKET] += subject * weight

    def add_each(self, ids: Sequence[bytes], weights: Sequence[int]) -> None:
        """Add rows about these ids, in ASCII, each with its weight."""
        sums = self._sums
        for id, weight in zip(ids, weights, strict=True):
            subject = int(id[_SUBJECT_AT:], 16) | _NO_SUBJECT
            sums[subject & _LAST_BUCKET] += subject * weight

    def differing(self, other: Tally) -> set[int]:
        """Name the buckets in which two tallies differ."""
        return {at for at, (one, two) in enumerate(zip(self.sums, other.sums, strict=True)) if one != two}


def subject_of(id: str | bytes) -> int:
    """Make a number of an id (a UUID's last twelve digits; empty: of nothing)."""
    return int(id[_SUBJECT_AT:], 16) | _NO_SUBJECT if id else _NO_SUBJECT


class Weights:
    """Numbers for contents of rows, each computed once; 64 bits, odd, so that none is lost in a sum."""

    def __init__(self) -> None:
        """Begin with none known."""
        self._known: dict[tuple[Any, ...], int] = {}

    def of(self, *content: Any) -> int:
        """Give the number of a content."""
        weight = self._known.get(content)
        if weight is None:
            if len(self._known) > LOOKED_AT_MAX:
                self._known.clear()
            weight = int.from_bytes(blake2b(repr(content).encode(), digest_size=8).digest()) | 1
            self._known[content] = weight
        return weight


def dues_of(lead_id: str, state: LeadState) -> Iterator[Due]:
    """Give all transfers that follow from what the log says of a lead, or of an account."""
    yield from _moves(state)
    listed = state.listed
    if listed is None or listed.is_test:
        return
    source = listed.source_id
    if listed.payout_cents and state.place is not None:
        seq, offset = state.place
        path = ("payout", f"payouts:{source}", f"source:{source}", listed.payout_cents, listed.currency or "")
        yield Due(*path, "", lead_id, seq, offset, listed.created_at_ms)
    for sale in state.sales:
        yield from _sale_dues(lead_id, source, sale)
        yield from fee_dues(lead_id, source, sale)
        yield from credit_dues(lead_id, source, sale)


def _sale_dues(lead_id: str, source: str, sale: Sale) -> Iterator[Due]:
    terms = sale.terms
    about: _About = (
        terms.currency,
        sale_id_of(lead_id, terms.sale_number),
        "",
        sale.seq,
        sale.offset,
        sale.sold_at_ms,
    )
    if terms.price_cents:
        yield Due("sale_charge", f"buyer:{terms.buyer_id}", f"revenue:{source}", terms.price_cents, *about)
    if terms.payout_cents:
        yield Due("payout", f"payouts:{source}", f"source:{source}", terms.payout_cents, *about)


def fee_dues(lead_id: str, source: str, sale: Sale) -> Iterator[Due]:
    """Give the transfers that follow from a sale's upgrade, if there was one."""
    if sale.fee is not None:
        cents, payout_cents, _, seq, offset, at_ms = sale.fee
        terms = sale.terms
        about: _About = (terms.currency, sale_id_of(lead_id, terms.sale_number), "", seq, offset, at_ms)
        if cents:
            yield Due("upgrade_fee", f"buyer:{terms.buyer_id}", f"revenue:{source}", cents, *about)
        if payout_cents:
            yield Due("payout", f"payouts:{source}", f"source:{source}", payout_cents, *about)


def credit_dues(lead_id: str, source: str, sale: Sale, *, since_seq: int = 0) -> Iterator[Due]:
    """Give the transfers that follow from what was given back of a sale, by the entries from `since_seq` on."""
    for kind, cents, back_cents, seq, offset, at_ms in sale.credits or ():
        if seq < since_seq:
            continue
        terms = sale.terms
        about: _About = (terms.currency, sale_id_of(lead_id, terms.sale_number), "", seq, offset, at_ms)
        allowance = "allowance:return" if kind == "return_credit" else "allowance:failed_delivery"
        if cents:
            yield Due(kind, allowance, f"buyer:{terms.buyer_id}", cents, *about)
        if back_cents:
            yield Due("payout_reversal", f"source:{source}", f"payouts:{source}", back_cents, *about)


def _sales_of(lead_id: str, state: LeadState, *, is_exact: bool) -> Iterator[_Logged]:
    for sale in state.sales:
        row = _row_of(lead_id, sale.terms)
        is_first = sale.terms.sale_number == 1
        if is_first and state.upgraded:
            row = _upgraded(row)
        may_be = (row, _upgraded(row)) if is_first and not is_exact else (row,)
        yield _Logged((lead_id, row.sale_number), may_be, sale.seq, sale.offset, sale.sold_at_ms)


def _closes_of(lead_id: str, state: LeadState) -> Iterator[_Logged]:
    if state.close is not None:
        seq, offset, at_ms, outcome = state.close
        yield _Logged((lead_id,), (CloseRow(lead_id, outcome),), seq, offset, at_ms)


def _row_of(lead_id: str, terms: Terms) -> SaleRow:
    """Give a sale's row as it was sold."""
    closed_until_ms = None
    if terms.sale_number == 1:
        until_ms = FOR_GOOD if terms.exclusive_until_ms is None else terms.exclusive_until_ms
        closed_until_ms = until_ms if terms.mode == Mode.EXCLUSIVE else NOT_CLOSED
    return SaleRow(
        lead_id,
        terms.sale_number,
        terms.buyer_id,
        terms.order_id,
        terms.mode,
        terms.sales_max,
        terms.price_cents,
        closed_until_ms,
    )


def _upgraded(row: SaleRow) -> SaleRow:
    return row._replace(mode=Mode.EXCLUSIVE.value, closed_until_ms=FOR_GOOD)


def _moves(state: LeadState) -> Iterator[Due]:
    for buyer, kind, _, cents, currency, seq, offset, at_ms in state.moves or ():
        ours = "cash:deposits" if kind == "deposit" else "allowance:adjustment"
        path = (ours, f"buyer:{buyer}") if cents > 0 else (f"buyer:{buyer}", ours)
        if cents:
            yield Due(kind, *path, abs(cents), currency, "", "", seq, offset, at_ms)


class Ledger:
    """Compares transfers, sales and closes of the tables with those of the log.

    `dues` are the transfers, `rows` the router's rows of sales and closes.
    """

    def __init__(self, findings: Findings, partition_of: Callable[[str], int]) -> None:
        """Begin with nothing told."""
        self._findings = findings
        self._partition_of = partition_of
        self._weights = Weights()
        self.dues = Tally()
        self.rows = Tally()

    def weight_of_sale(self, terms: Terms) -> tuple[int, int]:
        """Give the weight of all that a sale moves, about its id, and that of the sale's own row, about its lead."""
        cents, payout_cents, source = terms.price_cents, terms.payout_cents, terms.source_id
        weight = 0
        if not terms.is_test:
            if cents:
                path = (
                    "sale_charge",
                    f"buyer:{terms.buyer_id}",
                    f"revenue:{source}",
                    cents,
                    terms.currency,
                    1,
                )
                weight += self._weights.of(*path)
            if payout_cents:
                path = ("payout", f"payouts:{source}", f"source:{source}", payout_cents, terms.currency, 1)
                weight += self._weights.of(*path)
        return weight, self._weights.of(*_row_of("", terms)[1:])

    def weight_of_close(self, outcome: str) -> int:
        """Give the weight of a close's row, about its lead."""
        return self._weights.of(outcome)

    def weight_of_payout(self, listed: Listed) -> int:
        """Give the weight of what a source earns by a lead alone, about the lead."""
        source = listed.source_id
        path = (f"payouts:{source}", f"source:{source}", listed.payout_cents, listed.currency or "")
        return self._weights.of("payout", *path, 0)

    def upgraded(self, lead_id: str, terms: Terms) -> None:
        """Take note that a sale's row is now that of an exclusive one."""
        subject = subject_of(lead_id)
        row = _row_of("", terms)
        self.rows.add(subject, -self._weights.of(*row[1:]))
        self.rows.add(subject, self._weights.of(*_upgraded(row)[1:]))

    def due(self, dues: Iterable[Due]) -> None:
        """Add transfers that follow from the log."""
        for due in dues:
            about = due.sale_id or due.lead_id
            self.dues.add(subject_of(about), self._weight(due, due.debit, due.credit))

    def compare_transfers(
        self,
        read: Callable[[], Iterator[TransferRow]],
        states: Callable[[], Iterator[tuple[str, LeadState]]],
        *,
        late_before_ms: int | None,
        is_log_complete: bool,
    ) -> None:
        """Hold the ledger against the log. `late_before_ms`: what is missing must be older; None: nothing may be.

        Where the log is not read as far as the tables go, the ledger may know more.
        """
        tally = Tally()
        for row in read():
            if row.amount_cents <= 0 or row.debit_account == row.credit_account:
                what = f"{row.kind} of {row.amount_cents} from {row.debit_account} to {row.credit_account}"
                self._broken(Rule.TRANSFER_IS_PROPER, what, row, ())
            about = row.sale_id or row.lead_id
            tally.add(subject_of(about), self._weight(row, row.debit_account, row.credit_account))
        for buckets in _portions(self.dues.differing(tally)):
            self._compare_buckets(buckets, read, states, late_before_ms, is_log_complete)

    def _compare_buckets(
        self,
        buckets: set[int],
        read: Callable[[], Iterator[TransferRow]],
        states: Callable[[], Iterator[tuple[str, LeadState]]],
        late_before_ms: int | None,
        is_log_complete: bool,
    ) -> None:
        due_by_row: dict[tuple[Any, ...], list[tuple[str, Due]]] = {}
        subjects: dict[tuple[str, str], str] = {}
        for lead_id, state in states():
            for due in dues_of(lead_id, state):
                about = due.sale_id or due.lead_id
                if subject_of(about) & (BUCKETS - 1) in buckets:
                    due_by_row.setdefault(_content(due, due.debit, due.credit, about), []).append(
                        (lead_id, due)
                    )
                    subjects[due.kind, about] = lead_id
        posted: Counter[tuple[Any, ...]] = Counter()
        for row in read():
            about = row.sale_id or row.lead_id
            if subject_of(about) & (BUCKETS - 1) not in buckets:
                continue
            content = _content(row, row.debit_account, row.credit_account, about)
            posted[content] += 1
            owed = due_by_row.get(content, ())
            if posted[content] > len(owed):
                known = subjects.get((row.kind, about))
                if not is_log_complete and known is None:
                    continue
                places = self._places([*owed])
                what = "is posted again" if owed else "does not follow from the log"
                self._broken(
                    Rule.TRANSFERS_ARE_THE_LOG,
                    f"{row.kind} of {row.amount_cents} {row.currency} {what}",
                    row,
                    places,
                    known,
                )
        for content, owed in due_by_row.items():
            for lead_id, due in list(owed)[posted[content] :]:
                if late_before_ms is None or due.at_ms < late_before_ms:
                    what = f"{due.kind} of {due.amount_cents} {due.currency} is not in the ledger"
                    where = Where(TRANSFERS, due.sale_id or due.lead_id or due.debit)
                    places = self._places([(lead_id, due)])
                    self._findings.broken(Rule.TRANSFERS_ARE_THE_LOG, what, where, *places, lead_id=lead_id)

    def compare_rows(
        self,
        read_sales: Callable[[], Iterator[SaleRow]],
        read_closes: Callable[[], Iterator[CloseRow]],
        states: Callable[[], Iterator[tuple[str, LeadState]]],
        *,
        late_before_ms: int | None,
    ) -> None:
        """Hold the router's sales and closes against the log, as `compare_transfers` does."""
        tally = Tally()
        for sale in read_sales():
            tally.add(subject_of(sale.lead_id), self._weights.of(*sale[1:]))
        for close in read_closes():
            tally.add(subject_of(close.lead_id), self.weight_of_close(close.outcome))
        for buckets in _portions(self.rows.differing(tally)):
            sales: dict[tuple[Any, ...], _Logged] = {}
            closes: dict[tuple[Any, ...], _Logged] = {}
            for lead_id, state in states():
                if subject_of(lead_id) & _LAST_BUCKET in buckets:
                    told = _sales_of(lead_id, state, is_exact=late_before_ms is None)
                    sales.update((logged.key, logged) for logged in told)
                    closes.update((logged.key, logged) for logged in _closes_of(lead_id, state))
            self._compare_rows_in(_SALES, buckets, read_sales(), sales, late_before_ms)
            self._compare_rows_in(_CLOSES, buckets, read_closes(), closes, late_before_ms)

    def _compare_rows_in(
        self,
        table: _Table,
        buckets: set[int],
        rows: Iterator[SaleRow] | Iterator[CloseRow],
        logged: Mapping[tuple[Any, ...], _Logged],
        late_before_ms: int | None,
    ) -> None:
        found = set()
        for row in rows:
            if subject_of(row.lead_id) & _LAST_BUCKET not in buckets:
                continue
            key = row[: table.key_size]
            known = logged.get(key)
            if known is None and late_before_ms is not None:
                continue
            if known is None:
                self._row_broken(table, key, "the log does not tell of this row")
            elif row not in known.may_be:
                names = zip(row._fields, row, known.may_be[0], strict=True)
                wrong = ", ".join(name for name, said, is_so in names if said != is_so)
                self._row_broken(table, key, f"not as the log tells it: {wrong}", known)
            elif key in found:
                self._row_broken(table, key, "the row is there again", known)
            found.add(key)
        for key, known in logged.items():
            if key not in found and (late_before_ms is None or known.at_ms < late_before_ms):
                self._row_broken(table, key, "the row is not in the table", known)

    def _row_broken(
        self, table: _Table, key: tuple[Any, ...], what: str, known: _Logged | None = None
    ) -> None:
        lead_id = key[0]
        places = () if known is None else (self._place(lead_id, known.seq, known.offset),)
        where = Where(table.name, " ".join(map(str, key)))
        self._findings.broken(table.rule, what, where, *places, lead_id=lead_id)

    def _weight(self, row: Due | TransferRow, debit: str, credit: str) -> int:
        has_sale = int(bool(row.sale_id))
        return self._weights.of(row.kind, debit, credit, row.amount_cents, row.currency, has_sale)

    def _broken(
        self, rule: Rule, what: str, row: TransferRow, places: tuple[Where, ...], lead_id: str | None = None
    ) -> None:
        where = Where(TRANSFERS, row.transfer_id)
        self._findings.broken(rule, what, where, *places, lead_id=lead_id or row.lead_id or None)

    def _places(self, owed: Iterable[tuple[str, Due]]) -> tuple[Where, ...]:
        return tuple(self._place(lead_id, due.seq, due.offset) for lead_id, due in owed)

    def _place(self, lead_id: str, seq: int, offset: int) -> Where:
        return self._findings.entry(self._partition_of(lead_id), seq, offset)


def _content(row: Due | TransferRow, debit: str, credit: str, about: str) -> tuple[Any, ...]:
    return (row.kind, debit, credit, row.amount_cents, row.currency, about, bool(row.sale_id))


def _portions(buckets: set[int]) -> Iterator[set[int]]:
    """Take buckets 64 at a time, so that what is held of millions of rows stays within bounds."""
    ordered = sorted(buckets)
    for first in range(0, len(ordered), 64):
        yield set(ordered[first : first + 64])
