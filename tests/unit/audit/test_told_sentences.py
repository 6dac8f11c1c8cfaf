"""The auditor writes each sentence as the router does, though neither has it from the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import pytest

from services.audit.told_sentences import delivered_sentence, offered_sentence, pinged_sentence
from services.contract.events import OfferMade
from services.contract.market import Mode, Selection
from services.contract.times import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS
from services.router.deliveries import delivery
from services.router.promises import Standing, offered_promise, ping_promise
from tests.support.telling import AT_MS, BUYERS, LEAD_ID, opened, sold, sold_exclusive

LATER_MS = AT_MS + 90 * MINUTE_MS
DURATIONS_MS = (None, 2 * DAY_MS, HOUR_MS, 30 * MINUTE_MS, SECOND_MS, 90 * SECOND_MS, 1_500)


def _standings() -> Iterator[Standing]:
    for holders, is_closed, next_try_ms in product((1, 2, 3), (False, True), (None, LATER_MS)):
        yield Standing(holders=holders, is_closed=is_closed, next_try_ms=next_try_ms)


@pytest.mark.parametrize("standing", _standings(), ids=str)
@pytest.mark.parametrize("until_ms", [None, LATER_MS])
def test_a_delivery_s_sentence_follows_from_its_terms(standing: Standing, until_ms: int | None) -> None:
    shared = [sold(number, earlier=earlier) for number in (1, 2, 3) for earlier in range(number)]
    upgradable = sold(upgrade_fee_cents=7_500, upgrade_until_ms=until_ms, others_from_ms=until_ms)
    for sale in (sold_exclusive(exclusive_until_ms=until_ms), upgradable, *shared):
        body = delivery(LEAD_ID, AT_MS, sale, standing, None)
        assert body["promise"] == delivered_sentence(
            body["terms"], is_closed=standing.is_closed, next_try_ms=standing.next_try_ms
        )


@pytest.mark.parametrize("exclusive_for_ms", DURATIONS_MS)
def test_the_sentence_of_a_ping_or_an_offer_follows_from_the_log(exclusive_for_ms: int | None) -> None:
    auction = opened(exclusive_for_ms=exclusive_for_ms)
    modes = [(Mode.EXCLUSIVE,), (Mode.SHARED,), (Mode.EXCLUSIVE, Mode.SHARED)]
    for selection, number, bid_for in product(Selection, (1, 3), modes):
        asked = replace(auction, selection=selection, sale_number=number)
        assert pinged_sentence(asked, bid_for) == ping_promise(asked, bid_for)
    for mode in Mode:
        offer = _offer(mode, exclusive_for_ms)
        assert offered_sentence(offer) == offered_promise(offer)


def _offer(mode: Mode, exclusive_for_ms: int | None) -> OfferMade:
    return OfferMade(
        offer_number=1,
        buyer_id=BUYERS[0],
        order_id=f"{BUYERS[0]}/all",
        stage=0,
        mode=mode,
        price_cents=4_500,
        currency="USD",
        sale_number=1,
        sales_max=3,
        exclusive_for_ms=exclusive_for_ms,
        answer_by_ms=LATER_MS,
        lead_type="solar",
        quality=80,
        fields={},
        holders=(),
        is_test=False,
    )
