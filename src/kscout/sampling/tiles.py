"""Small patterns that are repeated over the plane, and the list of all of them."""

import itertools
import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kscout.errors import UserError


def repeat_tile(tile: Tensor, shape: tuple[int, int]) -> Tensor:
    """Repeat a tile over the plane and crop it; ``tile[0, 0]`` falls on DC.

    Anchored at DC rather than at a corner, so that a tile means the same pattern on every plane,
    odd ones too. Gradients pass through.

    Parameters
    ----------
    tile : any dtype, ``(h, w)``
    shape : ``(ky, kx)`` of the plane

    Returns
    -------
    same dtype, ``(ky, kx)``

    Raises
    ------
    UserError
        if the tile is empty or larger than the plane
    """
    check_tile((tile.shape[0], tile.shape[1]), shape)
    rows, columns = (
        (torch.arange(n, device=tile.device) - n // 2) % size
        for n, size in zip(shape, tile.shape, strict=True)
    )
    return tile[rows[:, None], columns[None, :]]


def check_tile(tile: tuple[int, int], shape: tuple[int, int]) -> None:
    """Refuse a tile that does not fit the plane with a ``UserError``."""
    if not all(1 <= size <= n for size, n in zip(tile, shape, strict=True)):
        raise UserError(
            f"a tile of {tile[0]}x{tile[1]} does not fit a plane of {shape[0]}x{shape[1]}: "
            f"valid is 1x1 to {shape[0]}x{shape[1]}"
        )


def count_tiles(shape: tuple[int, int], n_points: int) -> int:
    """Number of tiles of ``shape`` with ``n_points`` points, cyclic shifts counted apart."""
    _check_points(shape, n_points)
    return math.comb(shape[0] * shape[1], n_points)


def all_tiles(shape: tuple[int, int], n_points: int) -> Tensor:
    """Every tile with ``n_points`` points, one for each class of cyclic shifts.

    All are held in memory: ask :func:`count_tiles` first whether there are too many.

    Parameters
    ----------
    shape : ``(h, w)`` of the tile
    n_points : acquired points of the tile

    Returns
    -------
    bool ``(class, h, w)``, each as :func:`canonical_tile` gives it, always in the same order

    Raises
    ------
    UserError
        if ``n_points`` is not between 1 and h * w
    """
    _check_points(shape, n_points)
    # Each class has a member with a point at (0, 0), so only the other points are chosen.
    others = itertools.combinations(range(1, shape[0] * shape[1]), n_points - 1)
    points = np.array([(0, *chosen) for chosen in others], dtype=np.int64)
    classes = np.unique(_first_shift(points, shape), axis=0)
    tiles = torch.zeros(len(classes), shape[0] * shape[1], dtype=torch.bool)
    tiles.scatter_(1, torch.from_numpy(classes), True)
    return tiles.reshape(-1, *shape)


def canonical_tile(tile: Tensor) -> Tensor:
    """The representative of a tile's class of cyclic shifts.

    Of all shifts, the one whose list of points in reading order comes first: it has a point at
    (0, 0), so that :func:`repeat_tile` acquires DC.

    Parameters
    ----------
    tile : bool or {0, 1} ``(h, w)``

    Returns
    -------
    bool ``(h, w)``
    """
    points = tile.cpu().flatten().nonzero().T.numpy()
    first = torch.from_numpy(_first_shift(points, (tile.shape[0], tile.shape[1])))
    canonical = torch.zeros(tile.numel(), dtype=torch.bool)
    canonical[first[0]] = True
    return canonical.reshape(tile.shape).to(tile.device)


def _first_shift(points: NDArray[np.int64], shape: tuple[int, int]) -> NDArray[np.int64]:
    """For each row of sorted flat indices, the cyclic shift that comes first in dictionary order.

    That one has a point at index 0, so it is enough to try the shifts that bring a point there.
    """
    rows, columns = np.divmod(points, shape[1])
    best = points
    for i in range(points.shape[1]):
        moved_rows = (rows - rows[:, i : i + 1]) % shape[0]
        moved_columns = (columns - columns[:, i : i + 1]) % shape[1]
        shifted = np.sort(moved_rows * shape[1] + moved_columns, axis=1)
        where = (shifted != best).argmax(axis=1)[:, None]  # the first index in which they differ
        earlier = np.take_along_axis(shifted, where, 1) < np.take_along_axis(best, where, 1)
        best = np.where(earlier, shifted, best)
    return best


def _check_points(shape: tuple[int, int], n_points: int) -> None:
    if not 1 <= n_points <= shape[0] * shape[1]:
        raise UserError(
            f"a tile of {shape[0]}x{shape[1]} cannot have {n_points} points: "
            f"valid is 1 to {shape[0] * shape[1]}"
        )
