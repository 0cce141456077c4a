"""Where the values of a setting, or of a metric, lie on an axis of a figure."""

import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from kscout.report import Array
from kscout.sweep.text import NONE, written

MOST_STEPS = 8
"""Numbers with more values than this lie on an axis of numbers; others are equally spaced."""

LOG_SPREAD = 30
"""Positive numbers may lie on a logarithmic axis if their extremes are this far apart."""

MOST_MARKS = 6


class Scale(NamedTuple):
    """An axis.

    Attributes
    ----------
    positions : float ``(value,)``; NaN for values that have no place
    ticks : positions of the labels, ascending
    labels : one for each tick
    is_numeric : an axis of numbers; else steps of one
    """

    positions: Array
    ticks: list[float]
    labels: list[str]
    is_numeric: bool


def setting_scale(values: Sequence[Any]) -> Scale:
    """Steps, numbers in order and then words; numbers if they take many values.

    Parameters
    ----------
    values : plain values or None, which is the last step or, among numbers, has no place
    """
    different = {value for value in values if value is not None}
    if len(different) > MOST_STEPS and all(_is_number(value) for value in different):
        return number_scale(values, _is_log_spread(different))
    steps: list[Any] = sorted(different, key=_order)
    if None in values:
        steps.append(None)
    places = {value: i for i, value in enumerate(steps)}
    positions = np.array([places[value] for value in values], dtype=float)
    labels = [NONE if value is None else written(value) for value in steps]
    return Scale(positions, [float(i) for i in range(len(steps))], labels, False)


def number_scale(values: Sequence[float | None], is_log: bool) -> Scale:
    """Numbers, or their decimal logarithms; those that are not finite then have no place."""
    numbers = np.array([math.nan if value is None else value for value in values], dtype=float)
    if is_log:
        numbers[~(numbers > 0)] = math.nan
    numbers[~np.isfinite(numbers)] = math.nan
    is_whole = all(value is None or isinstance(value, int) for value in values)
    marks = _marks(float(np.nanmin(numbers)), float(np.nanmax(numbers)), is_log, is_whole)
    positions = np.log10(numbers) if is_log else numbers
    ticks = [math.log10(mark) for mark in marks] if is_log else marks
    return Scale(positions, ticks, [_number(mark) for mark in marks], True)


def _is_log_spread(numbers: set[float]) -> bool:
    """Whether a logarithmic axis spreads positive numbers better than a linear one."""
    low, high = min(numbers), max(numbers)
    return low > 0 and high > LOG_SPREAD * low and 4 * float(np.median([*numbers])) < low + high


def _marks(low: float, high: float, is_log: bool, is_whole: bool) -> list[float]:
    """Round numbers within the bounds, or the bounds where there are too few."""
    from matplotlib.ticker import MaxNLocator

    if is_log and high >= 10 * low:
        decades = range(math.floor(math.log10(low)), math.floor(math.log10(high)) + 1)
        choices = [
            [factor * 10.0**n for n in decades[::stride] for factor in factors]
            for stride, factors in [(1, (1, 2, 5)), *((stride, (1,)) for stride in range(1, 100))]
        ]
    else:
        choices = [list(MaxNLocator(MOST_MARKS - 1, integer=is_whole).tick_values(low, high))]
    inside = [[float(mark) for mark in marks if low <= mark <= high] for marks in choices]
    marks = next((marks for marks in inside if len(marks) <= MOST_MARKS), [])
    return marks if len(marks) > 1 else sorted({low, high})


def _number(value: float) -> str:
    """``0.002`` and ``2e-4``."""
    if not 0 < abs(value) < 1e-3:
        return f"{value:.4g}"
    digits, exponent = f"{value:.2e}".split("e")
    return f"{digits.rstrip('0').rstrip('.')}e{int(exponent)}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _order(value: Any) -> tuple[bool, float, list[str | int]]:
    """Numbers first; words by the numbers in them too, so that ``[5, 5]`` precedes ``[11, 11]``."""
    if _is_number(value):
        return False, value, []
    parts = re.split(r"(\d+)", str(value))
    return True, 0.0, [int(part) if i % 2 else part for i, part in enumerate(parts)]
