"""Reads filters: which fields a condition may name, and what it says by its field's kind.

That an order filters on what pings show alone is for `checks`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from services.contract.fields import AGE, ORDERED, QUALITY, QUALITY_MAX, canonical, comparable
from services.contract.market import AnyOf, Between, Condition, FieldKind, Where
from services.market.errors import did_you_mean, one_of
from services.market.fields import duration_ms, whole
from services.market.tree import At, Entries, Items

_DERIVED: Mapping[str, Callable[[str], int]] = {QUALITY: whole(0, QUALITY_MAX), AGE: duration_ms}


@dataclass(frozen=True, slots=True)
class Fields:
    """The details that a lead type's filters may name, and the kinds of those that were understood."""

    declared: frozenset[str]
    kinds: Mapping[str, FieldKind]


def where(at: At, fields: Fields) -> Where:
    """Read the filter of an order or a plan."""
    return _conditions(at, fields, _DERIVED)


def score_when(at: At, fields: Fields) -> Where:
    """Read the filter of a score rule: of details alone, as quality is what it makes, and age passes."""
    return _conditions(at, fields, {})


def _conditions(at: At, fields: Fields, derived: Mapping[str, Callable[[str], int]]) -> Where:
    # Sorted, so that the order in which people write conditions makes no other market.
    found: dict[str, Condition] = {}
    for name, value in at.named():
        condition: Condition | None = None
        if name in derived:
            condition = _derived(value, derived[name])
        elif name in fields.kinds:
            condition = _detail(value, fields.kinds[name])
        elif name not in fields.declared:
            known = [*fields.declared, *derived]
            value.wrong(f"unknown field: {one_of(known)}{did_you_mean(name, known)}")
        if condition is not None:
            found[name] = condition
    return tuple(sorted(found.items()))


def _derived(at: At, parse: Callable[[str], int]) -> Condition | None:
    if isinstance(at.node, Entries):
        return _between(at, parse)
    if isinstance(at.node, Items):
        at.wrong("expected bounds, as in {from: ..., to: ...}")
        return None
    exact = at.text(parse, None)
    return Between(low=exact, high=exact)


def _detail(at: At, kind: FieldKind) -> Condition | None:
    def read(text: str) -> str:
        return canonical(kind, text)

    if isinstance(at.node, Items):
        return AnyOf(values=frozenset(at.texts(read)))
    if not isinstance(at.node, Entries):
        return AnyOf(values=frozenset({at.text(read, "")}))
    if kind.type not in ORDERED:
        at.wrong(f"expected a value or [any, of, these]: {kind.type} has no order")
        return None
    return _between(at, lambda text: comparable(kind, canonical(kind, text)))


def _between(at: At, parse: Callable[[str], int]) -> Between:
    bounds = at.keys(("from", "to"))
    low, high = bounds.optional("from", parse, None), bounds.optional("to", parse, None)
    if not bounds.found:
        at.wrong("expected from, to or both")
    if low is not None and high is not None and low > high:
        at.wrong("expected from to be at most to: nothing is between these")
    return Between(low=low, high=high)
