"""Fourier transforms. The only FFT calls of the package are in this file.

Convention: centred and orthonormal. Index ``n // 2`` of an axis is the centre, in image space
and in k-space alike, so the transform is unitary: norms and noise levels carry over.
"""

from collections.abc import Callable, Sequence

import torch
from scipy.fft import next_fast_len
from torch import Tensor


def image_to_kspace(image: Tensor) -> Tensor:
    """Centred orthonormal 2D Fourier transform over the last two axes.

    Parameters
    ----------
    image : complex ``(..., y, x)``

    Returns
    -------
    complex ``(..., ky, kx)``, DC at ``(ky // 2, kx // 2)``
    """
    if image.numel() == 0:  # MKL refuses to plan for an empty batch
        return image.to(torch.promote_types(image.dtype, torch.complex64))
    return to_centre(corner_fft(to_corner(image)))


def kspace_to_image(kspace: Tensor) -> Tensor:
    """Inverse, and adjoint, of :func:`image_to_kspace`: ``(..., ky, kx)`` to ``(..., y, x)``."""
    if kspace.numel() == 0:
        return kspace
    return to_centre(corner_ifft(to_corner(kspace)))


def centre_slice(n: int, size: int) -> slice:
    """The ``size`` indices around the centre ``n // 2`` of an axis of length ``n``."""
    start = n // 2 - size // 2
    return slice(start, start + size)


def centre_block(plane: Sequence[int], sizes: Sequence[int]) -> tuple[slice, slice]:
    """Rows and columns of the block of ``sizes`` around the centre of a plane."""
    rows, columns = (centre_slice(n, size) for n, size in zip(plane, sizes, strict=True))
    return rows, columns


def to_corner(x: Tensor) -> Tensor:
    """Move the centre of the last two axes to index 0, where a plain FFT has it."""
    return torch.fft.ifftshift(x, dim=(-2, -1))


def to_centre(x: Tensor) -> Tensor:
    """Inverse of :func:`to_corner`."""
    return torch.fft.fftshift(x, dim=(-2, -1))


def corner_fft(x: Tensor) -> Tensor:
    """:func:`image_to_kspace` of what is centred on index 0, for loops that can do without shifts.

    Three times as fast: a shift copies all of the data.
    """
    return torch.fft.fft2(x, norm="ortho")


def corner_ifft(x: Tensor) -> Tensor:
    """Inverse, and adjoint, of :func:`corner_fft`."""
    return torch.fft.ifft2(x, norm="ortho")


def plane_fft(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Plain (uncentred, unscaled) FFT over the last two axes, zero-padded to ``shape``.

    The convolution of a SPIRiT kernel is a product between this and :func:`plane_ifft`.

    Parameters
    ----------
    x : complex ``(..., ky, kx)``
    shape : ``(ny, nx)``, at least ``(ky, kx)``
    """
    return torch.fft.fft2(x, s=tuple(shape))


def plane_ifft(x: Tensor) -> Tensor:
    """Inverse of :func:`plane_fft`, on the padded plane."""
    return torch.fft.ifft2(x)


def fast_length(n: int) -> int:
    """Smallest length of at least ``n`` whose FFT is fast (small prime factors)."""
    return int(next_fast_len(n, real=True))


def readout_to_space(x: Tensor) -> Tensor:
    """Centred orthonormal inverse transform over the last axis alone: a readout to positions."""
    return _along_readout(torch.fft.ifft, x)


def space_to_readout(x: Tensor) -> Tensor:
    """Inverse, and adjoint, of :func:`readout_to_space`."""
    return _along_readout(torch.fft.fft, x)


def _along_readout(transform: Callable[..., Tensor], x: Tensor) -> Tensor:
    cornered = torch.fft.ifftshift(x, dim=(-1,))
    return torch.fft.fftshift(transform(cornered, norm="ortho"), dim=(-1,))
