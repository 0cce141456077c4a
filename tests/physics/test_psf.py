"""Point-spread functions and densities, against sums written out."""

import math

import numpy as np
import pytest
import torch

from kscout.errors import UserError
from kscout.physics.fourier import image_to_kspace, kspace_to_image
from kscout.physics.psf import point_spread, radial_density, sidelobe_ratio

SHAPES = [(7, 10), (12, 9), (1, 16), (33, 28)]


def random_mask(shape, fraction=0.3, seed=0):
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < fraction
    mask[0, 0] = True
    return mask


@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_the_sum_of_the_waves_that_were_acquired(shape):
    mask = random_mask(shape)
    spread = point_spread(mask)
    ky, kx = (index.numpy() - n // 2 for index, n in zip(mask.nonzero().T, shape, strict=True))
    for y in range(0, shape[0], 3):
        for x in range(shape[1]):
            away = ky * (y - shape[0] // 2) / shape[0] + kx * (x - shape[1] // 2) / shape[1]
            assert complex(spread[y, x]) == pytest.approx(
                np.exp(2j * np.pi * away).mean(), abs=1e-9
            )
    assert complex(spread[shape[0] // 2, shape[1] // 2]) == pytest.approx(1)


def test_a_zero_filled_image_is_the_true_one_convolved_with_it():
    shape, generator = (7, 10), torch.Generator().manual_seed(1)
    mask = random_mask(shape)
    image = torch.randn(shape, dtype=torch.complex128, generator=generator)
    spread = point_spread(mask) * mask.float().mean()
    convolved = sum(
        image[y, x] * spread.roll((y - shape[0] // 2, x - shape[1] // 2), (0, 1))
        for y in range(shape[0])
        for x in range(shape[1])
    )
    torch.testing.assert_close(
        convolved, kspace_to_image(image_to_kspace(image) * mask), atol=1e-7, rtol=1e-6
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_all_points_leave_a_single_pixel(shape):
    full = torch.ones(shape)
    expected = torch.zeros(shape, dtype=torch.complex128)
    expected[shape[0] // 2, shape[1] // 2] = 1
    torch.testing.assert_close(point_spread(full), expected)
    assert sidelobe_ratio(full) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("step_y", "step_x"), [(2, 3), (1, 2), (6, 9)])
def test_a_lattice_has_ghosts_as_bright_as_the_object(step_y, step_x):
    mask = torch.zeros(12, 18)
    mask[1::step_y, 2::step_x] = 1
    assert int((point_spread(mask).abs() > 1 - 1e-6).sum()) == step_y * step_x
    assert sidelobe_ratio(mask) == pytest.approx(1)


@pytest.mark.parametrize("n_lines", [4, 7, 20])
def test_of_a_block_of_lines_it_is_that_of_the_dirichlet_kernel(n_lines):
    mask = torch.zeros(5, 64)
    mask[:, 32 - n_lines // 2 : 32 - n_lines // 2 + n_lines] = 1
    x = np.arange(1, 33)
    kernel = np.abs(np.sin(np.pi * n_lines * x / 64) / (n_lines * np.sin(np.pi * x / 64)))
    end = int(np.flatnonzero(np.diff(kernel) > 0)[0])  # where the main lobe stops to fall
    assert sidelobe_ratio(mask) == pytest.approx(kernel[end:].max(), rel=1e-6)
    assert kernel[end:].max() < kernel[0]  # next to the centre is blur, not a side lobe


@pytest.mark.parametrize("seed", range(3))
def test_of_scattered_points_it_is_all_but_the_centre_wherever_the_mask_lies(seed):
    mask = random_mask((33, 28), 0.2, seed)
    size = point_spread(mask).abs()
    size[16, 14] = 0
    assert sidelobe_ratio(mask) == pytest.approx(float(size.max()))
    assert sidelobe_ratio(mask.roll((5, -9), (0, 1))) == pytest.approx(sidelobe_ratio(mask))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_density_counts_points_on_rings(shape):
    mask, n_bins = random_mask(shape, 0.5), 6
    middle, fraction = radial_density(mask, n_bins)
    width = math.sqrt(2) / n_bins
    rings = {ring: [] for ring in range(n_bins)}
    for y in range(shape[0]):
        for x in range(shape[1]):
            away = [(i - n // 2) / max(n / 2, 1) for i, n in zip((y, x), shape, strict=True)]
            rings[min(int(math.hypot(*away) / width + 1e-9), n_bins - 1)].append(bool(mask[y, x]))
    expected = [np.mean(points) if points else math.nan for points in rings.values()]
    np.testing.assert_allclose(fraction.numpy(), expected)
    np.testing.assert_allclose(middle.numpy(), (np.arange(n_bins) + 0.5) * width)


def test_the_rings_of_a_full_mask_are_full_and_the_same_on_every_plane():
    middles, fractions = zip(*(radial_density(torch.ones(n, n + 1)) for n in (9, 40)), strict=True)
    assert torch.equal(*middles)
    for fraction in fractions:
        assert set(fraction[~fraction.isnan()].tolist()) == {1.0}
    assert bool(fractions[0].isnan().any())  # a small plane has no point on some rings
    assert not bool(fractions[1][:-1].isnan().any())


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.zeros(4, 5), "acquires no point"),
        (torch.full((4, 5), 0.5), "not binary"),
        (torch.full((4, 5), torch.nan), "not binary"),
        (torch.ones(2, 4, 5), r"shape \(2, 4, 5\)"),
    ],
)
def test_what_is_no_mask_is_refused(mask, message):
    for function in (point_spread, sidelobe_ratio, radial_density):
        with pytest.raises(UserError, match=message):
            function(mask)
