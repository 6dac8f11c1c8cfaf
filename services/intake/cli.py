"""`gavel intake`: what an operator may do at the door. It speaks to people and holds no rule."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from services.bus.database import connect
from services.bus.kafka import LogProducer
from services.bus.settings import StepSettings, read_settings
from services.contract.codec import codec
from services.contract.times import MINUTE_MS
from services.contract.topics import partitions_declared
from services.intake.resend import AcceptedLeads, Resent, listed_leads, open_log, resend

app = typer.Typer(help="The door: emit again what the log has not listed.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Keep `resend` a command of a group, as there will be others."""


@app.command("resend")
def resend_command(
    older_than_minutes: Annotated[
        int,
        typer.Option(
            "--older-than-minutes", min=0, help="Only leads accepted longer ago: the rest is on its way."
        ),
    ] = 5,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say how many would be emitted, and emit nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Emit again the leads that were accepted and that the log has not listed."""
    settings = read_settings(StepSettings, who="intake")
    done = _resend(settings, older_than_minutes * MINUTE_MS, dry_run=dry_run)
    if as_json:
        typer.echo(json.dumps({**asdict(done), "emitted": 0 if dry_run else done.unlisted}))
    else:
        verb = "would be emitted again" if dry_run else "emitted again"
        typer.echo(f"{done.accepted} accepted leads, {done.unlisted} not listed: {verb}")


def _resend(settings: StepSettings, older_than_ms: int, *, dry_run: bool) -> Resent:
    kafka, topics = settings.connection(), settings.topics
    with (
        connect(
            settings.database,
            role="gavel_intake",
            application_name="gavel intake resend",
            transaction_timeout_ms=0,
            idle_in_transaction_timeout_ms=0,
        ) as database,
        open_log(kafka, topics.log) as log,
    ):
        return resend(
            listed_leads(log, codec()),
            AcceptedLeads(database, older_than_ms),
            LogProducer(kafka, client_id="gavel-intake-resend"),
            topics,
            partitions_declared("leads.qualified"),
            dry_run=dry_run,
        )
