"""The proximal step of joint sparsity."""

import numpy as np
import pytest
import pywt
import torch

from kscout.classical.wavelets import WAVELET, shrink
from laws import complex_normal

SHAPES = [(2, 48, 33), (1, 4, 40, 64), (3, 17, 5)]


@pytest.mark.parametrize("shape", SHAPES)
def test_without_a_threshold_nothing_changes(shape: tuple[int, ...]) -> None:
    x = complex_normal(shape)
    torch.testing.assert_close(shrink(x, 0.0, (3, 5)), x, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_it_brings_images_nearer_to_each_other(shape: tuple[int, ...]) -> None:
    """As every proximal step does."""
    x, y = complex_normal(shape, 1), complex_normal(shape, 2)
    assert (shrink(x, 0.7) - shrink(y, 0.7)).norm() <= (x - y).norm()
    assert shrink(x, 0.7).norm() < 0.9 * x.norm()


def test_what_it_takes_of_noise_grows_with_the_threshold() -> None:
    x = complex_normal((2, 64, 64))
    left = [float(shrink(x, threshold).norm()) for threshold in (0.0, 0.5, 1.0, 2.0, 4.0)]
    assert left == sorted(left, reverse=True)
    assert left[-1] < 0.3 * left[0]


def test_coils_keep_a_point_for_each_other() -> None:
    """What is large in one coil is kept in the other, where alone it would be lost."""
    x = torch.zeros(2, 64, 64, dtype=torch.complex64)
    x[0, 20:40, 20:40], x[1, 20:40, 20:40] = 10, 0.5
    together, alone = shrink(x, 1.0)[1], shrink(x[1:], 1.0)[0]
    assert (together - x[1]).norm() < 0.8 * (alone - x[1]).norm()


def test_a_shift_of_the_image_is_one_of_the_basis() -> None:
    x = complex_normal((2, 64, 48))
    moved = shrink(x.roll((3, 5), (-2, -1)), 0.5)
    torch.testing.assert_close(shrink(x, 0.5, (3, 5)), moved.roll((-3, -5), (-2, -1)))


@pytest.mark.parametrize("shift", [(0, 0), (3, 5)])
def test_it_is_the_proximal_step(shift: tuple[int, int]) -> None:
    """No other image has less of half the squared distance plus the penalty."""
    x, threshold = complex_normal((3, 32, 64)), 0.8

    def cost(image: torch.Tensor) -> float:
        moved = image.roll(shift, (-2, -1)).to(torch.complex128).numpy()
        _, *details = pywt.wavedecn(moved, WAVELET, mode="periodization", level=1, axes=(-2, -1))
        norms = sum(
            float(np.sqrt((abs(values) ** 2).sum(0)).sum())
            for detail in details
            for values in detail.values()
        )
        return 0.5 * float((image - x).norm()) ** 2 + threshold * norms

    found = shrink(x, threshold, shift)
    least = cost(found)
    for seed in range(20):
        for step in (1e-2, 0.3):
            assert cost(found + step * complex_normal((3, 32, 64), seed)) > least
    for toward in (x, torch.zeros_like(x)):
        assert cost(0.95 * found + 0.05 * toward) > least
