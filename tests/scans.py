"""Slices of two sorts, which want other lines: no order that all share can serve both."""

import torch

from kscout.acquisition.process import Process
from kscout.data import KspaceSet
from kscout.recon import RECONSTRUCTORS
from kscout.sampling.units import Units
from laws import complex_normal

SHAPE = (6, 9)


def two_sorts(n: int = 48, seed: int = 0) -> KspaceSet:
    """The middle line, acquired first, gives a plain image of one sort and stripes of the other."""
    kspace = 0.1 * complex_normal((n, 1, *SHAPE), seed=seed)
    is_left = torch.arange(n) % 2 == 0
    kspace[is_left, :, :, 2:4] *= 30
    kspace[~is_left, :, :, 5:7] *= 30
    kspace[..., 4] = 0
    kspace[..., 1, 4] = 8
    kspace[~is_left, :, 4, 4] = 8
    return KspaceSet(kspace, kspace, torch.arange(n), torch.ones(1))


def process(n: int = 48, seed: int = 0, budget: int = 2, metric: str = "mse") -> Process:
    data = two_sorts(n, seed)
    net = RECONSTRUCTORS["zero_filled"](1, 0)
    units = Units.of(SHAPE)
    return Process(data, net, units=units, n_initial=1, budget=budget, metric=metric)  # type: ignore[arg-type]
