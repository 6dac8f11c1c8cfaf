"""Kafka's class path: the jars pinned in `kafka-jars.lock`, fetched once through jgo and checked at every use.

Asking for the pinned jars one by one, rather than for Kafka and whatever it depends on, needs no network once they
are there, fetches no POMs, and makes sure that the bytes are those that were tested.
"""

import contextlib
import fcntl
import hashlib
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import jgo
from jgo.constants import default_maven_repo
from jgo.maven import MavenContext

from deploy.local.folder import StackError

ENDPOINT = "org.apache.kafka:kafka_2.13:4.3.0+org.slf4j:slf4j-simple:1.7.36"
LOCK_FILE = Path(__file__).with_name("kafka-jars.lock")
DOWNLOADS_AT_ONCE = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Jar:
    """One artifact of Maven, with the SHA-256 that it must have."""

    group: str
    artifact: str
    version: str
    sha256: str

    def path(self, repository: Path) -> Path:
        """Name the place of the jar in a local Maven repository."""
        folder = repository.joinpath(*self.group.split("."), self.artifact, self.version)
        return folder / f"{self.artifact}-{self.version}.jar"


def pinned() -> tuple[Jar, ...]:
    """Read the lock file."""
    rows = (line.split() for line in LOCK_FILE.read_text().splitlines() if line and not line.startswith("#"))
    coordinates = ((name.split(":"), digest) for name, digest in rows)
    return tuple(Jar(group=g, artifact=a, version=v, sha256=digest) for (g, a, v), digest in coordinates)


def class_path(fallback: Path, progress: Callable[[str], None]) -> list[Path]:
    """Return the jars' paths in the user's Maven repository (in `fallback` if that can't be written).

    Fetches what is missing or damaged, which takes some seconds and the network, once.
    """
    repository = _repository(fallback)
    if damaged := missing(repository):
        with _locked(repository):
            damaged = missing(repository)  # somebody else may have fetched them while this one waited
            if damaged:
                progress(f"Downloading {len(damaged)} of Kafka's jars to {repository} (once) ...")
                _fetch(damaged, repository)
    return [jar.path(repository) for jar in pinned()]


def missing(repository: Path | None = None) -> list[Jar]:
    """List the jars that are absent or not the pinned ones, without fetching anything."""
    place = repository or default_maven_repo()
    return [jar for jar in pinned() if _sha256(jar.path(place)) != jar.sha256]


def _repository(fallback: Path) -> Path:
    for repository in (default_maven_repo(), fallback):
        with contextlib.suppress(OSError):
            repository.mkdir(parents=True, exist_ok=True)
            (repository / ".gavel-lock").touch()
            return repository
    raise StackError(f"Neither {default_maven_repo()} nor {fallback} can be written, so Kafka has no place.")


def _fetch(jars: list[Jar], repository: Path) -> None:
    context = MavenContext(repo_cache=repository)
    with ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool:
        failures = [
            message for message in pool.map(lambda jar: _fetch_one(context, jar, repository), jars) if message
        ]
    if failures:
        raise StackError(
            f"{len(failures)} of Kafka's jars can't be fetched from Maven Central. Is there a network? "
            f"To be tried again with the same command. The first of the failures:\n  {failures[0]}"
        )


def _fetch_one(context: MavenContext, jar: Jar, repository: Path) -> str | None:
    path = jar.path(repository)
    path.unlink(missing_ok=True)  # jgo takes whatever is there for the jar, also half of one
    try:
        context.project(jar.group, jar.artifact).at_version(jar.version).artifact().resolve()
    except (OSError, RuntimeError) as error:
        path.unlink(missing_ok=True)
        return f"{path.name}: {error}"
    if (found := _sha256(path)) != jar.sha256:
        path.unlink(missing_ok=True)
        return f"{path.name}: has SHA-256 {found}, pinned is {jar.sha256}"
    return None


def _sha256(path: Path) -> str | None:
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _locked(repository: Path) -> Iterator[None]:
    with (repository / ".gavel-lock").open("w") as file:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX)
        yield


def _resolved() -> Iterator[str]:
    """Resolve Kafka and its dependencies afresh, into the lines of the lock file."""
    yield f"# Kafka's class path: {ENDPOINT} and what it depends on, as resolved by jgo, with SHA-256."
    yield "# Remake: .venv/bin/python -m deploy.local.jars > new && mv new deploy/local/kafka-jars.lock"
    for artifact in sorted(jgo.resolve(ENDPOINT), key=str):
        yield f"{artifact.groupId}:{artifact.artifactId}:{artifact.version} {_sha256(artifact.resolve())}"


if __name__ == "__main__":
    sys.stdout.writelines(f"{line}\n" for line in _resolved())
