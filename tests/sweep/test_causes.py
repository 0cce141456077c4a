"""Every way in which a run can end has its cause."""

import errno
from pathlib import Path

import pytest
import torch
from submitit.core.utils import UncompletedJobError

from kscout.atomic import atomic_path
from kscout.errors import UserError
from kscout.sweep import causes


def test_memory_that_python_and_torch_do_not_get() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**60, dtype=torch.uint8)
    assert causes.cause_of(raised.value) == causes.OUT_OF_MEMORY
    assert causes.cause_of(MemoryError()) == causes.OUT_OF_MEMORY
    wrapped = UserError("x")
    wrapped.__cause__ = MemoryError()
    assert causes.cause_of(wrapped) == causes.OUT_OF_MEMORY


def test_gpu_memory() -> None:
    assert (
        causes.cause_of(torch.OutOfMemoryError("CUDA out of memory.")) == causes.OUT_OF_GPU_MEMORY
    )
    text = "cuFFT: CUDA error: out of memory"
    assert causes.cause_of(RuntimeError(text)) == causes.OUT_OF_GPU_MEMORY


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EACCES])
def test_a_folder_that_takes_no_more(number: int, tmp_path: Path) -> None:
    with pytest.raises(UserError) as raised, atomic_path(tmp_path / "x"):
        raise OSError(number, "no")
    assert causes.cause_of(raised.value) == causes.STORAGE


def test_a_printer_without_room() -> None:
    with (
        pytest.raises(OSError, match="No space left") as raised,
        Path("/dev/full").open("w") as full,
    ):
        print("x", file=full, flush=True)
    assert causes.cause_of(raised.value) == causes.STORAGE


def test_data_that_may_not_be_read_is_an_error_of_the_run() -> None:
    assert causes.cause_of(PermissionError(errno.EACCES, "no", "scan.npy")) == causes.ERROR


def test_the_rest() -> None:
    text = "[pair.cc:553] Connection closed by peer [127.0.0.1]:1234"
    assert causes.cause_of(RuntimeError(text)) == causes.LOST_CONNECTION
    assert causes.cause_of(UncompletedJobError("timed-out")) == causes.TIME_LIMIT
    assert causes.cause_of(ChildProcessError("killed by SIGKILL")) == causes.KILLED
    assert causes.cause_of(ValueError("out of range")) == causes.ERROR
    assert causes.cause_of(FileNotFoundError(errno.ENOENT, "no")) == causes.ERROR


def test_the_last_line_is_the_error() -> None:
    try:
        raise ValueError("the reason")
    except ValueError as error:
        lines = causes.last_lines(error).splitlines()
    assert lines[-1] == "ValueError: the reason"
    assert "test_causes.py" in lines[-3]


def test_kills_of_the_kernel_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "vmstat").write_text("pgfault 3\noom_kill 7\n")
    monkeypatch.setattr(causes, "OOM_KILLS", tmp_path / "vmstat")
    assert causes.n_oom_kills() == 7
    monkeypatch.setattr(causes, "OOM_KILLS", tmp_path / "nothing")
    assert causes.n_oom_kills() == 0
