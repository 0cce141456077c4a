"""The point-spread function of a mask, and its density: what aliasing will look like."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from kscout.errors import UserError
from kscout.physics.fourier import kspace_to_image
from kscout.physics.spectrum import radius


def point_spread(mask: Tensor) -> Tensor:
    r"""What zero-filling makes of a single bright pixel, 1 at the centre.

    .. math:: \mathrm{PSF} = F^H m \,/\, (F^H m)(0)

    (Lustig et al. 2007, Magn Reson Med 58:1182, "Incoherent sampling"). An image of a zero-filled
    scan is the true one convolved with it, periodically.

    Parameters
    ----------
    mask : bool or {0, 1} ``(ky, kx)``

    Returns
    -------
    complex128 ``(y, x)``, the centre at ``(y // 2, x // 2)``

    Raises
    ------
    UserError
        if the mask acquires no point or is not a plane
    """
    check_mask(mask)
    acquired = mask.to(torch.float64)
    spread = kspace_to_image(acquired.to(torch.complex128))
    return spread * (math.sqrt(mask.numel()) / acquired.sum())


def check_mask(mask: Tensor) -> None:
    """Raise ``UserError`` unless ``mask`` is one plane of 0 and 1 with at least one 1."""
    if mask.ndim != 2:
        raise UserError(f"a mask has shape {tuple(mask.shape)}: valid is (ky, kx)")
    if not bool(((mask == 0) | (mask == 1)).all()):
        raise UserError("a mask is not binary: valid are 0 and 1")
    if not bool((mask != 0).any()):
        raise UserError("a mask acquires no point: valid is at least one")


def sidelobe_ratio(mask: Tensor) -> float:
    r"""The largest side lobe of :math:`|\mathrm{PSF}|`: 0 without aliasing, 1 for a full ghost.

    The sidelobe-to-peak ratio of Lustig et al. (2007, "Incoherent sampling") takes the maximum over
    all pixels but the centre. Where mainly low frequencies are acquired, that is the slope of the
    main lobe: blur, not aliasing. So a side lobe here is a local maximum: a pixel below none of its
    eight neighbours, the plane being periodic. What runs down from the centre has none.

    Parameters
    ----------
    mask : bool or {0, 1} ``(ky, kx)``
    """
    size = point_spread(mask).abs()
    wrapped = functional.pad(size[None, None], (1, 1, 1, 1), mode="circular")
    highest = functional.max_pool2d(wrapped, 3, stride=1)[0, 0]
    # Within rounding, so that of two equal neighbours both are maxima and neither is lost.
    is_lobe = size >= highest * (1 - 1e-9)
    is_lobe[mask.shape[0] // 2, mask.shape[1] // 2] = False
    return float(size[is_lobe].amax()) if bool(is_lobe.any()) else 0.0


def radial_density(mask: Tensor, n_bins: int = 24) -> tuple[Tensor, Tensor]:
    r"""Fraction of the points acquired on rings around DC.

    The distance is relative to each axis: 1 at the middle of an edge, :math:`\sqrt 2` in a corner.

    Parameters
    ----------
    mask : bool or {0, 1} ``(ky, kx)``
    n_bins : rings of equal width, the same for every plane

    Returns
    -------
    float64 ``(ring,)`` twice: the middle radius of each ring, and the fraction, NaN on a ring that
    no point of the plane falls on
    """
    check_mask(mask)
    width = math.sqrt(2) / n_bins
    distance = radius((mask.shape[0], mask.shape[1])) * math.sqrt(2)
    # The sliver keeps points on the edge of a ring on the same side of it in every direction.
    ring = (distance / width + 1e-9).long().clamp(max=n_bins - 1).flatten()
    n_points = torch.bincount(ring, minlength=n_bins)
    acquired = mask.to("cpu", torch.float64).flatten()
    n_acquired = torch.bincount(ring, weights=acquired, minlength=n_bins)
    middle = (torch.arange(n_bins, dtype=torch.float64) + 0.5) * width
    return middle, n_acquired / n_points
