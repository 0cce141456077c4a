"""Why a run ended without a result, as told by an exception, by a signal or by SLURM."""

import errno
import traceback
from pathlib import Path

from kscout.errors import UserError

OUT_OF_MEMORY = "out of memory"
OUT_OF_GPU_MEMORY = "out of GPU memory"
TIME_LIMIT = "time limit"
PREEMPTED = "preempted"
NODE_FAILURE = "node failure"
KILLED = "killed"
CANCELLED = "cancelled"
PRUNED = "pruned"
STORAGE = "storage"
ERROR = "error"

INTERRUPTIONS = (TIME_LIMIT, PREEMPTED, NODE_FAILURE, KILLED, CANCELLED, STORAGE)
"""Causes that lie outside the run: it goes on from its checkpoint."""

SLURM_CAUSES = {
    "OUT_OF_MEMORY": OUT_OF_MEMORY,
    "TIMEOUT": TIME_LIMIT,
    "DEADLINE": TIME_LIMIT,
    "PREEMPTED": PREEMPTED,
    "NODE_FAIL": NODE_FAILURE,
    "BOOT_FAIL": NODE_FAILURE,
    "CANCELLED": CANCELLED,
    "FAILED": ERROR,
}

STORAGE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
OOM_KILLS = Path("/proc/vmstat")
N_LINES = 30
"""Last lines of a traceback that are kept."""


def cause_of(error: BaseException) -> str:
    """The cause that an exception of a run tells.

    PyTorch has no class of its own for want of host memory, so its message decides.
    """
    import torch
    from submitit.core.utils import UncompletedJobError

    chain = _chain(error)
    if isinstance(error, ChildProcessError):  # one of the processes of a distributed training
        return KILLED
    if isinstance(error, UncompletedJobError):  # raised into the run by submitit
        return TIME_LIMIT
    if any(isinstance(e, OSError) and e.errno in STORAGE_ERRORS for e in chain):
        return STORAGE
    if any(isinstance(e, torch.OutOfMemoryError) for e in chain):
        return OUT_OF_GPU_MEMORY
    texts = [str(e).lower() for e in chain]
    if any("cuda" in text and "out of memory" in text for text in texts):
        return OUT_OF_GPU_MEMORY
    starved = ("can't allocate memory", "cannot allocate memory", "not enough memory")
    if any(isinstance(e, MemoryError) for e in chain) or any(
        word in text for word in starved for text in texts
    ):
        return OUT_OF_MEMORY
    return ERROR


def last_lines(error: BaseException) -> str:
    """The end of a traceback, its last line the exception itself."""
    lines = "".join(traceback.format_exception(error)).strip().splitlines()
    return "\n".join(lines[-N_LINES:])


def told(lines: str) -> str:
    """What kept last lines say in one: the exception, or the message alone of a ``UserError``."""
    last = lines.strip().splitlines()[-1] if lines.strip() else ""
    return last.removeprefix(f"{UserError.__module__}.{UserError.__name__}: ")


def n_oom_kills() -> int:
    """How many processes the kernel has killed for want of memory since the machine started."""
    try:
        fields = (line.split() for line in OOM_KILLS.read_text().splitlines())
        return next((int(count) for name, count in fields if name == "oom_kill"), 0)
    except (OSError, ValueError):
        return 0


def _chain(error: BaseException | None) -> "list[BaseException]":
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found
