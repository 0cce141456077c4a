"""Laws of every fixed mask, and what makes each the pattern that its name says."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from kscout.errors import UserError
from kscout.sampling.budget import AcsKind, Budget, squared_radius
from kscout.sampling.fixed import (
    FIXED_MASKS,
    _throw,
    alias_distances,
    best_shift,
    caipirinha,
    from_file,
    lattice,
    lattice_count,
    low_frequency,
    poisson_disc,
    random_tile,
    squarest_factors,
    uniform_2d,
    uniform_lines,
    variable_density,
)
from kscout.sampling.tiles import repeat_tile
from laws import exact_budget

KINDS = sorted(FIXED_MASKS.keys() - {"file"})
RANDOM = ["poisson_disc", "random_points", "random_tile", "variable_density"]
SHAPES = [(28, 28), (121, 145), (7, 30), (5, 1)]
ACS: list[tuple[AcsKind, int]] = [
    ("none", 0),
    ("square", 1),
    ("square", 5),
    ("lines", 1),
    ("lines", 3),
]


def make(kind: str, budget: Budget, seed: int = 0) -> torch.Tensor:
    small = min(budget.shape) < 4
    options = {"tile": (2, 1)} if kind == "random_tile" and small else {}
    return FIXED_MASKS[kind](budget, seed, **options)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_mask_spends_its_budget_exactly(kind: str, shape: tuple[int, int]) -> None:
    n_tested = 0
    for acceleration in (1, 2, 3.3, 4, 8):
        for acs, size in ACS:
            try:
                budget = Budget.of(shape, acceleration=acceleration, acs=acs, acs_size=size)
            except UserError:  # an ACS, or an acceleration, that this plane cannot have
                continue
            mask = make(kind, budget)
            assert mask.dtype == torch.bool
            assert mask.shape == shape
            assert int(mask.sum()) == budget.n_samples
            assert mask[budget.acs].all()
            n_tested += 1
    assert n_tested >= 5


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_decides_random_masks_and_nothing_else(kind: str) -> None:
    budget = Budget.of((28, 31), acceleration=4, acs="square", acs_size=4)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = make(kind, budget, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    assert torch.equal(first, make(kind, budget, seed=1))
    others = [make(kind, budget, seed) for seed in range(2, 6)]
    assert all(torch.equal(first, other) for other in others) == (kind not in RANDOM)


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {*RANDOM} | {"random_tile"}))
def test_regular_masks_acquire_dc(kind: str) -> None:
    for shape in SHAPES:
        mask = make(kind, Budget.of(shape, acceleration=4), seed=3)
        assert mask[shape[0] // 2, shape[1] // 2]


# Lattices


@pytest.mark.parametrize(("factors", "shift"), [((2, 2), 1), ((1, 5), 2), ((3, 2), 0), ((2, 4), 3)])
def test_a_lattice_is_a_repeated_tile_and_goes_through_dc(
    factors: tuple[int, int], shift: int
) -> None:
    tile = torch.zeros(factors[0] * factors[1], factors[1], dtype=torch.bool)
    for step in range(factors[1]):
        tile[step * factors[0], step * shift % factors[1]] = True
    for shape in [(121, 145), (28, 30)]:
        points = lattice(shape, factors, shift)
        assert points[shape[0] // 2, shape[1] // 2]
        assert torch.equal(points, repeat_tile(tile, shape))


@pytest.mark.parametrize("shape", [(28, 32), (16, 40)])
def test_caipirinha_on_a_plane_that_the_factors_divide(shape: tuple[int, int]) -> None:
    mask = caipirinha(Budget.of(shape, acceleration=4), 0)
    rows, columns = mask.sum(1), mask.sum(0)
    assert set(rows.tolist()) == {0, shape[1] // 2}  # every second row, half of its points
    assert (columns == shape[0] // 4).all()  # and that is all columns, alike
    assert torch.equal(mask, lattice(shape, (2, 2), 1))


def test_caipirinha_factors_and_shift() -> None:
    assert [squarest_factors(r) for r in (1, 2, 4, 6, 7, 8, 12)] == [
        (1, 1),
        (1, 2),
        (2, 2),
        (2, 3),
        (1, 7),
        (2, 4),
        (3, 4),
    ]
    assert [best_shift(f) for f in ((2, 2), (1, 3), (1, 5), (2, 4), (4, 1))] == [1, 1, 2, 2, 0]


@pytest.mark.parametrize("factors", [(2, 2), (1, 8), (1, 13), (2, 4), (4, 2), (3, 3)])
def test_the_chosen_shift_keeps_aliases_farthest(factors: tuple[int, int]) -> None:
    """Against the aliases of the lattice's own Fourier transform, over every shift."""
    total = factors[0] * factors[1]

    def aliases(shift: int) -> list[int]:
        # The transform of a lattice over one period is the lattice of its aliases.
        points = lattice((total, total), factors, shift).roll(
            (-(total // 2), -(total // 2)), (0, 1)
        )
        y, x = (torch.fft.ifft2(points.double()).abs() > 1e-9).nonzero(as_tuple=True)
        squared = torch.minimum(y, total - y) ** 2 + torch.minimum(x, total - x) ** 2
        return sorted(squared.tolist())[1:]

    found = {shift: aliases(shift) for shift in range(factors[1])}
    assert all(found[shift] == alias_distances(factors, shift) for shift in found)
    assert found[best_shift(factors)] == max(found.values())


def test_a_budget_of_the_lattices_own_count_is_the_whole_lattice() -> None:
    shape = (121, 145)
    assert lattice_count(shape, (2, 2)) == 31 * 73 + 30 * 72
    assert lattice_count(shape, (2, 2), shift=0) == 61 * 73
    for factors in [(2, 2), (1, 4), (3, 5)]:
        budget = Budget.of(shape, n_samples=lattice_count(shape, factors))
        whole = lattice(shape, factors, best_shift(factors))
        assert torch.equal(caipirinha(budget, 0, factors=factors), whole)
    budget = Budget.of((7, 30), n_samples=lattice_count((7, 30), (3, 4), 0))
    assert torch.equal(uniform_2d(budget, 0, factors=(3, 4)), lattice((7, 30), (3, 4), 0))


def test_uniform_2d_crosses_rows_and_columns() -> None:
    mask = uniform_2d(Budget.of((28, 24), acceleration=6), 0)
    rows, columns = mask.any(1), mask.any(0)
    assert rows.sum() == 14
    assert columns.sum() == 8
    assert torch.equal(mask, rows[:, None] & columns[None, :])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"factors": (2, 3)}, "factors 2x3 do not suit .*must multiply to 4"),
        ({"factors": (-2, -2)}, "factors -2x-2 are impossible"),
        ({"factors": (4, 1), "shift": 1}, "shift 1 is impossible .*valid is 0 to 0"),
        ({"shift": -1}, "shift -1 is impossible .*valid is 0 to 1"),
    ],
)
def test_bad_lattices_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        caipirinha(Budget.of((121, 145), acceleration=4), 0, **options)  # type: ignore[arg-type]


# Lines


@pytest.mark.parametrize(("n_columns", "period"), [(28, 4), (30, 4), (145, 4), (145, 3), (9, 8)])
def test_lines_at_integer_acceleration_are_a_lattice(n_columns: int, period: int) -> None:
    shape = (11, n_columns)
    whole = lattice(shape, (1, period), 0)
    own_count = uniform_lines(Budget.of(shape, n_samples=int(whole.sum())), 0)
    assert torch.equal(own_count, whole)
    mask = uniform_lines(Budget.of(shape, acceleration=period), 0)
    assert not ((mask & ~whole).any() and (whole & ~mask).any())  # only dropped, or only added


@pytest.mark.parametrize(("n_lines", "n_acs"), [(8, 0), (11, 0), (8, 1), (9, 4), (12, 5), (29, 3)])
def test_lines_are_whole_and_evenly_spaced(n_lines: int, n_acs: int) -> None:
    acs: AcsKind = "lines" if n_acs else "none"
    budget = Budget.of((7, 30), n_lines=n_lines, acs=acs, acs_size=n_acs)
    mask = uniform_lines(budget, 0)
    lines = mask[0]
    assert torch.equal(mask, lines.expand(7, -1))
    assert int(lines.sum()) == n_lines
    places = lines.nonzero().flatten().tolist()
    gaps = [b - a for a, b in zip(places, [*places[1:], places[0] + 30], strict=True)]
    gaps = sorted(gaps)[max(n_acs - 1, 0) :]  # those inside the ACS are 1
    assert gaps[-1] - gaps[0] <= 1


def test_lines_of_a_broken_budget_leave_out_points_at_the_edge_only() -> None:
    budget = Budget.of((7, 30), n_samples=7 * 9 - 3, acs="lines", acs_size=4)
    mask = uniform_lines(budget, 0)
    assert int(mask.any(0).sum()) <= 9
    whole = mask.any(0).expand(7, -1)
    radius = squared_radius((7, 30))
    assert radius[whole & ~mask].min() >= radius[mask & ~budget.acs].max()


# Random masks


def test_random_tile_repeats_its_points() -> None:
    mask = random_tile(Budget.of((24, 30), acceleration=5), 3, tile=(4, 5))
    tile = mask[12:16, 15:20]  # from DC
    assert int(tile.sum()) == 4
    assert torch.equal(repeat_tile(tile, (24, 30)), mask)


def test_random_tile_larger_than_the_plane_is_refused() -> None:
    with pytest.raises(UserError, match="tile of 4x4 does not fit a plane of 7x3"):
        random_tile(Budget.of((7, 3), acceleration=2), 0)


def test_variable_density_follows_its_power() -> None:
    budget = Budget.of((64, 65), acceleration=8)
    radius = squared_radius(budget.shape).sqrt()

    def mean_radius(power: float) -> float:
        return float(radius[variable_density(budget, 0, power=power)].mean())

    assert mean_radius(0) == pytest.approx(float(radius.mean()), rel=0.05)
    assert mean_radius(0) > mean_radius(1) > mean_radius(3) > mean_radius(8)


def test_variable_density_weighs_points_by_the_density() -> None:
    """One draw of many: the first point lands in proportion to (1 - r)^power."""
    budget = Budget.of((4, 5), n_samples=1)
    n_draws = 4000
    counts = sum(variable_density(budget, seed, power=2).double() for seed in range(n_draws))
    density = (1 - squared_radius((4, 5)).sqrt()).clamp(min=0) ** 2
    expected = n_draws * density / density.sum()
    assert torch.is_tensor(counts)
    assert ((counts - expected).abs() <= 5 * expected.sqrt()).all()


def test_variable_density_reaches_the_corners_last() -> None:
    shape = (24, 24)
    inside = squared_radius(shape) < 1
    mask = variable_density(Budget.of(shape, n_samples=int(inside.sum()) + 20), 0)
    assert mask[inside].all()
    assert int(mask[~inside].sum()) == 20


@pytest.mark.parametrize("slope", [0.0, 0.7, 2.0])
def test_darts_keep_their_distance_until_the_plane_is_full(slope: float) -> None:
    shape = (23, 38)
    spacing = 2.3 * (1 + slope * squared_radius(shape).sqrt().flatten())
    darts = torch.randperm(23 * 38, generator=torch.Generator().manual_seed(0)).numpy()
    kept = torch.from_numpy(_throw(darts, spacing.numpy(), shape, 23 * 38))
    places = torch.cartesian_prod(*(torch.arange(n, dtype=torch.float64) for n in shape))
    distance = torch.cdist(places, places[kept])
    assert (distance[kept] + 100 * torch.eye(len(kept)) >= closest_allowed(spacing[kept])).all()
    assert (distance < spacing[kept]).any(1).all()  # no place is left that no disc covers
    some = torch.from_numpy(_throw(darts, spacing.numpy(), shape, 9))
    assert torch.equal(some, kept[:9])


def closest_allowed(spacing: torch.Tensor) -> torch.Tensor:
    return torch.minimum(spacing[:, None], spacing[None, :])


@pytest.mark.parametrize("slope", [0.0, 0.7, 2.0])
@pytest.mark.parametrize("acs", ["none", "square"])
def test_poisson_disc_points_keep_away_from_each_other(slope: float, acs: AcsKind) -> None:
    budget = Budget.of((41, 64), acceleration=8, acs=acs, acs_size=6)

    def scale(mask: torch.Tensor) -> float:
        """The largest scale at which the points outside the ACS keep their distance."""
        spacing = 1 + slope * squared_radius(budget.shape).sqrt()[mask & ~budget.acs]
        points = (mask & ~budget.acs).nonzero().double()
        distance = torch.cdist(points, points) + 100 * torch.eye(len(points))
        return float((distance / closest_allowed(spacing)).min())

    found = scale(poisson_disc(budget, 1, slope=slope))
    assert found > 1.5 * scale(FIXED_MASKS["random_points"](budget, 1))
    if slope == 0:
        assert found > 2.2  # the jamming limit of random discs, 0.83 sqrt(R), is 2.36


def test_low_frequency_is_what_is_nearest_to_dc() -> None:
    mask = low_frequency(Budget.of((7, 30), n_samples=50), 0)
    radius = squared_radius((7, 30))
    assert radius[mask].max() <= radius[~mask].min()


# Masks from files


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.float32])
def test_a_mask_comes_back_from_its_file(tmp_path: Path, dtype: type) -> None:
    budget = Budget.of((7, 30), acceleration=4, acs="square", acs_size=3)
    mask = variable_density(budget, 0)
    np.save(tmp_path / "mask.npy", mask.numpy().astype(dtype))
    assert torch.equal(from_file(budget, 0, path=tmp_path / "mask.npy"), mask)


def write_good(path: Path) -> np.ndarray:
    mask = np.zeros((7, 30), dtype=np.uint8)
    mask.flat[:50] = 1
    np.save(path, mask)
    return mask


BAD: dict[str, Callable[[Path, np.ndarray], object]] = {
    "does not exist": lambda path, mask: path.unlink(),
    "cannot read": lambda path, mask: path.write_bytes(path.read_bytes()[:-9]),
    "cannot read mask": lambda path, mask: path.write_bytes(path.read_bytes()[:20]),
    "cannot read mask file": lambda path, mask: path.write_bytes(b""),
    "as .npy": lambda path, mask: path.write_bytes(b"\x89PNG\r\n\x1a\n not an array"),
    "as .npy: ": lambda path, mask: path.write_bytes(b"PK\x03\x04 not an archive"),
    "objects": lambda path, mask: np.save(path, np.array([{}, 1], dtype=object)),
    "archive": lambda path, mask: np.savez(path.open("wb"), mask=mask),
    r"has shape \(30, 7\): valid is \(7, 30\)": lambda path, mask: np.save(path, mask.T),
    "is not binary": lambda path, mask: np.save(path, 2 * mask),
    r"\(float64\) is not binary": lambda path, mask: np.save(path, mask / 0.7),
    r"\(<U3\) is not binary": lambda path, mask: np.save(path, mask.astype(str)),
    "has 160 points, but the budget is 50": lambda path, mask: np.save(path, 1 - mask),
    "lacks 9 of the 9 points of the ACS": lambda path, mask: None,
}


@pytest.mark.parametrize("message", BAD)
def test_bad_files_are_refused_in_one_line(tmp_path: Path, message: str) -> None:
    path = tmp_path / "mask.npy"
    mask = write_good(path)
    BAD[message](path, mask)
    budget = Budget.of((7, 30), n_samples=50, acs="square", acs_size=3)
    with pytest.raises(UserError, match=message) as error:
        from_file(budget, 0, path=path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_header_that_promises_too_much_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "mask.npy"
    write_good(path)
    path.write_bytes(path.read_bytes().replace(b"(7, 30), }      ", b"(7, 3000000000)}"))
    with pytest.raises(UserError, match="cannot read"):
        from_file(Budget.of((7, 30), n_samples=50), 0, path=path)


@pytest.mark.parametrize("kind", ["variable_density", "low_frequency"])
def test_lines_are_whole_columns(kind: str) -> None:
    budget = Budget.of((13, 24), n_lines=8, acs="lines", acs_size=3)
    mask = FIXED_MASKS[kind](budget, 0, lines=True)
    exact_budget(mask, budget)
    assert torch.equal(mask, mask[:1].expand(13, 24))
    with pytest.raises(UserError, match="whole columns"):
        FIXED_MASKS[kind](Budget.of((13, 24), n_samples=50), 0, lines=True)
