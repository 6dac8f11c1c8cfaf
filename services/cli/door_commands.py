"""`gavel source | buyer add | rotate | revoke`: the doors of one source or buyer at Kafka.

A password is printed once, on standard output, as a file of librdkafka properties or as JSON; it is kept nowhere unless
`--save` says so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from services.bus.settings import StepSettings
from services.cli import admission
from services.cli.complaints import MISUSED, Complaint
from services.cli.printing import remark, say, say_json
from services.cli.surroundings import kafka_settings
from services.contract.access import Family, Outsider

_ID = re.compile(r"[a-z0-9-]+")

Id = Annotated[str, typer.Argument(metavar="ID", help="Its id in the market.")]
AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]
Save = Annotated[
    bool,
    typer.Option("--save", help="Keep the password in the folder of GAVEL_KAFKA_CONFIG, and don't print it."),
]


def add_doors(app: typer.Typer, family: Family) -> None:
    """Give a group of commands the three for doors."""
    one = family.one

    @app.command(help=f"Make a {one}'s topics, user, access and quota, if missing; print its password, once.")
    def add(id: Id, save: Save = False, as_json: AsJson = False) -> None:
        found, outsider = _asked(family, id)
        if save:
            admission.folder_of_users(found)  # or there is a password that nobody knows
        made = admission.admit(found, [outsider])
        properties = made.properties.get(outsider.user(found.topics))
        if save and properties:
            admission.save(found, outsider.user(found.topics), properties)
        shown = None if save else properties
        if as_json:
            say_json({**_added_json(found, outsider, made), **_properties_json(shown)})
            return
        _say_properties(shown)
        _remark_added(found, outsider, made)

    @app.command(
        help=f"Give a {one} another password and print it, once; the old one opens nothing any more."
    )
    def rotate(id: Id, save: Save = False, as_json: AsJson = False) -> None:
        found, outsider = _asked(family, id)
        if save:
            admission.folder_of_users(found)  # or there is a password that nobody knows
        user = outsider.user(found.topics)
        properties = admission.give_another_password(found, outsider)
        if save or admission.is_saved(found, user):
            admission.save(found, user, properties)
        shown = None if save else properties
        if as_json:
            say_json(_properties_json(shown))
        else:
            _say_properties(shown)
        remark(f"The password of {user} is another one now.")

    @app.command(help=f"Shut a {one} out at Kafka, at once; its topics stay, HTTP, and the market as it is.")
    def revoke(id: Id, as_json: AsJson = False) -> None:
        found, outsider = _asked(family, id)
        done = admission.shut_out(found, outsider)
        if as_json:
            say_json({"user": done.user, "had_password": done.had_password, "grants": done.grants})
        else:
            say(f"Shut out: {done.user}. It had {done.grants} permissions.")
        _remark_shut_out(family, id)


def _asked(family: Family, id: str) -> tuple[StepSettings, Outsider]:
    if not _ID.fullmatch(id):
        raise Complaint(
            f"{id!r} is no {family.one}'s id.",
            "An id has letters a-z, digits and hyphens.",
            exit_code=MISUSED,
        )
    return kafka_settings(), Outsider(family=family, id=id)


def _remark_added(found: StepSettings, outsider: Outsider, made: admission.Admitted) -> None:
    user = outsider.user(found.topics)
    remark(
        f"{user} at {found.kafka}: {len(made.topics.created)} topics and {made.grants} permissions made, the rest was "
        f"there. The names of its groups begin with {user}."
    )
    if not made.properties:
        again = f"`gavel {outsider.family.one} rotate {outsider.id}` gives it another."
        remark(f"It has a password already, which isn't shown again. {again}")


def _remark_shut_out(family: Family, id: str) -> None:
    """Say what is left open, whether it is used or not: the database would know, and Kafka needs none."""
    webhook = " and its webhook" if family is Family.BUYERS else ""
    remark(
        f"By HTTP its keys{webhook} work on: `gavel key revoke` ends each key that `gavel key list` has of it. The "
        f"market still has it: `gavel {family.one} pause {id}` ends its trade."
    )


def _say_properties(properties: admission.Properties | None) -> None:
    for name, value in properties or ():
        say(f"{name}={value}")


def _added_json(found: StepSettings, outsider: Outsider, made: admission.Admitted) -> Mapping[str, Any]:
    user = outsider.user(found.topics)
    return {
        "user": user,
        "brokers": found.kafka,
        "groups": f"{user}.",
        "topics_made": made.topics.created,
        "permissions_made": made.grants,
        "quota_made": bool(made.quotas),
        "user_made": bool(made.properties),
    }


def _properties_json(properties: admission.Properties | None) -> Mapping[str, Any]:
    return {"properties": dict(properties) if properties else None}
