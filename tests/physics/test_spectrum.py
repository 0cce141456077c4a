"""Radial profiles on awkward planes."""

import pytest
import torch

from kscout.physics.spectrum import N_RADII, on_plane, radial_mean, radius, ring_of


@pytest.mark.parametrize("shape", [(7, 6), (121, 145), (80, 96), (1, 9)])
def test_a_constant_plane_stays_constant(shape: tuple[int, int]) -> None:
    profile = radial_mean(torch.full(shape, 2.5, dtype=torch.float64))
    torch.testing.assert_close(profile, torch.full((N_RADII,), 2.5, dtype=torch.float64))
    torch.testing.assert_close(on_plane(profile, shape), torch.full(shape, 2.5).double())


def test_the_mean_of_every_ring_is_kept() -> None:
    plane = torch.rand((121, 144), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    profile, ring = radial_mean(plane), ring_of((121, 144))
    for r in ring.unique().tolist():
        torch.testing.assert_close(profile[r], plane[ring == r].mean())


def test_a_profile_falls_as_its_plane_does() -> None:
    shape = (80, 96)
    plane = (1 + 50 * radius(shape)) ** -3.0
    again = on_plane(radial_mean(plane), shape)
    assert float((again / plane).log().abs().max()) < 0.3


def test_dc_is_the_first_ring_and_the_corner_the_last() -> None:
    assert int(ring_of((8, 10))[4, 5]) == 0
    assert int(ring_of((8, 10))[0, 0]) == N_RADII - 1
