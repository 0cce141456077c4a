"""The Gaussian scan against dense linear algebra, on odd and oblong planes."""

import pytest
import torch
from torch import Tensor

import laws
from kscout.physics.gaussian import GaussianScan, conjugate_gradients, mirror

SHAPE = (7, 6)
N = SHAPE[0] * SHAPE[1]


def rand(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, dtype=torch.float64, generator=generator)


def scan(is_real: bool) -> GaussianScan:
    maps = laws.complex_normal((2, 3, *SHAPE), dtype=torch.complex128)
    spectrum = rand(*SHAPE, seed=1) + 0.1
    return GaussianScan(maps, rand(2, *SHAPE), spectrum + mirror(spectrum), 0.3, is_real)


def mask() -> Tensor:
    return (rand(*SHAPE, seed=2) < 0.4).double()


def dense(operator: object, n_slices: int, is_real: bool) -> Tensor:
    """The matrix of an operator on white images: ``(slice, row, column)``."""
    assert callable(operator)
    dtype = torch.float64 if is_real else torch.complex128
    unit = torch.eye(N, dtype=dtype).reshape(N, *SHAPE)
    columns = [operator(e.expand(n_slices, *SHAPE)) for e in unit]
    return torch.stack([c.reshape(n_slices, -1) for c in columns], -1)


@pytest.mark.parametrize("is_real", [True, False])
def test_measuring_has_its_adjoint(is_real: bool) -> None:
    made = scan(is_real)
    v, k = dense(made.measure, 2, is_real), laws.complex_normal((2, 3, *SHAPE), 5, torch.complex128)
    expected = (v.mH @ k.reshape(2, -1, 1)).reshape(2, *SHAPE)
    expected = expected.real if is_real else expected
    torch.testing.assert_close(made.measure_adjoint(k), expected)


@pytest.mark.parametrize("is_real", [True, False])
def test_the_posterior_is_that_of_dense_algebra(is_real: bool) -> None:
    """Mean of x given y from the joint covariance of both, real and imaginary parts apart."""
    made, kept = scan(is_real), mask()
    truth, noise = (laws.complex_normal((2, 3, *SHAPE), s, torch.complex128) for s in (3, 4))
    y = (truth + 0.3 * noise) * kept
    image = dense(made.image, 2, is_real)
    measured = dense(made.measure, 2, is_real) * kept.expand(3, *SHAPE).reshape(-1, 1)
    if is_real:  # real unknowns: half of the noise in each part
        both = torch.cat([measured.real, measured.imag], 1)
        data = torch.cat([y.reshape(2, -1).real, y.reshape(2, -1).imag], 1)
        variance = 0.3**2 / 2
    else:
        both, data, variance = measured, y.reshape(2, -1), 0.3**2
    eye = torch.eye(both.shape[1], dtype=both.dtype)
    gain = image @ both.mH @ torch.linalg.inv(both @ both.mH + variance * eye)
    expected = (gain @ data[..., None]).reshape(2, *SHAPE)
    torch.testing.assert_close(made.reconstruct(y, kept, 60), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("is_real", [True, False])
@pytest.mark.parametrize("shape", [SHAPE, (2, 1, *SHAPE)])
def test_the_gradient_is_the_slope(is_real: bool, shape: tuple[int, ...]) -> None:
    made, kept = scan(is_real), (rand(*shape, seed=2) * 0.8 + 0.1).requires_grad_()
    kspace = laws.complex_normal((2, 3, *SHAPE), 3, torch.complex128).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda k, m: made.reconstruct(k * m, m, 150), (kspace, kept), atol=1e-3, fast_mode=True
    )


@pytest.mark.parametrize("is_real", [True, False])
def test_the_preconditioner_is_the_diagonal(is_real: bool) -> None:
    made, kept = scan(is_real), mask()
    matrix = dense(lambda v: made.precision(v, kept), 2, is_real).to(torch.complex128)
    waves = dense(lambda v: kspace_of(v), 1, False)[0].mH
    diagonal = torch.diagonal(waves.mH @ matrix @ waves, dim1=-2, dim2=-1).real
    torch.testing.assert_close(made.jacobi(kept), diagonal.reshape(2, *SHAPE))


def kspace_of(v: Tensor) -> Tensor:
    from kscout.physics.fourier import image_to_kspace

    return image_to_kspace(v)


def test_a_scan_without_shifts_is_the_same_scan() -> None:
    made = scan(True)
    v = rand(2, *SHAPE, seed=6)
    here = made.precision(v, mask())
    there = made.cornered.precision(
        torch.fft.ifftshift(v, (-2, -1)), torch.fft.ifftshift(mask(), (-2, -1))
    )
    torch.testing.assert_close(torch.fft.fftshift(there, (-2, -1)), here)


def test_a_mask_per_slice_is_that_slice_with_its_mask() -> None:
    made = scan(True)
    masks = (rand(2, 1, *SHAPE, seed=8) < 0.4).double()
    y = laws.complex_normal((2, 3, *SHAPE), 3, torch.complex128) * masks
    together = made.reconstruct(y, masks, 10)
    for i in range(2):
        one = GaussianScan(made.maps[i], made.magnitude[i], made.spectrum, made.noise_std)
        torch.testing.assert_close(one.reconstruct(y[i], masks[i, 0], 10), together[i])


def test_conjugate_gradients_stay_where_the_system_is_solved() -> None:
    b = torch.stack([torch.zeros(3, 2), torch.ones(3, 2)])
    x = conjugate_gradients(lambda v: 2 * v, b, lambda r: r, 50)
    torch.testing.assert_close(x, b / 2)
