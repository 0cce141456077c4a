"""Samples off the grid and their trajectory, from ``.npy`` files or BART's ``.cfl``."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kscout.data.arrays import existing_file, map_npy
from kscout.data.formats.bart import COIL, READOUT, SLICE, map_cfl, only_dimensions
from kscout.data.formats.layouts import SAMPLE_LAYOUTS, as_tensor, complaint
from kscout.errors import UserError


def open_samples(path: str | Path) -> np.ndarray:
    """Samples of a scan, in the file until they are looked at.

    Parameters
    ----------
    path : ``.npy``, complex ``(coil, sample)`` or ``(slice, coil, sample)``; or ``.cfl``, with
        BART's dimensions 0 to 2 the samples, 3 coils and 13 slices

    Returns
    -------
    complex ``(slice, coil, sample)``

    Raises
    ------
    UserError
        if the file is missing, damaged, of another format or of another shape
    """
    path = existing_file(path)
    if path.suffix == ".npy":
        array = map_npy(path, lambda shape, dtype: complaint(shape, dtype, (2, 3), SAMPLE_LAYOUTS))
        return array.reshape((1,) * (3 - array.ndim) + array.shape)
    if path.suffix != ".cfl":
        raise UserError(f"{path}: samples off the grid are read from .npy and .cfl")
    data = map_cfl(path)
    only_dimensions(path, data.shape, (*range(COIL + 1), SLICE))
    n_samples = int(np.prod(data.shape[:COIL]))
    return data.reshape((n_samples, data.shape[COIL], data.shape[SLICE]), order="F").T


def read_trajectory(path: str | Path) -> Tensor:
    """Where samples lie in k-space.

    Parameters
    ----------
    path : ``.npy``, real ``(sample, 2)``; or ``.cfl``, with BART's dimension 0 of three
        coordinates, the third of them zero, and 1 and 2 the samples

    Returns
    -------
    float32 ``(sample, 2)``, (ky, kx) in cycles per field of view, DC at (0, 0)

    Raises
    ------
    UserError
        if the file is missing, damaged, of another format or shape, not finite, or not in a plane
    """
    path = existing_file(path)
    if path.suffix == ".npy":
        array = np.asarray(map_npy(path, _trajectory_complaint), np.float32)
    elif path.suffix == ".cfl":
        data = map_cfl(path)
        only_dimensions(path, data.shape, range(COIL))
        if data.shape[READOUT] != 3:
            raise UserError(f"{path}: dimension 0 has {data.shape[READOUT]}: a trajectory has 3")
        places = np.real(data).reshape((3, -1), order="F")
        if np.any(places[2]):
            raise UserError(f"{path}: leaves the plane: valid is zero as its third coordinate")
        array = np.asarray(places[:2].T, np.float32)
    else:
        raise UserError(f"{path}: a trajectory is read from .npy and .cfl")
    trajectory = torch.from_numpy(np.array(array, order="C"))
    if not trajectory.isfinite().all():
        raise UserError(f"{path}: holds NaN or infinity")
    return trajectory


def _trajectory_complaint(shape: tuple[int, ...], dtype: np.dtype) -> str:
    if dtype.kind not in "fiu" or len(shape) != 2 or shape[1] != 2:
        return f"is {dtype} {shape}: a trajectory is real (sample, 2)"
    return ""


def samples_of(samples: np.ndarray, index: int, path: Path) -> Tensor:
    """One slice of :func:`open_samples`, complex64 ``(coil, sample)``; finite or ``UserError``."""
    with np.errstate(over="ignore", invalid="ignore"):
        one = as_tensor(samples[index])
    if not torch.isfinite(torch.view_as_real(one)).all():
        raise UserError(f"{path}: slice {index} holds NaN or infinity")
    return one
