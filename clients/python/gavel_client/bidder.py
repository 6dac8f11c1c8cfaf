"""A bidder's side: pings in, and a function's answers out, in time."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from kafka import KafkaProducer

from gavel_client.consuming import consumer_of

_POLL_MS = 100
_FETCH_WAIT_MS = 10
_AROUND = ("lead_id", "account_id", "at", "log")
"""What a record says once of all that it tells."""
_log = logging.getLogger("gavel_client")


@dataclass(frozen=True)
class Ping:
    """What a bidder sees of a lead before it has won. `body` is the whole record."""

    lead_id: str
    auction_number: int
    answer_by: datetime
    lead_type: str
    order: str
    modes: tuple[str, ...]
    floor: Mapping[str, str | None]
    sales_max: int
    quality: int
    fields: Mapping[str, str]
    is_test: bool
    body: Mapping[str, Any]


@dataclass(frozen=True)
class Bid:
    """A price per mode, as text or `Decimal` with at most two decimals; None: not in that mode.

    Raise ValueError where it names none at all: that would be no answer.
    """

    exclusive: str | Decimal | None = None
    shared: str | Decimal | None = None

    def __post_init__(self) -> None:
        """See that it names a price."""
        if self.exclusive is None and self.shared is None:
            raise ValueError("a bid names a price: exclusive, shared or both")


@dataclass(frozen=True)
class NoBid:
    """No bid, and why: price, criteria, capacity, duplicate, technical or other."""

    reason: str = "other"


class Bidder:
    """Answers `buyers.<id>.pings` on `buyers.<id>.answers` with what a function says."""

    def __init__(
        self,
        buyer_id: str,
        *,
        servers: str,
        namespace: str = "",
        group: str | None = None,
        margin_ms: int = 20,
        **kafka: Any,
    ) -> None:
        """Connect. A ping that has less than `margin_ms` left is not decided: its answer would be void."""
        topics = f"{namespace}buyers.{buyer_id}"
        self._answers = f"{topics}.answers"
        self._margin = timedelta(milliseconds=margin_ms)
        self._leaving = threading.Event()
        self._joined = threading.Event()
        self.answered = 0
        self.too_late = 0
        self._producer = KafkaProducer(bootstrap_servers=servers, acks="all", linger_ms=0, **kafka)
        self._consumer = consumer_of(
            f"{topics}.pings",
            bootstrap_servers=servers,
            group_id=group or f"{topics}.pings.bidder",
            auto_offset_reset="earliest",
            fetch_max_wait_ms=_FETCH_WAIT_MS,
            **kafka,
        )

    def run(
        self,
        decide: Callable[[Ping], Bid | NoBid | None],
        on_other: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> None:
        """Answer until `stop`: None of `decide` is silence, and its exception a no-bid for technical reasons.

        `on_other` is given what is no ping: offers, results of auctions, refusals; one at a time, also where a record
        tells several. Its exception ends the bidding.
        """
        try:
            while not self._leaving.is_set():
                for records in self._polled():
                    for record in records:
                        self._take(json.loads(record.value), decide, on_other)
        finally:
            self._consumer.close()
            self._producer.close()

    def wait_joined(self, timeout_s: float | None = None) -> bool:
        """Wait, in another thread, until `run` gets pings; tell whether it does."""
        return self._joined.wait(timeout_s)

    def stop(self) -> None:
        """Have `run` return soon; from any thread."""
        self._leaving.set()

    def _polled(self) -> Iterable[Any]:
        found: Mapping[Any, Any] = self._consumer.poll(timeout_ms=_POLL_MS)
        if self._consumer.assignment():
            self._joined.set()
        return found.values()

    def _take(
        self,
        body: Mapping[str, Any],
        decide: Callable[[Ping], Bid | NoBid | None],
        on_other: Callable[[Mapping[str, Any]], None] | None,
    ) -> None:
        first, *others = _told(body)
        if first["type"] == "ping":
            self._answer(_ping(body), decide)
        else:
            others = [first, *others]
        if on_other is not None:
            for other in others:
                on_other(other)

    def _answer(self, ping: Ping, decide: Callable[[Ping], Bid | NoBid | None]) -> None:
        if datetime.now(UTC) > ping.answer_by - self._margin:
            self.too_late += 1
            return
        answer = _answer(ping, _decided(ping, decide))
        if answer is not None:
            future = self._producer.send(self._answers, value=json.dumps(answer).encode())
            future.add_errback(self._not_sent, ping.lead_id)
            self.answered += 1

    def _not_sent(self, lead_id: str, error: Exception) -> None:
        """By the time that it could be sent again it would be late: silence is what the auction makes of it."""
        _log.error("the answer for lead %s did not reach Kafka: %r", lead_id, error)


def _told(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Take what a record tells apart, as if each stood in one of its own; what is to be answered stands first."""
    around = {name: body[name] for name in _AROUND if name in body}
    first = {name: value for name, value in body.items() if name != "also"}
    return [first, *({**around, **also} for also in body.get("also", ()))]


def _decided(ping: Ping, decide: Callable[[Ping], Bid | NoBid | None]) -> Bid | NoBid | None:
    try:
        return decide(ping)
    except Exception:  # noqa: BLE001  # the caller's function: one lead that it can't judge must not end the bidding
        _log.exception("no bid for lead %s: the function that decides failed", ping.lead_id)
        return NoBid("technical")


def _answer(ping: Ping, decided: Bid | NoBid | None) -> dict[str, Any] | None:
    if decided is None:
        return None
    about = {"lead_id": ping.lead_id, "auction_number": ping.auction_number}
    if isinstance(decided, NoBid):
        return {"type": "no_bid", **about, "reason": decided.reason}
    prices = {"exclusive": decided.exclusive, "shared": decided.shared}
    return {
        "type": "bid",
        **about,
        **{mode: _amount(price) for mode, price in prices.items() if price is not None},
    }


def _amount(price: str | Decimal) -> str:
    """Write a price without an exponent, which `str` gives a normalized `Decimal`."""
    return f"{price:f}" if isinstance(price, Decimal) else str(price)


def _ping(body: Mapping[str, Any]) -> Ping:
    return Ping(
        lead_id=body["lead_id"],
        auction_number=body["auction_number"],
        answer_by=datetime.fromisoformat(body["answer_by"]),
        lead_type=body["lead_type"],
        order=body["order"],
        modes=tuple(body["modes"]),
        floor=body["floor"],
        sales_max=body["sales_max"],
        quality=body["quality"],
        fields=body["fields"],
        is_test=body["is_test"],
        body=body,
    )
