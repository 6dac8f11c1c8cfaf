"""The bad days that take seconds, one after the other on one Gavel: each is told clearly, and nothing is lost.

Those that take minutes are played by hand: `make bad-days`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from chaos import skewed_clock
from chaos.bad_days.days import DAYS, SHORT
from chaos.bad_days.playing import Played, Told, play
from chaos.bad_days.size import Size
from chaos.servers import own_servers

pytestmark = [pytest.mark.e2e, pytest.mark.long, pytest.mark.timeout(600)]
SIZE = Size(leads=300, poison=150, session_timeout_ms=3_000)


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    folder = tmp_path_factory.mktemp("bad-days")
    names = [name for name in SHORT if name != "clock-skew" or skewed_clock.is_possible()]
    with own_servers(1, folder, lambda _: None, keep=False) as servers:
        yield play([DAYS[name] for name in names], SIZE, servers, folder, lambda _: None)


def told_of(played: Played, name: str) -> Told:
    found = [told for told in played.told if told.day.name == name]
    if not found:
        pytest.skip("no C compiler to make a clock that is off" if name == "clock-skew" else "not played")
    assert found[0].failure is None
    return found[0]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("wrong-partitions", "6 partitions, and 12 are declared"),
        ("wrong-partitions", "more partitions than are declared: they are left unread"),
        ("wrong-partitions", "partitions is 13, declared is 12"),
        ("unknown-schema", "leads.commands partition 5, offset"),
        ("unknown-schema", "gavel log skip bad-days.leads.log 5"),
        ("large-message", "bytes=10485760"),
        ("poison-flood", "too many dead letters in a row"),
        ("clock-skew", "the database's clock jumped"),
        ("clock-skew", "Have both follow the same time servers"),
    ],
)
def test_bad_day_is_told_with_its_place_and_what_to_do(played: Played, name: str, said: str) -> None:
    assert any(said in line for line in told_of(played, name).scene.said)


def test_market_can_be_applied_though_somebody_added_partitions(played: Played) -> None:
    assert any("exit code 0" in line for line in told_of(played, "wrong-partitions").scene.seen)


def test_nothing_was_lost_or_broken_and_only_the_foreign_records_are_violations(played: Played) -> None:
    assert played.problems == []
    outcome = played.outcome
    assert outcome is not None
    assert outcome.judgement is not None
    in_the_log_and_in_the_commands = 2
    assert len(outcome.judgement.violations) == in_the_log_and_in_the_commands
    assert outcome.acknowledged >= SIZE.leads


def test_what_nobody_can_read_is_put_aside_to_the_last_record(played: Played) -> None:
    from_the_new_partition, large = 10, 1
    assert played.dead_letters == SIZE.poison + from_the_new_partition + large
