"""Metrics against their definitions and against scikit-image."""

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from kscout.errors import UserError
from kscout.metrics import foreground, nmse, psnr, ssim

SHAPES = [(28, 28), (31, 17), (11, 40), (121, 145)]


def pair(shape: tuple[int, int], n_slices: int = 3, scale: float = 7.0) -> tuple[Tensor, Tensor]:
    """Smooth-ish reference images and noisy copies of them."""
    g = torch.Generator().manual_seed(shape[0] * 1000 + shape[1])
    reference = scale * torch.rand((n_slices, *shape), generator=g).cumsum(-1) / shape[1]
    return reference + 0.1 * scale * torch.randn(reference.shape, generator=g), reference


@pytest.mark.parametrize("shape", SHAPES)
def test_psnr_equals_scikit_image(shape: tuple[int, int]) -> None:
    image, reference = pair(shape)
    data_range = torch.tensor([3.0, 7.0, 11.0])
    expected = [
        peak_signal_noise_ratio(r.double().numpy(), i.double().numpy(), data_range=float(reach))
        for i, r, reach in zip(image, reference, data_range, strict=True)
    ]
    np.testing.assert_allclose(psnr(image, reference, data_range), expected, rtol=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_ssim_equals_scikit_image(shape: tuple[int, int]) -> None:
    image, reference = pair(shape)
    data_range = torch.tensor([3.0, 7.0, 11.0])
    expected = [
        structural_similarity(
            r.double().numpy(),
            i.double().numpy(),
            data_range=float(reach),
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for i, r, reach in zip(image, reference, data_range, strict=True)
    ]
    np.testing.assert_allclose(ssim(image, reference, data_range), expected, atol=1e-5)


def test_ssim_over_the_foreground_equals_scikit_image_away_from_the_edge() -> None:
    image, reference = pair((37, 30), n_slices=1)
    head = torch.zeros(reference.shape, dtype=torch.bool)
    head[0, 8:25, 6:20] = True
    _, full = structural_similarity(
        reference[0].double().numpy(),
        image[0].double().numpy(),
        data_range=7.0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    ours = ssim(image, reference, torch.tensor([7.0]), head)
    assert float(ours) == pytest.approx(full[head[0].numpy()].mean(), abs=1e-5)


@pytest.mark.parametrize("shape", [(10, 40), (40, 10)])
def test_ssim_refuses_images_smaller_than_its_window(shape: tuple[int, int]) -> None:
    image, reference = pair(shape)
    with pytest.raises(UserError, match=f"{shape[0]}x{shape[1]}.*11x11"):
        ssim(image, reference, torch.ones(3))


def test_nmse_of_complex_kspace_is_its_definition() -> None:
    g = torch.Generator().manual_seed(0)
    reference = torch.randn((2, 3, 5, 7), dtype=torch.complex64, generator=g)
    estimate = reference.clone()
    estimate[1] *= 1 + 0.1j
    np.testing.assert_allclose(nmse(estimate, reference), [0.0, 0.01], atol=1e-8)


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_metrics_do_not_depend_on_the_scale(factor: float) -> None:
    image, reference = pair((19, 23))
    reach = torch.full((3,), 7.0)
    for metric in (psnr, ssim):
        scaled = metric(image * factor, reference * factor, reach * factor)
        np.testing.assert_allclose(scaled, metric(image, reference, reach), rtol=1e-4)
    scaled = nmse(image * factor, reference * factor)
    np.testing.assert_allclose(scaled, nmse(image, reference), rtol=1e-5)


def test_errors_outside_the_foreground_do_not_count() -> None:
    image, reference = pair((21, 25))
    head = torch.zeros(reference.shape, dtype=torch.bool)
    head[:, 4:15, 5:19] = True
    spoiled = torch.where(head, image, image + 100)
    reach = torch.full((3,), 7.0)
    torch.testing.assert_close(nmse(spoiled, reference, head), nmse(image, reference, head))
    torch.testing.assert_close(
        psnr(spoiled, reference, reach, head), psnr(image, reference, reach, head)
    )
    assert (nmse(spoiled, reference) > nmse(image, reference)).all()
    assert nmse(image, reference, torch.zeros_like(head)).isnan().all()


def test_foreground_fills_holes_and_leaves_faint_slices_out() -> None:
    reference = torch.zeros((2, 9, 11))
    reference[0, 2:7, 3:9] = 1.0
    reference[0, 4, 5] = 0.0  # a ventricle
    reference[1, 2:7, 3:9] = 0.04  # below 5 % of the volume's maximum
    head = foreground(reference, torch.ones(2))
    assert head.dtype == torch.bool
    assert head[0].sum() == 5 * 6
    assert not head[1].any()
