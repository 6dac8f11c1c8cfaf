"""Writes the value of a record to an outsider: JSON, or Avro on the leads topic of a buyer that wants it.

Both say the same; what reaches a topic decides nothing and knows no market.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from services.contract.codec import Codec
from services.contract.deliveries import (
    Delivered,
    DeliveredLead,
    DeliveredNotice,
    DeliveredTerms,
    DeliveredUpgrade,
    Disclosed,
    LogPosition,
    Since,
    SinceKind,
)
from services.contract.times import amount_in_cents, time_in_ms


def json_value(body: Mapping[str, Any], sealed: bytes | None) -> bytes:
    """Write JSON, with the vault's row (JSON itself) under `lead` where the record is a delivery."""
    return orjson.dumps(body if sealed is None else {**body, "lead": orjson.Fragment(sealed)})


def avro_value(body: Mapping[str, Any], sealed: bytes | None, codec: Codec) -> bytes:
    """Write Avro in the Confluent frame, with what the vault's row holds where the record is a delivery."""
    return codec.encode(delivered(body, sealed))


def delivered(body: Mapping[str, Any], sealed: bytes | None) -> Delivered:
    """Type a body of the leads topic; raise ValueError for one of another type."""
    match body["type"]:
        case "lead" if sealed is not None:
            return _lead(body, orjson.loads(sealed))
        case "notice":
            return _notice(body)
        case "upgraded":
            return _upgrade(body)
        case other:
            raise ValueError(f"{other} is no record of a leads topic")


def _lead(body: Mapping[str, Any], sealed: Mapping[str, Any]) -> DeliveredLead:
    return DeliveredLead(
        sale_id=body["sale_id"],
        lead_id=body["lead_id"],
        lead_type=body["lead_type"],
        order=body["order"],
        sold_at_ms=time_in_ms(body["sold_at"]),
        created_at_ms=time_in_ms(body["created_at"]),
        price_cents=amount_in_cents(body["price"]),
        upgrade_fee_cents=_cents_or_none(body.get("upgrade_fee")),
        total_cents=_cents_or_none(body.get("total")),
        currency=body["currency"],
        quality=body["quality"],
        is_test=body["is_test"],
        terms=_terms(body["terms"]),
        promise=body["promise"],
        log=LogPosition(**body["log"]),
        lead=Disclosed(
            contact=_texts(sealed.get("contact")),
            details=_texts(sealed.get("details")),
            consent=_texts(sealed.get("consent")),
        ),
    )


def _notice(body: Mapping[str, Any]) -> DeliveredNotice:
    return DeliveredNotice(
        lead_id=body["lead_id"],
        at_ms=time_in_ms(body["at"]),
        holders=body["holders"],
        happened=tuple(map(_since, body["happened"])),
        log=LogPosition(**body["log"]),
    )


def _upgrade(body: Mapping[str, Any]) -> DeliveredUpgrade:
    return DeliveredUpgrade(
        sale_id=body["sale_id"],
        lead_id=body["lead_id"],
        order=body["order"],
        at_ms=time_in_ms(body["at"]),
        fee_cents=amount_in_cents(body["fee"]),
        currency=body["currency"],
        is_test=body["is_test"],
        terms=_terms(body["terms"]),
        promise=body["promise"],
        log=LogPosition(**body["log"]),
    )


def _terms(terms: Mapping[str, Any]) -> DeliveredTerms:
    upgrade = terms["upgrade"] or {}
    return DeliveredTerms(
        mode=terms["mode"],
        sale_number=terms["sale_number"],
        sales_max=terms["sales_max"],
        exclusive=terms["exclusive"],
        exclusive_until_ms=_ms_or_none(terms["exclusive_until"]),
        holders=terms["holders"],
        held_since_ms=_ms_or_none(terms["held_since"]),
        others_may_follow=terms["others_may_follow"],
        others_from_ms=_ms_or_none(terms["others_from"]),
        upgrade_fee_cents=_cents_or_none(upgrade.get("fee")),
        upgrade_until_ms=_ms_or_none(upgrade.get("until")),
    )


def _since(item: Mapping[str, Any]) -> Since:
    return Since(
        type=SinceKind(item["type"]),
        sale_number=item.get("sale_number"),
        sales_max=item.get("sales_max"),
        mode=item.get("mode"),
        outcome=item.get("outcome"),
        reason=item.get("reason"),
        acknowledge_by_ms=_ms_or_none(item.get("acknowledge_by")),
    )


def _texts(values: Mapping[str, Any] | None) -> dict[str, str]:
    """Keep what is there: a consent may lack its page or its certificate."""
    return {name: str(value) for name, value in (values or {}).items() if value is not None}


def _cents_or_none(amount: str | None) -> int | None:
    return None if amount is None else amount_in_cents(amount)


def _ms_or_none(time: str | None) -> int | None:
    return None if time is None else time_in_ms(time)
