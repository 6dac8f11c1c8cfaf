"""Runs a worker of the feed: reads the environment, opens the connections, nothing else."""

from __future__ import annotations

import sys

from services.bus.database import connect
from services.bus.hosting import run
from services.bus.kafka import LogProducer
from services.bus.settings import SettingsError, StepSettings, read_settings
from services.feed.app import STEP, build
from services.feed.store import PostgresPositions


def main() -> None:
    """Run until told to stop."""
    try:
        settings = read_settings(StepSettings, who=STEP)
    except SettingsError as error:
        sys.exit(str(error))

    def open_positions() -> PostgresPositions:
        return PostgresPositions(
            lambda: connect(
                settings.database, role="gavel_feed", application_name=f"gavel {STEP} {settings.worker}"
            )
        )

    def open_producer() -> LogProducer:
        return LogProducer(settings.connection(), client_id=f"{settings.worker or STEP}-events")

    run(build(settings, open_positions=open_positions, open_producer=open_producer))


if __name__ == "__main__":
    main()
