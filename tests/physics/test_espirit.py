"""Coil maps against the coils that a scan was made with."""

import pytest
import torch

from classical.phantom import centre, phantom
from kscout.errors import UserError
from kscout.physics.espirit import espirit_maps
from kscout.physics.fourier import kspace_to_image
from laws import complex_normal


def maps_of(n_maps: int = 1, **options: float) -> torch.Tensor:
    scan = phantom(shape=(64, 49))
    return espirit_maps(centre(scan), (64, 49), n_maps=n_maps, **options)  # type: ignore[arg-type]


def test_inside_the_object_they_are_the_coils() -> None:
    scan, maps = phantom(shape=(64, 49)), maps_of()[0]
    inside = scan.image[0].abs() > 0
    inside[:4], inside[-4:] = False, False
    assert (maps.abs().sum(0) > 0)[inside].float().mean() > 0.99
    agreement = (maps.conj() * scan.coils).sum(0).abs()[inside & (maps.abs().sum(0) > 0)]
    assert agreement.quantile(0.02) > 0.98


def test_they_have_unit_norm_or_none() -> None:
    norm = maps_of().abs().square().sum(1).sqrt()
    assert torch.all((norm < 1e-6) | ((norm - 1).abs() < 1e-4))


def test_two_maps_of_a_pixel_are_orthogonal() -> None:
    maps = maps_of(2, crop=0.0)
    assert (maps[0].conj() * maps[1]).sum(0).abs().max() < 1e-3


def test_nothing_is_left_where_the_eigenvalue_is_small() -> None:
    kept = [(maps_of(crop=crop).abs().sum(1) > 0).float().mean() for crop in (0.0, 0.8, 0.99)]
    assert kept[0] == 1
    assert kept[0] > kept[1] > kept[2]


def test_a_scan_lies_in_the_space_of_its_maps() -> None:
    scan, maps = phantom(shape=(64, 49)), maps_of()[0]
    images = kspace_to_image(scan.kspace)[0]
    projected = maps * (maps.conj() * images).sum(0)
    assert (projected - images).norm() < 0.05 * images.norm()


def test_what_gives_no_maps_is_refused() -> None:
    with pytest.raises(UserError, match="5x9 is too small for coil maps: valid is 6x6"):
        espirit_maps(complex_normal((2, 5, 9)), (20, 20))
    with pytest.raises(UserError, match="nothing but zeros"):
        espirit_maps(torch.zeros(2, 12, 12, dtype=torch.complex64), (20, 20))
