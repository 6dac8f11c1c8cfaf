"""`gavel step`: which steps there are, and running one of them in place of this process.

A step is a package of `services` with a `__main__`; what it needs is in its environment, which this process hands on.
"""

from __future__ import annotations

import ast
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from services.cli.complaints import MISUSED, Complaint
from services.cli.printing import say, say_json

SERVICES = Path(__file__).parents[1]

app = typer.Typer(help="Run Gavel's steps.", no_args_is_help=True)


@app.command()
def run(name: Annotated[str, typer.Argument(help="Which: `gavel step list` has them.")]) -> None:
    """Run one worker of a step until it is stopped (Ctrl-C, SIGTERM); start several for more speed."""
    if name not in steps():
        raise Complaint(f"There is no step {name!r}.", f"There are: {', '.join(steps())}.", exit_code=MISUSED)
    os.execv(sys.executable, command(name))


@app.command("list")
def list_steps(as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False) -> None:
    """List the steps, and what each is for."""
    found = steps()
    if as_json:
        say_json({"steps": [{"name": name, "about": about} for name, about in found.items()]})
        return
    for name, about in found.items():
        say(f"{name:<9} {about}")


def command(name: str) -> list[str]:
    """Say how a worker of a step is started."""
    return [sys.executable, "-m", f"services.{name}"]


def steps() -> dict[str, str]:
    """Find the steps, each with the first line that its package says of itself."""
    mains = sorted(SERVICES.glob("*/__main__.py"))
    names = [main.parent.name for main in mains if main.parent.name != Path(__file__).parent.name]
    return {name: _about(SERVICES / name / "__init__.py") for name in names}


def _about(package: Path) -> str:
    said = ast.get_docstring(ast.parse(package.read_text())) or ""
    return said.partition("\n")[0]
