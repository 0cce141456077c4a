import math

import numpy as np
import pytest
import torch

from kscout.physics.coils import (
    birdcage_coils,
    dipole_coils,
    root_sum_of_squares,
    sensitivity_weighted,
)

VOLUME = (11, 14, 6)


def random(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.complex128, generator=generator)


def test_dipoles_are_the_field_of_a_dipole():
    """Against Jackson's 3 n (n.m) - m over r^3, for a moment that points at the centre."""
    maps = dipole_coils(VOLUME, 3, turn=0.3)
    axes = [np.linspace(-n / 2, n / 2, n) for n in VOLUME]
    for coil in range(3):
        angle = 2 * np.pi * coil / 3 + 0.3
        along = np.array([np.cos(angle), np.sin(angle), 0])
        # the complex field turns with the coil: y is the second axis after turning back
        across = np.array([-np.sin(angle), np.cos(angle), 0])
        place = np.array([VOLUME[0] * np.cos(angle), VOLUME[1] * np.sin(angle), 0])
        for i, j, k in [(0, 0, 0), (3, 9, 2), (10, 13, 5), (5, 7, 3)]:
            offset = np.array([axes[0][i], axes[1][j], axes[2][k]]) - place
            r = np.linalg.norm(offset)
            field = (3 * offset * (offset @ along) / r**2 - along) / r**3
            expected = field @ along + 1j * (field @ across)
            # float32 maps
            np.testing.assert_allclose(maps[k, coil, i, j].numpy(), expected, rtol=1e-5)


def test_dipoles_of_chosen_slices_are_those_of_the_volume():
    whole = dipole_coils(VOLUME, 5)
    assert whole.shape == (6, 5, 11, 14)
    assert whole.dtype == torch.complex64
    assert torch.equal(dipole_coils(VOLUME, 5, slices=range(2, 5)), whole[2:5])


def test_each_coil_sees_its_own_side_best():
    for maps in (dipole_coils((21, 21, 3), 4)[1], birdcage_coils((21, 21), 4)):
        brightest = {int(each.abs().argmax()) for each in maps}
        assert len(brightest) == 4
        assert all(index // 21 in (0, 20) or index % 21 in (0, 20) for index in brightest)


@pytest.mark.parametrize("n_coils", [1, 3, 8])
def test_a_turn_by_one_coil_renames_the_coils(n_coils):
    step = 2 * math.pi / n_coils
    for make in (
        lambda turn: dipole_coils(VOLUME, n_coils, turn=turn)[0].abs(),
        lambda turn: birdcage_coils((9, 12), n_coils, turn=turn).abs(),
    ):
        torch.testing.assert_close(make(step), make(0.0).roll(-1, 0))
        torch.testing.assert_close(make(2 * math.pi), make(0.0))
        if n_coils > 1:
            assert not torch.allclose(make(step / 2), make(0.0))


@pytest.mark.parametrize("n_coils", [1, 3, 8])
@pytest.mark.parametrize("shape", [(7, 10), (121, 145)])
def test_birdcage_has_unit_root_sum_of_squares(n_coils, shape):
    maps = birdcage_coils(shape, n_coils)
    assert maps.shape == (n_coils, *shape)
    torch.testing.assert_close(root_sum_of_squares(maps), torch.ones(shape))


def test_root_sum_of_squares_is_the_norm_over_coils():
    images = random(2, 3, 7, 10)
    torch.testing.assert_close(root_sum_of_squares(images), images.norm(dim=-3))


def test_sensitivity_weighting_undoes_the_coils():
    maps, image = random(3, 7, 10), random(2, 1, 7, 10, seed=1)
    torch.testing.assert_close(sensitivity_weighted(image * maps, maps), image[:, 0])


def test_sensitivity_weighting_is_the_least_squares_image():
    maps, images = random(3, 7, 10), random(3, 7, 10, seed=1)
    best = sensitivity_weighted(images, maps)
    residual = images - best * maps
    torch.testing.assert_close(
        (maps.conj() * residual).sum(0), torch.zeros_like(best), atol=1e-10, rtol=0
    )


def test_where_no_coil_sees_the_image_is_zero():
    maps, images = random(3, 7, 10), random(3, 7, 10, seed=1)
    maps[:, 2:4] = 0
    combined = sensitivity_weighted(images, maps)
    assert torch.equal(combined == 0, (maps == 0).all(0))
