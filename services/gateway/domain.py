"""The rules of webhooks: which records are posted, until when, how often, and what a buyer's reply means.

Pure: the time comes in, and jitter is drawn from where the record stands, so that it can be told again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, TypeAlias

from services.contract.ids import draw
from services.contract.times import HOUR_MS, MINUTE_MS, SECOND_MS

RETRY_AFTER_MS = (
    5 * SECOND_MS,
    5 * MINUTE_MS,
    30 * MINUTE_MS,
    2 * HOUR_MS,
    5 * HOUR_MS,
    10 * HOUR_MS,
)
"""So long after each failed attempt comes the next; after the last, a record is given up."""

JITTER = 0.1
"""A delay is longer by up to this share, so that not all come back at once."""

GONE = 410
NO_CONTENT = 204
REPLY_BYTES_MAX = 4 * 1024

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


class Pointer(NamedTuple):
    """Where a record stands in Kafka."""

    topic: str
    partition: int
    position: int

    def __str__(self) -> str:
        """Name it, for people."""
        return f"{self.topic}[{self.partition}] at {self.position}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A record to be posted; after `answer_by_ms` an answer would count for nothing (None: it always does)."""

    pointer: Pointer
    buyer_id: str
    attempts: int
    next_try_at_ms: int
    answer_by_ms: int | None

    def expired(self, now_ms: int) -> bool:
        """Tell whether nobody needs it any more."""
        return self.answer_by_ms is not None and now_ms >= self.answer_by_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Posted:
    """The buyer has it."""

    waiting: Waiting


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """It did not work this time; `error` is in our words."""

    waiting: Waiting
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Expired:
    """Its time was over before the buyer had it."""

    waiting: Waiting


@dataclass(frozen=True, slots=True, kw_only=True)
class Disabled:
    """The buyer answered that this URL is gone for good."""

    waiting: Waiting
    url: str


Outcome: TypeAlias = Posted | Failed | Expired | Disabled


def judge(waiting: Waiting, *, status: int, url: str) -> Outcome:
    """Say what a reply's status means. A redirect is a failure: where it leads was never checked."""
    if 200 <= status < 300:
        return Posted(waiting=waiting)
    if status == GONE:
        return Disabled(waiting=waiting, url=url)
    return Failed(waiting=waiting, error=f"answered {status}")


def next_try_ms(waiting: Waiting, now_ms: int) -> int | None:
    """When an attempt that failed just now is repeated; None: never."""
    if waiting.attempts >= len(RETRY_AFTER_MS):
        return None
    delay_ms = RETRY_AFTER_MS[waiting.attempts]
    chance = draw(*map(str, waiting.pointer), str(waiting.attempts)) / 2**64
    return now_ms + delay_ms + int(delay_ms * JITTER * chance)


def answer_by_ms(record: Mapping[str, Any]) -> int | None:
    """Read until when a ping or an offer wants its answer; None for anything else."""
    text = record.get("answer_by")
    if not isinstance(text, str) or not _TIME.fullmatch(text):
        return None
    return int(datetime.fromisoformat(text).timestamp() * 1_000)


def reply_as_answer(record: Mapping[str, Any], *, status: int, reply: Any) -> dict[str, Any] | None:
    """Put a reply to a ping or an offer into the words of `buyers.<id>.answers`; None: it was no answer.

    To a ping: prices by mode, or a reason, or 204, are a bid or no bid. To an offer: `accept`, true or false. Whoever
    replies otherwise may still answer by itself. What comes out is to be checked against the published schema.
    """
    said = reply if isinstance(reply, dict) else {}
    match record.get("type"):
        case "ping":
            return _bid(record, status, said)
        case "offer":
            return _offer_answer(record, said)
        case _:
            return None


def _bid(ping: Mapping[str, Any], status: int, said: Mapping[str, Any]) -> dict[str, Any] | None:
    about = {"lead_id": ping.get("lead_id"), "auction_number": ping.get("auction_number")}
    prices = {mode: said[mode] for mode in ("exclusive", "shared") if said.get(mode) is not None}
    if prices:
        return {"type": "bid", **about, **prices}
    if status == NO_CONTENT or "reason" in said:
        return {"type": "no_bid", **about, "reason": said.get("reason", "other")}
    return None


def _offer_answer(offer: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any] | None:
    about = {"lead_id": offer.get("lead_id"), "offer_number": offer.get("offer_number")}
    if said.get("accept") is True:
        return {"type": "accept_offer", **about}
    if said.get("accept") is False:
        return {"type": "reject_offer", **about, "reason": said.get("reason", "other")}
    return None
