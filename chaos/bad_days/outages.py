"""Bad days of servers: a broker's disk is full, the database is away for minutes, more comes than can be done."""

from __future__ import annotations

import time
from collections.abc import Mapping

import psutil

from chaos import small_disk
from chaos.bad_days.day import Scene
from chaos.bad_days.size import Size
from chaos.campaign import CampaignError

_FEW = 100
_UNLIMITED = 1_000_000_000
_MEASURED_FOR_S = 20.0
_MEASURED_AT_PER_S = 4_000.0
_DRAINS_WITHIN_S = 1_800.0
_BACK_WITHIN_S = 180.0
_MIB = 1024 * 1024
_GROWS_MIB = 100
_WAITS = "the worker waits for a server"
_NO_BROKER = "_ALL_BROKERS_DOWN"


def database_away(scene: Scene, size: Size) -> None:
    """The database is stopped for longer than workers wait; sources go on sending."""
    sent = scene.load.acknowledgements
    with scene.servers.lock:
        scene.servers.stop("postgres")
        began_s = time.monotonic()
        scene.do(f"the database stopped for {size.database_away_s:.0f} s")
        scene.await_said(_WAITS, step="intake")
        scene.await_doctor("database", "")
        if size.database_away_s > 90:
            scene.await_said("tries in", step="router", within_s=120)
        left_s = began_s + size.database_away_s - time.monotonic()
        scene.wait_until(
            "the time is up", lambda: time.monotonic() >= began_s + size.database_away_s, within_s=left_s + 5
        )
        scene.see(f"Kafka took {scene.load.acknowledgements - sent} submissions meanwhile")
        scene.servers.start()
    _await_drained(scene, "after the database's start")


def disk_full(scene: Scene, size: Size) -> None:
    """The disk of the only broker's log fills up to its last byte, and has room again later."""
    if not small_disk.is_possible():
        raise CampaignError("to make a small disk takes root, on Linux")
    data = scene.servers.data_of_broker()
    with scene.servers.lock:
        scene.servers.stop("kafka-1")
        small_disk.put_under(data, size.disk_mib)
        scene.servers.start()
    scene.do(f"the broker's log put on a disk of {size.disk_mib} MiB")
    scene.await_going_on()
    scene.await_doctor("disk of broker", "GiB free")
    with scene.servers.lock:
        taken = small_disk.fill(data)
        began_s = time.monotonic()
        scene.do(f"the disk filled up with {taken / _MIB:.0f} MiB of something else")
        gone_s = scene.wait_until(
            "the broker has ended", lambda: not scene.servers.runs("kafka-1"), within_s=120
        )
        scene.see(f"the broker shut itself down after {gone_s:.0f} s")
        scene.await_doctor("Kafka", "does not answer")
        for step in ("intake", "router", "resale", "feed"):
            for line in scene.lines(step=step, holding=_NO_BROKER)[-1:]:
                scene.quote(str(line))
        scene.wait_until(
            "the time is up",
            lambda: time.monotonic() >= began_s + size.disk_full_s,
            within_s=size.disk_full_s + 5,
        )
        small_disk.make_room(data)
        scene.servers.start()
        scene.do("room made, and the broker started")
    _await_drained(scene, "after the broker's start")


def overload(scene: Scene, size: Size) -> None:
    """So much more than the steps can do comes in for minutes; then as much as usual."""
    load = scene.load
    load.leads = _UNLIMITED
    load.rate_per_s = _MEASURED_AT_PER_S
    scene.await_leads(1_000)
    before, began_s = load.acknowledgements, time.monotonic()
    _pause(scene, _MEASURED_FOR_S)
    rate = (load.acknowledgements - before) / (time.monotonic() - began_s)
    scene.see(f"at most {rate:.0f} leads/s go through here")
    load.waiting_max = _UNLIMITED
    load.rate_per_s = rate * size.overload_factor
    scene.do(f"{load.rate_per_s:.0f} leads/s for {size.overload_minutes:g} minutes")
    before, memory_before_mib = load.acknowledgements, _memory_mib(scene)
    _pause(scene, size.overload_minutes * 60)
    scene.see(f"{load.acknowledgements - before} submissions taken by Kafka, {scene.waiting()} records wait")
    _require_bounded(scene, memory_before_mib)
    load.leads = load.sent
    load.rate_per_s = rate
    _await_drained(scene, "after the load went back to a quarter")


def rests_after_overload_s(size: Size) -> float:
    """Leave time for the windows of all leads that came while more came than could be done."""
    return 3 * 60 * size.overload_minutes


def _await_drained(scene: Scene, when: str) -> None:
    scene.await_leads(1, within_s=_BACK_WITHIN_S)
    moment_s = time.monotonic()
    scene.watch.next_after(moment_s, _BACK_WITHIN_S)
    few = max(_FEW, scene.load.rate_per_s)  # what comes in within a moment is always on its way
    seconds = scene.wait_until("the lag drains", lambda: scene.waiting() < few, within_s=_DRAINS_WITHIN_S)
    scene.see(f"nothing waited any more {seconds:.0f} s {when}")


def _require_bounded(scene: Scene, before_mib: Mapping[str, float]) -> None:
    """What waits must wait at the brokers: raise `CampaignError` where a worker has grown with it."""
    now_mib = _memory_mib(scene)
    told = [f"{name} {before_mib.get(name, 0):.0f} -> {size_mib:.0f}" for name, size_mib in now_mib.items()]
    scene.see(f"memory of the workers in MiB: {', '.join(told)}")
    grown = [name for name, size_mib in now_mib.items() if size_mib - before_mib.get(name, 0) > _GROWS_MIB]
    if grown:
        raise CampaignError(f"{', '.join(grown)} grew by more than {_GROWS_MIB} MiB under the load")


def _memory_mib(scene: Scene) -> dict[str, float]:
    pids = {name: scene.crew.pid(name) for name in scene.crew.names}
    return {name: psutil.Process(pid).memory_info().rss / _MIB for name, pid in pids.items() if pid}


def _pause(scene: Scene, seconds: float) -> None:
    ends_at_s = time.monotonic() + seconds
    scene.wait_until("the time is up", lambda: time.monotonic() >= ends_at_s, within_s=seconds + 5)
