"""``.cfl`` and ``.hdr`` of BART (Uecker et al. 2015, Proc. ISMRM 23:2486)."""

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kscout.atomic import atomic_path
from kscout.data.formats.layouts import as_tensor
from kscout.data.formats.scan import TRANSFORMED, BlockCache, Scan
from kscout.errors import UserError
from kscout.physics.fourier import readout_to_space

N_DIMS = 16
READOUT, PHASE, PHASE_2, COIL, SLICE = 0, 1, 2, 3, 13
"""Places of axes among BART's dimensions, of which the first changes fastest."""

_NAMES = (
    *("readout", "phase 1", "phase 2", "coil", "maps", "echo", "coefficient", "coefficient 2"),
    *("iteration", "cardiac phase", "time", "time 2", "level", "slice", "average", "batch"),
)
_MOST_HEADER = 65536


class CflPlanes(Scan):
    """Slices of (readout, phase encode)."""

    def __init__(self, path: Path, data: np.ndarray) -> None:
        self._data = data
        shape = data.shape
        super().__init__(path, (shape[SLICE], shape[COIL], shape[READOUT], shape[PHASE]))

    def _read(self, index: int) -> Tensor:
        plane = self._data[:, :, 0, :, 0, 0, 0, 0, 0, 0, 0, 0, 0, index, 0, 0]
        return as_tensor(plane.transpose(2, 0, 1))


class CflVolume(Scan):
    """A volume of two phase encodings: slices are positions along the transformed readout."""

    def __init__(self, path: Path, data: np.ndarray) -> None:
        n, ky, kz, n_coils = data.shape[: COIL + 1]
        self._data = data.reshape(data.shape[: COIL + 1], order="F")
        self._blocks = BlockCache(n, 8 * n_coils * ky * kz, self._load)
        super().__init__(path, (n, n_coils, ky, kz), notes=(TRANSFORMED,) * (n > 1))

    def _load(self, positions: range) -> Tensor:
        shape = (len(positions), *self.shape[1:])
        block = torch.empty(shape, dtype=torch.complex64)
        for coil in range(self.n_coils):
            for partition in range(self.plane[1]):
                readouts = as_tensor(self._data[:, :, partition, coil].T)
                space = readout_to_space(readouts)[:, positions.start : positions.stop]
                block[:, coil, :, partition] = space.T
        return block

    def _read(self, index: int) -> Tensor:
        return self._blocks[index]


def open_cfl(path: Path) -> Scan:
    """BART's dimensions: 0 readout, 1 and 2 phase encoding, 3 coil, 13 slice.

    With two phase encodings the readout is transformed, and slices are its positions.

    Raises
    ------
    UserError
        if the header is missing or damaged, the data have another size, or another dimension has
        more than one entry
    """
    data = map_cfl(path)
    dims = data.shape
    only_dimensions(path, dims, (READOUT, PHASE, PHASE_2, COIL, SLICE))
    if dims[PHASE_2] > 1 and dims[SLICE] > 1:
        raise UserError(
            f"{path}: dimensions 2 ({dims[PHASE_2]}) and 13 ({dims[SLICE]}) are both more than 1: "
            "valid are two phase encodings, or slices"
        )
    scan = CflVolume(path, data) if dims[PHASE_2] > 1 else CflPlanes(path, data)
    if dims[READOUT] == 1 and dims[PHASE] > 1:
        scan.notes += (
            "dimension 0 has 1: it is taken for one position of a transformed readout; samples off "
            "the grid need kscout recon FILE --trajectory PLACES",
        )
    return scan


def map_cfl(path: Path) -> np.ndarray:
    """The data of a ``.cfl`` with BART's 16 dimensions, in the file until they are looked at."""
    return np.memmap(path, "<c8", "r", shape=tuple(_read_header(path)), order="F")


def only_dimensions(path: Path, dims: Sequence[int], valid: Sequence[int]) -> None:
    """``UserError`` where another dimension than the valid ones has more than one entry."""
    other = [f"{i} ({_NAMES[i]}) has {n}" for i, n in enumerate(dims) if n > 1 and i not in valid]
    if other:
        said = ", ".join(str(i) for i in valid)
        raise UserError(
            f"{path}: dimension {', '.join(other)}: valid is 1 in all but {said} "
            "(bart slice takes one out)"
        )


def _read_header(path: Path) -> list[int]:
    """BART's dimensions, which multiply to the size of the data."""
    header = path.with_suffix(".hdr")
    try:
        if header.stat().st_size > _MOST_HEADER:
            raise UserError(f"{header}: is too long for a header of BART")
        lines = header.read_text("ascii").splitlines()
    except OSError as error:
        raise UserError(
            f"{path}: its header {header.name} cannot be read: {error.strerror}"
        ) from None
    except UnicodeDecodeError:
        raise UserError(f"{header}: is no header of BART") from None
    said = next((b for a, b in pairwise(lines) if a == "# Dimensions"), "")
    words = said.split()
    if not 1 <= len(words) <= N_DIMS or not all(w.isdigit() and len(w) < 16 for w in words):
        raise UserError(f"{header}: has no dimensions: '# Dimensions' and 16 numbers are needed")
    dims = [int(word) for word in words] + [1] * (N_DIMS - len(words))
    n_bytes, there = 8 * math.prod(dims), path.stat().st_size
    if min(dims) < 1 or n_bytes != there:
        raise UserError(
            f"{path}: is truncated or damaged: its header announces {n_bytes} bytes of data and "
            f"{there} are there"
        )
    return dims


def write_cfl(path: str | Path, slices: Iterable[Tensor], shape: Sequence[int]) -> None:
    """Slices for BART, as :func:`open_cfl` reads them.

    Parameters
    ----------
    path : of the ``.cfl`` file; the ``.hdr`` is written beside it
    slices : real or complex ``(coil, ky, kx)``
    shape : ``(slice, coil, ky, kx)``

    Raises
    ------
    UserError
        if a file cannot be written
    """
    path = Path(path)
    dims = [1] * N_DIMS
    dims[SLICE], dims[COIL], dims[READOUT], dims[PHASE] = shape
    with atomic_path(path.with_suffix(".hdr")) as header, atomic_path(path) as temporary:
        with temporary.open("wb") as stream:
            for one in slices:
                array = np.asarray(one.permute(1, 2, 0).resolve_conj(), dtype="<c8")
                stream.write(array.tobytes("F"))
        header.write_text(f"# Dimensions\n{' '.join(map(str, dims))} \n", "ascii")
