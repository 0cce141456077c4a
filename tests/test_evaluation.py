"""Evaluation: every slice once, the volume's own data range, and honest intervals."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import laws
from kscout.data.slices import KspaceSet
from kscout.errors import UserError
from kscout.evaluation import (
    METRICS,
    evaluate,
    masks_of_slices,
    most_often_acquired,
    summarise,
)
from kscout.metrics import psnr
from kscout.physics.fourier import image_to_kspace
from kscout.sampling import Budget, FixedSampler, StagedSampler

SHAPE = (17, 22)


class Acquired(nn.Module):
    """Zero filling."""

    def forward(self, kspace: Tensor, mask: Tensor) -> Tensor:
        assert mask.dtype == torch.float32
        assert not self.training
        return kspace * mask


def a_set(volumes: list[int]) -> KspaceSet:
    """Three coils, a random object off centre, coils scaled as a data source may scale them."""
    g = torch.Generator().manual_seed(1)
    image = torch.zeros((len(volumes), 3, *SHAPE), dtype=torch.complex64)
    image[:, :, 3:13, 4:18] = torch.randn(
        (len(volumes), 3, 10, 14), dtype=torch.complex64, generator=g
    )
    scale = torch.tensor([1.0, 2.0, 0.5])
    kspace = image_to_kspace(image) * scale[:, None, None]
    return KspaceSet(kspace, kspace, torch.tensor(volumes), scale)


def a_mask() -> Tensor:
    return torch.rand(SHAPE, generator=torch.Generator().manual_seed(2)) < 0.5


def test_one_record_per_slice_whatever_the_batch_size() -> None:
    data = a_set([4, 9, 4, 4, 9])  # volumes interleaved
    seen: list[tuple[int, int]] = []
    records = evaluate(
        a_mask(), Acquired().train(), data, split="test", batch_size=2,
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert seen == [(2, 5), (4, 5), (5, 5)]
    assert [(r["volume"], r["slice"]) for r in records] == [(4, 0), (9, 0), (4, 1), (4, 2), (9, 1)]
    assert set(records[0]) == {"split", "volume", "slice", *METRICS}
    whole = evaluate(a_mask(), Acquired(), data, split="test", batch_size=100)
    for one, other in zip(records, whole, strict=True):
        assert one == pytest.approx(other)


def test_data_range_is_the_maximum_of_the_slices_volume() -> None:
    data = a_set([4, 9, 4, 4, 9])
    mask = a_mask()
    reference = data.image(data.target)
    reach = torch.empty(5)
    for volume in (4, 9):
        reach[data.volume == volume] = reference[data.volume == volume].max()
    expected = psnr(data.image(data.kspace * mask), reference, reach)
    records = evaluate(mask, Acquired(), data, split="test")
    np.testing.assert_allclose([r["psnr"] for r in records], expected, rtol=1e-6)


def test_the_reference_is_the_target_not_the_noisy_measurement() -> None:
    data = a_set([0, 0])
    noisy = replace(data, kspace=data.kspace + 0.3)
    records = evaluate(torch.ones(SHAPE, dtype=torch.bool), Acquired(), noisy, split="test")
    expected = 0.09 * 3 * 17 * 22 / data.target[0].abs().square().sum()
    assert records[0]["nmse_kspace"] == pytest.approx(float(expected), rel=1e-4)


def test_a_sampler_is_scored_by_the_mask_of_each_slice() -> None:
    data, mask = a_set([4, 9, 4]), a_mask()
    budget = Budget.of(SHAPE, n_samples=int(mask.sum()))
    of_mask = evaluate(mask, Acquired(), data, split="test")
    assert evaluate(FixedSampler(budget, mask), Acquired(), data, split="test") == of_mask
    staged = StagedSampler(budget, 0)
    nn.init.ones_(staged.policy.last.weight)
    net = Acquired().eval()
    masks = staged.for_slices(data.kspace, net).detach()
    records = evaluate(staged, net, data, split="test", batch_size=2)
    for one, kspace, target, record in zip(masks, data.kspace, data.target, records, strict=True):
        error = (kspace * one - target).norm() ** 2 / target.norm() ** 2
        assert record["nmse_kspace"] == pytest.approx(float(error), rel=1e-5)


def test_a_sampler_that_leaves_its_budget_has_no_score() -> None:
    budget = Budget.of(SHAPE, n_samples=50)
    with pytest.raises(RuntimeError, match="left its budget"):
        evaluate(FixedSampler(budget, a_mask()), Acquired(), a_set([0]), split="test")


@pytest.mark.parametrize("unit", ["points", "lines"])
def test_what_was_acquired_most_often(unit: Any) -> None:
    budget, data = Budget.of(SHAPE, n_lines=7, acs="lines", acs_size=2), a_set([0, 1, 2, 3, 4])
    sampler, net = StagedSampler(budget, 0, unit=unit), Acquired().eval()
    nn.init.ones_(sampler.policy.last.weight)
    often = most_often_acquired(sampler, net, data, batch_size=2)
    laws.exact_budget(often, budget)
    counts = masks_of_slices(sampler, data.kspace, net).sum((0, 1))
    assert counts[often].min() >= counts[~often].max()
    assert unit == "points" or torch.equal(often, often[:1].expand(SHAPE))


def test_the_module_keeps_its_mode_even_after_an_error() -> None:
    module = Acquired().train()
    with pytest.raises(UserError, match=r"slice 0 of volume 3 \(test\).*PSNR is infinite"):
        evaluate(torch.ones(SHAPE, dtype=torch.bool), module, a_set([3]), split="test")
    assert module.training


def test_bad_input_is_one_line() -> None:
    with pytest.raises(UserError, match="mask of 3x3 does not fit the val data: valid is 17x22"):
        evaluate(torch.ones(3, 3).bool(), Acquired(), a_set([0]), split="val")
    data = a_set([0, 0])
    data.kspace[1] = 0
    with pytest.raises(UserError, match=r"nmse_kspace of slice 1 of volume 0 .*all zero"):
        evaluate(a_mask(), Acquired(), data, split="test")


def test_an_empty_split_has_no_records() -> None:
    assert evaluate(a_mask(), Acquired(), a_set([0]).select([]), split="val") == []
    assert summarise([]) == {}


def test_summary_per_split_skips_slices_without_foreground() -> None:
    def record(split: str, volume: int, value: float, head: float) -> dict:
        scores = {m: head if m.endswith("foreground") else value for m in METRICS}
        return {"split": split, "volume": volume, "slice": 0, **scores}

    records = [record("test", 1, 1.0, 4.0), record("test", 2, 3.0, math.nan)]
    summary = summarise([*records, record("test_coils", 3, 9.0, 9.0)])
    assert list(summary) == ["test", "test_coils"]
    assert summary["test"]["n_slices"] == 2
    assert summary["test"]["n_volumes"] == 2
    assert summary["test"]["psnr"]["mean"] == 2.0
    assert summary["test"]["psnr_foreground"]["mean"] == 4.0
