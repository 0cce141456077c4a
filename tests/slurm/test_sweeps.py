"""Sweeps on a real SLURM: throttle, causes, recovery, and two processes for one training."""

import time
from collections import Counter
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from commands import TINY
from kscout.errors import UserError
from kscout.sweep import causes
from kscout.sweep.coordinate import cancel, resume, start
from kscout.sweep.folder import SweepFolder, validation_losses
from kscout.sweep.launch import Launch
from kscout.sweep.slurm import QUEUED, RUNNING, job_states
from kscout.sweep.spec import Sweep
from kscout.sweep.status import FAILED, FINISHED, RunStatus, run_states
from slurm.cluster import Cluster

QUIET = Console(quiet=True)
LONG = {
    "data": {"kind": "digits", "n_train": 500, "n_val": 16, "n_test": 16},
    "training": {"epochs": 25, "batch_size": 50},
}
"""Some seconds of training, with many checkpoints on the way."""

HUNGRY = {
    "data": {"kind": "digits", "n_train": 2048, "n_val": 16, "n_test": 16},
    "reconstructor": {"kind": "spirit_net", "n_blocks": 10, "kernel_size": 3},
    "training": {"epochs": 1, "batch_size": 2048},
}
"""A training that needs more than 700 MB, and less than 1,400."""


def sweep(base: dict[str, Any] | None = None, **changes: Any) -> Sweep:
    return Sweep.model_validate({"name": "s", "base": TINY | (base or {}), "seeds": [0]} | changes)


def launch(**options: Any) -> Launch:
    return Launch(**{"on": "slurm", "memory_mb": 1400, "cpus": 1} | options)


def states(folder: SweepFolder) -> list[RunStatus]:
    return run_states(folder, folder.planned())


def wait(
    folder: SweepFolder, done: Callable[[list[RunStatus]], bool], seconds: float = 180
) -> list[RunStatus]:
    """The states of all runs once ``done`` says so."""
    end = time.monotonic() + seconds
    while not done(now := states(folder)):
        assert time.monotonic() < end, [(s.state, s.cause, s.error, s.epochs) for s in now]
        time.sleep(0.5)
    return now


def ended(now: list[RunStatus]) -> bool:
    return all(s.state in (FINISHED, FAILED) for s in now)


def test_arrays_keep_their_throttle_and_errors_come_once(
    tmp_path: Path, slurm: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kscout.sweep.slurm.MOST_IN_ARRAY", 3)
    base = {
        "reconstructor": {"kind": "spirit_net", "n_blocks": 40, "kernel_size": 3},
        "training": {"epochs": 1, "batch_size": 16},
    }
    folder = SweepFolder(tmp_path / "sweep")
    grid = {"training.learning_rate": [0.001, 9.9]}  # so deep a stack diverges at once
    start(folder, sweep(base, grid=grid, seeds=[0, 1]), launch(at_once=2), QUIET)
    jobs = [s.attempts[-1].job or "" for s in states(folder)]
    array, single = jobs[0].split("_")[0], jobs[3]
    assert jobs == [f"{array}_0", f"{array}_1", f"{array}_2", single]
    most = []

    def look(now: list[RunStatus]) -> bool:
        most.append(Counter(slurm.states(array, single).values())["RUNNING"])
        return ended(now)

    now = wait(folder, look)
    assert max(most) == 2
    assert [(s.state, s.cause) for s in now] == [(FINISHED, None)] * 2 + [(FAILED, "error")] * 2
    printed = StringIO()
    resume(folder, launch(), Console(file=printed, width=200))
    assert printed.getvalue().count("the training loss is not finite") == 1
    assert "2 failed, error" in printed.getvalue()
    assert [len(s.attempts) for s in states(folder)] == [1] * 4


def test_a_run_out_of_memory_is_told_and_recovered_with_more(
    tmp_path: Path, slurm: Cluster, request: pytest.FixtureRequest
) -> None:
    folder = SweepFolder(tmp_path / "sweep")
    options = launch(memory_mb=700, max_memory_mb=1400)
    start(folder, sweep(HUNGRY), options, QUIET)
    (run,) = wait(folder, ended)
    assert (run.state, run.cause) == (FAILED, causes.OUT_OF_MEMORY)
    resume(folder, options, QUIET)
    (run,) = wait(folder, ended)
    assert run.state == FINISHED
    assert [attempt.memory_mb for attempt in run.attempts] == [700, 1400]
    request.getfixturevalue("without_accounting")  # the log knows it too
    assert set(job_states(folder, run.attempts[:1]).values()) == {causes.OUT_OF_MEMORY}


def test_a_preempted_run_goes_on_from_its_checkpoint(tmp_path: Path, slurm: Cluster) -> None:
    folder = SweepFolder(tmp_path / "sweep")
    start(folder, sweep(LONG), launch(), QUIET)
    (run,) = wait(folder, lambda now: now[0].epochs >= 2)
    before = (folder.run(run.id).path / "metrics.csv").read_text().splitlines()
    slurm.preempt(1)
    wait(folder, lambda now: now[0].state == QUEUED)
    (run,) = wait(folder, ended)
    assert run.state == FINISHED
    assert len(run.attempts) == 1
    after = (folder.run(run.id).path / "metrics.csv").read_text().splitlines()
    assert after[: len(before)] == before  # seconds and all: no epoch was done twice
    assert len(after) == 1 + 25
    assert folder.log(run.id).read_text().splitlines().count("attempt 1") == 2


def test_a_lost_node_is_told_and_survived(tmp_path: Path, slurm: Cluster) -> None:
    folder = SweepFolder(tmp_path / "sweep")
    start(folder, sweep(LONG), launch(slurm={"no-requeue": True, "nodelist": "n1"}), QUIET)
    wait(folder, lambda now: now[0].epochs >= 1)
    slurm.down("n1")
    (run,) = wait(folder, ended)
    assert (run.state, run.cause) == (FAILED, causes.NODE_FAILURE)
    losses = validation_losses(folder.run(run.id).path)
    resume(folder, launch(), QUIET)
    (run,) = wait(folder, ended)
    assert run.state == FINISHED
    assert validation_losses(folder.run(run.id).path)[: len(losses)] == losses


def test_cancelling_takes_back_what_runs_and_what_waits(tmp_path: Path, slurm: Cluster) -> None:
    folder = SweepFolder(tmp_path / "sweep")
    start(folder, sweep(LONG, seeds=[0, 1, 2]), launch(at_once=1), QUIET)
    wait(folder, lambda now: now[0].state == RUNNING)
    assert [s.state for s in states(folder)] == [RUNNING, QUEUED, QUEUED]
    assert cancel(folder) == 3
    now = states(folder)
    assert [(s.state, s.cause) for s in now] == [(FAILED, causes.CANCELLED)] * 3
    array = now[0].attempts[-1].job or ""
    slurm.wait([array.split("_")[0]], ["CANCELLED"])
    assert cancel(folder) == 0


def test_refusals_are_told_in_one_line_and_leave_no_attempt(
    tmp_path: Path, slurm: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = SweepFolder(tmp_path / "sweep")
    with pytest.raises(
        UserError, match=r"SLURM does not take the runs: .*partition not available"
    ) as raised:
        start(folder, sweep(), launch(partition="closed"), QUIET)
    assert "\n" not in str(raised.value)
    with pytest.raises(UserError, match=r"SLURM does not take the runs: .*Invalid partition"):
        resume(folder, launch(partition="nothing"), QUIET)
    assert states(folder)[0].attempts == ()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="no SLURM here"):
        resume(folder, launch(), QUIET)


@pytest.mark.parametrize("trainer", [{"n_devices": 2}, {"n_nodes": 2}])
def test_one_training_in_two_processes(
    tmp_path: Path, slurm: Cluster, trainer: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")  # n1 and n2 are no names that resolve
    folders = SweepFolder(tmp_path / "two"), SweepFolder(tmp_path / "one")
    start(folders[0], sweep({"trainer": trainer}), launch(), QUIET)
    start(folders[1], sweep(), launch(), QUIET)
    losses = []
    for folder in folders:
        (run,) = wait(folder, ended)
        assert run.state == FINISHED, run.error
        losses.append(validation_losses(folder.run(run.id).path))
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_a_search_goes_on_with_what_slurm_has(
    tmp_path: Path, slurm: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped while its first runs are at work, it finds them again, and hands in no run twice."""
    monkeypatch.setattr("kscout.sweep.slurm.POLL", 0.5)
    folder = SweepFolder(tmp_path / "sweep")
    ranges = {"training.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}
    search = {"n_trials": 3, "ranges": ranges, "pruner": "none"}
    searched = sweep(seeds=[], search=search)

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as once:
        once.setattr("kscout.sweep.slurm.time.sleep", interrupt)
        with pytest.raises(KeyboardInterrupt):
            start(folder, searched, launch(at_once=2), QUIET)
    assert len(folder.planned()) == 2
    resume(folder, launch(at_once=2), QUIET)
    now = states(folder)
    assert [s.state for s in now] == [FINISHED] * 3
    assert [len(s.attempts) for s in now] == [1] * 3


def test_an_array_whose_ids_were_not_written_down_is_found_again(
    tmp_path: Path, slurm: Cluster
) -> None:
    """As after a kill between sbatch and the second writing of the attempts."""
    folder = SweepFolder(tmp_path / "sweep")
    start(folder, sweep(seeds=[0, 1]), launch(), QUIET)
    before = [s.attempts for s in states(folder)]
    for status in states(folder):
        folder.add_attempt(status.id, status.attempts[0].model_copy(update={"job": None}))
    resume(folder, launch(), QUIET)
    assert [s.attempts for s in states(folder)] == before
    assert {s.state for s in wait(folder, ended)} == {FINISHED}
