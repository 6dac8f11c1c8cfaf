"""The `gavel` command: reads the arguments, and turns whatever happens into an exit code.

It owns no command: `commands` has the list. 0 is done, 1 not done, 2 wrongly asked, 130 interrupted.
"""

from __future__ import annotations

import logging
import os
import sys

from services.cli.complaints import INTERRUPTED

HELP = frozenset({"--help", "-h"})


def main() -> None:
    """Run one command and exit."""
    try:
        _run(sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except SystemError as error:
        # Ctrl-C inside a function of Kafka's client may come out so: "returned a result with an exception set" (2.16).
        if not isinstance(error.__cause__, KeyboardInterrupt):
            raise
        sys.exit(INTERRUPTED)


def _run(arguments: list[str]) -> None:
    from services.cli.commands import WITHOUT_SERVERS, build_app, called_in

    # Libraries warn of what they try again by themselves; what matters is raised, and told once.
    logging.getLogger().addHandler(logging.NullHandler())
    called = called_in(arguments)
    app = build_app(called)
    try:
        if called is not None and called not in WITHOUT_SERVERS and not HELP & set(arguments):
            from services.cli.surroundings import adopt_local_stack

            adopt_local_stack(os.environ)
        app(arguments, prog_name="gavel")
    except Exception as error:
        from services.cli.complaints import complaint_about

        complaint = complaint_about(error)
        if complaint is None:
            raise
        sys.exit(_told(complaint.what, complaint.advice, complaint.exit_code))


def _told(what: str, advice: str, exit_code: int) -> int:
    print(f"error: {what}", file=sys.stderr)
    if advice:
        print(f"  {advice}", file=sys.stderr)
    return exit_code


if __name__ == "__main__":
    main()
