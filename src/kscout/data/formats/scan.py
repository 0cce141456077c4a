"""What a file of k-space holds, read slice by slice whatever the format."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import torch
from torch import Tensor

from kscout.data.slices import Geometry
from kscout.errors import UserError
from kscout.physics.fourier import centre_block, kspace_to_image

Advance = Callable[[int, int], None]
"""Called with how many slices are done, and of how many."""

MOST_ZEROS = 100
"""A file's data may be so many times smaller than the planes that its header announces: more is
neither undersampling nor compression, and not believed."""

MOST_ACCIDENTAL = 1e-3
"""Of a slice's points that may be zero in all coils and yet have been acquired."""

TRANSFORMED = "3D: the readout is transformed, and slices are its positions, written ones too"
"""Said of scans with two phase encodings."""

MOST_MM = 1e6
"""No voxel, and no place of one, is so large or so far away."""

UNKNOWN = Geometry()
"""Square pixels of 1 mm that need no turn."""

_BLOCK_BYTES = 256 * 2**20
"""Of slices that are held at once where one pass over a file yields several."""


class Scan(ABC):
    """One open file of k-space.

    Memory does not grow with the number of slices: :meth:`read` reads one from the file. Use it as
    a context manager, or :meth:`close` it.

    Parameters
    ----------
    path : of the file
    shape : ``(slice, coil, ky, kx)``
    geometry : of the slices, as far as the file says
    notes : what somebody who uses the file should know, in words
    simulated : whether the k-space was computed from magnitude images

    Attributes
    ----------
    path, geometry, notes, simulated : as above
    calibration : bool ``(ky, kx)``, the points that the file marks as ACS, or None
    affine : float ``(4, 4)``, from voxels (axis 0, axis 1, slice) of the whole plane to millimetres
        as in NIfTI, or None where the file does not say
    reference : a separate scan of the same coils and slices on the same plane, which others than
        this are calibrated on, or None
    points_of_slices : the fewest and the most that a slice has, where the file says or once
        :meth:`sampled` had to read them all; silent slices are not counted
    image_matrix : rows and columns of the middle of an image that the scan was to show; what is
        around them was encoded as oversampling
    """

    calibration: Tensor | None = None
    affine: np.ndarray | None = None
    reference: "Scan | None" = None

    def __init__(
        self,
        path: Path,
        shape: Sequence[int],
        geometry: Geometry = UNKNOWN,
        notes: Sequence[str] = (),
        *,
        simulated: bool = False,
    ) -> None:
        self.path, self.geometry, self.simulated = path, geometry, simulated
        self.notes = tuple(notes)
        self.n_slices, self.n_coils, ky, kx = (int(n) for n in shape)
        self.plane = self.image_matrix = (ky, kx)
        self._sampled: Tensor | None = None
        self.points_of_slices: tuple[int, int] | None = None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """``(slice, coil, ky, kx)``."""
        return (self.n_slices, self.n_coils, *self.plane)

    def read(self, index: int) -> Tensor:
        """One slice, with zeros where nothing was acquired.

        Returns
        -------
        complex64 ``(coil, ky, kx)``

        Raises
        ------
        UserError
            if there is no such slice, it cannot be read, or it holds NaN or infinity
        """
        if not 0 <= index < self.n_slices:
            valid = f"valid is 0 to {self.n_slices - 1}"
            raise UserError(f"{self.path}: slice {index} is out of range: {valid}")
        with (
            damage_told(self.path, f"slice {index} cannot be read"),
            np.errstate(over="ignore", invalid="ignore"),
        ):
            kspace = self._read(index)
        if not torch.isfinite(torch.view_as_real(kspace)).all():
            raise UserError(f"{self.path}: slice {index} holds NaN or infinity")
        return kspace

    @abstractmethod
    def _read(self, index: int) -> Tensor:
        """Slice ``index``, which exists: complex64 ``(coil, ky, kx)``."""

    def coil_images(self, kspace: Tensor) -> Tensor:
        """What the scan was to show: complex ``(..., ky, kx)`` to ``(..., y, x)``."""
        rows, columns = centre_block(self.plane, self.image_matrix)
        return kspace_to_image(kspace)[..., rows, columns]

    def _show_only(self, matrix: tuple[int, int]) -> None:
        """Crop images, and say so."""
        self.image_matrix = matrix
        if matrix != self.plane:
            shown, whole = (f"{y} x {x}" for y, x in (matrix, self.plane))
            note = f"images show the middle {shown} of {whole}: the rest is oversampling"
            self.notes += (note,) * (note not in self.notes)

    def __iter__(self) -> Iterator[Tensor]:
        return (self.read(index) for index in range(self.n_slices))

    def read_all(self) -> Tensor:
        """All slices at once, complex64 ``(slice, coil, ky, kx)``; raises as :meth:`read`."""
        kspace = torch.empty(self.shape, dtype=torch.complex64)
        for index, one in enumerate(self):
            kspace[index] = one
        return kspace

    def sampled(self, advance: Advance | None = None) -> Tensor:
        """Which points were acquired in some slice, bool ``(ky, kx)``.

        Where the file does not say, all of its slices are read, and points count that are not zero
        in some coil of some slice.
        """
        if self._sampled is None:
            self._sampled = self._find_sampled(advance or (lambda done, total: None))
        return self._sampled

    def _find_sampled(self, advance: Advance) -> Tensor:
        points, counts = torch.zeros(self.plane, dtype=torch.bool), []
        for index, kspace in enumerate(self):
            found = sampled_points(kspace)
            points |= found
            counts += [int(found.sum())] if found.any() else []
            advance(index + 1, self.n_slices)
        self.points_of_slices = (min(counts), max(counts)) if counts else None
        return points

    def uneven(self) -> str:
        """That slices have other points than each other, in words, as far as they were read."""
        few, most = self.points_of_slices or (0, 0)
        whole = int(self.sampled().sum())
        if self.points_of_slices is None or few >= (1 - MOST_ACCIDENTAL) * whole:
            return ""
        between = f"{few}" if few == most else f"{few} to {most}"
        return f"slices differ: each has {between} points, and all of them together {whole}"

    def noise(self) -> Tensor | None:
        """Samples of noise alone, complex64 ``(coil, sample)``; None if the file has none."""
        return None

    def close(self) -> None:
        """Close the file, where it is still open."""
        return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class BlockCache:
    """Slices that come from the file many at a time, of which the last block is kept.

    Reading in order then takes one pass over the file for each block, not for each slice.

    Parameters
    ----------
    n_slices : of the scan
    slice_bytes : of one of them in memory
    load : reads a range of slices, complex64 ``(slice, coil, ky, kx)``
    """

    def __init__(self, n_slices: int, slice_bytes: int, load: Callable[[range], Tensor]) -> None:
        self._n, self._load = n_slices, load
        self._size = max(1, min(n_slices, _BLOCK_BYTES // max(1, slice_bytes)))
        self._held, self._number = torch.empty(0), -1

    def __getitem__(self, index: int) -> Tensor:
        number, place = divmod(index, self._size)
        if number != self._number:
            start = number * self._size
            self._held = torch.empty(0)  # two blocks at once would be twice the memory
            self._held = self._load(range(start, min(start + self._size, self._n)))
            self._number = number
        return self._held[place].clone(memory_format=torch.contiguous_format)


@contextmanager
def damage_told(path: Path, what: str) -> Iterator[None]:
    """Whatever a library raises on a damaged file becomes one line.

    Parameters
    ----------
    path : of the file
    what : is said, such as "its header cannot be read"

    Raises
    ------
    UserError
        for any other exception
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # readers of HDF5, XML and NIfTI raise nearly anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{path}: {what}: {reason}") from error


@contextmanager
def slice_told(path: Path, index: int) -> Iterator[None]:
    """``UserError`` of a slice's work says which slice of which file it was."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{path}: slice {index}: {error}") from error


def refuse_large_arrays(path: Path, shape: Sequence[int]) -> None:
    """``UserError`` where a file is far too small for an array of complex64."""
    n_bytes = 8 * int(np.prod([int(n) for n in shape], dtype=object))
    there = path.stat().st_size
    if n_bytes > MOST_ZEROS * there:
        size = "x".join(str(n) for n in shape)
        raise UserError(
            f"{path}: is truncated or damaged: its header announces {size} points at once, and "
            f"the file has {there} bytes"
        )


def is_affine(affine: np.ndarray) -> bool:
    """Whether an array says where voxels lie, ``(4, 4)`` as in NIfTI, in a way that can be."""
    if affine.shape != (4, 4) or not (np.abs(affine) < MOST_MM).all():
        return False
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    if not (affine[3] == (0, 0, 0, 1)).all() or sizes.min() < 1 / MOST_MM:
        return False
    return abs(np.linalg.det(affine[:3, :3] / sizes)) > 1e-6


def picture_axes(affine: np.ndarray, quarter_turns: int) -> tuple[np.ndarray, np.ndarray]:
    """Where down and right are in a picture that was turned, as :class:`Geometry` says."""
    down, right = affine[:3, 0], affine[:3, 1]
    for _ in range(quarter_turns % 4):
        down, right = -right, down
    return down, right


def sampled_points(kspace: Tensor) -> Tensor:
    """Which points were acquired: those that are not zero in some coil of some slice.

    Parameters
    ----------
    kspace : complex ``(..., ky, kx)``

    Returns
    -------
    bool ``(ky, kx)``
    """
    return (kspace != 0).reshape(-1, *kspace.shape[-2:]).any(0)
