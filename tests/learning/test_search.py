"""Tile search: the equations of a tile against brute force, and the ranking."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kscout.data.slices import KspaceSet
from kscout.errors import UserError
from kscout.learning import search
from kscout.learning.closed_form import fit_closed_form, normal_equations, solve_kernel
from kscout.learning.search import RankedTile, TileGrams, search_tiles
from kscout.physics.spirit import Boundary, correlate, kernel_response, transform_shape
from kscout.recon import SpiritNet
from kscout.sampling import FIXED_MASKS, Budget
from kscout.sampling.tiles import all_tiles, canonical_tile, repeat_tile
from laws import complex_normal, deterministic, exact_budget
from synthetic import blobs, slices

BOUNDARIES: tuple[Boundary, Boundary] = ("zero", "periodic")


def small_net() -> SpiritNet:
    return SpiritNet(2, seed=7, n_blocks=2, kernel_size=3)


def fit(net: SpiritNet, mask: Tensor, data: KspaceSet) -> None:
    fit_closed_form(net, mask, data, seed=0)


def training_error(data: KspaceSet, tile: Tensor, kernel_size: int, regularisation: float) -> float:
    """Mask the data, fit one block at every missing point, apply it, and look."""
    mask = repeat_tile(tile, data.shape)
    x = data.kspace * mask
    points = [torch.nonzero(~mask)] * len(data)
    gram, cross = normal_equations(x, data.target, points, kernel_size, "zero")
    kernel = solve_kernel(gram, cross, kernel_size, regularisation).to(x.dtype)
    plane = transform_shape(data.shape, (kernel_size, kernel_size), "zero")
    predicted = correlate(x, kernel_response(kernel, plane), (~mask).float())
    error = predicted - data.target * ~mask
    return float(error.norm() ** 2 / data.target.norm() ** 2)


@pytest.mark.parametrize("shape", [(12, 8), (13, 11), (9, 14)])
@pytest.mark.parametrize("size", [(2, 2), (3, 2), (4, 4)])
def test_the_error_of_a_tile_is_the_training_error_of_its_fit(
    shape: tuple[int, int], size: tuple[int, int]
) -> None:
    """On any plane: the classes are whole at its edges too, only of unequal size."""
    data = slices(complex_normal((3, 2, *shape)))
    grams = TileGrams(data, size, 3)
    tiles = all_tiles(size, math.prod(size) // 2)
    for tile in tiles[:: max(1, len(tiles) // 3)]:
        expected = training_error(data, tile, 3, 1e-3)
        assert grams.error(tile, 1e-3) == pytest.approx(expected, rel=1e-4)


def test_that_is_the_error_of_a_fitted_net() -> None:
    data, tile = blobs(6), torch.tensor([[1, 0], [0, 1]]).bool()
    net, mask = SpiritNet(2, n_blocks=1, kernel_size=3), repeat_tile(tile, (16, 13))
    fit_closed_form(net, mask, data, seed=0, regularisation=1e-4)
    with torch.no_grad():
        error = net(data.kspace * mask, mask.float()) - data.target
    expected = float(error.norm() ** 2 / data.target.norm() ** 2)
    assert TileGrams(data, (2, 2), 3).error(tile, 1e-4) == pytest.approx(expected, rel=1e-3)


def test_a_kernel_that_sees_nothing_explains_nothing() -> None:
    data, tile = blobs(2), torch.zeros((6, 6), dtype=torch.bool)
    grams = TileGrams(data, (6, 6), 3)
    assert grams.error(tile, 1e-6) == pytest.approx(1)
    assert grams.error(~tile, 1e-6) == 0


def found(
    budget: Budget,
    *,
    tile: tuple[int, int] = (4, 4),
    seed: int = 0,
    n_val: int = 4,
    n_finalists: int = 8,
) -> list[RankedTile]:
    net = small_net()
    before = net.kernels.detach().clone()
    train, val = blobs(12), blobs(4, seed=1).select(range(n_val))
    ranked = search_tiles(
        budget, seed, train, val, net, fit, tile=tile, n_slices=6, n_finalists=n_finalists
    )
    assert torch.equal(net.kernels, before)
    return ranked


@pytest.mark.parametrize("n_val", [4, 0])
def test_the_ranking_holds_every_tile_best_first(n_val: int) -> None:
    budget = Budget.of((16, 13), acceleration=4)
    ranked = found(budget, n_val=n_val, n_finalists=5)
    tiles = {tuple(entry.tile.flatten().tolist()) for entry in ranked}
    assert tiles == {tuple(tile.flatten().tolist()) for tile in all_tiles((4, 4), 4)}
    assert len(ranked) == len(tiles)
    finalists, others = ranked[:5], ranked[5:]
    assert all(math.isfinite(entry.nmse) for entry in finalists)
    assert [e.nmse for e in finalists] == sorted(e.nmse for e in finalists)
    assert all(math.isnan(entry.nmse) for entry in others)
    assert [e.one_block for e in others] == sorted(e.one_block for e in others)
    assert max(e.one_block for e in finalists) <= others[0].one_block
    for entry in ranked:
        exact_budget(entry.mask(budget), budget)


def test_caipirinha_is_one_of_the_tiles() -> None:
    budget = Budget.of((16, 12), acceleration=4)
    data = blobs(4, shape=(16, 12))
    ranked = search_tiles(budget, 0, data, data, small_net(), fit)
    lattice = FIXED_MASKS["caipirinha"](budget, 0)
    tile = canonical_tile(lattice[8:12, 6:10])
    (entry,) = [entry for entry in ranked if torch.equal(entry.tile, tile)]
    assert torch.equal(entry.mask(budget), lattice)


def test_the_seed_decides() -> None:
    budget = Budget.of((16, 13), acceleration=4)

    def errors(seed: int) -> Tensor:
        return torch.tensor([entry.one_block for entry in found(budget, seed=seed, n_finalists=1)])

    deterministic(errors, differs=True)


@pytest.mark.parametrize("acceleration", [4, 16])
def test_too_many_tiles_are_searched_greedily(
    acceleration: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "MAX_TILES", 1)
    budget = Budget.of((16, 13), acceleration=acceleration)
    ranked = found(budget, n_finalists=2)
    n_points = 16 // acceleration
    # The last round alone: as many as there are places for the last point, or fewer.
    assert 1 <= len(ranked) <= 16 - (n_points - 1)
    for entry in ranked:
        assert int(entry.tile.sum()) == 16 // acceleration
        exact_budget(entry.mask(budget), budget)


def test_greedy_comes_near_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = Budget.of((16, 13), acceleration=4)
    everything = sorted(entry.one_block for entry in found(budget, n_finalists=1))
    monkeypatch.setattr(search, "MAX_TILES", 1)
    greedy = min(entry.one_block for entry in found(budget, n_finalists=1))
    assert everything[0] <= greedy <= everything[len(everything) // 4]


@pytest.mark.parametrize("n_scans", [1, 2, 12])
def test_without_validation_no_slice_is_fitted_and_judged(n_scans: int) -> None:
    data = replace(blobs(12), volume=torch.arange(12) * n_scans // 12)
    empty = data.select([])
    fitted, judged = search._held_out(data, empty)
    assert len(fitted) + len(judged) == 12
    assert min(len(fitted), len(judged)) > 0
    both = torch.cat([fitted.kspace, judged.kspace]).flatten(1)
    assert len(torch.unique(torch.view_as_real(both).flatten(1), dim=0)) == 12
    if n_scans > 1:
        assert not torch.isin(fitted.volume, judged.volume).any()


def test_a_search_with_nothing_to_judge_on_is_refused() -> None:
    one = blobs(1)
    with pytest.raises(UserError, match="validation data, or at least two"):
        search_tiles(Budget.of((16, 13), acceleration=4), 0, one, one.select([]), small_net(), fit)


def test_the_boundary_of_the_net_is_that_of_the_equations() -> None:
    data = slices(complex_normal((2, 1, 8, 8)))
    tile = torch.tensor([[1, 0], [0, 0]]).bool()
    zero, periodic = (TileGrams(data, (2, 2), 3, b).error(tile, 1e-4) for b in BOUNDARIES)
    assert zero != pytest.approx(periodic, rel=1e-3)
    with pytest.raises(UserError, match="does not divide"):
        TileGrams(data, (3, 2), 3, "periodic")


def test_progress_is_told_to_the_end() -> None:
    told: dict[str, list[tuple[int, int]]] = {}

    def advance(stage: str, done: int, total: int) -> None:
        told.setdefault(stage, []).append((done, total))

    budget, data = Budget.of((16, 13), acceleration=4), blobs(5)
    net = small_net()
    search_tiles(budget, 0, data, data, net, fit, tile=(2, 2), n_finalists=3, advance=advance)
    assert list(told) == ["equations", "tiles", "finalists"]
    for steps in told.values():
        assert steps == [(i + 1, len(steps)) for i in range(len(steps))]


def test_a_tile_that_does_not_fit_is_refused() -> None:
    with pytest.raises(UserError, match="tile of 17x2 does not fit"):
        found(Budget.of((16, 13), acceleration=4), tile=(17, 2))
    with pytest.raises(UserError, match="no point left"):
        found(Budget.of((16, 13), acceleration=16), tile=(2, 2))
