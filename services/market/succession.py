"""What one version of the market may not change of the version before it, and what it changes at its author's risk.

Pure; that a market is right in itself is for `checks`.
"""

from __future__ import annotations

from collections.abc import Iterator

from services.contract.market import FieldKind, FieldType, Market
from services.market.errors import Breach


def errors(old: Market, new: Market) -> Iterator[Breach]:
    """Find what no later version may change."""
    if old.currency != new.currency:
        reason = f"expected {old.currency}, as before: ledger, caps and accounts are in it and can't be added to others"
        yield Breach("market.currency", new.currency, reason)


def warnings(old: Market, new: Market) -> Iterator[Breach]:
    """Find fields that leads accepted before have said otherwise than filters will read them."""
    for name, lead_type in new.lead_types.items():
        before = old.lead_types[name].details if name in old.lead_types else {}
        for field, kind in lead_type.details.items():
            path = f"lead_types.{name}.details.{field}"
            if field in before:
                yield from _kind_warnings(path, before[field], kind)


def _kind_warnings(path: str, before: FieldKind, kind: FieldKind) -> Iterator[Breach]:
    if before.type is not kind.type:
        reason = (
            f"it was {before.type}: leads accepted before keep that, and may meet no condition on it any more"
        )
        yield Breach(path, kind.type, reason)
        return
    missing = [choice for choice in before.choices if choice not in kind.choices]
    if kind.type is FieldType.CHOICE and missing:
        reason = f"leads accepted before may say {', '.join(missing)}, which no condition can name any more"
        yield Breach(path, f"[{', '.join(kind.choices)}]", reason)
