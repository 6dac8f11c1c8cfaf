"""Runs a billing worker: `python -m services.billing`. It alone reads the environment and opens connections."""

from __future__ import annotations

import sys

import psycopg

from services.billing.app import STEP, build
from services.billing.settings import BillingSettings
from services.billing.store import ROLE, PostgresLedger
from services.bus.database import connect
from services.bus.hosting import run
from services.bus.settings import SettingsError, read_settings


def main() -> None:
    """Read the settings and run until told to stop."""
    try:
        settings = read_settings(BillingSettings, who=STEP)
    except SettingsError as error:
        sys.exit(str(error))

    def open_connection() -> psycopg.Connection:
        return connect(settings.database, role=ROLE, application_name=f"gavel {STEP}")

    run(build(settings, open_ledger=lambda: PostgresLedger(open_connection)))


if __name__ == "__main__":
    main()
