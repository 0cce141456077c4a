"""Fourier transforms between images and k-space points off the grid, by FINUFFT.

Barnett, Magland & af Klinteberg, SIAM J Sci Comput 41:C479 (2019). On the grid's own points they
are those of :mod:`kscout.physics.fourier`.
"""

import math

import torch
from torch import Tensor

from kscout.errors import UserError

PRECISION = 1e-6


def image_to_samples(image: Tensor, trajectory: Tensor) -> Tensor:
    """k-space of an image at the points of a trajectory.

    Parameters
    ----------
    image : complex ``(..., y, x)``
    trajectory : float ``(sample, 2)``, (ky, kx) in cycles per field of view, DC at (0, 0)

    Returns
    -------
    complex ``(..., sample)``, scaled as the orthonormal transform
    """
    from pytorch_finufft.functional import finufft_type2

    shape = (image.shape[-2], image.shape[-1])
    points = _points(trajectory, shape).to(image.real.dtype)
    values = finufft_type2(points, image.contiguous(), isign=-1, modeord=0, eps=PRECISION)
    return values / math.prod(shape) ** 0.5


def samples_to_image(samples: Tensor, trajectory: Tensor, shape: tuple[int, int]) -> Tensor:
    """Adjoint of :func:`image_to_samples`: complex ``(..., sample)`` to ``(..., y, x)``."""
    from pytorch_finufft.functional import finufft_type1

    points = _points(trajectory, shape).to(samples.real.dtype)
    values = finufft_type1(points, samples.contiguous(), shape, isign=1, modeord=0, eps=PRECISION)
    return values / math.prod(shape) ** 0.5


def _points(trajectory: Tensor, shape: tuple[int, int]) -> Tensor:
    size = trajectory.new_tensor(shape)
    outside = (trajectory.abs() > size / 2).any(1) | ~trajectory.isfinite().all(1)
    if outside.any():
        worst = trajectory[outside][0].tolist()
        raise UserError(
            f"the trajectory has a point at {worst}: valid is ky within +-{shape[0] / 2:g} and kx "
            f"within +-{shape[1] / 2:g} cycles per field of view"
        )
    return (2 * math.pi * trajectory / size).mT.contiguous()


def density_compensation(
    trajectory: Tensor, shape: tuple[int, int], n_iterations: int = 15
) -> Tensor:
    """Weights that make the samples' density even, float ``(sample,)``.

    A sample weighs as many grid points as it stands for: 1 where samples lie on the grid, whatever
    part of it they cover.

    Pipe & Menon, Magn Reson Med 41:179 (1999): divide by the density that the weighted samples
    have, until it is the same everywhere. It is seen through a kernel that is nowhere negative, the
    squared response of the field of view, whose transform is a triangle over twice the field.

    Raises
    ------
    UserError
        if the trajectory leaves the grid
    """
    _points(trajectory, shape)
    doubled, wide = 2 * trajectory, (2 * shape[0], 2 * shape[1])
    triangles = [1 - (torch.arange(n) - n // 2).abs() / (n // 2) for n in wide]
    triangle = torch.outer(*triangles).to(trajectory)

    def density(weights: Tensor) -> Tensor:
        complex_weights = torch.complex(weights, torch.zeros_like(weights))
        image = triangle * samples_to_image(complex_weights, doubled, wide)
        return image_to_samples(image, doubled).real

    weights = torch.ones_like(trajectory[:, 0])
    for _ in range(n_iterations):
        found = density(weights)
        weights = weights / found.clamp_min(1e-6 * float(found.max()))
    # Samples on a whole grid, of weight 1, have this density: the kernel summed over the grid.
    of_grid = math.prod(shape) / math.prod(wide)
    return weights * (of_grid * weights.sum() / (weights * density(weights)).sum())


def radial(n_spokes: int, n_samples: int) -> Tensor:
    """Spokes through DC, turned by the golden angle (Winkelmann et al. 2007).

    Returns
    -------
    float ``(spoke * sample, 2)`` in cycles per field of view, reaching ``n_samples / 2`` at most
    """
    angle = torch.arange(n_spokes) * math.pi * (math.sqrt(5) - 1) / 2
    radius = torch.arange(n_samples) - n_samples // 2
    spokes = torch.stack([angle.sin(), angle.cos()], -1)
    return (radius[None, :, None] * spokes[:, None]).flatten(0, 1)


def spiral(n_arms: int, n_turns: float, radius: float, n_samples: int) -> Tensor:
    """Archimedean arms from DC outwards, as far from each other everywhere (Ahn et al. 1986).

    Returns
    -------
    float ``(arm * sample, 2)`` in cycles per field of view
    """
    along = torch.linspace(0, 1, n_samples).sqrt()
    turn = 2 * math.pi * torch.arange(n_arms) / n_arms
    angle = 2 * math.pi * n_turns * along[None] + turn[:, None]
    return (radius * along[None, :, None] * torch.stack([angle.sin(), angle.cos()], -1)).flatten(
        0, 1
    )
