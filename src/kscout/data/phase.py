"""A smooth random phase, such as every real scan has and no magnitude image shows."""

import numpy as np
import torch
from numpy.polynomial.legendre import legvander
from torch import Tensor

_DEGREE = 3
"""Of the polynomial: what is left of the field after shimming, and of the coils, is smooth."""

_OBJECT = 0.05
"""Of the maximum: darker than that is air."""


def with_phase(image: Tensor, rms: float, position: Tensor, seed: np.random.SeedSequence) -> Tensor:
    r"""Turn a real object into a complex one of the same magnitude.

    .. math:: \varphi(z, y, x) = \sum_{i + j + k \le 3} c_{ijk}\, P_i(z) P_j(y) P_k(x)

    with Legendre polynomials over the field of view and independent Gaussian coefficients: a cubic
    that changes slowly within slices and from slice to slice. Its mean over the object is taken
    off, because a constant phase means nothing, and the rest is scaled to ``rms``. Methods that
    know of conjugate symmetry gain from a real object what no scan gives them (Haldar 2014, IEEE
    Trans. Med. Imaging 33:668, on images of slowly varying phase).

    Parameters
    ----------
    image : real ``(slice, y, x)``
    rms : root mean square of the phase in radians, over the object in all these slices
    position : of the slices along the third axis, from -1 to 1 over the volume: ``(slice,)``
    seed : of the coefficients

    Returns
    -------
    complex64 ``(slice, y, x)``, or the real ``image`` itself for a phase of 0
    """
    if rms == 0:
        return image
    axes = [position.double().numpy(), *(np.linspace(-1, 1, n) for n in image.shape[1:])]
    waves = [legvander(axis, _DEGREE) for axis in axes]
    coefficients = np.random.default_rng(seed).standard_normal([_DEGREE + 1] * 3)
    coefficients[np.indices(coefficients.shape).sum(0) > _DEGREE] = 0
    in_plane = np.einsum("zi,ijk->zjk", waves[0], coefficients)
    phase = torch.from_numpy(waves[1] @ in_plane @ waves[2].T)
    inside = phase[image > _OBJECT * image.max()]
    phase -= inside.mean()
    spread = float(inside.std(correction=0))
    phase *= rms / spread if spread > 0 else 0.0  # a single point has no phase of its own
    return torch.polar(image.double(), phase).to(torch.complex64)
