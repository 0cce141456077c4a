"""The U-Net on awkward sizes, and the reconstruction of coil images by it."""

import pytest
import torch

from kscout.recon import CoilUnet
from kscout.recon.unet import Unet
from laws import complex_normal


@pytest.mark.parametrize("size", [(13, 10), (1, 1), (1, 9), (33, 47)])
def test_any_size_and_a_batch_of_one(size: tuple[int, int]) -> None:
    net, images = (
        Unet(2, 3, 4, 3, torch.Generator().manual_seed(0)),
        torch.randn(3, 2, *size, generator=torch.Generator().manual_seed(1)),
    )
    together = net(images)
    assert together.shape == (3, 3, *size)
    alone = torch.cat([net(image[None]) for image in images])
    torch.testing.assert_close(together, alone)
    assert net(images[:0]).shape == (0, 3, *size)


@torch.no_grad()
def test_scale_goes_through() -> None:
    net, mask = CoilUnet(3, n_channels=4), torch.ones(13, 10)
    kspace = complex_normal((2, 3, 13, 10))
    completed = net.predict(kspace, mask)
    for factor in (1e-9, 1e6):
        torch.testing.assert_close(net.predict(factor * kspace, mask) / factor, completed)


@torch.no_grad()
def test_coils_share_one_network() -> None:
    net, mask, kspace = (
        CoilUnet(3, n_channels=4),
        torch.ones(13, 10),
        complex_normal((2, 3, 13, 10)),
    )
    order = [2, 0, 1]
    torch.testing.assert_close(
        net.predict(kspace[:, order], mask), net.predict(kspace, mask)[:, order]
    )
