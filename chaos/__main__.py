"""Runs a fault campaign: `python -m chaos`, what `make chaos` does.

Reads the arguments, starts servers of its own, and writes what was found. Exit code 0: nothing lost and nothing broken;
1: something was, or the campaign could not be carried out; 2: wrongly asked; 130: interrupted. SIGTERM and Ctrl-C end
it in order: nothing that it started lives on.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from confluent_kafka import KafkaException
from rich.console import Console

from bench.command_line import count, end_in_order_on, positive, writable_folder
from chaos import report
from chaos.campaign import Campaign, CampaignError, Outcome, Terms
from chaos.connections import CannotCutError
from chaos.control import PerEventFaust
from chaos.gavel import Gavel
from chaos.judging import JUDGES
from chaos.plan import plan
from chaos.servers import Servers, own_servers
from chaos.subject import Site, Subject
from deploy.local.stack import StackError
from services.bus.ports import BusFailed
from services.bus.settings import StepSettings

LOGS = Path(__file__).parents[1] / ".chaos"
"""Where the logs of workers and servers stay; `make clean` removes them."""

RESULTS = Path(__file__).parent / "results"
_INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_CONTROL_SHARE = 10
_CONTROL_REST_S = 120.0
NOT_OURS = ("GAVEL_KAFKA", "GAVEL_DATABASE", "GAVEL_NAMESPACE", "GAVEL_KAFKA_CONFIG", "GAVEL_WEB_PORT",
             "GAVEL_VAULT_KEY_FILE", "GAVEL_FINGERPRINT_KEY_FILE")  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """What to do, and how much of it."""

    leads: int
    faults: int
    minutes: float
    brokers: Literal[1, 3]
    seed: int
    rate: float | None
    waiting_max: int
    session_timeout_ms: int
    recovers_within_s: float
    rests_within_s: float
    only: str | None
    control: bool
    judge: str
    keep: bool
    results: Path
    name: str


def main() -> int:
    """Carry the campaigns out, show, write; return the exit code."""
    arguments = _arguments(sys.argv[1:])
    end_in_order_on(_INTERRUPTS)
    for name in NOT_OURS:
        os.environ.pop(name, None)  # servers are killed here: never those that somebody else runs
    console = Console(stderr=True)
    outcomes: list[Outcome] = []
    try:
        for each in _campaigns(arguments):
            outcomes.append(_carried_out(each, arguments, console))
            report.show(console, outcomes[-1])
    except (CampaignError, StackError, BusFailed, CannotCutError, KafkaException) as error:
        console.print(f"The campaign failed. {error}", style="red", markup=False)
        return 1
    except KeyboardInterrupt:
        console.print("Interrupted; everything that was started is stopped.")
        return 130
    finally:
        if outcomes:
            _write(outcomes, arguments, console)
    # The control is there to be broken: what it loses is published and is no failure of the campaign.
    return 0 if all(outcome.is_well for outcome in outcomes if outcome.subject == Gavel.name) else 1


def _campaigns(arguments: Arguments) -> list[tuple[str, Arguments]]:
    """Say which campaigns follow each other; the control's is smaller, as it is so much slower."""
    ours = [(Gavel.name, arguments)] if arguments.only != "control" else []
    if not arguments.control and arguments.only != "control":
        return ours
    smaller = arguments
    if arguments.only != "control":
        smaller = replace(
            arguments,
            leads=max(arguments.leads // _CONTROL_SHARE, 1),
            faults=max(arguments.faults // 4, 1),
            minutes=arguments.minutes / 4,
        )
    return [*ours, (PerEventFaust.name, replace(smaller, rests_within_s=_CONTROL_REST_S))]


def _carried_out(which: tuple[str, Arguments], arguments: Arguments, console: Console) -> Outcome:
    subject_name, own = which

    def say(message: str) -> None:
        console.print(message, style="dim", markup=False, highlight=False)

    logs = LOGS / f"{arguments.name}-{subject_name.lower().replace(' ', '-')}"
    logs.mkdir(parents=True, exist_ok=True)
    console.print(
        f"{subject_name}: {own.leads:,} leads, {own.faults} faults in {own.minutes:g} minutes, "
        f"{own.brokers} broker(s), seed {own.seed}. Logs: {logs}",
        markup=False,
    )
    with own_servers(own.brokers, logs, say, keep=arguments.keep) as servers:
        site = _site(servers, logs, own)
        subject: Subject = (
            Gavel(site, leads=own.leads, judge=own.judge)
            if subject_name == Gavel.name
            else PerEventFaust(site)
        )
        campaign = Campaign(
            subject=subject,
            site=site,
            servers=servers,
            plan=plan(
                seed=own.seed,
                faults=own.faults,
                seconds=own.minutes * 60,
                steps=subject.hit,
                workers_a_step=subject.workers_a_step,
                brokers=own.brokers,
                session_timeout_s=own.session_timeout_ms / 1_000,
            ),
            terms=Terms(
                leads=own.leads,
                seconds=own.minutes * 60,
                rate_per_s=own.rate or own.leads / (own.minutes * 60),
                waiting_max=own.waiting_max,
                recovers_within_s=own.recovers_within_s,
                rests_within_s=own.rests_within_s,
            ),
            say=say,
        )
        return campaign.run()


def _site(servers: Servers, logs: Path, own: Arguments) -> Site:
    return Site(
        kafka=servers.stack.kafka,
        database=servers.database("gavel_chaos"),
        namespace="chaos.",
        folder=logs,
        brokers=own.brokers,
        vault_key_file=servers.stack.vault_key_file,
        fingerprint_key_file=servers.stack.fingerprint_key_file,
        session_timeout_ms=own.session_timeout_ms,
    )


def _write(outcomes: Sequence[Outcome], arguments: Arguments, console: Console) -> None:
    shown = {name: value for name, value in asdict(arguments).items() if name not in ("results", "name")}
    found = report.document(outcomes, shown, at=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}")
    path = arguments.results / f"{arguments.name}.json"
    path.write_text(json.dumps(found, indent=2) + "\n")
    console.print(f"Written to {path}", markup=False)


def _arguments(words: Sequence[str]) -> Arguments:
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__.splitlines()[0])
    add = parser.add_argument
    default_session_ms = StepSettings.model_fields["session_timeout_ms"].default
    add("--leads", type=count, default=5_000, help="at least so many submissions (default 5000)")
    add("--faults", type=count, default=20, help="how many faults (default 20)")
    add("--minutes", type=positive, default=5.0, help="over how long they are spread (default 5)")
    add("--brokers", type=int, choices=(1, 3), default=1, help="with 3, topics have three copies (default 1)")
    add("--seed", type=int, default=7, help="of the faults: which, whom, when (default 7)")
    add("--rate", type=positive, help="submissions a second (default: the leads over the minutes)")
    add("--waiting-max", type=count, default=3_000, help="no more are sent while so many wait (default 3000)")
    add(
        "--session-timeout-ms",
        type=count,
        default=default_session_ms,
        help=f"of the workers' groups (default {default_session_ms}, that of Gavel)",
    )
    add(
        "--recovers-within",
        type=positive,
        default=90.0,
        help="seconds after which a fault counts as not recovered from (default 90)",
    )
    add(
        "--rests-within",
        type=positive,
        default=300.0,
        help="seconds until all must be at rest (default 300)",
    )
    add("--control", action="store_true", help="then the same, smaller, against the per-event Faust pipeline")
    add("--only", choices=("gavel", "control"), help="one of the two alone, at the size given")
    add(
        "--judge",
        choices=JUDGES,
        default=JUDGES[0],
        help="who judges: gavel audit, the tests' own checker (slower, and in memory), or both (default auditor)",
    )
    add("--keep", action="store_true", help="leave the servers' data behind")
    add("--name", default=f"{datetime.now(UTC):%Y-%m-%dT%H%M%SZ}", help="of the file with the results")
    add(
        "--results",
        type=writable_folder,
        default=str(RESULTS),
        help="folder of that file (default chaos/results)",
    )
    given = parser.parse_args(words)
    return Arguments(
        leads=given.leads,
        faults=given.faults,
        minutes=given.minutes,
        brokers=given.brokers,
        seed=given.seed,
        rate=given.rate,
        waiting_max=given.waiting_max,
        session_timeout_ms=given.session_timeout_ms,
        recovers_within_s=given.recovers_within,
        rests_within_s=given.rests_within,
        only=given.only,
        control=given.control,
        judge=given.judge,
        keep=given.keep,
        results=given.results,
        name=given.name,
    )


if __name__ == "__main__":
    sys.exit(main())
