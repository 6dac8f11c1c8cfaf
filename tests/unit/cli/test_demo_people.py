"""The demo's buyers answer the same in every run, in intake's words; its receipts count each thing once."""

from __future__ import annotations

import json
import threading
from collections import Counter
from contextlib import closing
from http.client import HTTPConnection
from typing import Any

from services.bus.kafka import Connection
from services.cli.buyer_commands import accept, disposition, encoded, reject
from services.cli.demo_bidders import receiver
from services.cli.demo_buyers import answer_to as thought_of
from services.cli.demo_evidence import CONTACT
from services.cli.demo_sources import Receipts
from services.cli.outsiders import Received
from services.contract.events import Disposition, RejectionReason
from services.contract.ids import lead_id_of
from services.contract.inputs import AcceptOffer, RejectOffer, ReportDisposition
from services.contract.topics import Topics
from services.intake.answers import read_answer

LEAD = lead_id_of("sunform", "1")


def answer_to(body: dict[str, Any], buyer_id: str = "brightroof") -> dict[str, Any] | None:
    thought = thought_of(buyer_id, body)
    return None if thought is None else thought.answer


def offer(number: int) -> dict[str, Any]:
    return {"type": "offer", "lead_id": lead_id_of("sunform", str(number)), "offer_number": 1}


def lead(number: int, *, exclusive_until: str | None) -> dict[str, Any]:
    terms = {"sale_number": 1, "exclusive_until": exclusive_until, "upgrade": None}
    return {
        "type": "lead",
        "lead_id": lead_id_of("sunform", str(number)),
        "lead_type": "solar",
        "terms": terms,
    }


def kinds(bodies: list[dict[str, Any]]) -> Counter[str | None]:
    answers = [answer_to(body) for body in bodies]
    return Counter(
        None if answer is None else str(answer.get("disposition") or answer["type"]) for answer in answers
    )


def test_some_offers_are_accepted_some_rejected_and_some_met_with_silence() -> None:
    found = kinds([offer(number) for number in range(400)])
    assert found["accept_offer"] > found["reject_offer"] > 20
    assert found[None] > 20


def test_an_offer_gets_the_same_answer_in_every_run() -> None:
    assert [answer_to(offer(number)) for number in range(20)] == [
        answer_to(offer(number)) for number in range(20)
    ]


def test_only_who_has_a_lead_alone_for_a_time_makes_a_deal() -> None:
    alone = kinds([lead(number, exclusive_until="2026-11-22T10:00:00.000Z") for number in range(400)])
    others = kinds([lead(number, exclusive_until=None) for number in range(400)])
    assert alone["deal"] > 10
    assert others["deal"] == 0


def test_a_notice_needs_no_answer() -> None:
    assert answer_to({"type": "notice", "lead_id": LEAD}) is None


def test_intake_understands_every_answer() -> None:
    found = [
        read_answer(encoded(body), buyer_id="oak", answered_at_ms=7)
        for body in (
            accept(LEAD, 2),
            reject(LEAD, 2, RejectionReason.PRICE),
            disposition(LEAD, Disposition.NO_DEAL),
        )
    ]
    assert found == [
        AcceptOffer(lead_id=LEAD, buyer_id="oak", offer_number=2, answered_at_ms=7),
        RejectOffer(lead_id=LEAD, buyer_id="oak", offer_number=2, reason=RejectionReason.PRICE),
        ReportDisposition(lead_id=LEAD, buyer_id="oak", disposition=Disposition.NO_DEAL),
    ]


def receipts() -> Receipts:
    return Receipts(Connection(bootstrap="nowhere:1"), Topics(), ("sunform",), threading.Event())


def receipt(id: str, *happened: dict[str, Any], source: bytes = b"gavel/intake", seq: int = 1) -> Received:
    body = {
        "lead_id": LEAD,
        "at": "2026-11-22T10:00:00.000Z",
        "happened": happened,
        "log": {"partition": 0, "seq": seq},
    }
    headers = {"ce_id": id.encode(), "ce_source": source}
    return Received("sources.sunform.receipts", 0, 0, None, json.dumps(body).encode(), headers, 0)


CLOSED = {"type": "closed", "outcome": "sold_out", "sales": 1}


def test_a_receipt_that_comes_again_counts_once() -> None:
    found = receipts()
    for _ in range(2):
        found.take(receipt("0:1", {"type": "accepted"}))
        found.take(receipt("0:2", CLOSED, source=b"gavel/router"))
    assert (found.answered, len(found.closes), found.outcomes["sold_out"]) == (1, 1, 1)
    assert found.closes[LEAD] == {(0, 1)}


def test_a_lead_sent_again_is_answered_and_not_accepted_twice() -> None:
    found = receipts()
    found.take(receipt("0:1", {"type": "accepted"}))
    found.take(receipt("0:9", {"type": "accepted"}))
    assert (found.answered, len(found.accepted), found.repeated) == (2, 1, 1)


def test_a_second_close_elsewhere_in_the_log_is_kept_as_a_second_one() -> None:
    found = receipts()
    found.take(receipt("0:5", CLOSED, source=b"gavel/router", seq=5))
    found.take(receipt("0:8", CLOSED, source=b"gavel/router", seq=8))
    assert found.closes[LEAD] == {(0, 5), (0, 8)}


def test_a_declined_submission_is_answered() -> None:
    found = receipts()
    found.take(receipt("0:1", {"type": "declined", "reason": "duplicate"}))
    assert (found.answered, found.declined["duplicate"]) == (1, 1)


def test_contact_details_are_found_in_every_spelling_and_nothing_else_is() -> None:
    for text in (b"ada.frost.7@example.org", b"+14805550123", b"480-555-0123", b"4805550123"):
        assert CONTACT.search(b'{"x": "' + text + b'"}'), text
    for text in (
        LEAD.encode(),
        b"AZ",
        b"228.00",
        b"https://example.com/quote",
        b"2026-11-22T10:00:00.555Z",
        b"4805-5501-23",
        b"a4805550123",
    ):
        assert not CONTACT.search(text), text


def ping(number: int, *modes: str) -> dict[str, Any]:
    return {
        "type": "ping",
        "lead_id": lead_id_of("quotehub", str(number)),
        "auction_number": 1,
        "modes": list(modes),
    }


def test_bidders_are_fast_slow_and_silent() -> None:
    pings = [ping(number, "exclusive", "shared") for number in range(200)]
    fast = [thought_of("swiftloan", each) for each in pings]
    slow = [thought_of("slowbank", each) for each in pings]
    assert all(thought is not None and thought.after_s == 0 for thought in fast)
    assert {thought.answer["type"] for thought in fast if thought} == {"bid", "no_bid"}
    waits_s = [thought.after_s for thought in slow if thought]
    assert min(waits_s) < 2 < max(waits_s), "some of the slow one's bids are late, and some are not"
    assert all(thought_of("quietcredit", each) is None for each in pings)


def test_a_bid_names_the_modes_that_were_asked_for_alone() -> None:
    thoughts = [thought_of("swiftloan", ping(number, "shared")) for number in range(50)]
    assert all("exclusive" not in thought.answer for thought in thoughts if thought)


def test_some_leads_are_upgraded_and_some_given_back() -> None:
    offered = {"fee": "75.00", "until": "2026-11-22T10:00:00.000Z"}
    shared = [lead(number, exclusive_until=None) for number in range(400)]
    upgradable = [{**body, "terms": {**body["terms"], "upgrade": offered}} for body in shared]
    assert kinds(upgradable)["upgrade"] > 100
    assert 10 < kinds(shared)["return"] < 60
    assert kinds([{**body, "lead_type": "roofing"} for body in shared])["return"] == 0


def test_the_http_bidder_replies_with_its_bid_and_takes_everything_else() -> None:
    with receiver() as (port, posted):
        replies = [_post(port, ping(number, "exclusive")) for number in range(20)]
        assert _post(port, {"type": "lead"}) == (204, b"")
    assert {status for status, _ in replies} == {200, 204}
    assert all("exclusive" in json.loads(reply) for status, reply in replies if status == 200)
    assert (posted.pings, posted.leads) == (20, 1)


def _post(port: int, body: dict[str, Any]) -> tuple[int, bytes]:
    with closing(HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request("POST", "/lendfast", json.dumps(body))
        answer = connection.getresponse()
        return answer.status, answer.read()
