"""Versions of the market in a real PostgreSQL: none is lost, changed or overtaken unseen."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from psycopg import errors
from typer.testing import CliRunner

from services.bus.database import connect
from services.bus.migrations import migrate
from services.contract.market import Market
from services.market import cli, store
from services.market.cli import NotAnnounced, apply_files
from services.market.documents import MarketFile
from services.market.errors import MarketRefused
from tests.unit.market.sample import SMALL, changed, market_of

FILES = [MarketFile("market.yaml", SMALL)]
DEARER = changed("price: 70.00", "price: 75.00")


@pytest.fixture
def url(database: str) -> str:
    migrate(database)
    return database


@pytest.fixture
def connection(url: str) -> Iterator[psycopg.Connection]:
    with connect(url, role=store.ROLE, application_name="test") as opened:
        yield opened


def apply(connection: psycopg.Connection, text: str, base: int, note: str = "") -> int:
    files = [MarketFile("market.yaml", text)]
    return store.apply(connection, market_of(text), base, files=files, applied_by="tester", note=note)


class Heard:
    """An announcement that remembers what it was told."""

    def __init__(self) -> None:
        self.markets: list[Market] = []

    def __call__(self, market: Market) -> None:
        self.markets.append(market)


def broken(market: Market) -> None:
    raise ConnectionError(f"no Kafka for version {market.version}")


def test_before_the_first_apply_there_is_no_market(connection: psycopg.Connection) -> None:
    assert store.current_version(connection) == 0
    assert store.load_current(connection) is None
    with pytest.raises(store.UnknownVersion, match="no market was applied yet"):
        store.load(connection, 0)


def test_an_applied_market_loads_as_it_was_with_its_version(connection: psycopg.Connection) -> None:
    assert apply(connection, SMALL, 0) == 1
    assert store.load(connection, 1) == replace(market_of(SMALL), version=1)
    assert store.load_current(connection) == store.load(connection, 1)


def test_versions_count_without_gaps_and_stay(connection: psycopg.Connection) -> None:
    for version in range(1, 6):
        assert apply(connection, changed("weight: 3", f"weight: {version}"), version - 1) == version
    weights = [store.load(connection, version).buyers["oak"].orders[1].weight for version in range(1, 6)]
    assert weights == [1, 2, 3, 4, 5]


def test_a_stale_base_is_refused_and_changes_nothing(connection: psycopg.Connection) -> None:
    apply(connection, SMALL, 0)
    with pytest.raises(store.StaleBase, match="made from version 0, but version 1 is in force"):
        apply(connection, DEARER, 0)
    assert store.current_version(connection) == 1


def test_a_base_from_the_future_is_refused(connection: psycopg.Connection) -> None:
    with pytest.raises(store.StaleBase):
        apply(connection, SMALL, 3)


def test_the_same_market_gets_no_new_version_whatever_its_base(connection: psycopg.Connection) -> None:
    apply(connection, SMALL, 0)
    assert apply(connection, SMALL, 1) == 1
    assert apply(connection, SMALL, 0) == 1, "as after a connection that was lost in the commit"
    assert apply(connection, f"# another comment\n{SMALL}", 1) == 1
    assert len(store.history(connection)) == 1


def test_a_release_that_adds_keys_makes_no_version_of_a_market_that_stayed(
    connection: psycopg.Connection,
) -> None:
    """The file is what the release before auctions and caps stored of the small market."""
    stored = (Path(__file__).parents[1] / "unit" / "market" / "stored_before_bids.json").read_text().rstrip()
    connection.execute(
        "insert into market.versions (version, base, applied_by, note, files, model, sha256)"
        " values (1, 0, '', '', '[]', %s, sha256(convert_to(%s, 'UTF8')))",
        [stored, stored],
    )
    assert apply(connection, SMALL, 1) == 1
    assert apply(connection, DEARER, 1) == 2


def test_a_market_that_says_every_key_loads_as_it_was(connection: psycopg.Connection) -> None:
    examples = Path(__file__).parents[2] / "examples"
    for base, name in enumerate(["market.yaml", "market-demo.yaml"]):
        text = (examples / name).read_text()
        assert apply(connection, text, base) == base + 1
        assert store.load(connection, base + 1) == replace(market_of(text), version=base + 1)


def test_a_market_may_come_back(connection: psycopg.Connection) -> None:
    assert [apply(connection, text, base) for base, text in enumerate([SMALL, DEARER, SMALL])] == [1, 2, 3]
    assert store.load(connection, 3) == replace(store.load(connection, 1), version=3)


def test_of_many_who_apply_at_once_one_wins(url: str) -> None:
    def attempt(number: int) -> int | None:
        with connect(url, role=store.ROLE, application_name="test", lock_timeout_ms=0) as connection:
            try:
                return apply(connection, changed("weight: 3", f"weight: {number + 10}"), 0)
            except store.StaleBase:
                return None

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(attempt, range(8)), key=str) == [1, *[None] * 7]


def test_history_tells_who_when_and_why_newest_first(connection: psycopg.Connection) -> None:
    apply(connection, SMALL, 0, note="the first")
    apply(connection, DEARER, 1, note="roofs cost more")
    newest, oldest = store.history(connection)
    assert [(row.version, row.note, row.applied_by) for row in (newest, oldest)] == [
        (2, "roofs cost more", "tester"),
        (1, "the first", "tester"),
    ]
    assert newest.applied_at >= oldest.applied_at
    assert newest.sha256 != oldest.sha256
    assert [row.version for row in store.history(connection, limit=1)] == [2]


def test_the_files_are_kept_as_given(connection: psycopg.Connection) -> None:
    files = [MarketFile("a.yaml", f"# ünï \U0001f3e0\r\n{SMALL}"), MarketFile("b.yaml", "")]
    store.apply(connection, market_of(SMALL), 0, files=files, applied_by="tester")
    assert store.load_files(connection, 1) == tuple(files)
    with pytest.raises(store.UnknownVersion):
        store.load_files(connection, 2)


@pytest.mark.parametrize("statement", ["delete from", "truncate", "update"])
def test_no_step_can_change_history(connection: psycopg.Connection, statement: str) -> None:
    apply(connection, SMALL, 0)
    changes = " set note = 'x'" if statement == "update" else ""
    with pytest.raises(errors.InsufficientPrivilege):
        connection.execute(f"{statement} market.versions{changes}".encode())


def test_every_step_reads_the_market_and_only_market_writes_it(
    url: str, connection: psycopg.Connection
) -> None:
    apply(connection, SMALL, 0)
    for step in ("intake", "router", "resale", "billing", "feed", "audit"):
        with connect(url, role=f"gavel_{step}", application_name="test") as reader:
            assert store.load(reader, 1).version == 1
            with pytest.raises(errors.InsufficientPrivilege):
                apply(reader, DEARER, 1)


FORGED = {
    "2, 0": "'{}', sha256('{}')",
    "3, 1": "'{}', sha256('{}')",
    "0, -1": "'{}', sha256('{}')",
    "2, 1": "'{}', sha256('[]')",
}


@pytest.mark.parametrize(("numbers", "model"), FORGED.items())
def test_the_database_refuses_a_version_that_is_not_the_next_or_whose_hash_is_not_its_own(
    connection: psycopg.Connection, numbers: str, model: str
) -> None:
    apply(connection, SMALL, 0)
    insert = "insert into market.versions (version, base, applied_by, note, files, model, sha256)"
    with pytest.raises(errors.CheckViolation):
        connection.execute(f"{insert} values ({numbers}, '', '', '[]', {model})".encode())


def test_apply_files_announces_what_is_in_force(url: str) -> None:
    heard = Heard()
    applied = apply_files(url, FILES, dry_run=False, base_version=None, announce=heard)
    assert (applied.market.version, applied.base_version, applied.dry_run) == (1, 0, False)
    assert heard.markets == [replace(market_of(SMALL), version=1)]
    assert [change.path for change in applied.changes][-1] == "buyers.oak"


def test_a_dry_run_tells_the_difference_and_does_nothing(url: str, connection: psycopg.Connection) -> None:
    heard = Heard()
    apply_files(url, FILES, dry_run=False, base_version=None, announce=heard)
    files = [MarketFile("market.yaml", DEARER)]
    applied = apply_files(url, files, dry_run=True, base_version=1, announce=heard)
    assert (applied.market.version, [str(change) for change in applied.changes]) == (
        2,
        ["~ lead_types.solar.plans.staggered.stages.1.price: 70.00 -> 75.00"],
    )
    assert store.current_version(connection) == 1
    assert len(heard.markets) == 1
    with pytest.raises(store.StaleBase):
        apply_files(url, files, dry_run=True, base_version=0, announce=heard)


def test_a_refused_market_is_neither_applied_nor_announced(url: str, connection: psycopg.Connection) -> None:
    heard = Heard()
    files = [MarketFile("market.yaml", changed("price: 70.00", "price: cheap"))]
    with pytest.raises(MarketRefused):
        apply_files(url, files, dry_run=False, base_version=None, announce=heard)
    assert (store.current_version(connection), heard.markets) == (0, [])


@pytest.mark.parametrize("dry_run", [True, False])
def test_the_currency_of_a_market_in_force_stays(
    url: str, connection: psycopg.Connection, dry_run: bool
) -> None:
    heard = Heard()
    apply_files(url, FILES, dry_run=False, base_version=None, announce=heard)
    files = [MarketFile("market.yaml", changed("currency: USD", "currency: EUR"))]
    with pytest.raises(MarketRefused, match=r"market\.currency: 'EUR': expected USD, as before"):
        apply_files(url, files, dry_run=dry_run, base_version=None, announce=heard)
    assert (store.current_version(connection), len(heard.markets)) == (1, 1)


def test_a_field_that_is_read_otherwise_is_warned_of_and_applied(url: str) -> None:
    heard = Heard()
    apply_files(url, FILES, dry_run=False, base_version=None, announce=heard)
    files = [MarketFile("market.yaml", changed("zip: us_zip", "zip: number"))]
    applied = apply_files(url, files, dry_run=False, base_version=None, announce=heard)
    assert [warning.path for warning in applied.warnings] == ["lead_types.solar.details.zip"]
    assert applied.market.version == 2


def test_what_was_applied_and_not_announced_is_announced_by_applying_again(url: str) -> None:
    with pytest.raises(NotAnnounced, match="version 1 is in force, but what follows failed"):
        apply_files(url, FILES, dry_run=False, base_version=None, announce=broken)
    heard = Heard()
    apply_files(url, FILES, dry_run=False, base_version=0, announce=heard)
    assert [market.version for market in heard.markets] == [1]


@pytest.fixture
def runner(url: str, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.setattr(cli, "after_apply", [])
    return CliRunner(env={"GAVEL_DATABASE": url, "NO_COLOR": "1"})


def test_the_commands_apply_show_and_list(runner: CliRunner, tmp_path: Path) -> None:
    heard = Heard()
    cli.after_apply.append(heard)
    path = tmp_path / "market.yaml"
    path.write_text(SMALL)

    nothing = runner.invoke(cli.app, ["show"])
    assert (nothing.exit_code, nothing.stderr) == (1, "no market was applied yet\n")

    dry = runner.invoke(cli.app, ["apply", str(path), "--dry-run"])
    assert (dry.exit_code, dry.stdout.splitlines()[-1]) == (
        0,
        "version 1 would be applied, made from version 0",
    )
    assert heard.markets == []

    applied = runner.invoke(cli.app, ["apply", str(path), "--note", "a start"])
    assert (applied.exit_code, applied.stdout.splitlines()[-1]) == (
        0,
        "version 1 is in force, made from version 0",
    )
    assert [market.version for market in heard.markets] == [1]

    again = runner.invoke(cli.app, ["apply", str(path)])
    assert (again.exit_code, again.stdout) == (0, "no change: version 1 is this market\n")

    shown = runner.invoke(cli.app, ["show"])
    assert shown.exit_code == 0
    assert market_of(shown.stdout) == market_of(SMALL)

    listed = runner.invoke(cli.app, ["history"])
    assert listed.stdout.startswith("     1  ")
    assert listed.stdout.endswith("a start\n")


def test_the_commands_speak_json(runner: CliRunner, tmp_path: Path) -> None:
    path = tmp_path / "market.yaml"
    path.write_text(SMALL)
    applied = json.loads(runner.invoke(cli.app, ["apply", str(path), "--json"]).stdout)
    assert (applied["version"], applied["base_version"], applied["dry_run"]) == (1, 0, False)
    assert applied["changes"][0] == {"kind": "added", "path": "market.currency", "old": None, "new": "USD"}
    shown = json.loads(runner.invoke(cli.app, ["show", "--version", "1", "--json"]).stdout)
    assert (shown["version"], shown["market"]["currency"]) == (1, "USD")
    listed = json.loads(runner.invoke(cli.app, ["history", "--json"]).stdout)
    assert [row["version"] for row in listed["versions"]] == [1]


def test_the_commands_exit_with_1_when_refused(runner: CliRunner, tmp_path: Path) -> None:
    path = tmp_path / "market.yaml"
    path.write_text(SMALL)
    runner.invoke(cli.app, ["apply", str(path)])
    path.write_text(DEARER)
    stale = runner.invoke(cli.app, ["apply", str(path), "--base", "0", "--json"])
    assert (stale.exit_code, len(json.loads(stale.stdout)["errors"])) == (1, 1)
    assert "made from version 0, but version 1 is in force" in stale.stderr
    missing = runner.invoke(cli.app, ["show", "--version", "9"])
    assert (missing.exit_code, missing.stderr) == (1, "there is no version 9 of the market\n")


def test_a_failing_announcement_is_told(runner: CliRunner, tmp_path: Path) -> None:
    cli.after_apply.append(broken)
    path = tmp_path / "market.yaml"
    path.write_text(SMALL)
    result = runner.invoke(cli.app, ["apply", str(path)])
    assert result.exit_code == 1
    assert "version 1 is in force, but what follows failed (no Kafka for version 1)" in result.stderr


def test_a_database_without_tables_or_without_a_server_is_told(database: str) -> None:
    result = CliRunner(env={"GAVEL_DATABASE": database}).invoke(cli.app, ["history"])
    assert result.exit_code == 1
    nowhere = CliRunner(env={"GAVEL_DATABASE": "postgresql://127.0.0.1:1/x"}).invoke(cli.app, ["history"])
    assert nowhere.exit_code == 1
    assert nowhere.stderr.startswith("the database: ")
