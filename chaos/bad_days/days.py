"""All bad days by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from chaos.bad_days import clocks, outages, records, topics
from chaos.bad_days.day import BadDay

_ALL = (
    BadDay(
        name="wrong-partitions",
        what="topics have too few partitions before the start, and get too many later",
        play=topics.wrong_partitions,
    ),
    BadDay(
        name="unknown-schema",
        what="somebody writes what no release can decode to commands and log",
        play=records.unknown_schema,
    ),
    BadDay(name="large-message", what="a source sends 10 MB", play=records.large_message),
    BadDay(name="poison-flood", what="a source sends rubbish without end", play=records.poison_flood),
    BadDay(
        name="clock-skew",
        what="every step's clock is minutes off, then the database's jumps",
        play=clocks.clock_skew,
    ),
    BadDay(
        name="database-away",
        what="the database is away for longer than workers wait",
        play=outages.database_away,
        takes_minutes=True,
    ),
    BadDay(
        name="disk-full",
        what="the disk of the broker fills up to its last byte",
        play=outages.disk_full,
        takes_minutes=True,
    ),
    BadDay(
        name="overload",
        what="for minutes more comes in than the steps can do",
        play=outages.overload,
        takes_minutes=True,
        rests_s=outages.rests_after_overload_s,
    ),
)

DAYS: Mapping[str, BadDay] = MappingProxyType({day.name: day for day in _ALL})
SHORT = tuple(day.name for day in _ALL if not day.takes_minutes)
