"""Each point that the doctor looks at is well as it should be, and not well with a problem planted in it."""

from __future__ import annotations

import pytest

from services.bus.migrations import Migration
from services.cli.doctor_checks import (
    DISK_BYTES_AT_LEAST,
    LAG_AT_MOST,
    UNPUBLISHED_AT_MOST,
    Check,
    Clock,
    Group,
    LogHead,
    LogTail,
    access_check,
    brokers_check,
    clock_check,
    disk_check,
    durability_check,
    group_check,
    heads_check,
    log_check,
    market_check,
    migrations_check,
    publishing_check,
    replicas_check,
    roles_check,
    server_check,
    topics_check,
)

FIRST = Migration("router", 1, "0001_router.sql", b"create table")
SECOND = Migration("router", 2, "0002_more.sql", b"alter table")
APPLIED = {("router", 1): FIRST.sha256, ("router", 2): SECOND.sha256}
HASH, OTHER = bytes(32), bytes([1]) * 32
HEAD = LogHead(seq=9, hash=HASH, published_seq=9, topic_id="log-1")
TAIL = LogTail(seq=9, hash=HASH, known_hash=HASH)
GIB = 1024**3

WELL = [
    server_check("PostgreSQL 18.4 on x86_64", 180_004),
    durability_check("on", "remote_apply"),
    clock_check("the database", Clock(1_000, 1_400, 1_900)),
    clock_check("the database", Clock(1_000, 2_900, 1_900)),
    roles_check([]),
    migrations_check([FIRST, SECOND], APPLIED),
    market_check(3),
    heads_check([0, 1, 2], 3),
    publishing_check(UNPUBLISHED_AT_MOST, {}),
    topics_check(17, [], []),
    replicas_check([]),
    access_check([], 0, 0),
    brokers_check(3, "false"),
    disk_check("broker 1", 100 * GIB, 40 * GIB),
    group_check("router", Group(2, LAG_AT_MOST)),
]

NOT_WELL = [
    (server_check("PostgreSQL 16.2 on x86_64", 160_002), "16.2", "17 or later"),
    (durability_check("off", "on"), "fsync=off", "to on"),
    (durability_check("on", "off"), "synchronous_commit=off", "to on"),
    (clock_check("the database", Clock(1_000, 8_000, 1_900)), "+6.1 s", "time servers"),
    (clock_check("the database", Clock(9_000, 1_000, 9_100)), "-8.0 s", "time servers"),
    (roles_check(["gavel_router"]), "gavel_router", "gavel setup"),
    (migrations_check([FIRST, SECOND], {("router", 1): FIRST.sha256}), "router/0002_more.sql", "gavel setup"),
    (migrations_check([FIRST], {("router", 1): OTHER}), "changed", "the release"),
    (migrations_check([FIRST], APPLIED), "another release: router 2", "the release"),
    (market_check(0), "none is in force", "gavel market apply"),
    (heads_check([0, 2], 3), "missing: 1", "never make the rows by hand"),
    (heads_check([0, 1, 2, 3], 3), "4 of 3", "never make the rows by hand"),
    (publishing_check(UNPUBLISHED_AT_MOST + 1, {}), "not published", "Does a router run"),
    (publishing_check(0, {"buyers.acme.leads": 4}), "buyers.acme.leads (4)", "take records"),
    (topics_check(17, ["leads.log"], []), "missing: leads.log", "gavel setup"),
    (
        topics_check(17, [], ["leads.log: retention.ms is 1, declared is -1"]),
        "retention.ms is 1",
        "alters no",
    ),
    (replicas_check(["leads.log 3"]), "leads.log 3", "every broker"),
    (access_check(["gavel.feed"], 0, 0), "gavel.feed", "gavel setup"),
    (access_check([], 2, 0), "2 permissions", "gavel setup"),
    (access_check([], 0, 3), "3 permissions that nothing declares", "--take-away"),
    (brokers_check(1, "true"), "enable=true", "must not make a topic"),
    (disk_check("broker 1", 100 * GIB, DISK_BYTES_AT_LEAST - 1), "5.0 GiB", "Make room"),
    (disk_check("broker 1", 1_000 * GIB, 90 * GIB), "9%", "Make room"),
    (group_check("router", Group(0, 0)), "0 workers", "gavel step run router"),
    (group_check("router", Group(2, LAG_AT_MOST + 1)), "100,001", "GavelLag"),
]


@pytest.mark.parametrize("check", WELL, ids=lambda check: f"{check.name}: {check.found}")
def test_what_is_as_it_should_be_is_well(check: Check) -> None:
    assert check.ok


@pytest.mark.parametrize(("check", "found", "advice"), NOT_WELL, ids=lambda value: str(value)[:40])
def test_planted_problem_is_found_and_told_with_what_to_do(check: Check, found: str, advice: str) -> None:
    assert not check.ok
    assert found in check.found
    assert advice in check.advice


@pytest.mark.parametrize(
    ("before", "tail"),
    [
        (HEAD, TAIL),
        (HEAD._replace(published_seq=0, seq=0), None),
        (HEAD._replace(published_seq=4), TAIL._replace(seq=6)),
        (HEAD._replace(published_seq=4), TAIL._replace(seq=6, hash=OTHER, known_hash=None)),
        (HEAD._replace(topic_id=""), TAIL),
    ],
)
def test_a_log_that_is_published_up_to_where_the_database_says_agrees(
    before: LogHead, tail: LogTail | None
) -> None:
    assert log_check(3, before, HEAD, tail, "log-1") is None


@pytest.mark.parametrize(
    ("before", "tail", "topic_id", "found"),
    [
        (HEAD, TAIL._replace(seq=10), "log-1", "ends with entry 10, the database with 9"),
        (HEAD, TAIL._replace(seq=8), "log-1", "ends with entry 8, and 9 was published"),
        (HEAD, None, "log-1", "the topic is empty"),
        (HEAD, TAIL._replace(hash=OTHER), "log-1", "entry 9 is not the database's"),
        (HEAD._replace(published_seq=4), LogTail(6, OTHER, HASH), "log-1", "entry 6 is not the database's"),
        (HEAD, TAIL, "log-2", "made again"),
    ],
)
def test_a_log_that_ends_otherwise_than_the_database_is_told(
    before: LogHead, tail: LogTail | None, topic_id: str, found: str
) -> None:
    check = log_check(3, before, HEAD, tail, topic_id)
    assert check is not None
    assert not check.ok
    assert check.found.startswith("partition 3: ")
    assert found in check.found
    assert check.advice


def test_many_names_are_cut_short() -> None:
    check = topics_check(100, [f"buyers.b{number}.leads" for number in range(100)], [])
    assert check.found.endswith("buyers.b4.leads and 95 more")
