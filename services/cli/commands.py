"""Which commands there are, and where each lives; only the one that is called is imported.

So `gavel --help` answers at once: the others are told by the table's words alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import typer


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command: the module and the attribute that it is, a Typer app or a function."""

    name: str
    module: str
    attribute: str
    help: str
    is_group: bool = True

    def load(self) -> Any:
        """Import it."""
        return getattr(import_module(self.module), self.attribute)


COMMANDS: tuple[Command, ...] = (
    Command(
        name="demo",
        module="services.cli.demo_command",
        attribute="demo",
        help="Start everything, sell 2,000 leads, and show what became of them.",
        is_group=False,
    ),
    Command(
        name="stack",
        module="deploy.local.cli",
        attribute="app",
        help="Run real Kafka and PostgreSQL on this machine, from packages: no Docker, no root.",
    ),
    Command(
        name="setup",
        module="services.cli.setup_command",
        attribute="setup",
        help="Bring database and topics to what this release expects; safe to repeat.",
        is_group=False,
    ),
    Command(
        name="doctor",
        module="services.cli.doctor_command",
        attribute="doctor",
        help="Look at a deployment, and say what to do about what is not well.",
        is_group=False,
    ),
    Command(
        name="market",
        module="services.cli.market_commands",
        attribute="app",
        help="What is sold, how, and to whom: check, apply and show the market.",
    ),
    Command(
        name="step",
        module="services.cli.step_commands",
        attribute="app",
        help="Run Gavel's steps: intake, router and the others, each in a process of its own.",
    ),
    Command(
        name="source",
        module="services.cli.source_commands",
        attribute="app",
        help="Do as a source does: send leads, read receipts; pause a source.",
    ),
    Command(
        name="buyer",
        module="services.cli.buyer_commands",
        attribute="app",
        help="Do as a buyer does: listen for leads, pings and offers, answer; pause a buyer.",
    ),
    Command(
        name="order",
        module="services.cli.order_commands",
        attribute="app",
        help="One standing order: what it takes, and what its limits leave; pause it.",
    ),
    Command(
        name="return",
        module="services.cli.return_commands",
        attribute="app",
        help="Leads that buyers want to give back: list them, approve, refuse.",
    ),
    Command(
        name="lead",
        module="services.cli.lead_commands",
        attribute="app",
        help="One lead: its whole story and why, its decisions again, or take it off the market.",
    ),
    Command(
        name="log",
        module="services.cli.log_commands",
        attribute="app",
        help="The log of all decisions: verify it, publish entries again, skip what nobody can read.",
    ),
    Command(
        name="billing",
        module="services.cli.billing_commands",
        attribute="app",
        help="Money: deposits, balances, sales, and the ledger's proof.",
    ),
    Command(
        name="audit",
        module="services.cli.audit_commands",
        attribute="app",
        help="The auditor: judge every guarantee from the topics and the database alone.",
    ),
    Command(
        name="intake",
        module="services.intake.cli",
        attribute="app",
        help="The door: emit again what the log has not listed.",
    ),
    Command(
        name="key",
        module="services.cli.key_commands",
        attribute="app",
        help="API keys and webhook secrets, for those who speak HTTP.",
    ),
    Command(
        name="data",
        module="services.cli.data_commands",
        attribute="app",
        help="What lies in the database: move leads that are long over to the archive.",
    ),
    Command(
        name="subject",
        module="services.cli.subject_command",
        attribute="subject",
        help="One person: who received its data, when, under which promise.",
        is_group=False,
    ),
    Command(
        name="erase",
        module="services.cli.erase_commands",
        attribute="app",
        help="Forget a person, or honour a revoked consent, here and at every holder; see what is open.",
    ),
    Command(
        name="suppress",
        module="services.cli.suppress_commands",
        attribute="app",
        help="People who are not to be asked again: their leads are declined, and taken off the market.",
    ),
    Command(
        name="vault",
        module="services.cli.vault_commands",
        attribute="app",
        help="The vault's master key: make a new one, go over to it, see which rows need which.",
    ),
    Command(
        name="dlq",
        module="services.bus.dead_letters_cli",
        attribute="app",
        help="What intake could not read: list, show and redrive dead letters.",
    ),
)

WITHOUT_SERVERS = frozenset({"demo", "stack"})
"""Commands that see to servers themselves: nobody looks for a local stack on their behalf."""

EPILOG = "Each command answers --help. Exit codes: 0 done, 1 not done, 2 wrongly asked."


def build_app(called: str | None) -> typer.Typer:
    """Make the whole command line, with the command `called` imported and all others by their help only."""
    app = typer.Typer(
        name="gavel",
        help="Gavel sells leads exactly as promised.",
        epilog=EPILOG,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    for command in COMMANDS:
        _mount(app, command, command.load() if command.name == called else None)
    return app


def called_in(arguments: Sequence[str]) -> str | None:
    """Find the command's name among the arguments: `gavel` itself has no option that takes a value."""
    return next((argument for argument in arguments if not argument.startswith("-")), None)


def _mount(app: typer.Typer, command: Command, loaded: Any) -> None:
    if command.is_group:
        group = loaded if loaded is not None else typer.Typer(callback=_not_loaded)
        app.add_typer(group, name=command.name, help=command.help, no_args_is_help=True)
    else:
        function: Callable[..., None] = loaded if loaded is not None else _not_loaded
        app.command(command.name, help=None if loaded is not None else command.help)(function)


def _not_loaded() -> None:
    """Stand in for a command in the list of commands."""
