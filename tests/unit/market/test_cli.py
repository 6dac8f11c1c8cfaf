"""`gavel market` where it needs no database: checking, telling what is wrong, and exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from services.market.cli import app
from tests.unit.market.sample import SMALL, changed

RUNNER = CliRunner(env={"GAVEL_DATABASE": "", "NO_COLOR": "1"})


@pytest.fixture
def market_file(tmp_path: Path) -> Path:
    path = tmp_path / "market.yaml"
    path.write_text(SMALL)
    return path


def test_check_says_what_a_good_market_holds(market_file: Path) -> None:
    result = RUNNER.invoke(app, ["check", str(market_file)])
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == "a market of 1 lead type, 1 source, 1 buyer, 2 orders\n"


def test_check_lists_errors_on_stderr_and_exits_with_1(market_file: Path) -> None:
    market_file.write_text(changed("price: 70.00", "price: cheap"))
    result = RUNNER.invoke(app, ["check", str(market_file)])
    assert (result.exit_code, result.stdout) == (1, "")
    assert (
        f"{market_file}:20: lead_types.solar.plans.staggered.stages.1.price: 'cheap': expected"
        in result.stderr
    )
    assert result.stderr.endswith("1 error, nothing applied\n")


def test_check_shows_warnings_and_exits_with_0(market_file: Path) -> None:
    market_file.write_text(changed("takes: {exclusive: 95.00}", "takes: {exclusive: 8.99}"))
    result = RUNNER.invoke(app, ["check", str(market_file)])
    assert result.exit_code == 0
    assert result.stderr.startswith("warning: ")


def test_errors_are_json_for_machines(market_file: Path) -> None:
    market_file.write_text(changed("price: 70.00", "price: cheap"))
    result = RUNNER.invoke(app, ["check", str(market_file), "--json"])
    (error,) = json.loads(result.stdout)["errors"]
    assert (result.exit_code, error["line"], error["value"]) == (1, 20, "cheap")
    assert error["path"] == "lead_types.solar.plans.staggered.stages.1.price"


def test_a_missing_file_is_told_by_its_name() -> None:
    result = RUNNER.invoke(app, ["check", "nowhere.yaml"])
    assert result.exit_code == 1
    assert "nowhere.yaml: expected a file that can be read" in result.stderr


@pytest.mark.parametrize("command", [["apply", "market.yaml"], ["show"], ["history"]])
def test_without_a_database_it_says_what_to_do_and_exits_with_2(command: list[str]) -> None:
    result = RUNNER.invoke(app, command)
    assert result.exit_code == 2
    assert "GAVEL_DATABASE is not set" in result.stderr
    assert "export GAVEL_DATABASE=postgresql://" in result.stderr


def test_no_files_is_misuse() -> None:
    assert RUNNER.invoke(app, ["check"]).exit_code == 2


def test_every_command_has_help() -> None:
    for command in ("apply", "check", "show", "history"):
        result = RUNNER.invoke(app, [command, "--help"])
        assert result.exit_code == 0
        assert "--json" in result.stdout
