r"""Optimal design: the mask of least expected error, and how far any mask is from the best.

For coils, noise and prior of a :class:`~kscout.physics.gaussian.GaussianScan`, the expected squared
error of the best linear reconstruction is the A-criterion (Pukelsheim 2006, ch. 6)

.. math:: f(m) = \operatorname{tr}\big(L\,H(m)^{-1} L^T\big), \qquad
   H(m) = I + \tfrac{2}{\sigma^2} B^T \operatorname{diag}(m)\, B

with :math:`L` from white coefficients to the image. It is convex in a relaxed mask
:math:`m \in [0, 1]`, so that its tangent at any :math:`m` bounds it from below at every mask:
minimised over masks of the budget, the tangent is a certificate (Boyd & Vandenberghe 2004,
sec. 7.5).
On small planes the trace is exact. On others it is sampled by random images (Hutchinson 1990) that
stay the same throughout: the sampled criterion is convex too, and has a certificate of its own.
Conjugate gradients that stop early tell less than the sampled error, yet what follows is a bound
all the same (:func:`relax`).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from kscout.data.slices import KspaceSet
from kscout.errors import UserError
from kscout.learning.exchange import (
    Advance,
    Criterion,
    MeasuredError,
    OfLines,
    exchange,
)
from kscout.physics.fourier import kspace_to_image
from kscout.physics.gaussian import GaussianScan
from kscout.recon import Reconstructor
from kscout.recon.gaussian_sense import DEFAULT_ACS_SIZE, AcsSize, GaussianSense
from kscout.sampling.budget import Budget, line_budget, take_highest
from kscout.sampling.fixed import FIXED_MASKS
from kscout.sampling.learned import MaskOptions, can_be_lines, fixed_mask, known_mask
from kscout.sampling.rounding import diffuse, spend

_CHUNK = 8
"""Slices solved at once, which fit the processor's cache better than all."""

N_ITERATIONS = 20
"""Of conjugate gradients while a mask is sought.

Of masks of points at R = 8 errors come out 0.03 to 0.13 dB short, of lines at R = 4 0.2 to 0.5.
"""

N_CERTIFIED = 100
"""Of conjugate gradients when masks are judged: another 300 move no such error by 0.004 dB."""

MOST_WEIGHTS = 2**18
"""Numbers in the dense matrix of a slice, above which the trace is sampled."""


def _known_start(start: str | MaskOptions) -> str | MaskOptions:
    if start != "relaxed":
        known_mask({"kind": start} if isinstance(start, str) else start)
    return start


Start = Annotated[str | MaskOptions, AfterValidator(_known_start)]


@dataclass(frozen=True)
class Certificate:
    """How good a mask is, and how good any mask of its budget could be.

    Attributes
    ----------
    error_db : expected squared error over expected signal, in dB
    bound_db : no mask of the budget has less
    of_lines : whether that is said of masks of whole columns alone
    """

    error_db: float
    bound_db: float
    of_lines: bool

    @property
    def gap_db(self) -> float:
        """What the mask leaves on the table by the expected error, for the slices drawn."""
        return self.error_db - self.bound_db


@dataclass(frozen=True)
class DesignedMask:
    """A mask, bool ``(ky, kx)``, and its expected squared error over the expected signal."""

    points: Tensor
    error: float

    def mask(self, budget: Budget) -> Tensor:
        """The mask itself, which was made for its budget."""
        return self.points


class ExpectedError:
    """The expected squared error of masks over the expected signal, sampled.

    Parameters
    ----------
    scan : several slices, ``(slice, coil, y, x)``
    seed : of the random images, one per slice
    n_iterations : of conjugate gradients; the error is less than the sampled trace until they have
        converged
    """

    def __init__(self, scan: GaussianScan, seed: int, n_iterations: int = N_ITERATIONS) -> None:
        self.n_iterations = n_iterations
        self.parts = []
        generator = torch.Generator().manual_seed(seed)
        for i in range(0, len(scan.maps), _CHUNK):
            here = slice(i, i + _CHUNK)
            part = GaussianScan(
                scan.maps[here],
                scan.magnitude[here],
                scan.spectra,
                scan.noise_std,
            )
            probe = part.white(generator)
            self.parts.append((part, part.image_adjoint(probe), part.signal[:, None, None]))
        self.n_slices = len(scan.maps)

    @torch.no_grad()
    def __call__(self, mask: Tensor) -> tuple[float, Tensor]:
        """Relative error of a (relaxed) mask, and what each point gains, ``(ky, kx)``.

        The gain of a point is minus the derivative of the error in it; never negative.
        """
        mask = mask.to(self.parts[0][0].magnitude)
        error, gain = 0.0, torch.zeros_like(mask)
        for scan, b, signal in self.parts:
            v = scan.solve(b, mask, self.n_iterations)
            error += float(((b.conj() * v).real / signal).sum())
            seen = scan.measure(v).abs().square().sum(-3) / signal
            gain += scan.information * seen.sum(0)
        return error / self.n_slices, gain / self.n_slices


class ExactError:
    """As :class:`ExpectedError`, without sampling: dense matrices, for small planes.

    Parameters
    ----------
    scan : several slices, ``(slice, coil, y, x)``
    """

    def __init__(self, scan: GaussianScan) -> None:
        self.information = scan.information
        n_slices, *_, height, width = scan.maps.shape
        n = height * width
        unit = torch.eye(n, dtype=scan.maps.dtype).reshape(n, 1, height, width)
        unit = torch.cat([unit, 1j * unit]).to(scan.maps.device).expand(-1, n_slices, -1, -1)
        measured = torch.stack([scan.measure(e).flatten(1) for e in unit], -1)
        image = torch.stack([scan.image(e).flatten(1) for e in unit], -1)
        self.slices = list(zip(measured, torch.cat([image.real, image.imag], 1), strict=True))

    @torch.no_grad()
    def __call__(self, mask: Tensor) -> tuple[float, Tensor]:
        """Relative error of a (relaxed) mask, and what each point gains, ``(ky, kx)``."""
        error, gain = 0.0, torch.zeros(mask.shape, device=mask.device)
        weights = mask.to(gain).flatten()
        for measured, image in self.slices:
            repeated = weights.repeat(len(measured) // len(weights))
            precision = self.information * (measured.mH @ (repeated[:, None] * measured)).real
            precision.diagonal().add_(1)
            spread = torch.cholesky_solve(image.mT, torch.linalg.cholesky(precision))
            signal = float(image.square().sum())
            error += float((image.mT * spread).sum()) / signal
            missed = (measured @ spread.to(measured.dtype)).abs().square().sum(1)
            gain += self.information / signal * missed.reshape(-1, *mask.shape).sum(0)
        return error / len(self.slices), gain / len(self.slices)


def least(gain: Tensor, budget: Budget) -> Tensor:
    """The mask of the budget with the largest sum of gains: float ``(ky, kx)``."""
    return take_highest(gain, budget).to(gain)


def relax(
    criterion: Criterion,
    budget: Budget,
    n_steps: int,
    advance: Advance = lambda stage, done, total: None,
) -> tuple[Tensor, float]:
    r"""Minimise the criterion over relaxed masks, multiplicatively.

    :math:`m \leftarrow \min(1, c\, m\, g^{1/2})`, c chosen for the budget (Silvey, Titterington &
    Torsney 1978), which keeps every mask feasible and needs no step size. Every step has a bound,

    .. math:: f(m') \ge 2\,b^T v - v^T H(m')\,v = b^T v - \sum_p g_p\,(m'_p - m_p),
       \qquad g_p = \tfrac{2}{\sigma^2} |(B v)_p|^2

    for each random image, :math:`b = L^T z`. At :math:`v = H(m)^{-1} b` it is the tangent, but it
    holds for every v, because :math:`f(m') = \max_v` of the same. The two sides on the right are
    equal where :math:`b^T v = v^T H(m)\,v`, which conjugate gradients from zero keep at every
    iteration. So a solve that stops early makes the bound looser, never wrong.

    Returns
    -------
    the relaxed mask, float ``(ky, kx)``, and the highest lower bound met on the way
    """
    acs = budget.acs
    n_free = budget.n_samples - budget.n_acs
    mask = torch.full(budget.shape, n_free / max(1, int((~acs).sum())))
    mask[acs] = 1
    bound = 0.0
    for step in range(n_steps):
        error, gain = criterion(mask)
        bound = max(bound, error - float((gain * (least(gain, budget) - mask)).sum()))
        if step < n_steps - 1:
            mask = spend(mask * gain.sqrt(), budget)
        advance("relaxed masks", step + 1, n_steps)
    return mask, bound


def linear_reconstruction(data: KspaceSet, seed: int, acs_size: int) -> GaussianSense:
    """The reconstruction that designs are made for, calibrated on a set of slices."""
    net = GaussianSense(data.n_coils, acs_size=acs_size)
    net.calibrate(data.kspace, data.target, data.coil_scale, seed)
    return net


def drawn(data: KspaceSet, n_slices: int, seed: int) -> KspaceSet:
    """Slices at random, with unscaled coils."""
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
    return data.select(order[:n_slices]).with_coil_scale(torch.ones(data.n_coils))


def expected_error(
    data: KspaceSet, n_slices: int, seed: int, acs_size: int, n_iterations: int = N_ITERATIONS
) -> Criterion:
    """The criterion for coils, noise and prior of slices drawn from a set, exact if affordable."""
    net = linear_reconstruction(data, seed, acs_size)
    scan = net.scan(drawn(data, n_slices, seed).kspace)
    is_small = data.n_coils * math.prod(data.shape) ** 2 <= MOST_WEIGHTS
    return ExactError(scan) if is_small else ExpectedError(scan, seed, n_iterations)


def measured_error(
    data: KspaceSet, n_slices: int, seed: int, acs_size: int, n_iterations: int = N_ITERATIONS
) -> MeasuredError:
    """What the linear reconstruction really misses of slices drawn from a set."""
    net = linear_reconstruction(data, seed, acs_size)
    slices = drawn(data, n_slices, seed)
    scan = net.scan(slices.kspace)
    image = (scan.maps.conj() * kspace_to_image(slices.target)).sum(1)
    return MeasuredError(scan, slices.kspace, image, seed, n_iterations)


def certify(
    masks: Mapping[str, Tensor],
    data: KspaceSet,
    budget: Budget,
    seed: int,
    *,
    acs_size: int = DEFAULT_ACS_SIZE,
    lines: bool = False,
    n_slices: int = 16,
    n_steps: int = 60,
    advance: Advance = lambda stage, done, total: None,
) -> dict[str, Certificate]:
    """For each mask, how many dB it leaves to the best mask that its budget could buy.

    Parameters
    ----------
    masks : bool ``(ky, kx)`` each
    data : slices, of which coils, noise and prior are taken; for a mask that was designed, others
        than it was designed on, or it looks better than it is
    acs_size : width of the centre that coil maps come from
    seed : of the draw of slices, and of the random images that the trace is sampled with
    lines : bound masks of whole columns alone, which is tighter where no other can be acquired
    n_slices : how many slices are drawn
    n_steps : of the relaxed mask, each of which can only raise the bound
    """
    criterion = expected_error(data, n_slices, seed, acs_size)
    units = line_budget(budget) if lines else budget
    _, bound = relax(_of_units(criterion, budget, lines), units, n_steps, advance)
    judge = expected_error(data, n_slices, seed, acs_size, N_CERTIFIED)
    found = {}
    for i, (name, mask) in enumerate(masks.items()):
        found[name] = Certificate(_db(judge(mask.float())[0]), _db(bound), lines)
        advance("masks", i + 1, len(masks))
    return found


def _of_units(criterion: Criterion, budget: Budget, lines: bool) -> Criterion:
    """The criterion of points, or of whole columns."""
    return OfLines(criterion, budget.shape[0]) if lines else criterion


def _db(ratio: float) -> float:
    return 10 * math.log10(max(ratio, 1e-30))


def optimal_design(
    budget: Budget,
    seed: int,
    train: KspaceSet,
    val: KspaceSet,
    net: Reconstructor,
    fit: object,
    *,
    error: Annotated[
        Literal["expected", "measured"],
        Field(description="under the prior, or of real slices"),
    ] = "expected",
    init: Annotated[
        Start,
        Field(description="relaxed, rounded; or a fixed mask, to begin exchanges from"),
    ] = "relaxed",
    lines: Annotated[bool, Field(description="acquire whole columns")] = False,
    acs_size: AcsSize = DEFAULT_ACS_SIZE,
    n_slices: Annotated[int, Field(ge=1, description="training slices")] = 16,
    n_steps: Annotated[int, Field(ge=1, description="of the relaxed mask")] = 40,
    n_trials: Annotated[int, Field(ge=0, description="exchanges tried")] = 60,
    advance: Advance = lambda stage, done, total: None,
) -> list[DesignedMask]:
    """The mask of least error found: relaxed, rounded, and improved by exchange.

    The relaxed mask is that of the expected error, which is convex. Exchanges go by the expected
    error too, or by what the linear reconstruction really misses of training slices.

    Parameters
    ----------
    budget : what the mask spends
    seed : of the slices, the random images and the exchanges
    train : slices that coils, noise and prior are taken from
    net : if it is the linear reconstruction, measured errors are of as many iterations
    val, fit : unused

    Returns
    -------
    it alone
    """
    if lines:
        _refuse_points(init)
    expected = expected_error(train, n_slices, seed, acs_size)
    judge = expected
    if error == "measured":
        n_iterations = net.n_iterations if isinstance(net, GaussianSense) else N_ITERATIONS
        judge = measured_error(train, n_slices, seed, acs_size, n_iterations)
    units = line_budget(budget) if lines else budget
    if init == "relaxed":
        mask = diffuse(relax(_of_units(expected, budget, lines), units, n_steps, advance)[0], units)
    else:
        mask = fixed_mask(init, budget, seed, lines=lines)[: units.shape[0]]
    mask, least_error = exchange(
        _of_units(judge, budget, lines), mask, units, seed, n_trials, advance
    )
    return [DesignedMask(mask.expand(budget.shape), least_error)]


def _refuse_points(init: Start) -> None:
    """``UserError`` for a start that has no whole columns."""
    kind = init["kind"] if isinstance(init, dict) else init
    valid = ["relaxed", *(name for name in FIXED_MASKS if can_be_lines(name))]
    if kind not in valid:
        raise UserError(
            f"optimal_design: init '{kind}' has no whole columns to begin from: valid with lines "
            f"is {', '.join(valid)}"
        )
