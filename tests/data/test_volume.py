"""The slices of one scan: split in blocks, each slice once, the file's own numbers."""

import numpy as np
import pytest
import torch

from commands import kscout, refused
from kscout.data import DATA
from kscout.errors import UserError
from laws import complex_normal


@pytest.fixture
def path(tmp_path):
    np.save(tmp_path / "scan.npy", complex_normal((23, 2, 9, 8)).numpy())
    return tmp_path / "scan.npy"


@pytest.mark.parametrize("n_blocks", [3, 10, 23])
def test_every_slice_is_in_one_split_and_neighbours_stay_together(path, n_blocks):
    splits = DATA["volume"](path=path, n_blocks=n_blocks, scale="none")
    kspace = torch.from_numpy(np.load(path))
    found = torch.cat([part.kspace for part in splits.values()])
    block = torch.cat([part.volume for part in splits.values()])
    places = [int((kspace == one).flatten(1).all(1).nonzero()) for one in found]
    assert sorted(places) == list(range(23))
    by_place = block[torch.tensor(places).argsort()]
    assert (by_place.diff() >= 0).all()
    assert len(by_place.unique()) == n_blocks
    sizes = by_place.bincount()
    assert sizes.max() - sizes.min() <= 1
    assert all(len(splits[name]) for name in ("train", "test"))


def test_the_draw_is_the_seeds(path):
    blocks = [
        DATA["volume"](path=path, split_seed=seed)["test"].volume.unique().tolist()
        for seed in (0, 0, 1, 2, 3)
    ]
    assert blocks[0] == blocks[1]
    assert len({tuple(block) for block in blocks}) > 1


def test_the_largest_modulus_is_one(path):
    parts = DATA["volume"](path=path).values()
    assert max(float(part.kspace.abs().max()) for part in parts if len(part)) == pytest.approx(1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"n_blocks": 24}, "23 slices cannot be 24 blocks"),
        ({"val_fraction": 0.8}, "10 blocks leave none to train on after 8 for validation and 2"),
    ],
)
def test_splits_that_leave_nothing_are_refused(path, options, said):
    with pytest.raises(UserError, match=said):
        DATA["volume"](path=path, **options)


def test_undersampled_scans_are_refused(path):
    kspace = np.load(path)
    kspace[..., 0] = 0
    np.save(path, kspace)
    with pytest.raises(UserError, match="fully sampled k-space is needed"):
        DATA["volume"](path=path)


def test_one_scan_ends_in_a_mask_for_the_next(capsys, tmp_path):
    simulate = ("data", "simulate", "brain", "n_train=1", "n_val=0", "n_test=1", "n_coils=4")
    shape = ("slices=[66,72]", "matrix=[40,48]", "snr_db=30", "--out", tmp_path / "scans")
    assert kscout(capsys, *simulate, *shape).code == 0
    first, second = (tmp_path / "scans" / name for name in ("train", "test"))
    config = "configs/one_scan.yaml"
    small = ("data.n_blocks=6", "budget.acs_size=14", "training.epochs=1", "compare={}")
    run = tmp_path / "run"
    words = ("train", config, f"data.path={first / 'volume_000.h5'}", *small, "--out", run)
    ended = kscout(capsys, *words)
    assert ended.code == 0, ended.err
    assert "note: all slices are of one scan" in ended.out
    scan = second / "volume_001.h5"
    ended = kscout(capsys, "recon", scan, "--mask", run, "--out", tmp_path / "o.nii")
    assert ended.code == 0, ended.err
    assert "masked with 480 of 1920 points" in ended.out
    assert float(ended.out.split("NMSE ")[1].split()[0]) < 0.1
    assert kscout(capsys, "mask", "convert", run, tmp_path / "order.csv").code == 0
    order = np.loadtxt(tmp_path / "order.csv", int, delimiter=",", skiprows=1)
    assert len(order) == 480
    assert np.load(run / "mask.npy")[tuple(order.T)].all()
    assert "none.npy does not exist" in refused(
        capsys, "mask", "convert", tmp_path / "none.npy", tmp_path / "o.csv"
    )
