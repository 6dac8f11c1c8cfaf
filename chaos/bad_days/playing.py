"""Plays bad days as a campaign with a trouble of its own: load, trouble, rest, judgement; and tells how each went.

Days may follow each other on one Gavel: then they share their end, and its judgement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from chaos.bad_days.day import BadDay, Scene
from chaos.bad_days.size import Size
from chaos.campaign import Campaign, CampaignError, Outcome, Say, Terms
from chaos.crew import Crew
from chaos.gavel import Gavel
from chaos.judging import AUDITOR
from chaos.leads import SOURCES
from chaos.positions import Offsets, Watch
from chaos.servers import Servers
from chaos.source import Load
from chaos.subject import Site
from services.contract.topics import partitions_declared

WAITING_MAX = 3_000


@dataclass(slots=True, kw_only=True)
class Told:
    """What became of one day. `failure`: why it could not be played to its end."""

    day: BadDay
    scene: Scene
    leads: int = 0
    failure: str | None = None


@dataclass(slots=True, kw_only=True)
class Played:
    """What became of days that were played on one Gavel."""

    told: list[Told] = field(default_factory=list)
    outcome: Outcome | None = None
    dead_letters: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def is_well(self) -> bool:
        """Tell whether all went as it must."""
        return not self.problems and all(told.failure is None for told in self.told)


def play(days: Sequence[BadDay], size: Size, servers: Servers, folder: Path, say: Say) -> Played:
    """Play days, one after the other, on servers that run, in a namespace and a database of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    site = _site(servers, folder, size)
    subject = Gavel(site, leads=size.leads, judge=AUDITOR, workers_a_step=1)
    played = Played()

    def trouble(crew: Crew, watch: Watch, load: Load) -> None:
        for day in days:
            scene = Scene(
                subject=subject, site=site, servers=servers, crew=crew, watch=watch, load=load, say=say
            )
            played.told.append(_told(day, size, scene))

    campaign = Campaign(
        subject=subject,
        site=site,
        servers=servers,
        plan=(),
        terms=Terms(
            leads=size.leads,
            seconds=size.leads / size.rate_per_s,
            rate_per_s=size.rate_per_s,
            waiting_max=WAITING_MAX,
            recovers_within_s=size.rests_within_s,
            rests_within_s=size.rests_within_s + sum(day.rests_s(size) for day in days),
        ),
        say=say,
        trouble=trouble,
    )
    try:
        played.outcome = campaign.run()
    except CampaignError as error:
        played.problems.append(str(error))
        return played
    played.dead_letters = _dead_letters(site, subject)
    played.problems += _problems(
        played.outcome, [words for told in played.told for words in told.scene.expected]
    )
    return played


def _told(day: BadDay, size: Size, scene: Scene) -> Told:
    """Play one day. What keeps it from its end is told; the days behind it are played all the same."""
    scene.say(f"{day.name}: {day.what}")
    told = Told(day=day, scene=scene)
    before = scene.load.acknowledgements
    try:
        day.play(scene, size)
    except CampaignError as error:
        told.failure = str(error)
        scene.say(f"  FAILED: {error}")
    told.leads = scene.load.acknowledgements - before
    return told


def _site(servers: Servers, folder: Path, size: Size) -> Site:
    return Site(
        kafka=servers.stack.kafka,
        database=servers.database("gavel_bad_days"),
        namespace="bad-days.",
        folder=folder,
        brokers=1,
        vault_key_file=servers.stack.vault_key_file,
        fingerprint_key_file=servers.stack.fingerprint_key_file,
        session_timeout_ms=size.session_timeout_ms,
    )


def _problems(outcome: Outcome, expected: Sequence[str]) -> list[str]:
    """Say what is not as it must be: nothing lost, nothing broken but what was meant to be."""
    assert outcome.judgement is not None, "judged once it has come to its end"
    violations = outcome.judgement.violations
    return [
        *(f"not at rest: {each}" for each in outcome.missing),
        *(f"not taken by Kafka: {each}" for each in outcome.refused),
        *(each for each in violations if not any(words in each for words in expected)),
        *(f"not found by the auditor: {words}" for words in expected if not _is_in(words, violations)),
    ]


def _is_in(words: str, violations: Sequence[str]) -> bool:
    return any(words in violation for violation in violations)


def _dead_letters(site: Site, subject: Gavel) -> int:
    topics = [subject.topics.dead_letters(subject.topics.source_leads(source)) for source in SOURCES]
    partitions = range(partitions_declared("sources.<id>.leads"))
    return sum(Offsets(site.kafka).ends((topic, at) for topic in topics for at in partitions).values())
