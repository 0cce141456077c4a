"""Masks from files."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kscout.errors import UserError


def read_mask(path: str | Path) -> Tensor:
    """A mask from a NumPy file.

    Parameters
    ----------
    path : .npy file of bool, or of the numbers 0 and 1, ``(ky, kx)``

    Returns
    -------
    bool ``(ky, kx)``

    Raises
    ------
    UserError
        if the file cannot be read, or its array is not a plane, not binary, or acquires nothing
    """
    if Path(path).exists() and Path(path).suffix != ".npy":
        raise UserError(
            f"{path}: valid here is a mask as .npy, which kscout mask convert makes of others"
        )
    try:  # mapped, so that a header which promises too much takes no memory
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"mask file {path} does not exist") from None
    except OSError as error:
        raise UserError(f"cannot read mask file {path}: {error.strerror or error}") from None
    except Exception:  # a damaged header is parsed as Python, and fails in as many ways
        raise UserError(
            f"cannot read mask file {path} as .npy: damaged, of another format or full of objects"
        ) from None
    if not isinstance(array, np.ndarray):
        raise UserError(f"mask file {path} is an .npz archive: valid is one array in an .npy file")
    return checked_mask(array, path)


def checked_mask(array: np.ndarray, path: str | Path) -> Tensor:
    """A mask of numbers, bool ``(ky, kx)``; ``UserError`` with the file's name if it is none."""
    if array.ndim != 2:
        raise UserError(f"mask file {path} has shape {array.shape}: valid is (ky, kx)")
    if array.dtype.kind not in "biuf" or not np.isin(array, (0, 1)).all():
        raise UserError(
            f"mask file {path} ({array.dtype}) is not binary: valid is bool, or only 0 and 1"
        )
    if not array.any():
        raise UserError(f"mask file {path} acquires no point: valid is 1 or more")
    return torch.from_numpy(array.astype(bool))
