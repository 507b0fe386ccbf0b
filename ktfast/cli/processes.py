"""Run one command on several processes that torchrun has started: rank 0 runs it, the others help.

Only rank 0 prints. All processes end with the exit status of rank 0.
"""

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ktfast.cli.printing import print_line
from ktfast.pipeline.stage_names import STAGES

if TYPE_CHECKING:
    from ktfast.pipeline.team import Team

SHARED = ("run", *STAGES)
"""Commands whose work several processes share. Other commands run on every process."""


def joined(command: "Callable[[Team | None], int]", arguments: Sequence[str]) -> int:
    """Run a command on rank 0 and help on the other processes; a single process runs the command.

    Parameters
    ----------
    command : callable
        Called on rank 0 with the processes, or with None on a single process. Returns the exit
        status.
    arguments : sequence of str
        The words after `ktfast`.

    Returns
    -------
    status : int
        Exit status of the process.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1" or not {*arguments[:1]} & {*SHARED}:
        return command(None)
    from ktfast.kmeans.distributed import CommunicationError
    from ktfast.pipeline.team import TorchTeam, started_by_launcher

    if not started_by_launcher():
        return command(None)
    try:
        team = TorchTeam()
        if not team.leads:
            logging.disable()  # rank 0 logs
            with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
                return team.serve()
    except KeyboardInterrupt as stop:
        return 128 + getattr(stop, "signal", signal.SIGINT)
    except CommunicationError as error:
        print_line(f"ktfast: {error}", sys.stderr)
        return 1
    status = 1
    try:
        status = command(team)
    except SystemExit as stop:  # argparse
        status = stop.code if isinstance(stop.code, int) else 1
        raise
    finally:
        team.dismiss(status)
    return status
