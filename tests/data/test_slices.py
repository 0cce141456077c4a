from dataclasses import replace

import pytest
import torch

from kscout.data.slices import KspaceSet, check_splits
from kscout.errors import UserError
from kscout.physics.fourier import image_to_kspace


@pytest.fixture
def part(kspace):
    return KspaceSet(kspace, kspace, torch.tensor([3, 5]), torch.tensor([1.0, 2.0, 4.0]))


def test_selected_slices_share_target_only_where_the_set_did(part):
    one = part.select([1])
    assert one.target is one.kspace
    assert one.volume.tolist() == [5]
    noisy = replace(part, kspace=part.kspace + 1).select(slice(0, 1))
    assert torch.equal(noisy.target, part.target[:1])
    assert torch.equal(noisy.kspace, part.kspace[:1] + 1)


def test_images_divide_the_coil_scale_out(part):
    image = torch.rand(3, 7, 10, generator=torch.Generator().manual_seed(0)) + 0.1
    kspace = image_to_kspace(image.to(torch.complex64)) * part.coil_scale[:, None, None]
    rss = image.square().sum(0).sqrt()
    torch.testing.assert_close(part.image(kspace), rss)


def test_a_scan_in_two_splits_is_refused(part):
    other = replace(part, volume=torch.tensor([7, 5]))
    with pytest.raises(UserError, match="scan 5 is in both 'train' and 'test'"):
        check_splits({"train": part, "val": part.select([]), "test": other})
    assert list(check_splits({"train": part, "val": part.select([])})) == ["train", "val"]
