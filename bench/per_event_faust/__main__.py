"""Runs one of the control's workers: `python -m bench.per_event_faust intake|router|billing`."""

from __future__ import annotations

import os
import sys

import faust

from bench.per_event_faust import billing, intake, router
from bench.per_event_faust.settings import Settings

_APPS = {"intake": intake.build_app, "router": router.build_app, "billing": billing.build_app}


def main() -> None:
    """Read the environment, and work until SIGTERM."""
    settings = Settings(
        kafka=os.environ["GAVEL_KAFKA"],
        database=os.environ["GAVEL_DATABASE"],
        namespace=os.environ["GAVEL_NAMESPACE"],
        data_folder=os.environ["BENCH_DATA_FOLDER"],
    )
    app = _APPS[sys.argv[1]](settings)
    faust.Worker(app, loglevel="INFO", redirect_stdouts=False).execute_from_commandline()


if __name__ == "__main__":
    main()
