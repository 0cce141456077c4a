"""A SLURM job that asks to be requeued, and who writes down how a try ended."""

from pathlib import Path

import pytest

from kscout.sweep import causes, work
from kscout.sweep.folder import Ended, SweepFolder
from kscout.sweep.work import RequeuedJob


@pytest.mark.parametrize(
    ("seconds", "epochs", "is_requeued"),
    [(50, 3, True), (50, 2, False), (10, 2, True), (10, 3, True)],
)
def test_a_job_is_requeued_unless_its_time_is_too_short_for_an_epoch(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
    epochs: int,
    is_requeued: bool,
) -> None:
    run = tmp_path / "runs" / "a"
    run.mkdir(parents=True)
    now = [100.0]
    monkeypatch.setattr("kscout.sweep.work.time.monotonic", lambda: now[0])
    monkeypatch.setattr("kscout.sweep.work.job", lambda *_: None)
    (run / "metrics.csv").write_text("epoch,val_loss\n0,1\n1,1\n")
    job = RequeuedJob(minutes=1)
    job(tmp_path, {"name": "a"}, {})
    now[0] += seconds
    (run / "metrics.csv").write_text("epoch,val_loss\n" + "0,1\n" * epochs)
    again = job.checkpoint(tmp_path, {"name": "a"}, {})
    assert (again is not None) == is_requeued
    if again is not None:
        assert isinstance(again.function, RequeuedJob)


def test_a_job_that_is_told_before_it_has_begun_is_requeued(tmp_path: Path) -> None:
    assert RequeuedJob(minutes=1).checkpoint(tmp_path, {"name": "a"}, {}) is not None


@pytest.mark.parametrize(
    ("ends", "told"),
    [
        ([(0, None), (1, None)], None),
        ([(1, causes.OUT_OF_GPU_MEMORY), (0, causes.LOST_CONNECTION)], causes.OUT_OF_GPU_MEMORY),
        ([(0, causes.LOST_CONNECTION), (1, causes.OUT_OF_GPU_MEMORY)], causes.OUT_OF_GPU_MEMORY),
        ([(0, causes.ERROR), (1, causes.ERROR)], causes.ERROR),
        ([(0, causes.LOST_CONNECTION)], "nothing"),
        ([(1, None)], "nothing"),
    ],
)
def test_the_process_that_knows_says_how_a_training_ended(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ends: list[tuple[int, str | None]],
    told: str | None,
) -> None:
    folder = SweepFolder(tmp_path)
    for rank, cause in ends:
        monkeypatch.setenv("SLURM_PROCID", str(rank))
        work._write(folder, "a", 1, Ended(cause=cause))
    written = folder.ended("a", 1)
    assert (written.cause if written else "nothing") == told
