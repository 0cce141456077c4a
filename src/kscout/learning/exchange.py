"""Combinatorial search over the binary mask: swap points, keep what helps."""

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
    r"""What the best linear reconstruction misses of real slices, over their energy.

    With :math:`u = H^{-1} L^H (\hat x - x)`, the derivative in a point of the mask is
    :math:`2\,\operatorname{Re}\langle B u, y - B \hat v\rangle / \sigma^2` there: it knows what the
    point measured, where the expected error knows its variance alone.

    Parameters
    ----------
    scan : the slices' model, ``(slice, coil, y, x)``
    kspace : complex ``(slice, coil, ky, kx)``, fully sampled, noise included
    image : ``(slice, y, x)``, what should come out
    """

    def __init__(
        self, scan: GaussianScan, kspace: Tensor, image: Tensor, n_iterations: int = 20
    ) -> None:
        self.scan, self.kspace, self.image = scan, kspace, image
        self.n_iterations = n_iterations

    @torch.no_grad()
    def __call__(self, mask: Tensor) -> tuple[float, Tensor]:
        scan, mask = self.scan, mask.to(self.scan.magnitude)
        n = len(self.image)
        energy = self.image.abs().square().sum((-2, -1), keepdim=True)
        b = scan.information * scan.measure_adjoint(mask * self.kspace)
        v = scan.solve(b, mask, self.n_iterations)
        error = scan.image(v) - self.image
        u = scan.solve(scan.image_adjoint(error / energy), mask, self.n_iterations)
        residual = self.kspace - scan.measure(v)
        gain = -2 * scan.information * (scan.measure(u).conj() * residual).real.sum((0, 1))
        return float((error.abs().square() / energy).sum() / n), gain / n
