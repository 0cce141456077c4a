"""Why a run ended without a result, as told by an exception, by a signal or by SLURM."""

import errno
import subprocess
import traceback
from collections.abc import Sequence
from pathlib import Path

from kscout.errors import StorageError, UserError

OUT_OF_MEMORY = "out of memory"
OUT_OF_GPU_MEMORY = "out of GPU memory"
TIME_LIMIT = "time limit"
PREEMPTED = "preempted"
NODE_FAILURE = "node failure"
KILLED = "killed"
CANCELLED = "cancelled"
PRUNED = "pruned"
STORAGE = "storage"
LOST_CONNECTION = "lost connection"
ERROR = "error"

INTERRUPTIONS = (
    TIME_LIMIT,
    PREEMPTED,
    NODE_FAILURE,
    KILLED,
    CANCELLED,
    STORAGE,
    LOST_CONNECTION,
)
"""Causes that lie outside the run: it goes on from its checkpoint."""

STORAGE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
STARVED = (
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "can't start new thread",
)
CUT_OFF = ("connection closed by peer", "connection reset by peer", "broken pipe")
OOM_KILLS = Path("/proc/vmstat")
N_LINES = 30
"""Last lines of a traceback that are kept."""


def cause_of(error: BaseException) -> str:
    """The cause that an exception of a run tells.

    PyTorch has no class of its own for want of host memory, nor for a lost connection, so their
    messages decide.
    """
    import torch
    from submitit.core.utils import UncompletedJobError

    if isinstance(error, ChildProcessError):  # one of the processes of a distributed training
        return KILLED
    if isinstance(error, UncompletedJobError | subprocess.CalledProcessError):
        return TIME_LIMIT  # raised into the run by submitit, which could not requeue it
    chain = _chain(error)
    if any(_is_of_storage(e) for e in chain):
        return STORAGE
    if any(isinstance(e, torch.OutOfMemoryError) for e in chain):
        return OUT_OF_GPU_MEMORY
    texts = [str(e).lower() for e in chain]
    if any("cuda" in text and "out of memory" in text for text in texts):
        return OUT_OF_GPU_MEMORY
    if any(isinstance(e, MemoryError) for e in chain) or _any_in(STARVED, texts):
        return OUT_OF_MEMORY
    lost = any(isinstance(e, torch.distributed.DistBackendError) for e in chain)
    return LOST_CONNECTION if lost or _any_in(CUT_OFF, texts) else ERROR


def _is_of_storage(error: BaseException) -> bool:
    full = isinstance(error, OSError) and error.errno in STORAGE_ERRORS
    return full or isinstance(error, StorageError)


def _any_in(words: Sequence[str], texts: Sequence[str]) -> bool:
    return any(word in text for word in words for text in texts)


def last_lines(error: BaseException) -> str:
    """The end of a traceback, its last line the exception itself."""
    lines = "".join(traceback.format_exception(error)).strip().splitlines()
    return "\n".join(lines[-N_LINES:])


def told(lines: str) -> str:
    """What kept last lines say in one: the exception, or the message alone of a ``UserError``."""
    last = lines.strip().splitlines()[-1] if lines.strip() else ""
    for error in (UserError, StorageError):
        last = last.removeprefix(f"{error.__module__}.{error.__name__}: ")
    return last


def n_oom_kills() -> int:
    """How many processes the kernel has killed for want of memory since the machine started."""
    try:
        fields = (line.split() for line in OOM_KILLS.read_text().splitlines())
        return next((int(count) for name, count in fields if name == "oom_kill"), 0)
    except (OSError, ValueError):
        return 0


def _chain(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return found
