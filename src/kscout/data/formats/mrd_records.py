"""The acquisitions of an ISMRMRD file: what each is, and its samples."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from kscout.data.formats.hdf5 import check_size
from kscout.data.formats.heap import find_entries, stored
from kscout.data.formats.scan import damage_told
from kscout.errors import UserError

COUNTERS = ("contrast", "repetition", "set", "phase")
"""Of images of the same slice."""

VECTORS = ("read_dir", "phase_dir", "slice_dir", "position")
"""Where a slice lies; zero where the file does not say."""

_COLUMNS = (
    "flags",
    "number_of_samples",
    "active_channels",
    "discard_pre",
    "discard_post",
    "center_sample",
    "encoding_space_ref",
    "sample_time_us",
)
_INDICES = ("kspace_encode_step_1", "kspace_encode_step_2", "slice", *COUNTERS)


class Records:
    """The table of acquisitions, of which only the headers are held.

    Parameters
    ----------
    path : of the file
    dataset : ``data`` of an ISMRMRD group

    Attributes
    ----------
    heads : one entry per acquisition, a column for every number that is needed
    """

    def __init__(self, path: Path, dataset: h5py.Dataset) -> None:
        self._path, self._dataset = path, dataset
        check_size(dataset, path)
        with damage_told(path, "its acquisitions cannot be read"):
            if dataset.ndim != 1:
                raise UserError(f"{path}: its acquisitions have shape {dataset.shape}: one axis")
            self._fits(dataset.dtype)
            self._entries = find_entries(path, dataset, "data")
            self.heads = self._read_heads()

    def __len__(self) -> int:
        return len(self.heads)

    def _fits(self, dtype: np.dtype[Any]) -> None:
        head, data = _field(dtype, "head"), _field(dtype, "data")
        absent = [name for name in _COLUMNS if _field(head, name) is None]
        absent += [name for name in _INDICES if _field(_field(head, "idx"), name) is None]
        if absent or h5py.check_vlen_dtype(data) != np.dtype("<f4"):
            raise UserError(
                f"{self._path}: its acquisitions are not those of ISMRMRD"
                + (f": no {', '.join(absent)}" if absent else "")
            )

    def _read_heads(self) -> np.ndarray:
        wanted = [(name, "i8") for name in (*_COLUMNS[:-1], *_INDICES)] + [("sample_time_us", "f8")]
        whole = np.zeros(len(self._dataset), _field(self._dataset.dtype, "head"))
        for start, block in stored(self._path, self._dataset, "head", whole.dtype):
            whole[start : start + len(block)] = block
        heads = np.zeros(len(whole), [*wanted, *((name, "f8", 3) for name in VECTORS)])
        for name in VECTORS:
            if name in (whole.dtype.names or ()) and whole[name].shape == (len(whole), 3):
                heads[name] = whole[name]
        for name in _COLUMNS:
            value = whole[name]
            heads[name] = value if value.dtype.kind == "f" else value.astype(np.int64)
        for name in _INDICES:
            heads[name] = whole["idx"][name]
        return heads

    def is_flagged(self, *flags: int) -> np.ndarray:
        """Which acquisitions have one of the flags (numbered from 1, as ISMRMRD does)."""
        bits = np.int64(sum(1 << (flag - 1) for flag in set(flags)))
        found: np.ndarray = (self.heads["flags"] & bits) != 0
        return found

    def readouts(self, numbers: np.ndarray) -> Iterator[tuple[int, Tensor]]:
        """Number and samples of acquisitions, complex64 ``(coil, sample)``, in their order.

        Raises
        ------
        UserError
            if samples are missing, or one is NaN or infinity
        """
        with self._path.open("rb") as stream:
            for number in numbers.tolist():
                size, offset = (int(self._entries[name][number]) for name in ("size", "offset"))
                raw = os.pread(stream.fileno(), size, offset)
                yield number, self._checked(number, np.frombuffer(raw, "<f4"))

    def _checked(self, number: int, samples: np.ndarray) -> Tensor:
        head = self.heads[number]
        shape = int(head["active_channels"]), int(head["number_of_samples"])
        if samples.size != 2 * shape[0] * shape[1]:
            raise UserError(
                f"{self._path}: acquisition {number} holds {samples.size} numbers, and its header "
                f"announces {shape[0]} coils of {shape[1]} complex samples"
            )
        if not np.isfinite(samples).all():
            raise UserError(f"{self._path}: acquisition {number} holds NaN or infinity")
        pairs = np.array(samples, np.float32).view(np.complex64)
        return torch.from_numpy(pairs.reshape(shape))


def _field(dtype: Any, name: str) -> Any:
    """The type of a field, or None."""
    fields = getattr(dtype, "fields", None) or {}
    return fields[name][0] if name in fields else None
