"""What entries mean in money: each rule by itself, and the properties of any log."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from io import BytesIO
from typing import get_args

import pytest
from fastavro import schemaless_writer
from hypothesis import given
from hypothesis import strategies as st

from services.billing.accounts import (
    ADJUSTMENTS,
    DEPOSITS,
    FAILED_DELIVERIES,
    RETURNS,
    credit_id_of,
    fee_id_of,
    fee_payout_id_of,
    move_id_of,
    payout_id_of,
    return_credit_id_of,
    reversal_id_of,
)
from services.billing.changes import Contradiction
from services.billing.domain import (
    BILLABLE,
    WITHOUT_MONEY,
    BillableEvent,
    ReadEntry,
    postings,
    totals_of,
)
from services.billing.rows import Postings, ReturnDecision, Total, TotalKey, TransferKind, TransferRow
from services.contract.codec import Schema, codec, stored_schemas
from services.contract.entries import Entry, EventBody
from services.contract.events import (
    DeliveryFailed,
    Disposition,
    Event,
    LeadListed,
    LeadSold,
    MoneyKind,
    Outcome,
    ReturnReason,
    ReturnRefusal,
)
from services.contract.market import Mode
from tests.support.log_builder import (
    LogBuilder,
    closed,
    delivery_failed,
    lead_id,
    listed,
    logs,
    money_moved,
    reported,
    return_approved,
    return_refused,
    return_requested,
    sold,
    upgraded,
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


def path_of(transfer: TransferRow) -> tuple[str, str]:
    return transfer.debit_account, transfer.credit_account


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

    def test_ids_are_uuid5_of_the_sale_alone(self) -> None:
        for name in (
            credit_id_of,
            fee_id_of,
            return_credit_id_of,
            payout_id_of,
            fee_payout_id_of,
            reversal_id_of,
        ):
            first, again, other = (name(sold(LEAD, number).sale_id) for number in (1, 1, 2))
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
        assert rows.changes[0].credited_cents == 0
        assert rows.changes[0].delivery_failed_at_ms is not None

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


class TestUpgrades:
    def test_charges_the_fee_beside_the_price(self) -> None:
        sale = sold(LEAD)
        charge, fee = posted(sale, upgraded(sale, fee_cents=7_500)).transfers
        assert (fee.kind, fee.amount_cents, fee.sale_id) == (TransferKind.UPGRADE_FEE, 7_500, sale.sale_id)
        assert path_of(fee) == path_of(charge) == ("buyer:harbor", "revenue:quotehub")
        assert fee.transfer_id == fee_id_of(sale.sale_id) != charge.transfer_id

    def test_source_earns_its_share_of_the_fee_by_a_transfer_of_its_own(self) -> None:
        sale = sold(LEAD, payout_cents=2_400)
        transfers = posted(sale, upgraded(sale, payout_cents=4_500)).transfers
        assert [row.amount_cents for row in transfers if row.kind is TransferKind.PAYOUT] == [2_400, 4_500]
        assert len({row.transfer_id for row in transfers}) == 4

    def test_failed_delivery_of_an_upgraded_sale_credits_price_and_fee_at_once(self) -> None:
        sale = sold(LEAD)
        failed = delivery_failed(sale, price_cents=11_500)
        rows = posted(sale, upgraded(sale, fee_cents=7_500), failed)
        assert [row.amount_cents for row in rows.transfers] == [4_000, 7_500, 11_500]
        (change,) = rows.changes
        assert (change.upgrade_fee_cents, change.credited_cents) == (7_500, 11_500)

    def test_upgrade_of_a_test_lead_charges_nothing(self) -> None:
        sale = sold(LEAD, is_test=True)
        assert posted(sale, upgraded(sale, payout_cents=1)).transfers == []


class TestReturns:
    def test_credits_an_approved_return_by_a_new_transfer(self) -> None:
        sale = sold(LEAD)
        charge, credit = posted(sale, return_requested(sale), return_approved(sale)).transfers
        assert credit.kind is TransferKind.RETURN_CREDIT
        assert (credit.amount_cents, path_of(credit)) == (charge.amount_cents, (RETURNS, "buyer:harbor"))
        assert credit.transfer_id == return_credit_id_of(sale.sale_id) != credit_id_of(sale.sale_id)

    def test_return_decided_in_its_own_entry_is_one_row(self) -> None:
        sale = sold(LEAD)
        rows = posted(sale, return_requested(sale), return_approved(sale))
        (row,) = rows.returns
        assert (row.decision, row.automatic, row.refund_cents) == (ReturnDecision.APPROVED, True, 4_000)
        assert (row.reason, row.decided_at_ms) == (ReturnReason.INVALID_CONTACT, row.requested_at_ms)
        assert rows.return_decisions == ()

    def test_return_without_a_decision_is_pending(self) -> None:
        (row,) = posted(return_requested(sold(LEAD))).returns
        assert (row.decision, row.decided_at_ms, row.automatic) == (ReturnDecision.PENDING, None, None)

    def test_decision_on_a_return_of_an_earlier_batch_is_a_row_of_its_own(self) -> None:
        rows = posted(return_approved(sold(LEAD), automatic=False))
        assert rows.returns == []
        assert (rows.return_decisions[0].decision, rows.return_decisions[0].automatic) == (
            ReturnDecision.APPROVED,
            False,
        )

    @pytest.mark.parametrize(
        ("reason", "automatic"), [(ReturnRefusal.TOO_LATE, True), (ReturnRefusal.OPERATOR, False)]
    )
    def test_refused_return_moves_nothing_and_says_why(self, reason: ReturnRefusal, automatic: bool) -> None:
        sale = sold(LEAD)
        rows = posted(sale, return_requested(sale), return_refused(sale, reason=reason))
        assert len(rows.transfers) == 1
        assert (rows.returns[0].refusal, rows.returns[0].automatic) == (reason, automatic)
        assert rows.changes == ()

    def test_return_of_a_test_lead_credits_nothing(self) -> None:
        sale = sold(LEAD, is_test=True)
        rows = posted(sale, return_requested(sale), return_approved(sale, payout_cents=1))
        assert rows.transfers == []
        assert (rows.changes[0].credited_cents, rows.changes[0].payout_back_cents) == (0, 0)
        assert rows.returns[0].refund_cents == 0

    def test_refused_return_may_be_asked_for_again(self) -> None:
        sale, log = sold(LEAD), LogBuilder(partitions=1)
        log.add(LEAD, sale, return_requested(sale), return_refused(sale))
        log.add(LEAD, return_requested(sale))
        assert [(row.seq, row.decision) for row in postings(read(log)).returns] == [
            (1, ReturnDecision.REFUSED),
            (2, ReturnDecision.PENDING),
        ]


class TestPayouts:
    def test_source_earns_by_an_accepted_lead(self) -> None:
        (transfer,) = posted(listed(payout_cents=1_200)).transfers
        assert (transfer.kind, transfer.amount_cents) == (TransferKind.PAYOUT, 1_200)
        assert path_of(transfer) == ("payouts:quotehub", "source:quotehub")
        assert (transfer.sale_id, transfer.lead_id) == (None, LEAD)
        assert transfer.transfer_id == payout_id_of(LEAD)

    def test_source_earns_by_a_sale(self) -> None:
        sale = sold(LEAD, payout_cents=2_400)
        _, transfer = posted(sale).transfers
        assert (transfer.kind, transfer.amount_cents) == (TransferKind.PAYOUT, 2_400)
        assert (transfer.sale_id, transfer.lead_id) == (sale.sale_id, None)
        assert transfer.transfer_id == payout_id_of(sale.sale_id)

    def test_source_may_earn_by_a_sale_for_nothing(self) -> None:
        (transfer,) = posted(sold(LEAD, price_cents=0, payout_cents=1)).transfers
        assert transfer.kind is TransferKind.PAYOUT

    @pytest.mark.parametrize("undo", [delivery_failed, return_approved])
    def test_what_was_earned_is_taken_back_with_the_credit(self, undo: Callable[..., Event]) -> None:
        sale = sold(LEAD, payout_cents=2_400)
        rows = posted(sale, undo(sale, payout_cents=2_400))
        reversal = rows.transfers[-1]
        assert (reversal.kind, reversal.amount_cents) == (TransferKind.PAYOUT_REVERSAL, 2_400)
        assert path_of(reversal) == ("source:quotehub", "payouts:quotehub")
        assert reversal.transfer_id == reversal_id_of(sale.sale_id)
        assert rows.changes[0].payout_back_cents == 2_400

    def test_return_that_the_source_keeps_its_pay_for_takes_nothing_back(self) -> None:
        sale = sold(LEAD, payout_cents=2_400)
        kinds = [row.kind for row in posted(sale, return_approved(sale, payout_cents=0)).transfers]
        assert TransferKind.PAYOUT_REVERSAL not in kinds

    def test_test_leads_earn_nothing(self) -> None:
        sale = sold(LEAD, is_test=True, payout_cents=1)
        events = (listed(is_test=True, payout_cents=1), sale, upgraded(sale, payout_cents=1))
        assert posted(*events, delivery_failed(sale)).transfers == []

    def test_refuses_a_payout_without_a_currency(self) -> None:
        with pytest.raises(Contradiction, match="no currency"):
            posted(replace(listed(payout_cents=1), currency=None))

    def test_refuses_to_take_back_from_nobody(self) -> None:
        failed = replace(delivery_failed(sold(LEAD)), source_id=None, payout_cents=1)
        with pytest.raises(Contradiction, match="none is named"):
            posted(failed)


class TestMoney:
    @pytest.mark.parametrize(
        ("kind", "ours", "transfer_kind"),
        [
            (MoneyKind.DEPOSIT, DEPOSITS, TransferKind.DEPOSIT),
            (MoneyKind.ADJUSTMENT, ADJUSTMENTS, TransferKind.ADJUSTMENT),
        ],
    )
    def test_credits_the_buyer_what_it_pays_in_or_is_given(
        self, kind: MoneyKind, ours: str, transfer_kind: TransferKind
    ) -> None:
        (transfer,) = posted(money_moved(5_000, kind=kind)).transfers
        assert (transfer.kind, transfer.amount_cents) == (transfer_kind, 5_000)
        assert path_of(transfer) == (ours, "buyer:oak")
        assert (transfer.sale_id, transfer.lead_id, transfer.reference) == (None, None, "wire-1")

    def test_adjustment_of_less_than_nothing_goes_the_other_way(self) -> None:
        (transfer,) = posted(money_moved(-700, kind=MoneyKind.ADJUSTMENT)).transfers
        assert (transfer.amount_cents, path_of(transfer)) == (700, ("buyer:oak", ADJUSTMENTS))

    def test_reference_of_a_buyer_names_the_transfer(self) -> None:
        first, again = (posted(money_moved(cents)).transfers[0].transfer_id for cents in (1, 2))
        others = posted(money_moved(reference="wire-2"), money_moved(buyer_id="elm")).transfers
        assert first == again == move_id_of("oak", "wire-1")
        assert len({first, *(row.transfer_id for row in others)}) == 3


class TestDispositions:
    def test_outcome_is_kept_with_its_time(self) -> None:
        sale = sold(LEAD, 2)
        (change,) = posted(sale, reported(sale, Disposition.NO_DEAL)).changes
        assert (change.sale_id, change.buyer_id) == (sale.sale_id, sale.buyer_id)
        assert change.disposition is Disposition.NO_DEAL
        assert change.disposition_at_ms is not None

    def test_latest_outcome_counts_and_contact_is_none(self) -> None:
        sale = sold(LEAD)
        told = (Disposition.NO_DEAL, Disposition.DEAL, Disposition.CONTACTED)
        (change,) = posted(*(reported(sale, disposition) for disposition in told)).changes
        assert change.disposition is Disposition.DEAL


class TestOldSchemas:
    """Events of the log's first versions, decoded with the defaults of what came later."""

    def test_first_versions_mean_what_they_meant(self) -> None:
        sale, schemas = (
            sold(LEAD),
            {schema.type: schema for schema in stored_schemas() if schema.version == 1},
        )
        old = [_as_version_1(event, schemas) for event in (listed(), sale, delivery_failed(sale))]
        charge, credit = posted(*old).transfers
        assert (charge.kind, credit.kind) == (TransferKind.SALE_CHARGE, TransferKind.FAILED_DELIVERY_CREDIT)
        assert credit.amount_cents == charge.amount_cents == 4_000


def _as_version_1(event: LeadListed | LeadSold | DeliveryFailed, schemas: Mapping[str, Schema]) -> Event:
    schema = schemas[type(event).__name__]
    stream = BytesIO()
    schemaless_writer(stream, schema.parsed, asdict(event))
    decoded: Event = codec().decode_body(EventBody(schema_id=schema.id, body=stream.getvalue()))
    return decoded


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


@pytest.mark.parametrize(
    ("twice", "complaint"),
    [
        pytest.param(return_approved, "returned again", id="returned"),
        pytest.param(delivery_failed, "undeliverable again", id="undeliverable"),
        pytest.param(upgraded, "upgraded again", id="upgraded"),
        pytest.param(return_requested, "asked for again", id="asked-for"),
        pytest.param(return_refused, "decided again", id="refused"),
    ],
)
def test_refuses_what_is_told_twice_of_a_sale(twice: Callable[..., Event], complaint: str) -> None:
    sale = sold(LEAD)
    with pytest.raises(Contradiction, match=complaint):
        posted(sale, twice(sale), twice(sale))


@pytest.mark.parametrize(
    "other", [sold(LEAD, buyer_id="elm"), sold(LEAD, currency="EUR")], ids=["buyer", "currency"]
)
def test_refuses_to_change_a_sale_for_another(other: LeadSold) -> None:
    with pytest.raises(Contradiction, match="then"):
        posted(upgraded(sold(LEAD)), delivery_failed(other))


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
        charged: Counter[tuple[str | None, str]] = Counter()
        credited: Counter[tuple[str | None, str]] = Counter()
        for row in postings(read(log)).transfers:
            if row.kind in (TransferKind.SALE_CHARGE, TransferKind.UPGRADE_FEE):
                charged[row.sale_id, row.debit_account] += row.amount_cents
            elif row.kind in (TransferKind.RETURN_CREDIT, TransferKind.FAILED_DELIVERY_CREDIT):
                credited[row.sale_id, row.credit_account] += row.amount_cents
        assert credited <= charged

    @given(logs())
    def test_sources_never_lose_more_than_they_earned(self, log: LogBuilder) -> None:
        owed: Counter[str] = Counter()
        for row in postings(read(log)).transfers:
            if row.kind is TransferKind.PAYOUT:
                owed[row.credit_account] += row.amount_cents
            elif row.kind is TransferKind.PAYOUT_REVERSAL:
                owed[row.debit_account] -= row.amount_cents
        assert all(cents >= 0 for cents in owed.values())

    @given(logs())
    def test_each_transfer_has_an_id_of_its_own(self, log: LogBuilder) -> None:
        ids = [row.transfer_id for row in postings(read(log)).transfers]
        assert len(set(ids)) == len(ids)

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
