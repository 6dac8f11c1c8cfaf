"""The campaign's submissions are the same each time, and hold what is to be declined and what comes again."""

from __future__ import annotations

from pathlib import Path

import orjson

from chaos.gavel import MARKET, scaled
from chaos.leads import CANARY, LEAD_TYPES, NAMED, SOURCES, sent
from services.market.reading import open_files
from services.market.review import review

AT_MS = 1_795_000_000_000


def test_submission_is_a_function_of_its_number() -> None:
    assert [sent(number, AT_MS) for number in range(200)] == [sent(number, AT_MS) for number in range(200)]


def test_what_is_sent_again_is_the_same_to_the_byte() -> None:
    assert sent(89, AT_MS) == sent(88, AT_MS)


def test_some_are_persons_known_already_and_some_have_no_telephone_number() -> None:
    known, first = orjson.loads(sent(97, AT_MS).value), orjson.loads(sent(96, AT_MS).value)
    assert known["contact"]["phone"] == first["contact"]["phone"]
    assert known["lead_type"] == first["lead_type"]
    assert known["reference"] != first["reference"]
    assert orjson.loads(sent(100, AT_MS).value)["contact"]["phone"] == "no number"


def test_every_type_and_source_comes_and_every_person_bears_the_canary() -> None:
    all_sent = [sent(number, AT_MS) for number in range(500)]
    documents = [orjson.loads(each.value) for each in all_sent]
    assert {document["lead_type"] for document in documents} == set(LEAD_TYPES)
    assert {each.source_id for each in all_sent} == set(SOURCES)
    assert all(CANARY in document["contact"]["first_name"] for document in documents)


def test_some_consents_name_buyers_and_these_are_the_market_s() -> None:
    consents = [orjson.loads(sent(number, AT_MS).value)["consent"] for number in range(500)]
    named = {tuple(consent["buyers"]) for consent in consents if "buyers" in consent}
    assert named == set(NAMED)
    assert {"buyers" in consent for consent in consents} == {True, False}
    buyers = review(open_files([MARKET])).market.buyers
    assert {buyer for names in NAMED for buyer in names} <= buyers.keys()


def test_a_longer_campaign_has_larger_caps_and_the_same_prices() -> None:
    text = Path(MARKET).read_text()
    longer = scaled(text, 10.0)
    assert "leads_total: 600" in longer
    assert "spend_total: 6100.00" in longer
    assert longer.count("price: 90.00") == text.count("price: 90.00")
