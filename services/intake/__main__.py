"""Runs a worker of intake: reads the environment and the keys, opens the connections, nothing else."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from services.bus.database import connect
from services.bus.hosting import run
from services.bus.kafka import LogProducer, OutsiderProducer
from services.bus.settings import SettingsError, StepSettings, read_settings
from services.contract.identity import IdentityKeys
from services.intake.app import STEP, Opened, build
from services.intake.store import PostgresIntakeStore
from services.vault.keys import KeyFileError, read_key
from services.vault.ring import vault_of


def main() -> None:
    """Run until told to stop."""
    try:
        settings = read_settings(StepSettings, who=STEP)
        opened = _opened(settings)
    except (SettingsError, KeyFileError) as error:
        sys.exit(str(error))
    run(build(settings, opened))


def _opened(settings: StepSettings) -> Opened:
    client_id = settings.worker or STEP
    return Opened(
        store=lambda: PostgresIntakeStore(
            lambda: connect(
                settings.database, role="gavel_intake", application_name=f"gavel {STEP} {settings.worker}"
            )
        ),
        inside=lambda: LogProducer(settings.connection(), client_id=f"{client_id}-leads"),
        outside=lambda: OutsiderProducer(settings.connection(), client_id=f"{client_id}-receipts"),
        vault=vault_of(settings),
        keys=IdentityKeys(_key(settings.fingerprint_key_file, "GAVEL_FINGERPRINT_KEY_FILE")),
        now_ms=lambda: time.time_ns() // 1_000_000,
    )


def _key(path: Path | None, variable: str) -> bytes:
    if path is None:
        raise SettingsError(f"{variable} is not set: the file with one of the two keys that intake needs")
    return read_key(path)


if __name__ == "__main__":
    main()
