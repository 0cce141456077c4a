"""Processes that a training is shared by: what they raise, and that none is left behind."""

import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from kscout.errors import Stopped, UserError
from kscout.learning.distribute import _portable, run_processes
from processes import all_things_that_are_shared, ask, die

needs_proc = pytest.mark.skipif(
    not Path("/proc/self/task").exists(), reason="processes are found in /proc"
)


def never() -> bool:
    return False


def children() -> list[int]:
    tasks = Path("/proc/self/task").glob("*/children")
    found = [int(pid) for task in tasks for pid in task.read_text().split()]
    return [p for p in found if b"spawn_main" in Path(f"/proc/{p}/cmdline").read_bytes()]


def test_processes_work_together_and_raise_here(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    memory = torch.ones(6)
    work = partial(all_things_that_are_shared, memory[:3], tmp_path)
    closure = [True].pop  # which no process could be sent
    torch.set_num_threads(5)
    try:
        with pytest.raises(UserError, match="one line") as caught:
            run_processes(work, 2, closure)
    finally:
        torch.set_num_threads(threads)
    assert str(caught.value) == "one line"
    assert "in all_things_that_are_shared" in "".join(caught.value.__notes__)
    assert [(tmp_path / rank).read_text() for rank in "01"] == ["2 3.0 2 3.0"] * 2


def test_a_process_that_is_killed_ends_them_all() -> None:
    with pytest.raises(ChildProcessError, match="training process 'rank 1' was killed by SIGKILL"):
        run_processes(die, 2, never)


@needs_proc
def test_ctrl_c_ends_them_all() -> None:
    seen: list[int] = []

    def interrupt() -> bool:
        seen.extend(children())
        for pid in [*seen, os.getpid()]:  # as a terminal does
            os.kill(pid, signal.SIGINT)
        time.sleep(20)
        return False

    with pytest.raises(KeyboardInterrupt):
        run_processes(ask, 1, interrupt)
    assert len(seen) == 1
    assert children() == []


class OddError(Exception):
    def __init__(self, one: str, other: str) -> None:
        super().__init__(f"{one} {other}")


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (MemoryError(), MemoryError, ""),
        (torch.OutOfMemoryError("CUDA out of memory"), torch.OutOfMemoryError, "CUDA out of"),
        (Stopped("so"), Stopped, "so"),
        (OSError(28, "No space left on device"), OSError, "No space left"),
        (OddError("cannot", "travel"), RuntimeError, "OddError: cannot travel"),
    ],
)
def test_errors_travel(error: Exception, kind: type[Exception], text: str) -> None:
    sent = _portable(error)
    assert type(sent) is kind
    assert text in str(sent)
