"""A master key gets a successor on real tables: killed halfway and finished, beside erasures, with no row lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner

from services.bus.database import connect
from services.bus.migrations import migrate
from services.cli.complaints import Complaint
from services.cli.vault_commands import app
from services.contract.ids import lead_id_of
from services.vault import rotation
from services.vault.keys import make_key, read_key
from services.vault.sealing import Sealed, Vault, VaultError, key_id_of

pytestmark = pytest.mark.integration

ROWS = 600
WITHIN_S = 30.0
FAR_AHEAD_MS = 4_000_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    url: str
    old: Path
    new: Path

    @property
    def environment(self) -> dict[str, str]:
        return {
            "GAVEL_KAFKA": "nowhere:1",
            "GAVEL_DATABASE": self.url,
            "GAVEL_VAULT_KEY_FILE": str(self.new),
            "GAVEL_VAULT_OLDER_KEY_FILES": str(self.old),
        }

    def rows(self, table: str = "leads") -> dict[str, Sealed]:
        with psycopg.connect(self.url) as connection:
            query = f"select lead_id::text, key_id, wrapped_key, sealed from vault.{table}"
            found = connection.execute(query.encode()).fetchall()
        return {
            lead_id: Sealed(key, bytes(wrapped), bytes(sealed)) for lead_id, key, wrapped, sealed in found
        }

    def under_the_new_key(self) -> int:
        return sum(row.key_id == key_id_of(read_key(self.new)) for row in self.rows().values())


@pytest.fixture
def place(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    migrate(database)
    given = Place(url=database, old=tmp_path / "old.key", new=tmp_path / "new.key")
    make_key(given.old)
    make_key(given.new)
    _fill(given)
    for name, value in given.environment.items():
        monkeypatch.setenv(name, value)
    return given


def _fill(place: Place) -> None:
    vault = Vault(read_key(place.old))
    with psycopg.connect(place.url) as connection, connection.cursor() as cursor:
        for table in rotation.TABLES:
            rows = [
                (lead_id, *vault.seal(lead_id, f"{table} {number}".encode()), FAR_AHEAD_MS)
                for number in range(ROWS)
                for lead_id in [lead_id_of("rotation", str(number))]
            ]
            cursor.executemany(f"insert into vault.{table} values (%s, %s, %s, %s, %s)".encode(), rows)


def _rotate(*options: str) -> dict[str, object]:
    result = CliRunner().invoke(app, ["rotate", "--json", *options], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    answer: dict[str, object] = json.loads(result.stdout)
    return answer


def test_afterwards_the_new_key_opens_everything_and_the_old_one_nothing(place: Place) -> None:
    assert _rotate("--dry-run")["left"] == 2 * ROWS
    assert place.under_the_new_key() == 0
    assert _rotate()["rewrapped"] == 2 * ROWS
    for table in rotation.TABLES:
        for lead_id, row in place.rows(table).items():
            assert Vault(read_key(place.new)).open(lead_id, row).decode().startswith(table)
            with pytest.raises(VaultError):
                Vault(read_key(place.old)).open(lead_id, row)
    assert _rotate()["rewrapped"] == 0


def test_killed_halfway_a_second_run_finishes(place: Place) -> None:
    command = [sys.executable, "-m", "services.cli", "vault", "rotate", "--batch", "1"]
    process = subprocess.Popen(command, env={**os.environ, **place.environment})
    try:
        deadline_s = time.monotonic() + WITHIN_S
        while not place.under_the_new_key():
            assert time.monotonic() < deadline_s, "nothing was wrapped again"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = place.under_the_new_key()
    assert 0 < done < ROWS, "it is to be killed halfway"
    both = Vault(read_key(place.new), older_keys=[read_key(place.old)])
    assert all(both.open(lead_id, row) for lead_id, row in place.rows().items())
    assert _rotate()["rewrapped"] == 2 * ROWS - done
    assert place.under_the_new_key() == ROWS


def test_a_missing_key_is_named_and_nothing_is_changed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GAVEL_VAULT_OLDER_KEY_FILES")
    with pytest.raises(Complaint, match=key_id_of(read_key(place.old))):
        CliRunner().invoke(app, ["rotate"], catch_exceptions=False)
    assert place.under_the_new_key() == 0


def test_a_row_erased_or_wrapped_again_since_it_was_read_is_left_alone(place: Place) -> None:
    """The planted bug: an update that does not look at the key it replaces gives a row another row's key."""
    erased, newer = (lead_id_of("rotation", str(number)) for number in (1, 2))
    both = Vault(read_key(place.new), older_keys=[read_key(place.old)])
    sealed_since = both.seal(newer, b"leads since")
    with connect(place.url, role="gavel_vault", application_name="test") as connection:
        rows = rotation._read(connection, "leads", rotation._FIRST, ROWS)
        with psycopg.connect(place.url) as other:
            other.execute("delete from vault.leads where lead_id = %s", [erased])
            change = "update vault.leads set key_id = %s, wrapped_key = %s, sealed = %s where lead_id = %s"
            other.execute(change, [*sealed_since, newer])
        assert rotation._write(connection, "leads", rows, both) == ROWS - 2
    assert erased not in place.rows()
    assert both.open(newer, place.rows()[newer]) == b"leads since"


def test_whoever_rotates_cannot_read_what_is_sealed(place: Place) -> None:
    with (
        connect(place.url, role="gavel_vault", application_name="test") as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute("select sealed from vault.leads")


def test_says_so_while_an_intake_still_seals_with_the_old_key(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = lead_id_of("rotation", "late")
    rewrap = rotation._write

    def and_then_intake_seals(*given: object) -> int:
        written = rewrap(*given)  # type: ignore[arg-type]  # passed on as they came
        with psycopg.connect(place.url) as other:
            row = Vault(read_key(place.old)).seal(late, b"leads late")
            insert = "insert into vault.leads values (%s, %s, %s, %s, %s) on conflict do nothing"
            other.execute(insert, [late, *row, FAR_AHEAD_MS])
        return written

    monkeypatch.setattr(rotation, "_write", and_then_intake_seals)
    # The walk is over when the row comes: its id is behind the last that was read, or before it.
    result = CliRunner().invoke(app, ["rotate", "--batch", str(2 * ROWS)], catch_exceptions=False)
    left = len(place.rows()) - place.under_the_new_key()
    assert left == 1
    assert result.exit_code == 1
    assert _rotate()["left"] == 0
