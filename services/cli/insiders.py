"""Gavel's own users at Kafka: one for each step, for the auditor and for the operator, with just what each needs.

They are made where `GAVEL_KAFKA_CONFIG` names a folder with the administrator's file. Elsewhere access is the business
of Kafka's operator, and nothing is changed.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from services.bus.administration import HasOutsiders
from services.bus.doors import MECHANISM, Doors, open_doors
from services.bus.kafka import Connection, read_properties
from services.bus.settings import StepSettings, user_file
from services.contract.access import (
    INSIDERS,
    Family,
    Grant,
    Outsider,
    inside_grants,
    insider,
    outsider_grants,
    owner_of,
)
from services.contract.topics import Topics

ADMIN = "admin"
PASSWORD_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class InsidersMade:
    """What was missing: the users (that were made), and how many permissions (that were granted).

    `surplus` are the permissions that they have and that no declaration gives (any more).
    """

    users: tuple[str, ...]
    grants: int
    surplus: int = 0


def administration(found: StepSettings) -> Connection:
    """Say how the administrator reaches Kafka: by its own file, where there is a folder of users."""
    return found.as_user(ADMIN).connection()


def let_insiders_in(found: StepSettings, market: HasOutsiders | None = None) -> InsidersMade | None:
    """Make the users that are missing and grant what they lack; None where access is not ours to give.

    With a market they get what they need on the topics of its sources and buyers, too.
    """
    folder = found.users_folder
    if folder is None:
        return None
    users = [insider(found.topics, who) for who in INSIDERS]
    with open_doors(administration(found)) as doors:
        made = _make(doors, administration(found), folder, users)
        grants = doors.let_in(
            [*inside_grants(found.topics), *_on_outsiders(found.topics, market, set(users))]
        )
        surplus = doors.surplus(users, partial(_declared, found.topics, set(users)))
    return InsidersMade(users=made, grants=grants, surplus=surplus)


def take_surplus_away(found: StepSettings) -> int:
    """Take from our users what no declaration gives them, and count it; 0 where access is not ours to give.

    Workers of an earlier release may need it: not before they are renewed.
    """
    if found.users_folder is None:
        return 0
    users = [insider(found.topics, who) for who in INSIDERS]
    with open_doors(administration(found)) as doors:
        return doors.keep_only(users, partial(_declared, found.topics, set(users)))


def insiders_lack(found: StepSettings, market: HasOutsiders | None = None) -> InsidersMade | None:
    """Say which users are missing and how many permissions; None where access is not ours to give."""
    if found.users_folder is None:
        return None
    users = [insider(found.topics, who) for who in INSIDERS]
    with open_doors(administration(found)) as doors:
        there = set(doors.users())
        grants = doors.lacking(
            [*inside_grants(found.topics), *_on_outsiders(found.topics, market, set(users))]
        )
        surplus = doors.surplus(users, partial(_declared, found.topics, set(users)))
    missing = tuple(user for user in users if user not in there)
    return InsidersMade(users=missing, grants=grants, surplus=surplus)


def forget_users(found: StepSettings, is_meant: Callable[[str], object]) -> None:
    """Delete users with their permissions and files; nothing where access is not ours to give."""
    folder = found.users_folder
    if folder is None:
        return
    with open_doors(administration(found)) as doors:
        for user in filter(is_meant, doors.users()):
            doors.shut_out(user)
            doors.limit(user, None)
            doors.forget_user(user)
            user_file(folder, user).unlink(missing_ok=True)


def fresh_password() -> str:
    """Draw a password."""
    return secrets.token_urlsafe(PASSWORD_BYTES)


def properties_of(administrator: Connection, user: str, password: str) -> tuple[tuple[str, str], ...]:
    """Write the librdkafka properties by which a user connects: as the administrator does, with its own password."""
    known = dict(administrator.properties)
    authority = {name: known[name] for name in ("ssl.ca.location",) if name in known}
    own = {
        "security.protocol": known.get("security.protocol", "SASL_SSL"),
        "sasl.mechanism": MECHANISM,
        "sasl.username": user,
        "sasl.password": password,
    }
    return tuple({**own, **authority}.items())


def keep(file: Path, properties: Iterable[tuple[str, str]]) -> None:
    """Write a user's properties, whole or not at all, and closed to others."""
    new = file.with_name(f"{file.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
        opened.writelines(f"{name}={value}\n" for name, value in properties)
    new.replace(file)


def _make(doors: Doors, administrator: Connection, folder: Path, users: Iterable[str]) -> tuple[str, ...]:
    """Make those that are missing; their files come first, so that no password is ever lost."""
    there = {user for user in doors.users() if user_file(folder, user).exists()}
    missing = [user for user in users if user not in there]
    for user in missing:
        if not user_file(folder, user).exists():
            keep(user_file(folder, user), properties_of(administrator, user, fresh_password()))
    doors.set_passwords({user: _kept_password(user_file(folder, user)) for user in missing})
    return tuple(missing)


def _kept_password(file: Path) -> str:
    return dict(read_properties(file.read_text()))["sasl.password"]


def _declared(topics: Topics, users: set[str], names: Collection[str]) -> Iterable[Grant]:
    """List what declarations give these users on topics and groups of these names, traded by a market or not."""
    owners = {owner_of(topics, name) for name in names} - {None}
    of_outsiders = (grant for owner in owners if owner for grant in outsider_grants(topics, owner))
    return [*inside_grants(topics), *(grant for grant in of_outsiders if grant.user in users)]


def _on_outsiders(topics: Topics, market: HasOutsiders | None, users: set[str]) -> Iterable[Grant]:
    return (
        grant
        for outsider in outsiders_of(market)
        for grant in outsider_grants(topics, outsider)
        if grant.user in users
    )


def outsiders_of(market: HasOutsiders | None) -> list[Outsider]:
    """List a market's sources and buyers."""
    if market is None:
        return []
    return [
        *(Outsider(family=Family.SOURCES, id=id) for id in market.sources),
        *(Outsider(family=Family.BUYERS, id=id) for id in market.buyers),
    ]
