"""What was found counts once, however often it is found, and whenever."""

from __future__ import annotations

from dataclasses import replace

from services.audit.found import LISTED_MAX, Found, violation_json
from services.audit.violations import Violation, Where

VIOLATION = Violation(
    guarantee=3,
    rule="counter_is_the_log",
    what="the log says 7, the router 8",
    where=(Where("router.counters", "order:bob/s:day:1"),),
)


def test_what_is_found_again_counts_once() -> None:
    heard: list[Violation] = []
    found = Found(heard.append)
    found.take(VIOLATION)
    found.take(VIOLATION)
    assert found.count == 1
    assert heard == [VIOLATION]


def test_what_differs_in_its_numbers_alone_is_the_same() -> None:
    found = Found()
    found.take(VIOLATION)
    found.take(replace(VIOLATION, what="the log says 9, the router 11"))
    assert found.count == 1


def test_what_is_seen_elsewhere_is_another() -> None:
    found = Found()
    found.take(VIOLATION)
    found.take(replace(VIOLATION, where=(Where("router.counters", "order:bob/s:day:2"),)))
    found.take(replace(VIOLATION, lead_id="a"))
    assert found.by_rule == {"counter_is_the_log": 3}
    assert found.by_guarantee == {3: 3}


def test_what_was_kept_is_known_again() -> None:
    first = Found()
    heard: list[Violation] = []
    first.take(VIOLATION)
    second = Found(heard.append)
    second.resume(first.kept())
    second.take(VIOLATION)
    assert heard == []
    assert second.listed == [VIOLATION]
    assert (second.count, second.by_rule, second.by_guarantee) == (1, first.by_rule, first.by_guarantee)


def test_all_are_counted_and_so_many_listed() -> None:
    found = Found()
    for number in range(LISTED_MAX + 5):
        found.take(replace(VIOLATION, lead_id=str(number)))
    assert found.count == LISTED_MAX + 5
    assert len(found.listed) == LISTED_MAX


def test_machines_are_told_everything() -> None:
    assert violation_json(VIOLATION) == {
        "guarantee": 3,
        "rule": "counter_is_the_log",
        "lead_id": None,
        "what": "the log says 7, the router 8",
        "where": [{"source": "router.counters", "at": "order:bob/s:day:1"}],
    }
