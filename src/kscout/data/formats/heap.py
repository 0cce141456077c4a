"""Data of variable length in HDF5, looked at before the HDF5 library reads them.

A few changed bytes in a global heap make the library loop without end, and no time limit within a
process can stop it. So the chain of objects in each collection is walked here first (HDF5 file
format specification 3.0, section III.E), reading their headers alone.
"""

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from kscout.errors import UserError

_REFERENCE = np.dtype([("length", "<u4"), ("address", "<u8"), ("index", "<u4")])
_COLLECTION = struct.Struct("<4sB3xQ")
_OBJECT = struct.Struct("<HH4xQ")


def check_heap(path: Path, dataset: h5py.Dataset, field: str | None = None) -> None:
    """Refuse data of variable length that are not where the dataset says.

    Parameters
    ----------
    path : of the file
    dataset : of strings or lists, or of compounds with a ``field`` of them

    Raises
    ------
    UserError
        if a collection of the heap is damaged, or lacks an entry or has it in another length
    """
    kind = dataset.dtype if field is None else dataset.dtype[field]
    is_text = h5py.check_string_dtype(kind) is not None
    item_size = 1 if is_text else h5py.check_vlen_dtype(kind).itemsize
    wanted: dict[int, dict[int, int]] = {}
    for references in _references(path, dataset, field):
        for length, address, index in references.tolist():
            if length:
                wanted.setdefault(address, {})[index] = length * item_size
    with path.open("rb") as stream:
        n_file = path.stat().st_size
        for address, entries in wanted.items():
            _check_collection(path, stream.fileno(), address, n_file, entries)


def _references(path: Path, dataset: h5py.Dataset, field: str | None) -> Iterator[np.ndarray]:
    """Length, collection and index of every entry, as they lie in the file.

    Nothing where the dataset is compressed: then only the library can read them.
    """
    offset, stride = 0, _REFERENCE.itemsize
    if field is not None:
        compound = dataset.id.get_type()
        offset = compound.get_member_offset(compound.get_member_index(field.encode()))
        stride = compound.get_size()
    if stride < offset + _REFERENCE.itemsize:
        raise UserError(f"{path}: is damaged: its entries are shorter than their parts")
    pieces: list[tuple[int, int]] = []
    start = dataset.id.get_offset()
    if start is not None:
        pieces.append((start, dataset.size * stride))
    elif dataset.chunks is not None and dataset.id.get_create_plist().get_nfilters() == 0:
        dataset.id.chunk_iter(lambda chunk: pieces.append((chunk.byte_offset, chunk.size)))
    with path.open("rb") as stream:
        for at, size in pieces:
            raw = os.pread(stream.fileno(), size, at)
            rows = np.frombuffer(raw, np.uint8, len(raw) // stride * stride).reshape(-1, stride)
            part = rows[:, offset : offset + _REFERENCE.itemsize]
            yield np.ascontiguousarray(part).view(_REFERENCE)[:, 0]


def _check_collection(
    path: Path, file: int, address: int, n_file: int, entries: dict[int, int]
) -> None:
    """Walk one collection: every object must lie within it, and those that are wanted be there."""
    damaged = UserError(f"{path}: is truncated or damaged: its data of variable length are broken")
    if address + _COLLECTION.size > n_file:
        raise damaged
    signature, version, size = _COLLECTION.unpack(os.pread(file, _COLLECTION.size, address))
    if signature != b"GCOL" or version != 1 or address + size > n_file:
        raise damaged
    found: dict[int, int] = {}
    at = _COLLECTION.size
    while size - at >= _OBJECT.size:
        header = os.pread(file, _OBJECT.size, address + at)
        index, _, n = _OBJECT.unpack(header)
        # Number 0 is free space, whose size counts its own header.
        step = n if index == 0 else _OBJECT.size + -(-n // 8) * 8
        if not _OBJECT.size <= step <= size - at:
            raise damaged
        found[index] = n
        at += step
    if any(found.get(index) != n for index, n in entries.items()):
        raise damaged
