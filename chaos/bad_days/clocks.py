"""A bad day by clocks: every step's own is minutes off, in both directions, and the database's is put forward.

The protocol has the database's clock decide, and the brokers' say what was in time: rules 10, 27 and 29.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from chaos import skewed_clock
from chaos.bad_days.day import Scene
from chaos.bad_days.size import Size
from chaos.campaign import CampaignError
from chaos.crew import Command


def clock_skew(scene: Scene, size: Size) -> None:
    """Workers' clocks are off by minutes; then the database's jumps."""
    if not skewed_clock.is_possible():
        raise CampaignError("there is no C compiler `cc` to make a clock that is off")
    skews = {"intake": size.skew_s, "router": -size.skew_s, "resale": -size.skew_s, "billing": size.skew_s}
    with skewed_clock.library() as library:
        ordinary = scene.crew.command

        def command(step: str, name: str) -> Command:
            found = ordinary(step, name)
            own = skewed_clock.environment(library, skews.get(step, 0))
            return Command(arguments=found.arguments, environment={**found.environment, **own})

        scene.crew.command = command
        scene.restart(*scene.subject.steps)
        scene.do("all steps restarted: " + _told(skews))
        scene.await_going_on()
        _let_the_database_jump(scene, library, size.skew_s)
        scene.crew.command = ordinary
        scene.restart(*scene.subject.steps)
        scene.do("all clocks put right")
        scene.see(f"every step went on in every partition after {scene.await_going_on(within_s=400):.0f} s")


def _let_the_database_jump(scene: Scene, library: Path, skew_s: int) -> None:
    with scene.servers.lock:
        scene.servers.stop("postgres")
        with skewed_clock.put_off(library, skew_s):
            scene.servers.start()
    scene.do(f"the database restarted with its clock {skew_s} s ahead")
    scene.await_said("the database's clock jumped", step="router")
    scene.await_doctor("clock of the database", "+")
    with scene.servers.lock:
        scene.servers.stop("postgres")
        scene.servers.start()
    scene.do("the database restarted with its clock put right")


def _told(skews: Mapping[str, int]) -> str:
    return ", ".join(f"{step}'s clock {skew:+d} s" for step, skew in skews.items())
