import json
import random
import shutil

import numpy as np
import pytest
import torch

from commands import TINY
from kscout.errors import UserError
from kscout.experiment import Experiment, RunFolder
from kscout.experiment.fitted import FittedRun
from kscout.report import load_runs

CHANGES = [b"\x00", b"\xff", b"{", b"}", b"[" * 3, b'"', b"9" * 30, b"-", b"NaN", b"\n"]


@pytest.fixture
def copy(finished, tmp_path):
    """A finished run that may be spoilt."""
    return shutil.copytree(finished, tmp_path / "run")


def experiment(**changes):
    return Experiment.model_validate(TINY | changes)


def damaged(good: bytes, seed: int) -> bytes:
    """Cut off, or with up to four short stretches overwritten or put in."""
    rng = random.Random(seed)
    if seed % 5 == 0:
        return good[: rng.randrange(len(good))]
    bad = bytearray(good)
    for _ in range(rng.randint(1, 4)):
        start = rng.randrange(len(bad))
        change = rng.choice([*CHANGES, rng.randbytes(3)])
        bad[start : start + rng.choice([0, len(change)])] = change
    return bytes(bad)


def test_a_run_folder_says_what_it_holds(finished):
    run = RunFolder(finished)
    assert run.state == "finished"
    assert run.mask().shape == (28, 28)
    assert run.mask().dtype == torch.bool
    assert int(run.mask().sum()) == run.results()["n_samples"] == 196
    assert run.checkpoint()["coil_scale"].shape == (1,)
    assert run.experiment().name == "tiny"
    assert run.compared("lattice").experiment().sampler.kind == "caipirinha"


def test_a_new_folder_has_no_state_and_stays_unmade(tmp_path):
    run = RunFolder(tmp_path / "new")
    assert run.state is None
    run.refuse_other(experiment())
    assert not run.path.exists()


def test_a_folder_belongs_to_one_experiment(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.claim(experiment())
    run.claim(experiment(compare={"a": {"kind": "caipirinha"}}))
    assert list(run.experiment().compare) == ["a"]
    with pytest.raises(UserError, match=r"holds another experiment \(seed, training differ\)"):
        run.claim(experiment(seed=1, training={"epochs": 3}))
    assert run.experiment().seed == 0


def test_a_folder_of_other_things_is_left_alone(tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match="is not empty and holds no run"):
        RunFolder(tmp_path).claim(experiment())
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


@pytest.mark.parametrize("name", ["file", "file/below", "x" * 300])
def test_a_folder_that_cannot_be_made_is_refused_before_anything_is_done(tmp_path, name):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        RunFolder(tmp_path / name).refuse_other(experiment())


@pytest.mark.parametrize("content", ["", "[]", "3", "{", '{"state": 3}', "[" * 9999, '{"state":1}'])
def test_an_unreadable_status_is_no_state(copy, content):
    (copy / "status.json").write_text(content)
    assert RunFolder(copy).state is None
    with pytest.raises(UserError, match="is not finished"):
        FittedRun.load(copy)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.ones(4, dtype=bool), "shape"),
        (np.full((28, 28), 2), "not binary"),
        (np.zeros((28, 28), dtype=bool), "acquires no point"),
        (np.array([[{}]]), "cannot read"),
    ],
)
def test_masks_that_are_none(copy, array, said):
    np.save(copy / "mask.npy", array, allow_pickle=True)
    with pytest.raises(UserError, match=said):
        RunFolder(copy).mask()


@pytest.mark.parametrize(
    "content",
    [
        [],
        {"reconstructor": {}},
        {"reconstructor": {}, "coil_scale": 3},
        {"reconstructor": [], "coil_scale": torch.ones(1)},
        {"reconstructor": {}, "coil_scale": torch.ones(1, 1)},
        {"reconstructor": {}, "coil_scale": torch.zeros(1)},
        {"reconstructor": {}, "coil_scale": torch.tensor([torch.nan])},
        {"reconstructor": {}, "coil_scale": torch.tensor([torch.inf])},
        {"reconstructor": {}, "coil_scale": torch.ones(1)},
        {"reconstructor": {"kernels": "no tensor"}, "coil_scale": torch.ones(1)},
    ],
)
def test_checkpoints_that_are_none(copy, content):
    torch.save(content, copy / "checkpoint.ckpt")
    with pytest.raises(UserError, match=r"checkpoint\.ckpt"):
        FittedRun.load(copy)


def test_a_checkpoint_is_never_unpickled(copy, tmp_path):
    class Harm:
        def __reduce__(self):
            return (open, (str(tmp_path / "harm"), "w"))

    torch.save({"reconstructor": Harm(), "coil_scale": torch.ones(1)}, copy / "checkpoint.ckpt")
    with pytest.raises(UserError, match="not a readable checkpoint"):
        RunFolder(copy).checkpoint()
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    "change", [{"kernel_size": 5}, {"n_blocks": 3}, {"n_blocks": 1}, {"kind": "zero_filled"}]
)
def test_a_checkpoint_of_another_shape_is_refused(copy, change):
    config = TINY["reconstructor"] | change
    config = config if "kind" not in change else change
    (copy / "config.yaml").write_text(json.dumps(TINY | {"reconstructor": config}))
    with pytest.raises(UserError, match="does not fit the run's"):
        FittedRun.load(copy)


@pytest.mark.parametrize(
    "name", ["config.yaml", "status.json", "results.json", "mask.npy", "checkpoint.ckpt"]
)
def test_damaged_files_are_read_or_refused(copy, name):
    good = (copy / name).read_bytes()
    said = []
    for seed in range(60):
        (copy / name).write_bytes(damaged(good, seed))
        try:
            FittedRun.load(copy)
            RunFolder(copy).results()
            load_runs([copy])
        except UserError as error:
            said.append(str(error))
    assert said
    assert all(str(copy) in text and "\n" not in text for text in said)


@pytest.mark.parametrize("name", ["config.yaml", "status.json", "mask.npy", "checkpoint.ckpt"])
def test_files_that_are_missing_or_folders_are_refused(copy, name):
    (copy / name).unlink()
    with pytest.raises(UserError, match=str(copy)):
        FittedRun.load(copy)
    (copy / name).mkdir()
    with pytest.raises(UserError, match=str(copy)):
        FittedRun.load(copy)
