"""Linear SENSE and the network on a scan unlike what they were made for."""

import pytest
import torch
from torch import Tensor

import laws
from kscout.metrics import nmse
from kscout.physics.fourier import image_to_kspace
from kscout.physics.spectrum import N_RADII, radial_mean
from kscout.recon import ZeroFilled
from kscout.recon.gaussian_sense import NOISE_SHARE, GaussianSense
from kscout.recon.varnet import VarNet
from laws import complex_normal
from synthetic import blobs

SHAPE = (22, 31)
ACS_SIZE = 8


def acs_mask(fraction: float = 0.4) -> Tensor:
    mask = torch.rand(SHAPE, generator=torch.Generator().manual_seed(0)) < fraction
    rows, columns = (slice(n // 2 - ACS_SIZE // 2, n // 2 + ACS_SIZE // 2) for n in SHAPE)
    mask[rows, columns] = True
    return mask.float()


def made(kind: type[GaussianSense] | type[VarNet]) -> GaussianSense | VarNet:
    """Calibrated for two coils of unequal scale."""
    data = blobs(6, shape=(13, 10)).with_coil_scale(torch.tensor([0.5, 3.0]))
    net = kind(2, acs_size=ACS_SIZE)
    net.calibrate(data.kspace, data.target, data.coil_scale, 0)
    return net


def scan_of(n_coils: int) -> Tensor:
    clean = blobs(1, n_coils=n_coils, shape=SHAPE, seed=4).kspace
    return clean + 0.02 * complex_normal(tuple(clean.shape), 5)


@torch.no_grad()
@pytest.mark.parametrize("n_coils", [1, 3])
@pytest.mark.parametrize("kind", [GaussianSense, VarNet])
def test_it_reconstructs_any_number_of_coils_at_any_scale(
    kind: type[GaussianSense] | type[VarNet], n_coils: int
) -> None:
    net, mask, scan = made(kind), acs_mask(), scan_of(n_coils)
    before = {name: value.clone() for name, value in net.state_dict().items()}

    def completed(factor: float) -> Tensor:
        acquired = factor * scan * mask
        return laws.completes(net.for_scan(acquired, mask), acquired, mask)

    result = completed(1.0)
    torch.testing.assert_close(completed(1e-6) * 1e6, result, rtol=1e-3, atol=1e-3)
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name


@torch.no_grad()
def test_three_coils_help_where_it_was_calibrated_for_two() -> None:
    net, mask, scan = made(GaussianSense), acs_mask(), scan_of(3)
    acquired = scan * mask
    error = nmse(net.for_scan(acquired, mask)(acquired, mask), scan)
    assert error < 0.5 * nmse(ZeroFilled(3)(acquired, mask), scan)


@torch.no_grad()
@pytest.mark.parametrize("kind", [GaussianSense, VarNet])
def test_only_acquired_points_count(kind: type[GaussianSense] | type[VarNet]) -> None:
    net, mask, scan = made(kind), acs_mask(), scan_of(3)
    other = scan + (1 - mask) * complex_normal(tuple(scan.shape), 8)
    results = [net.for_scan(x * mask, mask)(x * mask, mask) for x in (scan, other)]
    assert torch.equal(*results)


@torch.no_grad()
def test_noise_and_texture_are_those_of_the_rings() -> None:
    """Of a full scan the model's expected power is the measured one."""
    scan = scan_of(3)
    net = GaussianSense(2, acs_size=ACS_SIZE).for_scan(scan, torch.ones(SHAPE))
    power = radial_mean(scan.abs().square().mean((0, 1)).double())
    assert net.noise_std.square() == pytest.approx(float(NOISE_SHARE * power.min()), rel=1e-5)
    magnitude = net.scan(scan).magnitude
    signal = net.spectra.sum(0) * magnitude.square().mean() / 3
    torch.testing.assert_close(signal + net.noise_std**2, power.float())


@torch.no_grad()
def test_rings_without_a_point_take_their_neighbours_value() -> None:
    mask = acs_mask(0.0)
    net = GaussianSense(2, acs_size=ACS_SIZE).for_scan(scan_of(3) * mask, mask)
    assert net.spectra.shape == (2, N_RADII)
    assert net.spectra.isfinite().all()
    assert (net.spectra > 0).all()
    assert (net.spectra[:, -5:] == net.spectra[:, -1:]).all()


@torch.no_grad()
def test_a_scan_filled_up_with_zeros_is_completed() -> None:
    scan, mask = scan_of(3), acs_mask()
    scan[..., 18:, :] = scan[..., :4, :] = 0
    scan[..., 25:] = scan[..., :6] = 0
    laws.completes(GaussianSense(2, acs_size=ACS_SIZE).for_scan(scan * mask, mask), scan, mask)


@torch.no_grad()
def test_a_phase_finer_than_the_centre_shows_needs_a_complex_image() -> None:
    y, x = (torch.linspace(-1, 1, n) for n in SHAPE)
    head = torch.sigmoid(20 * (0.7 - torch.hypot(y[:, None], x)))
    checks = torch.polar(head, torch.sin(18 * y[:, None]) * torch.sin(18 * x))
    coils = torch.stack([torch.exp(-((y[:, None] - s) ** 2 + x**2)) for s in (-0.5, 0.5)])
    scan, mask = image_to_kspace(checks * coils)[None], acs_mask(0.7)
    net = GaussianSense(2, acs_size=ACS_SIZE).for_scan(scan * mask, mask)
    error = float(nmse(net(scan * mask, mask), scan))
    net.spectra[1] = 0
    assert error < 0.5 * float(nmse(net(scan * mask, mask), scan))
