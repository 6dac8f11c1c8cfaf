"""Who may do what at Kafka, derived from the producers and consumers that `schemas/topics` declares.

It names users, topics and groups. It knows no broker, no password and no market.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from services.contract.topics import TopicDeclaration, Topics, declarations

INSIDERS = ("audit", "billing", "feed", "gateway", "intake", "operator", "resale", "router")
"""Whom Gavel itself consists of, at Kafka and at the database: the steps, the auditor, the operator's commands."""

NO_GROUP = "none"
"""The group that clients name which want none: librdkafka requires a name, and looks it up. Nothing is committed."""

_EVERYBODY = ("anyone inside", "every step")


class Family(StrEnum):
    """The two kinds of outsiders; each has topics of its own."""

    SOURCES = "sources"
    BUYERS = "buyers"

    @property
    def one(self) -> str:
        """One of them, as the declarations and people say it."""
        return "source" if self is Family.SOURCES else "buyer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outsider:
    """One source or one buyer."""

    family: Family
    id: str

    def user(self, topics: Topics) -> str:
        """Name its user, with which the names of all its topics begin."""
        return f"{topics.namespace}{self.family}.{self.id}"


def owner_of(topics: Topics, name: str) -> Outsider | None:
    """Find whose topic this is; None for a topic inside, and for what is no topic of ours."""
    family, _, rest = name.removeprefix(topics.namespace).partition(".")
    if not name.startswith(topics.namespace) or family not in tuple(Family) or "." not in rest:
        return None
    return Outsider(family=Family(family), id=rest.partition(".")[0])


class Operation(StrEnum):
    """What may be granted; to read or to write a topic includes to describe it, and to write idempotently."""

    READ = "read"
    WRITE = "write"
    DESCRIBE = "describe"


class Resource(StrEnum):
    """On what."""

    TOPIC = "topic"
    GROUP = "group"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Grant:
    """One permission of one user. A prefix ends in a dot: `acme` alone would let in `acme2`."""

    user: str
    resource: Resource
    name: str
    operation: Operation
    is_prefix: bool = False

    def __post_init__(self) -> None:
        """Raise `ValueError` for a prefix that others' names may begin with."""
        if self.is_prefix and not self.name.endswith("."):
            raise ValueError(f"{self.user}: the prefix {self.name!r} must end in a dot")


def insider(topics: Topics, who: str) -> str:
    """Name the user of a step, of the auditor or of the operator: it is called like its group."""
    return topics.group(who)


def inside_grants(topics: Topics) -> tuple[Grant, ...]:
    """List what the insiders may do with the topics inside, and with their own groups."""
    of_topics = (
        grant
        for declared in declarations()
        if "<id>" not in declared.name
        for grant in _of_topic(topics, declared, None)
    )
    of_groups = (grant for who in INSIDERS for grant in _of_groups(topics, who))
    return tuple(sorted({*of_topics, *of_groups}))


def outsider_grants(topics: Topics, outsider: Outsider) -> tuple[Grant, ...]:
    """List what an outsider may do, and the insiders with its topics."""
    of_topics = (
        grant
        for declared in declarations()
        if declared.name.startswith(f"{outsider.family}.<id>.")
        for grant in _of_topic(topics, declared, outsider)
    )
    user = outsider.user(topics)
    own_groups = Grant(
        user=user, resource=Resource.GROUP, name=f"{user}.", operation=Operation.READ, is_prefix=True
    )
    return tuple(sorted({*of_topics, own_groups}))


def _of_topic(topics: Topics, declared: TopicDeclaration, outsider: Outsider | None) -> Iterator[Grant]:
    name = topics.namespace + declared.name.replace("<id>", outsider.id if outsider else "")
    for word in declared.producer.split(" and "):
        yield from _on_topic(_users(topics, word, outsider), name, Operation.WRITE)
    for word in declared.consumers:
        yield from _on_topic(_users(topics, word, outsider), name, Operation.READ)
    if declared.dead_letters:
        yield from _of_dead_letters(topics, topics.dead_letters(name))


def _of_dead_letters(topics: Topics, name: str) -> Iterator[Grant]:
    """Intake puts them there, the operator reads them and marks what was sent back, the auditor looks into them."""
    for who in ("intake", "operator"):
        yield from _on_topic([insider(topics, who)], name, Operation.WRITE)
    for who in ("operator", "audit"):
        yield from _on_topic([insider(topics, who)], name, Operation.READ)


def _on_topic(users: list[str], name: str, operation: Operation) -> Iterator[Grant]:
    for user in users:
        yield Grant(user=user, resource=Resource.TOPIC, name=name, operation=operation)


def _users(topics: Topics, word: str, outsider: Outsider | None) -> list[str]:
    """Find the users whom a declaration means; raise `ValueError` for a word that means nobody."""
    if outsider is not None and word == f"the {outsider.family.one}":
        return [outsider.user(topics)]
    if word in _EVERYBODY:
        return [insider(topics, who) for who in INSIDERS]
    who = "operator" if word == "gavel" else word
    if who not in INSIDERS:
        raise ValueError(f"schemas/topics: nobody is called {word!r}")
    return [insider(topics, who)]


def _of_groups(topics: Topics, who: str) -> Iterator[Grant]:
    user = insider(topics, who)

    def on(name: str, operation: Operation, *, is_prefix: bool = False) -> Grant:
        return Grant(user=user, resource=Resource.GROUP, name=name, operation=operation, is_prefix=is_prefix)

    yield on(user, Operation.READ)
    yield on(f"{user}.", Operation.READ, is_prefix=True)  # one of each worker, for the registry
    yield on(NO_GROUP, Operation.DESCRIBE)
    if who == "audit":
        yield on(insider(topics, "intake"), Operation.DESCRIBE)  # whose positions tell what is under way
