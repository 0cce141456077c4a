import math

import numpy as np
import pytest
import torch

from kscout.data import DATA
from kscout.data.knees import knees
from kscout.data.phase import with_phase
from kscout.errors import UserError
from kscout.physics.coils import birdcage_coils, dipole_coils
from kscout.physics.fourier import kspace_to_image

N, SHAPE = 7, (9, 14)
SMALL = {"n_val": 1, "n_test": 2, "n_coils": 3}


@pytest.fixture(scope="module")
def magnitudes():
    return np.random.default_rng(0).uniform(0.2, 5, (N, *SHAPE))


@pytest.fixture(scope="module")
def path(magnitudes, tmp_path_factory):
    path = tmp_path_factory.mktemp("knees") / "knees.npy"
    np.save(path, magnitudes)
    return path


def unit(images):
    """Every volume on its own scale."""
    return images / images.flatten(1).norm(dim=1)[:, None, None]


def shown(part):
    return unit(part.image(part.target))


def subjects(part, magnitudes):
    """The place in the file of each subject of a split."""
    distance = (shown(part)[:, None] - unit(torch.from_numpy(magnitudes).float())).abs()
    distance = distance.flatten(2).amax(2)
    assert float(distance.amin(1).max()) < 1e-5
    return distance.argmin(1).tolist()


def test_every_subject_is_in_one_split_with_its_magnitudes(path, magnitudes):
    splits = knees(path=path, **SMALL)
    assert {name: len(part) for name, part in splits.items()} == {"train": 4, "val": 1, "test": 2}
    found = {name: subjects(part, magnitudes) for name, part in splits.items()}
    assert sorted(number for part in found.values() for number in part) == list(range(N))
    numbers = torch.cat([part.volume for part in splits.values()])
    assert sorted(numbers.tolist()) == list(range(N))
    for part in splits.values():
        assert part.kspace.shape[1:] == (3, *SHAPE)
        assert part.kspace.dtype == torch.complex64
        assert part.target is part.kspace
    others = knees(path=path, **SMALL | {"n_val": 0})
    torch.testing.assert_close(shown(others["test"]), shown(splits["test"]))
    assert len(others["val"]) == 0


@pytest.mark.parametrize("coils", ["birdcage", "dipole"])
def test_kspace_is_that_of_the_coil_images(path, magnitudes, coils):
    train = knees(path=path, **SMALL, coils=coils, phase=0.0)["train"]
    maps = birdcage_coils(SHAPE, 3) if coils == "birdcage" else dipole_coils((*SHAPE, 1), 3)[0]
    numbers = subjects(knees(path=path, **SMALL)["train"], magnitudes)
    images = np.fft.ifftshift(magnitudes[numbers][:, None] * maps.numpy(), axes=(2, 3))
    kspace = np.fft.fftshift(np.fft.fft2(images), axes=(2, 3))
    kspace /= abs(kspace).max((1, 2, 3), keepdims=True)
    largest = np.maximum(abs(kspace.real), abs(kspace.imag)).max((0, 2, 3))
    np.testing.assert_allclose(train.coil_scale, 1 / largest, rtol=1e-5)
    np.testing.assert_allclose(train.kspace, kspace / largest[:, None, None], atol=1e-5)


def test_each_seed_changes_what_it_names(path, magnitudes):
    options = SMALL | {"path": path, "snr_db": 10.0}
    one, same, noise, phase, split = (
        knees(**options | change)
        for change in ({}, {}, {"noise_seed": 1}, {"phase_seed": 1}, {"split_seed": 1})
    )
    for name, part in one.items():
        assert torch.equal(part.kspace, same[name].kspace)
        assert torch.equal(part.target, same[name].target)
        torch.testing.assert_close(shown(part), shown(noise[name]))
        torch.testing.assert_close(shown(part), shown(phase[name]))
    sets = [s["test"] for s in (one, noise, phase)]
    kspace = [unit((s.kspace / s.coil_scale[:, None, None])[:, 0]) for s in sets]
    target = [unit((s.target / s.coil_scale[:, None, None])[:, 0]) for s in sets]
    torch.testing.assert_close(target[0], target[1])
    assert float((kspace[0] - kspace[1]).abs().max()) > 0.01
    assert float((target[0] - target[2]).abs().max()) > 0.01
    assert set(subjects(one["test"], magnitudes)) != set(subjects(split["test"], magnitudes))


def test_noise_and_phase_belong_to_the_subject_whatever_the_split(path, magnitudes):
    """One coil only, whose images differ by a factor alone from split to split."""
    found = {}
    for seed in range(2):
        for part in knees(
            path=path, n_val=2, n_test=2, n_coils=1, snr_db=5, split_seed=seed
        ).values():
            for number, kspace in zip(
                subjects(part, magnitudes), unit(part.kspace[:, 0]), strict=True
            ):
                found.setdefault(number, []).append(kspace)
    assert len(found) == N
    for one, other in found.values():
        torch.testing.assert_close(one, other)


def test_every_subject_has_its_own_phase_and_noise(path):
    part = knees(path=path, n_coils=1, n_val=0, n_test=1, snr_db=5)["train"]
    one, other = kspace_to_image(part.target[:2, 0])
    assert float((one * other.conj()).angle().std()) > 0.1
    one, other = unit((part.kspace - part.target)[:2, 0])
    assert float((one - other).abs().mean()) > 0.01


def test_a_matrix_keeps_the_points_around_dc_and_noise_is_scaled_to_them(path):
    whole = knees(path=path, **SMALL)
    kept = knees(path=path, **SMALL, matrix=(4, 7))
    noisy = knees(path=path, **SMALL, matrix=(4, 7), snr_db=10.0)
    for name, part in kept.items():
        assert part.kspace.shape[2:] == (4, 7)
        assert part.voxel_size == pytest.approx((9 / 4, 2))
        # DC is at (4, 7) of the 9x14 points, and at (2, 3) of the 4x7
        centre = (whole[name].kspace / whole[name].coil_scale[:, None, None])[..., 2:6, 4:11]
        centre = centre / centre.flatten(1).abs().amax(1)[:, None, None, None]
        torch.testing.assert_close(part.kspace / part.coil_scale[:, None, None], centre)
        torch.testing.assert_close(shown(noisy[name]), shown(part))
    scale = noisy["train"].coil_scale[:, None, None]
    for kspace, target in zip(noisy["train"].kspace, noisy["train"].target, strict=True):
        noise = ((kspace - target) / scale).abs().square().mean()
        snr = 10 * math.log10(float((target / scale).abs().square().mean() / noise))
        assert snr == pytest.approx(10, abs=2.0)  # 84 samples of noise
    assert torch.equal(knees(path=path, **SMALL, matrix=SHAPE)["test"].kspace, whole["test"].kspace)


def test_turned_coils_see_the_same_knees(path):
    splits = knees(path=path, **SMALL, test_coil_turn=22.5)
    test, turned = splits["test"], splits["test_coils"]
    torch.testing.assert_close(shown(test), shown(turned))
    assert not torch.allclose(test.kspace, turned.kspace, atol=1e-2)
    whole = knees(path=path, **SMALL, test_coil_turn=360.0)
    torch.testing.assert_close(whole["test"].kspace, whole["test_coils"].kspace, atol=1e-5, rtol=0)


def test_what_is_not_a_stack_of_magnitudes_is_refused(tmp_path, magnitudes, path):
    black, missing, negative = magnitudes.copy(), magnitudes.copy(), magnitudes.copy()
    black[3], missing[2, 1, 1], negative[0, 4, 4] = 0, np.nan, -1
    file = tmp_path / "bad.npy"
    for array, message in [
        (magnitudes.astype(np.complex64), "dtype is complex64: magnitudes are real"),
        (magnitudes > 1, "dtype is bool"),
        (magnitudes[0], r"its shape is \(9, 14\): valid is \(subject, y, x\)"),
        (magnitudes[:0], "is empty"),
        (1e300 * magnitudes, "holds NaN or infinity"),
        (missing, "holds NaN or infinity"),
        (negative, "holds negative values"),
        (black, "subject 3 holds nothing but zeros"),
        (magnitudes[:3], "n_val 1 and n_test 2 leave none of the 3 subjects"),
    ]:
        np.save(file, array)
        with pytest.raises(UserError, match=message):
            knees(path=file, **SMALL)
    with pytest.raises(UserError, match=r"none\.npy: no such file: .*mridata\.org"):
        knees(path=tmp_path / "none.npy")
    for matrix in [(0, 14), (9, 0), (10, 14), (9, 15)]:
        with pytest.raises(UserError, match="is impossible: valid is 1x1 to 9x14"):
            knees(path=path, **SMALL, matrix=matrix)


def test_real_knees(real_data):
    splits = DATA["knees"](path=real_data / "knee_rss_20x320x256.npy", n_coils=2, matrix=(160, 128))
    assert [len(part) for part in splits.values()] == [13, 2, 5]
    assert splits["train"].kspace.shape[1:] == (2, 160, 128)
    assert splits["train"].voxel_size == (2, 2)
    largest = torch.view_as_real(splits["train"].kspace).abs().amax((0, 2, 3, 4))
    torch.testing.assert_close(largest, torch.ones(2))


@pytest.fixture
def volume():
    """Five slices with air around the object."""
    volume = torch.rand(5, *SHAPE, generator=torch.Generator().manual_seed(1)) + 0.2
    volume[:, :2] = volume[:, :, 11:] = 0.01
    return volume


def phase_of(volume, position, rms=0.3, seed=0):
    return with_phase(volume, rms, position, np.random.SeedSequence(seed)).angle()


POSITION = torch.linspace(-0.5, 0.9, 5)


def test_a_phase_keeps_the_magnitude_and_has_the_stated_rms_over_the_object(volume):
    complex_ = with_phase(volume, 0.3, POSITION, np.random.SeedSequence(0))
    torch.testing.assert_close(complex_.abs(), volume)
    inside = complex_.angle()[:, 2:, :11]
    assert float(inside.mean()) == pytest.approx(0, abs=1e-5)
    assert float(inside.square().mean().sqrt()) == pytest.approx(0.3, rel=1e-4)
    assert not torch.allclose(phase_of(volume, POSITION, seed=1), complex_.angle(), atol=0.1)


def test_a_phase_is_a_cubic_along_every_axis(volume):
    phase = phase_of(volume, POSITION, rms=0.2)
    for axis in range(3):
        assert float(phase.diff(n=4, dim=axis).abs().max()) < 1e-4
        assert float(phase.diff(dim=axis).abs().max()) > 1e-2


def test_the_phase_of_some_slices_is_that_of_the_volume_but_for_scale(volume):
    whole = phase_of(volume, POSITION, rms=0.2)[1:4]
    some = phase_of(volume[1:4], POSITION[1:4], rms=0.2)
    together = torch.stack([whole.flatten(), some.flatten()])
    assert float(torch.corrcoef(together)[0, 1]) == pytest.approx(1, abs=1e-5)


def test_a_single_point_has_no_phase():
    point = torch.zeros(1, 5, 4)
    point[0, 1, 2] = 3
    assert torch.equal(
        with_phase(point, 1.0, torch.zeros(1), np.random.SeedSequence(0)), point + 0j
    )
