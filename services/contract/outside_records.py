"""Reads a record of an outsider's topic as its JSON body, whichever way it is written.

For whoever shows, checks or passes on what outsiders read; a buyer's own code needs no more than one of the two.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, assert_never

from services.contract.codec import NotReadable, codec
from services.contract.deliveries import Delivered, DeliveredLead, DeliveredNotice, DeliveredUpgrade
from services.contract.times import decimal_amount, iso_time

_MAGIC = b"\x00"
_NULL_WHERE_NOT_SO = ("exclusive_until", "held_since", "others_from")


def read_body(value: bytes) -> dict[str, Any]:
    """Read JSON, or Avro in the Confluent frame; raise `NotReadable` for anything else."""
    if value[:1] == _MAGIC:
        record = codec().decode(value)
        if not isinstance(record, Delivered):
            raise NotReadable(f"{type(record).__name__} on a topic of an outsider")
        return body_of(record)
    try:
        body = json.loads(value)
    except ValueError as error:
        raise NotReadable(f"neither JSON nor framed: {error}") from error
    if not isinstance(body, dict):
        raise NotReadable(f"JSON of type {type(body).__name__}")
    return body


def body_of(record: Delivered) -> dict[str, Any]:
    """Write an Avro record as the JSON record that says the same."""
    told = asdict(record)
    lead = told.pop("lead", {})  # whose fields may be called anything
    plain = _plain(told)
    if "terms" in plain:
        plain["terms"] = _terms(plain["terms"])
    match record:
        case DeliveredLead():
            given = {part: held for part, held in lead.items() if held or part != "consent"}
            return {"type": "lead", **plain, "lead": given}
        case DeliveredNotice():
            return {"type": "notice", **plain}
        case DeliveredUpgrade():
            return {"type": "upgraded", **plain}
        case _:
            assert_never(record)


def _plain(value: Any) -> Any:
    """Write amounts and times as people do, under their names without a unit; leave out what is not there."""
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return dict(_named(name, item) for name, item in value.items() if item is not None)
    return value


def _named(name: str, value: Any) -> tuple[str, Any]:
    if name.endswith("_ms"):
        return name.removesuffix("_ms"), iso_time(value)
    if name.endswith("_cents"):
        return name.removesuffix("_cents"), decimal_amount(value)
    return name, _plain(value)


def _terms(told: Mapping[str, Any]) -> dict[str, Any]:
    """Terms say of everything whether it is so: null, where it is not."""
    terms = dict.fromkeys(_NULL_WHERE_NOT_SO) | dict(told)
    fee, until = terms.pop("upgrade_fee", None), terms.pop("upgrade_until", None)
    return terms | {"upgrade": None if fee is None else {"fee": fee, "until": until}}
