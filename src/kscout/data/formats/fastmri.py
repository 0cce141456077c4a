"""HDF5 as in fastMRI (Zbontar et al. 2018, arXiv:1811.08839), which kscout writes too."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from kscout.data.formats.hdf5 import (
    check_size,
    is_plain,
    member,
    open_hdf5,
    small_array,
    text,
)
from kscout.data.formats.layouts import as_tensor, complaint
from kscout.data.formats.mrd_header import Encoding, read_encodings
from kscout.data.formats.scan import MOST_MM, UNKNOWN, Scan, damage_told, is_affine
from kscout.data.slices import Geometry
from kscout.errors import UserError

_MOST_NOISE = 2**28
_MOST_NOTES, _LONGEST_NOTE = 20, 400


class FastmriScan(Scan):
    """The dataset ``kspace``: ``(slice, coil, ky, kx)``, or single-coil ``(slice, ky, kx)``.

    The plane is (readout, phase encode). Its dataset ``mask``, of lines or points, leaves out what
    was not acquired; ``ismrmrd_header`` says how large voxels are. Files of kscout have ``noise``,
    ``(coil, sample)``, and notes as well.
    """

    def __init__(self, path: Path, file: h5py.File) -> None:
        self._file = file
        self._data = _kspace(file, path)
        shape = self._data.shape
        shape = (shape[0], 1, *shape[1:]) if len(shape) == 3 else shape
        self._mask = _mask(file, path, shape[2:])
        notes = []
        if self._mask is not None:
            notes.append(
                f"its mask acquires {int(self._mask.sum())} of {self._mask.numel()} points"
            )
        encoding, said = _header(file, path)
        notes += [*said, *_notes(file)]
        geometry, simulated = _geometry(file, encoding), bool(_attribute(file, "simulated") == 1)
        super().__init__(path, shape, geometry, notes, simulated=simulated)
        self._show_only(_image_matrix(file, encoding, self.plane))
        affine = _attribute(file, "affine")
        if is_affine(affine):
            self.affine = affine

    def _read(self, index: int) -> Tensor:
        kspace = as_tensor(self._data[index]).reshape(self.shape[1:])
        return kspace if self._mask is None else kspace * self._mask

    def noise(self) -> Tensor | None:
        array = small_array(member(self._file, "noise", self.path), self.path, _MOST_NOISE)
        if array is None or array.ndim != 2 or len(array) != self.n_coils:
            return None
        noise = as_tensor(array)
        return noise if torch.isfinite(torch.view_as_real(noise)).all() else None

    def close(self) -> None:
        self._file.close()


def open_fastmri(path: Path) -> Scan:
    """HDF5 with a dataset ``kspace``.

    Raises
    ------
    UserError
        if the file is damaged, or its dataset is no k-space
    """
    file = open_hdf5(path)
    try:
        return FastmriScan(path, file)
    except BaseException:
        file.close()
        raise


def _kspace(file: h5py.File, path: Path) -> h5py.Dataset:
    dataset = member(file, "kspace", path)
    if dataset is None:
        with damage_told(path, "is not a readable HDF5 file"):
            names = ", ".join(list(file)[:8]) or "nothing"
            groups = {name: member(file, name, path) for name in file}
            headers = [n for n, g in groups.items() if isinstance(g, h5py.Group) and "xml" in g]
        if headers:
            raise UserError(f"{path}: has an ISMRMRD header ({headers[0]}), and no acquisitions")
        raise UserError(
            f"{path}: holds {names}: a dataset 'kspace' is needed, or a group of ISMRMRD"
        )
    if not isinstance(dataset, h5py.Dataset):
        raise UserError(f"{path}: 'kspace' is not a dataset")
    with damage_told(path, "'kspace' cannot be read"):
        shape: tuple[int, ...] = dataset.shape or ()
        dtype = dataset.dtype
        if dtype.kind == "c" and len(shape) == 3:
            shape = (shape[0], 1, *shape[1:])
        if said := complaint(shape, dtype, (4,)):
            raise UserError(f"{path}, dataset 'kspace': {said}")
        check_size(dataset, path)
    return dataset


def _mask(file: h5py.File, path: Path, plane: tuple[int, ...]) -> Tensor | None:
    """Bool ``(ky, kx)``, of a mask of columns or of points."""
    array = small_array(member(file, "mask", path), path)
    if array is None:
        return None
    points = array.reshape(-1) if array.ndim > 2 or 1 in array.shape else array
    if points.shape not in (plane, plane[1:]) or not np.isin(points, (0, 1)).all():
        raise UserError(
            f"{path}, dataset 'mask': its shape is {array.shape}: valid is 0 and 1 for each of "
            f"{plane[1]} columns, or for each of {plane[0]}x{plane[1]} points"
        )
    mask = torch.from_numpy(np.broadcast_to(points.astype(bool), plane).copy())
    if not mask.any():
        raise UserError(f"{path}, dataset 'mask': acquires nothing")
    return mask


def _header(file: h5py.File, path: Path) -> tuple[Encoding | None, list[str]]:
    """The encoding that ``ismrmrd_header`` says, and what is worth saying of it."""
    try:
        xml = text(member(file, "ismrmrd_header", path), path)
        encoding = None if xml is None else read_encodings(path, xml)[0]
    except UserError:  # a picture's shape is no reason to stop
        return None, ["its ismrmrd_header cannot be read: voxels are taken to be square"]
    if encoding is None:
        return None, []
    notes = []
    step = encoding.steps[0]
    if step is not None:
        left = encoding.matrix[1] // 2 - step.centre
        right = encoding.matrix[1] - left - step.last - 1
        if left > 0 or right > 0:
            notes.append(f"padded by its header: {left} columns left, {right} right, are zero")
    return encoding, notes


def _geometry(file: h5py.File, encoding: Encoding | None) -> Geometry:
    """As the attributes of :func:`kscout.data.writers.write_hdf5` say, else the header.

    What is not said, or said without sense, is as in ``Geometry()``.
    """
    known = UNKNOWN
    if encoding is not None and min(encoding.fov) > 0:
        y, x, through = (f / n for f, n in zip(encoding.fov, encoding.matrix, strict=True))
        known = Geometry((y, x), 0, through)
    size, turns, thickness = (_attribute(file, name) for name in Geometry._fields)
    return Geometry(
        (float(size[0]), float(size[1])) if _is_length(size, (2,)) else known.voxel_size,
        int(turns) % 4 if turns.shape == () and np.isfinite(turns) else known.quarter_turns,
        float(thickness) if _is_length(thickness, ()) else known.slice_thickness,
    )


def _image_matrix(
    file: h5py.File, encoding: Encoding | None, plane: tuple[int, int]
) -> tuple[int, int]:
    """Rows and columns of images, as kscout wrote them, else by the header."""
    said = _attribute(file, "image_matrix")
    if said.shape == (2,) and np.isfinite(said).all():
        y, x = (min(n, max(1, int(wanted))) for n, wanted in zip(plane, said, strict=True))
        return y, x
    if encoding is None or plane != encoding.matrix[:2]:  # cropped, or padded, since then
        return plane
    return encoding.n_shown(0, plane[0]), encoding.n_shown(1, plane[1])


def _notes(file: h5py.File) -> list[str]:
    """What kscout noted when it wrote the file, a line each."""
    lines = _raw_attribute(file, "notes", "S").item(0).decode(errors="replace").splitlines()
    return [" ".join(line.split())[:_LONGEST_NOTE] for line in lines[:_MOST_NOTES] if line.strip()]


def _attribute(file: h5py.File, name: str) -> np.ndarray:
    """Numbers; NaN where there are none."""
    return _raw_attribute(file, name, "biuf").astype(np.float64)


def _raw_attribute(file: h5py.File, name: str, kinds: str) -> np.ndarray:
    """An attribute of one of these kinds of dtype, else NaN or an empty string.

    Others are not read: of variable length, they could not be checked first (see heap.py).
    """
    absent = np.asarray(b"" if kinds == "S" else np.nan)
    try:
        identifier = file.attrs.get_id(name)
        if not is_plain(identifier.get_type()) or identifier.dtype.kind not in kinds:
            return absent
        return np.asarray(file.attrs[name])
    except Exception:  # h5py raises nearly anything; a picture's shape is no reason to stop
        return absent


def _is_length(value: np.ndarray[Any, Any], shape: tuple[int, ...]) -> bool:
    return value.shape == shape and bool(((value > 0) & (value < MOST_MM)).all())
