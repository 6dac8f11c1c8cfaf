"""A lead's state as bytes: read as it was written, and as an earlier release wrote it."""

from __future__ import annotations

from dataclasses import replace

import orjson
import pytest

from services.contract.events import ReturnReason, WithdrawalReason
from services.contract.inputs import ReturnLead, UpgradeSale
from services.contract.market import KeepTrying, Upgrade
from services.router.lead import Lead, Returning, WithdrawnEarly
from services.router.state_bytes import state_bytes, state_of
from tests.support.deciding import NOW_MS, Story, lead, market, order, plan, shared_stage
from tests.support.terms import BY_OPERATOR, CAPS, PER_LEAD, on_terms

LEAD_ID = lead().lead_id
NEW_IN_A_SALE = {"upgrade_fee_cents", "fee_cents", "payout_cents", "draws", "returning", "return_asked_ms"}
NEW_IN_A_LEAD = {"payout_cents", "auction", "auctions_opened"}


def _story() -> Story:
    stage = shared_stage(
        4_500,
        upgrade=Upgrade(per_slot_cents=3_750, within_ms=60_000),
        keep_trying=KeepTrying(every_ms=60_000, for_ms=3_600_000),
    )
    plans = market(plan(stage), orders=(order("a", shared="list", caps=CAPS),))
    story = Story(on_terms(plans, returns=BY_OPERATOR, paid=PER_LEAD, accounts={"a": 0}))
    story.when(lead())
    return story


def test_state_is_read_as_it_was_written() -> None:
    story = _story()
    upgrade = UpgradeSale(lead_id=LEAD_ID, buyer_id="a", answered_at_ms=NOW_MS)
    request = ReturnLead(
        lead_id=LEAD_ID, buyer_id="a", reason=ReturnReason.WRONG_PERSON, answered_at_ms=NOW_MS
    )
    assert state_of(state_bytes(story.lead)) == story.lead
    story.when(request)
    story.when(upgrade)
    (sale,) = story.lead.sales
    assert sale.draws
    assert (sale.returning, sale.fee_cents) == (Returning.PENDING, 7_500)
    assert state_of(state_bytes(story.lead)) == story.lead


@pytest.mark.parametrize("reason", list(WithdrawalReason))
def test_marker_of_a_withdrawal_is_read_as_it_was_written(reason: WithdrawalReason) -> None:
    marker = WithdrawnEarly(reason=reason)
    assert state_of(state_bytes(marker)) == marker


def test_state_of_the_release_before_is_read_without_what_it_did_not_know() -> None:
    state = _story().lead
    row = orjson.loads(state_bytes(state))
    for sale in row["sales"]:
        for name in NEW_IN_A_SALE:
            del sale[name]
    for name in NEW_IN_A_LEAD:
        del row[name]
    found = state_of(orjson.dumps(row))
    assert isinstance(found, Lead)
    assert found.payout_cents == 0
    assert found.sales == (replace(state.sales[0], upgrade_fee_cents=None, payout_cents=0, draws=()),)
