"""The whole door on the in-memory bus: crashes on every line, rubbish, deaf outsiders, changing markets."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest

from services.bus.memory import Crash, Faults
from services.bus.ports import Message, PassingFault, Stopped, TopicPartition, Unacknowledged
from services.contract.events import (
    Disposition,
    FailureReason,
    NoBidReason,
    RejectionReason,
    ReturnReason,
)
from services.contract.ids import lead_id_of
from services.contract.inputs import (
    AcceptOffer,
    DeclineToBid,
    PlaceBid,
    RejectOffer,
    ReportDisposition,
    ReturnLead,
    UpgradeSale,
)
from services.contract.times import DAY_MS
from services.intake.memory_store import MemoryIntakeStore
from services.intake.ports import Kept
from services.intake.qualification import subject_of
from services.intake.reading import DEAD_LETTERS_IN_A_ROW_MAX
from services.intake.step import FORGETS_EACH_S, RESTS_FOR_S, UNHEARD_IN_A_ROW_MAX
from tests.support.intake_world import INSIDE_PARTITIONS, TOPICS, World
from tests.support.submissions import CONTACT_KEPT_MS, DUPLICATE_WITHIN_MS, KEYS, contact, submission

LEAD = "7e57ab1e-0000-5000-8000-000000000001"
CONSENT = {"text": "I agree, says Canary", "at": "2026-01-01T00:00:00Z", "url": "https://canary.example"}
SUNFORM_LEADS = TOPICS.source_leads("sunform")


def busy_world() -> World:
    """Send everything that may come: valid, repeated, duplicate, other, invalid, rubbish, answers."""
    world = World()
    world.send(submission(1, consent=CONSENT))
    world.send(submission(2), partition=1)
    world.send(b"rubbish canary")
    world.send(submission(1, consent=CONSENT))
    world.send(submission(1, details={"state": "NV", "monthly_bill": 1, "owns_home": True}))
    world.send(submission(3, reference="canary@mail.example"), partition=1)
    world.send(submission(4, contact=contact(4, phone="canary")))
    world.send(submission(5, reference="other-ref", contact=contact(2)), source="partnerweb")
    world.send(submission(6, is_test=True, contact=contact(1)))
    world.send(submission(7, reference=None), partition=1)
    world.send(submission(8), source="asleep")
    world.answer({"type": "accept_offer", "lead_id": LEAD, "offer_number": 1})
    world.answer(b"rubbish canary")
    world.answer({"type": "reject_offer", "lead_id": LEAD, "offer_number": 2, "reason": "price"})
    world.answer({"type": "disposition", "lead_id": LEAD, "disposition": "deal"})
    world.answer({"type": "bid", "lead_id": LEAD, "auction_number": 1, "exclusive": "85.00"})
    world.answer({"type": "no_bid", "lead_id": LEAD, "auction_number": 2, "reason": "price"})
    world.answer({"type": "upgrade", "lead_id": LEAD})
    world.answer({"type": "return", "lead_id": LEAD, "reason": "duplicate"})
    return world


VERDICTS = {
    "sunform": {
        (0, 0): "accepted",
        (0, 2): "accepted",
        (0, 3): "other_payload",
        (0, 4): "invalid_phone",
        (0, 5): "accepted",
        (1, 0): "accepted",
        (1, 1): "accepted",
        (1, 2): "accepted",
    },
    "partnerweb": {(0, 0): "duplicate"},
    "asleep": {(0, 0): "source_paused"},
}


def check(world: World) -> None:
    """See from outside that everything came out once in effect, and nothing personal anywhere."""
    leads = world.qualified_leads()
    assert len(leads) == 5
    assert leads.keys() == world.tables.leads.keys()
    assert lead_id_of("sunform", "ref-1") in leads
    for source, verdicts in VERDICTS.items():
        assert world.verdicts(source) == verdicts
    assert world.dead(SUNFORM_LEADS) == {b"rubbish canary"}
    assert world.dead(TOPICS.buyer_answers("acme")) == {b"rubbish canary"}
    at_ms = world.kafka.topic(TOPICS.buyer_answers("acme"))[0].timestamp_ms
    assert set(world.commands()) == {
        AcceptOffer(lead_id=LEAD, buyer_id="acme", offer_number=1, answered_at_ms=at_ms),
        RejectOffer(lead_id=LEAD, buyer_id="acme", offer_number=2, reason=RejectionReason.PRICE),
        ReportDisposition(lead_id=LEAD, buyer_id="acme", disposition=Disposition.DEAL),
        PlaceBid(
            lead_id=LEAD,
            buyer_id="acme",
            auction_number=1,
            exclusive_cents=8500,
            shared_cents=None,
            answered_at_ms=at_ms,
        ),
        DeclineToBid(
            lead_id=LEAD, buyer_id="acme", auction_number=2, reason=NoBidReason.PRICE, answered_at_ms=at_ms
        ),
        UpgradeSale(lead_id=LEAD, buyer_id="acme", answered_at_ms=at_ms),
        ReturnLead(lead_id=LEAD, buyer_id="acme", reason=ReturnReason.DUPLICATE, answered_at_ms=at_ms),
    }
    assert world.vault().read(leads).keys() == leads.keys()
    assert world.tables.consents.keys() == {lead_id_of("sunform", "ref-1")}
    check_canaries(world)
    for where in world.read_partitions():
        if world.kafka.records[where]:
            assert world.kafka.committed["intake", where] == len(world.kafka.records[where])


def check_canaries(world: World) -> None:
    """Contact details are in what their source sent, in its dead letters, sealed in the vault, and nowhere else."""
    theirs = {SUNFORM_LEADS, TOPICS.source_leads("partnerweb"), TOPICS.source_leads("asleep")}
    theirs |= {TOPICS.buyer_answers("acme")}
    theirs |= {TOPICS.dead_letters(topic) for topic in theirs}
    for where, records in world.kafka.records.items():
        if where.topic not in theirs:
            told = repr(records).lower().replace("'canary@mail.example'", "")
            # A source's own reference comes back to it, whatever it is.
            told = told.replace('"reference":"canary@mail.example"', "")
            assert "canary" not in told, where
            assert "602200" not in told, where
            assert "85001" not in told, "a detail that no ping shows"
    assert "canary" not in repr(world.tables).lower()


def test_a_bid_with_a_number_for_a_price_is_put_aside_with_the_reason() -> None:
    world = busy_world()
    world.start().host.drain()
    world.answer({"type": "bid", "lead_id": LEAD, "auction_number": 1, "exclusive": 85.0})
    world.start().host.drain()
    *_, letter = world.kafka.topic(TOPICS.dead_letters(TOPICS.buyer_answers("acme")))
    headers = dict(letter.headers)
    assert (
        headers["dlq.errors.exception.message"] == b'a price is to be a string such as "85.00", not a number'
    )


def test_each_submission_has_its_one_effect() -> None:
    world = busy_world()
    world.start().host.drain()
    check(world)


@pytest.mark.parametrize("batch_max", [500, 3])
def test_crash_on_any_line_loses_nothing_and_doubles_nothing(batch_max: int) -> None:
    rehearsal = Faults()
    busy_world().start(rehearsal, batch_max).host.drain()
    for crash_at in range(1, rehearsal.edges + 1):
        world = busy_world()
        with pytest.raises(Crash):
            world.start(Faults(crash_at=crash_at), batch_max).host.drain()
        world.start(batch_max=batch_max).host.drain()
        check(world)


def test_two_crashes_in_a_row_are_no_worse_than_one() -> None:
    rehearsal = Faults()
    busy_world().start(rehearsal).host.drain()
    for crash_at in range(1, rehearsal.edges + 1, 3):
        world = busy_world()
        for again in (crash_at, max(1, crash_at // 2)):
            try:
                world.start(Faults(crash_at=again)).host.drain()
            except Crash:
                continue
        world.start().host.drain()
        check(world)


def test_a_zombie_that_works_on_the_same_partitions_changes_nothing() -> None:
    world = busy_world()
    zombie, owner = world.start(batch_max=2), world.start(batch_max=3)
    for _ in range(20):
        zombie.host.turn()
        owner.host.turn()
    owner.host.drain()
    zombie.host.drain()
    check(world)


def test_lead_accepted_before_a_crash_is_emitted_though_its_source_was_paused_since() -> None:
    world = World()
    world.send(submission(1))
    with pytest.raises(Crash):
        world.start(_crash_at("committed", world)).host.drain()
    assert not world.qualified()
    sources = {**world.market.sources, "sunform": replace(world.market.sources["sunform"], paused=True)}
    world.market = replace(world.market, version=8, sources=sources)
    world.send(submission(2))
    world.start().host.drain()
    assert [lead.market_version for lead in world.qualified_leads().values()] == [7]
    assert world.verdicts() == {(0, 0): "accepted", (0, 1): "source_paused"}


def _crash_at(name: str, world: World) -> Faults:
    """Crash at the first edge of this name."""

    class Named(Faults):
        def edge(self, edge_name: str) -> None:
            if edge_name == name:
                raise Crash(name)

    assert world.kafka.records
    return Named()


def test_pause_works_from_the_next_batch_on() -> None:
    world = World()
    worker = world.start()
    world.send(submission(1))
    worker.host.drain()
    sources = {**world.market.sources, "sunform": replace(world.market.sources["sunform"], paused=True)}
    world.market = replace(world.market, version=8, sources=sources)
    world.send(submission(2))
    worker.host.drain()
    assert world.verdicts() == {(0, 0): "accepted", (0, 1): "source_paused"}


def test_pause_between_judgement_and_transaction_holds() -> None:
    world = World()
    sources = {**world.market.sources, "sunform": replace(world.market.sources["sunform"], paused=True)}
    paused = replace(world.market, version=8, sources=sources)
    in_force = iter([world.market])
    worker = world.start()
    worker.store.market_in_force = lambda: next(in_force, paused)
    world.send(submission(1))
    worker.host.drain()
    assert world.verdicts() == {(0, 0): "source_paused"}
    assert not world.qualified()


def test_same_person_is_declined_from_any_source_until_the_window_ends() -> None:
    world = World()
    worker = world.start()
    world.send(submission(1))
    worker.host.drain()
    world.clock.advance(DUPLICATE_WITHIN_MS - 1)
    world.send(submission(2, contact={"phone": contact(1)["phone"]}), source="partnerweb")
    worker.host.drain()
    world.clock.advance(1)
    world.send(submission(3, contact={"email": contact(1)["email"]}), source="partnerweb")
    worker.host.drain()
    assert world.verdicts("partnerweb") == {(0, 0): "duplicate", (0, 1): "accepted"}
    world.send(submission(4, contact=contact(1)))
    worker.host.drain()
    assert world.verdicts()[0, 1] == "duplicate", "the later lead owns the address now"


def declined_for_the_address_then_sent_with_the_phone() -> list[str]:
    """Send person 1, then 1's address with a new phone, then the new phone alone."""
    world = World()
    worker = world.start(batch_max=1)
    new_phone = contact(2)["phone"]
    for number, sent in enumerate([contact(1), contact(1, phone=new_phone), {"phone": new_phone}]):
        world.send(submission(number, contact=sent))
    worker.host.drain()
    return [told for _, told in sorted(world.verdicts().items())]


def test_declined_lead_keeps_no_fingerprint() -> None:
    assert declined_for_the_address_then_sent_with_the_phone() == ["accepted", "duplicate", "accepted"]


def test_rubbish_in_a_row_rests_its_topic_and_nobody_elses() -> None:
    world = World()
    worker = world.start()
    for _ in range(DEAD_LETTERS_IN_A_ROW_MAX + 20):
        world.send(b"rubbish")
    world.send(submission(1))
    world.send(submission(2), source="partnerweb")
    worker.host.drain()
    letters = world.kafka.topic(TOPICS.dead_letters(SUNFORM_LEADS))
    assert len(letters) == DEAD_LETTERS_IN_A_ROW_MAX
    assert world.kafka.committed["intake", TopicPartition(SUNFORM_LEADS, 0)] == DEAD_LETTERS_IN_A_ROW_MAX
    assert world.verdicts("partnerweb") == {(0, 0): "accepted"}
    assert not world.verdicts()

    world.clock.advance(int(RESTS_FOR_S * 1_000) - 1)
    worker.host.drain()
    assert not world.verdicts(), "it rests for the whole time"
    world.clock.advance(1)
    worker.host.drain()
    worker.host.drain()
    assert list(world.verdicts().values()) == ["accepted"]
    letters = world.kafka.topic(TOPICS.dead_letters(SUNFORM_LEADS))
    assert len(letters) == DEAD_LETTERS_IN_A_ROW_MAX + 20, "nothing was skipped, and nothing put aside twice"


def test_dead_letter_has_the_records_bytes_key_and_headers() -> None:
    world = World()
    world.send(b"rubbish canary", partition=1)
    world.start().host.drain()
    (letter,) = world.kafka.topic(TOPICS.dead_letters(SUNFORM_LEADS))
    headers = dict(letter.headers)
    assert (letter.partition, letter.key, letter.value) == (1, b"key", b"rubbish canary")
    assert headers.pop("h") == b"canary"
    assert headers["dlq.errors.stage"] == b"intake"
    assert headers["dlq.errors.attempts"] == b"1"
    assert b"canary" not in b"".join(headers.values())


def test_source_that_cannot_be_told_delays_nobody_else_and_loses_nothing() -> None:
    world = World()
    deaf = TOPICS.source_receipts("sunform")
    world.send(submission(1))
    world.send(submission(2), source="partnerweb")
    worker = world.start()

    def refuses(message: Message) -> Unacknowledged | None:
        return Unacknowledged(0, None, "timed out") if message.topic == deaf else None

    worker.outside.refuses = refuses
    for _ in range(UNHEARD_IN_A_ROW_MAX + 5):
        worker.host.turn()
    assert world.verdicts("partnerweb") == {(0, 0): "accepted"}
    assert ("intake", TopicPartition(SUNFORM_LEADS, 0)) not in world.kafka.committed
    (values,) = [values for key, values in world.qualified().items() if key == lead_id_of("sunform", "ref-1")]
    assert len(values) == UNHEARD_IN_A_ROW_MAX, "then its topic rests"

    worker.outside.refuses = lambda _: None
    world.clock.advance(int(RESTS_FOR_S * 1_000))
    worker.host.drain()
    worker.host.drain()
    assert world.verdicts() == {(0, 0): "accepted"}


def test_broker_that_is_gone_for_a_minute_is_held_against_no_topic_and_loses_nothing() -> None:
    world = World()
    world.send(b"rubbish canary")
    world.send(submission(1), source="partnerweb")
    worker = world.start()
    world.alive = False
    worker.outside.refuses = lambda _: Unacknowledged(0, None, "timed out")
    began_s = world.clock.monotonic_s()
    while world.clock.monotonic_s() < began_s + 60:
        worker.host.turn()
    assert worker.host.patient.waits_for == "Kafka acknowledges neither receipts nor positions"
    assert not world.kafka.committed
    world.alive = True
    worker.outside.refuses = lambda _: None
    worker.host.drain()
    assert world.verdicts("partnerweb") == {(0, 0): "accepted"}
    assert world.dead(SUNFORM_LEADS) == {b"rubbish canary"}
    assert world.clock.monotonic_s() < began_s + RESTS_FOR_S, "no topic had to rest"


def test_receipt_that_can_never_be_written_is_given_up_with_an_alarm() -> None:
    world = World()
    world.send(submission(1))
    worker = world.start()
    too_large = Unacknowledged(0, FailureReason.RECORD_TOO_LARGE, "too large")
    worker.outside.refuses = lambda _: too_large
    worker.host.drain()
    assert world.kafka.committed["intake", TopicPartition(SUNFORM_LEADS, 0)] == 1


class FailingDoor:
    """Lets `keep` fail for a while, as a deadlock or a lost connection would."""

    def __init__(self, world: World, times: int) -> None:
        self.times = times
        self._world = world

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from services.intake import memory_store

        keep = memory_store._MemoryDoor.keep

        def failing(door: Any, kept: Kept) -> None:
            if self.times:
                self.times -= 1
                raise PassingFault("deadlock detected")
            keep(door, kept)

        monkeypatch.setattr(memory_store._MemoryDoor, "keep", failing)


def test_passing_fault_begins_the_batch_again(monkeypatch: pytest.MonkeyPatch) -> None:
    world = busy_world()
    began_s = world.clock.monotonic_s()
    FailingDoor(world, times=60).install(monkeypatch)
    world.start().host.drain()
    check(world)
    assert world.clock.monotonic_s() - began_s > 50, "the database was away for about a minute"


def test_fault_that_does_not_pass_stops_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    world = busy_world()
    FailingDoor(world, times=1_000).install(monkeypatch)
    with pytest.raises(Stopped, match=r"tries in 7\d s have failed: deadlock detected"):
        world.start().host.drain()
    assert not world.qualified()
    assert not world.kafka.committed


def test_vault_forgets_when_the_declared_days_are_over_and_consent_outlives_it() -> None:
    world = World()
    world.send(submission(1, consent=CONSENT))
    worker = world.start()
    worker.host.drain()
    world.clock.advance(CONTACT_KEPT_MS)
    worker.host.turn()
    assert world.tables.details, "kept for all its days"
    world.clock.advance(int(FORGETS_EACH_S * 1_000))
    worker.host.turn()
    assert not world.tables.details
    assert not world.tables.fingerprints
    assert world.tables.consents
    assert world.tables.leads, "the lead stays known for good"
    world.clock.advance(1_827 * DAY_MS)
    worker.host.turn()
    assert not world.tables.consents


def test_forgetting_that_fails_keeps_no_lead_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is tried again when it is due again, and not before the leads."""
    world = World()
    worker = world.start()
    worker.host.drain()
    tried: list[int] = []

    def failing(_store: MemoryIntakeStore, limit: int) -> int:
        tried.append(limit)
        raise PassingFault("the transaction took too long")

    monkeypatch.setattr(MemoryIntakeStore, "forget", failing)
    world.clock.advance(int(FORGETS_EACH_S * 1_000))
    world.send(submission(1))
    worker.host.drain()
    assert len(world.qualified_leads()) == 1
    assert len(tried) == 1


def test_nothing_personal_is_logged(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    world = busy_world()
    for _ in range(DEAD_LETTERS_IN_A_ROW_MAX):
        world.send(b"rubbish canary")
    world.start().host.drain()
    told = caplog.text + "".join(capsys.readouterr())
    assert "topic rests" in told
    assert "canary" not in told.lower()


def test_every_partition_of_a_lead_is_the_same_for_router_and_intake() -> None:
    world = busy_world()
    world.start().host.drain()
    for record in world.kafka.topic(TOPICS.qualified):
        assert record.key is not None
        assert record.partition < INSIDE_PARTITIONS
        assert record.headers == ()


def test_revoked_partition_is_begun_again_where_the_group_committed() -> None:
    world = World()
    worker = world.start(batch_max=1)
    for number in range(4):
        world.send(submission(number))
    worker.host.turn()
    where = TopicPartition(SUNFORM_LEADS, 0)
    worker.host.revoke([where])
    world.kafka.committed["intake", where] = 3
    worker.host.assign([where])
    worker.host.drain()
    assert sorted(world.verdicts()) == [(0, 0), (0, 3)]


def test_suppressed_person_is_declined_however_it_is_written_and_the_receipt_says_so() -> None:
    world = World()
    world.tables.suppressed.add(subject_of(" Canary1@MAIL.example", KEYS))
    world.tables.suppressed.add(subject_of("602-200-0002", KEYS))
    for number in range(1, 4):
        world.send(submission(number))
    world.start().host.drain()
    assert world.verdicts() == {(0, 0): "suppressed", (0, 1): "suppressed", (0, 2): "accepted"}
    assert len(world.tables.details) == 1
    assert {lead_id for _, lead_id in world.tables.subjects} == set(world.tables.details)


def test_every_way_to_reach_an_accepted_person_is_kept_as_a_hash_for_five_years() -> None:
    world = World()
    world.send(submission(1))
    worker = world.start()
    worker.host.drain()
    (lead_id,) = world.tables.leads
    kept = {subject for subject, lead in world.tables.subjects if lead == lead_id}
    assert kept == {subject_of("canary1@mail.example", KEYS), subject_of("+16022000001", KEYS)}
    world.clock.advance(1_827 * DAY_MS - 1)
    worker.host.turn()
    assert world.tables.subjects
    world.clock.advance(int(FORGETS_EACH_S * 1_000) + 2)
    worker.host.turn()
    assert not world.tables.subjects
