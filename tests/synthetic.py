"""Small made-up scans for tests."""

import math

import torch
from torch import Tensor

from kscout.data.slices import KspaceSet
from kscout.physics.fourier import image_to_kspace
from laws import complex_normal


def slices(kspace: Tensor) -> KspaceSet:
    """Complex ``(slice, coil, ky, kx)`` as a data set, one scan for each slice."""
    return KspaceSet(kspace, kspace, torch.arange(len(kspace)), torch.ones(kspace.shape[1]))


def blobs(
    n_slices: int, *, n_coils: int = 2, shape: tuple[int, int] = (16, 13), seed: int = 0
) -> KspaceSet:
    """Random texture in a round object under coils that each see another side.

    Neighbours in k-space tell about each other, and its centre holds the most energy.
    """
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in shape), indexing="ij")
    angles = [2 * math.pi * coil / n_coils for coil in range(n_coils)]
    coils = torch.stack(
        [
            torch.exp(-3 * ((y - 0.4 * math.cos(a)) ** 2 + (x - 0.4 * math.sin(a)) ** 2))
            for a in angles
        ]
    )
    texture = 1 + 0.3 * complex_normal((n_slices, 1, *shape), seed)
    return slices(image_to_kspace(texture * coils))
