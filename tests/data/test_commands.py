"""The commands that simulate, look at and convert files."""

import itertools

import h5py
import nibabel
import numpy as np
import pytest
import torch

from commands import files_in, kscout, refused
from kscout.data import DATA
from kscout.data.files import read_kspace
from kscout.data.formats.bart import write_cfl
from kscout.data.slices import Geometry
from kscout.data.writers import write_hdf5
from kscout.physics.coils import root_sum_of_squares
from kscout.physics.fourier import kspace_to_image
from kscout.sampling import FIXED_MASKS, Budget
from laws import complex_normal


def test_data_simulate_writes_volumes_that_reopen(capsys, tmp_path):
    options = {"n_train": 2, "n_val": 1, "n_test": 1, "split_seed": 3}
    words = [f"{name}={value}" for name, value in options.items()]
    ended = kscout(capsys, "data", "simulate", "digits", *words, "--out", tmp_path)
    assert ended.out == f"4 volumes in {tmp_path}\n"
    assert len(files_in(tmp_path)) == 16
    expected = DATA["digits"](**options)["test"]
    (scan,) = (tmp_path / "test").glob("*.h5")
    np.testing.assert_array_equal(read_kspace(scan), expected.kspace)
    image = nibabel.nifti1.load(scan.with_name(f"{scan.stem}_image.nii")).get_fdata()
    np.testing.assert_allclose(image[..., 0], expected.image(expected.target)[0], atol=1e-6)
    for name in (scan.name, f"{scan.stem}_coils.nii", f"{scan.stem}_rss.nii"):
        out = tmp_path / "picture.png"
        assert kscout(capsys, "data", "show", scan.with_name(name), "--out", out).code == 0
        assert out.read_bytes().startswith(b"\x89PNG")
        out.unlink()
    assert "slice 1 is out of range" in refused(capsys, "data", "show", scan, "--slice", 1)


def test_files_that_are_none_are_named(capsys, tmp_path):
    for words in (("recon",), ("data", "info"), ("data", "show")):
        assert f"error: {tmp_path}: is not a file" in refused(capsys, *words, tmp_path)
    assert ".: is not a file" in refused(capsys, "data", "convert", ".", tmp_path / "o.npy")
    write_cfl(tmp_path / "scan.cfl", complex_normal((1, 2, 8, 6)), (1, 2, 8, 6))
    for name in ("scan", "scan.hdr"):
        text = refused(capsys, "data", "info", tmp_path / name)
        assert f"valid of BART's two files is {tmp_path / 'scan.cfl'}" in text
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["dataset/xml"] = b"<ismrmrdHeader/>"
    said = "has an ISMRMRD header (dataset), and no acquisitions"
    assert said in refused(capsys, "data", "info", tmp_path / "a.h5")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["phantom"], "'phantom' is unknown: valid is digits, brain, files"),
        (["digits", "n_train=many"], "n_train is 'many'"),
        (["digits", "n=1"], "unknown key n: valid here are path, n_train"),
        (["brain", "slices=[80,60]"], "slices 80 to 60 are impossible"),
        (["brain", "snr_db=.nan"], "snr_db is nan"),
        (["files", "path=none"], "none"),
    ],
)
def test_data_simulate_refuses_in_a_line(capsys, tmp_path, words, said):
    out = tmp_path / "out"
    assert said in refused(capsys, "data", "simulate", *words, "--out", out)
    assert not out.exists()


def undersampled(path, shape=(2, 4, 24, 40)):
    """Lines at R = 2 around 8 of an ACS, as HDF5."""
    generator = torch.Generator().manual_seed(0)
    kspace = torch.randn(shape, dtype=torch.complex64, generator=generator)
    columns = torch.arange(shape[-1])
    kspace[..., (columns % 2 == 1) & ((columns - 20).abs() > 4)] = 0
    write_hdf5(path, kspace, Geometry((1.5, 2.0), 0, 4.0))
    return kspace


def test_data_info_says_what_a_file_holds(capsys, tmp_path):
    undersampled(tmp_path / "scan.h5")
    ended = kscout(capsys, "data", "info", tmp_path / "scan.h5")
    assert ended.code == 0, ended.err
    said = " ".join(ended.out.split())
    for line in (
        "format HDF5 as in fastMRI",
        "slices 2",
        "coils 4",
        "matrix 24 x 40 (ky, kx)",
        "voxel 1.5 x 2 mm, slices 4 mm",
        "sampled 576 of 960 points, R = 1.67",
        "whole lines (columns), a lattice of 1 x 2: R = 2 outside of the ACS",
        "ACS found 24 x 9 (ky, kx)",
        "noise scan none",
    ):
        assert line in said


def test_data_info_of_points_of_a_full_scan_and_of_nothing(capsys, tmp_path):
    mask = FIXED_MASKS["poisson_disc"](
        Budget.of((40, 30), acceleration=3, acs="square", acs_size=8), 0
    )
    for name, points, line in (
        ("points", mask, "points, no lattice"),
        ("full", torch.ones(40, 30), "pattern fully sampled"),
        ("none", torch.zeros(40, 30), "sampled nothing"),
        ("part", (torch.arange(30) > 8).expand(40, 30), "no lattice: parts of"),
        ("few", torch.eye(40)[:, :30], "ACS none found"),
    ):
        np.save(tmp_path / f"{name}.npy", (points + 0j).numpy().astype(np.complex64))
        ended = kscout(capsys, "data", "info", tmp_path / f"{name}.npy")
        assert line in " ".join(ended.out.split())


def test_data_convert_goes_round_and_keeps_every_number(capsys, tmp_path):
    kspace = undersampled(tmp_path / "a.h5")
    names = ["a.h5", "b.cfl", "c.npy", "d.h5"]
    for before, after in itertools.pairwise(names):
        ended = kscout(capsys, "data", "convert", tmp_path / before, tmp_path / after)
        assert ended.out.endswith(f"written: {tmp_path / after}\n")
        assert ("keeps k-space alone" in ended.out) == (not after.endswith(".h5"))
        assert torch.equal(read_kspace(tmp_path / after), kspace)
    kscout(capsys, "data", "convert", tmp_path / "a.h5", tmp_path / "i.nii.gz")
    image = nibabel.load(tmp_path / "i.nii.gz")
    rss = root_sum_of_squares(kspace_to_image(kspace))
    np.testing.assert_array_equal(image.get_fdata(), rss.permute(1, 2, 0))
    np.testing.assert_allclose(nibabel.affines.voxel_sizes(image.affine), (1.5, 2.0, 4.0))
    ended = kscout(capsys, "data", "convert", tmp_path / "i.nii.gz", tmp_path / "s.h5", "n_coils=3")
    assert "note: simulated from magnitude images" in ended.out
    assert read_kspace(tmp_path / "s.h5").shape == (2, 3, 24, 40)
    ended = kscout(capsys, "data", "convert", tmp_path / "a.h5", tmp_path / "p.png")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_data_convert_leaves_nothing_half_written(capsys, tmp_path):
    kspace = undersampled(tmp_path / "a.h5").numpy()
    kspace[1, 0, 0, 0] = np.nan
    np.save(tmp_path / "bad.npy", kspace)
    before = files_in(tmp_path)
    for name in ("out.h5", "out.cfl", "out.npy", "out.nii", "out.nii.gz", "out.png"):
        words = ("data", "convert", tmp_path / "bad.npy", tmp_path / name)
        assert "slice 1 holds NaN" in refused(capsys, *words)
        assert files_in(tmp_path) == before
    for words, said in (
        (("bad.npy", "out.jpg"), "the format is not known: valid is .nii, "),
        (("bad.npy", "bad.npy"), "is read here"),
        (("a.h5", "b.h5", "repetition=1"), "HDF5 as in fastMRI has no option repetition"),
        (("a.dat", "b.h5"), "no such file"),
    ):
        paths = [tmp_path / word for word in words[:2]]
        assert said in refused(capsys, "data", "convert", *paths, *words[2:])
        assert files_in(tmp_path) == before


def test_volumes_are_not_mixed_with_those_of_another_simulation(capsys, tmp_path):
    words = ("data", "simulate", "digits", "n_train=1", "n_val=1", "n_test=1", "--out", tmp_path)
    assert kscout(capsys, *words).code == 0
    before = files_in(tmp_path)
    assert "holds volumes already" in refused(capsys, *words)
    assert files_in(tmp_path) == before
