"""Joint sparsity of coil images in an orthonormal wavelet basis."""

import warnings

import numpy as np
import pywt
import torch
from numpy.typing import NDArray
from torch import Tensor

WAVELET = "db4"

COARSEST = 16
"""Points of an axis that are left where the decomposition ends."""


def shrink(images: Tensor, threshold: float, shift: tuple[int, int] = (0, 0)) -> Tensor:
    r"""The proximal step of :math:`\lambda \sum_r \|(\Psi m)_r\|_2`, the norm over coils.

    Soft thresholding of all coils' coefficients together, as they are large at the same places
    (Lustig & Pauly 2010; Murphy et al., IEEE Trans Med Imaging 31:1250, 2012). What is left at the
    coarsest scale is not shrunk. Exact where sizes are multiples of the coarsest step; others are
    padded with zeros, and cropped. Works on the CPU, and passes no gradient on.

    Parameters
    ----------
    images : complex ``(..., coil, y, x)``
    threshold : :math:`\lambda`
    shift : of the basis along (y, x): another at every step averages its blocks away (Coifman &
        Donoho 1995, cycle spinning)

    Returns
    -------
    complex, as ``images``
    """
    shape, moved = images.shape[-2:], images.detach().cpu().roll(shift, (-2, -1)).numpy()
    level = min(map(_level, shape))
    padded = np.pad(moved, [(0, 0)] * (moved.ndim - 2) + [(0, -n % 2**level) for n in shape])
    with warnings.catch_warnings():
        # Of planes narrower than two filters: the basis is still orthonormal.
        warnings.filterwarnings("ignore", "Level value", UserWarning)
        coarse, *details = pywt.wavedecn(
            padded, WAVELET, mode="periodization", level=level, axes=(-2, -1)
        )
    for detail in details:
        for name, values in detail.items():
            detail[name] = _shrunk(values, threshold)
    found = pywt.waverecn([coarse, *details], WAVELET, mode="periodization", axes=(-2, -1))
    back = torch.from_numpy(np.ascontiguousarray(found[..., : shape[0], : shape[1]]))
    return back.roll((-shift[0], -shift[1]), (-2, -1)).to(images)


def _level(n: int) -> int:
    return max(1, (n // COARSEST).bit_length() - 1)


def _shrunk(values: NDArray[np.complexfloating], threshold: float) -> NDArray[np.complexfloating]:
    power = values.real**2 + values.imag**2
    size = np.sqrt(power.sum(-3, keepdims=True))
    shrunk: NDArray[np.complexfloating] = values * (
        1 - threshold / np.maximum(size, max(threshold, np.finfo(size.dtype).tiny))
    )
    return shrunk
