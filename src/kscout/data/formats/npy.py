"""k-space in ``.npy`` files."""

from collections.abc import Iterable, Sequence
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
    """Slices ``(coil, ky, kx)`` as one complex64 array of ``shape``, one after another."""
    header = {"descr": "<c8", "fortran_order": False, "shape": tuple(shape)}
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        for one in slices:
            stream.write(one.numpy().astype("<c8").tobytes())
