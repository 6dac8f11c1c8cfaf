"""`gavel vault`: the master key of what is personal, and giving it a successor without stopping anybody.

It shows no key, only their names, which are hashes of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from services.bus.database import connect
from services.cli.complaints import INTERRUPTED, WENT_WRONG, Complaint
from services.cli.printing import onlookers, remark, say, say_json, say_table
from services.cli.surroundings import settings
from services.vault.keys import make_key, read_key
from services.vault.ring import vault_of
from services.vault.rotation import rewrap_all, rows_by_key
from services.vault.sealing import Vault, key_id_of

app = typer.Typer(help="The vault's master key.", no_args_is_help=True)

_NEXT = (
    "Give it to every intake and router as GAVEL_VAULT_KEY_FILE, with the old key's file in "
    "GAVEL_VAULT_OLDER_KEY_FILES: routers first, one after another, then intake. Then: gavel vault rotate"
)
AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]


@app.command(epilog="Example: gavel vault make secrets/vault-2.key")
def make(
    file: Annotated[Path, typer.Argument(help="Where the key is to be written, for its owner alone.")],
) -> None:
    """Make a master key to go over to; nothing uses it before it is named in the environment."""
    if not make_key(file):
        raise Complaint(f"{file} exists, and a key is never replaced.", "Choose another name.")
    say(f"Key {key_id_of(read_key(file))} is in {file}.")
    say(_NEXT)


@app.command(epilog="Example: gavel vault status --json")
def status(as_json: AsJson = False) -> None:
    """Tell how many rows each master key opens, and whether that key is at hand here."""
    found = settings()
    vault = vault_of(found)
    rows = _rows_by_key(found.database)
    if as_json:
        say_json({"seals": vault.key_id, "opens": sorted(vault.key_ids), "rows": rows})
        return
    keys = sorted({key for table in rows.values() for key in table} | vault.key_ids)
    say_table(
        "Master keys",
        ["key", "here", "#leads", "#consents"],
        [
            (key, _role(key, vault), *(rows[table].get(key, 0) for table in ("leads", "consents")))
            for key in keys
        ],
    )


@app.command(
    epilog="Example: gavel vault rotate. Safe beside running steps, to interrupt, to kill, and to repeat."
)
def rotate(
    batch: Annotated[
        int, typer.Option("--batch", min=1, max=20_000, help="Rows wrapped again in one transaction.")
    ] = 2_000,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count what would be wrapped again, and change nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Wrap all data keys under the key of GAVEL_VAULT_KEY_FILE; those of GAVEL_VAULT_OLDER_KEY_FILES still open."""
    found = settings()
    vault = vault_of(found)
    before = _rows_by_key(found.database)
    missing = sorted({key for table in before.values() for key in table} - vault.key_ids)
    if missing:
        raise Complaint(
            f"Rows are sealed under {', '.join(missing)}, which is not at hand: nothing was changed.",
            "Name its file in GAVEL_VAULT_OLDER_KEY_FILES.",
        )
    rewrapped = 0 if dry_run else _rewrap(found.database, vault, batch, sum(map(_count, before.values())))
    left = _old_rows(before if dry_run else _rows_by_key(found.database), vault)
    if as_json:
        say_json({"key": vault.key_id, "rewrapped": rewrapped, "left": left, "dry_run": dry_run})
    elif dry_run:
        say(f"{left} rows would be wrapped again under {vault.key_id}.")
    else:
        say(f"{rewrapped} rows wrapped again under {vault.key_id}, {left} left under older keys.")
    if left and not dry_run:
        remark("An intake still seals with an older key. Give it the new one, and run this again.")
        raise typer.Exit(WENT_WRONG)
    if not dry_run and not as_json:
        say(
            "No row needs an older key any more: take them off GAVEL_VAULT_OLDER_KEY_FILES, and destroy them."
        )


def _rewrap(url: str, vault: Vault, batch: int, rows: int) -> int:
    from rich.progress import Progress

    done = 0
    try:
        with (
            Progress(console=onlookers(), transient=True) as shown,
            connect(url, role="gavel_vault", application_name="gavel vault rotate") as connection,
        ):
            task = shown.add_task("Rows", total=rows)
            for step in rewrap_all(connection, vault, batch=batch):
                done += step.rewrapped
                shown.advance(task, step.walked)
    except KeyboardInterrupt:
        remark(f"Interrupted: {done} rows wrapped again. Run it again, and it goes on.")
        raise typer.Exit(INTERRUPTED) from None
    return done


def _rows_by_key(url: str) -> Mapping[str, Mapping[str, int]]:
    with connect(
        url, role="gavel_vault", application_name="gavel vault status", transaction_timeout_ms=0
    ) as connection:
        return rows_by_key(connection)


def _old_rows(rows: Mapping[str, Mapping[str, int]], vault: Vault) -> int:
    return sum(count for table in rows.values() for key, count in table.items() if key != vault.key_id)


def _count(table: Mapping[str, Any]) -> int:
    return sum(table.values())


def _role(key: str, vault: Vault) -> str:
    if key == vault.key_id:
        return "seals and opens"
    return "opens" if key in vault.key_ids else "MISSING"
