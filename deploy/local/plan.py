"""Which ports a start uses: those asked for, else those of the last start, else free ones.

Decides only: what has been decided is stored by the caller, before anything is started on it.
"""

from collections.abc import Callable
from dataclasses import replace

from deploy.local import kafka, postgres, processes
from deploy.local.folder import Folder, Remembered, StackError, port_is_free


def kafka_ports(
    folder: Folder, state: Remembered, port: int | None, brokers: int | None, progress: Callable[[str], None]
) -> Remembered:
    """Choose the ports of all nodes; raises `StackError` for ports or a number of brokers that can't be had."""
    made_with = len(state.kafka_ports)
    if made_with and brokers not in (None, made_with):
        raise StackError(
            f"{folder.path} was made with --brokers {made_with}. Choose another folder with --data."
        )
    count = made_with or brokers or 1
    given = tuple(range(port, port + count)) if port is not None else ()
    if any(processes.find(node) for node in kafka.nodes(folder, state)):
        if given not in ((), state.kafka_ports):
            raise StackError(
                f"Kafka is running already at {kafka.bootstrap(state)}. `gavel stack down` stops it."
            )
        return state
    ports = _ports(folder, "kafka", state.kafka_ports, given, count, set(), progress)
    others = {*ports, state.postgres_port or 0}
    controllers = _ports(folder, "controller", state.controller_ports, (), count, others, progress)
    return replace(state, kafka_ports=ports, controller_ports=controllers)


def security(folder: Folder, state: Remembered, secured: bool | None) -> Remembered:
    """Choose whether Kafka asks who one is, once for all; raises `StackError` for the other afterwards."""
    if not state.kafka_ports:
        return replace(state, secured=bool(secured))
    if secured not in (None, state.secured):
        made = "--secured" if state.secured else "--plain"
        raise StackError(f"{folder.path} was made with {made}. Choose another folder with --data.")
    return state


def postgres_port(
    folder: Folder, state: Remembered, port: int | None, progress: Callable[[str], None]
) -> Remembered:
    """Choose the port of the database server; raises `StackError` if the one asked for can't be had."""
    if processes.find(postgres.server(folder)):
        if port not in (None, state.postgres_port):
            raise StackError(
                f"PostgreSQL is running already at 127.0.0.1:{state.postgres_port}. `gavel stack down` stops it."
            )
        return state
    remembered = (state.postgres_port,) if state.postgres_port else ()
    given = (port,) if port is not None else ()
    others = {*state.kafka_ports, *state.controller_ports}
    (chosen,) = _ports(folder, "postgres", remembered, given, 1, others, progress)
    return replace(state, postgres_port=chosen)


def _ports(
    folder: Folder,
    purpose: str,
    remembered: tuple[int, ...],
    given: tuple[int, ...],
    count: int,
    others: set[int],
    progress: Callable[[str], None],
) -> tuple[int, ...]:
    for port in given:
        if port in others or not port_is_free(port):
            raise StackError(
                f"Port {port}, asked for with --{purpose}-port, is taken on 127.0.0.1. "
                "Choose another, or leave the option out for a free one."
            )
    if given:
        return given
    if remembered and all(port_is_free(port) for port in remembered):
        return remembered
    if remembered:
        progress(f"The {purpose} port of the last start, {remembered[0]}, is taken by now: choosing another.")
    chosen: list[int] = []
    for _ in range(count):
        chosen.append(folder.free_port(purpose, {*others, *chosen}))
    return tuple(chosen)
