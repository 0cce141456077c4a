"""Shapes and dtypes of plain arrays of k-space."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

LAYOUTS = {2: "(ky, kx)", 3: "(coil, ky, kx)", 4: "(slice, coil, ky, kx)"}


SAMPLE_LAYOUTS = {2: "(coil, sample)", 3: "(slice, coil, sample)"}
"""Of samples off the grid."""


def complaint(
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    ranks: Sequence[int],
    layouts: Mapping[int, str] = LAYOUTS,
) -> str:
    """What is wrong with an array of k-space; empty if nothing is."""
    if dtype.kind != "c":
        return f"its dtype is {dtype}: k-space is complex"
    if len(shape) not in ranks:
        valid = " or ".join(layouts[rank] for rank in ranks)
        return f"its shape is {shape}: valid is {valid}"
    return ""


def as_tensor(array: np.ndarray) -> Tensor:
    """A copy as complex64, whatever its precision and byte order; too large becomes infinity."""
    return torch.from_numpy(np.array(array, np.complex64, order="C"))
