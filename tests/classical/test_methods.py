"""Laws of every reconstruction that calibrates itself, and dense solutions of some."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import laws
from classical.phantom import centre, error, phantom
from kscout.classical import METHODS, sense, spirit, spirit_pocs, tv_spirit
from kscout.classical.tv_spirit import difference_power, differences, differences_adjoint
from kscout.errors import UserError
from kscout.physics.calibration import calibrate
from kscout.physics.espirit import espirit_maps
from kscout.physics.fourier import image_to_kspace, kspace_to_image
from kscout.physics.spirit import SpiritOperator
from laws import complex_normal

KINDS = sorted(METHODS)
SPARSE = ["l1_spirit", "tv_spirit"]
KEEPS_DATA = ["spirit", "spirit_pocs", *SPARSE]


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_far_better_than_zeros(kind: str) -> None:
    scan = phantom(2, mask="caipirinha" if kind == "grappa" else "poisson_disc")
    completed = METHODS[kind](scan.kspace * scan.mask, scan.mask, scan.acs)
    assert completed.shape == scan.kspace.shape
    assert completed.dtype == scan.kspace.dtype
    left = {"spirit_pocs": 0.7, "grappa": 0.45}.get(kind, 0.35)
    assert error(completed, scan.kspace) < left * error(scan.kspace * scan.mask, scan.kspace)


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_not_acquired_is_not_looked_at(kind: str) -> None:
    scan = phantom()
    once = METHODS[kind](scan.kspace * scan.mask, scan.mask, scan.acs)
    assert torch.equal(METHODS[kind](scan.kspace, scan.mask, scan.acs), once)
    unknown = torch.where(scan.mask, scan.kspace, float("nan"))
    assert torch.equal(METHODS[kind](unknown, scan.mask.float(), scan.acs), once)


@pytest.mark.parametrize("kind", KEEPS_DATA)
def test_acquired_points_come_back_bit_for_bit(kind: str) -> None:
    scan = phantom(noise=0.01)
    completed = METHODS[kind](scan.kspace, scan.mask, scan.acs)
    where = scan.mask.expand(scan.kspace.shape)
    assert torch.equal(completed[where], scan.kspace[where])


@pytest.mark.parametrize("kind", KINDS)
def test_a_slice_knows_nothing_of_the_others(kind: str) -> None:
    scan, done = phantom(3), []
    together = METHODS[kind](
        scan.kspace, scan.mask, scan.acs, advance=lambda i, n: done.append((i, n))
    )
    assert done == [(1, 3), (2, 3), (3, 3)]
    alone = METHODS[kind](scan.kspace[1:2], scan.mask, scan.acs)
    torch.testing.assert_close(together[1:2], alone)
    assert METHODS[kind](scan.kspace[:0], scan.mask, scan.acs).shape == scan.kspace[:0].shape


@pytest.mark.parametrize("kind", KINDS)
def test_the_scale_of_the_data_does_not_matter(kind: str) -> None:
    scan = phantom(noise=0.01)
    completed = METHODS[kind](scan.kspace, scan.mask, scan.acs)
    for scale in (1e-25, 1e20):
        scaled = METHODS[kind](scale * scan.kspace, scan.mask, scan.acs) / scale
        assert laws.relative_error(scaled, completed) < 2e-3


@pytest.mark.parametrize("kind", KINDS)
def test_too_small_a_centre_is_refused(kind: str) -> None:
    scan = phantom()
    with pytest.raises(UserError, match="centre of 3x3"):
        METHODS[kind](scan.kspace, scan.mask, (3, 3))


def dense(operator: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> Tensor:
    """The operator's matrix, column after column, complex128."""
    n = int(torch.tensor(shape).prod())
    units = torch.eye(n, dtype=torch.complex128).reshape(n, *shape)
    return torch.stack([operator(unit[None]).flatten() for unit in units], 1)


def small() -> tuple[Tensor, Tensor, tuple[int, int], Tensor]:
    """A scan whose equations can be solved as they stand, with its kernel's matrix."""
    shape, acs = (10, 9), (8, 7)
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(0)) < 0.3
    mask[1:9, 1:8] = True
    kspace = complex_normal((1, 2, *shape), 3) * mask
    kernel = calibrate(kspace[0][:, 1:9, 1:8], 3, 0.01).to(torch.complex128)
    matrix = dense(SpiritOperator(kernel, shape).forward, (2, *shape))
    return kspace, mask, acs, matrix


@pytest.mark.parametrize("damping", [0.0, 0.1])
def test_spirit_solves_its_least_squares(damping: float) -> None:
    kspace, mask, acs, matrix = small()
    y, missing = kspace.to(torch.complex128).flatten(), ~mask.expand(1, 2, -1, -1).flatten()
    free = matrix[:, missing]
    eye = torch.eye(int(missing.sum()), dtype=torch.complex128)
    expected = y.clone()
    expected[missing] = torch.linalg.solve(free.mH @ free + damping * eye, -free.mH @ (matrix @ y))
    found = spirit(kspace, mask, acs, kernel_size=3, damping=damping, n_iterations=300)
    assert laws.relative_error(found.flatten(), expected) < 1e-3


def test_spirit_with_tolerance_solves_its_least_squares() -> None:
    kspace, mask, acs, matrix = small()
    y, acquired = kspace.to(torch.complex128).flatten(), mask.expand(1, 2, -1, -1).flatten()
    weight, damping = 3.0, 0.05
    load = torch.diag(torch.where(acquired, weight, damping).to(torch.complex128))
    expected = torch.linalg.solve(matrix.mH @ matrix + load, weight * y)
    found = spirit(
        kspace, mask, acs, kernel_size=3, damping=damping, data_weight=weight, n_iterations=300
    )
    assert laws.relative_error(found.flatten(), expected) < 1e-3


def test_grappa_is_nearly_spirit_on_a_lattice() -> None:
    scan = phantom(mask="caipirinha")
    found, expected = (
        METHODS[kind](scan.kspace, scan.mask, scan.acs) for kind in ("grappa", "spirit")
    )
    assert error(found, scan.kspace) < 1.5 * error(expected, scan.kspace)


def test_pocs_ends_where_the_kernel_and_the_data_agree() -> None:
    scan = phantom(acceleration=1.5)
    x = spirit_pocs(scan.kspace, scan.mask, scan.acs, n_iterations=400)
    kernel = calibrate(centre(scan), 5, 0.01)
    operator = SpiritOperator(kernel, (48, 45))
    moved = (operator.forward(x) * ~scan.mask).norm() / x.norm()
    assert moved < 1e-4


@pytest.mark.parametrize("kind", SPARSE)
def test_without_sparsity_it_is_spirit(kind: str) -> None:
    scan = phantom()
    plain = spirit(scan.kspace, scan.mask, scan.acs, damping=0, n_iterations=400)
    sparse = METHODS[kind](scan.kspace, scan.mask, scan.acs, sparsity=0, n_iterations=400)
    assert error(sparse, plain) < 5e-3


@pytest.mark.parametrize("kind", SPARSE)
def test_sparsity_takes_noise_away(kind: str) -> None:
    scan, method = phantom(noise=0.05), METHODS[kind]
    clean = phantom().kspace
    plain, sparse = (
        error(method(scan.kspace, scan.mask, scan.acs, sparsity=s), clean) for s in (0.0, 0.01)
    )
    assert sparse < 0.8 * plain


@pytest.mark.parametrize("plane", [(8, 6), (7, 9), (1, 5)])
def test_differences_and_their_adjoint_multiply_kspace(plane: tuple[int, int]) -> None:
    laws.adjoint(differences, differences_adjoint, (2, *plane), (2, 2, *plane))
    image = complex_normal((2, *plane), 1)
    twice = image_to_kspace(differences_adjoint(differences(image)))
    torch.testing.assert_close(twice, difference_power(plane) * image_to_kspace(image))


def test_total_variation_is_the_least_there_is() -> None:
    """Against a general solver of the same problem, smoothed by less than what is compared."""
    kspace, mask, acs, matrix = small()
    y, missing = kspace.to(torch.complex128), ~mask.expand(1, 2, -1, -1)
    weight = 0.05 * float(kspace_to_image(y).abs().max())

    def objective(x: Tensor, smooth: float) -> Tensor:
        power = differences(kspace_to_image(x)).abs().square().sum((0, 2))
        variation = (power + smooth**2).sqrt().sum()
        return 0.5 * (matrix @ x.flatten()).abs().square().sum() + weight * variation

    change = torch.zeros(int(missing.sum()), 2, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS(
        [change], max_iter=3000, history_size=50, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def step() -> Tensor:
        solver.zero_grad()
        loss = objective(y.masked_scatter(missing, torch.view_as_complex(change)), 1e-4 * weight)
        loss.backward()
        return loss

    solver.step(step)
    expected = y.masked_scatter(missing, torch.view_as_complex(change.detach()))
    found = tv_spirit(y, mask, acs, kernel_size=3, sparsity=0.05, n_iterations=2000)
    assert float(objective(found, 0)) < (1 + 1e-4) * float(objective(expected, 0))
    assert laws.relative_error(found, expected) < 1e-2


@pytest.mark.parametrize("n_maps", [1, 2])
def test_sense_solves_its_least_squares(n_maps: int) -> None:
    scan = phantom(shape=(18, 17), acceleration=1.3, noise=0.05)
    maps = espirit_maps(centre(scan), (18, 17), n_maps=n_maps).to(torch.complex128)

    def acquired(m: Tensor) -> Tensor:
        return scan.mask * image_to_kspace((maps * m[0][:, None]).sum(0))

    matrix = dense(acquired, (n_maps, 18, 17))
    y = (scan.kspace * scan.mask).to(torch.complex128).flatten()
    eye = torch.eye(matrix.shape[1], dtype=torch.complex128)
    m = torch.linalg.solve(matrix.mH @ matrix + 0.05 * eye, matrix.mH @ y)
    expected = image_to_kspace((maps * m.reshape(n_maps, 1, 18, 17)).sum(0))
    found = sense(scan.kspace, scan.mask, scan.acs, n_maps=n_maps, damping=0.05, n_iterations=200)
    assert laws.relative_error(found[0], expected) < 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_double_precision_stays(kind: str) -> None:
    scan = phantom()
    single = METHODS[kind](scan.kspace, scan.mask, scan.acs)
    double = METHODS[kind](scan.kspace.to(torch.complex128), scan.mask, scan.acs)
    assert double.dtype == torch.complex128
    assert laws.relative_error(single, double) < 0.02


@pytest.mark.parametrize("kind", KINDS)
def test_bad_input_is_named(kind: str) -> None:
    scan, method = phantom(), METHODS[kind]
    half, rows = 0.5 * scan.mask, scan.mask[:, :1]
    damaged = torch.where(scan.mask, float("inf"), scan.kspace)
    for arguments, said in [
        ((scan.kspace[0], scan.mask, scan.acs), r"\(4, 48, 45\): valid is complex"),
        ((scan.kspace.real, scan.mask, scan.acs), "k-space is torch.float32"),
        ((scan.kspace, half, scan.acs), r"valid is 0 and 1 of \(48, 45\)"),
        ((scan.kspace, rows, scan.acs), r"the mask is torch.bool \(48, 1\)"),
        ((scan.kspace, scan.mask, (45, 45)), "lacks .* points of the 45x45 centre"),
        ((scan.kspace, scan.mask, (60, 10)), r"centre of \(60, 10\) is impossible"),
        ((damaged, scan.mask, scan.acs), "slice 0 holds NaN or infinity"),
    ]:
        with pytest.raises(UserError, match=said):
            method(*arguments)


def test_pocs_stops_before_it_amplifies() -> None:
    scan, clean = phantom(noise=0.05, acceleration=6), phantom().kspace
    few, many = (
        error(spirit_pocs(scan.kspace, scan.mask, scan.acs, n_iterations=n), clean)
        for n in (20, 5000)
    )
    assert many < 5 * few
