"""Radial profiles over k-space: a handful of numbers that fit every plane."""

import torch
from torch import Tensor

N_RADII = 32


def radius(shape: tuple[int, int]) -> Tensor:
    """Distance of each point from DC, 1 at the farthest corner: float64 ``(ky, kx)``."""
    axes = [(torch.arange(n, dtype=torch.float64) - n // 2) / max(n / 2, 1) for n in shape]
    return (axes[0][:, None] ** 2 + axes[1][None, :] ** 2).sqrt() / 2**0.5


def _position(shape: tuple[int, int]) -> Tensor:
    """Of each point among the ``N_RADII`` rings, which lie closer together towards DC."""
    return radius(shape).clamp(max=1).sqrt() * (N_RADII - 1)


def ring_of(shape: tuple[int, int]) -> Tensor:
    """The ring that each point of a plane lies in: int64 ``(ky, kx)``."""
    return _position(shape).round().long()


def radial_mean(plane: Tensor) -> Tensor:
    """Mean over each ring; a ring without a point takes its neighbours' value.

    Parameters
    ----------
    plane : float ``(ky, kx)``

    Returns
    -------
    float ``(N_RADII,)``, positive wherever the plane is
    """
    ring = ring_of((plane.shape[-2], plane.shape[-1])).flatten().to(plane.device)
    total = torch.zeros(N_RADII, dtype=plane.dtype, device=plane.device)
    count = torch.zeros_like(total)
    total.index_add_(0, ring, plane.flatten())
    count.index_add_(0, ring, torch.ones_like(plane.flatten()))
    filled = torch.nonzero(count).flatten()
    nearest = (torch.arange(N_RADII, device=plane.device)[:, None] - filled).abs().argmin(1)
    return (total[filled] / count[filled])[nearest]


def on_plane(profile: Tensor, shape: tuple[int, int]) -> Tensor:
    """A positive profile interpolated in the log over a plane: ``(N_RADII,)`` to ``(ky, kx)``."""
    position = _position(shape).to(profile.device)
    low = position.floor().long().clamp(max=N_RADII - 2)
    weight = (position - low).to(profile.dtype)
    log = profile.clamp_min(torch.finfo(profile.dtype).tiny).log()
    return torch.lerp(log[low], log[low + 1], weight).exp()
