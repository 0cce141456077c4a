"""Tiles: the repeat, and the list of all tiles against brute force."""

import itertools

import pytest
import torch

from kscout.errors import UserError
from kscout.sampling.tiles import all_tiles, canonical_tile, count_tiles, repeat_tile

SIZES = [((1, 1), 1), ((1, 5), 2), ((3, 2), 3), ((3, 3), 4), ((2, 4), 4), ((2, 3), 6)]


def shifts(tile: torch.Tensor) -> list[torch.Tensor]:
    h, w = tile.shape
    return [tile.roll((i, j), (0, 1)) for i in range(h) for j in range(w)]


def as_bits(tile: torch.Tensor) -> tuple[bool, ...]:
    return tuple(tile.flatten().tolist())


@pytest.mark.parametrize("shape", [(28, 28), (121, 145), (7, 30), (5, 4)])
def test_repeat_puts_the_first_point_on_dc(shape: tuple[int, int]) -> None:
    tile = torch.arange(15.0).reshape(5, 3)
    plane = repeat_tile(tile, shape)
    assert plane.shape == shape
    for ky, kx in itertools.product(range(0, shape[0], 3), range(0, shape[1], 7)):
        assert plane[ky, kx] == tile[(ky - shape[0] // 2) % 5, (kx - shape[1] // 2) % 3]


def test_gradient_of_the_repeat_counts_the_copies() -> None:
    tile = torch.zeros(3, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad(repeat_tile(tile, (7, 9)).sum(), tile)
    rows, columns = torch.tensor([3.0, 2, 2]), torch.tensor([3.0, 2, 2, 2])  # DC is at (3, 4)
    assert torch.equal(gradient, rows[:, None] * columns[None, :])


@pytest.mark.parametrize("tile", [(8, 3), (3, 31), (0, 3)])
def test_a_tile_off_the_plane_is_refused(tile: tuple[int, int]) -> None:
    with pytest.raises(UserError, match=rf"tile of {tile[0]}x{tile[1]} does not fit.*7x30"):
        repeat_tile(torch.zeros(tile), (7, 30))


@pytest.mark.parametrize(("shape", "n_points"), SIZES)
def test_all_tiles_has_one_of_each_class(shape: tuple[int, int], n_points: int) -> None:
    n_positions = shape[0] * shape[1]
    patterns = []
    for points in itertools.combinations(range(n_positions), n_points):
        pattern = torch.zeros(n_positions, dtype=torch.bool)
        pattern[list(points)] = True
        patterns.append(pattern.reshape(shape))
    assert count_tiles(shape, n_points) == len(patterns)
    classes = {frozenset(as_bits(shifted) for shifted in shifts(p)) for p in patterns}
    listed = [as_bits(tile) for tile in all_tiles(shape, n_points)]
    assert len(listed) == len(classes)
    assert all(sum(bits in members for bits in listed) == 1 for members in classes)


def test_the_list_for_4x4() -> None:
    tiles = all_tiles((4, 4), 4)
    assert count_tiles((4, 4), 4) == 1820
    assert len(tiles) == 122  # Burnside: (1820 + 3 * C(8, 2) + 12 * C(4, 1)) / 16
    assert tiles[:, 0, 0].all()
    assert (tiles.sum((1, 2)) == 4).all()
    assert torch.equal(tiles, all_tiles((4, 4), 4))


def test_listed_tiles_are_canonical() -> None:
    for tile in all_tiles((3, 4), 5):
        assert torch.equal(canonical_tile(tile), tile)


def test_every_shift_has_the_same_canonical_tile() -> None:
    tile = torch.rand(5, 7, generator=torch.Generator().manual_seed(2)) < 0.4
    brute = max(as_bits(shifted) for shifted in shifts(tile))
    for shifted in shifts(tile):
        assert as_bits(canonical_tile(shifted.float())) == brute


@pytest.mark.parametrize("n_points", [0, 13])
def test_impossible_numbers_of_points_are_refused(n_points: int) -> None:
    for function in (all_tiles, count_tiles):
        with pytest.raises(UserError, match=f"cannot have {n_points} points: valid is 1 to 12"):
            function((3, 4), n_points)
