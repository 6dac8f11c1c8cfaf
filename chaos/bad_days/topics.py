"""A bad day by how topics are: other partition counts than declared, before the start and while all runs."""

from __future__ import annotations

from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

from chaos.bad_days.day import Scene
from chaos.bad_days.size import Size
from chaos.campaign import CampaignError

_ANSWER_S = 30.0
_TOO_FEW = 6


def wrong_partitions(scene: Scene, _size: Size) -> None:
    """Topics have too few partitions where Gavel is to be set up, and get more where it runs."""
    _too_few(scene)
    admin = AdminClient({"bootstrap.servers": scene.site.kafka})
    topics = scene.subject.topics
    grown = {
        topics.qualified: 13,
        topics.commands: 13,
        topics.log: 13,
        topics.source_leads("web"): 5,
        topics.buyer_answers("keen"): 2,
    }
    for done in admin.create_partitions(
        [NewPartitions(name, count) for name, count in grown.items()]
    ).values():
        done.result(_ANSWER_S)
    scene.do(f"somebody added partitions: {', '.join(f'{name} has {n}' for name, n in grown.items())}")
    scene.write(topics.source_leads("web"), 4, [b"{ no JSON"] * 10)
    scene.do("the source writes to its new partitions, rubbish too")
    for step in ("router", "billing"):
        scene.await_said("more partitions than are declared", step=step)
    scene.await_doctor("topics", "partitions is 13")
    pause = scene.gavel("buyer", "pause", "silent")
    scene.see(f"gavel buyer pause, which applies a market: exit code {pause.returncode}")
    if pause.returncode != 0:
        raise CampaignError(f"no market can be applied any more: {pause.stderr.strip()}")
    scene.await_leads(60)


def _too_few(scene: Scene) -> None:
    """Where a topic of ours has too few, nothing may be set up, and no worker may begin."""
    namespace = f"{scene.site.namespace.rstrip('.')}-few."
    name = f"{namespace}leads.commands"
    admin = AdminClient({"bootstrap.servers": scene.site.kafka})
    admin.create_topics([NewTopic(name, _TOO_FEW, 1)])[name].result(_ANSWER_S)
    ran = scene.gavel("setup", GAVEL_NAMESPACE=namespace)
    scene.do(f"gavel setup, where leads.commands has {_TOO_FEW} partitions")
    if ran.returncode != 1:
        raise CampaignError(f"gavel setup took a topic with too few partitions: {ran.stdout}")
    scene.quote(f"gavel setup: {ran.stderr.strip().splitlines()[0]}")
