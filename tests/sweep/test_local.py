"""Sweeps in worker processes of this machine: real ones, on small trainings."""

import multiprocessing
import os
import re
import shutil
import signal
import threading
import time
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
from kscout.sweep.local import run_local, take_gpus
from kscout.sweep.slurm import RUNNING
from kscout.sweep.spec import Sweep
from kscout.sweep.status import FAILED, FINISHED, WAITING, RunStatus, run_states

QUIET = Console(quiet=True)
HALF_WRONG: dict[str, Any] = {
    "name": "half wrong",
    "base": TINY
    | {"reconstructor": {"kind": "spirit_net", "n_blocks": 40, "kernel_size": 3}}
    | {"training": {"epochs": 1, "batch_size": 16}},
    "grid": {"training.learning_rate": [0.001, 9.9]},
    "seeds": [0, 1],
}
"""At the second rate, so deep a stack diverges at once."""

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
    assert causes.told(now[2].error).startswith("the training loss is not finite")
    assert half_wrong.run(now[0].id).results()["n_samples"] == 196
    assert half_wrong.run(now[0].id).experiment() == now[0].planned.experiment
    assert "UserError: the training loss" in half_wrong.log(now[2].id).read_text()
    assert half_wrong.log(now[0].id).read_text().startswith("attempt 1")


def test_every_run_that_ends_is_a_line_that_says_which_and_of_how_many(tmp_path: Path) -> None:
    settings = {"base": TINY | {"training": {"epochs": 0}}, "grid": {"budget.acceleration": [4, 5]}}
    sweep = Sweep.model_validate({"name": "s"} | settings)
    ids = [run.id for run in sweep.plan()]
    printed = StringIO()
    narrow = Console(file=printed, width=30)
    start(SweepFolder(tmp_path / "a"), sweep, Launch(at_once=1), narrow)
    lines = printed.getvalue().splitlines()
    for i, line in enumerate(lines[:2]):
        said = rf"{i + 1} of 2: acceleration={i + 4}: finished in \d+\.\d s \({ids[i]}\)"
        assert re.fullmatch(said, line)
    assert lines[-1] == f"table and report: kscout sweep table {tmp_path / 'a'}"
    printed.truncate(0)
    labels = {ids[0]: "the first [one]"}
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    shutil.rmtree(tmp_path / "b" / "runs" / ids[0])
    start(SweepFolder(tmp_path / "b"), sweep, Launch(at_once=1), narrow, labels)
    assert "1 of 1: the first [one]: finished in" in printed.getvalue()
    assert "sweep table" not in printed.getvalue()


def test_what_is_done_or_hopeless_is_not_done_again(half_wrong: SweepFolder) -> None:
    before = [half_wrong.run(s.id).results() for s in states(half_wrong)[:2]]
    text = said(half_wrong)
    assert "2 left alone: an error would come again" in text
    assert text.count("the training loss is not finite") == 1
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
    assert "loss is not finite" in kscout(capsys, "sweep", "logs", folder, run_id[:8]).out
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
    assert "a run on one core (1 of 3" in ended.out.replace("\n", " ")


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


def test_a_sweep_on_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """A full disk is filled by benchmarks/sweep_survival.py; here a file is in the way."""
    folder = SweepFolder(tmp_path / "sweep")
    sweep = Sweep.model_validate({"name": "s", "base": TINY, "seeds": [0, 1]})
    folder.claim(sweep)
    (folder.path / "runs").write_text("no folder")
    with pytest.raises(UserError, match="finished runs are kept: make room and go on") as raised:
        resume(folder, Launch(at_once=1), QUIET)
    assert "\n" not in str(raised.value)
    assert [s.cause for s in states(folder)] == [causes.STORAGE, None]


def test_a_killed_coordinator_is_followed_by_another(tmp_path: Path) -> None:
    """What it had begun is known to be dead, and goes on; what it had half written is cleared."""
    folder = SweepFolder(tmp_path / "sweep")
    sweep = Sweep.model_validate({"name": "s", "base": TINY, "seeds": [0, 1]})
    folder.claim(sweep)
    first, second = (run.id for run in sweep.plan())
    folder.add_attempt(first, attempt(1))
    run = folder.run(first).path
    run.mkdir(parents=True)
    (run / ".partial-1234-config.yaml").write_text("half")
    assert states(folder)[0].cause == causes.KILLED
    with folder.locked():  # as the coordinator that was killed
        assert states(folder)[0].state == RUNNING
    said(folder, at_once=1)
    assert [s.state for s in states(folder)] == [FINISHED, FINISHED]
    assert folder.ended(first, 1) is not None
    assert [len(s.attempts) for s in states(folder)] == [2, 1]
    assert not list(run.glob(".partial*"))
    assert folder.ended(second, 1) is not None


def test_a_cancel_from_elsewhere_stops_the_coordinator(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path / "sweep")
    folder.claim(Sweep.model_validate(LONG))
    elsewhere = threading.Thread(target=lambda: _cancel_once_it_trains(folder))
    elsewhere.start()
    with pytest.raises(KeyboardInterrupt):
        resume(folder, Launch(at_once=1), QUIET)
    elsewhere.join()
    assert [s.cause for s in states(folder)] == [causes.CANCELLED]


def _cancel_once_it_trains(folder: SweepFolder) -> None:
    while not states(folder)[0].epochs:
        time.sleep(0.2)
    assert cancel(folder) == 1


def test_damaged_files_cost_their_run_at_most(half_wrong: SweepFolder, tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path / "damaged")
    shutil.copytree(half_wrong.path, folder.path)
    first, second, third, _ = (run.id for run in folder.planned())
    (folder.run(first).path / "results.json").unlink()
    (folder.run(second).path / "results.json").write_text("{")
    (folder.path / "attempts" / third / "1.json").write_text("garbage")
    (folder.path / "attempts" / third / "1.ended.json").write_text("garbage")
    assert [s.state for s in states(folder)] == [WAITING, WAITING, WAITING, FAILED]
    said(folder, at_once=1)
    assert [s.state for s in states(folder)] == [FINISHED, FINISHED, FAILED, FAILED]
    for run_id in (first, second):
        results = folder.run(run_id).results(), half_wrong.run(run_id).results()
        assert results[0]["summary"] == results[1]["summary"]


def test_so_little_memory_that_nothing_can_be_imported(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path / "sweep")
    sweep = Sweep.model_validate({"name": "s", "base": TINY, "seeds": [0]})
    start(folder, sweep, Launch(memory_mb=250), QUIET)
    assert states(folder)[0].cause == causes.OUT_OF_MEMORY


def test_workers_share_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    for visible, number, n_devices, mine in (
        (None, 1, 1, "1"), (None, 5, 1, "1"), (None, 1, 2, "2,3"), ("4,6,7,9", 3, 1, "9"),
    ):  # fmt: skip
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        take_gpus(4, number, n_devices)
        assert os.environ["CUDA_VISIBLE_DEVICES"] == mine
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    take_gpus(0, 1, 1)
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
