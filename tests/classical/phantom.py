"""A smooth object in known coils, fully and partly sampled."""

from typing import NamedTuple

import torch
from torch import Tensor

from kscout.physics.coils import birdcage_coils
from kscout.physics.fourier import centre_block, image_to_kspace
from kscout.sampling import Budget, build_sampler
from kscout.sampling.pattern import find_acs
from laws import complex_normal


class Phantom(NamedTuple):
    """Complex ``(slice, coil, ky, kx)``, what was acquired of it, and in which coils."""

    kspace: Tensor
    mask: Tensor
    acs: tuple[int, int]
    coils: Tensor
    image: Tensor


def phantom(
    n_slices: int = 1,
    shape: tuple[int, int] = (48, 45),
    n_coils: int = 4,
    *,
    mask: str = "poisson_disc",
    acceleration: float = 3,
    noise: float = 0.0,
    dtype: torch.dtype = torch.complex64,
) -> Phantom:
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in shape), indexing="ij")
    images = []
    for i in range(n_slices):
        outside = ((x / 0.7) ** 2 + (y / 0.85) ** 2 < 1).float()
        inside = ((x + 0.2) ** 2 + (y - 0.1 * i) ** 2 < 0.1).float()
        images.append((outside + 0.5 * inside) * torch.polar(torch.ones_like(x), x + 0.3 * y))
    image, coils = torch.stack(images), birdcage_coils(shape, n_coils)
    kspace = image_to_kspace(image[:, None] * coils)
    kspace = kspace + noise * complex_normal(tuple(kspace.shape))
    budget = Budget.of(shape, acceleration=acceleration, acs="square", acs_size=15)
    acquired = build_sampler(mask, budget, seed=0).mask()
    return Phantom(kspace.to(dtype), acquired, find_acs(acquired), coils, image)


def error(completed: Tensor, kspace: Tensor) -> float:
    return float((completed - kspace).norm() / kspace.norm())


def centre(scan: Phantom) -> Tensor:
    """The fully sampled block of the first slice, complex ``(coil, rows, columns)``."""
    rows, columns = centre_block(scan.mask.shape, scan.acs)
    return scan.kspace[0][:, rows, columns]
