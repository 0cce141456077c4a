"""Score a mask with a reconstructor: one record per slice, and what the records say together."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kscout.data.slices import KspaceSet
from kscout.errors import UserError
from kscout.metrics import foreground, maximum_of_volumes, nmse, psnr, ssim
from kscout.sampling import LearnedSampler, Sampler
from kscout.statistics import interval

Record = dict[str, Any]

METRICS = (
    "nmse_kspace",
    "nmse",
    "psnr",
    "ssim",
    "nmse_foreground",
    "psnr_foreground",
    "ssim_foreground",
)


@torch.no_grad()
def evaluate(
    mask: Tensor | Sampler,
    reconstructor: nn.Module,
    data: KspaceSet,
    *,
    split: str,
    batch_size: int = 16,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], object] | None = None,
) -> list[Record]:
    """Reconstruct every slice from the points of ``mask`` and compare it with the reference.

    k-space is compared with ``data.target``, images with its images; the data range of PSNR and
    SSIM, and the threshold of the foreground, come from the maximum of the reference volume.

    Parameters
    ----------
    mask : bool ``(ky, kx)``; or a sampler, which gives each slice its mask
    reconstructor : ``(kspace * mask, mask) -> kspace``; left in the mode it was in
    data : fully sampled slices
    split : name written into the records
    batch_size : slices at a time
    device : where to compute
    progress : called with (slices done, all slices) after each batch

    Returns
    -------
    one dict per slice, in the order of ``data``: ``split``, ``volume``, ``slice`` (index within
    the volume) and the values of :data:`METRICS`. Foreground values are NaN where a slice has no
    foreground.

    Raises
    ------
    UserError
        if the mask has another shape than the data, a slice's reference is all zero, a value is
        not finite, or a reconstruction is perfect (infinite PSNR), which no undersampled scan is
    RuntimeError
        if a sampler spends more, or less, than its budget on a slice
    """
    shape = tuple(mask.budget.shape if isinstance(mask, Sampler) else mask.shape)
    if shape != data.shape:
        raise UserError(
            f"a mask of {'x'.join(map(str, shape))} does not fit the {split} data: "
            f"valid is {data.shape[0]}x{data.shape[1]}"
        )
    mask = mask.to(device)
    maximum = _volume_maximum(data, batch_size, device)
    positions = positions_in_volumes(data.volume.tolist())
    training = reconstructor.training
    reconstructor.to(device).eval()
    records: list[Record] = []
    try:
        for batch in _batches(len(data), batch_size):
            part = data.select(batch)
            kspace = part.kspace.to(device)
            if isinstance(mask, Sampler):
                weights = masks_of_slices(mask, kspace, reconstructor)
            else:
                weights = mask.float()
            estimate = reconstructor(kspace * weights, weights)
            values = _score(estimate, part, maximum[batch].to(device))
            for row, volume in enumerate(part.volume.tolist()):
                where = {"split": split, "volume": volume, "slice": positions[len(records)]}
                records.append(_checked(where | {k: float(v[row]) for k, v in values.items()}))
            if progress is not None:
                progress(len(records), len(data))
    finally:
        reconstructor.train(training)
    return records


def masks_of_slices(sampler: Sampler, kspace: Tensor, reconstructor: nn.Module) -> Tensor:
    """A sampler's final masks, ``(ky, kx)`` or ``(batch, 1, ky, kx)``, each of its exact budget."""
    masks = sampler.for_slices(kspace, reconstructor).detach()
    spent = masks.count_nonzero((-2, -1))
    if (spent != sampler.budget.n_samples).any() or not masks[..., sampler.budget.acs].all():
        raise RuntimeError(f"{type(sampler).__name__} left its budget: {spent.unique().tolist()}")
    return masks


@torch.no_grad()
def most_often_acquired(
    sampler: Sampler,
    reconstructor: nn.Module,
    data: KspaceSet,
    device: torch.device | str = "cpu",
    batch_size: int = 16,
) -> Tensor:
    """The points, or lines, that most slices acquired, to the exact budget: bool ``(ky, kx)``.

    What an adaptive sampler did, on one plane. No slice need have been acquired so.
    """
    assert isinstance(sampler, LearnedSampler)
    sampler.to(device), reconstructor.to(device)
    n_slices = torch.zeros(data.shape, device=device)
    for batch in _batches(len(data), batch_size):
        n_slices += masks_of_slices(sampler, data.kspace[batch].to(device), reconstructor).sum(
            (0, 1)
        )
    return sampler.choose(sampler.reduce(n_slices)).cpu()


def _score(estimate: Tensor, data: KspaceSet, maximum: Tensor) -> dict[str, Tensor]:
    target = data.target.to(estimate.device)
    image, reference = data.image(estimate), data.image(target)
    head = foreground(reference, maximum)
    return {
        "nmse_kspace": nmse(estimate, target),
        "nmse": nmse(image, reference),
        "psnr": psnr(image, reference, maximum),
        "ssim": ssim(image, reference, maximum),
        "nmse_foreground": nmse(image, reference, head),
        "psnr_foreground": psnr(image, reference, maximum, head),
        "ssim_foreground": ssim(image, reference, maximum, head),
    }


def _volume_maximum(data: KspaceSet, batch_size: int, device: torch.device | str) -> Tensor:
    """For each slice, the maximum of the reference images of its volume: float ``(slice,)``."""
    peaks = torch.empty(len(data))
    for batch in _batches(len(data), batch_size):
        peaks[batch] = data.image(data.target[batch].to(device)).amax((-2, -1)).cpu()
    return maximum_of_volumes(peaks, data.volume)


def _batches(n: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def positions_in_volumes(volumes: Sequence[int]) -> list[int]:
    """Index of each slice within its volume, in the order of the slices."""
    seen: dict[int, int] = {}
    positions = []
    for volume in volumes:
        positions.append(seen.get(volume, 0))
        seen[volume] = positions[-1] + 1
    return positions


def _checked(record: Record) -> Record:
    where = f"slice {record['slice']} of volume {record['volume']} ({record['split']})"
    for metric in ("nmse_kspace", "nmse"):
        if not math.isfinite(record[metric]):
            raise UserError(
                f"{metric} of {where} is {record[metric]}: "
                "its reference is all zero, or its reconstruction is not finite"
            )
    if math.inf in (record["psnr"], record["psnr_foreground"]):
        raise UserError(
            f"{where} was reconstructed without any error (PSNR is infinite): the mask acquires "
            "everything or the reference reached the reconstructor"
        )
    return record


def summarise(records: Sequence[Record]) -> dict[str, dict[str, Any]]:
    """Means and 95 % intervals (:func:`kscout.statistics.interval`) of every metric, per split.

    Parameters
    ----------
    records : from :func:`evaluate`, of one or more splits

    Returns
    -------
    ``{split: {metric: {"mean", "low", "high"}, ..., "n_slices": int, "n_volumes": int}}``;
    slices without foreground do not count in the foreground metrics
    """
    summary: dict[str, dict[str, Any]] = {}
    for split in dict.fromkeys(record["split"] for record in records):
        part = [record for record in records if record["split"] == split]
        summary[split] = {metric: _interval(part, metric) for metric in METRICS}
        summary[split]["n_slices"] = len(part)
        summary[split]["n_volumes"] = len({record["volume"] for record in part})
    return summary


def _interval(records: Sequence[Record], metric: str) -> dict[str, float]:
    scored = [record for record in records if not math.isnan(record[metric])]
    values = np.array([record[metric] for record in scored], dtype=np.float64)
    mean, low, high = interval(values, [record["volume"] for record in scored])
    return {"mean": mean, "low": low, "high": high}
