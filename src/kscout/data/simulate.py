"""From objects to scans: coils, the matrix, noise, and one scale for all."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from kscout.data.slices import Geometry, KspaceSet, Splits, check_splits
from kscout.errors import UserError
from kscout.physics.coils import birdcage_coils, dipole_coils
from kscout.physics.fourier import image_to_kspace
from kscout.physics.noise import add_noise, noise_std

# Options that every simulated source has.
Coils = Annotated[Literal["dipole", "birdcage"], Field(description="model of the coils")]
NCoils = Annotated[int, Field(ge=1, description="coils around the object")]
Matrix = Annotated[
    tuple[int, int] | None,
    Field(description="central points of k-space kept, (ky, kx); else all of the plane"),
]
Phase = Annotated[
    float, Field(ge=0, le=10, description="rms of a smooth phase of the object, in radians")
]
SnrDb = Annotated[
    float | None, Field(allow_inf_nan=False, description="of noise added to k-space; else none")
]
CoilTurn = Annotated[
    float | None,
    Field(allow_inf_nan=False, description="adds test_coils: test, coils turned by degrees"),
]

_BLOCK = 8
"""Slices simulated at once: they fit the processor's cache."""


@dataclass(frozen=True)
class Subject:
    """One object to be scanned, perhaps twice.

    Attributes
    ----------
    image : makes the object, real or complex ``(slice, y, x)``, the same at every call; not the
        object itself, because all of them at once would fill the memory
    noise : the seed of the noise of its scans
    """

    image: Callable[[], Tensor]
    noise: np.random.SeedSequence


@dataclass(frozen=True)
class Scanner:
    """What stays the same from scan to scan.

    Attributes
    ----------
    shape : voxels of the volume around which the coils stand, ``(y, x, slices)``
    slices : of the volume that are scanned
    coils, n_coils : model of the coils and their number
    matrix : central points of k-space that are kept, ``(ky, kx)``: a coarser scan of the same
        field of view; all by default
    snr_db : of noise added to k-space, see :func:`kscout.physics.noise.noise_std`; none by default
    geometry : of the voxels of ``shape``

    Raises
    ------
    UserError
        if the matrix is empty or larger than the plane
    """

    shape: tuple[int, int, int]
    slices: range
    coils: Coils
    n_coils: NCoils
    matrix: Matrix
    snr_db: SnrDb
    geometry: Geometry

    def __post_init__(self) -> None:
        y, x = self.shape[:2]
        if self.matrix and not (1 <= self.matrix[0] <= y and 1 <= self.matrix[1] <= x):
            raise UserError(
                f"a matrix of {self.matrix[0]}x{self.matrix[1]} is impossible: valid is 1x1 to "
                f"{y}x{x}"
            )

    def scan(self, subjects: Mapping[str, Sequence[Subject]], test_coil_turn: CoilTurn) -> Splits:
        """Scan the subjects of every split.

        Each volume is divided by its largest modulus in k-space, then each coil by its largest real
        or imaginary part over the training set.

        Parameters
        ----------
        subjects : by split; ``train`` and ``test`` among them
        test_coil_turn : adds ``test_coils``: the subjects of ``test``, with the coils turned by so
            many degrees
        """
        maps = self._coil_maps(0.0)
        parts: Splits = {}
        first_volume = 0
        for name, part in subjects.items():
            parts[name] = self._scan_part(part, maps, first_volume)
            first_volume += len(part)
        if test_coil_turn is not None:
            turned = self._coil_maps(math.radians(test_coil_turn))
            parts["test_coils"] = self._scan_part(subjects["test"], turned, first_volume)
        largest = torch.view_as_real(parts["train"].kspace)
        scale = 1 / torch.maximum(largest.amax((0, 2, 3, 4)), -largest.amin((0, 2, 3, 4)))
        return check_splits({name: _scale_coils(part, scale) for name, part in parts.items()})

    @property
    def _plane(self) -> tuple[int, int]:
        return self.matrix or self.shape[:2]

    def _coil_maps(self, turn: float) -> Tensor:
        """complex64 ``(slice, coil, y, x)``."""
        if self.coils == "birdcage":
            maps = birdcage_coils(self.shape[:2], self.n_coils, turn=turn)
            return maps.expand(len(self.slices), -1, -1, -1)
        return dipole_coils(self.shape, self.n_coils, slices=self.slices, turn=turn)

    def _scan_part(self, subjects: Sequence[Subject], maps: Tensor, first_volume: int) -> KspaceSet:
        n, n_slices = len(subjects), len(self.slices)
        shape = (n * n_slices, self.n_coils, *self._plane)
        target = torch.empty(shape, dtype=torch.complex64)
        kspace = target if self.snr_db is None else torch.empty_like(target)
        for i, subject in enumerate(subjects):
            rows = slice(i * n_slices, (i + 1) * n_slices)
            self._scan_volume(subject, maps, target[rows], kspace[rows])
        y, x = (
            size * whole / kept
            for size, whole, kept in zip(
                self.geometry.voxel_size, self.shape[:2], self._plane, strict=True
            )
        )
        return KspaceSet(
            kspace=kspace,
            target=target,
            volume=torch.arange(first_volume, first_volume + n).repeat_interleave(n_slices),
            coil_scale=torch.ones(self.n_coils),
            voxel_size=(y, x),
            quarter_turns=self.geometry.quarter_turns,
            slice_thickness=self.geometry.slice_thickness,
        )

    def _scan_volume(self, subject: Subject, maps: Tensor, target: Tensor, kspace: Tensor) -> None:
        """Fill ``target`` and ``kspace``, block by block."""
        blocks = [
            tensor.split(_BLOCK) for tensor in (subject.image()[:, None], maps, target, kspace)
        ]
        for images, coils, clean, _ in zip(*blocks, strict=True):
            clean[:] = _centre(image_to_kspace(images * coils), self._plane)
        if self.snr_db is not None:
            seed = int(subject.noise.generate_state(1, np.uint64)[0])
            generator = torch.Generator().manual_seed(seed)
            std = noise_std(target, self.snr_db)
            for _, _, clean, noisy in zip(*blocks, strict=True):
                noisy[:] = add_noise(clean, std, generator)
        peak = max(float(block.abs().max()) for block in blocks[-1])
        kspace /= peak
        if self.snr_db is not None:
            target /= peak


def _centre(kspace: Tensor, shape: tuple[int, int]) -> Tensor:
    """The points around DC, which is at ``n // 2`` before and after."""
    starts = [n // 2 - kept // 2 for n, kept in zip(kspace.shape[-2:], shape, strict=True)]
    rows, columns = (slice(at, at + kept) for at, kept in zip(starts, shape, strict=True))
    return kspace[..., rows, columns]


def _scale_coils(part: KspaceSet, scale: Tensor) -> KspaceSet:
    """Scale in place: the volumes are large, and nobody else holds them yet."""
    kspace, target = part.kspace, part.target
    kspace *= scale[:, None, None]
    if target is not kspace:
        target *= scale[:, None, None]
    return replace(part, coil_scale=scale)
