"""Laws of every reconstructor, and what makes the SPIRiT stack one."""

from collections.abc import Callable

import pytest
import torch

import laws
from kscout.physics.spirit import Boundary
from kscout.recon import RECONSTRUCTORS, Reconstructor, SpiritNet, ZeroFilled
from laws import complex_normal
from synthetic import blobs

KINDS = sorted(RECONSTRUCTORS)
SHAPE = (3, 2, 13, 10)
MASKS: dict[str, Callable[[], torch.Tensor]] = {
    "plane": lambda: random_mask((13, 10)),
    "batch": lambda: random_mask((3, 1, 13, 10)),
    "all": lambda: torch.ones(13, 10),
    "none": lambda: torch.zeros(13, 10),
}


def random_mask(shape: tuple[int, ...]) -> torch.Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(0)) < 0.4).float()


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("kind", KINDS)
def test_kspace_is_completed(kind: str, mask: str) -> None:
    """The acquired points untouched, unless their noise is modelled."""
    kspace, net = complex_normal(SHAPE), RECONSTRUCTORS[kind](2)
    law = laws.completes if net.models_noise else laws.data_consistent
    law(net, kspace, MASKS[mask]())
    law(net, torch.zeros_like(kspace), MASKS[mask]())


def calibrated(kind: str, noise: float, seed: int = 0) -> Reconstructor:
    data, net = blobs(12, shape=SHAPE[-2:]), RECONSTRUCTORS[kind](2, seed)
    kspace = data.target + noise * complex_normal(tuple(data.target.shape), 3)
    net.calibrate(kspace, data.target, data.coil_scale, seed)
    return net


@torch.no_grad()
@pytest.mark.parametrize("noise", [0.0, 0.1])
@pytest.mark.parametrize("kind", KINDS)
def test_the_weights_keep_the_calibration(kind: str, noise: float) -> None:
    kspace, mask = blobs(3, shape=SHAPE[-2:], seed=9).kspace, MASKS["plane"]()
    net, fresh = calibrated(kind, noise), RECONSTRUCTORS[kind](2, 5)
    completed = laws.completes(net, kspace, mask)
    fresh.load_state_dict(net.state_dict())
    assert torch.equal(fresh(kspace * mask, mask), completed)
    again = calibrated(kind, noise)
    assert torch.equal(again(kspace * mask, mask), completed)


@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_per_slice_is_that_slice_with_its_mask(kind: str) -> None:
    net, masks, kspace = RECONSTRUCTORS[kind](2), MASKS["batch"](), complex_normal(SHAPE)
    together = net(kspace * masks, masks)
    for i in range(3):
        alone = net(kspace[i : i + 1] * masks[i, 0], masks[i, 0])
        torch.testing.assert_close(together[i : i + 1], alone)


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_batch_stays_empty(kind: str) -> None:
    kspace = torch.zeros((0, 2, 13, 10), dtype=torch.complex64, requires_grad=True)
    completed = RECONSTRUCTORS[kind](2)(kspace, MASKS["plane"]())
    assert completed.shape == kspace.shape
    completed.abs().sum().backward()


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_decides(kind: str) -> None:
    mask = MASKS["plane"]()
    kspace = complex_normal(SHAPE) * mask
    has_weights = any(True for _ in RECONSTRUCTORS[kind](2).parameters())
    laws.deterministic(
        lambda seed: RECONSTRUCTORS[kind](2, seed)(kspace, mask).detach(), differs=has_weights
    )


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_data_mask_and_weights(kind: str) -> None:
    net, mask = RECONSTRUCTORS[kind](2), MASKS["plane"]().requires_grad_()
    kspace = complex_normal(SHAPE).requires_grad_()
    net(kspace * mask, mask).abs().square().sum().backward()
    for leaf in (kspace, mask, *net.parameters()):
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()
        assert leaf.grad.abs().max() > 0


def test_zero_filled_changes_nothing() -> None:
    mask = MASKS["plane"]()
    kspace = complex_normal(SHAPE) * mask
    assert torch.equal(ZeroFilled(2)(kspace, mask), kspace)


def spirit_net(boundary: Boundary = "zero") -> SpiritNet:
    return SpiritNet(2, seed=1, n_blocks=3, kernel_size=5, boundary=boundary)


@torch.no_grad()
@pytest.mark.parametrize("boundary", ["zero", "periodic"])
def test_the_spirit_stack_is_linear_in_kspace(boundary: Boundary) -> None:
    net, mask = spirit_net(boundary), MASKS["plane"]()
    net.kernels.data = net.kernels.data.to(torch.complex128)
    laws.linear(lambda kspace: net(kspace * mask, mask), SHAPE)


def test_the_periodic_stack_moves_with_the_data() -> None:
    net, mask, kspace = spirit_net("periodic"), MASKS["plane"](), complex_normal(SHAPE)

    def moved(x: torch.Tensor) -> torch.Tensor:
        return x.roll((3, -4), (-2, -1))

    expected = moved(net(kspace * mask, mask))
    torch.testing.assert_close(net(moved(kspace * mask), moved(mask)), expected)


def test_each_block_estimates_and_puts_the_data_back() -> None:
    net, mask = spirit_net(), MASKS["plane"]()
    acquired = complex_normal(SHAPE) * mask
    x = acquired
    for block in range(net.n_blocks):
        x = torch.where(mask.bool(), acquired, net.estimate(block, x, torch.ones(13, 10)))
    torch.testing.assert_close(net(acquired, mask), x)


def test_a_point_never_sees_itself() -> None:
    net, mask = spirit_net(), MASKS["plane"]()
    kspace = complex_normal(SHAPE)
    before = net(kspace * mask, mask)
    before.abs().square().sum().backward()
    gradient = net.kernels.grad
    assert gradient is not None
    own = gradient[:, range(2), range(2), 2, 2]
    assert torch.equal(own, torch.zeros_like(own))
    assert torch.count_nonzero(gradient[1:]) == 2 * (2 * 2 * 5 * 5 - 2)
    with torch.no_grad():
        net.kernels[:, range(2), range(2), 2, 2] = 100
        assert torch.equal(net(kspace * mask, mask), before)
        net.kernels[1:, 0, 1, 2, 2] = 100  # the same place in another coil is a neighbour
        assert not torch.equal(net(kspace * mask, mask), before)


@torch.no_grad()
def test_a_point_alone_predicts_its_neighbours_but_not_itself() -> None:
    net = SpiritNet(1, n_blocks=1, kernel_size=3)
    kspace = torch.zeros((1, 1, 5, 6), dtype=torch.complex64)
    kspace[..., 2, 3] = 1
    expected = torch.zeros_like(kspace)
    expected[..., 1:4, 2:5] = net.kernel(0).flip(-2, -1)
    expected[..., 2, 3] = 0
    torch.testing.assert_close(net.predict(kspace, kspace[0, 0].real), expected)


def test_every_kind_is_a_reconstructor() -> None:
    assert all(issubclass(made, Reconstructor) for made in RECONSTRUCTORS.values())
