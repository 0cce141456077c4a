"""HDF5 files that a user feeds: opened and checked before they take memory."""

import math
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from kscout.data.formats.heap import find_entries
from kscout.data.formats.scan import damage_told
from kscout.errors import UserError

MOST_COMPRESSION = 100
"""Measured k-space hardly compresses; a file that claims more than this is not believed."""


def open_hdf5(path: Path) -> h5py.File:
    """An HDF5 file, to be read; ``UserError`` if it is none or is damaged."""
    try:
        return h5py.File(path, "r")
    except Exception as error:  # h5py raises nearly anything on a damaged file
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path}: is not a readable HDF5 file: {reason}") from error


def member(group: h5py.Group, name: str, path: Path) -> Any:
    """What lies in ``group`` under ``name``, or None.

    Links to other files are never followed, nor are data that lie in other files: a file from
    somebody else must not show what else is on this machine.
    """
    with damage_told(path, "is not a readable HDF5 file"):
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            return None
        found = group[name]
        elsewhere = isinstance(found, h5py.Dataset) and (found.is_virtual or found.external)
    if elsewhere:
        raise UserError(f"{path}: '{name}' keeps its data in other files, which are not opened")
    return found


_NUMBERS = tuple(
    getattr(h5py.h5t, f"{name}{order}")
    for order in ("LE", "BE")
    for name in (
        *("IEEE_F16", "IEEE_F32", "IEEE_F64"),
        *(f"STD_{kind}{bits}" for kind in "IU" for bits in (8, 16, 32, 64)),
    )
)
"""The numbers that files hold. To convert others, as damage makes them, has crashed the library."""


def is_plain(kind: Any) -> bool:
    """Whether a type is made of :data:`_NUMBERS` and strings alone."""
    match kind.get_class():
        case h5py.h5t.INTEGER | h5py.h5t.FLOAT:
            return any(kind.equal(number) for number in _NUMBERS)
        case h5py.h5t.COMPOUND:
            return all(is_plain(kind.get_member_type(i)) for i in range(kind.get_nmembers()))
        case h5py.h5t.ARRAY | h5py.h5t.VLEN | h5py.h5t.ENUM:
            return is_plain(kind.get_super())
        case other:
            return bool(other == h5py.h5t.STRING)


def check_size(dataset: h5py.Dataset, path: Path) -> None:
    """``UserError`` if a dataset is empty, odd, or announces more than the file can hold."""
    name = str(dataset.name).strip("/")
    with damage_told(path, f"dataset '{name}' cannot be read"):
        if not is_plain(dataset.id.get_type()):
            raise UserError(f"{path}, dataset '{name}': its numbers are of no usual type")
        shape, item = dataset.shape or (), dataset.dtype.itemsize
        chunk = math.prod(dataset.chunks) * item if dataset.chunks else 0
        stored = min(dataset.id.get_storage_size(), path.stat().st_size)
    if dataset.shape is None or min(shape, default=1) < 1:
        raise UserError(f"{path}, dataset '{name}': is empty, its shape is {dataset.shape}")
    n_bytes = math.prod(shape) * item
    factor = 1 if chunk == 0 else MOST_COMPRESSION
    if max(n_bytes, chunk) > factor * stored:
        raise UserError(
            f"{path}, dataset '{name}': is truncated or damaged: its header announces {n_bytes} "
            f"bytes of data and {stored} are there"
        )


def small_array(dataset: Any, path: Path, most: int = 2**20) -> np.ndarray | None:
    """A small dataset of numbers, or None if it is anything else."""
    if not isinstance(dataset, h5py.Dataset):
        return None
    with damage_told(path, f"'{dataset.name}' cannot be read"):
        if dataset.dtype.kind not in "biufc" or not 0 < (dataset.size or 0) <= most:
            return None
        check_size(dataset, path)
        return np.asarray(dataset[()])


def text(dataset: Any, path: Path) -> bytes | None:
    """The string that a dataset holds, alone or as its only entry, or None."""
    if not isinstance(dataset, h5py.Dataset):
        return None
    with damage_told(path, f"'{dataset.name}' cannot be read"):
        if h5py.check_string_dtype(dataset.dtype) is None or dataset.shape not in ((), (1,)):
            return None
        check_size(dataset, path)
        if dataset.dtype.kind == "S":
            return bytes(np.asarray(dataset[()]).item())
        (entry,) = find_entries(path, dataset)
        with path.open("rb") as stream:
            return os.pread(stream.fileno(), int(entry["size"]), int(entry["offset"]))
