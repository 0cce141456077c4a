"""What the tests do in other processes, which can only import it from here."""

import os
import signal
from pathlib import Path

import torch

from kscout.errors import UserError
from kscout.learning.distribute import ShouldStop, place, sum_over_processes


def all_things_that_are_shared(memory: torch.Tensor, path: Path, should_stop: ShouldStop) -> None:
    """Say what a process sees; then rank 0 asks, and both raise."""
    rank, n_processes = place()
    total = sum_over_processes(torch.tensor(rank + 1.0))
    threads = torch.get_num_threads()
    (path / str(rank)).write_text(f"{n_processes} {float(total)} {threads} {float(memory.sum())}")
    sum_over_processes(torch.zeros(1))
    if rank == 0 and should_stop():
        raise UserError("one line")
    sum_over_processes(torch.zeros(1))  # in which rank 1 waits for ever


def die(_: ShouldStop) -> None:
    if place()[0] == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    sum_over_processes(torch.zeros(1))


def ask(should_stop: ShouldStop) -> None:
    should_stop()
