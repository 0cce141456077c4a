import h5py
import numpy as np
import pytest
import torch

from kscout.data.formats import format_of, open_scan
from kscout.data.slices import Geometry
from kscout.data.writers import write_hdf5, write_scan
from kscout.errors import UserError
from laws import complex_normal
from mrd_files import lines_of, plane, space_2d, write_mrd


def save(path, kspace, **datasets):
    with h5py.File(path, "w") as file:
        file["kspace"] = kspace.numpy()
        for name, value in datasets.items():
            file[name] = value
    return path


def header(tmp_path, **changes):
    """The XML of a scan of 8 x 10 points of 2 x 3 mm, its readout oversampled."""
    space = space_2d(4, 10, oversampling=2, **changes)
    path = write_mrd(tmp_path / "header.mrd", space, lines_of(plane(1, (8, 10))))
    with h5py.File(path) as file:
        return file["dataset/xml"][0]


@pytest.mark.parametrize("shape", [(3, 2, 8, 10), (3, 8, 10)])
@pytest.mark.parametrize("mask_shape", [(10,), (1, 1, 10), (8, 10)])
def test_the_mask_says_what_was_acquired(tmp_path, shape, mask_shape):
    kspace = complex_normal(shape)
    mask = np.broadcast_to(np.arange(10) % 3 == 0, mask_shape)
    with open_scan(save(tmp_path / "a.h5", kspace, mask=mask.astype(np.float32))) as scan:
        assert torch.equal(scan.read_all().reshape(shape), kspace * (torch.arange(10) % 3 == 0))
        assert scan.sampled().any(0).nonzero().flatten().tolist() == [0, 3, 6, 9]
        assert "its mask acquires 32 of 80 points" in scan.notes


@pytest.mark.parametrize("mask", [np.ones(9), np.full(10, 2), np.zeros(10), np.ones((10, 8))])
def test_a_mask_that_does_not_fit_is_refused(tmp_path, mask):
    with pytest.raises(UserError, match="dataset 'mask': "):
        open_scan(save(tmp_path / "a.h5", complex_normal((3, 2, 8, 10)), mask=mask))


def test_the_header_says_voxels_oversampling_and_padding(tmp_path):
    path = save(tmp_path / "a.h5", complex_normal((3, 2, 8, 10)), ismrmrd_header=header(tmp_path))
    with open_scan(path) as scan:
        assert scan.geometry == Geometry((2.0, 3.0), 0, 5.0)
        assert (scan.plane, scan.image_matrix) == ((8, 10), (4, 10))
        assert "images show the middle 4 x 10 of 8 x 10: the rest is oversampling" in scan.notes
    changed = header(tmp_path, centre=(3, 0)).replace(b"<maximum>9", b"<maximum>6")
    with open_scan(save(path, complex_normal((3, 2, 8, 10)), ismrmrd_header=changed)) as scan:
        assert "padded by its header: 2 columns left, 1 right, are zero" in scan.notes


def test_only_a_plane_of_the_encoded_matrix_is_cropped(tmp_path):
    shape = (3, 2, 4, 10)  # somebody removed the readout's oversampling, and kept the header
    path = save(tmp_path / "a.h5", complex_normal(shape), ismrmrd_header=header(tmp_path))
    with open_scan(path) as scan:
        assert scan.image_matrix == scan.plane == (4, 10)


@pytest.mark.parametrize(
    "affine", [np.zeros((4, 4)), np.ones((4, 4)), np.full((4, 4), np.nan), np.eye(3),
               np.diag([1e9, 1, 1, 1]), np.diag([1.0, 1, 1, 2])],
)  # fmt: skip
def test_an_affine_that_cannot_be_is_not_believed(tmp_path, affine):
    with h5py.File(save(tmp_path / "a.h5", complex_normal((3, 2, 8, 10))), "r+") as file:
        file.attrs["affine"] = affine
        file.attrs["voxel_size"] = (1e300, 2.0)
    with open_scan(tmp_path / "a.h5") as scan:
        assert scan.affine is None
        assert scan.geometry.voxel_size == (1.0, 1.0)
        write_scan(tmp_path / "a.nii", scan, lambda *counts: None)


def test_a_damaged_header_is_a_note(tmp_path):
    for text in (b"<xml", "not XML", b""):
        path = save(tmp_path / "a.h5", complex_normal((3, 2, 8, 10)), ismrmrd_header=text)
        with open_scan(path) as scan:
            assert scan.geometry == Geometry()
            assert any("ismrmrd_header cannot be read" in note for note in scan.notes)


def test_ismrmrd_and_fastmri_are_told_apart_by_what_is_inside(tmp_path):
    write_mrd(tmp_path / "raw.h5", space_2d(6, 5), lines_of(plane(1, (6, 5))))
    write_hdf5(tmp_path / "kspace.h5", complex_normal((2, 3, 7, 10)))
    assert format_of(tmp_path / "raw.h5") == "ismrmrd"
    assert format_of(tmp_path / "kspace.h5") == "fastmri"


def test_only_the_slice_that_is_read_is_read(tmp_path):
    kspace = complex_normal((4, 2, 8, 10))
    kspace[3] = complex(np.nan, 0)
    with open_scan(save(tmp_path / "a.h5", kspace)) as scan:
        assert torch.equal(scan.read(2), kspace[2])
        with pytest.raises(UserError, match="slice 3 holds NaN"):
            scan.sampled()


def test_data_in_other_files_are_not_opened(tmp_path):
    kspace = complex_normal((2, 3, 7, 10)).numpy()
    (tmp_path / "secret").write_bytes(kspace.tobytes())
    with h5py.File(tmp_path / "a.h5", "w") as file:
        outside = [(str(tmp_path / "secret"), 0, kspace.nbytes)]
        file.create_dataset("kspace", kspace.shape, "c8", external=outside)
    save(tmp_path / "other.h5", torch.from_numpy(kspace))
    layout = h5py.VirtualLayout(kspace.shape, "c8")
    layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "kspace", kspace.shape)
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_virtual_dataset("kspace", layout)
    for name in ("a.h5", "b.h5"):
        with pytest.raises(UserError, match="keeps its data in other files"):
            open_scan(tmp_path / name)


def test_a_broken_heap_does_not_hang(tmp_path):
    path = save(tmp_path / "a.h5", complex_normal((1, 1, 4, 5)), ismrmrd_header=header(tmp_path))
    data = bytearray(path.read_bytes())
    heap = data.index(b"GCOL")
    data[heap + 16 :] = bytes(len(data) - heap - 16)  # free space of no size, for ever
    path.write_bytes(data)
    with open_scan(path) as scan:
        assert any("ismrmrd_header cannot be read" in note for note in scan.notes)
