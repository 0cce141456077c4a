"""ISMRMRD (MRD) raw data (Inati et al. 2017, Magn. Reson. Med. 77:411)."""

from abc import abstractmethod
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated

import h5py
import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from kscout.data.formats.hdf5 import member, open_hdf5, text
from kscout.data.formats.mrd_choice import (
    CALIBRATION,
    CALIBRATION_AND_IMAGING,
    NOISE,
    Chosen,
    choose,
)
from kscout.data.formats.mrd_header import Encoding, read_encodings
from kscout.data.formats.mrd_lines import Lines
from kscout.data.formats.mrd_place import in_order, place, upright
from kscout.data.formats.mrd_records import Records
from kscout.data.formats.scan import (
    TRANSFORMED,
    Advance,
    BlockCache,
    Scan,
    damage_told,
    refuse_large_arrays,
)
from kscout.data.slices import Geometry
from kscout.errors import UserError
from kscout.physics.fourier import readout_to_space, space_to_readout

Number = Annotated[int, Field(ge=0)] | None
"""Of an encoding, or of one image among those of the same slice."""

_READOUTS = 64
"""Of a volume, transformed at once."""

_MOST_NOISE = 2**18
"""Samples of noise per coil: more say nothing new of a covariance."""


def is_mrd(path: Path) -> bool:
    """Whether a file is HDF5 with a group of an ISMRMRD header and acquisitions."""
    try:
        with open_hdf5(path) as file:
            return bool(_groups(file, path))
    except UserError:
        return False


def _groups(file: h5py.File, path: Path) -> list[str]:
    with damage_told(path, "is not a readable HDF5 file"):
        groups = {name: member(file, name, path) for name in file}
        return [
            name
            for name, group in groups.items()
            if isinstance(group, h5py.Group) and {"xml", "data"} <= set(group)
        ]


def open_mrd(
    path: Path,
    *,
    encoding: Annotated[Number, Field(description="number of the encoding, of several")] = None,
    contrast: Annotated[Number, Field(description="that is read; else the first")] = None,
    repetition: Annotated[Number, Field(description="that is read; else the first")] = None,
    set: Annotated[Number, Field(description="that is read; else the first")] = None,
    phase: Annotated[Number, Field(description="cardiac, that is read; else the first")] = None,
    allow_missing: Annotated[bool, Field(description="read what seems to lack lines")] = False,
) -> Scan:
    """Cartesian acquisitions, each put where its counters say, averages averaged.

    2D: the plane is (readout, phase encode), without the readout's oversampling. 3D: the readout is
    transformed; slices are its positions, and the plane is (ky, kz). Reversed readouts are turned
    round; the header's ``center_sample`` counts after that. Acquisitions that only calibrate fill
    points that no other has.

    Where the header says that calibration is separate, they are kept apart, as ``reference``.

    Raises
    ------
    UserError
        if the file is damaged, not Cartesian, lacks an acquisition, mixes sizes, or has several
        encodings of which none was chosen
    """
    file = open_hdf5(path)
    try:
        wanted = {"contrast": contrast, "repetition": repetition, "set": set, "phase": phase}
        group = _group(file, path)
        records = _records(group, path)
        xml = text(member(group, "xml", path), path)
        if xml is None:
            raise UserError(f"{path}: its ISMRMRD header is not a string")
        encodings = read_encodings(path, xml)
        chosen = choose(path, records, encodings, encoding, wanted)
        space = encodings[chosen.number]
        if space.trajectory != "cartesian":
            raise UserError(f"{path}: its trajectory is {space.trajectory}: valid is cartesian")
        kind = _Volumes if space.is_3d else _Planes

        def whole(part: Chosen) -> _MrdScan:
            scan = kind(path, file, records, space, part)
            if scan.lost and not allow_missing:
                raise UserError(f"{path}: {scan.lost} (allow_missing=true reads it all the same)")
            return scan

        if not space.is_calibrated_apart or not len(chosen.calibration):
            return whole(chosen)
        image, reference = chosen.apart(records)
        scan = whole(image)
        try:
            scan.calibrate_by(whole(reference))
        except UserError as error:  # the image is good without
            said = str(error).removeprefix(f"{path}: ")
            scan.notes += (f"its separate calibration is not used: {said}",)
        return scan
    except BaseException:
        file.close()
        raise


def _group(file: h5py.File, path: Path) -> h5py.Group:
    found = _groups(file, path)
    if not found:
        raise UserError(f"{path}: has no ISMRMRD header and acquisitions")
    if len(found) > 1 and "dataset" not in found:
        raise UserError(f"{path}: has several ISMRMRD groups ({', '.join(found)}): valid is one")
    return member(file, "dataset" if "dataset" in found else found[0], path)


def _records(group: h5py.Group, path: Path) -> Records:
    data = member(group, "data", path)
    if not isinstance(data, h5py.Dataset):
        raise UserError(f"{path}: its acquisitions are not a dataset")
    return Records(path, data)


class _MrdScan(Scan):
    """What scans of one and of two phase encodings have in common."""

    def __init__(
        self, path: Path, file: h5py.File, records: Records, space: Encoding, chosen: Chosen
    ) -> None:
        self._file, self._records, self._space = file, records, space
        n_coils = int(records.heads["active_channels"][chosen.imaging[0]])
        refuse_large_arrays(path, (n_coils, *self._raw_shape))
        self._lines = lines = Lines(path, records, space, chosen)
        self.lost = lines.lost
        self._slices, sorted_ = in_order(chosen.slices, self._head_of, space.is_3d)
        shape = (self._count_slices(), n_coils, *self._plane_of(space))
        unused = _noise(records, n_coils)
        notes = (*chosen.notes, *lines.notes, *sorted_, *unused)
        super().__init__(path, shape, _geometry(space), notes)
        planes = [self._on_plane(lines.count(found) > 0) for found in lines.of_slice.values()]
        counts = [int(plane.sum()) for plane in planes]
        self.points_of_slices = min(counts), max(counts)
        self._crop_phases()
        self._find_place()
        self.calibration = self._find_calibration(chosen)

    def _head_of(self, slice_number: int) -> np.void:
        """The header of an acquisition of a slice of the file."""
        found: np.void = self._records.heads[self._lines.of_slice[slice_number][0]]
        return found

    def _crop_phases(self) -> None:
        """The readout's oversampling is gone already."""
        phase, second = (self._space.n_shown(i, self._space.matrix[i]) for i in (1, 2))
        self._show_only((phase, second) if self._space.is_3d else (self.plane[0], phase))

    def _find_place(self) -> None:
        """Geometry and affine, from the directions of an acquisition of each slice."""
        heads = [self._head_of(n) for n in self._slices]
        shape = (*self.plane, self.n_slices)
        found = place(heads, self.geometry, shape, self._space.is_3d)
        if found is None and any(head["slice_dir"].any() for head in heads):
            self.notes += ("where its slices lie cannot be told: they are not even and parallel",)
        if found is not None:
            self.affine = found
            self.geometry = self.geometry._replace(
                quarter_turns=upright(found), slice_thickness=float(np.linalg.norm(found[:3, 2]))
            )

    def calibrate_by(self, reference: "_MrdScan") -> None:
        """Take a separate scan as the reference, where it is of the same coils and slices."""
        if reference.shape != self.shape or reference._slices != self._slices:
            self.notes += ("its separate calibration is not used: it has other slices or coils",)
            return
        n = int(reference._lines.acquired.sum())
        self.reference = reference
        self.notes += (f"calibration: a separate scan of {n} lines, in the ISMRMRD file alone",)

    @property
    @abstractmethod
    def _raw_shape(self) -> tuple[int, ...]:
        """Of what a slice, or a slab, is before oversampling is removed, for each coil."""

    @abstractmethod
    def _count_slices(self) -> int: ...

    @staticmethod
    @abstractmethod
    def _plane_of(space: Encoding) -> tuple[int, int]:
        """``(ky, kx)``."""

    @abstractmethod
    def _on_plane(self, lines: np.ndarray) -> Tensor:
        """Which points lines make: bool ``(step 1, step 2)`` to bool ``(ky, kx)``."""

    def _find_calibration(self, chosen: Chosen) -> Tensor | None:
        flagged = self._records.is_flagged(CALIBRATION, CALIBRATION_AND_IMAGING)
        used = self._lines.of_slice[chosen.slices[0]]
        lines = self._lines.count(used[flagged[used]]) > 0
        return self._on_plane(lines) if lines.any() else None

    def _find_sampled(self, advance: Advance) -> Tensor:
        return self._on_plane(self._lines.acquired)

    def _readouts(self, slice_number: int) -> Iterator[tuple[int, Tensor]]:
        """Number and samples, ``(coil, kept)``, of the acquisitions of a slice of the file."""
        for number, samples in self._records.readouts(self._lines.of_slice[slice_number]):
            yield number, self._lines.kept(number, samples)

    def noise(self) -> Tensor | None:
        """Samples of the noise scans, scaled to the bandwidth of the image by their dwell times.

        White noise has a variance in proportion to the bandwidth (Kellman & McVeigh 2005, Magn.
        Reson. Med. 54:1439).
        """
        heads = self._records.heads
        numbers = np.flatnonzero(self._records.is_flagged(NOISE))
        numbers = numbers[heads["active_channels"][numbers] == self.n_coils]
        image_time = heads["sample_time_us"][self._lines.of_slice[self._slices[0]][0]]
        parts, n = [], 0
        for number, samples in self._records.readouts(numbers):
            ratio = heads["sample_time_us"][number] / image_time if image_time > 0 else 1.0
            parts.append(samples * (ratio**0.5 if 0 < ratio < np.inf else 1.0))
            n += samples.shape[1]
            if n >= _MOST_NOISE:
                break
        return torch.cat(parts, 1)[:, :_MOST_NOISE] if parts else None

    def close(self) -> None:
        self._file.close()


class _Planes(_MrdScan):
    """2D: a slice is put together whole, then its readout's oversampling is cropped."""

    @property
    def _raw_shape(self) -> tuple[int, ...]:
        return self._space.matrix[:2]

    def _count_slices(self) -> int:
        return len(self._slices)

    @staticmethod
    def _plane_of(space: Encoding) -> tuple[int, int]:
        return space.n_readout, space.matrix[1]

    def _on_plane(self, lines: np.ndarray) -> Tensor:
        return _sampled_readout(self._space, self._lines)[:, None] & torch.from_numpy(lines[:, 0])

    def _read(self, index: int) -> Tensor:
        slice_number, n = self._slices[index], self._lines.n_kept
        raw = torch.zeros(self.n_coils, *self._raw_shape, dtype=torch.complex64)
        placed = raw[:, self._lines.start : self._lines.start + n]
        for number, samples in self._readouts(slice_number):
            placed[:, :, self._lines.place(number)[0]] += samples
        counts = self._lines.count(self._lines.of_slice[slice_number])[:, 0]
        raw /= torch.from_numpy(counts).clamp_min(1)
        if self.plane == self._raw_shape:
            return raw
        space = _cropped(readout_to_space(raw.mT), self.plane[0])
        return (space_to_readout(space).mT * self.sampled()).contiguous()


class _Volumes(_MrdScan):
    """3D: slices are the positions along the transformed readout, of one slab after another."""

    def __init__(
        self, path: Path, file: h5py.File, records: Records, space: Encoding, chosen: Chosen
    ) -> None:
        super().__init__(path, file, records, space, chosen)
        self.notes += (TRANSFORMED,)
        self._held: tuple[int, BlockCache] | None = None

    @property
    def _raw_shape(self) -> tuple[int, ...]:
        return self._space.matrix

    def _count_slices(self) -> int:
        return len(self._slices) * self._space.n_readout

    @staticmethod
    def _plane_of(space: Encoding) -> tuple[int, int]:
        return space.matrix[1:]

    def _on_plane(self, lines: np.ndarray) -> Tensor:
        return torch.from_numpy(lines)

    def _read(self, index: int) -> Tensor:
        slab, position = divmod(index, self._space.n_readout)
        if self._held is None or self._held[0] != slab:
            self._held = None  # the blocks of two slabs would be twice the memory
            slice_bytes = 8 * self.n_coils * self.plane[0] * self.plane[1]
            load = partial(self._load, self._slices[slab])
            self._held = slab, BlockCache(self._space.n_readout, slice_bytes, load)
        return self._held[1][position]

    def _load(self, slice_number: int, positions: range) -> Tensor:
        ky, kz = self.plane
        # Positions last, so that one readout is written to one place.
        block = torch.zeros(ky, kz, self.n_coils, len(positions), dtype=torch.complex64)
        start, n = self._lines.start, self._lines.n_kept
        acquisitions = self._readouts(slice_number)
        while several := list(islice(acquisitions, _READOUTS)):
            readouts = torch.zeros(len(several), self.n_coils, self._space.matrix[0]) + 0j
            for row, (_, samples) in zip(readouts, several, strict=True):
                row[:, start : start + n] = samples
            space = _cropped(readout_to_space(readouts), self._space.n_readout)
            for row, (number, _) in zip(space, several, strict=True):
                block[self._lines.place(number)] += row[:, positions.start : positions.stop]
        counts = self._lines.count(self._lines.of_slice[slice_number])
        block /= torch.from_numpy(counts).clamp_min(1)[:, :, None, None]
        return block.permute(3, 2, 0, 1)


def _cropped(space: Tensor, n: int) -> Tensor:
    """The middle ``n`` positions of the last axis."""
    start = space.shape[-1] // 2 - n // 2
    return space[..., start : start + n]


def _sampled_readout(space: Encoding, lines: Lines) -> Tensor:
    """Which points of the readout were acquired, bool, once its oversampling is removed.

    A point stands for the sample nearest to it in k-space.
    """
    n_raw, n = space.matrix[0], space.n_readout
    raw = torch.zeros(n_raw, dtype=torch.bool)
    raw[lines.start : lines.start + lines.n_kept] = True
    nearest = torch.round((torch.arange(n) - n // 2) * (n_raw / n)).long() + n_raw // 2
    return raw[nearest.clamp(0, n_raw - 1)]


def _noise(records: Records, n_coils: int) -> list[str]:
    """Noise scans that cannot be used."""
    numbers = np.flatnonzero(records.is_flagged(NOISE))
    other = int((records.heads["active_channels"][numbers] != n_coils).sum())
    return [f"{other} noise scans are not used: they have other coils"] if other else []


def _geometry(space: Encoding) -> Geometry:
    """Of the slices, which are readout positions in 3D."""
    readout, phase, second = (
        fov / n if fov > 0 else 1.0 for fov, n in zip(space.fov, space.matrix, strict=True)
    )
    # Cropping the readout's field of view leaves the size of a voxel as it is.
    if space.is_3d:
        return Geometry((phase, second), 0, readout)
    return Geometry((readout, phase), 1, second)  # the readout is horizontal
