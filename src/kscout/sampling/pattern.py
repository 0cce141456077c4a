"""What pattern a scan was sampled with: its ACS, and the lattice around it."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kscout.physics.fourier import centre_block

MOST_FACTOR = 16
"""Of a lattice: points of the plane for each of its points."""

LEAST_ACS = 4
"""Rows and columns of a sampled centre that are worth calling an ACS."""

_WINDOW = 5
"""Width of the kernels that an ACS is there for."""

_LEAST_COVER = 0.75
"""Of a lattice's places that must be acquired: an ellipse of them, without corners, is 0.785."""


@dataclass(frozen=True)
class Pattern:
    """Sampled points in words and numbers.

    Attributes
    ----------
    n_samples : points acquired
    acs : ``(rows, columns)`` of the largest centred block that is fully sampled
    factors : undersampling along (ky, kx) outside of it, or None where there is no lattice
    shift : by how many columns the lattice moves from one of its rows to the next (CAIPIRINHA)
    whole_lines : whether columns were acquired whole
    """

    n_samples: int
    acs: tuple[int, int]
    factors: tuple[int, int] | None
    shift: int
    whole_lines: bool


def find_pattern(points: Tensor) -> Pattern:
    """The pattern of sampled points.

    Parameters
    ----------
    points : bool ``(ky, kx)``
    """
    acs = find_acs(points)
    outside = points & ~centred_block((points.shape[0], points.shape[1]), acs)
    factors, shift = _find_lattice(points.cpu().numpy(), outside.cpu().numpy())
    return Pattern(
        n_samples=int(points.sum()),
        acs=acs,
        factors=factors,
        shift=shift,
        whole_lines=bool((points.all(0) == points.any(0)).all()),
    )


def find_acs(points: Tensor) -> tuple[int, int]:
    """The largest fully sampled block around DC.

    A block of ``n`` rows begins ``n // 2`` rows before DC, and so for columns, as the ACS of
    :class:`kscout.sampling.Budget` does. Largest is the one with the most windows of 5x5 points,
    which a kernel is calibrated on; of blocks with as many the one with the most points, and then
    the one nearest to a square.

    Parameters
    ----------
    points : bool ``(ky, kx)``

    Returns
    -------
    rows and columns; ``(0, 0)`` where DC was not acquired
    """
    ky, kx = points.shape
    array = points.cpu().numpy().astype(bool)
    found = (0, 0)
    good = np.ones(kx, bool)
    for rows in range(1, ky + 1):
        row = ky // 2 - rows // 2 if rows % 2 == 0 else ky // 2 + rows // 2
        if not 0 <= row < ky:
            break
        good = good & array[row]
        columns = _centred_run(good)
        if columns == 0:
            break
        found = max(found, (rows, columns), key=_worth)
    return found


def _worth(block: tuple[int, int]) -> tuple[int, int, int]:
    rows, columns = block
    windows = max(0, rows - _WINDOW + 1) * max(0, columns - _WINDOW + 1)
    return windows, rows * columns, -abs(rows - columns)


def _centred_run(good: np.ndarray) -> int:
    """The most ``n`` for which all from ``centre - n // 2`` on, ``n`` in number, are good."""
    centre = len(good) // 2
    below, above = (
        int(np.append(side, False).argmin()) for side in (good[:centre][::-1], good[centre:])
    )
    n = min(2 * below + 1, 2 * above)
    return n if above else 0


def centred_block(shape: tuple[int, int], block: tuple[int, int]) -> Tensor:
    """Bool ``(ky, kx)``, True in the ``(rows, columns)`` of a block around DC."""
    inside = torch.zeros(shape, dtype=torch.bool)
    inside[centre_block(shape, block)] = True
    return inside


def _find_lattice(points: np.ndarray, outside: np.ndarray) -> tuple[tuple[int, int] | None, int]:
    """Factors and shift of the sparsest lattice that has all points outside of the ACS."""
    places = np.argwhere(outside)
    if not len(places):
        return ((1, 1), 0) if points.any() else (None, 0)
    y, x = (places - places[0]).T
    low, high = places.min(0), places.max(0)
    for factors, shift in _lattices():
        if (y % factors[0]).any() or ((x - shift * (y // factors[0])) % factors[1]).any():
            continue
        # How many places it has among those that are acquired, in the box that they fill.
        rows, columns = np.indices(tuple(high - low + 1))
        rows, columns = rows + low[0] - places[0, 0], columns + low[1] - places[0, 1]
        on = (rows % factors[0] == 0) & ((columns - shift * (rows // factors[0])) % factors[1] == 0)
        box = points[low[0] : high[0] + 1, low[1] : high[1] + 1]
        covered = (on & box).sum() / on.sum()
        return (factors, shift) if covered >= _LEAST_COVER else (None, 0)
    return None, 0


def _lattices() -> list[tuple[tuple[int, int], int]]:
    """All of them, the sparsest first; without a shift, and with equal factors, before others."""
    all_of_them = [
        ((y, x), shift)
        for y in range(1, MOST_FACTOR + 1)
        for x in range(1, MOST_FACTOR // y + 1)
        for shift in range(x)
    ]
    return sorted(all_of_them, key=lambda one: (-one[0][0] * one[0][1], one[1] != 0, one[1]))
