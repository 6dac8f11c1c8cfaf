"""What entries mean in money: each rule by itself, and the properties of any log."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Sequence
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.billing.domain import (
    BILLABLE,
    FAILED_DELIVERIES,
    WITHOUT_MONEY,
    BillableEvent,
    Contradiction,
    ReadEntry,
    credit_id_of,
    postings,
    totals_of,
)
from services.billing.rows import Postings, Total, TotalKey, TransferKind
from services.contract.codec import codec
from services.contract.entries import Entry
from services.contract.events import Event, Outcome
from services.contract.market import Mode
from tests.support.log_builder import (
    LogBuilder,
    closed,
    delivery_failed,
    lead_id,
    listed,
    logs,
    sold,
    window_opened,
)

LEAD = lead_id("1")


def read(log: LogBuilder) -> list[ReadEntry]:
    return [
        ReadEntry(record.partition, entry, billable(entry))
        for record in log.records
        for entry in [codec().decode_entry(record.value)]
    ]


def billable(entry: Entry) -> list[BillableEvent]:
    return [event for event in codec().events_of(entry) if isinstance(event, BillableEvent)]


def posted(*events: Event, lead: str = LEAD) -> Postings:
    log = LogBuilder()
    log.add(lead, *events)
    return postings(read(log))


class TestTransfers:
    def test_charges_the_buyer_the_price_of_the_sale_as_income_of_the_source(self) -> None:
        (transfer,) = posted(listed(), sold(LEAD, price_cents=9_000)).transfers
        assert (transfer.kind, transfer.amount_cents, transfer.currency) == (
            TransferKind.SALE_CHARGE,
            9_000,
            "USD",
        )
        assert (transfer.debit_account, transfer.credit_account) == ("buyer:harbor", "revenue:quotehub")

    def test_charge_bears_the_id_of_its_sale(self) -> None:
        sale = sold(LEAD)
        assert posted(sale).transfers[0].transfer_id == sale.sale_id

    def test_charges_each_sale_of_a_shared_lead(self) -> None:
        sales = [
            sold(LEAD, number, price_cents=cents) for number, cents in ((1, 4_500), (2, 4_000), (3, 3_500))
        ]
        assert [row.amount_cents for row in posted(*sales).transfers] == [4_500, 4_000, 3_500]

    def test_credits_a_failed_delivery_by_a_new_transfer(self) -> None:
        sale = sold(LEAD)
        charge, credit = posted(sale, delivery_failed(sale)).transfers
        assert credit.kind is TransferKind.FAILED_DELIVERY_CREDIT
        assert credit.transfer_id == credit_id_of(sale.sale_id) != charge.transfer_id
        assert (credit.debit_account, credit.credit_account) == (FAILED_DELIVERIES, "buyer:harbor")
        assert credit.amount_cents == charge.amount_cents

    def test_credit_id_is_a_uuid5_of_the_sale_alone(self) -> None:
        first, again, other = (credit_id_of(sold(LEAD, number).sale_id) for number in (1, 1, 2))
        assert first == again != other
        assert uuid.UUID(first).version == 5

    @pytest.mark.parametrize(
        "events", [(listed(is_test=True), sold(LEAD, is_test=True)), (sold(LEAD, price_cents=0),)]
    )
    def test_neither_test_leads_nor_sales_for_nothing_move_money(self, events: Sequence[Event]) -> None:
        assert posted(*events).transfers == []
        assert posted(*events).totals == {}

    def test_failed_delivery_of_a_test_lead_credits_nothing(self) -> None:
        sale = sold(LEAD, is_test=True)
        rows = posted(sale, delivery_failed(sale))
        assert rows.transfers == []
        assert rows.failed_deliveries[0].credited_cents == 0

    def test_totals_add_up_the_batch_by_account_currency_and_partition(self) -> None:
        transfers = posted(
            sold(LEAD), sold(LEAD, 2, buyer_id="harbor"), sold(LEAD, 3, currency="EUR")
        ).transfers
        at = transfers[0].partition
        assert totals_of(transfers) == {
            TotalKey("buyer:harbor", "USD", at): Total(8_000, 0),
            TotalKey("buyer:pine", "EUR", at): Total(4_000, 0),
            TotalKey("revenue:quotehub", "EUR", at): Total(0, 4_000),
            TotalKey("revenue:quotehub", "USD", at): Total(0, 8_000),
        }

    def test_totals_come_in_the_order_in_which_rows_are_locked(self) -> None:
        log = LogBuilder()
        for name in range(20):
            log.sell_out(lead_id(name))
        keys = list(postings(read(log)).totals)
        assert keys == sorted(keys)


class TestRows:
    def test_sale_keeps_its_terms(self) -> None:
        sale = sold(LEAD, 2, mode=Mode.SHARED, exclusive_until_ms=None)
        (row,) = posted(sale).sales
        assert row.sold == sale
        assert (row.lead_id, row.seq) == (LEAD, 1)

    def test_lead_closed_in_its_first_batch_is_one_row(self) -> None:
        rows = posted(listed(), sold(LEAD), closed(Outcome.PARTLY_SOLD))
        assert rows.closes == ()
        assert rows.leads[0].outcome is Outcome.PARTLY_SOLD
        assert rows.leads[0].closed_at_ms == rows.leads[0].listed_at_ms

    def test_lead_still_for_sale_has_no_outcome(self) -> None:
        (row,) = posted(listed(plan=None)).leads
        assert (row.outcome, row.closed_at_ms, row.listed.plan) == (None, None, None)

    def test_close_of_a_lead_listed_earlier_is_a_row_of_its_own(self) -> None:
        rows = posted(closed(Outcome.UNSOLD))
        assert (rows.leads, rows.closes[0].outcome) == ([], Outcome.UNSOLD)

    def test_test_leads_are_kept_and_say_so(self) -> None:
        rows = posted(listed(is_test=True), sold(LEAD, is_test=True), closed(is_test=True))
        assert rows.leads[0].listed.is_test
        assert rows.sales[0].sold.is_test

    def test_what_means_nothing_in_money_adds_nothing(self) -> None:
        log = LogBuilder()
        log.add(LEAD, window_opened())
        assert postings(read(log)) == postings([])


class TestContradictions:
    def test_refuses_a_lead_listed_twice(self) -> None:
        with pytest.raises(Contradiction, match="listed again"):
            posted(listed(), listed())

    def test_refuses_a_lead_closed_twice(self) -> None:
        with pytest.raises(Contradiction, match="closed again"):
            posted(listed(), closed(), closed())

    def test_refuses_a_lead_listed_after_its_close(self) -> None:
        with pytest.raises(Contradiction, match="listed again"):
            posted(closed(), listed())


def test_every_event_is_either_billed_or_known_to_mean_nothing_in_money() -> None:
    assert Counter((*BILLABLE, *WITHOUT_MONEY)) == Counter(get_args(Event))
    assert set(get_args(BillableEvent)) == set(BILLABLE)


class TestAnyLog:
    @given(logs())
    def test_ledger_balances(self, log: LogBuilder) -> None:
        for currency in ("USD", "EUR"):
            totals = [total for key, total in postings(read(log)).totals.items() if key.currency == currency]
            assert sum(total.debits_cents for total in totals) == sum(total.credits_cents for total in totals)

    @given(logs())
    def test_each_sale_at_a_price_is_charged_once(self, log: LogBuilder) -> None:
        rows = postings(read(log))
        charged = Counter(row.sale_id for row in rows.transfers if row.kind is TransferKind.SALE_CHARGE)
        assert charged == Counter(
            row.sold.sale_id for row in rows.sales if row.sold.price_cents and not row.sold.is_test
        )

    @given(logs())
    def test_credits_are_of_charges_and_not_above_them(self, log: LogBuilder) -> None:
        transfers = postings(read(log)).transfers
        charges = {row.sale_id: row for row in transfers if row.kind is TransferKind.SALE_CHARGE}
        for credit in transfers:
            if credit.kind is TransferKind.FAILED_DELIVERY_CREDIT:
                charge = charges[credit.sale_id]
                assert credit.amount_cents <= charge.amount_cents
                assert credit.credit_account == charge.debit_account

    @given(logs(), st.data())
    def test_every_amount_is_the_same_however_the_log_is_cut(
        self, log: LogBuilder, data: st.DataObject
    ) -> None:
        entries = read(log)
        cut = data.draw(st.integers(0, len(entries)))
        whole, first, second = postings(entries), postings(entries[:cut]), postings(entries[cut:])
        assert [*first.transfers, *second.transfers] == whole.transfers
        assert [*first.sales, *second.sales] == whole.sales
        assert totals_of([*first.transfers, *second.transfers]) == whole.totals
