"""The gateway's pure rules: each as given, when, then."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook

from services.contract.ids import lead_id_of
from services.contract.times import HOUR_MS, iso_time
from services.gateway.addresses import Forbidden, read_networks, require_addresses, require_url
from services.gateway.allowance import Bucket
from services.gateway.domain import (
    RETRY_AFTER_MS,
    Disabled,
    Failed,
    Pointer,
    Posted,
    Waiting,
    answer_by_ms,
    judge,
    next_try_ms,
    reply_as_answer,
)
from services.gateway.lines import Line, LineSplitter
from services.gateway.signing import WebhookSecrets, signature_headers
from services.gateway.statuses import LeadStatus, NoReceipt, fold, read_receipt, status_json
from services.gateway.tokens import Kind, StoredKey, Token, caller_of, hash_of, make_token, read_bearer

NOW_MS = 1_790_000_000_000
LEAD = lead_id_of("sunform", "ref-1")


def waiting(attempts: int = 0, position: int = 5) -> Waiting:
    return Waiting(
        pointer=Pointer("buyers.acme.leads", 0, position),
        buyer_id="acme",
        attempts=attempts,
        next_try_at_ms=NOW_MS,
        answer_by_ms=None,
    )


# Retries.


def test_retries_come_after_the_published_delays_and_a_little_later_each() -> None:
    delays = [next_try_ms(waiting(attempts), NOW_MS) for attempts in range(len(RETRY_AFTER_MS))]
    for told_ms, least_ms in zip(delays, RETRY_AFTER_MS, strict=True):
        assert told_ms is not None
        assert least_ms <= told_ms - NOW_MS <= least_ms * 1.1
    assert RETRY_AFTER_MS[-1] == 10 * HOUR_MS
    assert next_try_ms(waiting(len(RETRY_AFTER_MS)), NOW_MS) is None


def test_jitter_spreads_records_and_is_the_same_each_time() -> None:
    tries = [next_try_ms(waiting(1, position), NOW_MS) for position in range(100)]
    assert tries == [next_try_ms(waiting(1, position), NOW_MS) for position in range(100)]
    assert len(set(tries)) > 90


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (200, Posted),
        (204, Posted),
        (301, Failed),
        (302, Failed),
        (404, Failed),
        (410, Disabled),
        (500, Failed),
    ],
)
def test_a_status_means(status: int, kind: type) -> None:
    assert type(judge(waiting(), status=status, url="https://buyer.example")) is kind


# Replies that are answers.

PING = {"type": "ping", "lead_id": LEAD, "auction_number": 1}
OFFER = {"type": "offer", "lead_id": LEAD, "offer_number": 3}


@pytest.mark.parametrize(
    ("record", "status", "reply", "answer"),
    [
        (PING, 200, {"exclusive": "85.00"}, {"type": "bid", "exclusive": "85.00"}),
        (PING, 200, {"shared": "3.00", "exclusive": None}, {"type": "bid", "shared": "3.00"}),
        (PING, 204, {}, {"type": "no_bid", "reason": "other"}),
        (PING, 200, {"reason": "price"}, {"type": "no_bid", "reason": "price"}),
        (PING, 200, {}, None),
        (PING, 202, {"later": True}, None),
        (OFFER, 200, {"accept": True}, {"type": "accept_offer"}),
        (OFFER, 200, {"accept": False}, {"type": "reject_offer", "reason": "other"}),
        (OFFER, 204, {}, None),
        (OFFER, 200, {"accept": "yes"}, None),
        ({"type": "lead", "lead_id": LEAD}, 200, {"exclusive": "85.00"}, None),
    ],
)
def test_a_reply_is_an_answer(
    record: dict[str, Any], status: int, reply: Any, answer: dict[str, Any] | None
) -> None:
    found = reply_as_answer(record, status=status, reply=reply)
    about = {key: value for key, value in record.items() if key != "type"}
    assert found == (None if answer is None else {**about, **answer})


def test_only_what_names_a_time_has_one_to_answer_by() -> None:
    assert answer_by_ms({"answer_by": iso_time(NOW_MS + 1)}) == NOW_MS + 1
    assert answer_by_ms({}) is None
    assert answer_by_ms({"answer_by": "soon"}) is None


# Statuses.


def receipt(*happened: dict[str, Any], seq: int | None = None) -> dict[str, Any]:
    log = {} if seq is None else {"log": {"partition": 0, "seq": seq}}
    return {"lead_id": LEAD, "at": iso_time(NOW_MS), "happened": list(happened), **log}


def status_after(*receipts: dict[str, Any]) -> dict[str, Any]:
    status = LeadStatus(lead_id=LEAD, source_id="sunform")
    for each in receipts:
        status = fold(status, each)
    return status_json(status)


ACCEPTED = receipt({"type": "accepted"})
DECLINED = receipt({"type": "declined", "reason": "duplicate"})
OTHER_PAYLOAD = receipt({"type": "declined", "reason": "other_payload"})
SOLD = receipt({"type": "sold", "sale_number": 1, "payout": "54.00", "currency": "USD"}, seq=4)
RETURNED = receipt({"type": "returned", "sale_number": 1, "taken_back": "54.00", "currency": "USD"}, seq=9)
CLOSED = receipt({"type": "closed", "outcome": "sold_out", "sales": 1}, seq=10)


@pytest.mark.parametrize(
    ("receipts", "state", "payout"),
    [
        ([ACCEPTED], "accepted", None),
        ([DECLINED], "declined", None),
        ([DECLINED, ACCEPTED], "accepted", None),
        ([ACCEPTED, OTHER_PAYLOAD], "accepted", None),
        ([ACCEPTED, SOLD, OTHER_PAYLOAD], "sold", "54.00"),
        ([SOLD, ACCEPTED], "sold", "54.00"),
        ([ACCEPTED, SOLD, RETURNED, CLOSED], "closed", "0.00"),
    ],
)
def test_a_status_says(receipts: list[dict[str, Any]], state: str, payout: str | None) -> None:
    status = status_after(*receipts)
    assert (status["state"], status["payout"]) == (state, payout)


@given(st.lists(st.integers(0, 3), max_size=8))
def test_receipts_that_come_again_change_nothing(repeats: list[int]) -> None:
    """The router may repeat a stretch, in its order; so does whoever reads the topic again."""
    told = [ACCEPTED, SOLD, RETURNED, CLOSED]
    again = [each for start in repeats for each in told[start:]]
    assert status_after(*told, *again) == status_after(*told)


def test_a_declined_lead_says_why_only_while_it_is_declined() -> None:
    assert status_after(DECLINED)["reason"] == "duplicate"
    assert status_after(DECLINED, ACCEPTED)["reason"] is None


@pytest.mark.parametrize("value", [None, b"", b"[]", b"{}", b'{"lead_id": "x"}', b"\xff"])
def test_what_is_no_receipt_is_told(value: bytes | None) -> None:
    with pytest.raises(NoReceipt):
        read_receipt(value)


# Allowances.


def test_a_bucket_gives_its_quota_then_so_much_a_second() -> None:
    bucket = Bucket.full(3, now_s=100.0)
    assert [bucket.take(100.0) for _ in range(4)] == [True, True, True, False]
    assert bucket.wait_s() == 1
    assert bucket.allowance().left == 0
    assert bucket.take(100.4)
    assert not bucket.take(100.4)
    assert [bucket.take(110.0) for _ in range(4)] == [True, True, True, False]


def test_borrowing_waits_until_it_is_paid_back() -> None:
    bucket = Bucket.full(100, now_s=0.0)
    assert bucket.borrow(100, 0.0) == 0.0
    assert bucket.borrow(50, 0.0) == 0.5
    assert bucket.borrow(50, 0.0) == 1.0
    assert bucket.borrow(100, 2.0) == 0.0


def test_a_clock_that_goes_back_gives_nothing() -> None:
    bucket = Bucket.full(1, now_s=100.0)
    assert bucket.take(100.0)
    assert not bucket.take(50.0)
    assert not bucket.take(100.5)


# Keys.

TOKEN = make_token(Kind.SOURCE, prefix_bytes=b"\x01\x02\x03\x04\x05\x06", secret_text="s" * 43)
STORED = StoredKey(
    prefix=TOKEN.prefix,
    secret_sha256=hash_of(TOKEN.secret),
    kind=Kind.SOURCE,
    owner_id="sunform",
    note="",
    created_at_ms=1,
)


def test_the_right_key_names_its_owner_and_no_other_does() -> None:
    caller = caller_of(TOKEN, STORED)
    assert caller is not None
    assert (caller.kind, caller.owner_id) == (Kind.SOURCE, "sunform")
    assert caller_of(Token(TOKEN.prefix, "t" * 43), STORED) is None
    assert caller_of(TOKEN, None) is None
    revoked = StoredKey(
        prefix=STORED.prefix,
        secret_sha256=STORED.secret_sha256,
        kind=STORED.kind,
        owner_id=STORED.owner_id,
        note="",
        created_at_ms=1,
        revoked_at_ms=2,
    )
    assert caller_of(TOKEN, revoked) is None


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer x", f"Basic {TOKEN.prefix}_{TOKEN.secret}", f"Bearer {TOKEN.prefix}"],
)
def test_what_is_no_key_of_ours_is_none(header: str | None) -> None:
    assert read_bearer(header) is None


def test_a_key_is_read_as_it_is_sent() -> None:
    assert read_bearer(f"bearer  {TOKEN.prefix}_{TOKEN.secret} ") == TOKEN


# Signatures.


def test_a_signature_is_one_that_the_published_library_makes() -> None:
    secret = WebhookSecrets(b"k" * 32).secret("acme", 1)
    from datetime import UTC, datetime

    headers = signature_headers("0:1:2", at_s=NOW_MS // 1_000, body=b'{"a":1}', secrets=[secret])
    theirs = Webhook(secret).sign("0:1:2", datetime.fromtimestamp(NOW_MS / 1_000, tz=UTC), '{"a":1}')
    assert headers == {
        "webhook-id": "0:1:2",
        "webhook-timestamp": str(NOW_MS // 1_000),
        "webhook-signature": theirs,
    }


def test_secrets_differ_by_buyer_by_number_and_by_key() -> None:
    mine, others = WebhookSecrets(b"k" * 32), WebhookSecrets(b"l" * 32)
    found = [mine.secret("acme", 1), mine.secret("acme", 2), mine.secret("oak", 1), others.secret("acme", 1)]
    assert len(set(found)) == 4
    assert mine.secret("acme", 1) == found[0]


# Addresses.


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "192.168.1.1", "172.16.0.1", "169.254.169.254", "0.0.0.0", "100.64.0.1", "224.0.0.1",
     "255.255.255.255", "::1", "::", "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1",
     "2002:7f00:1::"],
)  # fmt: skip
def test_no_machine_of_the_house_may_be_called(address: str) -> None:
    with pytest.raises(Forbidden):
        require_addresses([address], ())
    with pytest.raises(Forbidden):
        require_addresses(["8.8.8.8", address], ())


def test_the_internet_may_be_called_and_what_is_allowed() -> None:
    require_addresses(["8.8.8.8", "2001:4860:4860::8888"], ())
    require_addresses(["127.0.0.1", "::1"], read_networks("127.0.0.0/8, ::1/128"))
    with pytest.raises(Forbidden):
        require_addresses(["10.0.0.1"], read_networks("127.0.0.0/8"))
    with pytest.raises(Forbidden):
        require_addresses([], ())


@pytest.mark.parametrize(
    "url", ["http://buyer.example", "ftp://x", "https://", "https://u:p@buyer.example", "/x"]
)
def test_a_url_must_be_https_and_have_no_password(url: str) -> None:
    with pytest.raises(Forbidden):
        require_url(url, ())


def test_http_is_for_networks_of_the_house() -> None:
    require_url("http://127.0.0.1:80/x", read_networks("127.0.0.0/8"))
    require_url("https://buyer.example/x", ())


# Lines.


@given(
    st.lists(st.sampled_from([b"{}", b"", b" ", b"a" * 9, b"b" * 10, b"c" * 11, b"d" * 40]), max_size=12),
    st.data(),
)
def test_lines_are_the_same_whatever_pieces_they_come_in(lines: list[bytes], data: st.DataObject) -> None:
    body = b"\n".join(lines)
    splitter = LineSplitter(longest=10)
    found: list[Line] = []
    while body:
        size = data.draw(st.integers(1, len(body)))
        found += splitter.feed(body[:size])
        body = body[size:]
    found += splitter.end()
    expected = [
        Line(number, line.strip() if len(line) <= 10 else None)
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    assert found == expected
