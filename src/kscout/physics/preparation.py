"""Coils made ready: noise of equal level and no correlation, and fewer of them."""

import torch
from torch import Tensor

from kscout.errors import UserError


def noise_covariance(noise: Tensor) -> Tensor:
    r"""Covariance of the noise of coils, :math:`\Psi = \frac{1}{n} \sum_j \eta_j \eta_j^H`.

    Parameters
    ----------
    noise : complex ``(coil, sample)``, noise alone

    Returns
    -------
    complex128 ``(coil, coil)``, Hermitian

    Raises
    ------
    UserError
        if there are fewer samples than coils, which no covariance can come from
    """
    n_coils, n = noise.shape
    if n < n_coils:
        raise UserError(f"{n} samples of noise are too few for {n_coils} coils: valid is {n_coils}")
    samples = noise.to(torch.complex128)
    return samples @ samples.mH / n


def whitening(covariance: Tensor) -> Tensor:
    r"""The matrix that makes noise white with unit variance, :math:`L^{-1}` of :math:`\Psi = LL^H`.

    The first of the new coils is the first of the old, scaled; the others have what is correlated
    taken off. Any such matrix serves (Pruessmann et al. 2001, Magn. Reson. Med. 46:638, section on
    noise decorrelation; Roemer et al. 1990, Magn. Reson. Med. 16:192, on noise correlation).

    Parameters
    ----------
    covariance : complex ``(coil, coil)``, Hermitian

    Returns
    -------
    complex128 ``(coil, coil)``, lower triangular

    Raises
    ------
    UserError
        if the covariance is not positive definite: a coil has no noise, or is a copy of others
    """
    factor, failed = torch.linalg.cholesky_ex(covariance.to(torch.complex128))
    diagonal = factor.diagonal().real
    if failed or not diagonal.min() > 1e-6 * diagonal.max():
        raise UserError(
            "the covariance of the noise is singular: a coil has no noise, or is a copy of others"
        )
    identity = torch.eye(len(factor)).to(factor)
    return torch.linalg.solve_triangular(factor, identity, upper=False)


def compression(kspace: Tensor, n_coils: int) -> Tensor:
    r"""The best few combinations of coils, by singular value decomposition.

    .. math:: A = U S V^H, \quad C = U_{1..n}^H

    with the rows of :math:`A` the samples of each coil: of all sets of ``n_coils`` orthonormal
    combinations, these keep the most energy (Buehrer et al. 2007, Magn. Reson. Med. 57:1131; Huang
    et al. 2008, Magn. Reson. Imaging 26:133). Whiten first where coils differ in noise.

    Parameters
    ----------
    kspace : complex ``(coil, ...)``, such as the ACS
    n_coils : combinations kept, the one with the most energy first

    Returns
    -------
    complex128 ``(n_coils, coil)``, of orthonormal rows

    Raises
    ------
    UserError
        if there are fewer coils than that
    """
    if not 1 <= n_coils <= len(kspace):
        raise UserError(f"{len(kspace)} coils cannot become {n_coils}: valid is 1 to {len(kspace)}")
    samples = kspace.flatten(1).to(torch.complex128)
    _, vectors = torch.linalg.eigh(samples @ samples.mH)  # ascending
    return vectors.flip(1)[:, :n_coils].mH.contiguous()


def mix_coils(kspace: Tensor, matrix: Tensor) -> Tensor:
    """Coils replaced by combinations of them, as :func:`whitening` or :func:`compression` say.

    Parameters
    ----------
    kspace : complex ``(..., coil, ky, kx)``
    matrix : complex ``(new coil, coil)``

    Returns
    -------
    complex ``(..., new coil, ky, kx)``, of the precision of ``kspace``
    """
    return torch.einsum("nc,...cyx->...nyx", matrix.to(kspace), kspace)
