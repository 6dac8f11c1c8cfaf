"""Reads lead types with their plans and what may be returned; what their keys promise together is for `checks`."""

from __future__ import annotations

from services.contract.events import ReturnReason
from services.contract.fields import DERIVED, QUALITY_MAX, FieldError
from services.contract.market import (
    FieldKind,
    FieldType,
    LeadType,
    Plan,
    Returns,
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
    share_basis_points,
    whole,
    word,
    yes_no,
)
from services.market.filters import Fields, score_when, where
from services.market.stages import stage
from services.market.tree import At, Entries, Items, Keys, Text

LEAD_TYPE_KEYS = (
    "contact",
    "details",
    "ping",
    "score",
    "duplicate_within",
    "contact_kept",
    "one_to_one_consent",
    "returns",
    "plans",
)
PLAN_KEYS = ("name", "when", "share", "sales_max", "expires_after", "stages")
RETURNS_KEYS = ("within", "reasons", "quota", "approve")

_FIELD_TYPES = {kind.value: kind for kind in FieldType if kind is not FieldType.CHOICE}
_REASONS = {reason.value: reason.value for reason in ReturnReason}
_APPROVE = {"automatic": True, "operator": False}


def lead_type(at: At, name: str) -> tuple[LeadType, Fields]:
    """Read one lead type, and the fields that filters of its orders may name."""
    keys = at.keys(LEAD_TYPE_KEYS)
    fields = _details(keys)
    returns = keys.node("returns")
    read = LeadType(
        name=name,
        contact=_names(keys, "contact"),
        details=fields.kinds,
        ping=_ping(keys, fields),
        score=_score(keys, fields),
        duplicate_within_ms=keys.optional("duplicate_within", duration_ms, 0),
        contact_kept_ms=keys.required("contact_kept", positive_duration_ms, 0),
        one_to_one_consent=keys.optional("one_to_one_consent", yes_no, False),
        returns=_returns(returns) if returns else None,
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
    # What can't be printed is a mistake, and PostgreSQL reads no JSON with a zero character in it.
    if not text or text != text.strip() or len(text) > 63 or not text.isprintable():
        raise FieldError("expected a choice of 1 to 63 characters that can be printed")
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


def _returns(at: At) -> Returns:
    keys = at.keys(RETURNS_KEYS)
    reasons = keys.required_node("reasons")
    return Returns(
        within_ms=keys.required("within", positive_duration_ms, 1),
        # Sorted, so that the order in which people list them makes no other market.
        reasons=tuple(sorted(reasons.texts(word(_REASONS)))) if reasons else (),
        quota_basis_points=keys.optional("quota", share_basis_points, None),
        automatic=keys.optional("approve", word(_APPROVE), True),
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
    read = tuple(map(stage, stages.items())) if stages else ()
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
