"""The transform off the grid against the sum that it stands for."""

import math

import pytest
import torch

import laws
from kscout.errors import UserError
from kscout.physics.fourier import image_to_kspace
from kscout.physics.nufft import (
    density_compensation,
    image_to_samples,
    radial,
    samples_to_image,
    spiral,
)
from laws import complex_normal

SHAPES = [(12, 9), (7, 16), (8, 8)]


def grid(shape: tuple[int, int]) -> torch.Tensor:
    return torch.cartesian_prod(*(torch.arange(n) - float(n // 2) for n in shape))


@pytest.mark.parametrize("shape", SHAPES)
def test_on_the_grid_it_is_the_fourier_transform(shape: tuple[int, int]) -> None:
    image = complex_normal((2, 3, *shape))
    samples = image_to_samples(image, grid(shape))
    assert laws.relative_error(samples, image_to_kspace(image).flatten(-2)) < 1e-5


@pytest.mark.parametrize("shape", SHAPES)
def test_off_the_grid_it_is_the_sum(shape: tuple[int, int]) -> None:
    image = complex_normal((2, *shape), 0, torch.complex128)
    where = (torch.rand(20, 2, generator=torch.Generator().manual_seed(0)) - 0.5).double()
    where = where * torch.tensor(shape)
    pixels = grid(shape).double()
    waves = torch.exp(-2j * math.pi * ((where / torch.tensor(shape)) @ pixels.mT))
    expected = image.flatten(-2) @ waves.mT / math.prod(shape) ** 0.5
    assert laws.relative_error(image_to_samples(image, where), expected) < 1e-5


@pytest.mark.parametrize("shape", SHAPES)
def test_the_adjoint(shape: tuple[int, int]) -> None:
    where = radial(5, min(shape)).double()
    image, samples = (
        complex_normal((2, *shape), 1, torch.complex128),
        complex_normal((2, len(where)), 2, torch.complex128),
    )
    left = torch.vdot(samples.flatten(), image_to_samples(image, where).flatten())
    right = torch.vdot(samples_to_image(samples, where, shape).flatten(), image.flatten())
    assert abs(left - right) < 1e-4 * abs(left)


def test_gradients_pass() -> None:
    image = complex_normal((1, 6, 5)).requires_grad_()
    image_to_samples(image, radial(3, 5)).abs().square().sum().backward()
    assert image.grad is not None
    assert image.grad.abs().max() > 0


def test_compensated_samples_weigh_by_the_area_that_they_stand_for() -> None:
    """Of spokes it grows with the radius."""
    where = radial(60, 32)
    weights, radius = density_compensation(where, (32, 32)), where.norm(dim=1)
    rings = [weights[(radius - r).abs() < 0.5].mean() for r in (3, 6, 12)]
    assert rings[1] / rings[0] == pytest.approx(2, rel=0.25)
    assert rings[2] / rings[0] == pytest.approx(4, rel=0.25)
    assert weights.sum() == pytest.approx(math.pi * 16**2, rel=0.1)
    wide = density_compensation(where, (64, 80))  # a larger field has the same samples
    assert wide.sum() == pytest.approx(float(weights.sum()), rel=0.03)


@pytest.mark.parametrize("shape", [(48, 45), (9, 12)])
def test_samples_on_the_grid_weigh_one(shape: tuple[int, int]) -> None:
    axes = [torch.arange(n).float() - n // 2 for n in shape]
    weights = density_compensation(torch.cartesian_prod(*axes), shape)
    torch.testing.assert_close(weights, torch.ones_like(weights), atol=1e-3, rtol=0)


@pytest.mark.parametrize("shape", [(64, 64), (35, 65), (40, 65)])
@pytest.mark.parametrize("n_iterations", [15, 100])
def test_weights_of_spokes_stay_within_reason(shape: tuple[int, int], n_iterations: int) -> None:
    weights = density_compensation(radial(120, min(shape)), shape, n_iterations)
    assert (weights > 0).all()
    assert weights.max() < 10 * weights.median()


def test_a_point_outside_of_the_grid_is_named() -> None:
    with pytest.raises(UserError, match=r"a point at \[0.0, 4.5\]: valid is ky within \+-4"):
        image_to_samples(complex_normal((8, 8)), torch.tensor([[0.0, 1.0], [0.0, 4.5]]))
    with pytest.raises(UserError, match="nan"):
        image_to_samples(complex_normal((8, 8)), torch.tensor([[0.0, math.nan]]))


def test_spirals_begin_at_dc_and_end_at_their_radius() -> None:
    arms = spiral(3, 4.0, 16.0, 50).reshape(3, 50, 2)
    assert torch.equal(arms[:, 0], torch.zeros(3, 2))
    torch.testing.assert_close(arms[:, -1].norm(dim=1), torch.full((3,), 16.0))
