"""What the records of several methods say about their differences. Pure functions of arrays."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

Floats = NDArray[np.float64]
Verdict = Literal["better", "worse", "not distinguishable"]

LEVEL = 0.95
"""Of every interval."""


class Mean(NamedTuple):
    """A mean over slices and seeds.

    Attributes
    ----------
    low, high : 95 % interval over volumes, seeds averaged: :func:`interval`
    seed_std : standard deviation, over seeds, of the mean over slices
    """

    mean: float
    low: float
    high: float
    seed_std: float


class Difference(NamedTuple):
    """How far a method is ahead of a baseline: positive is better.

    Attributes
    ----------
    low, high : 95 % interval over volumes, seeds averaged: :func:`interval`
    by_seed : the same mean for every seed alone, which average to the mean
    """

    mean: float
    low: float
    high: float
    by_seed: tuple[float, ...]

    @property
    def verdict(self) -> Verdict:
        """Other than "not distinguishable" if neither scans nor seeds leave a doubt of the sign.

        That is, if 0 lies outside the interval over volumes, and outside that over seeds (of two
        or more).
        """
        low, high = self.low, self.high
        if len(self.by_seed) > 1:
            seeds = interval(np.array(self.by_seed), range(len(self.by_seed)))
            low, high = min(low, seeds[1]), max(high, seeds[2])
        if low > 0:
            return "better"
        return "worse" if high < 0 else "not distinguishable"


def interval(values: Floats, volumes: Sequence[int]) -> tuple[float, float, float]:
    """Mean over slices, with Student's t interval for its variation over volumes.

    Slices of one scan resemble each other, so scans are what is counted. Where all have as many
    slices, this is the t interval of the scans' means; else the mean over slices is a ratio of two
    sums over scans, whose variance is that of the residuals (Cochran 1977, sec. 2.11). With ten
    scans it covers 0.94 of the time what it should 0.95, and 0.84 where scans are as skewed as
    log-normals of standard deviation 1; a percentile bootstrap covers 0.90 of mildly skewed ones,
    BCa no more (``tests/test_statistics.py``). With a single volume its slices stand in for
    scans, and the interval says nothing of others.

    Parameters
    ----------
    values : one per slice
    volumes : the volume of each

    Returns
    -------
    mean, low, high; NaN are all without values, and the bounds of a single one
    """
    if values.size < 2:
        return (float(values[0]) if values.size else math.nan), math.nan, math.nan
    unique, cluster = np.unique(np.asarray(volumes), return_inverse=True)
    if unique.size == 1:
        cluster = np.arange(values.size)
    sums, counts = np.bincount(cluster, weights=values), np.bincount(cluster)
    n, mean = counts.size, values.mean()
    residuals = (sums - mean * counts) / counts.mean()
    half = stdtrit(n - 1, (1 + LEVEL) / 2) * np.sqrt(np.square(residuals).sum() / (n * (n - 1)))
    return float(mean), float(mean - half), float(mean + half)


def geometric_mean(errors: Floats) -> float:
    """The error whose dB are the mean of all dB: hard slices do not rule it.

    Parameters
    ----------
    errors : positive, of any shape
    """
    return float(np.exp(np.log(errors).mean()))


def mean_over_slices(scores: Floats, volumes: Sequence[int]) -> Mean:
    """Mean of a score, with its interval over volumes and its spread over seeds.

    Parameters
    ----------
    scores : ``(seed, slice)``
    volumes : the volume of each slice
    """
    return Mean(*interval(scores.mean(0), volumes), float(scores.mean(1).std(ddof=1)))


def difference_db(method: Floats, baseline: Floats, volumes: Sequence[int]) -> Difference:
    """Paired difference of two errors on the same slices: mean of 10 log10(baseline / method).

    Paired seed by seed, then averaged over seeds, so that every slice counts once and the interval
    is over scans alone; the seeds stand beside it.

    Parameters
    ----------
    method, baseline : positive errors, ``(seed, slice)``, the same slices in the same order
    volumes : the volume of each slice
    """
    return paired(10 * np.log10(baseline / method), volumes)


def paired(ahead: Floats, volumes: Sequence[int]) -> Difference:
    """Of differences on the same slices, ``(seed, slice)``, positive where the method is better."""
    return Difference(*interval(ahead.mean(0), volumes), tuple(ahead.mean(1).tolist()))


def best_of(errors: Mapping[str, Floats], names: Sequence[str]) -> str:
    """The one of ``names`` that none is ahead of by :func:`difference_db`; the first of equals.

    Parameters
    ----------
    errors : of every method, positive, ``(seed, slice)``
    """
    return min(names, key=lambda name: geometric_mean(errors[name]))
