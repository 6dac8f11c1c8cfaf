"""When the last window of a closed lead is over: what may go to the archive."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.contract.events import Disposition, ReturnReason, WithdrawalReason
from services.contract.inputs import DecideReturn, ReportDisposition, ReturnLead, WithdrawLead
from services.contract.market import Market, Returns
from services.router.last_windows import last_moment_ms
from services.router.lead import Lead, WithdrawnEarly
from tests.support.deciding import (
    NOW_MS,
    Story,
    exclusive_stage,
    lead,
    market,
    order,
    plan,
    shared_stage,
)

WITHIN_MS = 7_000
RETURNS = Returns(within_ms=WITHIN_MS, reasons=(ReturnReason.OTHER.value,), automatic=False)
LATER_MS = 1_000


def _market() -> Market:
    given = market(
        plan(exclusive_stage(9000, exclusive_for_ms=90_000), shared_stage(4000), sales_max=2),
        orders=(order("a", exclusive="list"), order("b", shared="list")),
    )
    return replace(given, lead_types={"solar": replace(given.lead_types["solar"], returns=RETURNS)})


@pytest.fixture
def sold() -> Story:
    """A lead that its buyer has exclusive for a time, and that is closed by a deal a little later."""
    story = Story(_market())
    story.when(lead("last windows"))
    return story


def _deal(story: Story) -> None:
    report = ReportDisposition(lead_id=story.lead.lead_id, buyer_id="a", disposition=Disposition.DEAL)
    story.when(report, after_ms=LATER_MS)


def test_open_lead_has_no_last_moment(sold: Story) -> None:
    assert last_moment_ms(sold.state, RETURNS, NOW_MS) is None


@pytest.mark.parametrize("state", [None, WithdrawnEarly(reason=WithdrawalReason.REVOKED)])
def test_what_is_no_lead_stays(state: WithdrawnEarly | None) -> None:
    assert last_moment_ms(state, None, NOW_MS) is None


def test_lead_that_nobody_bought_is_over_with_its_close() -> None:
    story = Story(_market())
    story.when(lead("unsold", never_to=("a", "b")))
    assert last_moment_ms(story.state, RETURNS, NOW_MS) == NOW_MS


def test_promised_exclusivity_outlasts_the_close(sold: Story) -> None:
    _deal(sold)
    assert last_moment_ms(sold.state, None, sold.now_ms) == NOW_MS + 90_000


def test_return_window_of_each_sale_is_waited_for() -> None:
    given = replace(_market().lead_types["solar"], plans=(plan(shared_stage(4000), sales_max=1),))
    story = Story(replace(_market(), lead_types={"solar": given}))
    story.when(lead("sold out"))
    assert isinstance(story.state, Lead)
    assert story.state.outcome is not None
    assert last_moment_ms(story.state, RETURNS, NOW_MS) == NOW_MS + WITHIN_MS
    assert last_moment_ms(story.state, None, NOW_MS) == NOW_MS


def test_return_that_waits_for_an_operator_keeps_the_lead(sold: Story) -> None:
    _deal(sold)
    request = ReturnLead(
        lead_id=sold.lead.lead_id, buyer_id="a", reason=ReturnReason.OTHER, answered_at_ms=sold.now_ms
    )
    sold.when(request)
    assert last_moment_ms(sold.state, RETURNS, sold.now_ms) is None
    sold.when(DecideReturn(lead_id=sold.lead.lead_id, sale_number=1, approve=False))
    assert last_moment_ms(sold.state, RETURNS, sold.now_ms) is not None


def test_withdrawn_lead_waits_for_its_sales_windows_too(sold: Story) -> None:
    sold.when(WithdrawLead(lead_id=sold.lead.lead_id, reason=WithdrawalReason.OPERATOR))
    assert last_moment_ms(sold.state, RETURNS, sold.now_ms) == NOW_MS + 90_000
