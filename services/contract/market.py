"""What the market says, typed: lead types, plans, stages, sources, buyers and orders, as one immutable value.

`services.market` reads and checks the files that people write and makes this value of them; every step reads it.
Nothing here reads a file or a database. Ids are `[a-z0-9-]`; amounts are integer minor units of `Market.currency`;
durations are milliseconds. The meaning of every key is told by the comments of `examples/market.yaml`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, TypeAlias


class Mode(StrEnum):
    """How one sale is promised to its buyer."""

    EXCLUSIVE = "exclusive"
    SHARED = "shared"


class Sell(StrEnum):
    """What a stage may sell: either means whichever of the two brings more (or is first in rank)."""

    EXCLUSIVE = "exclusive"
    SHARED = "shared"
    EITHER = "either"


class Selection(StrEnum):
    """How a stage finds its buyers: by standing orders alone, or by pings that buyers answer with bids."""

    DIRECT = "direct"
    PING_POST = "ping_post"
    FIRST_BID = "first_bid"


class Ranking(StrEnum):
    """What decides between the orders that compete in a stage; equal ranks are dealt by lead id."""

    PRICE = "price"
    PRIORITY = "priority"
    WEIGHT = "weight"
    ROUND_ROBIN = "round_robin"


class FieldType(StrEnum):
    """How the text of a lead's detail is read."""

    US_STATE = "us_state"
    US_ZIP = "us_zip"
    AMOUNT = "amount"
    NUMBER = "number"
    YES_NO = "yes_no"
    CHOICE = "choice"


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldKind:
    """The type of a detail, and for `choice` its possible values."""

    type: FieldType
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AnyOf:
    """A condition met by each of the values listed (canonical text; yes_no is `yes` or `no`)."""

    values: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Between:
    """A condition met from `low` to `high`, both included; None is open.

    The unit is the field's: minor currency units for `amount`, thousandths for `number`, points for `quality`,
    milliseconds for `age`.
    """

    low: int | None
    high: int | None


Condition: TypeAlias = AnyOf | Between
Where: TypeAlias = tuple[tuple[str, Condition], ...]
"""Field name and condition, all of which must hold. Fields: a lead type's details, `quality`, `age`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRule:
    """Points that a lead gets when all the conditions hold."""

    points: int
    when: Where


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """A stage's list price per mode; None where it does not sell that mode, or asks for bids without a list.

    `shared` is for the stage's first, second, ... sale and never rises; its last one holds for all further sales.
    """

    exclusive: int | None = None
    shared: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepTrying:
    """Repeat what a stage left unsold, each `every_ms`, until `for_ms` after the stage began."""

    every_ms: int
    for_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """The least that a stage sells for, per mode; None: its last list price, or anything where it has none."""

    exclusive: int | None = None
    shared: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Upgrade:
    """The only holder of a shared lead may close its remaining slots, for so much each.

    `within_ms`: so long after the first sale nobody else is sold to, that the first buyer may; None: not at all.
    """

    per_slot_cents: int
    within_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One attempt to sell. `bid_window_ms`: how long bidders have, where `selection` asks them."""

    sell: Sell
    prices: Prices
    by: Ranking = Ranking.PRICE
    selection: Selection = Selection.DIRECT
    bid_window_ms: int | None = None
    floor: Floor = Floor()
    upgrade: Upgrade | None = None
    only: tuple[str, ...] = ()
    accept_within_ms: int | None = None
    exclusive_for_ms: int | None = None
    keep_trying: KeepTrying | None = None
    wait_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a lead is sold: its stages in order. `share` is in basis points (10,000 is every lead)."""

    name: str
    stages: tuple[Stage, ...]
    when: Where = ()
    share_basis_points: int = 10_000
    sales_max: int = 1
    expires_after_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Returns:
    """When a buyer may give a lead of this type back for its money.

    `reasons`: words of `ReturnReason` that are accepted. `quota_basis_points`: so much of a return each lead bought
    in a month earns (10,000 is a whole one); None: no quota. `automatic`: approved without an operator.
    """

    within_ms: int
    reasons: tuple[str, ...]
    quota_basis_points: int | None = None
    automatic: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class LeadType:
    """What a lead of this type consists of, which of it may be shown before a sale, and the plans that sell it.

    `one_to_one_consent`: a submission must name the buyers that the person consented to.
    """

    name: str
    contact: tuple[str, ...]
    details: Mapping[str, FieldKind]
    ping: tuple[str, ...]
    plans: tuple[Plan, ...]
    score: tuple[ScoreRule, ...] = ()
    duplicate_within_ms: int = 0
    contact_kept_ms: int = 0
    one_to_one_consent: bool = False
    returns: Returns | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PerLead:
    """A source is paid so much for each lead accepted, sold or not."""

    cents: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareOfRevenue:
    """A source is paid this share of what each sale of its leads brings (10,000 is all of it)."""

    basis_points: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Paid:
    """What a source is paid; `back_on_return`: not for leads that were returned."""

    by: PerLead | ShareOfRevenue
    back_on_return: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Who streams leads in to `sources.<id>.leads`."""

    id: str
    lead_types: tuple[str, ...]
    sales_max: int | None = None
    never_to: tuple[str, ...] = ()
    paused: bool = False
    paid: Paid | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ListPrice:
    """An order pays what the stage's list says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedPrice:
    """An order pays its own amount, whatever the list says."""

    cents: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BidPrice:
    """An order pays what its buyer answers to a ping. `bid` tells it from a list price where both are stored."""

    bid: Literal[True] = True


Price: TypeAlias = ListPrice | FixedPrice | BidPrice


@dataclass(frozen=True, slots=True, kw_only=True)
class Takes:
    """What an order pays per mode; None: it never takes a lead that way."""

    exclusive: Price | None = None
    shared: Price | None = None


class Period(StrEnum):
    """What a cap is counted by; days, weeks (from Monday) and months are the buyer's own."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    TOTAL = "total"


class Unit(StrEnum):
    """What a cap counts: leads bought, or minor units of currency spent on them, fees included."""

    LEADS = "leads"
    SPEND = "spend"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cap:
    """An order buys no more than `most` in each period."""

    unit: Unit
    period: Period
    most: int

    @property
    def name(self) -> str:
        """Its key in a market file, as in `leads_per_day` and `spend_total`."""
        return f"{self.unit}_total" if self.period is Period.TOTAL else f"{self.unit}_per_{self.period}"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenHours:
    """An order buys on these days (0 is Monday), from `from_minute` of the buyer's day until before `to_minute`."""

    days: tuple[int, ...]
    from_minute: int
    to_minute: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A buyer's standing order. `id` is `<buyer>/<name>`, unique in the market."""

    id: str
    buyer_id: str
    lead_type: str
    takes: Takes
    where: Where = ()
    priority: int = 100
    weight: int = 1
    holders_max: int | None = None
    paused: bool = False
    caps: tuple[Cap, ...] = ()
    open: tuple[OpenHours, ...] = ()
    upgrade_always: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A buyer owes no more than `credit_limit_cents` beyond what it has paid in; prepaid is a limit of 0."""

    credit_limit_cents: int


class Encoding(StrEnum):
    """How the leads that a buyer bought are written on `buyers.<id>.leads`."""

    JSON = "json"
    AVRO = "avro"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deliver:
    """How a buyer gets its records: on its topics, and where it has a `webhook`, from the gateway by HTTP too."""

    encoding: Encoding = Encoding.JSON
    webhook: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Buyer:
    """Who buys leads, reading them from `buyers.<id>.leads`. Without an `account` it may owe any amount."""

    id: str
    timezone: str
    orders: tuple[Order, ...] = ()
    paused: bool = False
    account: Account | None = None
    deliver: Deliver = Deliver()
    pings_per_minute: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Market:
    """One version of the whole market; versions count from 1 without gaps."""

    version: int
    currency: str
    timezone: str
    lead_types: Mapping[str, LeadType] = field(default_factory=dict)
    sources: Mapping[str, Source] = field(default_factory=dict)
    buyers: Mapping[str, Buyer] = field(default_factory=dict)
