import weakref
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
import torch

from kscout.data.files import read_geometry, read_kspace
from kscout.data.formats import Scan, open_scan
from kscout.data.slices import Geometry, KspaceSet
from kscout.data.writers import write_hdf5, write_nifti, write_scan, write_splits
from kscout.errors import UserError
from kscout.physics.coils import root_sum_of_squares
from kscout.physics.fourier import kspace_to_image
from laws import complex_normal


def ignore(done, total):
    """No progress is shown."""


def test_hdf5_reopens_with_the_same_numbers(tmp_path, kspace):
    path = tmp_path / "a.h5"
    write_hdf5(path, kspace, Geometry((0.5, 2.0), 3, 4.5))
    assert torch.equal(read_kspace(path), kspace)
    assert read_geometry(path) == Geometry((0.5, 2.0), 3, 4.5)
    rss = root_sum_of_squares(kspace_to_image(kspace)).numpy()
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["reconstruction_rss"], rss)
        assert file.attrs["max"] == rss.max()
        assert file.attrs["norm"] == pytest.approx(np.linalg.norm(rss), rel=1e-5)


def test_nifti_reopens_with_the_same_numbers(tmp_path, kspace):
    write_nifti(tmp_path / "coils.nii", kspace, Geometry((0.5, 2.0), slice_thickness=3.0))
    write_nifti(tmp_path / "image.nii.gz", kspace[:, 0].abs())
    coils = nibabel.load(tmp_path / "coils.nii")
    np.testing.assert_array_equal(coils.dataobj, kspace.permute(2, 3, 0, 1))
    np.testing.assert_allclose(nibabel.affines.voxel_sizes(coils.affine), (0.5, 2.0, 3.0))
    image = nibabel.load(tmp_path / "image.nii.gz")
    np.testing.assert_array_equal(image.dataobj, kspace[:, 0].abs().permute(1, 2, 0))


@pytest.mark.parametrize("quarter_turns", range(4))
def test_nifti_is_upright_where_the_picture_is(tmp_path, quarter_turns):
    image = torch.zeros(1, 5, 8)
    image[0, 1, 6] = 1
    write_nifti(tmp_path / "a.nii", image, Geometry(quarter_turns=quarter_turns))
    affine = nibabel.load(tmp_path / "a.nii").affine
    right, front, _, _ = affine @ (1, 6, 0, 1) - affine @ (2, 4, 0, 1)
    picture = np.rot90(image[0].numpy(), quarter_turns)
    row, column = np.argwhere(picture)[0]
    centre = torch.zeros(5, 8)
    centre[2, 4] = 1
    row0, column0 = np.argwhere(np.rot90(centre.numpy(), quarter_turns))[0]
    assert (right, front) == (column - column0, row0 - row)
    np.testing.assert_allclose(affine @ (2, 4, 0, 1), (0, 0, 0, 1))
    assert np.linalg.det(affine) > 0


def test_volumes_of_a_source_are_written_without_the_coil_scale(tmp_path, kspace):
    scale = torch.tensor([1.0, 2.0, 4.0])
    scaled = kspace * scale[:, None, None]
    noise_free = scaled * 0.5
    part = KspaceSet(scaled, noise_free, torch.tensor([4, 9]), scale, (0.5, 2.0), 1, 4.5)
    paths = write_splits({"train": part}, tmp_path)
    assert [p.name for p in paths] == ["volume_004.h5", "volume_009.h5"]
    assert torch.allclose(read_kspace(paths[1]), kspace[1:])
    assert read_geometry(paths[1]) == part.geometry
    folder = tmp_path / "train"
    rss = nibabel.load(folder / "volume_009_rss.nii").get_fdata()
    image = nibabel.load(folder / "volume_009_image.nii").get_fdata()
    coils = np.asarray(nibabel.load(folder / "volume_009_coils.nii").dataobj)
    np.testing.assert_allclose(image, 0.5 * rss, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(coils, axis=-1), rss, rtol=1e-5)


def test_scans_simulated_and_read_back_lie_in_space_as_before(tmp_path, kspace):
    part = KspaceSet(kspace, kspace, torch.tensor([4, 9]), torch.ones(3), (0.5, 2.0), 3, 4.5)
    _, test = write_splits({"train": part}, tmp_path)
    with open_scan(test) as again:
        write_scan(tmp_path / "again.nii.gz", again, ignore)
        write_scan(tmp_path / "again.h5", again, ignore)
    first = nibabel.load(tmp_path / "train" / "volume_009_rss.nii")
    second = nibabel.load(tmp_path / "again.nii.gz")
    np.testing.assert_array_equal(first.affine, second.affine)
    np.testing.assert_allclose(nibabel.affines.voxel_sizes(second.affine), (0.5, 2.0, 4.5))
    assert read_geometry(tmp_path / "again.h5") == read_geometry(test)


def test_unwritable_output_is_named(tmp_path, kspace):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        write_hdf5(tmp_path / "file" / "a.h5", kspace)
    with pytest.raises(UserError, match="cannot write"):
        write_nifti(tmp_path / "file" / "a.nii", kspace)
    with pytest.raises(UserError, match=r"ends in \.nii"):
        write_nifti(tmp_path / "a.png", kspace)


def test_what_fails_while_slices_are_read_is_not_blamed_on_the_disk(tmp_path):
    class Failing(Watched):
        def _read(self, index):
            raise RuntimeError("a bug")

    for name in ("a.h5", "a.nii"):
        with pytest.raises(UserError, match="slice 0 cannot be read: a bug"):
            write_scan(tmp_path / name, Failing(2), ignore)
    assert not list(tmp_path.iterdir())


def test_nifti_has_no_axis_of_more_than_32767_voxels(tmp_path):
    with pytest.raises(UserError, match=r"up to 32767 voxels along an axis, and 32768 are needed"):
        write_nifti(tmp_path / "a.nii", torch.zeros(2**15, 1, 1))


class Watched(Scan):
    """Random slices, of which it knows how many are still in memory when the next is read."""

    def __init__(self, n_slices):
        super().__init__(Path("watched"), (n_slices, 3, 7, 10), Geometry((0.5, 2.0), 1, 4.5))
        self.alive, self.most_alive = weakref.WeakSet(), 0

    def _read(self, index):
        self.most_alive = max(self.most_alive, len(self.alive))
        kspace = complex_normal((3, 7, 10), index)
        self.alive.add(kspace)
        return kspace


@pytest.mark.parametrize("name", ["a.h5", "a.cfl", "a.npy", "a.nii", "a.nii.gz"])
def test_conversion_holds_one_slice_while_it_reads_the_next(tmp_path, name):
    scan, done = Watched(9), []
    write_scan(tmp_path / name, scan, lambda *counts: done.append(counts))
    assert scan.most_alive <= 2
    assert done == [(i + 1, 9) for i in range(9)]


def test_a_streamed_scan_is_the_same_file(tmp_path):
    scan = Watched(4)
    kspace = scan.read_all()
    write_scan(tmp_path / "a.h5", scan, ignore)
    write_hdf5(tmp_path / "b.h5", kspace, scan.geometry)
    with h5py.File(tmp_path / "a.h5") as first, h5py.File(tmp_path / "b.h5") as second:
        assert list(first) == list(second)
        for name in first:
            np.testing.assert_array_equal(first[name], second[name])
        assert set(first.attrs) - set(second.attrs) == {"simulated", "notes"}
        assert all(np.array_equal(first.attrs[name], second.attrs[name]) for name in second.attrs)
    write_scan(tmp_path / "a.nii", scan, ignore)
    write_nifti(tmp_path / "b.nii", root_sum_of_squares(kspace_to_image(kspace)), scan.geometry)
    assert (tmp_path / "a.nii").read_bytes() == (tmp_path / "b.nii").read_bytes()


def test_images_in_place_of_kspace(tmp_path):
    scan = Watched(4)
    expected = root_sum_of_squares(kspace_to_image(scan.read_all()))
    for name in ("a.cfl", "a.npy"):
        write_scan(tmp_path / name, scan, ignore, images=True)
    assert torch.equal(read_kspace(tmp_path / "a.cfl")[:, 0].real, expected)
    assert np.array_equal(np.load(tmp_path / "a.npy"), expected)
