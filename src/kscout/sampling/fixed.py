"""Masks that learn nothing, most of them long in use: every one spends its budget exactly.

A function of :data:`FIXED_MASKS` takes the budget, a seed, and its own options as keywords, and
returns a bool mask ``(ky, kx)`` with ``budget.n_samples`` points, the ACS among them.
"""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor

from kscout.errors import UserError
from kscout.sampling.budget import (
    Budget,
    fit_to_budget,
    line_budget,
    squared_radius,
    take_highest,
)
from kscout.sampling.files import read_mask
from kscout.sampling.rounding import Lines, spread_density
from kscout.sampling.tiles import check_tile, repeat_tile

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Factors = tuple[PositiveInt, PositiveInt]
"""Acceleration along (ky, kx)."""


def lattice(shape: tuple[int, int], factors: Factors, shift: int) -> Tensor:
    """Every ``factors[0]``-th row and, in it, every ``factors[1]``-th column, through DC.

    From one acquired row to the next the columns move on by ``shift``.

    Returns
    -------
    bool ``(ky, kx)``
    """
    rows, columns = (torch.arange(n) - n // 2 for n in shape)
    step = rows.div(factors[0], rounding_mode="floor")[:, None]
    on_row = (rows % factors[0] == 0)[:, None]
    return on_row & ((columns[None, :] - shift * step) % factors[1] == 0)


def lattice_count(shape: tuple[int, int], factors: Factors, shift: int | None = None) -> int:
    """Points of the whole lattice on a plane; as a budget, the lattice is used as it is.

    On an odd plane this is rarely ``ky * kx / R``. The default shift is that of
    :func:`caipirinha`.
    """
    return int(lattice(shape, factors, best_shift(factors) if shift is None else shift).sum())


def alias_distances(factors: Factors, shift: int) -> list[int]:
    """How far each of the R - 1 aliases of a lattice lies from the image, nearest first.

    Returns
    -------
    squared distances in units of (field of view / R), R = ``factors[0] * factors[1]``; a field of
    view that wraps around is taken as square
    """
    total = factors[0] * factors[1]
    along_x = np.arange(factors[1])[None, :]
    along_y = np.arange(factors[0])[:, None]
    y = (along_y * factors[1] - shift * along_x) % total
    x = np.broadcast_to(along_x * factors[0], y.shape)
    squared = np.minimum(y, total - y) ** 2 + np.minimum(x, total - x) ** 2
    nearest_first: list[int] = np.sort(squared, axis=None)[1:].tolist()
    return nearest_first


def best_shift(factors: Factors) -> int:
    """The shift whose nearest alias is farthest; of equals, the next nearest decides, and so on.

    A shift and its mirror image tie, and the smaller is taken: 1 for 2x2, 2 for 1x5.
    """
    return max(range(factors[1] // 2 + 1), key=lambda shift: alias_distances(factors, shift))


def squarest_factors(acceleration: int) -> Factors:
    """The most square ``(R_y, R_x)`` with that product, the larger along kx: a prime is (1, R)."""
    small = next(f for f in range(math.isqrt(acceleration), 0, -1) if acceleration % f == 0)
    return small, acceleration // small


def caipirinha(
    budget: Budget,
    seed: int,
    *,
    factors: Factors | None = None,
    shift: NonNegativeInt | None = None,
) -> Tensor:
    """2D CAIPIRINHA: a lattice sheared so that aliases spread over both axes.

    Breuer et al. 2006, Magn. Reson. Med. 55:549.

    Parameters
    ----------
    budget : its acceleration, rounded to an integer R, is the lattice's
    seed : unused
    factors : ``(R_y, R_x)``; by default the most square ones, the larger along kx, where the shift
        acts (a prime R becomes 1xR)
    shift : columns to move on from one acquired row to the next, below R_x; by default the one
        that keeps aliases farthest apart, see :func:`best_shift`

    Raises
    ------
    UserError
        if the factors do not multiply to R, or the shift is not below R_x
    """
    return _lattice_mask(budget, factors, shift)


def uniform_2d(budget: Budget, seed: int, *, factors: Factors | None = None) -> Tensor:
    """Every ``R_y``-th row crossed with every ``R_x``-th column, through DC.

    2D SENSE, Weiger et al. 2002, MAGMA 14:10.

    Parameters
    ----------
    budget : its acceleration, rounded to an integer R, is the lattice's
    seed : unused
    factors : ``(R_y, R_x)``; by default the most square ones, the larger along kx

    Raises
    ------
    UserError
        if the factors do not multiply to R
    """
    return _lattice_mask(budget, factors, 0)


def _lattice_mask(budget: Budget, factors: Factors | None, shift: int | None) -> Tensor:
    nearest = round(budget.acceleration)
    limits = budget.shape
    if factors and not all(1 <= factor <= n for factor, n in zip(factors, limits, strict=True)):
        raise UserError(
            f"factors {factors[0]}x{factors[1]} are impossible: valid is 1x1 to "
            f"{limits[0]}x{limits[1]}, the plane"
        )
    factors = factors or squarest_factors(nearest)
    name = f"factors {factors[0]}x{factors[1]}"
    if shift is None:
        shift = best_shift(factors)
    if not 0 <= shift < factors[1]:
        raise UserError(f"shift {shift} is impossible with {name}: valid is 0 to {factors[1] - 1}")
    pattern = lattice(budget.shape, factors, shift) | budget.acs
    # Another product would leave a lattice cut off or filled up at the edge, unless its own count
    # was asked for.
    if factors[0] * factors[1] != nearest and int(pattern.sum()) != budget.n_samples:
        raise UserError(
            f"{name} do not suit a budget of {budget.n_samples} samples "
            f"(R = {budget.acceleration:.4g}): they must multiply to {nearest}"
        )
    return fit_to_budget(pattern, budget)


def uniform_lines(budget: Budget, seed: int) -> Tensor:
    """Equally spaced whole columns, through DC or on both sides of the ACS.

    Without ACS and at an integer acceleration R, every R-th column. Otherwise just enough columns
    for the budget, their spacing adjusted to the columns that the ACS takes, as in the equispaced
    masks of fastMRI (Zbontar et al. 2018, arXiv:1811.08839), but to the exact count. A budget that
    is not a whole number of columns leaves out points at the edge.

    Parameters
    ----------
    budget : points in all; a multiple of ky gives whole columns
    seed : unused
    """
    n_rows, n_columns = budget.shape
    period = round(budget.acceleration)
    pattern = lattice(budget.shape, (1, period), 0)
    whole_counts = (round(n_rows * n_columns / period), int(pattern.sum()))
    if budget.n_acs or budget.n_samples not in whole_counts:
        pattern = next(
            lines
            for n_lines in range(1, n_columns + 1)
            if int((lines := _spread_lines(budget, n_lines)).sum()) >= budget.n_samples
        )
    return fit_to_budget(pattern, budget)


def _spread_lines(budget: Budget, n_lines: int) -> Tensor:
    """The ACS and ``n_lines`` columns: those whole in the ACS (or DC), the rest evenly spread."""
    n_rows, n_columns = budget.shape
    keep = budget.acs.all(dim=0)
    if not keep.any():
        keep[n_columns // 2] = True
    # Cyclically from DC to the right, so that equal gaps go on across the edge of k-space.
    order = (torch.arange(n_columns) + n_columns // 2) % n_columns
    others = order[~keep[order]]
    n_more = max(n_lines - int(keep.sum()), 0)
    places = torch.arange(1, n_more + 1) * (len(others) + 1) // (n_more + 1) - 1
    keep[others[places]] = True
    return keep.expand(n_rows, -1) | budget.acs


def random_tile(
    budget: Budget, seed: int, *, tile: tuple[PositiveInt, PositiveInt] = (4, 4)
) -> Tensor:
    """A tile of random points, repeated over the plane.

    One of its points falls on DC. Every class of cyclic shifts stays as likely as if all points
    were drawn freely.

    Parameters
    ----------
    budget : of the tile's h * w points, the nearest whole number to h * w / R is acquired
    seed : draws the points
    tile : ``(h, w)``

    Raises
    ------
    UserError
        if the tile is larger than the plane
    """
    check_tile(tile, budget.shape)
    n_positions = tile[0] * tile[1]
    n_points = max(1, round(n_positions / budget.acceleration))
    others = torch.randperm(n_positions - 1, generator=_generator(seed)) + 1
    pattern = torch.zeros(n_positions, dtype=torch.bool)
    pattern[0] = True
    pattern[others[: n_points - 1]] = True
    return fit_to_budget(repeat_tile(pattern.reshape(tile), budget.shape), budget)


def random_points(budget: Budget, seed: int) -> Tensor:
    """Points drawn uniformly over the plane.

    Parameters
    ----------
    budget : points in all
    seed : draws the points
    """
    scores = torch.rand(budget.shape, generator=_generator(seed), dtype=torch.float64)
    return take_highest(scores, budget)


def variable_density(
    budget: Budget, seed: int, *, power: NonNegativeFloat = 3.0, lines: Lines = False
) -> Tensor:
    r"""Random points, denser towards DC.

    Points are drawn one after another without replacement, each with a chance in proportion to
    :math:`(1 - r)^p`, r being the distance from DC, 1 at the middle of an edge. Corners beyond
    r = 1 are drawn last. Lustig et al. 2007, Magn. Reson. Med. 58:1182, "Incoherent sampling".

    Parameters
    ----------
    budget : points in all
    seed : draws the points
    power : p; 0 is uniform
    lines : draw whole columns
    """
    whole, budget = budget, line_budget(budget) if lines else budget
    log_density = power * (1 - squared_radius(budget.shape).sqrt()).clamp(min=1e-6).log()
    # An exponential clock for each point, at the rate of its density: the first to ring are a
    # weighted draw without replacement.
    clock = torch.empty_like(log_density).exponential_(generator=_generator(seed))
    return take_highest(log_density - clock.log(), budget).expand(whole.shape)


def poisson_disc(budget: Budget, seed: int, *, slope: NonNegativeFloat = 1.0) -> Tensor:
    r"""Random points that keep a distance from each other, which grows away from DC.

    Two points outside the ACS are at least :math:`s (1 + a r)` steps of k-space apart, r being the
    distance from DC (1 at the middle of an edge) of the one nearer to DC, a the slope. The scale s
    is the largest found by bisection that still meets the budget. Darts are thrown in random
    order, each at its own grid point (Cook 1986, ACM Trans. Graph. 5:51; Bridson 2007, SIGGRAPH
    sketches); for MRI, Vasanawala et al. 2011, IEEE ISBI, p. 1039.

    Parameters
    ----------
    budget : points in all
    seed : draws the order of the darts
    slope : a; 0 is the same distance everywhere
    """
    darts = torch.randperm(budget.acs.numel(), generator=_generator(seed)).numpy()
    darts = darts[~budget.acs.numpy().flatten()[darts]]
    spacing = (1 + slope * squared_radius(budget.shape).sqrt()).flatten().numpy()
    n_darts = budget.n_samples - budget.n_acs

    kept, low, high = darts[:n_darts], 0.0, 1.0  # at scale 0 every dart stays
    while len(more := _throw(darts, high * spacing, budget.shape, n_darts)) == n_darts:
        kept, low, high = more, high, 2 * high
        if low > max(budget.shape):
            break
    for _ in range(7):
        scale = (low + high) / 2
        if len(more := _throw(darts, scale * spacing, budget.shape, n_darts)) == n_darts:
            kept, low = more, scale
        else:
            high = scale

    mask = budget.acs.flatten().clone()
    mask[torch.from_numpy(kept)] = True
    return mask.reshape(budget.shape)


def _throw(darts: Ints, spacing: Floats, shape: tuple[int, int], n_darts: int) -> Ints:
    """The first ``n_darts`` of ``darts`` (flat indices) that no earlier one's disc covers.

    ``spacing`` is the radius of the disc at each point of the plane. Fewer come back if the plane
    is full before.
    """
    reach = min(math.ceil(spacing.max()), max(shape))
    width = shape[1] + 2 * reach  # of the plane with a margin, so that no disc needs cropping
    dy, dx = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    squared = (dy**2 + dx**2).flatten()
    nearest_first = np.argsort(squared, kind="stable")
    disc = (dy * width + dx).flatten()[nearest_first]
    disc_size = np.searchsorted(squared[nearest_first], spacing**2).tolist()

    rows, columns = np.divmod(darts, shape[1])
    places = ((rows + reach) * width + columns + reach).tolist()
    covered = bytearray((shape[0] + 2 * reach) * width)  # Python reads single bytes faster
    covered_array = np.frombuffer(covered, dtype=np.uint8)  # NumPy writes whole discs faster
    kept: list[int] = []
    for dart, place in zip(darts.tolist(), places, strict=True):
        if len(kept) == n_darts:
            break
        if not covered[place]:
            covered_array[place + disc[: disc_size[dart]]] = 1
            kept.append(dart)
    return np.array(kept, dtype=np.int64)


def low_frequency(budget: Budget, seed: int, *, lines: Lines = False) -> Tensor:
    """The points nearest to DC, distances relative to each axis: an ellipse on an oblong plane.

    Parameters
    ----------
    budget : points in all
    seed : unused
    lines : whole columns
    """
    whole, budget = budget, line_budget(budget) if lines else budget
    return take_highest(-squared_radius(budget.shape), budget).expand(whole.shape)


def from_file(budget: Budget, seed: int, *, path: Path) -> Tensor:
    """A mask from a NumPy file.

    Parameters
    ----------
    budget : what the mask must have spent, exactly
    seed : unused
    path : .npy file of bool, or of the numbers 0 and 1, ``(ky, kx)``

    Raises
    ------
    UserError
        if the file cannot be read, or its array is of another shape, not binary, of another count
        than the budget, or lacks points of the ACS
    """
    mask = read_mask(path)
    refuse_other_budget(str(path), mask, budget)
    return mask


def refuse_other_budget(name: str, mask: Tensor, budget: Budget) -> None:
    """``UserError`` for a mask of another shape or count than the budget's, or without its ACS."""
    if tuple(mask.shape) != budget.shape:
        raise UserError(f"mask file {name} has shape {tuple(mask.shape)}: valid is {budget.shape}")
    if (count := int(mask.sum())) != budget.n_samples:
        raise UserError(
            f"mask file {name} has {count} points, but the budget is {budget.n_samples}: "
            f"set n_samples to {count}"
        )
    if n_absent := int((budget.acs & ~mask).sum()):
        raise UserError(
            f"mask file {name} lacks {n_absent} of the {budget.n_acs} points of the ACS: "
            "use a mask with them, or a smaller ACS"
        )


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


FIXED_MASKS: dict[str, Callable[..., Tensor]] = {
    "caipirinha": caipirinha,
    "uniform_lines": uniform_lines,
    "uniform_2d": uniform_2d,
    "random_tile": random_tile,
    "random_points": random_points,
    "variable_density": variable_density,
    "spread_density": spread_density,
    "poisson_disc": poisson_disc,
    "low_frequency": low_frequency,
    "file": from_file,
}
