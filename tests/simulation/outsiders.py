"""Sources, buyers and operators: what each sends, and what it answers to what it reads in its own topics.

Every choice is drawn from the seed and what the choice is about, so that leaving one lead out changes no other's
buyers. Whatever is personal holds the word canary and the lead's number.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from services.bus.ports import Message, TopicPartition
from services.contract.codec import codec
from services.contract.events import (
    Disposition,
    ErasureReason,
    MoneyKind,
    NoBidReason,
    RejectionReason,
    ReturnReason,
    WithdrawalReason,
)
from services.contract.ids import account_id_of, lead_id_of, partition_of
from services.contract.inputs import Command, DecideReturn, EraseLead, MoveMoney, WithdrawLead
from services.contract.outside_records import read_body
from services.contract.times import MINUTE_MS, SECOND_MS, decimal_amount
from tests.simulation.fleet import Later
from tests.simulation.markets import BUYERS, SOURCES, STATES
from tests.simulation.schedule import (
    Action,
    ActionKind,
    Arrival,
    demands_consent,
    is_duplicate,
    is_invalid,
    roll,
)
from tests.simulation.trouble import Striker
from tests.simulation.world import PARTITIONS, SOURCE_PARTITIONS, TOPICS, World
from tests.support.submissions import contact, submission

_PAUSES_MS = (5, 60, 800, 20 * SECOND_MS, 4 * MINUTE_MS, 90 * MINUTE_MS)


def source_of(seed: int, number: int) -> str:
    """Say which source sends a lead."""
    return SOURCES[roll(seed, "source", number) % len(SOURCES)]


def body_of(seed: int, number: int) -> dict[str, Any]:
    """Make a lead as its source sends it; now and then one that must be declined, or that was sent before."""

    def drawn(what: str, outcomes: int = 100) -> int:
        return roll(seed, what, number) % outcomes

    person = drawn("duplicate", number + 1) if is_duplicate(seed, number) else number
    return submission(
        person,
        reference=f"ref-{number}",
        contact=contact(
            person, email="canary" if is_invalid(seed, number) else f"canary{person}@mail.example"
        ),
        details={
            "state": STATES[drawn("state", len(STATES))],
            "zip": "85001",
            "monthly_bill": 20 + drawn("bill", 400),
            "owns_home": bool(drawn("owns", 3)),
            "roof_age_years": drawn("roof", 40),
        },
        sales_max=(None, None, None, None, 1, 2)[drawn("sales_max", 6)],
        never_to=[BUYERS[drawn("never", len(BUYERS))]] if drawn("never_to") < 10 else None,
        is_test=True if drawn("test") < 8 else None,
        consent=_consent(seed, number),
    )


def consented_buyers(seed: int, number: int) -> frozenset[str] | None:
    """Name the buyers that a lead's person consented to; None: its consent, if it has one, names nobody."""

    def drawn(what: str) -> int:
        return roll(seed, "consented", what, number) % 100

    # Without the list that its type demands, a lead is declined: so some of those are that have to be.
    if not (demands_consent(seed) and not is_invalid(seed, number)) and drawn("any") >= 10:
        return None
    named = [buyer for buyer in (*BUYERS, "gone-long-ago") if drawn(buyer) < 60]
    return frozenset(named or BUYERS[:1])


def _consent(seed: int, number: int) -> dict[str, Any] | None:
    named = consented_buyers(seed, number)
    if named is None and roll(seed, "consent", number) % 100 >= 20:
        return None
    given: dict[str, Any] = {"text": f"canary consent {number}", "at": "2026-01-01T00:00:00Z"}
    return given if named is None else {**given, "buyers": sorted(named, reverse=True)}


class Outsiders:
    """Everyone who is not Gavel."""

    def __init__(self, world: World, striker: Striker, later: Later) -> None:
        """Nobody has sent anything yet."""
        self._world = world
        self._striker = striker
        self._later = later
        self._read: dict[TopicPartition, int] = {
            TopicPartition(topic(buyer), 0): 0
            for buyer in BUYERS
            for topic in (TOPICS.buyer_pings, TOPICS.buyer_leads)
        }
        self._owner = {at: at.topic.split(".")[1] for at in self._read}
        self._heard: set[tuple[str, bytes]] = set()
        self._numbers: dict[str, tuple[str, int]] = {}
        self._appended = -1
        self.submitted: dict[int, str] = {}

    # What is planned

    def arrive(self, arrival: Arrival) -> None:
        """Send a lead, and now and then send it again."""
        seed, number = self._world.seed, arrival.number
        source = source_of(seed, number)
        partition = roll(seed, "partition", number) % SOURCE_PARTITIONS
        body = body_of(seed, number)
        message = Message(
            TOPICS.source_leads(source), partition, b"any", orjson.dumps(body), (("h", b"canary"),)
        )
        self._striker.send(message)
        again = roll(seed, "again", number) % 100
        if again < 6:
            self._later(_PAUSES_MS[again], "send", message)
        elif again < 9:
            other = orjson.dumps({**body, "details": {**body["details"], "monthly_bill": 1}})
            self._later(_PAUSES_MS[again % 6], "send", message._replace(value=other))

    def act(self, action: Action) -> None:
        """Do what is planned."""
        match action.kind:
            case ActionKind.DEPOSIT:
                self._move_money(action.number)
            case ActionKind.WITHDRAW:
                reasons = (WithdrawalReason.REVOKED, WithdrawalReason.OPERATOR)
                reason = reasons[self._drawn("reason", action.number) % 2]
                self._command(WithdrawLead(lead_id=self._some_lead(action.number), reason=reason))
            case ActionKind.CHANGE_MARKET:
                self._later(0, "apply market", None)
            case ActionKind.ROGUE_ANSWER:
                self._answer_anything(action.number)
            case ActionKind.GARBAGE:
                topics = [TOPICS.source_leads(id) for id in SOURCES] + [
                    TOPICS.buyer_answers(id) for id in BUYERS
                ]
                topic = topics[self._drawn("garbage", action.number) % len(topics)]
                value = (b"canary {", b"", b'{"type": "canary"}', b"[1]")[
                    self._drawn("which", action.number) % 4
                ]
                self._striker.send(Message(topic, 0, None, value))
            case ActionKind.ARCHIVE:
                closed = sorted(self._world.router.closes)
                self._world.router.archive(closed[action.number % 2 :: 2])
            case ActionKind.ERASE | ActionKind.SUPPRESS:
                self._forget_somebody(action)

    def _drawn(self, *what: object) -> int:
        return roll(self._world.seed, *what)

    def _some_lead(self, number: int) -> str:
        """Name a lead that was sent, or will be."""
        at = self._drawn("lead of", number) % 60
        return lead_id_of(source_of(self._world.seed, at), f"ref-{at}")

    def _move_money(self, number: int) -> None:
        buyer = BUYERS[self._drawn("account", number) % len(BUYERS)]
        amounts = (9_000, 20_001, 50_000, 150_000, -7_000, -30_000)
        kind = tuple(MoneyKind)[self._drawn("kind", number) % 2]
        cents = amounts[self._drawn("amount", number) % len(amounts)]
        again = number - 1 if number and self._drawn("again", number) % 6 == 0 else number
        self._command(
            MoveMoney(
                lead_id=account_id_of(buyer),
                buyer_id=buyer,
                kind=kind,
                reference=f"wire {again}",
                amount_cents=abs(cents) if kind is MoneyKind.DEPOSIT else cents,
                currency="EUR" if self._drawn("currency", number) % 25 == 0 else "USD",
            )
        )

    def _forget_somebody(self, action: Action) -> None:
        """Do as `gavel erase` does for the person of a lead that was accepted, with `--suppress` or without."""
        intake = self._world.intake
        accepted = sorted(intake.leads)
        if not accepted:
            return
        lead_id = accepted[self._drawn("erased", action.number) % len(accepted)]
        persons = {person for person, of in intake.subjects if of == lead_id}
        if action.kind is ActionKind.SUPPRESS:
            intake.suppressed |= persons
        lead_ids = {lead_id, *(of for person, of in intake.subjects if person in persons)}
        for mark in [mark for mark, owner in intake.fingerprints.items() if owner.lead_id in lead_ids]:
            del intake.fingerprints[mark]
        reasons = (ErasureReason.ERASED, ErasureReason.ERASED, ErasureReason.REVOKED)
        reason = reasons[self._drawn("why", action.number) % len(reasons)]
        for each in sorted(lead_ids):
            self._command(EraseLead(lead_id=each, reason=reason))

    def _answer_anything(self, number: int) -> None:
        """Answer what nobody asked."""
        lead_id, buyer = self._some_lead(number), BUYERS[self._drawn("rogue", number) % len(BUYERS)]
        bodies: tuple[dict[str, Any], ...] = (
            {"type": "accept_offer", "offer_number": 1},
            {"type": "reject_offer", "offer_number": 2, "reason": RejectionReason.PRICE},
            {"type": "bid", "auction_number": 1, "exclusive": "500.00", "shared": "400.00"},
            {"type": "upgrade"},
            {"type": "return", "reason": ReturnReason.WRONG_PERSON},
            {"type": "disposition", "disposition": Disposition.DEAL},
            {"type": "erased"},
        )
        self._answer(buyer, {**bodies[self._drawn("which", number) % len(bodies)], "lead_id": lead_id})

    def _command(self, command: Command) -> None:
        partition = partition_of(command.lead_id, PARTITIONS)
        key = command.lead_id.encode()
        self._striker.send(Message(TOPICS.commands, partition, key, codec().encode(command)))

    def _answer(self, buyer: str, body: Mapping[str, Any]) -> None:
        self._striker.send(self._answering(buyer, body))

    def _answering(self, buyer: str, body: Mapping[str, Any]) -> Message:
        return Message(TOPICS.buyer_answers(buyer), 0, None, orjson.dumps(body), (("h", b"canary"),))

    # What buyers make of what they read

    def read(self) -> None:
        """Let all buyers read what is new, and think about it."""
        if self._appended == self._world.kafka.appended:
            return
        self._appended = self._world.kafka.appended
        for where, offset in self._read.items():
            records = self._world.kafka.records[where]
            if offset < len(records):
                self._read[where] = len(records)
                for record in records[offset:]:
                    self._hear(self._owner[where], dict(record.headers)["ce_id"], record.value or b"")

    def _hear(self, buyer: str, ce_id: bytes, value: bytes) -> None:
        """Think about a record once, however often it comes."""
        if (buyer, ce_id) in self._heard:
            return
        self._heard.add((buyer, ce_id))
        body = read_body(value)
        for each in (body, *body.get("also", ())):
            match each["type"]:
                case "ping":
                    self._bid(buyer, body)
                case "offer":
                    self._answer_offer(buyer, body)
                case "lead":
                    self._use(buyer, body)
                case "return_pending":
                    self._decide_return(each["sale_id"])
                case "notice":
                    self._erase(buyer, body)
                case _:
                    pass

    def _after(self, after_ms: int, buyer: str, body: Mapping[str, Any]) -> None:
        self._later(max(0, after_ms), "send", self._answering(buyer, body))

    def _thinks_ms(self, answer_by: str, *about: object) -> int | None:
        """Say how long a buyer thinks: at once, up to the very deadline, beyond it, or for good."""
        left_ms = _ms_of(answer_by) - self._world.clock.now_ms
        drawn = self._drawn("thinks", *about) % 100
        if drawn < 15:
            return None
        edge_ms = (left_ms - 1, left_ms, left_ms + 1, left_ms + 49, left_ms + 51, left_ms + 1_000)
        return edge_ms[drawn % 6] if drawn < 45 else drawn * max(1, left_ms) // 150

    def _bid(self, buyer: str, ping: Mapping[str, Any]) -> None:
        about = (buyer, ping["lead_id"], ping["auction_number"])
        thinks_ms = self._thinks_ms(ping["answer_by"], "bid", *about)
        if thinks_ms is None:
            return
        body: dict[str, Any] = {"lead_id": ping["lead_id"], "auction_number": ping["auction_number"]}
        prices = {}
        for mode in ping["modes"]:
            choices = (
                (500, 1_000, 1_800, 2_600, 3_333) if mode == "shared" else (3_000, 5_000, 5_001, 8_000, 9_999)
            )
            if self._drawn(mode, *about) % 8:
                prices[mode] = decimal_amount(choices[self._drawn("price", mode, *about) % len(choices)])
        body |= {"type": "bid", **prices} if prices else {"type": "no_bid", "reason": NoBidReason.CAPACITY}
        self._after(thinks_ms, buyer, body)
        if self._drawn("twice", *about) % 12 == 0:
            self._after(thinks_ms + 30, buyer, {**body, **dict.fromkeys(prices, "77.77")})

    def _answer_offer(self, buyer: str, offer: Mapping[str, Any]) -> None:
        about = (buyer, offer["lead_id"], offer["offer_number"])
        thinks_ms = self._thinks_ms(offer["answer_by"], "offer", *about)
        if thinks_ms is None:
            return
        drawn = self._drawn("offer", *about) % 100
        number = offer["offer_number"] + (1 if drawn % 20 == 0 else 0)
        body = {"lead_id": offer["lead_id"], "offer_number": number}
        if drawn < 75:
            body |= {"type": "accept_offer"}
        else:
            body |= {"type": "reject_offer", "reason": RejectionReason.CRITERIA}
        self._after(thinks_ms, buyer, body)

    def _use(self, buyer: str, lead: Mapping[str, Any]) -> None:
        """Upgrade, report or return a lead that was delivered."""
        lead_id, terms = lead["lead_id"], lead["terms"]
        self._numbers[lead["sale_id"]] = (lead_id, terms["sale_number"])
        about = (buyer, lead_id)
        pause_ms = _PAUSES_MS[self._drawn("pause", *about) % len(_PAUSES_MS)]
        if terms["upgrade"] is not None and self._drawn("upgrade", *about) % 100 < 45:
            self._after(pause_ms % MINUTE_MS, buyer, {"type": "upgrade", "lead_id": lead_id})
        if self._drawn("report", *about) % 100 < 25:
            report = tuple(Disposition)[self._drawn("disposition", *about) % len(Disposition)]
            body = {"type": "disposition", "lead_id": lead_id, "disposition": report}
            self._after(pause_ms, buyer, body)
        if self._drawn("return", *about) % 100 < 25:
            reasons = (ReturnReason.WRONG_PERSON, ReturnReason.INVALID_CONTACT, ReturnReason.OTHER)
            reason = reasons[self._drawn("reason", *about) % 3]
            for again in range(1 + (self._drawn("again", *about) % 5 == 0)):
                body = {"type": "return", "lead_id": lead_id, "reason": reason}
                self._after(pause_ms + 500 * again, buyer, body)

    def _erase(self, buyer: str, notice: Mapping[str, Any]) -> None:
        """Say that a lead is erased, where that was asked for; some say it twice, and some never."""
        if all(happened["type"] != "erasure" for happened in notice["happened"]):
            return
        drawn = self._drawn("erases", buyer, notice["lead_id"], notice["log"]["seq"]) % 100
        for again in range(0 if drawn < 20 else 1 + (drawn >= 90)):
            body = {"type": "erased", "lead_id": notice["lead_id"]}
            self._after(_PAUSES_MS[drawn % len(_PAUSES_MS)] + 500 * again, buyer, body)

    def _decide_return(self, sale_id: str) -> None:
        """Let an operator decide on what is pending, as most often one does."""
        known = self._numbers.get(sale_id)
        drawn = self._drawn("decision", sale_id) % 100
        if known is None or drawn < 10:
            return
        lead_id, number = known
        command = DecideReturn(lead_id=lead_id, sale_number=number, approve=drawn < 70)
        partition = partition_of(lead_id, PARTITIONS)
        message = Message(TOPICS.commands, partition, lead_id.encode(), codec().encode(command))
        self._later(_PAUSES_MS[drawn % len(_PAUSES_MS)], "send", message)


def _ms_of(text: str) -> int:
    from datetime import datetime

    return round(datetime.fromisoformat(text).timestamp() * 1_000)
