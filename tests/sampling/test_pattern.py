import numpy as np
import pytest
import torch
from torch import Tensor

from kscout.sampling import FIXED_MASKS, Budget
from kscout.sampling.pattern import centred_block, find_acs, find_pattern

SHAPES = [(20, 24), (21, 24), (20, 23), (21, 23)]


def lattice(shape: tuple[int, int], factors: tuple[int, int], shift: int = 0) -> Tensor:
    y, x = (torch.arange(n) for n in shape)
    on_row = (y % factors[0] == 0)[:, None]
    return on_row & ((x - shift * (y // factors[0])[:, None]) % factors[1] == 0)


def largest_block(points: Tensor) -> int:
    """Points of the best block, by trying all of them."""
    shape = (points.shape[0], points.shape[1])
    sizes = [
        rows * columns
        for rows in range(shape[0] + 1)
        for columns in range(shape[1] + 1)
        if points[centred_block(shape, (rows, columns))].all()
    ]
    return max(sizes)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("block", [(1, 1), (2, 5), (6, 6), (7, 4), (20, 8)])
def test_a_block_is_found_again(shape: tuple[int, int], block: tuple[int, int]) -> None:
    assert find_acs(centred_block(shape, block)) == block


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("shape", [(7, 8), (8, 7), (1, 6), (6, 1)])
def test_no_block_is_larger(seed: int, shape: tuple[int, int]) -> None:
    points = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.8
    rows, columns = find_acs(points)
    assert points[centred_block(shape, (rows, columns))].all()
    assert rows * columns == largest_block(points)


@pytest.mark.parametrize("shape", SHAPES)
def test_full_and_empty_planes(shape: tuple[int, int]) -> None:
    full = find_pattern(torch.ones(shape, dtype=torch.bool))
    assert (full.acs, full.factors, full.whole_lines) == (shape, (1, 1), True)
    empty = find_pattern(torch.zeros(shape, dtype=torch.bool))
    assert (empty.acs, empty.factors, empty.n_samples) == ((0, 0), None, 0)


@pytest.mark.parametrize("shape", [(40, 48), (41, 48), (40, 47), (41, 47)])
@pytest.mark.parametrize(
    ("factors", "shift"), [((1, 2), 0), ((1, 4), 0), ((2, 2), 0), ((2, 2), 1), ((3, 1), 0),
                           ((1, 4), 2), ((2, 4), 1)],
)  # fmt: skip
@pytest.mark.parametrize("acs", [(0, 0), (10, 10)])
def test_a_lattice_is_found_outside_of_the_acs(
    shape: tuple[int, int], factors: tuple[int, int], shift: int, acs: tuple[int, int]
) -> None:
    points = lattice(shape, factors, shift) | centred_block(shape, acs)
    found = find_pattern(points)
    assert (found.factors, found.shift) == (factors, shift)
    if acs[0]:
        assert found.acs == acs or found.acs[0] * found.acs[1] > acs[0] * acs[1]


@pytest.mark.parametrize("acceleration", [2, 3, 4])
def test_lines_around_an_acs(acceleration: int) -> None:
    points = torch.zeros(32, 65, dtype=torch.bool)
    points[:, 1::acceleration] = True
    points[:, 32 - 6 : 32 + 6] = True
    found = find_pattern(points)
    assert found.whole_lines
    assert found.factors == (1, acceleration)
    assert found.acs[0] == 32
    assert 12 <= found.acs[1] <= 13


def test_partial_fourier_and_ellipses_are_no_undersampling() -> None:
    half = torch.zeros(30, 40, dtype=torch.bool)
    half[:, 15:] = True
    assert find_pattern(half).factors == (1, 1)
    y, x = (np.linspace(-1, 1, n) for n in (60, 72))
    ellipse = torch.from_numpy(np.hypot(y[:, None], x) <= 1)
    assert find_pattern(ellipse).factors == (1, 1)
    sparse = ellipse & (lattice((60, 72), (2, 2)) | centred_block((60, 72), (12, 12)))
    assert find_pattern(sparse).factors == (2, 2)


@pytest.mark.parametrize("name", ["variable_density", "poisson_disc", "random_points"])
def test_random_points_are_no_lattice(name: str) -> None:
    budget = Budget.of((64, 60), acceleration=4, acs="square", acs_size=12)
    found = find_pattern(FIXED_MASKS[name](budget, 0))
    assert found.factors is None
    assert found.acs[0] * found.acs[1] >= 144
    assert found.n_samples == budget.n_samples
