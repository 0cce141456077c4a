import numpy as np
import pytest
import torch

from kscout.physics.fourier import (
    fast_length,
    image_to_kspace,
    kspace_to_image,
    plane_fft,
    plane_ifft,
)

SHAPES = [(7, 10), (8, 5), (1, 9), (121, 145)]


def random(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.complex128, generator=generator)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_pair_is_inverse_and_unitary(shape):
    image, kspace = random(2, 3, *shape), random(2, 3, *shape, seed=1)
    torch.testing.assert_close(kspace_to_image(image_to_kspace(image)), image)
    torch.testing.assert_close(image_to_kspace(kspace_to_image(kspace)), kspace)
    left = torch.vdot(kspace.flatten(), image_to_kspace(image).flatten())
    right = torch.vdot(kspace_to_image(kspace).flatten(), image.flatten())
    torch.testing.assert_close(left, right)
    torch.testing.assert_close(image_to_kspace(image).norm(), image.norm())


@pytest.mark.parametrize("shape", SHAPES)
def test_both_spaces_are_centred_on_half_the_length(shape):
    """Against the sum that defines the transform."""
    image = random(*shape)
    waves = []
    for n in shape:
        centred = np.arange(n) - n // 2
        waves.append(np.exp(-2j * np.pi * np.outer(centred, centred) / n) / np.sqrt(n))
    expected = waves[0] @ image.numpy() @ waves[1].T
    np.testing.assert_allclose(image_to_kspace(image).numpy(), expected, atol=1e-10)
    point = torch.zeros(shape, dtype=torch.complex64)
    point[shape[0] // 2, shape[1] // 2] = 1
    flat = torch.full(shape, (shape[0] * shape[1]) ** -0.5, dtype=torch.complex64)
    torch.testing.assert_close(image_to_kspace(point), flat)
    torch.testing.assert_close(kspace_to_image(point), flat)


@pytest.mark.parametrize("shape", SHAPES)
def test_dtype_and_gradient_pass_through(shape):
    image = random(*shape).to(torch.complex64).requires_grad_()
    kspace = image_to_kspace(image)
    assert kspace.dtype == torch.complex64
    weights = random(*shape, seed=1).to(torch.complex64)
    (kspace * weights.conj()).real.sum().backward()
    torch.testing.assert_close(image.grad, kspace_to_image(weights))


def test_the_plane_transform_pads_and_convolves():
    x, kernel = random(2, 7, 10), random(2, 3, 5, seed=1)
    plane = (fast_length(7 + 2), fast_length(10 + 4))
    product = plane_fft(x, plane) * plane_fft(kernel, plane)
    full = plane_ifft(product)
    expected = torch.zeros(2, 9, 14, dtype=x.dtype)
    for i in range(3):
        for j in range(5):
            expected[:, i : i + 7, j : j + 10] += kernel[:, i, j, None, None] * x
    torch.testing.assert_close(full[:, :9, :14], expected)
    torch.testing.assert_close(full[..., 14:], torch.zeros_like(full[..., 14:]), atol=1e-10, rtol=0)


@pytest.mark.parametrize("n", [1, 7, 121, 145, 251, 1021])
def test_fast_lengths_are_long_enough_and_smooth(n):
    length = fast_length(n)
    assert n <= length <= 2 * n
    for prime in (2, 3, 5):
        while length % prime == 0:
            length //= prime
    assert length == 1
