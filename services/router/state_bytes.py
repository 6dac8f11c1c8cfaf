"""A lead's state as bytes for its row: JSON of the dataclass, because it is read and written whole and only here."""

from __future__ import annotations

from typing import Any

import orjson

from services.contract.events import (
    Disposition,
    Draw,
    ErasureReason,
    Invitation,
    OfferMade,
    Outcome,
    WindowKind,
    WithdrawalReason,
)
from services.contract.market import Mode, Selection
from services.router.lead import Auction, Lead, PlacedBid, Returning, Sale, State, Window, WithdrawnEarly


def state_bytes(state: Lead | WithdrawnEarly) -> bytes:
    """Write a state."""
    return orjson.dumps(state)


def state_of(data: bytes) -> State:
    """Read a state that `state_bytes` wrote."""
    row: dict[str, Any] = orjson.loads(data)
    if "reason" in row:
        return WithdrawnEarly(reason=WithdrawalReason(row["reason"]))
    row["sales"] = tuple(_sale(sale) for sale in row["sales"])
    row["windows"] = tuple(_window(window) for window in row["windows"])
    row["offer"] = None if row["offer"] is None else _offer(row["offer"])
    if row.get("auction") is not None:
        row["auction"] = _auction(row["auction"])
    row["outcome"] = None if row["outcome"] is None else Outcome(row["outcome"])
    if row.get("erasure") is not None:
        row["erasure"] = ErasureReason(row["erasure"])
    for name in ("never_to", "passed", "erased_by", "consented_buyers"):
        row[name] = tuple(row.get(name, ()))
    return Lead(**row)


def _sale(row: dict[str, Any]) -> Sale:
    row["mode"] = Mode(row["mode"])
    row["disposition"] = None if row["disposition"] is None else Disposition(row["disposition"])
    if row.get("draws") is not None:
        row["draws"] = tuple(Draw(**draw) for draw in row["draws"])
    if row.get("returning") is not None:
        row["returning"] = Returning(row["returning"])
    return Sale(**row)


def _window(row: dict[str, Any]) -> Window:
    row["kind"] = WindowKind(row["kind"])
    return Window(**row)


def _offer(row: dict[str, Any]) -> OfferMade:
    row["mode"] = Mode(row["mode"])
    row["holders"] = tuple(row["holders"])
    return OfferMade(**row)


def _auction(row: dict[str, Any]) -> Auction:
    row["selection"] = Selection(row["selection"])
    row["invited"] = tuple(
        Invitation(
            buyer_id=asked["buyer_id"],
            order_id=asked["order_id"],
            modes=tuple(Mode(mode) for mode in asked["modes"]),
        )
        for asked in row["invited"]
    )
    row["bids"] = tuple(PlacedBid(**bid) for bid in row["bids"])
    row["declined"] = tuple(row["declined"])
    return Auction(**row)
