"""The Gaussian scan against dense linear algebra of real vectors, on odd and oblong planes."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import laws
from kscout.physics.fourier import image_to_kspace, to_centre, to_corner
from kscout.physics.gaussian import GaussianScan, mirror

SHAPE = (7, 6)
N = SHAPE[0] * SHAPE[1]
SHARES = [0.0, 0.1, 1.0]
"""Power of the imaginary part over that of the real one."""


def rand(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, dtype=torch.float64, generator=generator)


def scan(share: float) -> GaussianScan:
    maps = laws.complex_normal((2, 3, *SHAPE), dtype=torch.complex128)
    spectrum = rand(*SHAPE, seed=1) + 0.1
    spectrum = spectrum + mirror(spectrum)
    return GaussianScan(maps, rand(2, *SHAPE), torch.stack([spectrum, share * spectrum]), 0.3)


def mask() -> Tensor:
    return (rand(*SHAPE, seed=2) < 0.4).double()


def as_real(x: Tensor, n_slices: int = 2) -> Tensor:
    """Real parts, then imaginary parts: ``(slice, 2 n)``."""
    flat = x.reshape(n_slices, -1)
    return torch.cat([flat.real, flat.imag], 1)


def dense(operator: Callable[[Tensor], Tensor]) -> Tensor:
    """The real matrix of an operator on white images: ``(slice, row, column)``."""
    unit = torch.eye(N, dtype=torch.complex128).reshape(N, *SHAPE)
    columns = [as_real(operator(e.expand(2, *SHAPE))) for e in torch.cat([unit, 1j * unit])]
    return torch.stack(columns, -1)


@pytest.mark.parametrize("share", SHARES)
def test_adjoints(share: float) -> None:
    made = scan(share)
    kspace = laws.complex_normal((2, 3, *SHAPE), 5, torch.complex128)
    image = laws.complex_normal((2, *SHAPE), 6, torch.complex128)
    for forward, backward, x in (
        (made.measure, made.measure_adjoint, kspace),
        (made.image, made.image_adjoint, image),
        (made.texture, made.texture, image),
    ):
        expected = (dense(forward).mT @ as_real(x)[..., None])[..., 0]
        torch.testing.assert_close(as_real(backward(x)), expected)


@pytest.mark.parametrize("share", SHARES)
def test_the_posterior_is_that_of_dense_algebra(share: float) -> None:
    """Mean of x given y from the joint covariance of both."""
    made, kept = scan(share), mask()
    truth, noise = (laws.complex_normal((2, 3, *SHAPE), s, torch.complex128) for s in (3, 4))
    y = (truth + 0.3 * noise) * kept
    image, measured = dense(made.image), dense(lambda v: kept * made.measure(v))
    eye = 0.3**2 / 2 * torch.eye(measured.shape[1], dtype=torch.float64)
    covariance = torch.linalg.cholesky(measured @ measured.mT + eye)
    weights = torch.cholesky_solve(as_real(y)[..., None], covariance)
    expected = (image @ measured.mT @ weights)[..., 0]
    found = as_real(made.reconstruct(y, kept, 80))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("share", SHARES)
def test_white_images_measure_as_the_prior_says(share: float) -> None:
    made = scan(share)
    image = dense(made.image)
    torch.testing.assert_close(made.signal, image.square().sum((1, 2)))
    generator = torch.Generator().manual_seed(0)
    wide = replace(made, maps=made.maps.to(torch.complex64))
    drawn = torch.stack([wide.white(generator) for _ in range(2000)])
    parts = torch.view_as_real(drawn)
    assert float(parts.var()) == pytest.approx(1, rel=0.02)
    assert abs(float((parts[..., 0] * parts[..., 1]).mean())) < 0.02


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("shape", [SHAPE, (2, 1, *SHAPE)])
def test_the_gradient_is_the_slope(share: float, shape: tuple[int, ...]) -> None:
    made, kept = scan(share), (rand(*shape, seed=2) * 0.8 + 0.1).requires_grad_()
    kspace = laws.complex_normal((2, 3, *SHAPE), 3, torch.complex128).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda k, m: made.reconstruct(k * m, m, 200),
        (kspace, kept),
        atol=1e-3,
        fast_mode=True,
    )


@pytest.mark.parametrize("share", SHARES)
def test_the_preconditioner_is_the_diagonal(share: float) -> None:
    """Of cosines and sines in either part: their mean, which is what a frequency meets."""
    made, kept = scan(share), mask()
    found = made.jacobi(kept)
    matrix = dense(lambda v: made.precision(v, kept)).to(torch.complex128)
    unit = torch.eye(N, dtype=torch.complex128).reshape(N, *SHAPE)
    waves = torch.stack([image_to_kspace(e).flatten() for e in unit], 1).mH
    for part in (0, 1):
        block = matrix[:, part * N : (part + 1) * N, part * N : (part + 1) * N]
        diagonal = torch.diagonal(waves.mH @ block @ waves, dim1=-2, dim2=-1).real
        torch.testing.assert_close(found[part], diagonal.reshape(2, *SHAPE))


def test_a_scan_without_shifts_is_the_same_scan() -> None:
    made = scan(0.1)
    v = laws.complex_normal((2, *SHAPE), 6, torch.complex128)
    there = made.cornered.precision(to_corner(v), to_corner(mask()))
    torch.testing.assert_close(to_centre(there), made.precision(v, mask()))


def test_a_mask_per_slice_is_that_slice_with_its_mask() -> None:
    made = scan(0.1)
    masks = (rand(2, 1, *SHAPE, seed=8) < 0.4).double()
    y = laws.complex_normal((2, 3, *SHAPE), 3, torch.complex128) * masks
    together = made.reconstruct(y, masks, 10)
    for i in range(2):
        one = GaussianScan(made.maps[i], made.magnitude[i], made.spectra, made.noise_std)
        torch.testing.assert_close(one.reconstruct(y[i], masks[i, 0], 10), together[i])
