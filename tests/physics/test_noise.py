import pytest
import torch

from kscout.physics.fourier import kspace_to_image
from kscout.physics.noise import add_noise, noise_std


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def kspace():
    return 3 * torch.randn(4, 3, 57, 40, dtype=torch.complex64, generator=generator())


@pytest.mark.parametrize("snr_db", [-10.0, 0.0, 25.0])
def test_noise_is_as_strong_as_the_snr_says(kspace, snr_db):
    noise = add_noise(kspace, noise_std(kspace, snr_db), generator(1)) - kspace
    ratio = kspace.abs().square().mean() / noise.abs().square().mean()
    assert float(10 * ratio.log10()) == pytest.approx(snr_db, abs=0.2)


def test_noise_is_white_circular_and_equal_in_every_coil(kspace):
    noise = add_noise(torch.zeros_like(kspace), 2.0, generator(1))
    real, imag = noise.real, noise.imag
    assert float(real.var()) == pytest.approx(2, rel=0.05)
    assert float(imag.var()) == pytest.approx(2, rel=0.05)
    assert abs(float((real * imag).mean())) < 0.05
    coils = noise.transpose(0, 1).flatten(1)
    covariance = coils @ coils.mH / coils.shape[1]
    torch.testing.assert_close(covariance, 4 * torch.eye(3) + 0j, atol=0.15, rtol=0)
    neighbours = (noise[..., 1:] * noise[..., :-1].conj()).mean()
    assert float(neighbours.abs()) < 0.1
    image = kspace_to_image(noise)
    assert float(image.abs().square().mean()) == pytest.approx(4, rel=0.05)


def test_the_same_seed_gives_the_same_noise_and_no_global_state(kspace):
    state = torch.get_rng_state()
    one, same, other = (add_noise(kspace, 1.0, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert one.dtype == kspace.dtype
    assert torch.equal(torch.get_rng_state(), state)


def test_no_noise_is_no_change(kspace):
    assert torch.equal(add_noise(kspace, 0.0, generator()), kspace)
