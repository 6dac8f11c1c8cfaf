"""What a deployment should look like: judges what was found, and says what to do where it is otherwise. No IO."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from services.bus.migrations import Migration

POSTGRES_VERSION = 170_000
"""The first with `transaction_timeout`."""

SKEW_AT_MOST_MS = 1_000
"""Lags are told by comparing clocks; the router itself goes by the database's alone."""

DISK_BYTES_AT_LEAST = 5 * 1024**3
DISK_SHARE_AT_LEAST = 0.1
LAG_AT_MOST = 100_000
UNPUBLISHED_AT_MOST = 10_000
_NAMED_AT_MOST = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One point: what was found, and what to do if that is not well."""

    name: str
    ok: bool
    found: str
    advice: str = ""


class Clock(NamedTuple):
    """What a clock said between two looks at ours, in UTC milliseconds."""

    asked_ms: int
    said_ms: int
    answered_ms: int


class LogHead(NamedTuple):
    """What the database says of a partition: its last entry, and how far it is published."""

    seq: int
    hash: bytes
    published_seq: int
    topic_id: str


class LogTail(NamedTuple):
    """The last record of a partition of `leads.log`, and the hash that the database has for it, where it still does."""

    seq: int
    hash: bytes
    known_hash: bytes | None


class Group(NamedTuple):
    """A step's group at Kafka: its members, and how many records lie behind its positions."""

    members: int
    lag: int


def server_check(version: str, number: int) -> Check:
    """Judge PostgreSQL's version."""
    return Check(
        name="database",
        ok=number >= POSTGRES_VERSION,
        found=version.partition(" on ")[0],
        advice="Gavel needs PostgreSQL 17 or later.",
    )


def durability_check(fsync: str, synchronous_commit: str) -> Check:
    """Judge whether what is committed stays."""
    return Check(
        name="database's durability",
        ok=fsync == "on" and synchronous_commit != "off",
        found=f"fsync={fsync}, synchronous_commit={synchronous_commit}",
        advice="Set both to on: a decision exists when its transaction has committed.",
    )


def clock_check(name: str, clock: Clock) -> Check:
    """Judge how far another clock is from ours, less what the question took."""
    skew_ms = clock.said_ms - min(max(clock.said_ms, clock.asked_ms), clock.answered_ms)
    return Check(
        name=f"clock of {name}",
        ok=abs(skew_ms) <= SKEW_AT_MOST_MS,
        found=f"{skew_ms / 1_000:+.1f} s from this machine's",
        advice="Have both follow the same time servers. Set a clock slowly: the router stops at a jump of 60 s.",
    )


def roles_check(missing: Sequence[str]) -> Check:
    """Judge whether the steps' roles are there for this user."""
    return Check(
        name="roles",
        ok=not missing,
        found="all there" if not missing else f"missing, or not for this user: {', '.join(missing)}",
        advice="Run `gavel setup` as a user that may create roles, or have them granted to this one.",
    )


def migrations_check(files: Sequence[Migration], applied: Mapping[tuple[str, int], bytes]) -> Check:
    """Judge whether the database is of this release."""
    known = {(file.step, file.number): file for file in files}
    missing = [file.label for at, file in known.items() if at not in applied]
    changed = [file.label for at, file in known.items() if applied.get(at, file.sha256) != file.sha256]
    newer = [f"{step} {number}" for step, number in sorted(applied.keys() - known.keys())]
    problems = [
        *_problem("not applied", missing),
        *_problem("changed after they were applied", changed),
        *_problem("of another release", newer),
    ]
    advice = "Run `gavel setup`." if not (changed or newer) else "Use the release that this database is of."
    return Check(
        name="migrations",
        ok=not problems,
        found="; ".join(problems) or f"all {len(known)} applied",
        advice=advice,
    )


def market_check(version: int) -> Check:
    """Judge whether a market is in force."""
    return Check(
        name="market",
        ok=version > 0,
        found=f"version {version} is in force" if version else "none is in force",
        advice="Run `gavel market apply FILE`: until then intake reads nothing.",
    )


def heads_check(heads: Collection[int], partitions: int) -> Check:
    """Judge whether every partition has its head."""
    missing = [str(at) for at in range(partitions) if at not in heads]
    return Check(
        name="heads",
        ok=not missing and len(heads) == partitions,
        found=f"{len(heads)} of {partitions}" + (f", missing: {', '.join(missing)}" if missing else ""),
        advice="On a new database: `gavel setup`. Otherwise restore it, and never make the rows by hand.",
    )


def publishing_check(unpublished: int, undelivered: Mapping[str, int]) -> Check:
    """Judge whether what was decided goes out."""
    waiting = [f"{recipient} ({count})" for recipient, count in sorted(undelivered.items())]
    problems = [f"{unpublished} entries are not published"] if unpublished > UNPUBLISHED_AT_MOST else []
    problems += _problem("undelivered to", waiting)
    return Check(
        name="publishing",
        ok=not problems,
        found="; ".join(problems) or f"{unpublished} entries under way, nothing undelivered",
        advice="Does a router run, and do these topics take records? It tries again by itself.",
    )


def log_check(
    partition: int, before: LogHead, after: LogHead, tail: LogTail | None, topic_id: str
) -> Check | None:
    """Compare the log's end with the heads read before and after it; None where they agree (protocol.md, rule 22)."""
    problem = _log_problem(before, after, tail, topic_id)
    if problem is None:
        return None
    what, advice = problem
    return Check(name="log", ok=False, found=f"partition {partition}: {what}", advice=advice)


def topics_check(count: int, missing: Sequence[str], differences: Sequence[str]) -> Check:
    """Judge whether topics are as declared."""
    problems = [*_problem("missing", missing), *_problem("not as declared", differences)]
    return Check(
        name="topics",
        ok=not problems,
        found="; ".join(problems) or f"all {count} as declared",
        advice="`gavel setup` and `gavel market apply` make missing ones. Differences are yours to settle, by "
        "Kafka's own tools: Gavel alters no topic.",
    )


def replicas_check(lagging: Sequence[str]) -> Check:
    """Judge whether every partition has its leader and all its copies."""
    return Check(
        name="copies",
        ok=not lagging,
        found="; ".join(_problem("without a leader or with copies behind", lagging)) or "all in sync",
        advice="Does every broker run? Below min.insync.replicas nothing can be written there.",
    )


def access_check(users: Sequence[str], grants: int, surplus: int) -> Check:
    """Judge whether Gavel's own users may do what they must, and nothing else."""
    problems = _problem("users missing", users) + ([f"{grants} permissions missing"] if grants else [])
    problems += [f"{surplus} permissions that nothing declares"] if surplus else []
    return Check(
        name="access",
        ok=not problems,
        found="; ".join(problems) or "every step has its user and its permissions",
        advice="Run `gavel setup`, then `gavel market apply` with the market in force. What nothing declares goes by "
        "`gavel setup --take-away`, once every worker is of this release.",
    )


def brokers_check(brokers: int, auto_create: str) -> Check:
    """Judge the cluster's settings."""
    return Check(
        name="brokers",
        ok=auto_create == "false",
        found=f"{brokers}, auto.create.topics.enable={auto_create}",
        advice="Set auto.create.topics.enable=false: a typing error must not make a topic.",
    )


def disk_check(where: str, total_bytes: int, free_bytes: int) -> Check:
    """Judge how much of a disk is free."""
    share = free_bytes / total_bytes if total_bytes else 0.0
    return Check(
        name=f"disk of {where}",
        ok=free_bytes >= DISK_BYTES_AT_LEAST and share >= DISK_SHARE_AT_LEAST,
        found=f"{free_bytes / 1024**3:.1f} GiB free, {share:.0%}",
        advice="Make room: a broker whose disk is full stops. leads.log is kept for good and only grows.",
    )


def group_check(step: str, group: Group) -> Check:
    """Judge whether a step is at work, and keeps up."""
    if group.members == 0:
        advice = f"Start it: gavel step run {step}"
    else:
        advice = "See the runbook GavelLag in docs/operations.md."
    return Check(
        name=f"step {step}",
        ok=group.members > 0 and group.lag <= LAG_AT_MOST,
        found=f"{group.members} workers, {group.lag:,} records behind",
        advice=advice,
    )


def _log_problem(
    before: LogHead, after: LogHead, tail: LogTail | None, topic_id: str
) -> tuple[str, str] | None:
    if before.topic_id and before.topic_id != topic_id:
        return "the topic was made again", "Its history is gone from Kafka: restore the topic."
    if tail is None:
        found = (
            f"the topic is empty, entry {before.published_seq} was published" if before.published_seq else ""
        )
        return (found, "Find out who deleted its records, and restore them.") if found else None
    if tail.seq > after.seq:
        return (
            f"the topic ends with entry {tail.seq}, the database with {after.seq}",
            "The database was restored to an earlier state: find a newer backup or standby. Keep the topic.",
        )
    if tail.seq < before.published_seq:
        return (
            f"the topic ends with entry {tail.seq}, and {before.published_seq} was published",
            "Find out who deleted records; `gavel log republish` sends again what the database still has.",
        )
    known = after.hash if tail.seq == after.seq else tail.known_hash
    if known is not None and known != tail.hash:
        return f"entry {tail.seq} is not the database's", "Find out who wrote it: `gavel log verify`."
    return None


def _problem(what: str, names: Sequence[str]) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - _NAMED_AT_MOST} more" if len(names) > _NAMED_AT_MOST else ""
    return [f"{what}: {', '.join(names[:_NAMED_AT_MOST])}{more}"]
