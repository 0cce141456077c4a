import inspect
import math
import sys

import nibabel
import numpy as np
import pytest
import torch

from kscout.data import DATA
from kscout.data.anatomy import SHAPE, Anatomy, deform, icbm152, spm_tpm
from kscout.data.brain import brain
from kscout.data.slices import KspaceSet
from kscout.errors import UserError
from kscout.physics.fourier import kspace_to_image

SMALL = {"n_train": 2, "n_val": 1, "n_test": 1, "n_coils": 3, "slices": (60, 63)}


@pytest.fixture(scope="module")
def splits():
    pytest.importorskip("nilearn")
    return brain(**SMALL)


def test_every_source_takes_keywords_only_and_says_what_they_are():
    for kind, source in DATA.items():
        for option in inspect.signature(source).parameters.values():
            assert option.kind is option.KEYWORD_ONLY
            assert option.annotation.__metadata__[0].description
            needed = option.default is option.empty
            assert needed == (option.name == "path" and kind in ("knees", "volume"))


def test_volumes_are_apart_and_on_one_scale(splits):
    assert {name: part.volume.unique().tolist() for name, part in splits.items()} == {
        "train": [0, 1],
        "val": [2],
        "test": [3],
    }
    train = splits["train"]
    assert train.kspace.shape == (6, 3, 121, 145)
    assert train.kspace.dtype == torch.complex64
    assert train.target is train.kspace
    largest = torch.view_as_real(train.kspace).abs().amax((0, 2, 3, 4))
    torch.testing.assert_close(largest, torch.ones(3))
    for part in splits.values():
        unscaled = part.kspace / part.coil_scale[:, None, None]
        for volume in part.volume.unique():
            assert float(unscaled[part.volume == volume].abs().max()) == pytest.approx(1, rel=1e-5)
        assert torch.equal(part.coil_scale, train.coil_scale)


def test_the_same_seed_gives_the_same_test_set_whatever_is_trained_on(splits):
    other = brain(**SMALL | {"n_train": 1, "n_val": 0})
    assert len(other["val"]) == 0
    images = [s["test"].image(s["test"].kspace) for s in (splits, other)]
    torch.testing.assert_close(*images)


@pytest.mark.parametrize("seed", ["contrast_seed", "anatomy_seed", "noise_seed"])
def test_each_seed_changes_what_it_names(splits, seed):
    options = SMALL | {"snr_db": 20.0 if seed == "noise_seed" else None}
    one, other = (brain(**options | {seed: s})["test"] for s in (123, 124))
    assert not torch.equal(one.kspace, other.kspace)
    if seed == "noise_seed":
        ratio = float(one.target.abs().max() / other.target.abs().max())
        torch.testing.assert_close(
            one.image(one.target), ratio * other.image(other.target), rtol=1e-3, atol=1e-3
        )


def test_noise_has_the_stated_snr_and_spares_the_target():
    splits = brain(**SMALL, snr_db=15.0)
    for part in splits.values():
        scale = part.coil_scale[:, None, None]
        for volume in part.volume.unique():
            of = part.volume == volume
            target, kspace = part.target[of] / scale, part.kspace[of] / scale
            noise = (kspace - target).abs().square().mean()
            snr = 10 * math.log10(float(target.abs().square().mean() / noise))
            assert snr == pytest.approx(15, abs=0.1)


def test_numbers_stay_what_they_were():
    """Points as they were before a matrix and a phase could be asked for."""
    splits = brain(**SMALL | {"slices": (55, 66)}, snr_db=12.0, test_coil_turn=22.5)
    expected = {
        ("train", 1): (-0.115648 + 0.061953j, 0.166301 - 0.313358j, 0.990855 + 0.081001j),
        ("test_coils", -1): (-0.198574 + 0.078041j, 0.141026 - 0.376072j, 0.856371 + 0.039986j),
    }
    for (name, row), points in expected.items():
        part = splits[name]
        torch.testing.assert_close(
            part.kspace[row, 2, 60, 70:73], torch.tensor(points), atol=1e-5, rtol=0
        )
        torch.testing.assert_close(
            part.coil_scale, torch.tensor([1.0000073, 1.2503119, 1.2821238]), atol=1e-5, rtol=0
        )
    clean = torch.tensor([-0.113594 + 0.057729j, 0.166304 - 0.311330j, 0.987183 + 0.078841j])
    torch.testing.assert_close(splits["train"].target[1, 2, 60, 70:73], clean, atol=1e-5, rtol=0)


def test_a_matrix_keeps_the_points_around_dc(splits):
    for name, part in brain(**SMALL, matrix=(80, 97)).items():
        # DC is at (60, 72) of the 121x145 points, and at (40, 48) of the 80x97
        torch.testing.assert_close(part.kspace, splits[name].kspace[..., 20:100, 24:121])
        assert part.shape == (80, 97)
        assert part.target is part.kspace
        assert part.voxel_size == pytest.approx((197 / 80, 233 / 97))
        assert part.slice_thickness == splits[name].slice_thickness


def test_a_phase_keeps_the_magnitudes_and_the_other_streams():
    options = {"n_train": 1, "n_val": 1, "n_test": 1, "n_coils": 1, "coils": "birdcage"}
    options |= {"slices": (60, 63), "snr_db": 20.0}
    real, half, again, other = (
        brain(**options, **change)
        for change in ({}, {"phase": 0.5}, {"phase": 0.5}, {"phase": 0.5, "phase_seed": 1})
    )
    phases, heads = [], []
    for name, part in half.items():
        assert torch.equal(part.kspace, again[name].kspace)
        factor = float(part.target.norm() / real[name].target.norm())
        magnitude = factor * real[name].image(real[name].target)
        for changed in (part, other[name]):
            image = changed.image(changed.target) * float(
                part.target.norm() / changed.target.norm()
            )
            torch.testing.assert_close(image, magnitude, atol=1e-4, rtol=1e-4)
        noise = [s.kspace - s.target for s in (part, real[name])]
        torch.testing.assert_close(noise[0], factor * noise[1], atol=1e-4, rtol=1e-4)
        turned = kspace_to_image(part.target) * kspace_to_image(real[name].target).conj()
        heads.append(magnitude > 0.05 * magnitude.max())
        phases.append(turned.angle()[:, 0])
        assert float(phases[-1][heads[-1]].square().mean().sqrt()) == pytest.approx(0.5, abs=0.02)
        assert not torch.allclose(part.kspace, other[name].kspace, atol=0.01)
    differ = (phases[0] - phases[1])[heads[0] & heads[1]]
    assert float(differ.abs().mean()) > 0.1  # every scan has its own


def test_held_out_coils_see_the_same_test_heads():
    splits = brain(**SMALL, test_coil_turn=22.5)
    test, turned = splits["test"], splits["test_coils"]
    assert turned.volume.unique().tolist() == [4]
    assert not torch.allclose(test.kspace, turned.kspace, atol=1e-3)
    heads = [part.image(part.kspace) for part in (test, turned)]
    heads = [head > 0.05 * head.amax() for head in heads]
    assert float((heads[0] == heads[1]).float().mean()) > 0.97
    whole = brain(**SMALL, test_coil_turn=360.0)
    torch.testing.assert_close(whole["test"].kspace, whole["test_coils"].kspace)


@pytest.mark.parametrize("coils", ["dipole", "birdcage"])
def test_heads_are_upright_and_inside_the_picture(coils):
    part = brain(**SMALL, coils=coils)["test"]
    picture = np.rot90(part.image(part.target)[1].numpy(), part.quarter_turns)
    head = picture > 0.05 * picture.max()
    assert head.shape == (145, 121)
    assert not head[[0, -1]].any()
    assert not head[:, [0, -1]].any()
    rows, columns = np.nonzero(head.any(1))[0], np.nonzero(head.any(0))[0]
    assert np.ptp(rows) > np.ptp(columns)  # a head is longer than wide


def test_the_axes_are_right_anterior_superior():
    """So that one quarter turn puts the front of the head up."""
    template = pytest.importorskip("nilearn.datasets").load_mni152_template(resolution=1)
    assert nibabel.aff2axcodes(template.affine) == ("R", "A", "S")


def test_spm_tpm_has_the_same_axes(real_data):
    grey = spm_tpm(real_data / "spm_tpm_uint8.npz").classes[0]
    same, back_to_front = (
        float((grey * other).sum())
        for other in (icbm152().classes[0], icbm152().classes[0].flip(1))
    )
    assert same > 1.2 * back_to_front


def test_tissues_are_probabilities():
    classes = icbm152().classes
    assert classes.shape == (4, *SHAPE)
    assert float(classes.min()) >= 0
    assert float(classes.sum(0).max()) <= 1.2


def test_a_deformation_is_as_strong_as_asked_and_smooth():
    x, y, _ = torch.meshgrid(*(torch.arange(n).float() for n in SHAPE), indexing="ij")
    sizes = (1.6, 1.5, 1.4)
    middle = range(55, 65)
    squares = []
    for seed in range(6):
        for axis, coordinate in enumerate((x, y)):
            moved = deform(coordinate, sizes, 3.0, np.random.default_rng(seed), middle)
            shift = (moved - coordinate[..., middle])[20:-20, 20:-20] * sizes[axis]
            squares.append(float(shift.square().mean()))
            assert float(shift.diff(dim=axis).abs().max()) < sizes[axis]  # nothing folds
    assert 2.0 < np.sqrt(np.mean(squares)) < 4.0


def test_no_deformation_is_the_identity():
    volume = torch.rand(SHAPE, generator=torch.Generator().manual_seed(0))
    same = deform(volume, (1.0, 2.0, 3.0), 0.0, np.random.default_rng(0), range(3, 6))
    torch.testing.assert_close(same, volume[..., 3:6], atol=1e-4, rtol=1e-4)


def original_recipe(tpm, n_volumes, slices):
    """The original study's simulation as its own loops would do it, in double precision."""
    uniform = np.random.RandomState(123).uniform(size=(n_volumes, 6))
    contrasts = np.round(20 - 20 * uniform, 1)
    contrasts[:, 3] = contrasts[:, 5] = 0
    seeds = np.random.RandomState(123).choice(1000, n_volumes, replace=False)
    x, y, z = np.meshgrid(*(np.linspace(-n / 2, n / 2, n) for n in SHAPE), indexing="ij")
    scans = []
    for contrast, seed in zip(contrasts, seeds, strict=True):
        image = (tpm / 255 * contrast).sum(-1)
        image += np.random.RandomState(seed).normal(0, np.sqrt(1e-3), SHAPE)
        coils = []
        for c in range(8):
            p = 2 * np.pi * c / 8
            dx, dy = x - 121 * np.cos(p), y - 145 * np.sin(p)
            along, across = np.cos(p) * dx + np.sin(p) * dy, np.cos(p) * dy - np.sin(p) * dx
            r = np.sqrt(along**2 + across**2 + z**2)
            field = (3 * along**2 / r**2 - 1 + 3j * along * across / r**2) / r**3
            plane = np.fft.ifftshift((field * image)[:, :, slices], axes=(0, 1))
            coils.append(np.fft.fftshift(np.fft.fft2(plane, axes=(0, 1)), axes=(0, 1)))
        scan = np.stack(coils).transpose(3, 0, 1, 2)
        scans.append(scan / abs(scan).max())
    return scans


def test_spm_tpm_follows_the_original_recipe(real_data):
    path = real_data / "spm_tpm_uint8.npz"
    splits = brain(source="spm_tpm", tpm=path, n_train=2, n_test=1, slices=(50, 52))
    with np.load(path, allow_pickle=False) as archive:
        expected = original_recipe(archive["tpm"], 3, slice(50, 52))
    train = np.concatenate(expected[:2])
    largest = np.maximum(abs(train.real), abs(train.imag)).max((0, 2, 3))
    for name, scan in {"train": train, "test": expected[2]}.items():
        scaled = scan / largest[:, None, None]
        np.testing.assert_allclose(splits[name].kspace.numpy(), scaled, atol=3e-6)
    assert len(splits["val"]) == 0
    np.testing.assert_allclose(splits["test"].coil_scale, 1 / largest, rtol=1e-5)
    split = brain(source="spm_tpm", tpm=path, n_train=2, n_val=1, n_test=1, slices=(50, 52))
    shown = [split["val"].image(split["val"].kspace), splits["train"].image(splits["train"].kspace)]
    torch.testing.assert_close(shown[0], shown[1][2:])


def test_bad_options_are_refused(tmp_path):
    np.savez(tmp_path / "small.npz", tpm=np.zeros((2, 3, 4, 6), np.uint8))
    (tmp_path / "TPM.nii").write_bytes(b"not NIfTI")
    spm = {"source": "spm_tpm"}
    for options, message in [
        ({"slices": (90, 50)}, "slices 90 to 50 are impossible"),
        ({"slices": (0, 122)}, "<= 121"),
        ({"matrix": (122, 145)}, "a matrix of 122x145 is impossible: valid is 1x1 to 121x145"),
        ({"matrix": (80, 0)}, "a matrix of 80x0 is impossible"),
        ({**SMALL, "slices": (118, 121)}, "slice 118 holds no head"),
        ({"tpm": tmp_path / "TPM.nii"}, "tpm is for source 'spm_tpm'"),
        (spm, r"needs tpm, the path of SPM12's TPM\.nii"),
        ({**spm, "tpm": tmp_path / "none.nii"}, "no such file"),
        ({**spm, "tpm": tmp_path / "TPM.nii"}, "is not a readable NIfTI"),
        ({**spm, "tpm": tmp_path / "small.npz"}, "valid is uint8 of shape"),
    ]:
        with pytest.raises(UserError, match=message):
            brain(**options)


def test_validation_leaves_something_to_train_on(monkeypatch):
    tiny = Anatomy(torch.ones(6, 1, 1, 1), (1.5, 1.5, 1.5))
    monkeypatch.setattr("kscout.data.brain.spm_tpm", lambda path: tiny)
    with pytest.raises(UserError, match="n_val 2 leaves nothing of n_train 2"):
        brain(source="spm_tpm", n_train=2, n_val=2)


def test_a_missing_nilearn_tells_what_to_install(monkeypatch):
    icbm152.cache_clear()
    monkeypatch.setitem(sys.modules, "nilearn", None)
    with pytest.raises(UserError, match=r"pip install 'kscout\[brain\]'"):
        brain()


def test_sets_are_sets(splits):
    assert all(isinstance(part, KspaceSet) for part in splits.values())
    assert splits["test"].voxel_size == pytest.approx((197 / 121, 233 / 145))
    assert splits["test"].slice_thickness == pytest.approx(189 / 121)
