"""One slice of a NIfTI file, as it is looked at."""

import gzip
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kscout.data.arrays import existing_file
from kscout.errors import UserError
from kscout.report import Array
from kscout.report.canvas import height_over_width

SUFFIXES = (".nii", ".nii.gz")


@dataclass(frozen=True)
class NiftiSlice:
    """A slice, anterior up and right to the right as far as the file's affine is true.

    Attributes
    ----------
    images : magnitude, float64 ``(coil, y, x)``
    ratio : height over width of the picture
    index : of the slice, along the axis of space that is nearest to inferior-superior
    n_slices : along that axis
    """

    images: Array
    ratio: float
    index: int
    n_slices: int


def read_nifti_slice(file: Path, index: int | None) -> NiftiSlice:
    """Read a slice, the middle one if ``index`` is None.

    Parameters
    ----------
    file : .nii or .nii.gz, real or complex, ``(y, x, slice)`` or ``(y, x, slice, coil)``
    index : from 0

    Raises
    ------
    UserError
        if the file is missing, foreign or truncated, of another rank, has no such slice, or the
        slice holds NaN or infinity
    """
    existing_file(file)
    try:
        return _read(file, index)
    except UserError:
        raise
    except Exception as error:  # nibabel raises nearly anything on a damaged file
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{file}: is not a readable NIfTI file: {reason}") from error


def checked_index(file: Path, index: int | None, n_slices: int) -> int:
    """``index`` if there is such a slice, the middle one for None, else ``UserError``."""
    if index is None:
        return n_slices // 2
    if not 0 <= index < n_slices:
        raise UserError(f"{file}: slice {index} is out of range: valid is 0 to {n_slices - 1}")
    return index


def _read(file: Path, index: int | None) -> NiftiSlice:
    import nibabel

    volume: Any = nibabel.load(file)
    if not isinstance(volume, nibabel.Nifti1Image):  # as NIfTI-2 is, too
        raise UserError(f"{file}: is not a NIfTI file")
    _check(file, volume)
    orientation = nibabel.io_orientation(volume.affine)
    axes = orientation[:, 0].astype(int).tolist()  # of space, for each axis of the file
    flipped = orientation[:, 1] < 0
    through = axes.index(2)
    n_slices = volume.shape[through]
    index = checked_index(file, index, n_slices)

    place: list[Any] = [slice(None)] * volume.ndim
    place[through] = n_slices - 1 - index if flipped[through] else index
    voxels: Array = np.asarray(volume.dataobj[tuple(place)])
    if not np.isfinite(voxels).all():
        raise UserError(f"{file}: slice {index} holds NaN or infinity")
    voxels = np.abs(voxels) if np.iscomplexobj(voxels) else voxels.astype(np.float64)

    first, second = plane = [axis for axis in range(3) if axis != through]
    size = [float(volume.header.get_zooms()[axis]) for axis in plane]
    voxels = np.flip(voxels, tuple(i for i, axis in enumerate(plane) if flipped[axis]))
    if axes[first] > axes[second]:
        voxels, size = voxels.swapaxes(0, 1), size[::-1]
    # Now to the right and to anterior; rows of a picture run downwards.
    images = np.moveaxis(np.rot90(voxels).reshape(*voxels.shape[1::-1], -1), 2, 0)
    return NiftiSlice(np.ascontiguousarray(images), _ratio(images, size), index, n_slices)


def _ratio(images: Array, size: list[float]) -> float:
    sensible = all(math.isfinite(length) and length > 0 for length in size)
    return height_over_width(images.shape[1:], (size[1], size[0]) if sensible else (1.0, 1.0))


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
