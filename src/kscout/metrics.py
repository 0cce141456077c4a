"""Image quality: pure functions on tensors, batch first, one float64 value per slice.

A ``foreground`` argument (bool, shaped like the image) restricts a metric to the head: most of a
slice is air, which every method reconstructs well.
"""

import torch
from scipy.ndimage import binary_fill_holes
from torch import Tensor

from kscout.errors import UserError

SSIM_SIGMA = 1.5
"""Standard deviation of the SSIM window in pixels (Wang et al. 2004, sec. III-B)."""

SSIM_WINDOW = 11
"""Width of that window: a radius of 3.5 standard deviations."""


def nmse(estimate: Tensor, reference: Tensor, foreground: Tensor | None = None) -> Tensor:
    r"""Normalised mean squared error, :math:`\sum|e - r|^2 / \sum|r|^2`.

    Parameters
    ----------
    estimate, reference : real or complex ``(slice, ...)``, k-space or images
    foreground : bool, broadcastable to ``reference``; everything by default

    Returns
    -------
    float64 ``(slice,)``; not finite where the reference is zero
    """
    return _energy(estimate - reference, foreground) / _energy(reference, foreground)


def _energy(x: Tensor, foreground: Tensor | None) -> Tensor:
    """Sum of squared moduli per slice, added up in double precision."""
    squares = torch.view_as_real(x).square().sum(-1) if x.is_complex() else x.square()
    if foreground is not None:
        squares = squares * foreground
    return squares.flatten(1).sum(1, dtype=torch.float64)


def psnr(
    image: Tensor, reference: Tensor, data_range: Tensor, foreground: Tensor | None = None
) -> Tensor:
    r"""Peak signal-to-noise ratio, :math:`20 \log_{10} L - 10 \log_{10} \mathrm{MSE}`, in dB.

    Parameters
    ----------
    image, reference : real ``(slice, y, x)``
    data_range : real ``(slice,)``, :math:`L`: the maximum of the reference volume of each slice
    foreground : bool ``(slice, y, x)``; everything by default

    Returns
    -------
    float64 ``(slice,)``; infinite where the image equals the reference
    """
    mse = _mean((image.double() - reference.double()).square(), foreground)
    return 20 * torch.log10(data_range.double()) - 10 * torch.log10(mse)


def ssim(
    image: Tensor, reference: Tensor, data_range: Tensor, foreground: Tensor | None = None
) -> Tensor:
    """Structural similarity with a Gaussian window of standard deviation 1.5 pixels.

    Wang et al., IEEE Trans Image Process 13:600 (2004), eq. 13, with K1 = 0.01 and K2 = 0.03, as
    ``skimage.metrics.structural_similarity(gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False)`` computes it. Without ``foreground`` the mean is over the pixels
    whose window lies wholly inside the image; with it, over the foreground.

    Parameters
    ----------
    image, reference : real ``(slice, y, x)``
    data_range : real ``(slice,)``, the maximum of the reference volume of each slice
    foreground : bool ``(slice, y, x)``

    Returns
    -------
    float64 ``(slice,)``

    Raises
    ------
    UserError
        if the image is smaller than the window of 11 x 11 pixels
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    height, width = image.shape[-2:]
    if min(height, width) < SSIM_WINDOW:
        raise UserError(
            f"SSIM is not defined on images of {height}x{width}: valid is at least "
            f"{SSIM_WINDOW}x{SSIM_WINDOW}, the size of its window"
        )
    scale = data_range[:, None, None]
    _, similarity = structural_similarity_index_measure(
        (image / scale)[None],  # slices as channels, whose convolution is several times faster
        (reference / scale)[None],
        sigma=SSIM_SIGMA,
        data_range=1.0,
        reduction="none",
        return_full_image=True,
    )
    similarity = similarity[0].double()
    if foreground is None:
        edge = SSIM_WINDOW // 2
        similarity = similarity[:, edge : height - edge, edge : width - edge]
    return _mean(similarity, foreground)


def _mean(x: Tensor, foreground: Tensor | None) -> Tensor:
    """Mean per slice, over the foreground where one is given; NaN where that is empty."""
    if foreground is None:
        return x.flatten(1).mean(1)
    return (x * foreground).flatten(1).sum(1) / foreground.flatten(1).sum(1)


def maximum_of_volumes(peaks: Tensor, volume: Tensor) -> Tensor:
    """For each slice the highest peak of its scan: the data range of :func:`psnr` and :func:`ssim`.

    Parameters
    ----------
    peaks : real ``(slice,)``, the maximum of each reference image
    volume : int64 ``(slice,)``, the scan of each
    """
    _, scan = volume.unique(return_inverse=True)
    highest = peaks.new_full((len(peaks),), -torch.inf)
    return highest.scatter_reduce(0, scan, peaks, "amax")[scan]


def foreground(reference: Tensor, maximum: Tensor, *, threshold: float = 0.05) -> Tensor:
    """Where the object is: above 5 % of the volume's maximum, and what that encloses.

    Parameters
    ----------
    reference : real ``(slice, y, x)``
    maximum : real ``(slice,)``, the maximum of the volume of each slice
    threshold : fraction of ``maximum``

    Returns
    -------
    bool ``(slice, y, x)``
    """
    above = (reference > threshold * maximum[:, None, None]).cpu().numpy()
    filled = [torch.from_numpy(binary_fill_holes(plane)) for plane in above]
    return torch.stack(filled).to(reference.device)
