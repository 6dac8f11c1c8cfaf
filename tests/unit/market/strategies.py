"""Any market that a file can say, for properties over all of them; it need not keep its promises."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from services.contract.events import ReturnReason
from services.contract.fields import ORDERED, US_STATES
from services.contract.market import (
    Account,
    AnyOf,
    Between,
    BidPrice,
    Buyer,
    Cap,
    Condition,
    Deliver,
    Encoding,
    FieldKind,
    FieldType,
    FixedPrice,
    Floor,
    KeepTrying,
    LeadType,
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
    ScoreRule,
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
from services.contract.times import decimal_amount
from services.market.fields import DURATION_MAX_MS, number_text
from services.market.hours import DAY_MINUTES, grouped

few = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""For properties over whole markets: what they find, they find early, and a busy machine is no failure."""

CENTS_MAX = 99_999_999_999

ids = st.sampled_from(["a", "no", "on", "007", "1e3", "oak-1", "null", "x" * 63])
durations = st.one_of(st.integers(1, DURATION_MAX_MS), st.sampled_from([500, 60_000, 86_400_000]))
prices = st.integers(1, CENTS_MAX)
choices = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=8)
kinds = st.one_of(
    st.sampled_from([FieldKind(type=kind) for kind in FieldType if kind is not FieldType.CHOICE]),
    st.lists(choices, min_size=1, max_size=4, unique=True).map(
        lambda words: FieldKind(type=FieldType.CHOICE, choices=tuple(words))
    ),
)


def _values(kind: FieldKind) -> st.SearchStrategy[str]:
    match kind.type:
        case FieldType.US_STATE:
            return st.sampled_from(sorted(US_STATES))
        case FieldType.US_ZIP:
            return st.from_regex(r"[0-9]{5}", fullmatch=True)
        case FieldType.AMOUNT:
            return st.integers(0, CENTS_MAX).map(decimal_amount)
        case FieldType.NUMBER:
            return st.integers(-CENTS_MAX, CENTS_MAX).map(number_text)
        case FieldType.YES_NO:
            return st.sampled_from(["yes", "no"])
        case FieldType.CHOICE:
            return st.sampled_from(kind.choices)


@st.composite
def _bounds(draw: st.DrawFn, low: int, high: int) -> Between:
    ends = sorted(draw(st.lists(st.integers(low, high), min_size=2, max_size=2)))
    open_end = draw(st.sampled_from(["none", "low", "high"]))
    return Between(low=None if open_end == "low" else ends[0], high=None if open_end == "high" else ends[1])


def _conditions(kind: FieldKind) -> st.SearchStrategy[Condition]:
    values = st.frozensets(_values(kind), min_size=1, max_size=3).map(lambda found: AnyOf(values=found))
    if kind.type not in ORDERED:
        return values
    low = 0 if kind.type is FieldType.AMOUNT else -CENTS_MAX
    return st.one_of(values, _bounds(low, CENTS_MAX))


@st.composite
def _wheres(draw: st.DrawFn, details: dict[str, FieldKind], *, derived: bool = True) -> Where:
    conditions = {name: _conditions(kind) for name, kind in details.items()}
    if derived:
        conditions |= {"quality": _bounds(0, 100), "age": _bounds(0, DURATION_MAX_MS)}
    names = draw(st.lists(st.sampled_from(sorted(conditions)), unique=True, max_size=4))
    return tuple((name, draw(conditions[name])) for name in sorted(names))


@st.composite
def _stage_prices(draw: st.DrawFn, sell: Sell, selection: Selection) -> Prices:
    exclusive, shared = draw(prices), draw(st.lists(prices, min_size=1, max_size=4).map(tuple))
    said = Prices(
        exclusive=None if sell is Sell.SHARED else exclusive,
        shared=None if sell is Sell.EXCLUSIVE else shared,
    )
    if selection is Selection.DIRECT:
        return said
    parts = [said, Prices(), Prices(exclusive=said.exclusive), Prices(shared=said.shared)]
    return draw(st.sampled_from(parts))


@st.composite
def _stages(draw: st.DrawFn) -> Stage:
    sell, selection = draw(st.sampled_from(Sell)), draw(st.sampled_from(Selection))
    return Stage(
        sell=sell,
        selection=selection,
        prices=draw(_stage_prices(sell, selection)),
        floor=Floor(
            exclusive=None if sell is Sell.SHARED else draw(st.none() | prices),
            shared=None if sell is Sell.EXCLUSIVE else draw(st.none() | prices),
        ),
        bid_window_ms=draw(st.none() | durations),
        upgrade=draw(st.none() | st.builds(Upgrade, per_slot_cents=prices, within_ms=st.none() | durations)),
        by=draw(st.sampled_from(Ranking)),
        only=tuple(sorted(draw(st.sets(ids, max_size=2)))),
        accept_within_ms=draw(st.none() | durations),
        exclusive_for_ms=draw(st.none() | durations),
        keep_trying=draw(st.none() | st.builds(KeepTrying, every_ms=durations, for_ms=durations)),
        wait_ms=draw(st.none() | durations),
    )


returns = st.builds(
    Returns,
    within_ms=durations,
    reasons=st.sets(st.sampled_from([reason.value for reason in ReturnReason]), min_size=1).map(
        lambda reasons: tuple(sorted(reasons))
    ),
    quota_basis_points=st.none() | st.integers(1, 10_000),
    automatic=st.booleans(),
)


@st.composite
def _lead_types(draw: st.DrawFn, name: str) -> LeadType:
    names = draw(
        st.lists(st.sampled_from(["state", "bill", "no", "weight", "price"]), min_size=1, unique=True)
    )
    details = {field: draw(kinds) for field in names}
    plan_names = draw(st.lists(ids, min_size=1, max_size=2, unique=True))
    rules = st.builds(ScoreRule, points=st.integers(1, 100), when=_wheres(details, derived=False))
    return LeadType(
        name=name,
        contact=("phone", "email"),
        details=details,
        ping=tuple(draw(st.lists(st.sampled_from(names), min_size=1, unique=True))),
        score=tuple(draw(st.lists(rules, max_size=2))),
        duplicate_within_ms=draw(st.just(0) | durations),
        contact_kept_ms=draw(durations),
        one_to_one_consent=draw(st.booleans()),
        returns=draw(st.none() | returns),
        plans=tuple(
            Plan(
                name=plan,
                when=draw(_wheres(details)),
                share_basis_points=draw(st.integers(1, 10_000)),
                sales_max=draw(st.integers(1, 10)),
                expires_after_ms=draw(st.none() | durations),
                stages=tuple(draw(st.lists(_stages(), min_size=1, max_size=2))),
            )
            for plan in plan_names
        ),
    )


order_prices: st.SearchStrategy[Price] = st.one_of(
    st.just(ListPrice()), st.just(BidPrice()), st.builds(FixedPrice, cents=prices)
)
takes = st.one_of(
    st.builds(Takes, exclusive=order_prices),
    st.builds(Takes, shared=order_prices),
    st.builds(Takes, exclusive=order_prices, shared=order_prices),
)


@st.composite
def _caps(draw: st.DrawFn) -> tuple[Cap, ...]:
    kinds = [(unit, period) for unit in Unit for period in Period]
    chosen = draw(st.sets(st.sampled_from(kinds), max_size=3))
    return tuple(
        Cap(unit=unit, period=period, most=draw(st.integers(1, 1_000_000)))
        for unit, period in kinds
        if (unit, period) in chosen
    )


@st.composite
def open_hours(draw: st.DrawFn) -> tuple[OpenHours, ...]:
    """Draw hours of which no two are open at once on a day, as each range is apart from the others."""
    cuts = sorted(draw(st.sets(st.integers(0, DAY_MINUTES), max_size=6)))
    ranges = list(zip(cuts[::2], cuts[1::2], strict=False))
    days = st.sets(st.integers(0, 6), min_size=1)
    return grouped((day, start, end) for start, end in ranges for day in draw(days))


accounts = st.one_of(
    st.just(Account(credit_limit_cents=0)), st.builds(Account, credit_limit_cents=st.integers(1, CENTS_MAX))
)
deliveries = st.one_of(
    st.builds(Deliver, encoding=st.sampled_from(Encoding)),
    st.sampled_from(["https://a.example/x?y=1,2", "http://127.0.0.1:80/", "http://[::1]/"]).map(
        lambda url: Deliver(webhook=url)
    ),
)
paid = st.builds(
    Paid,
    by=st.builds(PerLead, cents=prices) | st.builds(ShareOfRevenue, basis_points=st.integers(1, 10_000)),
    back_on_return=st.booleans(),
)


@st.composite
def _buyers(draw: st.DrawFn, buyer: str, lead_types: dict[str, LeadType]) -> Buyer:
    names = sorted(draw(st.sets(ids, max_size=2)))
    orders = []
    for name in names:
        lead_type = draw(st.sampled_from(sorted(lead_types)))
        orders.append(
            Order(
                id=f"{buyer}/{name}",
                buyer_id=buyer,
                lead_type=lead_type,
                takes=draw(takes),
                where=draw(_wheres(dict(lead_types[lead_type].details))),
                priority=draw(st.integers(0, 1_000)),
                weight=draw(st.integers(1, 1_000)),
                holders_max=draw(st.none() | st.integers(1, 10)),
                paused=draw(st.booleans()),
                caps=draw(_caps()),
                open=draw(open_hours()),
                upgrade_always=draw(st.booleans()),
            )
        )
    return Buyer(
        id=buyer,
        timezone="America/Phoenix",
        orders=tuple(orders),
        paused=draw(st.booleans()),
        account=draw(st.none() | accounts),
        deliver=draw(deliveries),
        pings_per_minute=draw(st.none() | st.integers(1, 1_000_000)),
    )


@st.composite
def markets(draw: st.DrawFn) -> Market:
    """Draw a market."""
    types = {name: draw(_lead_types(name)) for name in sorted(draw(st.sets(ids, min_size=1, max_size=2)))}
    sources = {
        name: Source(
            id=name,
            lead_types=tuple(draw(st.lists(st.sampled_from(sorted(types)), min_size=1, unique=True))),
            sales_max=draw(st.none() | st.integers(1, 10)),
            never_to=tuple(sorted(draw(st.sets(ids, max_size=2)))),
            paused=draw(st.booleans()),
            paid=draw(st.none() | paid),
        )
        for name in draw(st.sets(ids, max_size=2))
    }
    return Market(
        version=0,
        currency=draw(st.sampled_from(["USD", "EUR"])),
        timezone="Europe/Berlin",
        lead_types=types,
        sources=sources,
        buyers={name: draw(_buyers(name, types)) for name in draw(st.sets(ids, max_size=2))},
    )
