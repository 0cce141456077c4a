"""Receiver noise: complex Gaussian, white, in k-space, the same level in every coil."""

import torch
from torch import Tensor


def noise_std(kspace: Tensor, snr_db: float) -> float:
    r"""Noise level of a scan at a stated signal-to-noise ratio.

    .. math:: \mathrm{SNR} = 10 \log_{10} \frac{\operatorname{mean}|y|^2}{\sigma^2}

    with the mean over all slices, coils and points of the scan. The transform is unitary, so
    :math:`\sigma` is the noise level of the coil images too.

    Parameters
    ----------
    kspace : complex, any shape: one scan without noise
    snr_db : in dB

    Returns
    -------
    :math:`\sigma`, the root mean square modulus of the noise
    """
    power = float(kspace.abs().square().mean(dtype=torch.float64))
    return float((power * 10 ** (-snr_db / 10)) ** 0.5)


def add_noise(kspace: Tensor, std: float, generator: torch.Generator) -> Tensor:
    """``kspace`` plus complex white Gaussian noise of root mean square modulus ``std``."""
    noise = torch.randn(
        kspace.shape, dtype=kspace.dtype, device=generator.device, generator=generator
    )
    return kspace + std * noise.to(kspace.device)
