"""A random market with every kind of plan and order, and what becomes of it version by version.

Each is one that `gavel market apply` would take.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

from services.contract.market import (
    Account,
    AnyOf,
    BidPrice,
    Buyer,
    Cap,
    Deliver,
    Encoding,
    FixedPrice,
    Floor,
    KeepTrying,
    ListPrice,
    Market,
    OpenHours,
    Order,
    Paid,
    Period,
    PerLead,
    Plan,
    Price,
    Prices,
    Ranking,
    Returns,
    Selection,
    Sell,
    ShareOfRevenue,
    Source,
    Stage,
    Takes,
    Unit,
    Upgrade,
    Where,
)
from services.contract.times import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS
from tests.simulation.schedule import demands_consent
from tests.support.submissions import SOLAR

SOURCES = ("sunform", "partnerweb")
BUYERS = ("acme", "boldt", "cedar", "delta", "ember", "fjord", "gamma")
STATES = ("AZ", "CA", "TX")
_TIMEZONES = ("America/New_York", "UTC", "Asia/Tokyo", "Australia/Lord_Howe")


def first_market(seed: int) -> Market:
    """Make version 1 of a seed's market."""
    rng = Random(f"market {seed}")  # the same market every time, and no secret
    return Market(
        version=1,
        currency="USD",
        timezone="America/New_York",
        lead_types={
            "solar": replace(
                SOLAR, plans=_plans(rng), returns=_returns(rng), one_to_one_consent=demands_consent(seed)
            )
        },
        sources={id: _source(rng, id) for id in SOURCES},
        buyers={id: _buyer(rng, id) for id in BUYERS},
    )


def next_market(seed: int, before: Market) -> Market:
    """Let one thing be otherwise from the next version on."""
    version = before.version + 1
    rng = Random(f"market {seed}, version {version}")  # likewise
    asleep = [source for source in before.sources.values() if source.paused]
    if asleep:
        # A source sleeps for a version only, so that not too many of its leads are declined.
        awake = {source.id: replace(source, paused=False) for source in asleep}
        return replace(before, version=version, sources={**before.sources, **awake})
    change = rng.choices(
        (_pause_or_resume, _change_caps, _change_buyer, _change_plans, _change_source, _lose_buyer),
        (5, 4, 4, 2, 2, 1),
    )[0]
    return replace(change(rng, before), version=version)


def _plans(rng: Random) -> tuple[Plan, ...]:
    made = [make(rng) for make in rng.sample(_PLANS, rng.randint(4, len(_PLANS)))]
    # So that each plan gets as many leads; the last one takes what the others' conditions leave.
    shares = [10_000 // (len(made) - index) for index in range(len(made))]
    plans = [replace(plan, share_basis_points=share) for plan, share in zip(made, shares, strict=True)]
    if rng.random() < 0.3:
        plans[0] = replace(plans[0], when=(("state", AnyOf(values=frozenset({"AZ", "CA"}))),))
    return tuple(plans)


def _exclusive(rng: Random) -> Plan:
    stage = Stage(sell=Sell.EXCLUSIVE, prices=Prices(exclusive=9_000), keep_trying=_maybe(rng, _trying(rng)))
    return Plan(name="exclusive", stages=(stage,))


def _shared(rng: Random) -> Plan:
    prices = rng.choice(((4_000,), (4_500, 4_000, 3_500), (4_000, 1_999)))
    stage = Stage(
        sell=Sell.SHARED,
        prices=Prices(shared=prices),
        by=rng.choice(tuple(Ranking)),
        keep_trying=_maybe(rng, _trying(rng)),
    )
    return Plan(name="shared", stages=(stage,), sales_max=rng.choice((2, 3, 4)), expires_after_ms=4 * HOUR_MS)


def _for_a_time(rng: Random) -> Plan:
    """Exclusive for a time, then others."""
    first = Stage(
        sell=Sell.EXCLUSIVE,
        prices=Prices(exclusive=8_000),
        exclusive_for_ms=rng.choice((20 * MINUTE_MS, 2 * HOUR_MS)),
        accept_within_ms=_maybe(rng, MINUTE_MS),
    )
    others = Stage(
        sell=Sell.SHARED, prices=Prices(shared=(3_000, 2_500)), wait_ms=_maybe(rng, 10 * MINUTE_MS)
    )
    return Plan(name="for-a-time", stages=(first, others), sales_max=3, expires_after_ms=8 * HOUR_MS)


def _staggered(rng: Random) -> Plan:
    stages = (
        Stage(sell=Sell.EXCLUSIVE, prices=Prices(exclusive=9_500), by=Ranking.PRIORITY),
        Stage(sell=Sell.SHARED, prices=Prices(shared=(3_500, 3_000)), wait_ms=_maybe(rng, 5 * MINUTE_MS)),
        Stage(sell=Sell.SHARED, prices=Prices(shared=(600,)), wait_ms=3 * HOUR_MS),
    )
    return Plan(name="staggered", stages=stages, sales_max=rng.choice((2, 3)), expires_after_ms=6 * HOUR_MS)


def _offered(rng: Random) -> Plan:
    stage = Stage(
        sell=rng.choice((Sell.SHARED, Sell.EITHER)),
        prices=Prices(exclusive=8_500, shared=(4_000, 3_500)),
        accept_within_ms=rng.choice((20 * SECOND_MS, 3 * MINUTE_MS)),
        keep_trying=_maybe(rng, _trying(rng)),
    )
    stages = (
        (replace(stage, prices=replace(stage.prices, exclusive=None)),)
        if stage.sell is Sell.SHARED
        else (stage,)
    )
    return Plan(name="offered", stages=stages, sales_max=2, expires_after_ms=HOUR_MS)


def _auctioned(rng: Random) -> Plan:
    bid = Stage(
        sell=Sell.EITHER,
        prices=rng.choice((Prices(), Prices(exclusive=7_000, shared=(2_500,)))),
        selection=Selection.PING_POST,
        bid_window_ms=rng.choice((300, 2_000)),
        floor=Floor(exclusive=5_000, shared=1_800),
        exclusive_for_ms=_maybe(rng, HOUR_MS),
    )
    again = Stage(
        sell=Sell.SHARED,
        prices=Prices(),
        selection=Selection.PING_POST,
        bid_window_ms=500,
        floor=Floor(shared=rng.choice((None, 1_000))),
        keep_trying=_maybe(rng, _trying(rng)),
    )
    rest = Stage(sell=Sell.SHARED, prices=Prices(shared=(1_500,)))
    stages = (bid, *rng.choice(((again, rest), (rest,), (again,))))
    return Plan(name="auctioned", stages=stages, sales_max=3, expires_after_ms=5 * HOUR_MS)


def _first_bid(rng: Random) -> Plan:
    bid = Stage(
        sell=rng.choice((Sell.EITHER, Sell.SHARED, Sell.EXCLUSIVE)),
        prices=Prices(),
        selection=Selection.FIRST_BID,
        bid_window_ms=rng.choice((400, 5_000)),
        floor=Floor(exclusive=4_000, shared=1_000),
        only=rng.choice(((), ("boldt", "gamma", "acme"))),
    )
    floor = Floor(
        exclusive=None if bid.sell is Sell.SHARED else bid.floor.exclusive,
        shared=None if bid.sell is Sell.EXCLUSIVE else bid.floor.shared,
    )
    rest = Stage(sell=Sell.EITHER, prices=Prices(exclusive=7_500, shared=(2_200,)))
    return Plan(name="first-bid", stages=(replace(bid, floor=floor), rest), sales_max=2)


def _upgraded(rng: Random) -> Plan:
    stage = Stage(
        sell=Sell.SHARED,
        prices=Prices(shared=(4_500, 4_000, 3_500)),
        upgrade=Upgrade(per_slot_cents=3_750, within_ms=_maybe(rng, 2 * MINUTE_MS)),
        accept_within_ms=_maybe(rng, MINUTE_MS, chance=0.3),
        keep_trying=_maybe(rng, _trying(rng)),
    )
    return Plan(name="upgraded", stages=(stage,), sales_max=3, expires_after_ms=2 * HOUR_MS)


_PLANS: tuple[Callable[[Random], Plan], ...] = (
    _exclusive,
    _shared,
    _for_a_time,
    _staggered,
    _offered,
    _auctioned,
    _first_bid,
    _upgraded,
)


def _trying(rng: Random) -> KeepTrying:
    return KeepTrying(every_ms=rng.choice((5, 20)) * MINUTE_MS, for_ms=HOUR_MS)


def _maybe(rng: Random, value, *, chance: float = 0.5):  # type: ignore[no-untyped-def]
    return value if rng.random() < chance else None


def _returns(rng: Random) -> Returns | None:
    if rng.random() < 0.1:
        return None
    return Returns(
        within_ms=DAY_MS,
        reasons=("wrong_person", "invalid_contact"),
        quota_basis_points=rng.choice((None, 1_000, 2_500)),
        automatic=rng.random() < 0.5,
    )


def _source(rng: Random, id: str) -> Source:
    by = rng.choice((PerLead(cents=1_201), ShareOfRevenue(basis_points=6_333)))
    return Source(
        id=id,
        lead_types=("solar",),
        sales_max=rng.choice((None, None, 2)),
        never_to=rng.choice(((), ("fjord",))),
        paid=rng.choice((None, Paid(by=by, back_on_return=rng.random() < 0.6))),
    )


def _buyer(rng: Random, id: str) -> Buyer:
    orders = [_order(rng, id, "main", 0.5)]
    if rng.random() < 0.5:
        orders.append(_order(rng, id, "other", 0.9))
    return Buyer(
        id=id,
        timezone=rng.choice(_TIMEZONES),
        orders=tuple(orders),
        account=_account(rng),
        deliver=Deliver(encoding=rng.choice((Encoding.JSON, Encoding.JSON, Encoding.AVRO))),
        pings_per_minute=rng.choice((None, None, None, 20)),
    )


def _account(rng: Random) -> Account | None:
    return rng.choice((None, None, Account(credit_limit_cents=0), Account(credit_limit_cents=60_000)))


def _order(rng: Random, buyer_id: str, name: str, bids: float) -> Order:
    return Order(
        id=f"{buyer_id}/{name}",
        buyer_id=buyer_id,
        lead_type="solar",
        takes=_takes(rng, bids),
        where=_where(rng),
        priority=rng.choice((1, 100, 100)),
        weight=rng.choice((1, 3)),
        holders_max=rng.choice((None, None, None, 1, 2)),
        caps=_caps(rng),
        open=_hours(rng),
        upgrade_always=rng.random() < 0.2,
    )


def _takes(rng: Random, bids: float) -> Takes:
    def price(fixed_cents: int) -> Price:
        return BidPrice() if rng.random() < bids else rng.choice((ListPrice(), FixedPrice(cents=fixed_cents)))

    exclusive, shared = price(9_500), price(4_600)
    return rng.choice(
        (
            Takes(exclusive=exclusive, shared=shared),
            Takes(exclusive=exclusive, shared=shared),
            Takes(shared=shared),
            Takes(exclusive=exclusive),
        )
    )


def _where(rng: Random) -> Where:
    return rng.choice(
        (
            (),
            (),
            (),
            (("state", AnyOf(values=frozenset({"AZ", "TX"}))),),
            (("owns_home", AnyOf(values=frozenset({"yes"}))),),
        )
    )


def _caps(rng: Random) -> tuple[Cap, ...]:
    some = (
        Cap(unit=Unit.LEADS, period=Period.HOUR, most=rng.choice((2, 5))),
        Cap(unit=Unit.LEADS, period=Period.DAY, most=rng.choice((3, 12))),
        Cap(unit=Unit.LEADS, period=Period.TOTAL, most=rng.choice((4, 15))),
        Cap(unit=Unit.SPEND, period=Period.DAY, most=rng.choice((12_000, 90_000))),
        Cap(unit=Unit.SPEND, period=Period.WEEK, most=rng.choice((25_000, 70_000))),
        Cap(unit=Unit.SPEND, period=Period.MONTH, most=100_000),
    )
    return tuple(rng.sample(some, rng.choice((0, 0, 1, 2))))


def _hours(rng: Random) -> tuple[OpenHours, ...]:
    if rng.random() < 0.85:
        return ()
    return (OpenHours(days=tuple(range(7)), from_minute=0, to_minute=rng.choice((12, 18)) * 60),)


# What changes


def _with_buyer(market: Market, buyer: Buyer) -> Market:
    return replace(market, buyers={**market.buyers, buyer.id: buyer})


def _one(rng: Random, market: Market) -> Buyer:
    return market.buyers[rng.choice(sorted(market.buyers))]


def _pause_or_resume(rng: Random, market: Market) -> Market:
    paused = [buyer for buyer in market.buyers.values() if buyer.paused]
    if paused and rng.random() < 0.7:
        return _with_buyer(market, replace(rng.choice(paused), paused=False))
    buyer = _one(rng, market)
    if rng.random() < 0.5 and buyer.orders:
        first, *others = buyer.orders
        return _with_buyer(market, replace(buyer, orders=(replace(first, paused=not first.paused), *others)))
    return _with_buyer(market, replace(buyer, paused=True))


def _change_caps(rng: Random, market: Market) -> Market:
    buyer = _one(rng, market)
    if not buyer.orders:
        return market
    first, *others = buyer.orders
    lower = tuple(replace(cap, most=max(1, cap.most * rng.choice((1, 4)) // 3)) for cap in first.caps)
    caps = lower if rng.random() < 0.7 else _caps(rng)
    return _with_buyer(market, replace(buyer, orders=(replace(first, caps=caps), *others)))


def _change_buyer(rng: Random, market: Market) -> Market:
    buyer = _one(rng, market)
    changed = rng.choice(
        (
            replace(buyer, account=_account(rng)),
            replace(buyer, timezone=rng.choice(_TIMEZONES)),
            replace(buyer, orders=(_order(rng, buyer.id, "main", 0.5),)),
            replace(buyer, deliver=Deliver(encoding=rng.choice(tuple(Encoding)))),
            replace(
                buyer,
                orders=tuple(
                    replace(order, upgrade_always=not order.upgrade_always) for order in buyer.orders
                ),
            ),
        )
    )
    return _with_buyer(market, changed)


def _change_plans(rng: Random, market: Market) -> Market:
    solar = market.lead_types["solar"]
    changed = (
        replace(solar, plans=_plans(rng)) if rng.random() < 0.5 else replace(solar, returns=_returns(rng))
    )
    if any(
        name not in market.buyers for plan in changed.plans for stage in plan.stages for name in stage.only
    ):
        return market
    return replace(market, lead_types={"solar": changed})


def _change_source(rng: Random, market: Market) -> Market:
    source = market.sources[rng.choice(SOURCES)]
    changed = replace(source, paused=True) if rng.random() < 0.2 else _source(rng, source.id)
    return (
        replace(market, sources={**market.sources, source.id: changed}) if _knows(market, changed) else market
    )


def _knows(market: Market, source: Source) -> bool:
    return all(name in market.buyers for name in source.never_to)


def _lose_buyer(rng: Random, market: Market) -> Market:
    """Let a buyer go whom nothing else names, or come back."""
    gone = [name for name in BUYERS if name not in market.buyers]
    if gone:
        return _with_buyer(market, _buyer(rng, gone[0]))
    named = {name for source in market.sources.values() for name in source.never_to}
    named |= {
        name for plan in market.lead_types["solar"].plans for stage in plan.stages for name in stage.only
    }
    free = [name for name in BUYERS if name not in named]
    if not free:
        return market
    going = rng.choice(free)
    return replace(market, buyers={name: buyer for name, buyer in market.buyers.items() if name != going})
