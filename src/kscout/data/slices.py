"""Slices of k-space with the scan that each came from: what every data source returns."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from kscout.errors import UserError
from kscout.physics.coils import root_sum_of_squares
from kscout.physics.fourier import kspace_to_image


class Geometry(NamedTuple):
    """How slices lie in space, as far as it is known.

    Attributes
    ----------
    voxel_size : of a pixel along (ky, kx) in mm
    quarter_turns : counter-clockwise quarter turns that put a picture upright
    slice_thickness : distance between slices in mm
    """

    voxel_size: tuple[float, float] = (1.0, 1.0)
    quarter_turns: int = 0
    slice_thickness: float = 1.0


@dataclass(frozen=True)
class KspaceSet:
    """Fully sampled slices of one or more scans.

    Attributes
    ----------
    kspace : complex64 ``(slice, coil, ky, kx)``, as measured, noise included
    target : the same without simulated noise where that is known; otherwise ``kspace`` itself
    volume : int64 ``(slice,)``, which scan each slice belongs to; unique over all splits
    coil_scale : float32 ``(coil,)``, the factor that each coil of ``kspace`` was multiplied by;
        images divide it out again
    voxel_size, quarter_turns, slice_thickness : as in :class:`Geometry`, for pictures and files
    """

    kspace: Tensor
    target: Tensor
    volume: Tensor
    coil_scale: Tensor
    voxel_size: tuple[float, float] = (1.0, 1.0)
    quarter_turns: int = 0
    slice_thickness: float = 1.0

    def __len__(self) -> int:
        return self.kspace.shape[0]

    @property
    def n_coils(self) -> int:
        return self.kspace.shape[1]

    @property
    def shape(self) -> tuple[int, int]:
        """``(ky, kx)`` of the plane."""
        return self.kspace.shape[-2], self.kspace.shape[-1]

    @property
    def geometry(self) -> Geometry:
        """What pictures and files need to know."""
        return Geometry(self.voxel_size, self.quarter_turns, self.slice_thickness)

    def middles(self, n_volumes: int) -> Tensor:
        """Place of the middle slice of each of the first scans, int64 ``(scan,)``.

        What is shown of a set: chosen before anybody has seen a result.
        """
        places = [(self.volume == v).nonzero().flatten() for v in self.volume.unique()[:n_volumes]]
        return torch.stack([place[len(place) // 2] for place in places])

    def select(self, index: Tensor | Sequence[int] | slice) -> "KspaceSet":
        """The slices at ``index``, in that order."""
        if not isinstance(index, slice):
            index = torch.as_tensor(index, dtype=torch.int64)
        kspace = self.kspace[index]
        target = kspace if self.target is self.kspace else self.target[index]
        return replace(self, kspace=kspace, target=target, volume=self.volume[index])

    def with_coil_scale(self, scale: Tensor) -> "KspaceSet":
        """The same slices with each coil multiplied by ``scale``, float ``(coil,)``, instead."""
        factor = (scale / self.coil_scale)[:, None, None]
        kspace = self.kspace * factor
        target = kspace if self.target is self.kspace else self.target * factor
        return replace(self, kspace=kspace, target=target, coil_scale=scale)

    def image(self, kspace: Tensor) -> Tensor:
        """Magnitude image of k-space on this set's scale: coils unscaled, root sum of squares.

        Parameters
        ----------
        kspace : complex ``(..., coil, ky, kx)``

        Returns
        -------
        float ``(..., y, x)``
        """
        scale = self.coil_scale.to(kspace.device)[:, None, None]
        return root_sum_of_squares(kspace_to_image(kspace / scale))


Splits = dict[str, KspaceSet]
"""Split name to slices: ``train``, ``val`` and ``test``, and further conditions ``test_*``."""


def held_out(splits: Splits) -> Splits:
    """The splits that methods are scored on: all that hold slices but ``train``."""
    return {name: part for name, part in splits.items() if name != "train" and len(part)}


def check_splits(splits: Splits) -> Splits:
    """Return ``splits`` if no scan is in two of them, else raise ``UserError``."""
    seen: dict[int, str] = {}
    for name, part in splits.items():
        for volume in torch.unique(part.volume).tolist():
            if volume in seen:
                raise UserError(f"scan {volume} is in both '{seen[volume]}' and '{name}'")
            seen[volume] = name
    return splits
