"""Runs a worker of the resale timer: reads the environment, opens the connections, nothing else."""

from __future__ import annotations

import sys

from services.bus.database import connect
from services.bus.hosting import run
from services.bus.kafka import LogProducer
from services.bus.settings import SettingsError, StepSettings, read_settings
from services.resale.app import STEP, build
from services.resale.store import PostgresWindows


def main() -> None:
    """Run until told to stop."""
    try:
        settings = read_settings(StepSettings, who=STEP)
    except SettingsError as error:
        sys.exit(str(error))

    def open_windows() -> PostgresWindows:
        return PostgresWindows(
            lambda: connect(
                settings.database, role="gavel_resale", application_name=f"gavel {STEP} {settings.worker}"
            )
        )

    def open_producer() -> LogProducer:
        return LogProducer(settings.connection(), client_id=f"{settings.worker or STEP}-timers")

    run(build(settings, open_windows=open_windows, open_producer=open_producer))


if __name__ == "__main__":
    main()
