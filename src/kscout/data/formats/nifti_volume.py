"""NIfTI files, slice by slice, as they are looked at."""

import gzip
import math
from pathlib import Path
from typing import Any

import numpy as np

from kscout.data.arrays import existing_file
from kscout.data.formats.scan import damage_told, is_affine
from kscout.errors import UserError

SUFFIXES = (".nii", ".nii.gz")
_DAMAGED = "is not a readable NIfTI file"


class NiftiVolume:
    """Slices, anterior up and right to the right as far as the file's affine is true.

    Parameters
    ----------
    path : .nii or .nii.gz, real or complex, ``(y, x, slice)`` or ``(y, x, slice, coil)``

    Attributes
    ----------
    n_slices : along the axis of space that is nearest to inferior-superior
    n_images : along the fourth axis, if there is one
    plane : ``(y, x)`` of a picture
    is_complex : whether values are complex
    voxel_size : of a pixel along (y, x) in mm, or None where the file says nothing sensible
    thickness : between slices in mm, or None
    affine : float ``(4, 4)``, from (y, x, slice) to millimetres, or None if it is not said

    Raises
    ------
    UserError
        if the file is missing, foreign or truncated, or of another rank
    """

    def __init__(self, path: Path) -> None:
        self._path = existing_file(path)
        with damage_told(path, _DAMAGED):
            self._open()

    def _open(self) -> None:
        import nibabel

        # A compressed file that stays open need not be read from its start for every slice.
        volume: Any = nibabel.load(self._path, keep_file_open=True)
        if not isinstance(volume, nibabel.Nifti1Image):  # as NIfTI-2 is, too
            raise UserError(f"{self._path}: is not a NIfTI file")
        _check(self._path, volume)
        self._volume = volume
        orientation = nibabel.io_orientation(volume.affine)
        self._axes = orientation[:, 0].astype(int).tolist()  # of space, for each axis of the file
        self._flipped = orientation[:, 1] < 0
        self._through = self._axes.index(2)
        first, second = plane = [axis for axis in range(3) if axis != self._through]
        # Pictures have the right to the right and anterior up, so x comes last.
        self._swapped = self._axes[first] > self._axes[second]
        y, x = (first, second) if self._swapped else (second, first)
        self._in_plane = plane
        self.n_slices = int(volume.shape[self._through])
        self.n_images = int(math.prod(volume.shape[3:]))
        self.plane = (int(volume.shape[y]), int(volume.shape[x]))
        self.is_complex = volume.get_data_dtype().kind == "c"
        sizes = [float(size) for size in volume.header.get_zooms()[:3]]
        sensible = all(math.isfinite(size) and size > 0 for size in sizes)
        self.voxel_size = (sizes[y], sizes[x]) if sensible else None
        self.thickness = sizes[self._through] if sensible else None
        self.affine = self._affine() if _is_placed(volume) else None

    def _affine(self) -> np.ndarray:
        """Of :meth:`slice`, which flips and turns axes of the file."""
        to_file = np.zeros((4, 4))
        to_file[3, 3] = 1
        # Columns of a picture go to the right, rows to posterior, slices up.
        for column, axis, is_reversed in (
            (1, self._axes.index(0), False),
            (0, self._axes.index(1), True),
            (2, self._through, False),
        ):
            backwards = bool(self._flipped[axis]) != is_reversed
            to_file[axis, column] = -1 if backwards else 1
            to_file[axis, 3] = self._volume.shape[axis] - 1 if backwards else 0
        found: np.ndarray = self._volume.affine @ to_file
        return found

    def slice(self, index: int) -> np.ndarray:
        """Slice ``index``, which exists: float64 or complex128 ``(image, y, x)``.

        Raises
        ------
        UserError
            if it cannot be read, or holds NaN or infinity
        """
        place: list[Any] = [slice(None)] * self._volume.ndim
        flipped = self._flipped[self._through]
        place[self._through] = self.n_slices - 1 - index if flipped else index
        with damage_told(self._path, _DAMAGED):
            voxels = np.asarray(self._volume.dataobj[tuple(place)])
            voxels = voxels.astype(np.complex128 if self.is_complex else np.float64)
        if not np.isfinite(voxels).all():
            raise UserError(f"{self._path}: slice {index} holds NaN or infinity")
        turned = [i for i, axis in enumerate(self._in_plane) if self._flipped[axis]]
        voxels = np.flip(voxels, tuple(turned))
        if self._swapped:
            voxels = voxels.swapaxes(0, 1)
        # Now to the right and to anterior; rows of a picture run downwards.
        images = np.rot90(voxels).reshape(*self.plane, -1)
        return np.ascontiguousarray(np.moveaxis(images, 2, 0))


def _is_placed(volume: Any) -> bool:
    """Whether the file says where its voxels lie, in a way that can be."""
    header, affine = volume.header, volume.affine
    said = int(header["sform_code"]) > 0 or int(header["qform_code"]) > 0
    return said and is_affine(affine)


def _check(file: Path, volume: Any) -> None:
    dtype = volume.get_data_dtype()
    if dtype.kind not in "iufc":
        raise UserError(f"{file}: its dtype is {dtype}: valid are real and complex numbers")
    shape = tuple(volume.shape)
    if len(shape) not in (3, 4) or min(shape) < 1:
        valid = "(y, x, slice) or (y, x, slice, coil)"
        raise UserError(f"{file}: its shape is {shape}: valid is {valid}")
    n_bytes = int(volume.dataobj.offset) + math.prod(shape) * dtype.itemsize
    n_there = _n_bytes(file, n_bytes)
    if n_there < n_bytes:
        raise UserError(
            f"{file}: is truncated or damaged: its header announces {n_bytes} bytes and {n_there} "
            "are there"
        )


def _n_bytes(file: Path, enough: int) -> int:
    """Bytes in the file, uncompressed; counting stops at ``enough``."""
    if file.suffix != ".gz":
        return file.stat().st_size
    n = 0
    with gzip.open(file) as stream:
        while n < enough and (chunk := stream.read(2**20)):
            n += len(chunk)
    return n
