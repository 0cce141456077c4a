"""Search for the best tile without training: every tile has a best kernel in closed form."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from kscout.data.slices import KspaceSet
from kscout.errors import UserError
from kscout.metrics import nmse
from kscout.physics.calibration import neighbours, solve_kernel
from kscout.physics.spirit import Boundary
from kscout.recon.spirit_net import SpiritNet
from kscout.sampling.budget import Budget, fit_to_budget
from kscout.sampling.learned import tile_budget
from kscout.sampling.tiles import all_tiles, canonical_tile, check_tile, count_tiles, repeat_tile

MAX_TILES = 200_000
"""More patterns than this are not listed: the search goes greedily."""

N_JUDGED = 60
"""Slices that finalists are judged on, spread evenly over those there are."""

Fit = Callable[[SpiritNet, Tensor, KspaceSet], None]


@dataclass(frozen=True)
class RankedTile:
    """A tile, the squared error of its one-block fit, and the NMSE of the whole stack.

    ``one_block`` is relative to the energy of the target; ``nmse`` is over the validation slices,
    and ``nan`` for tiles that did not reach the second round.
    """

    tile: Tensor
    one_block: float
    nmse: float = float("nan")

    def mask(self, budget: Budget) -> Tensor:
        """The tile over the whole plane, to the exact budget: bool ``(ky, kx)``."""
        return fit_to_budget(repeat_tile(self.tile, budget.shape), budget)


class TileGrams:
    r"""Normal equations of one SPIRiT block for every tile of one size, from one pass over data.

    The missing points of a tiled mask fall into residue classes, one for each position :math:`r`
    in the tile. Within a class, which neighbours were acquired is the same everywhere. So the
    equations of *any* tile are sums over its missing classes of the full
    :math:`G_r = \sum_{p \in r} a_p a_p^H` (all neighbours of the fully sampled k-space), with the
    rows and columns of the neighbours that the tile does not acquire set to zero. Ranking a tile
    then costs one small solve.

    Parameters
    ----------
    data : slices of training k-space
    tile : ``(h, w)``
    kernel_size : width of the kernel, odd
    boundary : of the plane; ``periodic`` needs a tile that divides it
    advance : called after every slice, for a progress bar
    """

    def __init__(
        self,
        data: KspaceSet,
        tile: tuple[int, int],
        kernel_size: int,
        boundary: Boundary = "zero",
        advance: Callable[[], None] = lambda: None,
    ) -> None:
        if boundary == "periodic" and any(n % m for n, m in zip(data.shape, tile, strict=True)):
            raise UserError(
                f"a tile of {tile[0]}x{tile[1]} does not divide the plane of {data.shape[0]}x"
                f"{data.shape[1]}: valid with such a tile is boundary zero"
            )
        self.tile, self.kernel_size, self.n_coils = tile, kernel_size, data.n_coils
        n, n_classes = data.n_coils * kernel_size**2, tile[0] * tile[1]
        self.gram = torch.zeros((n_classes, n, n), dtype=torch.complex128)
        self.cross = torch.zeros((n_classes, n, data.n_coils), dtype=torch.complex128)
        self.energy = torch.zeros((n_classes, data.n_coils), dtype=torch.float64)
        residue = repeat_tile(torch.arange(n_classes).reshape(tile), data.shape)
        places = [torch.nonzero(residue == r).unbind(1) for r in range(n_classes)]
        for x, t in zip(data.kspace, data.target, strict=True):
            windows = neighbours(x, kernel_size, boundary)
            for r, (rows, columns) in enumerate(places):
                a = windows[..., rows, columns].flatten(0, 2)
                conjugate, b = a.conj().resolve_conj(), t[:, rows, columns]
                self.gram[r] += conjugate @ a.mT
                self.cross[r] += conjugate @ b.mT
                self.energy[r] += b.abs().square().sum(1)
            advance()

    def acquired_neighbours(self, tile: Tensor) -> Tensor:
        """Which neighbours are acquired: bool ``(class, coil * kh * kw)`` for bool ``(h, w)``."""
        h, w = self.tile
        offsets = torch.arange(self.kernel_size) - self.kernel_size // 2
        rows = (torch.arange(h)[:, None] + offsets) % h
        columns = (torch.arange(w)[:, None] + offsets) % w
        window = tile[rows[:, None, :, None], columns[None, :, None, :]]
        return window.reshape(h * w, -1).repeat(1, self.n_coils)

    def error(self, tile: Tensor, regularisation: float) -> float:
        """Squared error of the best single block over the energy of all points, for one tile."""
        missing = torch.nonzero(~tile.flatten()).flatten().tolist()
        seen = self.acquired_neighbours(tile)
        gram, cross = torch.zeros_like(self.gram[0]), torch.zeros_like(self.cross[0])
        for r in missing:
            keep = seen[r].double()
            gram += self.gram[r] * torch.outer(keep, keep)
            cross += self.cross[r] * keep[:, None]
        if not gram.diagonal().real.any():
            return float(self.energy[missing].sum() / self.energy.sum())
        kernel = solve_kernel(gram, cross, self.kernel_size, regularisation)
        weights = kernel.reshape(self.n_coils, -1).mT
        explained = 2 * (weights.conj() * cross).sum().real
        quadratic = (weights.conj() * (gram @ weights)).sum().real
        residual = self.energy[missing].sum() - explained + quadratic
        return float(residual / self.energy.sum())


def search_tiles(
    budget: Budget,
    seed: int,
    train: KspaceSet,
    val: KspaceSet,
    net: SpiritNet,
    fit: Fit,
    *,
    tile: tuple[int, int] = (4, 4),
    n_slices: Annotated[int, Field(ge=1, description="slices of the first round")] = 24,
    n_finalists: Annotated[int, Field(ge=1, description="tiles of the second round")] = 8,
    regularisation: Annotated[float, Field(gt=0)] = 1e-6,
    advance: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> list[RankedTile]:
    """Rank tiles up to cyclic shift, the best first.

    First round: every tile (greedily, when there are more than ``MAX_TILES``) by the error of the
    best single block. Second round: the best of these by the k-space NMSE of the whole stack on
    validation slices. Where ``val`` is empty, a tenth of the training scans is held out from both
    rounds for this (a quarter of the slices of a single scan).

    Parameters
    ----------
    budget : of the whole plane; the tile gets its share
    seed : of the draws of slices
    train, val : slices
    net : a stack of the shape to be used; its kernels are left as they were
    fit : fits a stack to a mask on slices, as the winner will be fitted
    tile : ``(h, w)``
    advance : called with (stage, done, total), for a progress bar

    Raises
    ------
    UserError
        if the tile does not fit, has no point at this budget, or there is nothing to judge it on
    """
    check_tile(tile, budget.shape)
    n_points = tile_budget(tile, budget).n_samples
    train, judge = _held_out(train, val)
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
    first = train.select(order[:n_slices])
    done = iter(range(1, len(first) + 1))
    grams = TileGrams(
        first,
        tile,
        net.kernel_size,
        net.boundary,
        lambda: advance("equations", next(done), len(first)),
    )
    if count_tiles(tile, n_points) <= MAX_TILES:
        candidates = list(all_tiles(tile, n_points))
        ranked = []
        for i, candidate in enumerate(candidates):
            ranked.append(RankedTile(candidate, grams.error(candidate, regularisation)))
            advance("tiles", i + 1, len(candidates))
    else:
        ranked = _greedy(grams, tile, n_points, regularisation, advance)
    ranked.sort(key=lambda entry: entry.one_block)
    finalists = []
    for i, entry in enumerate(ranked[:n_finalists]):
        error = _stack_error(net, entry.mask(budget), train, judge, fit)
        finalists.append(RankedTile(entry.tile, entry.one_block, error))
        advance("finalists", i + 1, min(n_finalists, len(ranked)))
    finalists.sort(key=lambda entry: entry.nmse)
    return finalists + ranked[n_finalists:]


def _held_out(train: KspaceSet, val: KspaceSet) -> tuple[KspaceSet, KspaceSet]:
    """Slices to fit on and slices to judge on, at most ``N_JUDGED`` of them; none in both."""
    judge = val
    if not len(val):
        scans = train.volume.unique()
        if len(scans) > 1:
            last = scans[-max(1, len(scans) // 10) :]
            held = torch.isin(train.volume, last)
        else:
            held = torch.arange(len(train)) % 4 == 1
        train, judge = train.select(torch.where(~held)[0]), train.select(torch.where(held)[0])
    if not len(judge):
        raise UserError("a tile search needs validation data, or at least two training slices")
    spread = torch.linspace(0, len(judge) - 1, min(N_JUDGED, len(judge))).long()
    return train, judge.select(spread)


def _greedy(
    grams: TileGrams,
    tile: tuple[int, int],
    n_points: int,
    regularisation: float,
    advance: Callable[[str, int, int], None],
) -> list[RankedTile]:
    """Add the point that helps most, one after another; the first is free, by symmetry."""
    current = torch.zeros(tile, dtype=torch.bool)
    current[0, 0] = True
    last_round: dict[tuple[int, ...], RankedTile] = {}
    for n in range(2, n_points + 1):
        last_round = {}
        for place in torch.nonzero(~current.flatten()).flatten().tolist():
            trial = current.clone()
            trial.view(-1)[place] = True
            trial = canonical_tile(trial)
            key = tuple(torch.nonzero(trial.flatten()).flatten().tolist())
            if key not in last_round:
                last_round[key] = RankedTile(trial, grams.error(trial, regularisation))
        current = min(last_round.values(), key=lambda entry: entry.one_block).tile.clone()
        advance("points", n, n_points)
    return list(last_round.values()) or [RankedTile(current, grams.error(current, regularisation))]


@torch.no_grad()
def _stack_error(
    net: SpiritNet,
    mask: Tensor,
    train: KspaceSet,
    judge: KspaceSet,
    fit: Fit,
) -> float:
    trial = SpiritNet(
        train.n_coils, n_blocks=net.n_blocks, kernel_size=net.kernel_size, boundary=net.boundary
    )
    fit(trial, mask, train)
    errors, weights = [], mask.float().to(trial.kernels.device)
    for start in range(0, len(judge), 8):
        part = judge.select(slice(start, start + 8))
        estimate = trial(part.kspace.to(weights.device) * weights, weights)
        errors.append(nmse(estimate, part.target.to(weights.device)))
    return float(torch.cat(errors).mean())
