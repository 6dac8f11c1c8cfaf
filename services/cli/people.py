"""What the commands about people have in common: whose leads they speak of, found by keyed hashes.

An address is read, hashed and forgotten: it is neither stored, nor logged, nor said again.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from uuid import UUID

import psycopg

from services.bus.database import connect
from services.bus.settings import StepSettings
from services.cli.asking import place_all, wait_for_all
from services.cli.complaints import MISUSED, Complaint
from services.cli.printing import onlookers
from services.contract.identity import IdentityKeys
from services.contract.inputs import Command
from services.intake.normalisation import ContactError
from services.intake.qualification import subject_of
from services.vault.keys import read_key
from services.vault.people import leads_of

FROM_STDIN = "-"
PERSON_HELP = "An email address, a phone number, or a lead's id; - reads it from standard input."


def identity_keys(found: StepSettings) -> IdentityKeys:
    """Read the key by which people are known again; raise `Complaint` where none is named."""
    if found.fingerprint_key_file is None:
        raise Complaint(
            "GAVEL_FINGERPRINT_KEY_FILE is not set.",
            "People are found by hashes that only this key makes: name intake's.",
            exit_code=MISUSED,
        )
    return IdentityKeys(read_key(found.fingerprint_key_file))


def given(text: str) -> str:
    """Give what was asked for; `-` is a line of standard input, which no list of processes shows."""
    return (sys.stdin.readline() if text == FROM_STDIN else text).strip()


def hashed(text: str, found: StepSettings) -> bytes:
    """Hash an email address or a phone number as the door does; raise `Complaint` for what is neither."""
    try:
        return subject_of(text, identity_keys(found))
    except ContactError as error:
        raise Complaint(
            f"That is neither an email address nor a phone number: {error}.",
            "A phone number outside the USA begins with + and its country code.",
            exit_code=MISUSED,
        ) from None


def lead_id_in(text: str) -> str | None:
    """Read a lead's id, in capital letters or small ones; None for what names a person."""
    try:
        return str(UUID(text))
    except ValueError:
        return None


def lead_ids_of(text: str, found: StepSettings) -> list[str]:
    """Name a person's leads, or the one lead that is meant by its id."""
    lead_id = lead_id_in(text)
    if lead_id is not None:
        return [lead_id]
    with as_operator(found) as connection:
        return leads_of(connection, [hashed(text, found)])


def as_operator(found: StepSettings) -> psycopg.Connection:
    """Connect as whoever sees to the rights of people; it waits for batches at the door, which are short."""
    return connect(
        found.database, role="gavel_vault", application_name="gavel people", lock_timeout_ms=10_000,
        transaction_timeout_ms=0, idle_in_transaction_timeout_ms=10_000,
    )  # fmt: skip


def have_decided(
    found: StepSettings, connection: psycopg.Connection, commands: Sequence[Command], *, wait_s: float
) -> int:
    """Put commands before the router and wait for its decisions; return how many it has not decided in time."""
    from rich.progress import Progress

    placed = place_all(found, commands)
    left = len(placed)
    with Progress(console=onlookers(), transient=True) as shown:
        task = shown.add_task("Decided", total=len(placed))
        for left in wait_for_all(connection, placed, wait_s=wait_s):
            shown.update(task, completed=len(placed) - left)
    return left
