"""SPIRiT by conjugate gradients against dense least squares, and what its calibration finds."""

import math

import pytest
import torch
from torch import Tensor

import laws
from kscout.metrics import nmse
from kscout.physics.spirit import Boundary
from kscout.recon import CgSpirit, SpiritNet, ZeroFilled
from laws import complex_normal
from synthetic import blobs

SHAPE = (7, 5)
BOTH: list[Boundary] = ["zero", "periodic"]


def random_mask(shape: tuple[int, ...] = SHAPE, fraction: float = 0.5) -> Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(0)) < fraction).float()


def small_net(boundary: Boundary, *, noise: bool) -> CgSpirit:
    """Converged on the small plane, with other variances in each coil."""
    net = CgSpirit(2, seed=1, kernel_size=3, n_iterations=50, boundary=boundary)
    with torch.no_grad():
        net.log_residual.copy_(torch.tensor([0.3, -1.0]))
        net.log_noise.copy_(torch.tensor([-2.0, -0.5]) if noise else torch.tensor(-math.inf))
    return net


def dense_residual(net: CgSpirit) -> Tensor:
    """``(G - I) / s`` as a matrix, written point by point."""
    kernel, (n_rows, n_columns) = net.kernel().detach().to(torch.complex128), SHAPE
    matrix = -torch.eye(2 * n_rows * n_columns, dtype=torch.complex128)
    matrix = matrix.reshape(2, *SHAPE, 2, *SHAPE)
    for y in range(n_rows):
        for x in range(n_columns):
            for dy in (-1, 0, 1):
                for dx in (-1, 0, 1):
                    row, column = y + dy, x + dx
                    if net.boundary == "zero" and not (
                        0 <= row < n_rows and 0 <= column < n_columns
                    ):
                        continue
                    at = (slice(None), y, x, slice(None), row % n_rows, column % n_columns)
                    matrix[at] += kernel[:, :, dy + 1, dx + 1]
    spread = net.log_residual.detach().double().exp().sqrt()
    return (matrix / spread[:, None, None, None, None, None]).flatten(3).flatten(0, 2)


@pytest.mark.parametrize("boundary", BOTH)
def test_it_is_the_dense_least_squares_solution_with_noise(boundary: Boundary) -> None:
    net, mask = small_net(boundary, noise=True), random_mask()
    acquired = complex_normal((1, 2, *SHAPE)) * mask
    precision = (-net.log_noise.detach().double() / 2).exp()[:, None, None]
    data_rows = torch.diag((mask * precision).flatten()).to(torch.complex128)
    prior_rows = dense_residual(net)
    right = torch.cat([torch.zeros(len(prior_rows)), data_rows @ acquired.flatten().cdouble()])
    rows = torch.cat([prior_rows, data_rows])
    expected = torch.linalg.lstsq(rows, right[:, None]).solution.reshape(acquired.shape)
    completed = net(acquired, mask).detach()
    assert laws.relative_error(completed.cdouble(), expected) < 1e-5


@pytest.mark.parametrize("boundary", BOTH)
def test_it_solves_for_the_missing_points_alone_without_noise(boundary: Boundary) -> None:
    net, mask = small_net(boundary, noise=False), random_mask()
    acquired = complex_normal((1, 2, *SHAPE)) * mask
    rows, expected = dense_residual(net), acquired.flatten().cdouble()
    missing = mask.expand(2, *SHAPE).flatten() == 0
    right = -(rows @ expected)[:, None]
    expected[missing] = torch.linalg.lstsq(rows[:, missing], right).solution.flatten()
    completed = net(acquired, mask).detach().cdouble().flatten()
    assert laws.relative_error(completed, expected) < 1e-5


def test_gradients_are_slopes() -> None:
    net = CgSpirit(2, seed=1, kernel_size=3, n_iterations=3).double()
    net.weights.data = net.weights.data.to(torch.complex128)
    kspace, mask = complex_normal((1, 2, *SHAPE), 0, torch.complex128), random_mask().double()
    names = [name for name, _ in net.named_parameters()]

    def loss(mask: Tensor, *parameters: Tensor) -> Tensor:
        weights = dict(zip(names, parameters, strict=True))
        completed = torch.func.functional_call(net, weights, (kspace * mask, mask))
        return (completed - kspace).abs().square().sum()

    leaves = [mask, *(p.detach().clone() for p in net.parameters())]
    assert torch.autograd.gradcheck(loss, [leaf.requires_grad_() for leaf in leaves])


@torch.no_grad()
@pytest.mark.parametrize("mask", [random_mask((16, 13)), torch.ones(16, 13)])
def test_without_noise_the_acquired_points_are_exact(mask: Tensor) -> None:
    data, net = blobs(12), CgSpirit(2, kernel_size=5)
    net.calibrate(data.kspace, data.target, data.coil_scale, 0)
    laws.data_consistent(net, blobs(3, seed=7).kspace, mask)


@torch.no_grad()
def test_a_calibrated_kernel_serves_every_mask() -> None:
    data, test = blobs(20), blobs(5, seed=7).kspace
    net = CgSpirit(2, kernel_size=5)
    net.calibrate(data.kspace, data.target, data.coil_scale, 0)
    rows = (torch.arange(16) % 2 == 0).float()[:, None].expand(16, 13)
    for mask in (random_mask((16, 13), 0.6), rows):
        zero_filled = nmse(ZeroFilled(2)(test * mask, mask), test).mean()
        assert nmse(net(test * mask, mask), test).mean() < 0.5 * zero_filled


@torch.no_grad()
def test_noise_is_taken_off_and_coils_keep_their_scale() -> None:
    clean, test = blobs(20).target, blobs(5, seed=7).kspace
    noise = 0.5 * complex_normal(tuple(clean.shape), 3)
    net, scaled = CgSpirit(2, kernel_size=5), CgSpirit(2, kernel_size=5)
    net.calibrate(clean + noise, clean, torch.ones(2), 0)
    torch.testing.assert_close(net.log_noise.exp(), torch.full((2,), 0.25), rtol=0.1, atol=0)
    full, noisy = torch.ones(16, 13), test + 0.5 * complex_normal(tuple(test.shape), 4)
    assert nmse(net(noisy, full), test).mean() < 0.9 * nmse(noisy, test).mean()
    scale = torch.tensor([1.0, 3.0])
    factor = scale[:, None, None]
    scaled.calibrate((clean + noise) * factor, clean * factor, scale, 0)
    difference = scaled.log_noise - net.log_noise
    torch.testing.assert_close(difference, 2 * scale.log(), rtol=1e-4, atol=1e-4)


def test_before_calibration_it_starts_from_a_kernel_that_spares_the_point_itself() -> None:
    kernel = CgSpirit(2, kernel_size=3).kernel()
    assert torch.equal(kernel[range(2), range(2), 1, 1], torch.zeros(2, dtype=kernel.dtype))
    assert torch.equal(kernel, SpiritNet(2, n_blocks=1, kernel_size=3).kernel(0))
