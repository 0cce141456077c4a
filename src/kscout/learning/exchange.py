"""Combinatorial search over the binary mask: swap points, keep what helps.

Exchange is Fedorov's (1972). Many points at a time, ranked by what they are worth in the current
reconstruction of training scans, as in bias-accelerated subset selection (BASS; Zibetti, Herman &
Regatte 2021, Fast data-driven learning of parallel MRI sampling patterns for large scale problems,
Sci. Rep. 11:19312). There the ranks come from errors in k-space, for any reconstruction; here from
the derivative of the error of the linear one.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from kscout.physics.gaussian import GaussianScan
from kscout.sampling.budget import Budget

Advance = Callable[[str, int, int], None]
Criterion = Callable[[Tensor], tuple[float, Tensor]]
"""A mask's error, and what each point gains: ``(ky, kx)``, minus the error's derivative in it."""


APART = 5
"""Of points swapped together, no two lie in one window of this width: their gains would not add."""


def exchange(
    criterion: Criterion,
    mask: Tensor,
    budget: Budget,
    seed: int,
    n_trials: int,
    advance: Advance = lambda stage, done, total: None,
) -> tuple[Tensor, float]:
    """Swap acquired points of little gain for missing ones of much, while the criterion falls.

    Several pairs are tried at once (Fedorov 1972, in blocks), ranked by their gains times random
    factors; more after a success, fewer after a failure, and many again when not even one pair
    helped.

    Parameters
    ----------
    criterion : what shall fall
    mask : bool ``(ky, kx)``, to start from
    budget : of the mask; its ACS stays
    seed : of the random factors
    n_trials : how many swaps are tried

    Returns
    -------
    bool ``(ky, kx)`` and its error
    """
    generator = torch.Generator().manual_seed(seed)
    error, gain = criterion(mask)
    most = max(1, (budget.n_samples - budget.n_acs) // 20)
    n_pairs = most
    for trial in range(n_trials):
        ranked = gain * torch.empty(budget.shape).log_normal_(0, 0.3, generator=generator)
        gained = _peaks(ranked.masked_fill(mask, -torch.inf))
        lost = _peaks((-ranked).masked_fill(~mask | budget.acs, -torch.inf))
        n = min(n_pairs, len(gained), len(lost))
        swapped = mask.clone()
        swapped.view(-1)[lost[:n]] = False
        swapped.view(-1)[gained[:n]] = True
        new_error, new_gain = criterion(swapped)
        if new_error < error:
            mask, error, gain = swapped, new_error, new_gain
            n_pairs = max(n_pairs + 1, n_pairs * 5 // 4)
        else:
            n_pairs = n_pairs * 2 // 3 or most
        advance("exchanges", trial + 1, n_trials)
    return mask, error


def _peaks(values: Tensor) -> Tensor:
    """Flat indices of what is highest within its window, the highest first; not where -inf."""
    highest = max_pool2d(values[None], APART, stride=1, padding=APART // 2)[0]
    is_peak = (values == highest) & (values > -torch.inf)
    order = values.masked_fill(~is_peak, -torch.inf).flatten().argsort(descending=True, stable=True)
    return order[: int(is_peak.sum())]


@dataclass(frozen=True)
class OfLines:
    """A criterion as that of whole columns: masks and gains are ``(1, kx)``."""

    criterion: Criterion
    n_rows: int

    def __call__(self, lines: Tensor) -> tuple[float, Tensor]:
        error, gain = self.criterion(lines.expand(self.n_rows, -1))
        return error, gain.sum(0, keepdim=True)


class MeasuredError:
    r"""What the best linear reconstruction misses of real slices' magnitude, over their energy.

    Errors :math:`e = \hat x - x` are taken along the phase of the image, because those across it do
    not change its magnitude to first order. With the residual :math:`r = y - B \hat v`, a point is
    worth, summed over coils,

    .. math:: \tfrac{2}{\sigma^2}\, w \cdot
       \begin{cases} s & \text{missing} \\
       2 s + |B H^{-1} L^T z|^2 & \text{acquired,} \end{cases}
       \qquad s = -\operatorname{Re}\langle B H^{-1} L^T e,\, r\rangle, \quad
       w = \sigma^2 / \overline{|r|^2}

    with z of that phase and white magnitude. The slope s knows what the point measured. If the
    prior were true, that of an acquired point would be zero in the mean, as its weight is at its
    best, and what it is worth would be the second term, the curvature. The factor w makes of a
    little of a point the whole of it, by the Woodbury identity (exactly so for one coil).

    For missing points s stands for :math:`2 s - |B H^{-1} L^T z|^2`. The two agree in the mean
    where errors know nothing of the phase that they are taken along. As that is the image's own, s
    is less, by a quarter with one coil: of nearly all missing points alike, and exchanges ask for
    no more than ranks, of missing points and of acquired ones.

    Parameters
    ----------
    scan : the slices' model, ``(slice, coil, y, x)``
    kspace : complex ``(slice, coil, ky, kx)``, fully sampled, noise included
    image : complex ``(slice, y, x)``, what should come out
    seed : of z
    n_iterations : of conjugate gradients, towards the posterior mean and each :math:`H^{-1}`
    """

    def __init__(
        self,
        scan: GaussianScan,
        kspace: Tensor,
        image: Tensor,
        seed: int,
        n_iterations: int = 15,
    ) -> None:
        self.scan, self.kspace, self.image = scan, kspace, image
        self.phase = torch.sgn(image)
        self.energy = image.abs().square().sum((-2, -1), keepdim=True)
        white = scan.white(torch.Generator().manual_seed(seed)).real
        self.probe = scan.image_adjoint(self.phase * white)
        self.n_iterations = n_iterations

    @torch.no_grad()
    def __call__(self, mask: Tensor) -> tuple[float, Tensor]:
        """Relative error of a binary mask, and what each point is worth, ``(ky, kx)``."""
        scan, mask, n = self.scan, mask.to(self.scan.magnitude), len(self.image)
        b = scan.information * scan.measure_adjoint(mask * self.kspace)
        v = scan.solve(b, mask, self.n_iterations)
        error = self.phase * (self.phase.conj() * (scan.image(v) - self.image)).real
        residual = self.kspace - scan.measure(v)
        u = scan.solve(scan.image_adjoint(error / self.energy), mask, self.n_iterations)
        slope = -(scan.measure(u).conj() * residual).real.sum((0, 1))
        z = scan.solve(self.probe / self.energy.sqrt(), mask, self.n_iterations)
        curvature = scan.measure(z).abs().square().sum((0, 1))
        whole = scan.noise_std**2 / residual.abs().square().mean((0, 1))
        gain = torch.where(mask > 0, 2 * slope + curvature, slope)
        worth = scan.information * whole * gain
        return float((error.abs().square() / self.energy).sum() / n), worth / n
