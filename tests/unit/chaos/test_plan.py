"""A campaign's faults follow from its seed, and all kinds come."""

from __future__ import annotations

from collections import Counter

from chaos.plan import DECK, OF_SERVERS, Fault, FaultKind, plan

STEPS = ("intake", "router", "billing")


def planned(seed: int, faults: int, brokers: int = 3) -> tuple[Fault, ...]:
    return plan(
        seed=seed,
        faults=faults,
        seconds=600.0,
        steps=STEPS,
        workers_a_step=2,
        brokers=brokers,
        session_timeout_s=6.0,
    )


def test_same_seed_makes_the_same_plan_and_another_seed_another() -> None:
    assert planned(7, 100) == planned(7, 100)
    assert planned(7, 100) != planned(8, 100)


def test_every_kind_comes_before_any_comes_again() -> None:
    first = [fault.kind for fault in planned(7, len(FaultKind))]
    assert sorted(first) == sorted(FaultKind)


def test_a_hundred_faults_hold_each_kind_as_often_as_the_deck_does() -> None:
    cards = sum(DECK.values())
    found = Counter(fault.kind for fault in planned(7, 4 * cards))
    assert found == {kind: 4 * times for kind, times in DECK.items()}


def test_faults_come_in_order_within_the_time_and_hit_what_there_is() -> None:
    faults = planned(3, 200)
    assert [fault.at_s for fault in faults] == sorted(fault.at_s for fault in faults)
    assert all(0 < fault.at_s < 600 for fault in faults)
    workers = {f"{step}-{number}" for step in STEPS for number in (1, 2)}
    known = {*STEPS, *workers, "kafka-1", "kafka-2", "kafka-3", "postgres"}
    assert {fault.target for fault in faults} == known


def test_zombies_sleep_past_their_session_and_brief_stops_do_not() -> None:
    faults = planned(3, 200)
    zombies = [fault.holds_s for fault in faults if fault.kind is FaultKind.ZOMBIE]
    stops = [fault.holds_s for fault in faults if fault.kind is FaultKind.WORKER_STOPPED]
    assert min(zombies) > 6.0 > max(stops)


def test_nothing_overlaps_with_a_server_that_is_away() -> None:
    faults = planned(3, 200)
    assert any(fault.overlaps for fault in faults)
    assert not any(fault.overlaps for fault in faults if fault.kind in OF_SERVERS)
