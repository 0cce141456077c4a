"""The closed-form fit against plain least squares, and on data whose kernel is known."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import laws
from kscout.data.slices import KspaceSet
from kscout.errors import UserError
from kscout.learning.closed_form import fit_closed_form
from kscout.metrics import nmse
from kscout.physics.spirit import Boundary
from kscout.recon import SpiritNet
from kscout.sampling import Budget, build_sampler
from laws import complex_normal
from synthetic import blobs, slices

SHAPE = (13, 10)


def random_mask(acceleration: float = 2) -> Tensor:
    return build_sampler("random_points", Budget.of(SHAPE, acceleration=acceleration), 0).mask()


def test_a_known_kernel_is_found() -> None:
    """Every other column is made from its neighbours; the fit must find the weights."""
    known = torch.zeros((2, 2, 3, 3), dtype=torch.complex64)
    known[:, :, :, [0, 2]] = 0.3 * complex_normal((2, 2, 3, 2), 5)
    mask = (torch.arange(11) % 2 == 0).expand(13, 11)
    net = SpiritNet(2, n_blocks=1, kernel_size=3)
    with torch.no_grad():
        net.kernels[0] = known
        acquired = complex_normal((6, 2, 13, 11)) * mask
        kspace = net(acquired, mask.float())
    fitted = SpiritNet(2, seed=9, n_blocks=1, kernel_size=3)
    fit_closed_form(fitted, mask, slices(kspace), seed=0, regularisation=1e-12)
    with torch.no_grad():
        assert nmse(fitted(acquired, mask.float()), kspace).max() < 1e-10
    torch.testing.assert_close(fitted.kernel(0).detach(), known, atol=1e-4, rtol=1e-4)


def training_errors(mask: Tensor, data: KspaceSet, boundary: Boundary) -> list[float]:
    """Relative squared error of stacks of 0 (random kernels), 1, 2 and 3 blocks."""
    errors = []
    for n_blocks in range(4):
        net = SpiritNet(2, n_blocks=n_blocks or 3, kernel_size=5, boundary=boundary)
        if n_blocks:
            fit_closed_form(net, mask, data, seed=0)
        with torch.no_grad():
            error = net(data.kspace * mask, mask.float()) - data.target
        errors.append(float(error.norm() ** 2 / data.target.norm() ** 2))
    return errors


@pytest.mark.parametrize("boundary", ["zero", "periodic"])
def test_each_further_block_helps(boundary: Boundary) -> None:
    mask = random_mask()
    errors = training_errors(mask, blobs(20, shape=SHAPE), boundary)
    assert errors[1] < 0.8 * errors[0]
    assert errors[1] > errors[2] > errors[3]


def test_the_seed_decides_the_draw() -> None:
    mask, data = random_mask(), blobs(12, shape=SHAPE)

    def fitted(seed: int) -> Tensor:
        net = SpiritNet(2, n_blocks=2, kernel_size=3)
        fit_closed_form(net, mask, data, seed=seed, n_slices=5, n_equations=100)
        return net.kernels.detach()

    laws.deterministic(fitted, differs=True)


def test_every_block_is_told_and_a_full_mask_leaves_the_net_alone() -> None:
    net, told = SpiritNet(2, n_blocks=3, kernel_size=3), []
    before = net.kernels.detach().clone()

    def advance() -> None:
        told.append(1)

    fit: Callable[[Tensor], None] = lambda mask: fit_closed_form(  # noqa: E731
        net, mask, blobs(3, shape=SHAPE), seed=0, advance=advance
    )
    fit(torch.ones(SHAPE, dtype=torch.bool))
    assert torch.equal(net.kernels, before)
    assert told == []
    fit(random_mask())
    assert not torch.equal(net.kernels, before)
    assert len(told) == 3


def test_nothing_but_zeros_is_refused() -> None:
    data = slices(torch.zeros((3, 2, *SHAPE), dtype=torch.complex64))
    with pytest.raises(UserError, match="cannot be fitted: all samples"):
        fit_closed_form(SpiritNet(2, kernel_size=3), random_mask(), data, seed=0)
