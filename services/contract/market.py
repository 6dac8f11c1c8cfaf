"""What the market says, typed: lead types, plans, stages, sources, buyers and orders, as one immutable value.

`services.market` reads and checks the files that people write and makes this value of them; every step reads it.
Nothing here reads a file or a database. Ids are `[a-z0-9-]`; amounts are integer minor units of `Market.currency`;
durations are milliseconds. The meaning of every key is told by the comments of `examples/market.yaml`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias


class Mode(StrEnum):
    """How one sale is promised to its buyer."""

    EXCLUSIVE = "exclusive"
    SHARED = "shared"


class Sell(StrEnum):
    """What a stage may sell: either means whichever of the two brings more (or is first in rank)."""

    EXCLUSIVE = "exclusive"
    SHARED = "shared"
    EITHER = "either"


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
    """A stage's list price per mode; None where the stage does not sell that mode.

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
class Stage:
    """One attempt to sell."""

    sell: Sell
    prices: Prices
    by: Ranking = Ranking.PRICE
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
class LeadType:
    """What a lead of this type consists of, which of it may be shown before a sale, and the plans that sell it."""

    name: str
    contact: tuple[str, ...]
    details: Mapping[str, FieldKind]
    ping: tuple[str, ...]
    plans: tuple[Plan, ...]
    score: tuple[ScoreRule, ...] = ()
    duplicate_within_ms: int = 0
    contact_kept_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Who streams leads in to `sources.<id>.leads`."""

    id: str
    lead_types: tuple[str, ...]
    sales_max: int | None = None
    never_to: tuple[str, ...] = ()
    paused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ListPrice:
    """An order pays what the stage's list says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedPrice:
    """An order pays its own amount, whatever the list says."""

    cents: int


Price: TypeAlias = ListPrice | FixedPrice


@dataclass(frozen=True, slots=True, kw_only=True)
class Takes:
    """What an order pays per mode; None: it never takes a lead that way."""

    exclusive: Price | None = None
    shared: Price | None = None


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Buyer:
    """Who buys leads, reading them from `buyers.<id>.leads`."""

    id: str
    timezone: str
    orders: tuple[Order, ...] = ()
    paused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Market:
    """One version of the whole market; versions count from 1 without gaps."""

    version: int
    currency: str
    timezone: str
    lead_types: Mapping[str, LeadType] = field(default_factory=dict)
    sources: Mapping[str, Source] = field(default_factory=dict)
    buyers: Mapping[str, Buyer] = field(default_factory=dict)
