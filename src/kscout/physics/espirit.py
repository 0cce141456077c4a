r"""Coil sensitivities from the eigenvectors of the calibration matrix.

ESPIRiT (Uecker et al., Magn Reson Med 71:990, 2014): windows of fully sampled k-space lie in a
subspace; projecting onto it is, in the image domain, a matrix over coils at every pixel, and the
sensitivities are its eigenvectors of eigenvalue 1.
"""

import torch
from torch import Tensor

from kscout.errors import UserError
from kscout.physics.fourier import to_centre
from kscout.physics.spirit import kernel_response


@torch.no_grad()
def espirit_maps(
    acs: Tensor,
    shape: tuple[int, int],
    *,
    kernel_size: int = 6,
    threshold: float = 0.02,
    crop: float = 0.8,
    n_maps: int = 1,
) -> Tensor:
    """Sensitivities of a scan from its fully sampled centre.

    Parameters
    ----------
    acs : complex ``(coil, ky, kx)``
    shape : ``(y, x)`` of the maps
    kernel_size : width of the windows
    threshold : singular values above this fraction of the largest span it
    crop : maps are zero where their eigenvalue is below
    n_maps : eigenvectors per pixel; two where the object folds over itself

    Returns
    -------
    complex ``(map, coil, y, x)``, of unit norm over coils where not zero, the phase of the first
    principal component of the coils taken out

    Raises
    ------
    UserError
        if the centre is smaller than a window, or silent
    """
    n_coils, *size = acs.shape
    if min(size) < kernel_size:
        raise UserError(
            f"a fully sampled centre of {size[0]}x{size[1]} is too small for coil maps: valid is "
            f"{kernel_size}x{kernel_size} or more"
        )
    kernel = _projection(_subspace(acs, kernel_size, threshold), n_coils, kernel_size)
    matrices = kernel_response(kernel, shape).mT / kernel_size**2
    values, vectors = torch.linalg.eigh(matrices)  # ascending
    values, vectors = values[..., -n_maps:].flip(-1), vectors[..., -n_maps:].flip(-1)
    across = torch.einsum("yxcm,c->yxm", vectors, _principal(acs).conj())
    vectors = vectors * torch.polar(torch.ones_like(values), -across.angle())[..., None, :]
    kept = torch.where(values[..., None, :] >= crop, vectors, 0)
    return to_centre(kept.permute(3, 2, 0, 1)).contiguous()


def _subspace(acs: Tensor, kernel_size: int, least: float) -> Tensor:
    """Orthonormal columns that windows are combinations of: complex64 ``(coil kh kw, rank)``."""
    n = kernel_size
    windows = acs.unfold(1, n, 1).unfold(2, n, 1).permute(1, 2, 0, 3, 4).flatten(0, 1).flatten(1)
    gram = windows.mT @ windows.conj()
    values, vectors = torch.linalg.eigh(gram.to(torch.complex128))
    if not values[-1] > 0:
        raise UserError("no coil maps: the fully sampled centre holds nothing but zeros")
    return vectors[:, values >= least**2 * values[-1]].to(acs.dtype)


def _projection(basis: Tensor, n_coils: int, kernel_size: int) -> Tensor:
    """Projecting every window and adding them up is a convolution: this is its kernel.

    Complex ``(coil, coil, 2 kh - 1, 2 kw - 1)``; the weight at an offset is the sum over all pairs
    of a window's points that lie so far apart.
    """
    n, full = kernel_size, 2 * kernel_size - 1
    projector = (basis @ basis.mH).reshape(n_coils, n, n, n_coils, n, n)
    kernel = basis.new_zeros(n_coils, n_coils, full, full)
    for row in range(n):
        for column in range(n):
            pairs = projector[..., row, column].permute(0, 3, 1, 2)
            top, left = n - 1 - row, n - 1 - column
            kernel[..., top : top + n, left : left + n] += pairs
    return kernel


def _principal(acs: Tensor) -> Tensor:
    """The combination of coils that holds most of the signal, complex ``(coil,)``."""
    samples = acs.flatten(1)
    return torch.linalg.eigh(samples @ samples.mH).eigenvectors[:, -1]
