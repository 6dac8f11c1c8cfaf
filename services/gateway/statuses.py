"""What became of a lead, as its source may read it: a fold of the source's receipts.

Nothing here knows a buyer, a price or a person; receipts have none of these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import orjson

from services.contract.times import amount_in_cents, decimal_amount

HAPPENED_MAX = 100
"""So much is kept of one lead at most: ten sales, each returned, are not half of it."""


class State(StrEnum):
    """How far a lead is."""

    DECLINED = "declined"
    ACCEPTED = "accepted"
    SOLD = "sold"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class LeadStatus:
    """What the receipts of a lead say, oldest first; `log_seq` is the last entry of the log among them."""

    lead_id: str
    source_id: str
    log_seq: int = 0
    happened: tuple[Mapping[str, Any], ...] = ()


class NoReceipt(ValueError):
    """A record that is no receipt of ours; the message quotes nothing."""


def read_receipt(value: bytes | None) -> Mapping[str, Any]:
    """Decode a record of `sources.<id>.receipts`; raise `NoReceipt`."""
    try:
        receipt = orjson.loads(value or b"")
    except orjson.JSONDecodeError:
        raise NoReceipt("not JSON") from None
    if not isinstance(receipt, dict) or not isinstance(receipt.get("lead_id"), str):
        raise NoReceipt("no object with a lead_id")
    if not isinstance(receipt.get("happened"), list):
        raise NoReceipt("nothing happened")
    return receipt


def fold(status: LeadStatus, receipt: Mapping[str, Any]) -> LeadStatus:
    """Take a receipt into account, once, however often it comes.

    Those of the log are told apart by their entry's number, which only rises for one lead. Those of intake have none:
    a lead is accepted once, and of declined submissions the last counts.
    """
    news = [{**happened, "at": receipt.get("at")} for happened in receipt["happened"]]
    log = receipt.get("log")
    if log is None:
        return _at_the_door(status, news)
    if log["seq"] <= status.log_seq:
        return status
    return replace(status, log_seq=log["seq"], happened=(*status.happened, *news)[:HAPPENED_MAX])


def _at_the_door(status: LeadStatus, news: Sequence[Mapping[str, Any]]) -> LeadStatus:
    kept = list(status.happened)
    for each in news:
        if each["type"] == "declined":
            kept = [before for before in kept if before["type"] != "declined"]
        elif any(before["type"] == each["type"] for before in kept):
            continue
        kept.append(each)
    return replace(status, happened=tuple(kept[:HAPPENED_MAX]))


def status_json(status: LeadStatus) -> dict[str, Any]:
    """Write a status for its source: in one word, in numbers, and all that happened."""
    by_type: dict[str, list[Mapping[str, Any]]] = {}
    for each in status.happened:
        by_type.setdefault(each["type"], []).append(each)
    state = _state(by_type)
    closed = by_type.get("closed", [{}])[-1]
    declined = by_type["declined"][-1] if state is State.DECLINED else {}
    return {
        "lead_id": status.lead_id,
        "state": state,
        "reason": declined.get("reason"),
        "field": declined.get("field"),
        "sales": len(by_type.get("sold", ())),
        "outcome": closed.get("outcome"),
        "payout": _payout(status.happened),
        "currency": next((each["currency"] for each in status.happened if "currency" in each), None),
        "happened": [dict(each) for each in status.happened],
    }


def _state(by_type: Mapping[str, Sequence[Any]]) -> State:
    for state in (State.CLOSED, State.SOLD, State.ACCEPTED):
        if state in by_type:
            return state
    # Whatever else may happen to a lead later happens to one that was accepted.
    return State.DECLINED if set(by_type) == {"declined"} else State.ACCEPTED


def _payout(happened: Sequence[Mapping[str, Any]]) -> str | None:
    """Add up what the source earned, less what was taken back; None where no receipt names an amount."""
    earned = [amount_in_cents(each["payout"]) for each in happened if each.get("payout") is not None]
    taken_back = [
        amount_in_cents(each["taken_back"]) for each in happened if each.get("taken_back") is not None
    ]
    return decimal_amount(sum(earned) - sum(taken_back)) if earned or taken_back else None
