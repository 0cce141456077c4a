"""g-factors: against closed forms, dense matrices, and each other."""

import math

import pytest
import torch

from kscout.errors import UserError
from kscout.physics.coils import birdcage_coils, root_sum_of_squares
from kscout.physics.fourier import image_to_kspace
from kscout.physics.gfactor import (
    MOST_ALIASES,
    REGULARISATION,
    aliases,
    gfactor,
    gfactor_lattice,
    gfactor_monte_carlo,
    is_periodic,
    maps_from_images,
)

SHAPE = (12, 15)


def head(shape):
    y, x = (torch.linspace(-1, 1, n) for n in shape)
    return (y[:, None] / 0.9) ** 2 + (x / 0.75) ** 2 < 1


def coils(shape=SHAPE, n_coils=6):
    return birdcage_coils(shape, n_coils, radius=1.2) * head(shape)


def lattice(step_y, step_x, shift=0):
    """Points (step_y, step_x) apart, every row of them displaced by ``shift``."""
    mask = torch.zeros(SHAPE, dtype=torch.bool)
    for i, y in enumerate(range(0, SHAPE[0], step_y)):
        mask[y, (2 + i * shift) % step_x :: step_x] = True
    return mask


def tile(size_y, size_x, n_points):
    order = torch.randperm(size_y * size_x, generator=torch.Generator().manual_seed(3))
    one = (order < n_points).reshape(size_y, size_x)
    return one.repeat(SHAPE[0] // size_y, SHAPE[1] // size_x)


def scattered(fraction=0.4, shape=SHAPE):
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(5)) < fraction
    mask[shape[0] // 2 - 2 : shape[0] // 2 + 2, shape[1] // 2 - 2 : shape[1] // 2 + 2] = True
    return mask


def lines():
    """Whole lines, unevenly spaced."""
    mask = torch.zeros(SHAPE, dtype=torch.bool)
    mask[:, [0, 2, 6, 7, 8, 13]] = True
    return mask


PERIODIC = {
    "all": (torch.ones(SHAPE), 1),
    "2x1": (lattice(2, 1), 2),
    "2x3": (lattice(2, 3), 6),
    "caipirinha": (lattice(2, 3, shift=1), 6),
    "tile": (tile(3, 5, 7), 15),
    "lines": (lines(), 15),
}


def dense(maps, mask, regularisation):
    """g by the definition: the encoding matrix written out, its normal equations inverted."""
    maps = maps.to(torch.complex128)
    inside = root_sum_of_squares(maps) > 0
    n = int(inside.sum())
    pixels = torch.zeros((n, *mask.shape), dtype=torch.complex128)
    pixels[(torch.arange(n), *inside.nonzero().T)] = 1 / root_sum_of_squares(maps)[inside] + 0j
    encoding = (mask * image_to_kspace(maps * pixels[:, None])).flatten(1).T
    normal = mask.numel() / mask.sum() * encoding.mH @ encoding
    covariance = torch.cholesky_inverse(
        torch.linalg.cholesky(normal + regularisation * torch.eye(n))
    )
    g = torch.full(mask.shape, torch.nan, dtype=torch.float64)
    g[inside] = covariance.diagonal().real.sqrt()
    return g


@pytest.mark.parametrize("regularisation", [1e-9, 1e-3])
@pytest.mark.parametrize("name", PERIODIC)
def test_the_small_matrices_are_the_large_one(name, regularisation):
    maps, mask = coils(), PERIODIC[name][0]
    g = gfactor_lattice(maps, mask, regularisation=regularisation)
    expected = dense(maps, mask, regularisation)
    torch.testing.assert_close(g, expected, equal_nan=True, rtol=1e-4, atol=0)
    assert bool((g[head(SHAPE)] > 0.999).all())


def test_two_aliases_have_a_closed_form():
    """Two pixels whose coils agree by rho: g = 1 / sqrt(1 - |rho|^2), and 1 without a partner."""
    maps = coils((14, 9))
    mask = torch.zeros(14, 9)
    mask[1::2] = 1
    agreement = (maps.conj() * maps.roll(7, 1)).sum(0).abs().double()
    expected = (1 - agreement.square()).rsqrt().masked_fill(~head((14, 9)), torch.nan)
    g = gfactor_lattice(maps, mask, regularisation=1e-9)
    torch.testing.assert_close(g, expected, equal_nan=True, rtol=1e-4, atol=0)
    assert bool((g[head((14, 9))] > 1.05).any())
    assert bool(((g - 1).abs() < 1e-6).any())


def test_what_coils_cannot_resolve_is_at_the_ceiling():
    """One coil sees nothing but the mean over two aliases: their difference is unknown."""
    g = gfactor_lattice(torch.ones(1, *SHAPE), lattice(2, 1), regularisation=1e-4)
    expected = math.sqrt((1 / 1e-4 + 1 / (2 + 1e-4)) / 2)
    torch.testing.assert_close(g, torch.full(SHAPE, expected, dtype=torch.float64))


@pytest.mark.parametrize("name", PERIODIC)
def test_aliases_are_where_the_point_spread_function_may_be(name):
    mask, n_aliases = PERIODIC[name]
    found = aliases(mask)
    assert len(found) == n_aliases
    assert is_periodic(mask)
    assert [0, 0] in found.tolist()
    ky, kx = mask.nonzero().double().T
    for y in range(SHAPE[0]):
        for x in range(SHAPE[1]):
            wave = 2 * torch.pi * (ky * y / SHAPE[0] + kx * x / SHAPE[1])
            if abs(torch.polar(torch.ones_like(wave), wave).sum()) > 1e-6:
                assert [y, x] in found.tolist()


@pytest.mark.parametrize("shape", [(24, 22), (25, 24), (13, 40)])
def test_a_period_that_does_not_divide_the_plane_is_none(shape):
    mask = torch.zeros(shape)
    mask[::4, ::4] = 1
    assert len(aliases(mask)) == math.prod(n if n % 4 else 4 for n in shape)


def test_an_acs_breaks_the_period():
    mask = torch.zeros(24, 20)
    mask[::2, ::2] = 1
    assert len(aliases(mask)) == 4
    mask[10:14, 8:12] = 1
    assert len(aliases(mask)) == 480 > MOST_ALIASES
    assert not is_periodic(mask)
    with pytest.raises(UserError, match="480 pixels fold onto each other, valid is up to 256"):
        gfactor_lattice(coils((24, 20)), mask)


@pytest.mark.parametrize("mask", [lattice(2, 3, shift=1), lines(), scattered(0.15)])
def test_noise_scatters_as_the_matrices_say(mask):
    n_replicas = 600
    inside = head(SHAPE)
    g = gfactor_monte_carlo(coils(), mask, seed=0, n_replicas=n_replicas)
    expected = dense(coils(), mask, REGULARISATION)
    assert torch.equal(g.isnan(), ~inside)
    error = (g / expected - 1)[inside]
    uncertainty = 0.5 / math.sqrt(n_replicas)
    assert abs(float(error.mean())) < uncertainty
    assert float(error.std()) == pytest.approx(uncertainty, rel=0.3)
    assert float(expected[inside].std()) > 4 * uncertainty  # there is something to agree on


def test_hard_masks_are_solved_with_the_iterations_that_are_spent():
    """Low frequencies alone: g is near its ceiling, where plain CG would stop far short."""
    mask = torch.zeros(24, 27)
    mask[8:17, 9:19] = 1
    maps, inside = coils((24, 27), 8), head((24, 27))
    g = gfactor_monte_carlo(maps, mask, seed=1, n_replicas=100)[inside]
    expected = dense(maps, mask, REGULARISATION)[inside]
    assert float(expected.mean()) > 10
    assert float(g.mean() / expected.mean()) == pytest.approx(1, abs=0.03)


def test_the_way_is_picked_by_the_mask():
    maps, regular = coils(), lattice(2, 3)
    assert torch.equal(
        gfactor(maps, regular, seed=0)[head(SHAPE)], gfactor_lattice(maps, regular)[head(SHAPE)]
    )
    shape = (24, 20)
    maps, mask, inside = coils(shape), scattered(shape=shape), head(shape)
    state = torch.get_rng_state()
    one, same, other = (gfactor(maps, mask, seed=seed)[inside] for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_neither_the_image_nor_the_scale_of_the_maps_matters():
    generator = torch.Generator().manual_seed(2)
    image = torch.randn(SHAPE, dtype=torch.complex64, generator=generator)
    image = 1e-4 * (image + 3 * image / image.abs())
    mask, inside = lattice(2, 3, shift=1), head(SHAPE)
    one, other = (gfactor_lattice(maps, mask) for maps in (coils(), coils() * image))
    torch.testing.assert_close(one, other, equal_nan=True, rtol=1e-4, atol=0)
    noisy = gfactor_monte_carlo(coils() * image, mask, seed=0, n_replicas=200)
    assert float((noisy / one)[inside].mean()) == pytest.approx(1, abs=0.02)


def test_maps_are_the_coil_images_over_their_root_sum_of_squares():
    generator = torch.Generator().manual_seed(2)
    image = torch.randn(SHAPE, dtype=torch.complex64, generator=generator)
    image[6, 7] = 0  # a void inside the object
    maps = maps_from_images(birdcage_coils(SHAPE, 5) * image, head(SHAPE))
    inside = head(SHAPE) & (image != 0)
    torch.testing.assert_close(root_sum_of_squares(maps), inside.float())
    expected = birdcage_coils(SHAPE, 5) * image / image.abs()
    torch.testing.assert_close(maps[:, inside], expected[:, inside])


@pytest.mark.parametrize("way", [gfactor_monte_carlo, gfactor])
def test_maps_that_do_not_fit_are_one_line(way):
    for maps in (coils((12, 14)), coils()[0]):
        with pytest.raises(UserError, match=r"do not fit a mask of .*valid is \(coil, 12, 15\)"):
            way(maps, lattice(2, 3), seed=0)
    with pytest.raises(UserError, match="acquires no point"):
        way(coils(), torch.zeros(SHAPE), seed=0)
