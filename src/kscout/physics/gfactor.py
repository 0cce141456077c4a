r"""Noise amplification of SENSE, the g-factor: how much the coils pay for what was not acquired.

.. math:: g = \frac{\sigma_\text{accelerated}}{\sigma_\text{full} \sqrt R}
   = \sqrt{[M^{-1}]_{\rho\rho}\, M_{\rho\rho}}, \qquad M = S^H F^H m F S

(Pruessmann et al. 1999, Magn Reson Med 42:952, eq. 23) with coil noise that is white, so that maps
of a real scan should be prewhitened. It is 1 where unfolding costs nothing and never less.

Maps are brought to a root sum of squares of 1, which changes no g, and ``regularisation`` times
1 / R, the mean of the diagonal of :math:`M`, is added to that diagonal. So g ends at
``regularisation ** -0.5``, 32 by default, and what the coils cannot resolve at all is there, rather
than free of noise as in a pseudo-inverse. Small values hardly change: on head-sized lattices a mean
of 3 falls by 1 to 2 %, one of 6 by 7 %.
"""

import math

import torch
from torch import Tensor

from kscout.errors import UserError
from kscout.physics.coils import root_sum_of_squares
from kscout.physics.fourier import plane_fft, plane_ifft
from kscout.physics.psf import check_mask, point_spread
from kscout.physics.solvers import conjugate_gradients

MOST_ALIASES = 256
"""Pixels that may fold onto each other for their matrix to be inverted as it is."""

REGULARISATION = 1e-3

BATCH = 1 << 17
"""Complex numbers in work at a time: small enough for a processor's cache to be of use."""


def gfactor(maps: Tensor, mask: Tensor, *, seed: int) -> Tensor:
    """g-factor of any mask: exact where the mask repeats on the plane, from noise elsewhere.

    Parameters
    ----------
    maps : complex ``(coil, y, x)``, sensitivities; 0 in all coils where there is no object
    mask : bool or {0, 1} ``(ky, kx)``
    seed : of the noise, see :func:`gfactor_monte_carlo`

    Returns
    -------
    float64 ``(y, x)``, NaN where all maps are 0

    Raises
    ------
    UserError
        if the mask is none, or is of another shape than the maps
    """
    if is_periodic(mask):
        return gfactor_lattice(maps, mask)
    return gfactor_monte_carlo(maps, mask, seed=seed)


def aliases(mask: Tensor) -> Tensor:
    """Offsets of the pixels that fold onto one pixel, itself among them.

    Exactly: the mask is compared with itself shifted by every (ky, kx), around the plane. A lattice
    whose period does not divide the plane (4 on 121 points) breaks at the edge and thus does not
    repeat; neither does one that an ACS or a budget has changed. Whole lines repeat along the line,
    wherever they lie.

    Parameters
    ----------
    mask : bool or {0, 1} ``(ky, kx)``

    Returns
    -------
    int64 ``(alias, 2)``, offsets along (y, x); R of them for a lattice, all pixels for a mask that
    does not repeat
    """
    check_mask(mask)
    acquired = mask.to("cpu", torch.float64)
    overlap = plane_ifft(plane_fft(acquired, acquired.shape).abs().square()).real.round()
    periods = (overlap == acquired.sum()).to(torch.float64)
    # A wave that is the same at every period is one that the mask cannot tell from a constant.
    agreeing = plane_fft(periods, periods.shape).real.round()
    return torch.nonzero(agreeing == periods.sum())


def is_periodic(mask: Tensor) -> bool:
    """Whether the mask repeats on the plane, in at most :data:`MOST_ALIASES` different points."""
    return len(aliases(mask)) <= MOST_ALIASES


def gfactor_lattice(
    maps: Tensor, mask: Tensor, *, regularisation: float = REGULARISATION
) -> Tensor:
    """g-factor of a mask that repeats on the plane: one small matrix per set of aliases, inverted.

    Lattices (uniform, CAIPIRINHA), tiles that divide the plane, and any whole lines. Pixels without
    object fold onto the others without harm.

    Parameters
    ----------
    maps : complex ``(coil, y, x)``
    mask : bool or {0, 1} ``(ky, kx)``
    regularisation : above 0, relative

    Returns
    -------
    float64 ``(y, x)``, NaN where all maps are 0

    Raises
    ------
    UserError
        if more than :data:`MOST_ALIASES` pixels fold onto each other
    """
    sensitivity, support = _normalised(maps, mask)
    offsets = aliases(mask)
    if len(offsets) > MOST_ALIASES:
        raise UserError(
            f"the mask does not repeat on its plane of {mask.shape[0]}x{mask.shape[1]} often "
            f"enough: {len(offsets)} pixels fold onto each other, valid is up to {MOST_ALIASES}"
        )
    sets = _alias_sets(offsets, (mask.shape[0], mask.shape[1])).to(maps.device)
    folding = _folding(mask, offsets).to(maps.device)
    pixels, inside = sensitivity.to(torch.complex128).flatten(1), support.flatten()
    variance = torch.empty(mask.numel(), dtype=torch.float64, device=maps.device)
    for group in sets.split(max(1, BATCH // len(offsets) ** 2)):
        s = pixels[:, group].permute(1, 2, 0)  # (set, alias, coil)
        matrix = (s.conj() @ s.mT) * folding
        # A pixel without object has an empty row; a 1 on the diagonal sets it apart.
        load = torch.where(inside[group], regularisation, 1.0).to(matrix.dtype)
        matrix.diagonal(dim1=1, dim2=2).add_(load)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(matrix))
        variance[group] = inverse.diagonal(dim1=1, dim2=2).real
    return _outside_is_nan(variance.reshape(mask.shape), support)


def gfactor_monte_carlo(
    maps: Tensor,
    mask: Tensor,
    *,
    seed: int,
    n_replicas: int = 40,
    n_iterations: int = 60,
    regularisation: float = REGULARISATION,
) -> Tensor:
    r"""g-factor of any mask, from the spread of reconstructions of noise alone.

    Pseudo-replicas (Robson et al. 2008, Magn Reson Med 60:895) through SENSE by conjugate gradients
    (Pruessmann et al. 2001, Magn Reson Med 46:638). White noise of variance
    ``regularisation`` is added to the right-hand side :math:`S^H F^H m\,n`, so that the solutions
    scatter as :math:`M^{-1}` does, regularisation included: the quantity of
    :func:`gfactor_lattice`. Each pixel is uncertain by :math:`1 / (2 \sqrt{n_\text{replicas}})`,
    8 % of g for 40. That widens the histogram (a 95th percentile is up to a tenth too high), but
    hardly moves a mean.

    Parameters
    ----------
    maps : complex ``(coil, y, x)``
    mask : bool or {0, 1} ``(ky, kx)``
    seed : of the noise
    n_replicas : scans of noise
    n_iterations : of conjugate gradients; too few understate a large g (60: by up to 3 % at R = 8)
    regularisation : above 0, relative

    Returns
    -------
    float64 ``(y, x)``, NaN where all maps are 0
    """
    maps, support = _normalised(maps, mask)
    keep = mask.to(maps.device)
    scan = _Scan(_uncentred(maps), _uncentred(keep), _uncentred(support), regularisation)
    generator = torch.Generator().manual_seed(seed)  # on the CPU: the same noise on every device
    power = torch.zeros(mask.shape, dtype=torch.float64, device=maps.device)
    for n in _batches(n_replicas, max(1, BATCH // maps.numel())):
        b = scan.scatter(n, generator)
        x = conjugate_gradients(scan.normal, b, n_iterations, precondition=scan.precondition)
        power += x.abs().square().sum(0, dtype=torch.float64)
    centre = (mask.shape[0] // 2, mask.shape[1] // 2)
    return _outside_is_nan(power.roll(centre, (0, 1)) / n_replicas, support)


class _Scan:
    """Normal equations of SENSE, R M + regularisation, with index 0 as the centre of every plane.

    Centred transforms would move every coil of every replica twice as often for the same result.
    """

    def __init__(self, maps: Tensor, mask: Tensor, support: Tensor, regularisation: float) -> None:
        self.maps = maps.to(torch.complex64)
        self.keep, self.support = mask.to(torch.float32), support
        self.regularisation = regularisation
        self.acceleration = mask.numel() / float(self.keep.sum())
        # What each frequency of an image gives to the acquired points: M's diagonal, up to scale.
        spread = self._fft(self.maps).abs().square().sum(0)
        shares = self._fft(self.keep) * self._fft(spread / spread.sum()).conj()
        density = plane_ifft(shares).real.clamp_min(0)
        self.diagonal = self.acceleration * density + regularisation

    def _fft(self, x: Tensor) -> Tensor:
        return plane_fft(x, x.shape[-2:])

    def _adjoint(self, kspace: Tensor) -> Tensor:
        return (self.maps.conj() * plane_ifft(self.keep * kspace)).sum(-3)

    def normal(self, x: Tensor) -> Tensor:
        """Of images ``(replica, y, x)``."""
        seen = self._adjoint(self._fft(self.maps * x.unsqueeze(-3)))
        return self.regularisation * x + self.acceleration * seen

    def precondition(self, r: Tensor) -> Tensor:
        return self.support * plane_ifft(self._fft(r) / self.diagonal)

    def scatter(self, n: int, generator: torch.Generator) -> Tensor:
        """Right-hand sides of noise alone, whose covariance is that of :meth:`normal`."""
        scale = math.sqrt(self.acceleration * self.keep.numel())  # as of an orthonormal transform
        noise = scale * self._adjoint(self._white((n, *self.maps.shape), generator))
        prior = self.support * self._white((n, *self.keep.shape), generator)
        return noise + math.sqrt(self.regularisation) * prior

    def _white(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return torch.randn(shape, dtype=torch.complex64, generator=generator).to(self.maps.device)


def maps_from_images(images: Tensor, support: Tensor) -> Tensor:
    """Sensitivities out of the coil images of a fully sampled slice.

    They carry the phase of the image, which no g depends on. Noise in the images counts as
    sensitivity, and makes g look better than it is: take images that are smooth or free of it.

    Parameters
    ----------
    images : complex ``(coil, y, x)``
    support : bool ``(y, x)``, where the object is

    Returns
    -------
    complex ``(coil, y, x)``, of a root sum of squares of 1 in the support and 0 outside
    """
    return _unit(images * support.to(images.device))


def _unit(maps: Tensor) -> Tensor:
    size = root_sum_of_squares(maps)
    return torch.where(size > 0, maps / size.clamp_min(torch.finfo(size.dtype).tiny), 0)


def _normalised(maps: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Maps of a root sum of squares of 1, and where they are not 0."""
    check_mask(mask)
    if maps.ndim != 3 or maps.shape[1:] != mask.shape:
        raise UserError(
            f"coil maps of shape {tuple(maps.shape)} do not fit a mask of {tuple(mask.shape)}: "
            f"valid is (coil, {mask.shape[0]}, {mask.shape[1]})"
        )
    maps = _unit(maps)
    return maps, (maps != 0).any(0)


def _outside_is_nan(variance: Tensor, support: Tensor) -> Tensor:
    return torch.where(support, variance.sqrt(), torch.nan)


def _alias_sets(offsets: Tensor, shape: tuple[int, int]) -> Tensor:
    """Every pixel once, with its aliases: flat indices, int64 ``(set, alias)``."""
    index = torch.arange(shape[0] * shape[1]).reshape(shape)
    lowest = index
    for y, x in offsets.tolist():
        lowest = torch.minimum(lowest, index.roll((y, x), (0, 1)))
    first = torch.nonzero(lowest == index)
    y, x = (first[:, None] + offsets).unbind(-1)
    return (y % shape[0]) * shape[1] + x % shape[1]


def _folding(mask: Tensor, offsets: Tensor) -> Tensor:
    """The point-spread function between any two aliases: complex128 ``(alias, alias)``."""
    y, x = (offsets[:, None] - offsets).unbind(-1)
    height, width = mask.shape
    spread = point_spread(mask.cpu())
    return spread[(height // 2 + y) % height, (width // 2 + x) % width]


def _batches(total: int, most: int) -> list[int]:
    return [min(most, total - start) for start in range(0, total, most)]


def _uncentred(x: Tensor) -> Tensor:
    """The centre of the plane at index 0."""
    return x.roll([-(n // 2) for n in x.shape[-2:]], (-2, -1))
