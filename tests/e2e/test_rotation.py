"""The vault's master key gets a successor while leads are bought and sold: nobody stops, nothing is lost."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import psycopg
import pytest

from deploy.local.stack import Stack
from services.vault.keys import make_key, read_key
from services.vault.sealing import Sealed, Vault, key_id_of
from tests.support.journeys import assert_promises, await_end, closed, send
from tests.support.running import STEPS, STOPS_WITHIN_S, Gavel, running_gavel

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

WITHIN_S = 60.0


@pytest.fixture
def gavel(stack: Stack, database: str, tmp_path: Path) -> Iterator[Gavel]:
    with running_gavel(stack, database, tmp_path, Path(__file__).parent / "market.yaml") as running:
        yield running


def go_over(gavel: Gavel, number: int, keys: Mapping[str, str]) -> None:
    """Replace router and intake as an operator does: the successor runs before its predecessor leaves."""
    for step in ("router", "intake"):
        before = next(name for name in gavel.workers if name.startswith(step))
        gavel.start(step, f"{step}-{number}", **keys)
        gavel.signal(before, signal.SIGTERM)
        assert gavel.workers.pop(before).wait(STOPS_WITHIN_S) == 0


def rotate(gavel: Gavel, keys: Mapping[str, str]) -> int:
    """Wrap what is there again, a row at a time; return how many were, once none is left."""
    done = subprocess.run(
        [sys.executable, "-m", "services.cli", "vault", "rotate", "--batch", "1", "--json"],
        env={**gavel.environment(), **keys},
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    answer = json.loads(done.stdout)
    assert answer["left"] == 0
    return int(answer["rewrapped"])


def sealed_in(gavel: Gavel) -> dict[str, Sealed]:
    with psycopg.connect(gavel.database) as connection:
        rows = connection.execute(
            "select lead_id::text, key_id, wrapped_key, sealed from vault.leads"
        ).fetchall()
    return {lead_id: Sealed(key, bytes(wrapped), bytes(sealed)) for lead_id, key, wrapped, sealed in rows}


def test_master_key_is_replaced_beside_running_steps_and_every_lead_is_sold_delivered_and_readable(
    gavel: Gavel,
) -> None:
    new = gavel.folder / "vault-2.key"
    make_key(new)
    only_new = {"GAVEL_VAULT_KEY_FILE": str(new)}
    both = {**only_new, "GAVEL_VAULT_OLDER_KEY_FILES": gavel.environment()["GAVEL_VAULT_KEY_FILE"]}
    gavel.start_all()
    send(gavel, 0, 90)
    gavel.wait_until("leads are flowing", lambda: closed(gavel) > 0)

    go_over(gavel, 2, both)
    send(gavel, 90, 90)
    rewrapped = rotate(gavel, both)
    while closed(gavel) < 180:
        rewrapped += rotate(gavel, both)
    assert rewrapped, "some were sealed under the old key"

    go_over(gavel, 3, only_new)
    send(gavel, 180, 30)
    await_end(gavel, 210)
    assert_promises(gavel, 210)
    rows, vault = sealed_in(gavel), Vault(read_key(new))
    assert len(rows) == 210
    assert all(json.loads(vault.open(lead_id, row))["contact"]["email"] for lead_id, row in rows.items())


def test_router_that_lacks_the_key_of_a_row_stops_and_names_it_and_with_the_key_delivers(
    gavel: Gavel,
) -> None:
    old, new = gavel.folder / "vault.key", gavel.folder / "vault-2.key"
    make_key(new)
    gavel.start("intake")
    send(gavel, 0, 3)
    gavel.wait_until("sealed leads", lambda: len(sealed_in(gavel)) == 3)
    router = gavel.start("router", GAVEL_VAULT_KEY_FILE=str(new))
    assert router.wait(WITHIN_S) == 1
    gavel.workers.pop("router")
    assert key_id_of(read_key(old)) in gavel.log_of("router")
    for step in STEPS:
        if step not in gavel.workers:
            gavel.start(step)
    await_end(gavel, 3)
    assert_promises(gavel, 3)
