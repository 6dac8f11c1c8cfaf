"""A buyer that wants Avro reads the same as in JSON, typed: nothing lost, nothing added, nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson
import pytest

from services.contract.codec import NotReadable, codec
from services.contract.deliveries import DeliveredLead, DeliveredNotice, DeliveredUpgrade
from services.contract.events import Event
from services.contract.outside_records import read_body
from services.router import outside_values
from services.router.outside_values import avro_value, delivered, json_value
from tests.support.telling import (
    AT_MS,
    BUYERS,
    MINUTE_MS,
    closed,
    entry_of,
    sold,
    sold_exclusive,
    told,
    upgraded,
)

SEALED = orjson.dumps(
    {
        "contact": {"email": "canary@example.com"},
        "details": {"state": "AZ", "bill": "150.00"},
        "consent": {"text": "Ring me.", "at": "2026-09-21T14:00:00Z", "url": None, "certificate": None},
    }
)
UNTIL_MS = AT_MS + 2 * MINUTE_MS
ENTRIES: Mapping[str, tuple[Event, ...]] = {
    "shared": (sold(1), sold(2, earlier=0), closed(*BUYERS[:2])),
    "exclusive for good": (sold_exclusive(), closed(BUYERS[0])),
    "exclusive for a time": (sold_exclusive(exclusive_until_ms=UNTIL_MS),),
    "to be upgraded": (sold(upgrade_fee_cents=7_500, upgrade_until_ms=UNTIL_MS, others_from_ms=UNTIL_MS),),
    "upgraded at once": (sold(), upgraded(), closed(BUYERS[0])),
    "upgraded later": (upgraded(), closed(BUYERS[0])),
    "a notice": (sold(2), closed(*BUYERS[:2])),
}


def bodies(events: tuple[Event, ...]) -> Iterator[tuple[Any, bytes | None]]:
    """What goes to leads topics, and the sealed part where one belongs to it."""
    for item in told(*events):
        if item.channel == "buyer_leads":
            yield item.body, None if item.sale_number is None else SEALED


def differences(events: tuple[Event, ...]) -> list[str]:
    """Compare what the bytes of both say, record by record."""
    found = []
    for body, sealed in bodies(events):
        in_json = read_body(json_value(body, sealed))
        if "lead" in in_json:
            consent = in_json["lead"]["consent"]
            in_json["lead"]["consent"] = {name: text for name, text in consent.items() if text is not None}
        in_avro = read_body(avro_value(body, sealed, codec()))
        if in_json != in_avro:
            found.append(f"{in_json}\n{in_avro}")
    return found


@pytest.mark.parametrize("name", ENTRIES)
def test_avro_says_the_same_as_json(name: str) -> None:
    assert list(bodies(ENTRIES[name]))
    assert differences(ENTRIES[name]) == []


def test_lead_without_a_consent_has_an_empty_one() -> None:
    ((body, _),) = bodies(ENTRIES["exclusive for a time"])
    record = delivered(body, b'{"contact":{},"details":{}}')
    assert isinstance(record, DeliveredLead)
    assert record.lead.consent == {}


def test_each_record_of_a_leads_topic_has_its_type() -> None:
    types = {type(delivered(body, sealed)) for events in ENTRIES.values() for body, sealed in bodies(events)}
    assert types == {DeliveredLead, DeliveredNotice, DeliveredUpgrade}


def test_what_belongs_on_no_leads_topic_is_not_written_there() -> None:
    with pytest.raises(ValueError, match="receipt"):
        delivered({"type": "receipt"}, None)


def test_delivery_without_its_sealed_part_is_not_written() -> None:
    ((body, _),) = bodies(ENTRIES["exclusive for a time"])
    with pytest.raises(ValueError, match="lead"):
        delivered(body, None)


def test_json_has_the_vaults_own_bytes() -> None:
    ((body, sealed),) = bodies(ENTRIES["exclusive for a time"])
    assert json_value(body, sealed).endswith(b'"lead":' + SEALED + b"}")


@pytest.mark.parametrize("bug", ["term left out", "price taken for another"])
def test_planted_difference_is_found(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if bug == "term left out":
        honest = outside_values._terms
        monkeypatch.setattr(outside_values, "_terms", lambda terms: honest({**terms, "others_from": None}))
    else:
        monkeypatch.setattr(outside_values, "amount_in_cents", lambda text: int(text.replace(".", "")) * 10)
    assert any(differences(events) for events in ENTRIES.values())


def test_entry_of_the_log_holds_nothing_of_the_sealed_part() -> None:
    assert b"canary" not in codec().encode(entry_of(ENTRIES["shared"]))


def test_field_of_a_lead_is_left_as_it_is_whatever_it_is_called() -> None:
    ((body, _),) = bodies(ENTRIES["exclusive for a time"])
    sealed = b'{"contact":{"best_time_ms":"9"},"details":{"bill_cents":"x"}}'
    assert read_body(avro_value(body, sealed, codec()))["lead"] == orjson.loads(sealed)


@pytest.mark.parametrize("value", [b"", b"{", b"[]", b"\x00\x00\x00\x00\x64", b"\x00\x00\x00\x00\x0b\x02"])
def test_what_is_no_record_of_an_outsiders_topic_is_not_read(value: bytes) -> None:
    """The last one is an event of the log."""
    with pytest.raises(NotReadable):
        read_body(value)
