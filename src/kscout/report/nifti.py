"""One slice of a NIfTI file, as it is looked at."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kscout.data.formats.nifti_volume import NiftiVolume
from kscout.errors import UserError
from kscout.report import Array
from kscout.report.canvas import height_over_width


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
    volume = NiftiVolume(file)
    index = checked_index(file, index, volume.n_slices)
    images = volume.slice(index)
    ratio = height_over_width(volume.plane, volume.voxel_size or (1.0, 1.0), 0)
    magnitude = np.abs(images) if volume.is_complex else images
    return NiftiSlice(magnitude, ratio, index, volume.n_slices)


def checked_index(file: Path, index: int | None, n_slices: int) -> int:
    """``index`` if there is such a slice, the middle one for None, else ``UserError``."""
    if index is None:
        return n_slices // 2
    if not 0 <= index < n_slices:
        raise UserError(f"{file}: slice {index} is out of range: valid is 0 to {n_slices - 1}")
    return index
