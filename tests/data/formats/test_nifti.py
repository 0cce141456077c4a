import nibabel
import numpy as np
import pytest
import torch

from kscout.data.files import files, kspace_files
from kscout.data.formats import open_scan
from kscout.data.slices import Geometry
from kscout.data.writers import write_hdf5, write_nifti, write_scan
from kscout.errors import UserError
from kscout.physics.coils import root_sum_of_squares
from kscout.physics.fourier import kspace_to_image
from laws import complex_normal

SHAPE = (3, 7, 10)


def magnitudes(seed=0):
    return torch.rand(SHAPE, generator=torch.Generator().manual_seed(seed)) + 0.1


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("turns", range(4))
def test_the_images_of_simulated_coils_are_those_of_the_file(tmp_path, name, turns):
    images = magnitudes()
    write_nifti(tmp_path / name, images, Geometry((0.5, 2.0), turns, 4.0))
    with open_scan(tmp_path / name, {"n_coils": 5}) as scan:
        rss = root_sum_of_squares(kspace_to_image(scan.read_all()))
        upright = torch.rot90(images, turns, (1, 2))
        assert scan.shape == (3, 5, *upright.shape[1:])
        torch.testing.assert_close(rss, upright)
        size = (2.0, 0.5) if turns % 2 else (0.5, 2.0)
        assert scan.geometry == Geometry(size, 0, 4.0)
        assert scan.simulated
        assert "flatter every method" in scan.notes[0]
        assert scan.sampled().all()


def test_phase_and_noise_are_as_asked_for(tmp_path):
    write_nifti(tmp_path / "a.nii", magnitudes())
    options = {"n_coils": 4, "snr_db": 20.0, "phase": 0.5}
    with (
        open_scan(tmp_path / "a.nii", options) as noisy,
        open_scan(tmp_path / "a.nii", {**options, "snr_db": None}) as clean,
        open_scan(tmp_path / "a.nii", {**options, "noise_seed": 1}) as other,
    ):
        signal = clean.read_all()
        noise = noisy.read_all() - signal
        ratio = signal.abs().square().mean() / noise.abs().square().mean()
        assert 10 * float(torch.log10(ratio)) == pytest.approx(20, abs=0.5)
        assert torch.equal(noisy.read(1), noisy.read(1))
        assert not torch.equal(noisy.read(1), other.read(1))
        assert clean.read(1).isreal().sum() == 0


def test_a_black_slice_is_zero(tmp_path):
    images = magnitudes()
    images[1] = 0
    write_nifti(tmp_path / "a.nii", images)
    with open_scan(tmp_path / "a.nii") as scan:
        assert not scan.read(1).any()
        assert scan.read(2).all()


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (complex_normal(SHAPE), "magnitude image: this holds complex values"),
        (torch.rand(3, 2, 7, 10), "magnitude image: this holds 2 images"),
        (-magnitudes(), "slice 0 holds negative values"),
    ],
)
def test_only_magnitudes_become_kspace(tmp_path, image, message):
    write_nifti(tmp_path / "a.nii", image)
    with pytest.raises(UserError, match=message), open_scan(tmp_path / "a.nii") as scan:
        scan.read(0)


def test_integers_with_a_scale_are_read(tmp_path):
    image = nibabel.Nifti1Image(np.arange(24, dtype=np.int16).reshape(4, 3, 2), np.eye(4))
    image.header.set_slope_inter(0.5, 1)
    nibabel.save(image, tmp_path / "a.nii")
    with open_scan(tmp_path / "a.nii") as scan:
        rss = root_sum_of_squares(kspace_to_image(scan.read(1)))
    voxels = nibabel.load(tmp_path / "a.nii").get_fdata()[:, :, 1]
    np.testing.assert_allclose(rss, np.rot90(voxels), rtol=1e-5)


def test_conversion_keeps_saying_that_it_was_simulated(tmp_path):
    write_nifti(tmp_path / "a.nii", magnitudes())
    with open_scan(tmp_path / "a.nii") as scan:
        write_scan(tmp_path / "a.h5", scan, lambda done, total: None)
        with open_scan(tmp_path / "a.h5") as again:
            assert again.simulated
            assert again.notes == scan.notes
            assert torch.equal(again.read_all(), scan.read_all())


def test_a_folder_of_images_is_a_source_and_images_beside_kspace_are_not(tmp_path):
    for seed in range(3):
        write_nifti(tmp_path / f"{seed}.nii", magnitudes(seed))
    splits = files(path=tmp_path, val_fraction=0, reading={"n_coils": 2})
    assert splits["train"].kspace.shape == (6, 2, 7, 10)
    write_hdf5(tmp_path / "scan.h5", complex_normal((2, 3, 7, 10)))
    assert [path.name for path in kspace_files(tmp_path)] == ["scan.h5"]
