"""NumPy arrays from files that a user feeds: the header is checked before memory is taken."""

import math
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from kscout.errors import UserError

Complaint = Callable[[tuple[int, ...], np.dtype[Any]], str]
"""What is wrong with an array of this shape and dtype; empty if it is welcome."""

_HEADER_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def existing_file(path: str | Path) -> Path:
    """``path`` if it is a file, else ``UserError``."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such file")
    if not path.is_file():
        raise UserError(f"{path}: is not a file")
    return path


def read_npy(path: str | Path, complaint: Complaint) -> np.ndarray:
    """The array in a ``.npy`` file.

    Parameters
    ----------
    path : of the file
    complaint : called with shape and dtype before anything is read

    Raises
    ------
    UserError
        if the file is missing, truncated or no array, holds objects, or ``complaint`` says so
    """
    return _of_npy(path, complaint, _read_array)


def map_npy(path: str | Path, complaint: Complaint) -> np.ndarray:
    """As :func:`read_npy`, but the data stay in the file until they are looked at."""

    def map_array(stream: IO[bytes], size: int, label: str, complaint: Complaint) -> np.ndarray:
        shape, order, dtype = _checked_header(stream, size, label, complaint)
        return np.memmap(stream.name, dtype, "r", stream.tell(), shape, order)

    return _of_npy(path, complaint, map_array)


def _of_npy(
    path: str | Path,
    complaint: Complaint,
    read: Callable[[IO[bytes], int, str, Complaint], np.ndarray],
) -> np.ndarray:
    path = existing_file(path)
    try:
        with path.open("rb") as stream:
            return read(stream, path.stat().st_size, str(path), complaint)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error


def read_npz(path: str | Path, keys: Sequence[str], complaint: Complaint) -> np.ndarray:
    """The first array of an ``.npz`` file that has one of the names ``keys``.

    Raises
    ------
    UserError
        as :func:`read_npy`, or if none of the names is there
    """
    path = existing_file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
            key = next((k for k in keys if f"{k}.npy" in members), None)
            if key is None:
                names = ", ".join(m.removesuffix(".npy") for m in members[:8]) or "nothing"
                raise UserError(f"{path}: holds {names}: one of {', '.join(keys)} is needed")
            info = archive.getinfo(f"{key}.npy")
            with archive.open(info) as stream:
                return _read_array(stream, info.file_size, f"{path}, array '{key}'", complaint)
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, ValueError) as error:
        raise UserError(f"{path}: is not a readable .npz file: {error}") from error
    except (NotImplementedError, RuntimeError) as error:  # encrypted, or an unknown compression
        raise UserError(f"{path}: is not a readable .npz file: {error}") from error


def _read_array(stream: IO[bytes], size: int, label: str, complaint: Complaint) -> np.ndarray:
    """The array in ``stream``, which holds ``size`` bytes, header included."""
    shape, order, dtype = _checked_header(stream, size, label, complaint)
    n_bytes = math.prod(shape) * dtype.itemsize
    data = bytearray(n_bytes)
    if stream.readinto(data) != n_bytes:  # type: ignore[attr-defined]
        raise UserError(f"{label}: is truncated")
    return np.frombuffer(data, dtype).reshape(shape, order=order)


def _checked_header(
    stream: IO[bytes], size: int, label: str, complaint: Complaint
) -> tuple[tuple[int, ...], Literal["C", "F"], np.dtype[Any]]:
    """Shape, order and dtype; the stream then stands where the data begin."""
    shape, fortran_order, dtype = _read_header(stream, label)
    if dtype.hasobject:
        raise UserError(f"{label}: holds Python objects, which are never loaded")
    if min(shape, default=1) < 1:
        raise UserError(f"{label}: is empty, its shape is {shape}")
    n_bytes = math.prod(shape) * dtype.itemsize
    if n_bytes != size - stream.tell():
        raise UserError(
            f"{label}: is truncated or damaged: its header announces {n_bytes} bytes "
            f"of data and {size - stream.tell()} are there"
        )
    if text := complaint(shape, dtype):
        raise UserError(f"{label}: {text}")
    return shape, "F" if fortran_order else "C", dtype


def _read_header(stream: IO[bytes], label: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    try:
        version = np.lib.format.read_magic(stream)
        return _HEADER_READERS[version](stream)
    except (OSError, zipfile.BadZipFile, zlib.error):
        raise
    except Exception as error:  # a damaged header is parsed as Python, and fails in as many ways
        raise UserError(f"{label}: is not a NumPy array file") from error
