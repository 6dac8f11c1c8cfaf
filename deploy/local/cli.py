"""The commands `gavel stack up | down | status | doctor`.

What people and machines asked for goes to standard output, progress and complaints to standard error. Exit code 0 means
well, 1 not well, 2 a wrong call.
"""

import dataclasses
import json
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import typer

from deploy.local import stack
from deploy.local.stack import Check, ServerStatus, StackError

app = typer.Typer(
    name="stack",
    help="Run real Kafka and PostgreSQL on this machine, from packages: no Docker, no root.",
    no_args_is_help=True,
)

Data = Annotated[
    Path,
    typer.Option(
        "--data",
        envvar="GAVEL_DATA",
        help="Folder of the data, logs, secrets and remembered ports.",
        file_okay=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Answer in JSON on standard output.")]
Port = Annotated[
    int | None, typer.Option(min=1, max=65_533, help="Free, and the same the next time, if not given.")
]
Brokers = Annotated[
    Literal["1", "3"] | None,
    typer.Option(help="Kafka's nodes, fixed when the folder is made: 1 if not given."),
]
Secured = Annotated[
    bool | None,
    typer.Option(
        "--secured/--plain",
        help="Whether Kafka asks who one is (SCRAM, ACLs), fixed when the folder is made: not, if not given.",
    ),
]
Seconds = Annotated[float, typer.Option(min=1, help="How long each server may take until it answers.")]


@app.command()
def up(
    data: Data = Path(".gavel"),
    kafka_port: Port = None,
    postgres_port: Port = None,
    brokers: Brokers = None,
    secured: Secured = None,
    seconds: Seconds = stack.START_SECONDS,
    as_json: Json = False,
) -> None:
    """Start what is missing, and print the environment that finds it: eval "$(gavel stack up)".

    Servers named by GAVEL_KAFKA and GAVEL_DATABASE are used as they are. A second call finds everything running.
    """
    with _complaints():
        running = stack.up(
            data,
            kafka_port=kafka_port,
            postgres_port=postgres_port,
            brokers={None: None, "1": 1, "3": 3}[brokers],
            secured=secured,
            seconds=seconds,
            progress=_progress,
        )
    environment = stack.environment(running)
    if as_json:
        _print_json({"data": running.data_dir, "started": running.started, "environment": environment})
    else:
        _print(f"export {name}={shlex.quote(value)}" for name, value in environment.items())


@app.command()
def down(data: Data = Path(".gavel"), as_json: Json = False) -> None:
    """Stop the servers of this folder, in order; their data stays."""
    with _complaints():
        stopped = stack.down(data, progress=_progress)
    if as_json:
        _print_json({"data": data.absolute(), "stopped": stopped})
    elif not stopped:
        _progress(f"Nothing is running in {data.absolute()}.")


@app.command()
def status(data: Data = Path(".gavel"), as_json: Json = False) -> None:
    """Tell whether both servers answer, and where; exit code 1 if one doesn't."""
    with _complaints():
        servers = stack.status(data)
    if as_json:
        _print_json({"data": data.absolute(), "servers": [dataclasses.asdict(server) for server in servers]})
    else:
        _print(_status_line(server) for server in servers)
    raise typer.Exit(code=0 if all(server.answers for server in servers) else 1)


@app.command()
def doctor(data: Data = Path(".gavel"), as_json: Json = False) -> None:
    """Look for what may keep the stack from working, and say what to do; exit code 1 if there is something."""
    with _complaints():
        checks = stack.doctor(data)
    if as_json:
        _print_json({"data": data.absolute(), "checks": [dataclasses.asdict(check) for check in checks]})
    else:
        _print(line for check in checks for line in _check_lines(check))
    raise typer.Exit(code=0 if all(check.ok for check in checks) else 1)


@contextmanager
def _complaints() -> Iterator[None]:
    try:
        yield
    except StackError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(code=1) from error


def _status_line(server: ServerStatus) -> str:
    state = "answers" if server.answers else "does not answer" if server.address else "not started yet"
    where = _without_password(server.address) if server.address else ""
    whose = (
        "existing"
        if server.external
        else f"pid {', '.join(map(str, server.pids))}"
        if server.pids
        else "not running"
    )
    return f"{server.name:<9} {state:<16} {where}  ({whose})"


def _check_lines(check: Check) -> Iterator[str]:
    yield f"{'ok ' if check.ok else 'BAD'}  {check.name}: {check.found}"
    if not check.ok:
        yield f"     {check.advice}"


def _without_password(address: str) -> str:
    parts = urlsplit(address)
    if parts.password is None:
        return address
    return parts._replace(netloc=parts.netloc.replace(f":{parts.password}@", ":***@")).geturl()


def _progress(message: str) -> None:
    typer.echo(message, err=True)


def _print(lines: Iterator[str]) -> None:
    for line in lines:
        typer.echo(line)


def _print_json(answer: Mapping[str, Any]) -> None:
    typer.echo(json.dumps(answer, indent=2, default=str))
