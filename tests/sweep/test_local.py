"""Sweeps in worker processes of this machine: real ones, on small trainings."""

import multiprocessing
import os
import signal
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from commands import TINY, kscout, refused
from kscout.errors import UserError
from kscout.sweep import causes
from kscout.sweep.coordinate import cancel, resume, start
from kscout.sweep.folder import Attempt, SweepFolder, epochs_done
from kscout.sweep.launch import Launch
from kscout.sweep.local import run_local
from kscout.sweep.spec import Sweep
from kscout.sweep.status import FAILED, FINISHED, RUNNING, WAITING, RunStatus, run_states

QUIET = Console(quiet=True)
NO_VALIDATION = {"kind": "digits", "n_train": 64, "n_val": 0, "n_test": 16}
HALF_WRONG: dict[str, Any] = {
    "name": "half wrong",
    "base": TINY | {"data": NO_VALIDATION},
    "grid": {"training.patience": [None, 1]},
    "seeds": [0, 1],
}
LONG: dict[str, Any] = {
    "name": "long",
    "base": TINY | {"training": {"epochs": 500, "batch_size": 16}},
    "seeds": [0],
}


def states(folder: SweepFolder) -> list[RunStatus]:
    return run_states(folder, folder.planned())


def said(folder: SweepFolder, **options: Any) -> str:
    printed = StringIO()
    resume(folder, Launch(**options), Console(file=printed, width=200))
    return printed.getvalue()


@pytest.fixture(scope="module")
def half_wrong(tmp_path_factory: pytest.TempPathFactory) -> SweepFolder:
    """A sweep of which two runs have finished, and two failed alike."""
    folder = SweepFolder(tmp_path_factory.mktemp("sweeps") / "half wrong")
    start(folder, Sweep.model_validate(HALF_WRONG), Launch(at_once=1), QUIET)
    return folder


def test_runs_end_in_run_folders_and_errors_are_kept(half_wrong: SweepFolder) -> None:
    now = states(half_wrong)
    assert [(s.state, s.cause) for s in now] == [(FINISHED, None)] * 2 + [(FAILED, "error")] * 2
    assert [len(s.attempts) for s in now] == [1] * 4
    assert causes.told(now[2].error).startswith("training.patience needs validation data")
    assert half_wrong.run(now[0].id).results()["n_samples"] == 196
    assert half_wrong.run(now[0].id).experiment() == now[0].planned.experiment
    assert "UserError: training.patience" in half_wrong.log(now[2].id).read_text()
    assert half_wrong.log(now[0].id).read_text().startswith("attempt 1")


def test_what_is_done_or_hopeless_is_not_done_again(half_wrong: SweepFolder) -> None:
    before = [half_wrong.run(s.id).results() for s in states(half_wrong)[:2]]
    text = said(half_wrong)
    assert "2 left alone: an error would come again" in text
    assert text.count("training.patience needs validation data") == 1
    assert [half_wrong.run(s.id).results() for s in states(half_wrong)[:2]] == before
    assert [len(s.attempts) for s in states(half_wrong)] == [1] * 4


def test_another_sweep_is_refused_and_told_what_changed(half_wrong: SweepFolder) -> None:
    other = Sweep.model_validate(HALF_WRONG | {"seeds": [0]})
    with pytest.raises(UserError, match=r"seeds: \[0, 1\] -> \[0\].*--out .*half wrong-2"):
        start(half_wrong, other, Launch(), QUIET)
    half_wrong.refuse_other(Sweep.model_validate(HALF_WRONG | {"seeds": [0, 1, 2]}))  # has grown


def test_two_coordinators(half_wrong: SweepFolder) -> None:
    with half_wrong.locked(), pytest.raises(UserError, match="run by another process"):
        resume(half_wrong, Launch(), QUIET)


def test_the_command_line(half_wrong: SweepFolder, capsys: Any, tmp_path: Path) -> None:
    folder = half_wrong.path
    assert "4 runs, 2 finished, 2 failed: error" in kscout(capsys, "sweep", "status", folder).out
    run_id = states(half_wrong)[2].id
    assert "patience needs" in kscout(capsys, "sweep", "logs", folder, run_id[:8]).out
    assert "no run begins with 'x'" in refused(capsys, "sweep", "logs", folder, "x")
    assert "nothing is running" in kscout(capsys, "sweep", "cancel", folder).out
    table = kscout(capsys, "sweep", "table", folder, "--by", "seed")
    assert table.code == 0
    assert (folder / "report.html").is_file()
    assert (folder / "table.csv").read_text().count("\n") == 5
    assert "not a sweep folder" in refused(capsys, "sweep", "status", tmp_path)
    assert "is no amount of memory" in refused(capsys, "sweep", "resume", folder, "--mem", "much")
    assert "on is 'moon'" in refused(capsys, "sweep", "resume", folder, "--on", "moon")
    assert "valid to group by are" in refused(capsys, "sweep", "table", folder, "--by", "nothing")


def test_impossible_runs_are_refused_before_a_folder_is_made(capsys: Any, tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    budgets = [{"acceleration": 4}, {"acceleration": 4, "acs": "square", "acs_size": 20}]
    path.write_text(yaml.safe_dump({"name": "s", "base": TINY, "grid": {"budget": budgets}}))
    for verb in (("plan",), ("run", "--out", tmp_path / "sweep")):
        line = refused(capsys, "sweep", verb[0], path, *verb[1:])
        assert "1 of 2 runs are impossible, such as acceleration=4 acs=square acs_size=20" in line
    assert not (tmp_path / "sweep" / "sweep.yaml").exists()


def test_a_plan_says_how_many_runs_and_what_they_cost(capsys: Any, tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump({"name": "s", "base": TINY, "seeds": 3}))
    ended = kscout(capsys, "sweep", "plan", path, "training=1", "--probe", 1)
    assert "unknown key training" in ended.err
    ended = kscout(capsys, "sweep", "plan", path, "base.training.epochs=3", "--probe", 1)
    assert "3 runs" in ended.out
    assert "a run on one core (1 timed shortly" in ended.out.replace("\n", " ")


def test_a_killed_worker_costs_its_run_alone(tmp_path: Path) -> None:
    """The next try goes on from the checkpoint; meanwhile another worker does the next run."""
    folder = SweepFolder(tmp_path / "sweep")
    folder.claim(Sweep.model_validate(LONG | {"seeds": [0, 1]}))
    tasks = [(r.experiment.model_dump(mode="json"), attempt(1)) for r in folder.planned()]
    first, second = (tree["name"] for tree, _ in tasks)
    ends = {}

    def tick(at_work: Sequence[str]) -> None:
        (run_id,) = at_work
        (worker,) = multiprocessing.active_children()
        if epochs_done(folder.run(run_id).path) and worker.pid:
            if run_id == first:
                os.kill(worker.pid, signal.SIGKILL)
            else:
                folder.ask_to_stop(run_id, 1, causes.PRUNED)

    run_local(folder, tasks, 1, tick, lambda run_id, ended: ends.update({run_id: ended}))
    assert [ends[run_id].cause for run_id in (first, second)] == [causes.KILLED, causes.PRUNED]
    assert ends[second].epochs == epochs_done(folder.run(second).path) > 0
    assert not multiprocessing.active_children()
    assert [(s.state, s.cause) for s in states(folder)] == [
        (FAILED, causes.KILLED), (FAILED, causes.PRUNED),
    ]  # fmt: skip


def attempt(number: int, **options: Any) -> Attempt:
    return Attempt(number=number, where="local", **options)


def test_a_run_at_work_can_be_cancelled_or_be_late(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path / "sweep")
    folder.claim(Sweep.model_validate(LONG | {"seeds": [0, 1]}))
    trees = [run.experiment.model_dump(mode="json") for run in folder.planned()]
    seen: list[str] = []

    def tick(at_work: Sequence[str]) -> None:
        with folder.locked():
            seen.extend(s.state for s in states(folder))
        if at_work == [trees[1]["name"]]:
            raise KeyboardInterrupt

    tasks = [(trees[0], attempt(1, minutes=0.01)), (trees[1], attempt(1))]
    with pytest.raises(KeyboardInterrupt):
        run_local(folder, tasks, 1, tick)
    assert {RUNNING, WAITING} <= set(seen)
    assert [s.cause for s in states(folder)] == [causes.TIME_LIMIT, causes.CANCELLED]
    assert not multiprocessing.active_children()
    assert cancel(folder) == 0


def test_out_of_memory_ends_in_smaller_parts_of_the_same_batch(tmp_path: Path) -> None:
    base = TINY | {
        "data": {"kind": "digits", "n_train": 1024, "n_val": 16, "n_test": 16},
        "reconstructor": {"kind": "spirit_net", "n_blocks": 10, "kernel_size": 3},
        "training": {"epochs": 1, "batch_size": 1024},
    }
    folder = SweepFolder(tmp_path / "sweep")
    sweep = Sweep.model_validate({"name": "hungry", "base": base, "seeds": [0]})
    start(folder, sweep, Launch(memory_mb=650), QUIET)
    assert states(folder)[0].cause == causes.OUT_OF_MEMORY
    for _ in range(4):
        said(folder, memory_mb=650)
        (run,) = states(folder)
        if run.state == FINISHED:
            break
    assert run.state == FINISHED
    at_a_time = run.attempts[-1].micro_batch
    assert at_a_time in (512, 256, 128)
    assert folder.run(run.id).experiment().trainer.micro_batch == at_a_time
    assert folder.run(run.id).experiment().training.batch_size == 1024


def test_a_full_disk_stops_the_sweep_with_one_line(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path / "sweep")
    sweep = Sweep.model_validate(LONG | {"base": TINY, "seeds": [0, 1]})
    folder.claim(sweep)
    blocked = folder.run(sweep.plan()[0].id).path
    blocked.parent.mkdir(parents=True)
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere; benchmarks/sweep_survival.py fills a real disk")
    blocked.parent.chmod(0o500)
    with pytest.raises(UserError, match="cannot be written"):
        resume(folder, Launch(at_once=1), QUIET)
