"""`gavel market`, with what must follow an apply: the topics of new sources and buyers, and the announcement.

The commands are `services.market.cli`'s; here they only get their surroundings.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from copy import copy
from functools import wraps
from typing import Any

import typer
from typer.models import CommandInfo

from services.bus.administration import CreatedTopics, announce, create_topics
from services.bus.settings import StepSettings
from services.cli.complaints import Complaint
from services.cli.insiders import administration, let_insiders_in
from services.cli.printing import remark
from services.cli.setup_command import is_set_up, set_up
from services.cli.surroundings import settings
from services.contract.market import Market
from services.market import cli

__all__ = ["app", "follow_apply"]


def follow_apply(market: Market, found: StepSettings) -> CreatedTopics:
    """Make the topics of a market that is in force, let the steps use them, and announce it."""
    made = create_topics(administration(found), found.topics, market)
    let_insiders_in(found, market)
    announce(found.connection(), found.topics, version=market.version, at_ms=time.time_ns() // 1_000_000)
    return made


def _follow_and_tell(market: Market) -> None:
    made = follow_apply(market, settings())
    if made.created:
        remark(f"Topics made: {len(made.created)}.")
    for difference in made.differences:
        remark(f"warning: {difference}")


def _set_up_first(apply: Callable[..., None]) -> Callable[..., None]:
    """Let an apply find a database that is set up, and everything that must follow it."""

    @wraps(apply)
    def apply_command(**given: Any) -> None:
        if given.get("database"):
            os.environ["GAVEL_DATABASE"] = given["database"]
        found = settings()
        if not is_set_up(found.database):
            if given.get("dry_run"):
                raise Complaint(
                    "The database is not set up.", "Run `gavel setup` first; a dry run changes nothing."
                )
            done = set_up(found)
            remark(
                f"The database was empty: set it up first, with {len(done.migrations)} migrations and "
                f"{len(done.topics.created)} topics."
            )
        apply(**given)

    return apply_command


def _command_of(given: CommandInfo) -> CommandInfo:
    """Copy a command of the library, which stays as it is; its apply is surrounded here."""
    command = copy(given)
    if command.callback is cli.apply_command:
        command.callback = _set_up_first(cli.apply_command)
    return command


cli.after_apply.append(_follow_and_tell)
app = typer.Typer(help=cli.app.info.help, no_args_is_help=True)
app.registered_commands = [_command_of(command) for command in cli.app.registered_commands]
