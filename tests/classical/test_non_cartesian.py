"""SPIRiT off the grid: on grid points it is SPIRiT, and spokes give the image back."""

import pytest
import torch
from torch import Tensor

import laws
from classical.phantom import Phantom, centre, error, phantom
from kscout.classical.non_cartesian import gridded_centre, spirit_non_cartesian
from kscout.classical.spirit import spirit
from kscout.errors import UserError
from kscout.physics.coils import root_sum_of_squares
from kscout.physics.fourier import kspace_to_image
from kscout.physics.nufft import density_compensation, image_to_samples, radial, spiral

SHAPE = (48, 45)


def acquired(trajectory: Tensor) -> tuple[Tensor, Tensor]:
    """Samples of the phantom, and its k-space on the grid."""
    kspace = phantom().kspace
    return image_to_samples(kspace_to_image(kspace), trajectory), kspace


def on_the_grid(noise: float = 0.0) -> tuple[Phantom, Tensor, Tensor]:
    """A scan, its trajectory and its samples."""
    scan = phantom(noise=noise)
    where = torch.nonzero(scan.mask)
    trajectory = where.float() - torch.tensor([float(n // 2) for n in SHAPE])
    return scan, trajectory, scan.kspace[..., where[:, 0], where[:, 1]]


def test_the_centre_of_a_grid_is_its_own() -> None:
    scan, trajectory, samples = on_the_grid()
    found = gridded_centre(samples, trajectory, torch.ones(len(trajectory)), 15)[0]
    assert laws.relative_error(found, centre(scan)) < 0.01


def test_on_grid_points_it_is_spirit_with_tolerance() -> None:
    scan, trajectory, samples = on_the_grid(noise=0.02)
    options = {"data_weight": 5.0, "n_iterations": 200}
    found = spirit_non_cartesian(
        samples, trajectory, SHAPE, acs_size=15, weights=torch.ones(len(trajectory)), **options
    )
    expected = spirit(scan.kspace, scan.mask, (15, 15), **options)
    assert error(found, expected) < 0.02


@pytest.mark.parametrize("trajectory", [radial(40, 45), spiral(12, 2.0, 22.4, 400)])
def test_it_gives_the_image_back(trajectory: Tensor) -> None:
    samples, kspace = acquired(trajectory)
    image = root_sum_of_squares(kspace_to_image(kspace))
    found = root_sum_of_squares(
        kspace_to_image(spirit_non_cartesian(samples, trajectory, SHAPE, acs_size=15))
    )
    assert error(found, image) < 0.12


def test_the_centre_is_put_on_the_grid() -> None:
    trajectory = radial(80, 45)
    samples, kspace = acquired(trajectory)
    weights = density_compensation(trajectory, SHAPE)
    centre = gridded_centre(samples, trajectory, weights, 15)
    assert laws.relative_error(centre, kspace[..., 17:32, 15:30]) < 0.1


@pytest.mark.parametrize("shape", [(35, 65), (65, 33)])
def test_planes_that_are_not_square(shape: tuple[int, int]) -> None:
    trajectory = radial(120, min(shape)).double()
    kspace = phantom(shape=shape, acceleration=2).kspace.to(torch.complex128)
    samples = image_to_samples(kspace_to_image(kspace), trajectory)
    found = spirit_non_cartesian(samples, trajectory, shape, acs_size=15)
    image = root_sum_of_squares(kspace_to_image(kspace))
    assert error(root_sum_of_squares(kspace_to_image(found)), image) < 0.3


def test_bad_trajectories_are_refused() -> None:
    samples, _ = acquired(radial(40, 45))
    with pytest.raises(UserError, match=r"\(30, 2\) for 1800 samples: valid is \(1800, 2\)"):
        spirit_non_cartesian(samples, torch.zeros(30, 2), SHAPE)
    few = radial(2, 45)
    with pytest.raises(UserError, match="too few to calibrate on"):
        spirit_non_cartesian(samples[..., :90], few, SHAPE)
