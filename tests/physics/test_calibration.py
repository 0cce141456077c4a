"""The equations that a SPIRiT kernel is fitted by, against plain least squares."""

import numpy as np
import pytest
import torch

from kscout.errors import UserError
from kscout.physics.calibration import calibrate, neighbours, normal_equations, solve_kernel
from kscout.physics.spirit import Boundary, correlate, kernel_response, transform_shape
from laws import complex_normal

SHAPE = (13, 10)


@pytest.mark.parametrize("boundary", ["zero", "periodic"])
def test_the_window_is_what_the_kernel_reads(boundary: Boundary) -> None:
    x, kernel = complex_normal((2, *SHAPE)), complex_normal((2, 2, 5, 5), 1)
    by_window = torch.einsum("oikl,iklyx->oyx", kernel, neighbours(x, 5, boundary))
    response = kernel_response(kernel, transform_shape(SHAPE, (5, 5), boundary))
    torch.testing.assert_close(
        correlate(x[None], response, torch.ones(SHAPE))[0], by_window, atol=1e-4, rtol=1e-4
    )


def test_it_is_least_squares_without_the_own_column() -> None:
    n_coils, size, regularisation = 2, 3, 1e-3
    n = n_coils * size**2
    a = complex_normal((60, n), 1, torch.complex128)
    b = complex_normal((60, n_coils), 2, torch.complex128)
    gram = a.mH @ a
    kernel = solve_kernel(gram, a.mH @ b, size, regularisation)
    load = regularisation * float(gram.diagonal().real.mean())
    for coil in range(n_coils):
        own = coil * size**2 + size**2 // 2
        rows = np.vstack([a.numpy(), np.sqrt(load) * np.eye(n)])
        right = np.concatenate([b[:, coil].numpy(), np.zeros(n)])
        free = np.linalg.lstsq(np.delete(rows, own, 1), right, rcond=None)[0]
        expected = np.insert(free, own, 0).reshape(n_coils, size, size)
        np.testing.assert_allclose(kernel[coil].numpy(), expected, atol=1e-6)


def test_the_normal_equations_are_the_sums_that_they_are_said_to_be() -> None:
    x, t = complex_normal((2, 2, *SHAPE), 1), complex_normal((2, 2, *SHAPE), 2)
    points = [torch.tensor([[0, 0], [12, 9], [5, 3]]), torch.tensor([[7, 0]])]
    gram, cross = normal_equations(x, t, points, 3, "zero")
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)))
    places = [(s, *place) for s, where in enumerate(points) for place in where.tolist()]
    a = np.stack([padded[s, :, y : y + 3, x : x + 3].ravel() for s, y, x in places])
    b = np.stack([t.numpy()[s, :, y, x] for s, y, x in places])
    np.testing.assert_allclose(gram.numpy(), a.conj().T @ a, atol=1e-4)
    np.testing.assert_allclose(cross.numpy(), a.conj().T @ b, atol=1e-4)


def test_what_cannot_be_fitted_is_refused() -> None:
    a = complex_normal((3, 18), 1, torch.complex128)
    gram, cross = a.mH @ a, a.mH @ a[:, :2]
    with pytest.raises(UserError, match="all samples around the missing points are 0"):
        solve_kernel(0 * gram, 0 * cross, 3, 1e-6)
    with pytest.raises(UserError, match="too few equations for 18 weights"):
        solve_kernel(gram, cross, 3, 1e-30)


def test_a_block_is_calibrated_by_its_inner_windows_alone() -> None:
    acs, size, regularisation = complex_normal((2, 9, 8), 4), 3, 1e-3
    places = [(y, x) for y in range(1, 8) for x in range(1, 7)]
    windows = [acs[:, y - 1 : y + 2, x - 1 : x + 2].reshape(-1) for y, x in places]
    a = torch.stack(windows).to(torch.complex128)
    b = torch.stack([acs[:, y, x] for y, x in places]).to(torch.complex128)
    load = regularisation * float((a.mH @ a).diagonal().real.mean())
    kernel = calibrate(acs, size, regularisation)
    for coil in range(2):
        own = coil * 9 + 4
        rows = np.vstack([a.numpy(), np.sqrt(load) * np.eye(18)])
        right = np.concatenate([b[:, coil].numpy(), np.zeros(18)])
        free = np.linalg.lstsq(np.delete(rows, own, 1), right, rcond=None)[0]
        expected = np.insert(free, own, 0).reshape(2, 3, 3)
        np.testing.assert_allclose(kernel[coil].numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("acs", "said"),
    [
        (complex_normal((4, 8, 8)), "centre of 8x8 gives 16 equations for the 99 weights of a 5x5"),
        (complex_normal((4, 4, 40)), "gives 0 equations for the 99 weights"),
        (torch.zeros(2, 20, 20, dtype=torch.complex64), "coil 0 holds nothing but zeros"),
    ],
)
def test_a_block_that_says_too_little_is_refused(acs: torch.Tensor, said: str) -> None:
    with pytest.raises(UserError, match=said):
        calibrate(acs, 5, 1e-2)
