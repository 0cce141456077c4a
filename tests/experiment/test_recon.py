import csv
import json
import math
import shutil

import h5py
import nibabel
import numpy as np
import pytest
import torch
from rich.console import Console

from commands import kscout, refused, write_config
from kscout.data import DATA
from kscout.data.files import read_geometry
from kscout.data.slices import Geometry
from kscout.data.writers import write_hdf5
from kscout.experiment import RunFolder, load_experiment, run_experiment
from kscout.experiment.fitted import evaluate_again
from kscout.experiment.recon import Request, open_reconstruction
from kscout.physics.coils import root_sum_of_squares
from kscout.physics.fourier import kspace_to_image

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def scan():
    """Two digits that no run has seen, complex64 ``(slice, coil, ky, kx)``."""
    return DATA["digits"](n_train=1, n_val=1, n_test=2, split_seed=9)["test"].kspace


@pytest.fixture
def mask(finished):
    return RunFolder(finished).mask()


def recon(capsys, run, file, *words):
    return kscout(capsys, "recon", file, "--method", run, *words)


def reconstruct(run, file):
    """All slices of a file, completed by a run: complex64 ``(slice, coil, ky, kx)``."""
    with open_reconstruction(file, Request(method=str(run)), QUIET) as opened:
        return opened.read_all()


def test_acquired_points_stay_and_the_others_are_filled_in(finished, scan, mask, tmp_path):
    np.save(tmp_path / "full.npy", scan.numpy())
    completed = reconstruct(finished, tmp_path / "full.npy")
    torch.testing.assert_close(completed[..., mask], scan[..., mask], rtol=1e-6, atol=1e-6)
    assert (completed[..., ~mask] != 0).any()


def test_points_outside_the_mask_make_no_difference(finished, scan, mask, tmp_path):
    np.save(tmp_path / "full.npy", scan.numpy())
    write_hdf5(tmp_path / "masked.h5", scan * mask)
    half_known = scan * (mask | (torch.arange(28) % 2 == 0))
    np.save(tmp_path / "half.npy", half_known.numpy())
    results = [reconstruct(finished, path) for path in sorted(tmp_path.iterdir())]
    assert len(results) == 3
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_a_scan_of_other_units_is_reconstructed_in_its_own(finished, scan, tmp_path):
    np.save(tmp_path / "a.npy", scan.numpy())
    np.save(tmp_path / "b.npy", (scan * 1024).numpy())
    a, b = (reconstruct(finished, tmp_path / name) for name in ("a.npy", "b.npy"))
    torch.testing.assert_close(b, a * 1024, rtol=1e-5, atol=1e-3)


def test_outputs_of_every_format_reopen(finished, scan, mask, tmp_path, capsys):
    write_hdf5(tmp_path / "scan.h5", scan, Geometry((2.0, 1.5), 1, 4.5))
    expected = reconstruct(finished, tmp_path / "scan.h5")
    image = root_sum_of_squares(kspace_to_image(expected))
    for name in ("o.nii.gz", "o.nii", "o.h5", "o.npy", "o.png"):
        ended = recon(capsys, finished, tmp_path / "scan.h5", "--out", tmp_path / name)
        assert ended.code == 0, ended.err
        assert "image NMSE" in ended.out
        assert ended.out.endswith(f"written: {tmp_path / name}\n")
    torch.testing.assert_close(torch.from_numpy(np.load(tmp_path / "o.npy")), image)
    nifti = nibabel.nifti1.load(tmp_path / "o.nii.gz")
    np.testing.assert_allclose(nifti.get_fdata().transpose(2, 0, 1), image, rtol=1e-5)
    assert nifti.header.get_zooms() == (2.0, 1.5, 4.5)
    assert read_geometry(tmp_path / "o.h5") == read_geometry(tmp_path / "scan.h5")
    with h5py.File(tmp_path / "o.h5") as file:
        np.testing.assert_array_equal(file["kspace"][()], expected)
    assert (tmp_path / "o.png").read_bytes().startswith(b"\x89PNG")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_the_default_output_is_named_after_the_file(finished, scan, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("scan.v2.npy", scan.numpy())
    assert recon(capsys, finished, "scan.v2.npy").code == 0
    assert (tmp_path / "scan.v2_kscout.nii.gz").exists()


BAD_SCANS = {
    "other coils": (lambda k: k.expand(2, 3, 28, 28).clone(), "has 3 coils"),
    "other plane": (lambda k: k[..., :27], "28x27"),
    "lacks points": (lambda k: k * (torch.arange(28) != 14), "of the 196 points"),
    "all zero": (lambda k: 0 * k, "zeros"),
    "NaN": (lambda k: k.index_fill(-1, torch.tensor([3]), math.nan), "NaN or infinity"),
    "infinite": (lambda k: k.index_fill(-1, torch.tensor([3]), math.inf), "NaN or infinity"),
    "real": (lambda k: k.real, "k-space is complex"),
    "rank": (lambda k: k[None], "its shape is"),
}


@pytest.mark.parametrize("name", BAD_SCANS)
def test_scans_that_do_not_fit_are_refused_in_a_line(finished, scan, tmp_path, capsys, name):
    spoil, said = BAD_SCANS[name]
    path, out = tmp_path / "bad.npy", tmp_path / "out.nii"
    np.save(path, spoil(scan).numpy())
    text = refused(capsys, "recon", path, "--method", finished, "--out", out)
    assert said in text
    assert str(path) in text
    assert list(tmp_path.iterdir()) == [path]


def test_files_that_are_no_scans_are_refused_in_a_line(finished, scan, tmp_path, capsys):
    write_hdf5(tmp_path / "good.h5", scan)
    whole = (tmp_path / "good.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.h5").write_text("not HDF5")
    (tmp_path / "empty.h5").write_bytes(b"")
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["data"] = [1, 2]
    (tmp_path / "cut.npy").write_bytes(b"\x93NUMPY\x01\x00")
    (tmp_path / "scan.dcm").write_bytes(b"")
    for name in ("cut.h5", "text.h5", "empty.h5", "foreign.h5", "cut.npy", "scan.dcm", "none.h5"):
        text = refused(
            capsys, "recon", tmp_path / name, "--method", finished, "--out", tmp_path / "o.nii"
        )
        assert str(tmp_path / name) in text
    assert not (tmp_path / "o.nii").exists()


def test_outputs_that_cannot_be_written_are_refused(finished, scan, tmp_path, capsys):
    np.save(tmp_path / "a.npy", scan.numpy())
    for out in ("a.tiff", "a", "a.npy/below.nii"):
        assert out in refused(
            capsys, "recon", tmp_path / "a.npy", "--method", finished, "--out", tmp_path / out
        )


def test_evaluating_again_gives_the_same_numbers(finished):
    summary = RunFolder(finished).results()["summary"]
    again = evaluate_again(finished, [], QUIET)
    assert json.loads(json.dumps(again)) == summary


def test_evaluating_on_other_data(finished, capsys):
    other = evaluate_again(finished, ["data.n_test=8", "data.split_seed=3"], QUIET)
    assert other["test"]["n_slices"] == 8
    assert other["test"]["nmse"] != RunFolder(finished).results()["summary"]["test"]["nmse"]
    ended = kscout(capsys, "evaluate", finished, "data.n_test=8")
    assert ended.code == 0
    assert "PSNR" in ended.out
    for override, said in [
        ("training.epochs=3", "only data.* can be changed"),
        ("data=3", "only data.* can be changed"),
        ("data.n_tset=3", "unknown key data.n_tset"),
    ]:
        assert said in refused(capsys, "evaluate", finished, override)


def test_a_run_that_is_not_finished_is_not_used(finished, tmp_path, capsys):
    copy = shutil.copytree(finished, tmp_path / "run")
    RunFolder(copy).set_state("interrupted")
    assert "is not finished (interrupted)" in refused(capsys, "evaluate", copy)
    assert "is not finished (interrupted)" in refused(
        capsys, "recon", tmp_path / "x.npy", "--method", copy
    )
    assert "is not a run folder" in refused(capsys, "evaluate", tmp_path)


def test_a_brain_run_is_tested_with_noise_and_turned_coils(tmp_path, capsys):
    pytest.importorskip("nilearn")
    data = {"kind": "brain", "n_train": 1, "n_val": 0, "n_test": 1, "slices": [60, 62]}
    training = {"epochs": 0, "finish": "closed_form"}
    training["closed_form"] = {"n_slices": 2}
    changes = {"data": data, "sampler": {"kind": "caipirinha"}, "training": training}
    path = write_config(tmp_path / "brain.yaml", **changes)
    run_experiment(load_experiment(path), tmp_path / "run", QUIET)
    with (tmp_path / "run" / "records.csv").open() as lines:
        assert len(list(csv.DictReader(lines))) == 2
    clean = RunFolder(tmp_path / "run").results()["summary"]["test"]["nmse"]["mean"]
    summary = evaluate_again(tmp_path / "run", ["data.snr_db=10", "data.test_coil_turn=15"], QUIET)
    assert set(summary) == {"test", "test_coils"}
    assert summary["test"]["nmse"]["mean"] > clean
    text = refused(capsys, "evaluate", tmp_path / "run", "data.n_coils=4")
    assert "4 coils" in text
