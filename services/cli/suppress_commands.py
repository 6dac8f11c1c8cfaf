"""`gavel suppress`: people who are not to be asked again, kept as keyed hashes.

It decides nothing: intake declines what comes after, and the router withdraws what is open.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Annotated

import psycopg
import typer

from services.bus.settings import StepSettings
from services.cli.asking import DECIDED_WITHIN_S, WaitS
from services.cli.complaints import MISUSED, WENT_WRONG, Complaint
from services.cli.people import as_operator, given, hashed, have_decided, identity_keys
from services.cli.printing import onlookers, remark, say, say_json
from services.cli.surroundings import connect_as_auditor, settings
from services.contract.events import WithdrawalReason
from services.contract.inputs import WithdrawLead
from services.intake.normalisation import ContactError
from services.intake.qualification import subject_of
from services.vault.people import leads_of, suppress, suppressed_count, unsuppress

app = typer.Typer(help="People who are not to be asked again.", no_args_is_help=True)

AT_ONCE = 1_000
BAD_LINES_SHOWN = 10
_OPEN = """
select given.lead_id::text from unnest(%s::uuid[]) as given (lead_id)
where not exists (select from router.all_closes c where c.lead_id = given.lead_id)
"""

Person = Annotated[
    str | None,
    typer.Argument(
        metavar="PERSON", help="An email address or a phone number; - reads it from standard input."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]


@dataclass(slots=True, kw_only=True)
class Done:
    """What came of an addition; `bad_lines` are the numbers of lines that were neither address nor number."""

    added: int = 0
    known: int = 0
    withdrawn: int = 0
    undecided: int = 0
    bad_lines: list[int] = field(default_factory=list)


@app.command(
    epilog="Examples: gavel suppress add someone@mail.example, gavel suppress add --file people.txt. Safe to repeat."
)
def add(
    person: Person = None,
    file: Annotated[
        Path | None, typer.Option("--file", help="Many at once: an address or a number on each line.")
    ] = None,
    wait_s: WaitS = DECIDED_WITHIN_S,
    as_json: AsJson = False,
) -> None:
    """Decline these people's leads from now on, and take those off the market that are open."""
    found = settings()
    done = Done()
    with as_operator(found) as connection, connect_as_auditor(found.database) as auditor:
        for subjects in _subjects(person, file, found, done):
            done.added += (new := suppress(connection, subjects))
            done.known += len(subjects) - new
            _withdraw(found, auditor, leads_of(connection, subjects), wait_s, done)
    _tell(done, as_json=as_json)


@app.command(epilog="Example: gavel suppress remove someone@mail.example")
def remove(person: Person, as_json: AsJson = False) -> None:
    """Take this person's leads again."""
    found = settings()
    with as_operator(found) as connection:
        removed = unsuppress(connection, [hashed(given(person or ""), found)])
    if as_json:
        say_json({"removed": removed})
    else:
        say("No longer suppressed." if removed else "That person was not on the list.")


@app.command(epilog="Examples: gavel suppress count, gavel suppress count someone@mail.example")
def count(person: Person = None, as_json: AsJson = False) -> None:
    """Count the people on the list, or tell whether one is there. Who they are, nobody can tell from it."""
    found = settings()
    subjects = None if person is None else [hashed(given(person), found)]
    with as_operator(found) as connection:
        people = suppressed_count(connection, subjects)
    if as_json:
        say_json({"count": people})
    elif subjects is None:
        say(f"{people} suppressed.")
    else:
        say("Suppressed." if people else "Not suppressed.")


def _subjects(
    person: str | None, file: Path | None, found: StepSettings, done: Done
) -> Iterator[Sequence[bytes]]:
    if (person is None) == (file is None):
        raise Complaint("Name a person, or a --file of them.", exit_code=MISUSED)
    if file is None:
        yield [hashed(given(person or ""), found)]
        return
    keys = identity_keys(found)
    with _opened(file) as lines:
        numbered = enumerate(lines, start=1)
        while some := list(islice(numbered, AT_ONCE)):
            subjects: dict[bytes, None] = {}
            for number, line in some:
                try:
                    if line.strip():
                        subjects[subject_of(line, keys)] = None
                except ContactError:
                    done.bad_lines.append(number)
            yield list(subjects)


@contextmanager
def _opened(file: Path) -> Iterator[Iterator[str]]:
    """Read a file's lines, with progress in bytes."""
    from rich.progress import Progress

    try:
        size, opened = file.stat().st_size, file.open(encoding="utf-8")
    except OSError as error:
        raise Complaint(f"{file} can't be read: {error.strerror}.", exit_code=MISUSED) from None
    with opened, Progress(console=onlookers(), transient=True) as shown:
        task = shown.add_task("People", total=size)

        def lines() -> Iterator[str]:
            for line in opened:
                shown.advance(task, len(line.encode()))
                yield line

        yield lines()


def _withdraw(
    found: StepSettings, auditor: psycopg.Connection, lead_ids: Sequence[str], wait_s: float, done: Done
) -> None:
    """Withdraw what is not closed; a lead that is not listed yet will be closed on arrival."""
    open_leads = [lead_id for (lead_id,) in auditor.execute(_OPEN, [lead_ids])]
    if not open_leads:
        return
    reason = WithdrawalReason.SUPPRESSED
    commands = [WithdrawLead(lead_id=lead_id, reason=reason) for lead_id in open_leads]
    left = have_decided(found, auditor, commands, wait_s=wait_s)
    done.withdrawn += len(open_leads) - left
    done.undecided += left


def _tell(done: Done, *, as_json: bool) -> None:
    if as_json:
        say_json(asdict(done))
    else:
        say(f"{done.added} added, {done.known} known already; {done.withdrawn} open leads withdrawn.")
    if done.bad_lines:
        shown = ", ".join(map(str, done.bad_lines[:BAD_LINES_SHOWN]))
        more = ", ..." if len(done.bad_lines) > BAD_LINES_SHOWN else ""
        remark(f"{len(done.bad_lines)} lines are neither an address nor a number: {shown}{more}")
    if done.undecided:
        remark(
            f"{done.undecided} withdrawals stand in leads.commands and are not decided yet: is a router running? "
            "Repeat this to see."
        )
    if done.bad_lines or done.undecided:
        raise typer.Exit(WENT_WRONG)
