"""Reads lead types with their plans, stages and prices; what their keys promise together is for `checks`."""

from __future__ import annotations

from collections.abc import Mapping

from services.contract.fields import DERIVED, QUALITY_MAX, FieldError
from services.contract.market import (
    FieldKind,
    FieldType,
    KeepTrying,
    LeadType,
    Plan,
    Prices,
    Ranking,
    ScoreRule,
    Sell,
    Stage,
)
from services.market.errors import did_you_mean, one_of
from services.market.fields import (
    duration_ms,
    field_name,
    identifier,
    positive_duration_ms,
    price_cents,
    share_basis_points,
    whole,
    word,
)
from services.market.filters import Fields, score_when, where
from services.market.tree import At, Entries, Items, Keys, Text

FALLING = "expected an amount or a falling list, as in 40.00 or [45.00, 40.00]"
BY_MODE = "expected a price for each mode, as in {exclusive: 75.00, shared: 42.00}"

LEAD_TYPE_KEYS = ("contact", "details", "ping", "score", "duplicate_within", "contact_kept", "plans")
PLAN_KEYS = ("name", "when", "share", "sales_max", "expires_after", "stages")
STAGE_KEYS = (
    "sell",
    "price",
    "by",
    "only",
    "selection",
    "accept_within",
    "exclusive_for",
    "keep_trying",
    "wait",
)
STAGE_KEYS_LATER = ("bid_window", "floor", "upgrade")

_FIELD_TYPES = {kind.value: kind for kind in FieldType if kind is not FieldType.CHOICE}
_SELL = {sell.value: sell for sell in Sell}
_RANKING = {ranking.value: ranking for ranking in Ranking}
_SELECTION = {"direct": True}
_SELECTION_LATER = ("ping_post", "first_bid")


def lead_type(at: At, name: str) -> tuple[LeadType, Fields]:
    """Read one lead type, and the fields that filters of its orders may name."""
    keys = at.keys(LEAD_TYPE_KEYS)
    fields = _details(keys)
    read = LeadType(
        name=name,
        contact=_names(keys, "contact"),
        details=fields.kinds,
        ping=_ping(keys, fields),
        score=_score(keys, fields),
        duplicate_within_ms=keys.optional("duplicate_within", duration_ms, 0),
        contact_kept_ms=keys.required("contact_kept", positive_duration_ms, 0),
        plans=_plans(keys, fields),
    )
    _refuse_shared_names(keys, read.contact, fields)
    return read, fields


def _names(keys: Keys, key: str) -> tuple[str, ...]:
    at = keys.required_node(key)
    return at.texts(field_name) if at else ()


def _details(keys: Keys) -> Fields:
    at = keys.required_node("details")
    kinds: dict[str, FieldKind] = {}
    declared = [] if at is None else list(at.named())
    for name, detail in declared:
        try:
            field_name(name)
        except FieldError as error:
            detail.wrong(str(error))
        if name in DERIVED:
            detail.wrong(f"expected another name: {name} is what filters call a property of every lead")
        kind = _kind(detail)
        if kind is not None:
            kinds[name] = kind
    return Fields(frozenset(name for name, _ in declared), kinds)


def _kind(at: At) -> FieldKind | None:
    if isinstance(at.node, Items):
        return FieldKind(type=FieldType.CHOICE, choices=at.texts(_choice))
    type_ = at.text(word(_FIELD_TYPES), None)
    return None if type_ is None else FieldKind(type=type_)


def _choice(text: str) -> str:
    if not text or text != text.strip() or len(text) > 63:
        raise FieldError("expected a choice of 1 to 63 characters")
    return text


def _ping(keys: Keys, fields: Fields) -> tuple[str, ...]:
    # Contact details can't be named here: what a ping shows leaves the vault's protection.
    def read(text: str) -> str:
        if text not in fields.declared:
            raise FieldError(
                f"{one_of(fields.declared)}: a ping shows details{did_you_mean(text, fields.declared)}"
            )
        return text

    at = keys.required_node("ping")
    return at.texts(read) if at else ()


def _refuse_shared_names(keys: Keys, contact: tuple[str, ...], fields: Fields) -> None:
    for name in set(contact) & fields.declared:
        keys.found["contact"].wrong(f"expected {name} either here or in the details: a field has one home")


def _score(keys: Keys, fields: Fields) -> tuple[ScoreRule, ...]:
    at = keys.node("score")
    return tuple(_score_rule(rule, fields) for rule in at.items()) if at else ()


def _score_rule(at: At, fields: Fields) -> ScoreRule:
    keys = at.keys(("points", "when"))
    when = keys.required_node("when")
    return ScoreRule(
        points=keys.required("points", whole(1, QUALITY_MAX), 1),
        when=score_when(when, fields) if when else (),
    )


def _plans(keys: Keys, fields: Fields) -> tuple[Plan, ...]:
    at = keys.required_node("plans")
    plans: dict[str, Plan] = {}
    for item in at.items() if at else ():
        named = _by_name(item)
        plan = _plan(named, fields)
        if plan.name in plans:
            named.wrong("expected another name: a plan before it has this one")
        plans.setdefault(plan.name, plan)
    return tuple(plans.values())


def _by_name(item: At) -> At:
    """Call a plan in paths by its name, which stays when plans are moved."""
    entry = item.node.values.get("name") if isinstance(item.node, Entries) else None
    if entry is None or not isinstance(entry.node, Text) or not entry.node.value:
        return item
    return item.renamed(entry.node.value)


def _plan(at: At, fields: Fields) -> Plan:
    keys = at.keys(PLAN_KEYS)
    when, stages = keys.node("when"), keys.required_node("stages")
    read = tuple(_stage(stage) for stage in stages.items()) if stages else ()
    return Plan(
        name=keys.required("name", identifier, ""),
        when=where(when, fields) if when else (),
        share_basis_points=keys.optional("share", share_basis_points, 10_000),
        sales_max=_sales_max(keys, read),
        expires_after_ms=keys.optional("expires_after", positive_duration_ms, None),
        stages=read,
    )


def _sales_max(keys: Keys, stages: tuple[Stage, ...]) -> int:
    """Read the cap on buyers: only a plan that sells nothing but exclusive may leave it out."""
    if "sales_max" not in keys and any(stage.sell is not Sell.EXCLUSIVE for stage in stages):
        keys.at.wrong(
            "expected the key sales_max, as a stage sells shared: on how many buyers may it be at most?"
        )
    return keys.optional("sales_max", whole(0), 1)


def _stage(at: At) -> Stage:
    keys = at.keys(STAGE_KEYS, STAGE_KEYS_LATER)
    sell = keys.required("sell", word(_SELL), None)
    direct = keys.optional("selection", word(_SELECTION, _SELECTION_LATER), False) or "selection" not in keys
    only, keep_trying = keys.node("only"), keys.node("keep_trying")
    return Stage(
        sell=sell or Sell.EXCLUSIVE,
        prices=_stage_prices(keys, sell, direct=direct),
        by=keys.optional("by", word(_RANKING), Ranking.PRICE),
        only=tuple(sorted(only.texts(identifier))) if only else (),
        accept_within_ms=keys.optional("accept_within", positive_duration_ms, None),
        exclusive_for_ms=keys.optional("exclusive_for", positive_duration_ms, None),
        keep_trying=_keep_trying(keep_trying) if keep_trying else None,
        wait_ms=keys.optional("wait", duration_ms, None),
    )


def _keep_trying(at: At) -> KeepTrying:
    keys = at.keys(("every", "for"))
    return KeepTrying(
        every_ms=keys.required("every", duration_ms, 1),
        for_ms=keys.required("for", duration_ms, 1),
    )


def _stage_prices(keys: Keys, sell: Sell | None, *, direct: bool) -> Prices:
    # A stage that is sold by bids has a floor and no price: that it isn't supported yet is said already.
    at = keys.required_node("price") if direct else keys.node("price")
    if at is None or sell is None:
        return Prices()
    if isinstance(at.node, Entries):
        return _prices_by_mode(at, sell)
    return _PRICES[sell](at)


def _exclusive_price(at: At) -> Prices:
    return Prices(exclusive=_amount(at))


def _shared_price(at: At) -> Prices:
    return Prices(shared=_list(at))


def _either_price(at: At) -> Prices:
    at.wrong(BY_MODE)
    return Prices()


_PRICES = {
    Sell.EXCLUSIVE: _exclusive_price,
    Sell.SHARED: _shared_price,
    Sell.EITHER: _either_price,
}

_MODES: Mapping[Sell, tuple[str, ...]] = {
    Sell.EXCLUSIVE: ("exclusive",),
    Sell.SHARED: ("shared",),
    Sell.EITHER: ("exclusive", "shared"),
}


def _prices_by_mode(at: At, sell: Sell) -> Prices:
    keys = at.keys(_MODES[sell])
    for mode in _MODES[sell]:
        keys.required_node(mode)
    exclusive, shared = keys.node("exclusive"), keys.node("shared")
    sells = _MODES[sell]
    return Prices(
        exclusive=_amount(exclusive) if exclusive and "exclusive" in sells else None,
        shared=_list(shared) if shared and "shared" in sells else None,
    )


def _amount(at: At) -> int:
    if isinstance(at.node, Items):
        at.wrong("expected one amount: an exclusive lead is sold once")
        return 1
    return at.text(price_cents, 1)


def _list(at: At) -> tuple[int, ...]:
    if isinstance(at.node, Items):
        return tuple(item.text(price_cents, 1) for item in at.items()) or (1,)
    return (at.text(price_cents, 1),)
