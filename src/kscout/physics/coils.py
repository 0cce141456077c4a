"""Coil sensitivities, and how images of several coils become one."""

import math

import torch
from torch import Tensor

from kscout.physics.fourier import kspace_to_image


def dipole_coils(
    shape: tuple[int, int, int],
    n_coils: int = 8,
    *,
    slices: range | None = None,
    distance: float = 1.0,
    turn: float = 0.0,
) -> Tensor:
    r"""Sensitivities of point-dipole coils on an ellipse around the volume.

    Coil :math:`c` sits at :math:`(d\,n_0\cos\varphi, d\,n_1\sin\varphi, 0)` voxels from the centre,
    :math:`\varphi = 2\pi c/C` + ``turn``. With the offset from the coil turned by
    :math:`\varphi` about the third axis, :math:`(X, Y, Z)`, and :math:`r` its length,

    .. math:: s = \left(\frac{3X^2}{r^2} - 1 + i\,\frac{3XY}{r^2}\right) / r^3

    which is the transverse field of a dipole along :math:`X` (Jackson, Classical Electrodynamics,
    eq. 5.56), as a receive field :math:`B_X + i B_Y`.

    Parameters
    ----------
    shape : voxels of the volume ``(n0, n1, n2)``; coordinates are ``linspace(-n/2, n/2, n)``
    n_coils : number of coils
    slices : positions along the third axis; all by default
    distance : of the coils from the centre, in units of the volume's size
    turn : angle in radians by which the whole array is turned

    Returns
    -------
    complex64 ``(slice, coil, n0, n1)``
    """
    x, y, z = (torch.linspace(-n / 2, n / 2, n, dtype=torch.float64) for n in shape)
    z = z[list(slices)] if slices is not None else z
    x, y, z = x[None, :, None], y[None, None, :], z[:, None, None]
    maps = torch.empty((z.shape[0], n_coils, shape[0], shape[1]), dtype=torch.complex64)
    for coil in range(n_coils):
        angle = 2 * math.pi * coil / n_coils + turn
        cos, sin = math.cos(angle), math.sin(angle)
        dx, dy = x - distance * shape[0] * cos, y - distance * shape[1] * sin
        along, across = cos * dx + sin * dy, cos * dy - sin * dx
        r2 = along**2 + across**2 + z**2
        field = torch.complex(3 * along**2 / r2 - 1, 3 * along * across / r2)
        maps[:, coil] = (field / r2**1.5).to(torch.complex64)
    return maps


def birdcage_coils(
    shape: tuple[int, int], n_coils: int = 8, *, radius: float = 1.5, turn: float = 0.0
) -> Tensor:
    """Sensitivities of a birdcage array: magnitude falls as 1/distance, phase follows the angle.

    The usual analytic model of simulation studies (sigpy.mri.birdcage_maps): one ring of coils,
    normalised so that the root sum of squares is 1 everywhere.

    Parameters
    ----------
    shape : ``(y, x)`` of the plane
    n_coils : number of coils
    radius : of the ring, in half field-of-view units
    turn : angle in radians by which the whole array is turned

    Returns
    -------
    complex64 ``(coil, y, x)``
    """
    y, x = (torch.linspace(-1, 1, n, dtype=torch.float64) for n in shape)
    angle = 2 * math.pi * torch.arange(n_coils, dtype=torch.float64) / n_coils + turn
    dy = y[None, :, None] - radius * torch.sin(angle)[:, None, None]
    dx = x[None, None, :] - radius * torch.cos(angle)[:, None, None]
    phase = torch.atan2(dx, -dy) - angle[:, None, None]
    maps = torch.polar(1 / torch.hypot(dx, dy), phase)
    return (maps / root_sum_of_squares(maps)).to(torch.complex64)


def root_sum_of_squares(images: Tensor) -> Tensor:
    """Combine coils without knowing them: complex ``(..., coil, y, x)`` to real ``(..., y, x)``."""
    return images.abs().square().sum(-3).sqrt()


def sensitivity_weighted(images: Tensor, maps: Tensor) -> Tensor:
    r"""Combine coils with known sensitivities, :math:`\sum_c s_c^* m_c / \sum_c |s_c|^2`.

    The least-squares image under white noise (Roemer et al. 1990, eq. 28; Pruessmann et al. 1999
    at R = 1). Zero where no coil sees anything.

    Parameters
    ----------
    images : complex ``(..., coil, y, x)``
    maps : complex, broadcastable to ``images``

    Returns
    -------
    complex ``(..., y, x)``
    """
    power = maps.abs().square().sum(-3)
    weighted = (maps.conj() * images).sum(-3)
    return torch.where(power > 0, weighted / power.clamp_min(torch.finfo(power.dtype).tiny), 0)


def low_resolution(kspace: Tensor, size: int) -> Tensor:
    """Coil images of the centre of k-space alone, tapered by a Hann window against ringing.

    Coils vary slowly, so these images show their sensitivities times the smoothed object
    (McKenzie et al. 2002, Magn. Reson. Med. 47:529). ESPIRiT (Uecker et al. 2014, Magn. Reson. Med.
    71:990) takes them from the eigenvectors of the same centre's calibration matrix, which holds
    where the object is dark or larger than the field of view too; this takes one transform, every
    time that a scan is looked at.

    Parameters
    ----------
    kspace : complex ``(..., ky, kx)``
    size : points along an axis that the window spans; all of a shorter axis

    Returns
    -------
    complex ``(..., y, x)``
    """
    axes = []
    for n in kspace.shape[-2:]:
        width = min(size, n)
        window = torch.zeros(n)
        start = n // 2 - width // 2
        window[start : start + width] = torch.hann_window(width + 2, periodic=False)[1:-1]
        axes.append(window)
    return kspace_to_image(kspace * torch.outer(*axes).to(kspace.device))
