"""k-space in ``.npy`` files."""

from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
from torch import Tensor

from kscout.atomic import atomic_path
from kscout.data.arrays import map_npy
from kscout.data.formats.layouts import as_tensor, complaint
from kscout.data.formats.scan import Scan


class NpyScan(Scan):
    """``(slice, coil, ky, kx)``, ``(coil, ky, kx)`` or ``(ky, kx)``."""

    def __init__(self, path: Path) -> None:
        array = map_npy(path, lambda shape, dtype: complaint(shape, dtype, (2, 3, 4)))
        self._array = array.reshape((1,) * (4 - array.ndim) + array.shape)
        super().__init__(path, self._array.shape)

    def _read(self, index: int) -> Tensor:
        return as_tensor(self._array[index])


def open_npy(path: Path) -> Scan:
    """A NumPy array, complex; slices are mapped, not loaded."""
    return NpyScan(path)


def write_npy(path: str | Path, slices: Iterable[Tensor], shape: Sequence[int]) -> None:
    """Slices as one array of ``shape``, one after another: complex64, or float32 if real."""
    numbers = iter(slices)
    first = next(numbers)
    dtype = "<c8" if first.is_complex() else "<f4"
    header = {"descr": dtype, "fortran_order": False, "shape": tuple(shape)}
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        for one in chain([first], numbers):
            stream.write(one.numpy().astype(dtype).tobytes())
