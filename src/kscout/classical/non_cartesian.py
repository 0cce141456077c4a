"""SPIRiT of samples off the grid: radial, spiral, any trajectory (Lustig & Pauly 2010)."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from kscout.classical.slicewise import Advance, heard, ignore
from kscout.classical.spirit import Damping, Iterations, KernelSize, Regularisation
from kscout.errors import UserError
from kscout.physics.calibration import calibrate
from kscout.physics.fourier import image_to_kspace, kspace_to_image
from kscout.physics.nufft import density_compensation, image_to_samples, samples_to_image
from kscout.physics.solvers import conjugate_gradients, slice_inner
from kscout.physics.spirit import SpiritOperator

MARGIN = 12
"""Grid points around the centre that is calibrated on, where truncation does its harm."""

LEAST = 1e-3
"""Of the weight of a sample: what no sample tells of stays small, and so does rounding."""

LEAST_REACH = 4
"""Cycles per field of view: less is a trajectory in other units, such as +-0.5 or +-pi."""

N_GRIDDING = 30
"""Conjugate gradients that put the centre on the grid."""


@torch.no_grad()
def spirit_non_cartesian(
    samples: Tensor,
    trajectory: Tensor,
    shape: tuple[int, int],
    *,
    acs_size: Annotated[int, Field(ge=8, description="of the centre that is calibrated on")] = 24,
    kernel_size: KernelSize = 5,
    regularisation: Regularisation = 0.01,
    n_iterations: Iterations = 30,
    data_weight: Annotated[float, Field(gt=0, description="of what was acquired")] = 10.0,
    damping: Damping = 0.01,
    weights: Tensor | None = None,
    advance: Advance = ignore,
) -> Tensor:
    r"""The gridded k-space that the kernel and the samples agree on best.

    Lustig & Pauly (2010), non-Cartesian sampling, by conjugate gradients: with the operator D of
    the samples,

    .. math:: \min_x \|(G - I)\,x\|^2 + w \|D x - y\|^2_W + \varepsilon \|x\|^2

    The kernel is calibrated on the centre, put on the grid by least squares. Unlike the methods of
    ``METHODS`` it takes samples and their places. Coils that hold nothing but zeros stay so.

    Parameters
    ----------
    samples : complex ``(slice, coil, sample)``
    trajectory : float ``(sample, 2)``, (ky, kx) in cycles per field of view, DC at (0, 0)
    shape : ``(ky, kx)`` of the grid
    data_weight : :math:`w`
    damping : :math:`\varepsilon`
    weights : :math:`W`, float ``(sample,)``, positive; by default they make up for the samples'
        density. A sample on each grid point with a weight of 1 is the Cartesian case
    advance : called after every slice with done and total

    Returns
    -------
    complex ``(slice, coil, ky, kx)``

    Raises
    ------
    UserError
        if an array has another shape or type or is not finite, the trajectory leaves the grid or is
        in other units, weights are not positive, or the centre is too large or says too little
    """
    _refuse_odd(samples, trajectory, shape, acs_size, weights)
    weights = density_compensation(trajectory, shape) if weights is None else weights

    def backwards(of_samples: Tensor) -> Tensor:
        return image_to_kspace(samples_to_image(weights * of_samples, trajectory, shape))

    def of_slice(y: Tensor, alive: Tensor) -> Tensor:
        acs = gridded_centre(y, trajectory, weights, acs_size)[0]
        operator = SpiritOperator(calibrate(acs, kernel_size, regularisation), shape)

        def normal(x: Tensor) -> Tensor:
            again = image_to_samples(kspace_to_image(x), trajectory)
            return operator.normal(x) + data_weight * backwards(again) + damping * x

        right = data_weight * backwards(y)
        return conjugate_gradients(normal, right, n_iterations, inner=slice_inner)

    completed = samples.new_empty(*samples.shape[:2], *shape)
    for i in range(len(samples)):
        completed[i] = heard(of_slice, samples[i : i + 1], shape)[0]
        advance(i + 1, len(samples))
    return completed


def refuse_other_units(trajectory: Tensor) -> None:
    """``UserError`` for a trajectory that hardly leaves DC, as in units of 1/pixel or radians."""
    reach = float(trajectory.abs().max()) if len(trajectory) else 0.0
    if reach < LEAST_REACH:
        raise UserError(
            f"the trajectory reaches {reach:.3g} cycles per field of view: valid units are these, "
            "+-64 for 128 pixels"
        )


def _refuse_odd(
    samples: Tensor,
    trajectory: Tensor,
    shape: tuple[int, int],
    acs_size: int,
    weights: Tensor | None,
) -> None:
    if samples.ndim != 3 or not samples.is_complex():
        raise UserError(
            f"samples are {samples.dtype} {tuple(samples.shape)}: valid is complex "
            "(slice, coil, sample)"
        )
    if not torch.isfinite(torch.view_as_real(samples)).all():
        raise UserError("the samples hold NaN or infinity")
    if trajectory.shape != (samples.shape[-1], 2):
        raise UserError(
            f"the trajectory is {tuple(trajectory.shape)} for {samples.shape[-1]} samples: valid "
            f"is {(samples.shape[-1], 2)}"
        )
    refuse_other_units(trajectory)
    if acs_size > min(shape):
        raise UserError(f"acs_size {acs_size} is larger than the grid {shape}")
    if weights is not None and (weights.shape != trajectory.shape[:1] or not (weights > 0).all()):
        raise UserError(f"weights are {tuple(weights.shape)}: valid is one above 0 of each sample")


def gridded_centre(samples: Tensor, trajectory: Tensor, weights: Tensor, size: int) -> Tensor:
    """The middle of k-space on the grid, by least squares over the samples that lie there.

    Parameters
    ----------
    samples : complex ``(slice, coil, sample)``
    trajectory : float ``(sample, 2)``
    weights : float ``(sample,)``
    size : points of the block along an axis

    Returns
    -------
    complex ``(slice, coil, size, size)``
    """
    full = size + 2 * MARGIN
    near = (trajectory.abs() < full / 2 - 0.5).all(1)
    if int(near.sum()) < full**2 // 4:
        raise UserError(
            f"{int(near.sum())} samples lie in the {full}x{full} centre of k-space: too few to "
            "calibrate on: valid is a smaller acs_size, or a trajectory that is denser there"
        )
    points, plane, density = trajectory[near], (full, full), weights[near]

    def backwards(of_samples: Tensor) -> Tensor:
        return samples_to_image(density * of_samples, points, plane)

    image = conjugate_gradients(
        lambda m: backwards(image_to_samples(m, points)) + LEAST * m,
        backwards(samples[..., near]),
        N_GRIDDING,
        inner=slice_inner,
    )
    return image_to_kspace(image)[..., MARGIN:-MARGIN, MARGIN:-MARGIN]
