"""`gavel doctor`: looks at a deployment, as far as one can from here, and says what to do about what is not well.

It changes nothing, and needs neither the local stack nor a worker. What may keep the local stack from working,
`gavel stack doctor` says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Annotated

import typer

from services.bus.settings import SettingsError, StepSettings
from services.cli.complaints import WENT_WRONG
from services.cli.doctor_checks import Check
from services.cli.doctor_database import look_at_database
from services.cli.doctor_kafka import look_at_kafka
from services.cli.printing import say, say_json
from services.cli.surroundings import settings
from services.vault.keys import KeyFileError, read_key
from services.vault.ring import vault_of

_KEYS = "Without it leads are neither taken nor delivered: docs/operations.md, Backups and secrets."


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False) -> None:
    """Look at a deployment, and say what to do; exit code 1 if something is not well."""
    checks = tuple(examine(settings()))
    if as_json:
        say_json({"ok": all(check.ok for check in checks), "checks": [asdict(check) for check in checks]})
    else:
        for line in (line for check in checks for line in _lines(check)):
            say(line)
    raise typer.Exit(0 if all(check.ok for check in checks) else WENT_WRONG)


def examine(found: StepSettings) -> Iterator[Check]:
    """Look at keys, database and Kafka, in this order."""
    yield _key("key of the vault", lambda: vault_of(found))
    yield _key("key of fingerprints", lambda: _fingerprint_key(found))
    database = look_at_database(found.database)
    yield from database.checks
    yield from look_at_kafka(found, database.market, with_log=database.is_set_up)


def _key(name: str, read: Callable[[], object]) -> Check:
    try:
        read()
    except (KeyFileError, SettingsError) as error:
        return Check(name=name, ok=False, found=str(error), advice=_KEYS)
    return Check(name=name, ok=True, found="can be read, and by no others")


def _fingerprint_key(found: StepSettings) -> bytes:
    if found.fingerprint_key_file is None:
        raise SettingsError("GAVEL_FINGERPRINT_KEY_FILE is not set")
    return read_key(found.fingerprint_key_file)


def _lines(check: Check) -> Iterator[str]:
    yield f"{'ok ' if check.ok else 'BAD'}  {check.name}: {check.found}"
    if not check.ok:
        yield f"     {check.advice}"
