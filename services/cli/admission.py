"""Lets one source or one buyer in at Kafka, gives it another password, or shuts it out.

Its topics, its user, what it may do, and how much of that: each is made if it is missing and left as it is if not. It
knows no market: whether the source or buyer trades is the market's business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from services.bus.administration import CreatedTopics, create_topics
from services.bus.doors import OUTSIDERS_QUOTA, Doors, Quota, open_doors
from services.bus.settings import StepSettings, user_file
from services.cli.complaints import MISUSED, Complaint
from services.cli.insiders import administration, fresh_password, keep, properties_of
from services.contract.access import Family, Outsider, outsider_grants

Properties = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """What was made. `properties` has the passwords by user, of those that had none before."""

    topics: CreatedTopics
    grants: int
    quotas: int
    properties: Mapping[str, Properties]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShutOut:
    """What an outsider had, and has no longer."""

    user: str
    had_password: bool
    grants: int


@dataclass(frozen=True, slots=True)
class Outsiders:
    """What these sources and buyers would be as a market."""

    sources: tuple[str, ...]
    buyers: tuple[str, ...]


def admit(found: StepSettings, outsiders: Sequence[Outsider], quota: Quota = OUTSIDERS_QUOTA) -> Admitted:
    """Make what is missing; raise `NoDoors` where Kafka has no access lists, `BusFailed` where it refuses.

    The password comes last: an outsider that has one has all the rest.
    """
    with open_doors(administration(found)) as doors:
        doors.require()
        topics = create_topics(administration(found), found.topics, _market_of(outsiders))
        grants = doors.let_in([grant for each in outsiders for grant in outsider_grants(found.topics, each)])
        users = [each.user(found.topics) for each in outsiders]
        # A quota that is there stays: whoever changed it knew why.
        quotas = sum(doors.limit(user, quota) for user in users if not doors.quota_of(user))
        without = sorted(set(users) - set(doors.users()))
        properties = _with_passwords(found, doors, without)
    return Admitted(topics=topics, grants=grants, quotas=quotas, properties=properties)


def give_another_password(found: StepSettings, outsider: Outsider) -> Properties:
    """Change an outsider's password; raise `Complaint` where it has none."""
    user = outsider.user(found.topics)
    with open_doors(administration(found)) as doors:
        doors.require()
        if not doors.has_user(user):
            raise Complaint(
                f"There is no user {user}.", f"`gavel {outsider.family.one} add {outsider.id}` makes it."
            )
        return _with_passwords(found, doors, [user])[user]


def shut_out(found: StepSettings, outsider: Outsider) -> ShutOut:
    """Take away what an outsider may do, then its password; raise `Complaint` where it has neither.

    Its connections may live on for a while, and every request on them is refused. Its topics stay, with what is in
    them.
    """
    user = outsider.user(found.topics)
    with open_doors(administration(found)) as doors:
        doors.require()
        grants = doors.shut_out(user)
        had_password = doors.forget_user(user)
        doors.limit(user, None)
    if not grants and not had_password:
        raise Complaint(f"There is no user {user}, and nothing is granted to one.", "Is the id right?")
    if found.users_folder is not None:
        user_file(found.users_folder, user).unlink(missing_ok=True)
    return ShutOut(user=user, had_password=had_password, grants=grants)


def save(found: StepSettings, user: str, properties: Properties) -> None:
    """Keep an outsider's password in the folder of users; raise `Complaint` where there is none."""
    keep(user_file(folder_of_users(found), user), properties)


def is_saved(found: StepSettings, user: str) -> bool:
    """Tell whether an outsider's password is kept here: then it must be the one in force."""
    return found.users_folder is not None and user_file(found.users_folder, user).exists()


def folder_of_users(found: StepSettings) -> Path:
    """Name the folder where passwords are kept; raise `Complaint` where there is none."""
    if found.users_folder is None:
        raise Complaint(
            "GAVEL_KAFKA_CONFIG names no folder to save it in.",
            "Without --save the password is printed.",
            exit_code=MISUSED,
        )
    return found.users_folder


def _with_passwords(found: StepSettings, doors: Doors, users: Sequence[str]) -> dict[str, Properties]:
    passwords = {user: fresh_password() for user in users}
    doors.set_passwords(passwords)
    administrator = administration(found)
    return {user: properties_of(administrator, user, password) for user, password in passwords.items()}


def _market_of(outsiders: Sequence[Outsider]) -> Outsiders:
    return Outsiders(*(tuple(each.id for each in outsiders if each.family is family) for family in Family))
