"""Conjugate gradients against dense solutions."""

import pytest
import torch
from torch import Tensor

import laws
from kscout.physics.solvers import conjugate_gradients

N, SHAPE = 6, (3, 2)


def positive(n_systems: int = 2) -> Tensor:
    """Hermitian matrices with eigenvalues of 0.5 and more: ``(system, 6, 6)``."""
    a = laws.complex_normal((n_systems, N, N), 1, torch.complex128)
    return a @ a.mH + 0.5 * torch.eye(N)


def times(matrix: Tensor, x: Tensor) -> Tensor:
    return (matrix @ x.flatten(1)[..., None]).reshape(x.shape)


def right_side() -> Tensor:
    return laws.complex_normal((2, *SHAPE), 2, torch.complex128)


@pytest.mark.parametrize("preconditioned", [False, True])
def test_each_plane_is_solved_in_as_many_iterations_as_it_has_points(preconditioned: bool) -> None:
    matrix, b = positive(), right_side()
    options = {}
    if preconditioned:
        diagonal = matrix.diagonal(dim1=1, dim2=2).reshape(b.shape)
        options = {"precondition": lambda r: r / diagonal}
    expected = times(torch.linalg.inv(matrix), b)
    found = conjugate_gradients(lambda x: times(matrix, x), b, N, **options)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    earlier = conjugate_gradients(lambda x: times(matrix, x), b, N - 2, **options)
    assert not torch.allclose(earlier, expected, rtol=1e-3, atol=1e-3)


def test_an_operator_that_is_self_adjoint_in_another_inner_product() -> None:
    """A Q of a positive A and a positive diagonal Q, as one system over both planes."""
    matrix, b = positive(1), right_side()
    weights = torch.rand(b.shape, generator=torch.Generator().manual_seed(3)).double() + 0.1

    def inner(x: Tensor, y: Tensor) -> Tensor:
        return (x.conj() * weights * y).real.sum()

    found = conjugate_gradients(lambda x: times(matrix, weights * x), b, 2 * N, inner=inner)
    torch.testing.assert_close(weights * found, times(torch.linalg.inv(matrix), b))


def test_a_solved_system_stays_and_passes_no_gradient_on() -> None:
    b = torch.stack([torch.zeros(SHAPE), torch.ones(SHAPE)]).requires_grad_()
    x = conjugate_gradients(lambda v: 2 * v, b, 50)
    torch.testing.assert_close(x, b / 2)
    (gradient,) = torch.autograd.grad(x.sum(), b)
    assert gradient.isfinite().all()
    assert torch.equal(gradient[0], torch.zeros(SHAPE))
