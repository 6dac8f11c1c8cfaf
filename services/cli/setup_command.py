"""`gavel setup`: brings the database and the topics inside to what this release expects.

It is safe to repeat, and to run while Gavel runs: what is there already stays as it is. The topics of sources and
buyers are the market's, and follow an apply.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated

import psycopg
import typer

from services.bus.administration import CreatedTopics, create_topics
from services.bus.database import CONNECT_S, connect
from services.bus.logins import let_log_in
from services.bus.migrations import migrate
from services.bus.settings import StepSettings
from services.cli.asking import partitions_inside
from services.cli.insiders import InsidersMade, administration, let_insiders_in, take_surplus_away
from services.cli.printing import remark, say, say_json
from services.cli.surroundings import settings
from services.router.store import initialise


@dataclass(frozen=True, slots=True, kw_only=True)
class SetUp:
    """What a setup has done: the migrations applied, the partitions that have heads now, the topics made.

    `users` is None where access to Kafka is its operator's business. `logins` are who may log in at the database, each
    by its own password; None where `GAVEL_DATABASE_USERS` names no folder, and nothing is changed.
    """

    migrations: tuple[str, ...]
    partitions: int
    topics: CreatedTopics
    users: InsidersMade | None
    logins: tuple[str, ...] | None


def setup(
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
    take_away: Annotated[
        bool,
        typer.Option(
            "--take-away",
            help="Take from our users at Kafka what nothing declares any more. Renew all workers first.",
        ),
    ] = False,
) -> None:
    """Bring database and topics to what this release expects; safe to repeat."""
    found = settings()
    done = set_up(found)
    taken = take_surplus_away(found) if take_away else 0
    if as_json:
        say_json({**asdict(done), "taken_away": taken})
        return
    say(f"Migrations applied: {', '.join(done.migrations) or 'none, the database was up to date'}.")
    say(f"Topics made: {len(done.topics.created)}; there already: {done.topics.present}.")
    say(_users_line(done.users))
    if done.logins is not None:
        say(f"Each logs in at the database by its own password: {', '.join(done.logins)}.")
    if take_away:
        say(f"Permissions taken away: {taken}.")
    elif done.users is not None and done.users.surplus:
        remark(
            f"warning: our users at Kafka have {done.users.surplus} permissions that nothing declares. Once every "
            "worker is of this release, `gavel setup --take-away` takes them away"
        )
    for difference in done.topics.differences:
        remark(f"warning: {difference}")


def set_up(found: StepSettings) -> SetUp:
    """Migrate, make the heads of all partitions, the topics inside, and the users of the steps."""
    migrations = migrate(found.database)
    folder = found.database_users
    logins = None if folder is None else let_log_in(found.database, folder)
    partitions = partitions_inside()
    with connect(found.database, role="gavel_router", application_name="gavel setup") as connection:
        initialise(connection, partitions)
    topics = create_topics(administration(found), found.topics)
    users = let_insiders_in(found)
    return SetUp(
        migrations=tuple(migrations), partitions=partitions, topics=topics, users=users, logins=logins
    )


def _users_line(made: InsidersMade | None) -> str:
    if made is None:
        return "Access to Kafka is its operator's: GAVEL_KAFKA_CONFIG names no folder of users."
    return (
        f"Users made: {', '.join(made.users) or 'none, all were there'}; permissions granted: {made.grants}."
    )


def is_set_up(database: str) -> bool:
    """Tell whether anything of Gavel is in this database."""
    with psycopg.connect(database, autocommit=True, connect_timeout=CONNECT_S) as connection:
        row = connection.execute("select to_regclass('router.heads') is not null").fetchone()
    return row is not None and bool(row[0])
