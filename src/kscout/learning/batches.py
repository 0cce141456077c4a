"""Batches of slices in an order of their own for every epoch, and each process's share of them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from kscout.data.slices import KspaceSet
from kscout.errors import UserError
from kscout.learning.distribute import place


class Batch(NamedTuple):
    """What one process sees of a batch.

    Attributes
    ----------
    kspace, target : complex ``(slice, coil, ky, kx)``
    weight : of these slices in the loss: 1, or 0 where the batch has none for this process
    n_slices : of the whole batch, over all processes
    """

    kspace: Tensor
    target: Tensor
    weight: float
    n_slices: int


class _Slices(Dataset[Batch]):
    """Whole batches by one index each: copying slice by slice would cost more than a step."""

    def __init__(self, data: KspaceSet) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitems__(self, index: Sequence[int]) -> Batch:
        """This process's share of the batch; one slice of no weight where none is left for it."""
        rank, n_processes = place()
        share = index[rank::n_processes]
        part = self.data.select(share or index[:1])
        return Batch(part.kspace, part.target, weight=float(len(share) > 0), n_slices=len(index))


def step_generator(seed: int, step: int) -> torch.Generator:
    """A generator for one step of a training, on the CPU.

    One per step, not one that runs on: a resumed run draws what it would have drawn. PyTorch's CPU
    generator looks at 32 bits of its seed, so the streams of the seeds are spread over these, a
    golden section apart.
    """
    return torch.Generator().manual_seed((2654435761 * seed + step) % 2**32)


def _as_it_is(batch: Any) -> Any:
    return batch


def loader(data: KspaceSet, batch_size: int, seed: int, *, shuffle: bool) -> DataLoader[Any]:
    # The order of an epoch depends on (seed, epoch) alone, so that a resumed run sees the same; and
    # every process goes through all of it, as its share is taken from each batch.
    order: DistributedSampler[Any] = DistributedSampler(
        _Slices(data), num_replicas=1, rank=0, shuffle=shuffle, seed=seed
    )
    return DataLoader(
        _Slices(data),
        batch_size,
        sampler=order,
        collate_fn=_as_it_is,
        generator=torch.Generator().manual_seed(seed),
    )


def refuse_patience(patience: int | None, n_val: int, where: str) -> None:
    """Raise ``UserError`` if a training would wait for validation data that there are none of."""
    if patience is not None and not n_val:
        raise UserError(f"{where}.patience needs validation data: valid without it is null")
