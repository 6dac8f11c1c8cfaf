"""The demo's doors: its sources and buyers get users of their own, as `gavel source | buyer add` gives them.

One thread speaks for all buyers, and one for all sources, so the demo itself speaks as a user that may do what all of
them may together, and nothing else.
"""

from __future__ import annotations

from dataclasses import replace

from services.bus.doors import open_doors
from services.bus.kafka import Connection
from services.bus.settings import StepSettings, user_file
from services.cli.admission import admit, save
from services.cli.insiders import administration, fresh_password, keep, outsiders_of, properties_of
from services.contract.access import Family, Grant, Operation, Outsider, Resource, outsider_grants
from services.contract.market import Market
from services.contract.topics import Topics


def people(found: StepSettings, market: Market) -> Connection:
    """Let all outsiders of a market in, and say how the demo speaks for them; without doors, as everybody does."""
    folder = found.users_folder
    if folder is None:
        return found.connection()
    for user, properties in admit(found, outsiders_of(market)).properties.items():
        save(found, user, properties)
    user, password = f"{found.namespace}demo.people", fresh_password()
    keep(user_file(folder, user), properties_of(administration(found), user, password))
    with open_doors(administration(found)) as doors:
        doors.let_in(
            {replace(grant, user=user) for each in outsiders_of(market) for grant in _of(found.topics, each)}
        )
        doors.set_passwords({user: password})
    return found.as_user(user).connection()


def _of(topics: Topics, outsider: Outsider) -> list[Grant]:
    """What an outsider may do; of sources, the demo counts the dead letters, too."""
    user = outsider.user(topics)
    own = [grant for grant in outsider_grants(topics, outsider) if grant.user == user]
    if outsider.family is Family.BUYERS:
        return own
    dead = topics.dead_letters(topics.source_leads(outsider.id))
    return [*own, Grant(user=user, resource=Resource.TOPIC, name=dead, operation=Operation.READ)]
