"""The product per pixel against the convolution that it stands for."""

from typing import get_args

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

import laws
from kscout.physics.spirit import (
    Boundary,
    SpiritOperator,
    correlate,
    kernel_response,
    transform_shape,
)
from laws import complex_normal

BOUNDARIES: tuple[Boundary, ...] = get_args(Boundary)
PLANES = [((13, 10), (3, 3)), ((13, 10), (7, 5)), ((9, 16), (1, 7)), ((121, 145), (5, 5))]


def direct(x: Tensor, kernel: Tensor, boundary: Boundary) -> Tensor:
    """The sum over neighbours, as four real convolutions."""
    half_y, half_x = kernel.shape[2] // 2, kernel.shape[3] // 2
    mode = "constant" if boundary == "zero" else "circular"
    re, im = (pad(part, (half_x, half_x, half_y, half_y), mode=mode) for part in (x.real, x.imag))
    return torch.complex(
        conv2d(re, kernel.real) - conv2d(im, kernel.imag),
        conv2d(re, kernel.imag) + conv2d(im, kernel.real),
    )


def correlated(x: Tensor, kernel: Tensor, boundary: Boundary, keep: Tensor | None = None) -> Tensor:
    shape, size = (x.shape[-2], x.shape[-1]), (kernel.shape[-2], kernel.shape[-1])
    response = kernel_response(kernel, transform_shape(shape, size, boundary))
    return correlate(x, response, torch.ones(shape) if keep is None else keep)


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize(("shape", "size"), PLANES)
def test_it_is_the_direct_convolution(
    shape: tuple[int, int], size: tuple[int, int], boundary: Boundary
) -> None:
    x, kernel = complex_normal((2, 3, *shape)), complex_normal((4, 3, *size), seed=1)
    expected = direct(x.to(torch.complex128), kernel.to(torch.complex128), boundary)
    result = correlated(x, kernel, boundary)
    assert result.dtype == torch.complex64
    assert laws.relative_error(result, expected) < 1e-5
    keep = (torch.arange(x[:, :1].numel()).reshape(2, 1, *shape) % 3 > 0).float()
    assert laws.relative_error(correlated(x, kernel, boundary, keep), expected * keep) < 1e-5


@pytest.mark.parametrize("size", [(7, 7), (9, 3), (1, 11)])
def test_a_kernel_larger_than_the_plane_never_wraps(size: tuple[int, int]) -> None:
    x = complex_normal((1, 2, 4, 3), dtype=torch.complex128)
    kernel = complex_normal((2, 2, *size), seed=1, dtype=torch.complex128)
    assert laws.relative_error(correlated(x, kernel, "zero"), direct(x, kernel, "zero")) < 1e-12


def test_one_weight_reads_the_neighbour_on_its_side() -> None:
    """Offset (+1, -2) reads the point one row below and two columns to the left."""
    x = complex_normal((1, 1, 5, 6), dtype=torch.complex128)
    kernel = torch.zeros((1, 1, 3, 5), dtype=torch.complex128)
    kernel[0, 0, 1 + 1, 2 - 2] = 1
    expected = torch.zeros_like(x)
    expected[..., :-1, 2:] = x[..., 1:, :-2]
    torch.testing.assert_close(correlated(x, kernel, "zero"), expected)
    torch.testing.assert_close(correlated(x, kernel, "periodic"), x.roll((-1, 2), (-2, -1)))


@pytest.mark.parametrize("length", range(1, 40))
@pytest.mark.parametrize("size", [1, 3, 11])
def test_the_transform_pads_by_half_a_kernel_or_more(length: int, size: int) -> None:
    assert transform_shape((length, 7), (size, 1), "zero")[0] >= length + size // 2
    assert transform_shape((length, 7), (size, 9), "periodic") == (length, 7)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_linear_and_its_gradient_is_the_adjoint(boundary: Boundary) -> None:
    kernel = complex_normal((2, 3, 5, 3), seed=3, dtype=torch.complex128)
    keep = (torch.arange(130).reshape(13, 10) % 3 > 0).double()

    def forward(x: Tensor) -> Tensor:
        return correlated(x, kernel, boundary, keep)

    def backward(y: Tensor) -> Tensor:
        x = torch.zeros((2, 3, 13, 10), dtype=y.dtype, requires_grad=True)
        (gradient,) = torch.autograd.grad(forward(x), x, y)
        return gradient

    laws.linear(forward, (2, 3, 13, 10))
    laws.adjoint(forward, backward, (2, 3, 13, 10), (2, 2, 13, 10))


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_the_adjoint_matrices_are_the_adjoint(boundary: Boundary) -> None:
    """With no kernel turned around: padding and cropping are each other's adjoint."""
    plane = transform_shape((13, 10), (5, 3), boundary)
    response = kernel_response(complex_normal((3, 2, 5, 3), 0, torch.complex128), plane)
    keep = torch.ones(1, 1, dtype=torch.float64)
    laws.adjoint(
        lambda x: correlate(x, response, keep),
        lambda y: correlate(y, response.mH.resolve_conj(), keep),
        (2, 2, 13, 10),
        (2, 3, 13, 10),
    )


@pytest.mark.parametrize("keep_shape", [(5, 4), (2, 1, 5, 4)])
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_gradients_of_every_argument(boundary: Boundary, keep_shape: tuple[int, ...]) -> None:
    x = complex_normal((2, 2, 5, 4), dtype=torch.complex128)
    plane = transform_shape((5, 4), (3, 3), boundary)
    response = complex_normal((*plane, 2, 3), seed=1, dtype=torch.complex128)
    keep = torch.rand(keep_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    arguments = [argument.requires_grad_() for argument in (x, response, keep)]
    assert torch.autograd.gradcheck(correlate, arguments, fast_mode=True)
    kernel = complex_normal((3, 2, 3, 3), seed=3, dtype=torch.complex128).requires_grad_()
    assert torch.autograd.gradcheck(lambda g: kernel_response(g, plane), kernel, fast_mode=True)


@pytest.mark.parametrize("needed", [0, 1, 2])
def test_each_gradient_alone_is_that_of_all_together(needed: int) -> None:
    def gradients(wanted: set[int]) -> list[Tensor | None]:
        x, response = complex_normal((2, 2, 5, 4)), complex_normal((6, 5, 2, 2), seed=1)
        arguments = (x, response, torch.full((5, 4), 0.5))
        for i, argument in enumerate(arguments):
            argument.requires_grad_(i in wanted)
        correlate(*arguments).abs().square().sum().backward()
        return [argument.grad for argument in arguments]

    alone, together = gradients({needed}), gradients({0, 1, 2})
    assert [g is not None for g in alone] == [i == needed for i in range(3)]
    torch.testing.assert_close(alone[needed], together[needed])


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize(("shape", "size"), PLANES)
def test_the_operator_is_the_convolution_less_the_point_itself(
    shape: tuple[int, int], size: tuple[int, int], boundary: Boundary
) -> None:
    x, kernel = complex_normal((2, 3, *shape)), complex_normal((3, 3, *size), seed=1)
    expected = direct(x.to(torch.complex128), kernel.to(torch.complex128), boundary) - x
    operator = SpiritOperator(kernel, shape, boundary)
    assert laws.relative_error(operator.forward(x), expected) < 1e-5


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize(("shape", "size"), PLANES[:3])
def test_the_operator_its_adjoint_and_their_product(
    shape: tuple[int, int], size: tuple[int, int], boundary: Boundary
) -> None:
    kernel = complex_normal((3, 3, *size), 1, torch.complex128)
    operator = SpiritOperator(kernel, shape, boundary)
    laws.adjoint(operator.forward, operator.adjoint, (2, 3, *shape), (2, 3, *shape))
    x = complex_normal((2, 3, *shape), 2, torch.complex128)
    expected = operator.adjoint(operator.forward(x))
    assert laws.relative_error(operator.normal(x), expected) < 1e-12


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_gradients_pass_through_the_operator(boundary: Boundary) -> None:
    kernel = complex_normal((2, 2, 3, 3), 1, torch.complex128).requires_grad_()
    x = complex_normal((1, 2, 5, 6), 2, torch.complex128).requires_grad_()

    def loss(x: Tensor, kernel: Tensor) -> Tensor:
        operator = SpiritOperator(kernel, (5, 6), boundary)
        return operator.normal(operator.adjoint(operator.forward(x)))

    assert torch.autograd.gradcheck(loss, (x, kernel))
