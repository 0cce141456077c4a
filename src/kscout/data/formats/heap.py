"""Data of variable length in HDF5, found and read without the HDF5 library.

A few changed bytes in a global heap make the library loop without end, and no time limit within a
process can stop it; and it keeps every collection that it has read in memory. So entries are looked
up here (HDF5 file format specification 3.0, section III.E), and read where they lie.
"""

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from kscout.errors import UserError

ENTRY = np.dtype([("offset", "i8"), ("size", "i8")])
"""Where in the file the bytes of an entry lie, and how many there are."""

_REFERENCE = np.dtype([("length", "<u4"), ("address", "<u8"), ("index", "<u4")])
_COLLECTION = struct.Struct("<4sB3xQ")
_OBJECT = struct.Struct("<HH4xQ")


def find_entries(path: Path, dataset: h5py.Dataset, field: str | None = None) -> np.ndarray:
    """Where the data of variable length of a dataset lie.

    Parameters
    ----------
    path : of the file
    dataset : of at most one axis, of strings or lists, or of compounds with a ``field`` of them

    Returns
    -------
    array of :data:`ENTRY`, one for each entry of the dataset

    Raises
    ------
    UserError
        if a collection of the heap is damaged, or lacks an entry or has it in another length; or
        if the dataset is compressed
    """
    kind = dataset.dtype if field is None else dataset.dtype[field]
    is_text = h5py.check_string_dtype(kind) is not None
    item_size = 1 if is_text else h5py.check_vlen_dtype(kind).itemsize
    entries = np.zeros(dataset.size, ENTRY)
    wanted: dict[int, list[tuple[int, int]]] = {}
    for start, references in stored(path, dataset, field, _REFERENCE):
        sizes = references["length"] * np.int64(item_size)
        entries["size"][start : start + len(sizes)] = sizes
        for number, (length, address, index) in enumerate(references.tolist(), start):
            if length:
                wanted.setdefault(address, []).append((number, index))
    with path.open("rb") as stream:
        for address, numbers in wanted.items():
            objects = _objects(path, stream.fileno(), address)
            for number, index in numbers:
                offset, size = objects.get(index, (0, -1))
                if size != entries["size"][number]:
                    raise _damaged(path)
                entries["offset"][number] = offset
    return entries


def _damaged(path: Path) -> UserError:
    return UserError(f"{path}: is truncated or damaged: its data of variable length are broken")


def stored(
    path: Path, dataset: h5py.Dataset, field: str | None, dtype: np.dtype[Any]
) -> Iterator[tuple[int, np.ndarray]]:
    """Entries of a dataset, or one field of them, as they are stored: no data of variable length.

    (The library reads those even where only another field is asked for.)

    Parameters
    ----------
    path : of the file
    dataset : of at most one axis, not compressed
    field : of its compounds, or None for all of an entry
    dtype : of what is stored

    Returns
    -------
    number of the first entry, and some entries of ``dtype``
    """
    offset, stride = 0, dtype.itemsize
    if field is not None:
        compound = dataset.id.get_type()
        offset = compound.get_member_offset(compound.get_member_index(field.encode()))
        stride = compound.get_size()
    if stride < offset + dtype.itemsize:
        raise _damaged(path)
    n_file = path.stat().st_size
    with path.open("rb") as stream:
        for start, at, n in _pieces(path, dataset):
            if at + n * stride > n_file:  # before memory is taken
                raise _damaged(path)
            raw = os.pread(stream.fileno(), n * stride, at)
            rows = np.frombuffer(raw, np.uint8).reshape(n, stride)
            part = np.ascontiguousarray(rows[:, offset : offset + dtype.itemsize])
            yield start, part.view(dtype)[:, 0]


def _pieces(path: Path, dataset: h5py.Dataset) -> list[tuple[int, int, int]]:
    """Stretches of entries that lie together: number of the first, place in the file, how many."""
    creation = dataset.file.id.get_create_plist()
    if creation.get_sizes() != (8, 8) or creation.get_userblock() != 0:
        raise UserError(f"{path}: has addresses that are not of 8 bytes from its start on")
    if dataset.id.get_create_plist().get_nfilters() != 0:
        raise UserError(f"{path}: '{dataset.name}' is compressed: h5repack -f NONE undoes it")
    if dataset.chunks is None:
        start = dataset.id.get_offset()
        if start is None:
            raise UserError(f"{path}: '{dataset.name}' has no data of its own")
        return [(0, start, dataset.size)]
    pieces: list[tuple[int, int, int]] = []
    (n,) = dataset.chunks

    def add(chunk: h5py.h5d.StoreInfo) -> None:
        (first,) = chunk.chunk_offset
        pieces.append((first, chunk.byte_offset, min(n, dataset.size - first)))

    dataset.id.chunk_iter(add)
    if any(not 0 <= first < dataset.size for first, _, _ in pieces):
        raise _damaged(path)
    return pieces


def _objects(path: Path, file: int, address: int) -> dict[int, tuple[int, int]]:
    """Place in the file and size of the objects of a collection, by index."""
    n_file = path.stat().st_size
    if address + _COLLECTION.size > n_file:
        raise _damaged(path)
    signature, version, size = _COLLECTION.unpack(os.pread(file, _COLLECTION.size, address))
    if signature != b"GCOL" or version != 1 or address + size > n_file:
        raise _damaged(path)
    found: dict[int, tuple[int, int]] = {}
    at = _COLLECTION.size
    while size - at >= _OBJECT.size:
        index, _, n = _OBJECT.unpack(os.pread(file, _OBJECT.size, address + at))
        # Number 0 is free space, whose size counts its own header.
        step = n if index == 0 else _OBJECT.size + -(-n // 8) * 8
        if not _OBJECT.size <= step <= size - at:
            raise _damaged(path)
        found[index] = (address + at + _OBJECT.size, n)
        at += step
    return found
