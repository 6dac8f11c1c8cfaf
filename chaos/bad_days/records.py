"""Bad days by what somebody writes: rubbish, far too much at once, and what nobody can decode.

Each is written as whoever may write there: a source to its own topic, an administrator anywhere.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence

from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient

from chaos.bad_days.day import Scene
from chaos.bad_days.size import Size
from chaos.campaign import CampaignError

_SOURCE = "web"
_UNKNOWN_SCHEMA = 987_654
_LARGE_BYTES = 10 * 1024 * 1024
_ALLOWED_BYTES = 2 * _LARGE_BYTES
_PARTITION = 5


def large_message(scene: Scene, _size: Size) -> None:
    """A source sends 10 MB: first as it may, then to a topic that an administrator has opened to it."""
    topic = scene.subject.topics.source_leads(_SOURCE)
    value = b'{"padding": "' + b"x" * (_LARGE_BYTES - 15) + b'"}'
    try:
        scene.write(topic, 0, [value], **{"message.max.bytes": _ALLOWED_BYTES})
    except CampaignError as refused:
        scene.do("a source's client sent 10 MB")
        scene.see(f"the broker refused it: {str(refused)[-90:]}")
    _allow(scene, topic)
    scene.write(topic, 0, [value], **{"message.max.bytes": _ALLOWED_BYTES})
    scene.do("the topic was opened to 20 MB, and the source sent 10 MB")
    scene.await_said("too large to be put aside", step="intake")
    scene.await_leads(50)
    scene.see("leads behind it were taken")


def poison_flood(scene: Scene, size: Size) -> None:
    """A source sends rubbish without end; the other source's leads go on, and so do its own when it is mended."""
    topic = scene.subject.topics.source_leads(_SOURCE)
    scene.write(topic, 0, (b"{ no JSON %d" % number for number in range(size.poison)))
    scene.do(f"a source wrote {size.poison} records that nobody can read")
    scene.await_said("topic rests", step="intake")
    scene.await_leads(40)
    scene.see("the other source's leads were taken meanwhile")
    letters = scene.subject.topics.dead_letters(topic)
    while (put_aside := scene.ends(letters, 3)) < size.poison:
        scene.restart("intake")
        scene.wait_until("more is put aside", lambda: scene.ends(letters, 3) > put_aside)
    scene.do("intake restarted each time that the topic rested, which reads it on at once")


def unknown_schema(scene: Scene, _size: Size) -> None:
    """A mistaken administrator writes to our own topics what no release can decode."""
    value = struct.pack(">BI", 0, _UNKNOWN_SCHEMA) + b"from elsewhere"
    topics = scene.subject.topics
    for topic in (topics.commands, topics.log):
        scene.write(topic, _PARTITION, [value])
        scene.do(f"somebody wrote a record of schema {_UNKNOWN_SCHEMA} to {topic} partition {_PARTITION}")
        scene.expect_violation(topic)
    for step in ("router", "billing", "resale", "feed"):
        scene.await_said(f"schema id {_UNKNOWN_SCHEMA}", step=step)
    _skip(scene, topics.commands, steps=("router",))
    _skip(scene, topics.log, steps=("billing", "resale", "feed"))


def _skip(scene: Scene, topic: str, *, steps: Sequence[str]) -> None:
    """Do what the error says, as often as it takes until all that stand before the record have gone on."""
    words = f"gavel log skip {topic} {_PARTITION} "
    told = scene.await_said(words)
    offset = told.words.partition(words)[2].split()[0].rstrip(".")
    left = set(steps)

    def all_went_on() -> bool:
        ran = scene.gavel("log", "skip", topic, str(_PARTITION), offset, "--json")
        left.difference_update(json.loads(ran.stdout)["moved"] if ran.returncode == 0 else ())
        return not left

    scene.wait_until(f"{', '.join(steps)} go on behind it", all_went_on, within_s=120)
    scene.do(f"gavel log skip {topic} {_PARTITION} {offset}")


def _allow(scene: Scene, topic: str) -> None:
    admin = KafkaAdminClient(bootstrap_servers=scene.site.kafka)
    try:
        admin.alter_configs(
            [ConfigResource(ConfigResourceType.TOPIC, topic, {"max.message.bytes": str(_ALLOWED_BYTES)})]
        )
    finally:
        admin.close()
