"""What the records of several methods say about their differences. Pure functions of arrays."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kscout.evaluation import bootstrap_interval

Floats = NDArray[np.float64]
Verdict = Literal["better", "worse", "not distinguishable"]


class Mean(NamedTuple):
    """A mean over slices and seeds.

    Attributes
    ----------
    low, high : 95 % bootstrap interval over volumes, seeds averaged
    seed_std : standard deviation, over seeds, of the mean over slices
    """

    mean: float
    low: float
    high: float
    seed_std: float


class Difference(NamedTuple):
    """How far a method is ahead of a baseline, in dB: positive is better.

    Attributes
    ----------
    low, high : 95 % bootstrap interval over volumes, seeds averaged
    by_seed : the same mean for every seed alone
    """

    mean: float
    low: float
    high: float
    by_seed: tuple[float, ...]

    @property
    def verdict(self) -> Verdict:
        """Other than "not distinguishable" if neither scans nor seeds leave a doubt of the sign."""
        if self.low > 0 and min(self.by_seed) > 0:
            return "better"
        if self.high < 0 and max(self.by_seed) < 0:
            return "worse"
        return "not distinguishable"


def mean_over_slices(scores: Floats, volumes: Sequence[int]) -> Mean:
    """Mean of a score, with its interval over volumes and its spread over seeds.

    Parameters
    ----------
    scores : ``(seed, slice)``
    volumes : the volume of each slice
    """
    interval = bootstrap_interval(scores.mean(0).tolist(), volumes)
    return Mean(*interval, float(scores.mean(1).std(ddof=1)))


def difference_db(method: Floats, baseline: Floats, volumes: Sequence[int]) -> Difference:
    """Paired difference of two errors on the same slices: mean of 10 log10(baseline / method).

    Errors are averaged over seeds before they are paired, so that every slice counts once and the
    interval is over scans alone; the seeds stand beside it.

    Parameters
    ----------
    method, baseline : positive errors, ``(seed, slice)``, the same slices in the same order
    volumes : the volume of each slice
    """
    paired = 10 * np.log10(baseline.mean(0) / method.mean(0))
    by_seed = 10 * np.log10(baseline / method)
    interval = bootstrap_interval(paired.tolist(), volumes)
    return Difference(*interval, tuple(by_seed.mean(1).tolist()))


def best_of(errors: Mapping[str, Floats], names: Sequence[str]) -> str:
    """The one of ``names`` with the lowest mean error; the first of equals."""
    return min(names, key=lambda name: float(errors[name].mean()))
