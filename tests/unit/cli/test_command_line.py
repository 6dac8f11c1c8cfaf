"""Every command helps, says clearly what is wrong, and ends with the exit code that says whose fault it was."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import services.cli.__main__ as command_line
from services.bus.kafka import Connection
from services.bus.settings import SettingsError
from services.cli.buyer_commands import accept, bid, disposition, encoded, lines_of, no_bid, reject
from services.cli.commands import COMMANDS, Command, build_app, called_in
from services.cli.complaints import INTERRUPTED, MISUSED, Complaint, complaint_about
from services.cli.source_commands import _checked, receipt_line
from services.cli.step_commands import steps
from services.cli.surroundings import adopt_local_stack
from services.contract.events import Disposition, NoBidReason, RejectionReason
from services.intake.answers import read_answer

ROOT = Path(__file__).parents[3]
LEAD_ID = "3f276050-d4f1-5f5c-bcc4-f72e1c5a5436"
runner = CliRunner()


def test_ctrl_c_is_an_interruption_though_kafkas_client_wraps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen of `list_consumer_groups`: the interpreter puts an error of its own around what an extension let pass."""

    def wrapped(_: list[str]) -> None:
        raise SystemError("returned a result with an exception set") from KeyboardInterrupt()

    monkeypatch.setattr(command_line, "_run", wrapped)
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    assert ended.value.code == INTERRUPTED


def test_an_error_of_the_interpreter_that_nobody_asked_for_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: list[str]) -> None:
        raise SystemError("bad call") from ValueError()

    monkeypatch.setattr(command_line, "_run", broken)
    with pytest.raises(SystemError, match="bad call"):
        command_line.main()


def gavel(*arguments: str, tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the real command, without any of the caller's settings, where no stack has been."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GAVEL_")}
    return subprocess.run(
        [sys.executable, "-m", "services.cli", *arguments],
        cwd=tmp_path,
        env={**kept, "PYTHONPATH": str(ROOT), "GAVEL_DATA": str(tmp_path / "none"), **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_help_lists_every_command_and_imports_none(tmp_path: Path) -> None:
    code = (
        "import sys; from services.cli.__main__ import main; sys.argv = ['gavel', '--help']\n"
        "try: main()\n"
        "finally: print(sorted({'psycopg', 'kafka', 'confluent_kafka', 'faust', 'fastavro'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0
    assert done.stdout.endswith("[]\n")
    assert all(f" {command.name} " in done.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_answers_help(command: Command) -> None:
    done = runner.invoke(build_app(command.name), [command.name, "--help"])
    assert done.exit_code == 0, done.output
    assert "Usage" in done.output


@pytest.mark.parametrize(
    ("group", "name"),
    [
        ("step", "run"),
        ("step", "list"),
        ("source", "send"),
        ("source", "receipts"),
        ("buyer", "listen"),
        ("buyer", "answer"),
        ("lead", "show"),
        ("lead", "withdraw"),
        ("log", "verify"),
        ("log", "republish"),
        ("market", "apply"),
    ],
)
def test_every_verb_answers_help(group: str, name: str) -> None:
    done = runner.invoke(build_app(group), [group, name, "--help"])
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    ("group", "name"),
    [
        *((group, name) for group in ("source", "buyer", "order") for name in ("pause", "resume")),
        ("source", "send"),
        ("buyer", "answer"),
        ("order", "show"),
        ("lead", "show"),
        ("lead", "replay"),
        ("lead", "withdraw"),
        ("billing", "deposit"),
        ("billing", "adjust"),
        ("return", "list"),
        ("return", "approve"),
        ("return", "refuse"),
    ],
)
def test_help_has_an_example_that_the_command_line_understands(group: str, name: str) -> None:
    (command,) = [
        each for each in _loaded(group).registered_commands if name in (each.name, _function_name(each))
    ]
    examples = re.findall(rf"gavel ({group} {name} [^,]+)", command.epilog or "")
    assert examples
    for example in examples:
        done = runner.invoke(build_app(group), [*example.split(), "--help"])
        assert done.exit_code == 0, done.output


def _loaded(group: str) -> Any:
    return next(command for command in COMMANDS if command.name == group).load()


def _function_name(command: Any) -> str:
    return str(command.callback.__name__.removesuffix("_command").replace("_", "-"))


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["lead", "nonsense"],
        ["lead", "show", "not-an-id"],
        ["log", "republish", "--partition", "0"],
        ["buyer", "answer", "oak", "maybe", LEAD_ID],
        ["demo", "--leads", "0"],
        ["billing", "deposit", "oak", "1.00"],
        ["return", "approve", LEAD_ID, "0"],
        ["return", "approve", "not-an-id", "1"],
        ["order", "show"],
        ["order", "pause"],
    ],
    ids=" ".join,
)
def test_arguments_that_make_no_sense_end_with_2(arguments: list[str]) -> None:
    done = runner.invoke(build_app(called_in(arguments)), arguments)
    assert done.exit_code == MISUSED, done.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["step", "run", "nonsense"],
        ["lead", "show", LEAD_ID, "--timezone", "Mars/Olympus"],
        ["source", "send", "sunform", "no-such-file.jsonl"],
        ["billing", "deposit", "oak", "0", "--reference", "r"],
        ["billing", "deposit", "oak", "-5.00", "--reference", "r"],
        ["billing", "deposit", "oak", "1.005", "--reference", "r"],
        ["billing", "adjust", "oak", "0.00", "--reference", "r"],
        ["billing", "adjust", "oak", "-1e3", "--reference", "r"],
        ["billing", "adjust", "oak", "-5.00", "--reference", " "],
        ["billing", "adjust", "oak", "-5.00", "--reference", "é"],
        ["buyer", "answer", "oak", "bid", LEAD_ID, "--auction", "1"],
        ["buyer", "answer", "oak", "return", LEAD_ID, "--reason", "price"],
    ],
    ids=" ".join,
)
def test_what_is_not_there_ends_with_2_and_says_so(arguments: list[str], tmp_path: Path) -> None:
    nowhere = {"GAVEL_KAFKA": "127.0.0.1:1", "GAVEL_DATABASE": "postgresql://127.0.0.1:1/x"}
    done = gavel(*arguments, tmp_path=tmp_path, **nowhere)
    assert done.returncode == MISUSED, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")


@pytest.mark.parametrize(
    "arguments",
    [["setup"], ["lead", "show", LEAD_ID], ["buyer", "listen", "oak"], ["source", "send", "sunform", "-"]],
    ids=" ".join,
)
def test_a_missing_environment_is_named_with_what_to_do(arguments: list[str], tmp_path: Path) -> None:
    done = gavel(*arguments, tmp_path=tmp_path)
    assert done.returncode == MISUSED
    assert "error: GAVEL_KAFKA is not set" in done.stderr
    assert "gavel stack up" in done.stderr


def test_servers_that_do_not_answer_are_told_without_a_traceback(tmp_path: Path) -> None:
    done = gavel(
        "lead", "withdraw", LEAD_ID, tmp_path=tmp_path,
        GAVEL_KAFKA="127.0.0.1:1", GAVEL_DATABASE="postgresql://127.0.0.1:1/x",
    )  # fmt: skip
    assert done.returncode == 1
    assert "error: The database does not answer" in done.stderr
    assert "Traceback" not in done.stderr


def test_steps_are_the_packages_that_run() -> None:
    found = steps()
    assert {"intake", "router", "resale", "billing", "feed"} <= found.keys()
    assert "cli" not in found
    assert all(found.values()), "each says what it is"


def test_steps_are_listed_for_machines(tmp_path: Path) -> None:
    done = gavel("step", "list", "--json", tmp_path=tmp_path)
    assert {step["name"] for step in json.loads(done.stdout)["steps"]} == set(steps())


def test_the_called_command_is_the_first_that_is_no_option() -> None:
    assert called_in(["--help"]) is None
    assert called_in(["lead", "show", "x"]) == "lead"


def test_a_defect_of_ours_is_no_complaint() -> None:
    assert complaint_about(AssertionError("a bug")) is None
    assert complaint_about(SettingsError("GAVEL_KAFKA is not set")) is not None


def test_what_is_set_is_never_replaced_by_a_local_stack(tmp_path: Path) -> None:
    environment = {"GAVEL_KAFKA": "kafka:1", "GAVEL_DATA": str(tmp_path)}
    adopt_local_stack(environment)
    assert environment == {"GAVEL_KAFKA": "kafka:1", "GAVEL_DATA": str(tmp_path)}


def test_a_line_that_is_no_json_object_is_named_by_its_number() -> None:
    lines = [b'{"lead_type": "solar"}\n', b"\n", b"[1]\n"]
    with pytest.raises(Complaint, match=r"leads\.jsonl, line 3: expected a JSON object") as complaint:
        list(_checked(lines, "leads.jsonl", None))
    assert "Nothing was sent" in complaint.value.advice
    with pytest.raises(Complaint, match="line 1: not JSON"):
        list(_checked([b"first,last"], "-", None))


def test_empty_lines_are_passed_over() -> None:
    assert list(_checked([b"\n", b' {"a": 1} \r\n', b"  "], "-", None)) == [b'{"a": 1}']


def test_a_receipt_is_written_on_one_line() -> None:
    receipt = {
        "at": "2026-11-22T10:00:00.000Z",
        "lead_id": LEAD_ID,
        "reference": "SU-1",
        "happened": [
            {"type": "accepted"},
            {"type": "declined", "reason": "invalid_phone", "field": "phone"},
            {"type": "sold", "mode": "shared", "sale_number": 2, "sales_max": 3},
            {"type": "closed", "outcome": "partly_sold", "sales": 2},
        ],
    }
    assert receipt_line(receipt) == (
        f"2026-11-22T10:00:00.000Z  {LEAD_ID}  accepted; declined: invalid phone in phone; sold shared, number 2 of at "
        "most 3; closed: partly sold, 2 sold  SU-1"
    )


def test_a_buyers_records_are_written_for_people() -> None:
    notice = {
        "type": "notice",
        "lead_id": LEAD_ID,
        "happened": [{"type": "closed", "outcome": "deal"}],
        "holders": 1,
    }
    refused = {
        "type": "refused",
        "lead_id": LEAD_ID,
        "at": "x",
        "command": "accept_offer",
        "reason": "no_room",
        "log": {},
    }
    assert list(lines_of(notice)) == [f"NOTICE  {LEAD_ID}  closed: deal; held by 1"]
    assert list(lines_of(refused)) == [f"REFUSED  {LEAD_ID}  command accept_offer, reason no_room"]


def test_a_ping_is_written_for_people_with_its_floors_and_deadline() -> None:
    ping = {
        "type": "ping",
        "lead_id": LEAD_ID,
        "auction_number": 2,
        "answer_by": "2026-11-22T11:25:00.500Z",
        "order": "oak/all",
        "modes": ["exclusive", "shared"],
        "floor": {"exclusive": "50.00", "shared": None},
        "currency": "USD",
        "promise": "You pay what you bid.",
        "fields": {"state": "AZ"},
        "quality": 40,
    }
    assert list(lines_of(ping)) == [
        f"PING    {LEAD_ID}  auction 2, exclusive from 50.00, shared from any price USD, answer by "
        "2026-11-22T11:25:00.500Z  oak/all",
        "        You pay what you bid.",
        "        state AZ, quality 40",
    ]


@pytest.mark.parametrize(
    "body",
    [
        bid(LEAD_ID, 1, "85.00", None),
        bid(LEAD_ID, 1, "85", "34.5"),
        no_bid(LEAD_ID, 2, NoBidReason.CAPACITY),
        accept(LEAD_ID, 1),
        reject(LEAD_ID, 1, RejectionReason.OTHER),
        disposition(LEAD_ID, Disposition.DEAL),
    ],
)
def test_what_a_buyer_answers_here_is_read_at_the_door(body: dict[str, Any]) -> None:
    assert read_answer(encoded(body), buyer_id="oak", answered_at_ms=0).lead_id == LEAD_ID


def test_outsiders_clients_take_the_same_connection() -> None:
    assert Connection(bootstrap="a:1,b:2").kafka_python()["bootstrap_servers"] == ["a:1", "b:2"]
