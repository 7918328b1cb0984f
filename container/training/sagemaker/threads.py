"""Compute threads of a training process: as many as its CPU quota allows."""

import os
import sys
from pathlib import Path

from container.classifier import machine

VARIABLE = "OMP_NUM_THREADS"


def limit_to_quota(cgroups: Path = machine.CGROUPS) -> None:
    """Limit the compute threads of this process and of those it starts, if it has a CPU quota.

    By the variable that torch and NumPy read when they are loaded; a value that the user has set is
    kept. Without a quota the libraries choose, because the number of threads changes the rounding
    of results.
    """
    quota = machine.cpu_quota(cgroups)
    if quota is None or VARIABLE in os.environ:
        return
    count = max(1, int(quota))
    os.environ[VARIABLE] = str(count)
    # A forked process has torch loaded already.
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(count)
