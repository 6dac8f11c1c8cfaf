"""What buyers and sources are told: the truth (guarantee 5), once for each recipient and entry."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from services.contract.codec import codec
from services.contract.entries import GENESIS_HASH, Cause, CauseKind, Entry
from services.contract.events import Disposition, Event, FailureReason, RejectionReason, WithdrawalReason
from services.contract.inputs import (
    AcceptOffer,
    RejectOffer,
    ReportDisposition,
    ReportFailedDelivery,
    TimerDue,
    UpgradeSale,
    WithdrawLead,
)
from services.contract.market import Market, Selection, Upgrade
from services.contract.times import iso_time
from services.router.messages import Channel, Outgoing, react
from services.router.promises import FOR_GOOD
from tests.support.deciding import (
    NOW_MS,
    Story,
    bid_stage,
    exclusive_stage,
    lead,
    market,
    order,
    plan,
    shared_stage,
)
from tests.support.telling import complaints, leaks

LEAD_ID = lead().lead_id
THREE = tuple(order(f"b{n}", shared="list") for n in range(3))


def _told(story: Story, events: Sequence[Event]) -> Sequence[Outgoing]:
    entry = Entry(
        seq=7,
        prev_hash=GENESIS_HASH,
        cause=Cause(kind=CauseKind.QUALIFIED, offset=0),
        market_version=1,
        no_room=(),
        lead_id=LEAD_ID,
        decided_at_ms=story.now_ms,
        events=tuple(codec().encode_body(event) for event in events),
    )
    told = react(entry, codec().events_of(entry), 3)
    assert all(outgoing.body["log"] == {"partition": 3, "seq": 7} for outgoing in told)
    assert complaints(told) == []
    return told


def _to(told: Sequence[Outgoing], channel: Channel, recipient: str) -> Outgoing:
    (found,) = [item for item in told if (item.channel, item.recipient) == (channel, recipient)]
    return found


def _staggered() -> Market:
    stages = (
        exclusive_stage(7000, accept_within_ms=600_000, exclusive_for_ms=259_200_000),
        shared_stage(3000, 2500),
    )
    return market(plan(*stages), orders=(order("a", exclusive="list"), order("c", shared="list")))


def test_exclusive_for_good_is_told_so() -> None:
    story = Story(market(plan(exclusive_stage(9000), sales_max=1), orders=(order("a", exclusive="list"),)))
    delivery = _to(_told(story, story.when(lead())), Channel.BUYER_LEADS, "a")
    assert (
        delivery.body["promise"]
        == "Exclusive, for good: nobody else has received this lead, and nobody else will."
    )
    terms = delivery.body["terms"]
    assert (terms["mode"], terms["exclusive"], terms["exclusive_until"]) == ("exclusive", True, None)
    assert (terms["holders"], terms["others_may_follow"]) == (1, False)
    assert (delivery.body["price"], delivery.body["currency"]) == ("90.00", "USD")
    assert delivery.sale_number == 1


def test_exclusive_for_a_time_tells_until_when_and_what_follows() -> None:
    story = Story(_staggered())
    story.when(lead())
    told = _told(
        story, story.when(AcceptOffer(lead_id=LEAD_ID, buyer_id="a", offer_number=1, answered_at_ms=NOW_MS))
    )
    delivery = _to(told, Channel.BUYER_LEADS, "a")
    until = iso_time(NOW_MS + 259_200_000)
    assert delivery.body["terms"]["exclusive_until"] == until
    assert delivery.body["terms"]["others_from"] == until
    assert delivery.body["terms"]["others_may_follow"] is True
    day, time = until[:10], until[11:19]
    assert delivery.body["promise"] == (
        f"Exclusive until {day} {time} UTC: nobody else has received this lead; unless you report a deal by then, "
        "up to 2 more may get it."
    )


def test_shared_sales_of_one_entry_each_tell_how_many_hold_the_lead() -> None:
    story = Story(market(plan(shared_stage(4500)), orders=THREE))
    told = _told(story, story.when(lead()))
    for number in (1, 2, 3):
        (delivery,) = [item for item in told if item.sale_number == number]
        assert delivery.body["terms"]["sale_number"] == number
        assert delivery.body["terms"]["sales_max"] == 3
        assert delivery.body["terms"]["holders"] == 3
        assert delivery.body["terms"]["others_may_follow"] is False
        assert delivery.body["promise"].startswith(f"Shared, number {number} of at most 3: 2 others hold it")
        assert delivery.body["promise"].endswith("; nobody else will get it.")
    assert not [item for item in told if item.body["type"] == "notice"], "the delivery says it already"


def test_shared_lead_with_slots_left_tells_from_when_others_may_follow() -> None:
    stages = (shared_stage(4500), shared_stage(600, wait_ms=86_400_000))
    story = Story(market(plan(*stages), orders=THREE[:1]))
    delivery = _to(_told(story, story.when(lead())), Channel.BUYER_LEADS, "b0")
    then = iso_time(NOW_MS + 86_400_000)
    assert delivery.body["terms"]["others_may_follow"] is True
    assert delivery.body["terms"]["others_from"] == then
    assert delivery.body["promise"] == (
        "Shared, number 1 of at most 3: nobody else holds it; up to 2 more may get it, "
        f"not before {then[:10]} {then[11:19]} UTC."
    )


def test_shared_lead_whose_next_buyer_has_an_offer_may_follow_at_any_time() -> None:
    stages = (shared_stage(4500, accept_within_ms=60_000),)
    story = Story(market(plan(*stages), orders=THREE))
    story.when(lead())
    first = story.lead.offer
    assert first is not None
    answer = AcceptOffer(lead_id=LEAD_ID, buyer_id=first.buyer_id, offer_number=1, answered_at_ms=NOW_MS)
    delivery = _to(_told(story, story.when(answer)), Channel.BUYER_LEADS, first.buyer_id)
    assert delivery.body["terms"]["others_from"] is None
    assert delivery.body["promise"].endswith("nobody else holds it; up to 2 more may get it at any time.")


def test_holder_hears_of_later_sales_and_of_the_close_but_never_to_whom_nor_for_what() -> None:
    story = Story(_staggered())
    story.when(lead())
    story.when(AcceptOffer(lead_id=LEAD_ID, buyer_id="a", offer_number=1, answered_at_ms=NOW_MS))
    told = _told(story, story.fire_next_window())
    notice = _to(told, Channel.BUYER_LEADS, "a")
    assert notice.body["type"] == "notice"
    assert notice.body["holders"] == 2
    assert [item["type"] for item in notice.body["happened"]] == ["sold", "closed"]
    assert notice.body["happened"][0].keys() == {"type", "sale_number", "sales_max", "mode"}
    later = _to(told, Channel.BUYER_LEADS, "c")
    since = iso_time(NOW_MS)
    assert later.body["terms"]["held_since"] == since
    assert f"1 other holds it since {since[:10]}" in later.body["promise"]


def test_others_of_the_same_entry_do_not_hold_it_since_the_first() -> None:
    stages = (exclusive_stage(7000, exclusive_for_ms=60_000), shared_stage(3000, 2500))
    orders = (order("a", exclusive="list"), order("c", shared="list"), order("d", shared="list"))
    story = Story(market(plan(*stages), orders=orders))
    story.when(lead())
    told = _told(story, story.fire_next_window())
    for buyer in ("c", "d"):
        delivery = _to(told, Channel.BUYER_LEADS, buyer)
        assert f"2 others hold it, the first since {iso_time(NOW_MS)[:10]}" in delivery.body["promise"]


def test_source_gets_one_receipt_with_all_that_happened_and_no_buyer_in_it() -> None:
    story = Story(market(plan(shared_stage(4500)), orders=THREE))
    receipt = _to(_told(story, story.when(lead())), Channel.SOURCE_RECEIPTS, "sunform")
    assert [item["type"] for item in receipt.body["happened"]] == ["sold", "sold", "sold", "closed"]
    assert receipt.body["happened"][-1] == {"type": "closed", "outcome": "sold_out", "sales": 3}
    assert all(
        item.keys() == {"type", "sale_number", "sales_max", "mode"} for item in receipt.body["happened"][:-1]
    )


def test_unsold_lead_is_closed_on_its_receipt() -> None:
    story = Story(market(plan(shared_stage(4500))))
    (receipt,) = _told(story, story.when(lead()))
    assert receipt.body["happened"] == [{"type": "closed", "outcome": "unsold", "sales": 0}]


def test_offer_shows_the_declared_fields_and_the_terms_and_no_sealed_part() -> None:
    story = Story(_staggered())
    (offer,) = _told(story, story.when(lead()))
    assert (offer.channel, offer.recipient, offer.sale_number) == (Channel.BUYER_PINGS, "a", None)
    assert offer.body["fields"] == {"state": "AZ", "bill": "150.00", "owner": "yes"}
    assert offer.body["answer_by"] == iso_time(NOW_MS + 600_000)
    assert offer.body["promise"] == (
        "If you accept: exclusive for 3 days; without a deal by then, up to 2 more may get it."
    )


@pytest.mark.parametrize(
    ("answer", "type_told", "reason"),
    [
        (
            AcceptOffer(lead_id=LEAD_ID, buyer_id="zed", offer_number=1, answered_at_ms=NOW_MS),
            "refused",
            "offer_not_open",
        ),
        (
            ReportDisposition(lead_id=LEAD_ID, buyer_id="zed", disposition=Disposition.DEAL),
            "refused",
            "not_a_holder",
        ),
    ],
)
def test_refused_buyer_is_told_why(
    answer: AcceptOffer | ReportDisposition, type_told: str, reason: str
) -> None:
    story = Story(_staggered())
    story.when(lead())
    (told,) = _told(story, story.when(answer))
    assert (told.recipient, told.channel) == ("zed", Channel.BUYER_PINGS)
    assert (told.body["type"], told.body["reason"]) == (type_told, reason)


def test_buyer_hears_that_its_offer_ended() -> None:
    story = Story(_staggered())
    story.when(lead())
    story.now_ms += 700_000
    told = _told(story, story.when(TimerDue(lead_id=LEAD_ID, window_number=1)))
    ended = _to(told, Channel.BUYER_PINGS, "a")
    assert (ended.body["type"], ended.body["reason"]) == ("offer_ended", "no_answer_in_time")


def test_withdrawn_lead_ends_its_offer_and_tells_the_source() -> None:
    story = Story(_staggered())
    story.when(lead())
    told = _told(story, story.when(WithdrawLead(lead_id=LEAD_ID, reason=WithdrawalReason.REVOKED)))
    assert _to(told, Channel.BUYER_PINGS, "a").body["reason"] == "lead_closed"
    assert _to(told, Channel.SOURCE_RECEIPTS, "sunform").body["happened"][0]["outcome"] == "withdrawn"


def test_own_rejection_is_not_told_back() -> None:
    story = Story(_staggered())
    story.when(lead())
    told = _told(
        story,
        story.when(RejectOffer(lead_id=LEAD_ID, buyer_id="a", offer_number=1, reason=RejectionReason.PRICE)),
    )
    assert all(item.recipient != "a" for item in told)


def test_failed_delivery_is_told_to_its_buyer() -> None:
    story = Story(market(plan(exclusive_stage(9000), sales_max=1), orders=(order("a", exclusive="list"),)))
    story.when(lead())
    report = ReportFailedDelivery(lead_id=LEAD_ID, sale_number=1, reason=FailureReason.RECORD_TOO_LARGE)
    (told,) = _told(story, story.when(report))
    assert (told.recipient, told.body["type"], told.body["reason"]) == (
        "a",
        "delivery_failed",
        "record_too_large",
    )


# What the core decides on auctions and upgrades, as its readers are told of it.


def _upgradable(*, always: bool = False) -> Story:
    stage = shared_stage(4500, upgrade=Upgrade(per_slot_cents=3_750, within_ms=120_000))
    orders = (order("acme", shared=4_600, upgrade_always=always), order("zenith", shared="list"))
    return Story(market(plan(stage), orders=orders))


def test_upgrade_is_offered_with_the_first_sale_and_told_when_it_is_had() -> None:
    story = _upgradable()
    delivery = _to(_told(story, story.when(lead())), Channel.BUYER_LEADS, "acme")
    until = iso_time(NOW_MS + 120_000)
    assert delivery.body["terms"]["upgrade"] == {"fee": "75.00", "until": until}
    assert delivery.body["terms"]["others_from"] == until
    assert (
        "you may have it to yourself for 75.00 more; after that up to 2 more may" in delivery.body["promise"]
    )
    answer = UpgradeSale(lead_id=LEAD_ID, buyer_id="acme", answered_at_ms=NOW_MS)
    told = _told(story, story.when(answer, after_ms=1_000))
    upgraded = _to(told, Channel.BUYER_LEADS, "acme")
    assert (upgraded.body["type"], upgraded.body["fee"]) == ("upgraded", "75.00")
    happened = _to(told, Channel.SOURCE_RECEIPTS, "sunform").body["happened"]
    assert [item["type"] for item in happened] == ["upgraded", "closed"]


def test_upgrade_that_nobody_asked_for_lets_others_follow_and_its_holder_hear_of_it() -> None:
    story = _upgradable()
    story.when(lead())
    told = _told(story, story.fire_next_window())
    assert _to(told, Channel.BUYER_LEADS, "acme").body["holders"] == 2
    later = _to(told, Channel.BUYER_LEADS, "zenith").body
    assert (later["terms"]["sale_number"], later["terms"]["upgrade"]) == (2, None)


def test_order_that_always_upgrades_gets_one_record_with_exclusive_terms_and_the_total() -> None:
    story = _upgradable(always=True)
    told = _told(story, story.when(lead()))
    delivery = _to(told, Channel.BUYER_LEADS, "acme")
    assert (delivery.body["price"], delivery.body["upgrade_fee"], delivery.body["total"]) == (
        "46.00",
        "75.00",
        "121.00",
    )
    assert delivery.body["promise"] == FOR_GOOD
    assert not [item for item in told if item.recipient == "zenith"]


@pytest.mark.parametrize("selection", [Selection.PING_POST, Selection.FIRST_BID])
def test_auction_is_told_from_ping_to_result_without_a_word_about_others(selection: Selection) -> None:
    stage = bid_stage(exclusive=5_000, shared=1_800, selection=selection)
    orders = tuple(order(id, exclusive="bid", shared="bid") for id in ("acme", "zenith", "quartz"))
    story = Story(market(plan(stage), orders=orders))
    pings = _told(story, story.when(lead()))
    assert sorted(item.recipient for item in pings) == ["acme", "quartz", "zenith"]
    assert {item.type for item in pings} == {"gavel.ping.v1"}
    told = [
        *_told(story, story.bid("zenith", exclusive=4_901)),
        *_told(story, story.bid("acme", exclusive=8_503)),
    ]
    if story.lead.auction is not None:
        told += _told(story, story.bid("quartz", exclusive=6_007))
    delivery = _to(told, Channel.BUYER_LEADS, "acme")
    assert delivery.body["price"] == "85.03"
    assert delivery.body["promise"] == FOR_GOOD
    lost = _to(told, Channel.BUYER_PINGS, "zenith")
    assert lost.body["type"] == "auction_result"
    assert lost.body["outcome"] == "below_floor"
    assert leaks(told, story.events) == []
