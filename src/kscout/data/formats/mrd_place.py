"""Where the slices of an ISMRMRD file lie in the patient."""

from collections.abc import Callable, Sequence

import numpy as np

from kscout.data.formats.scan import picture_axes
from kscout.data.slices import Geometry

_RAS = np.array([-1.0, -1.0, 1.0])
"""ISMRMRD's axes point left, posterior and up, as DICOM's; NIfTI's right, anterior and up."""

_DIRECTIONS = ("read_dir", "phase_dir", "slice_dir")

_UNEVEN_MM = 0.1
"""Slices that are so far from where even ones would be are not even."""


def in_order(
    slices: Sequence[int], head_of: Callable[[int], np.void], is_3d: bool
) -> tuple[list[int], list[str]]:
    """Slices in the order in which they lie, and a note where their numbers have another.

    Interleaved slices are numbered as they were acquired by some scanners. Where positions are not
    said, are equal or are not numbers, the file's order stays.
    """
    heads = [head_of(number) for number in slices]
    through = np.array(heads[0]["slice_dir"], float)
    with np.errstate(invalid="ignore"):
        along = np.array([head["position"] for head in heads], float) @ through
    if is_3d or not np.isfinite(along).all() or len(np.unique(along.round(3))) < len(slices):
        return list(slices), []
    order = np.argsort(along)
    steps = np.diff(order)
    if (steps == 1).all() or (steps == -1).all():
        return list(slices), []
    said = "slices are sorted by where they lie: their numbers have another order"
    return [slices[i] for i in order], [said]


def place(
    heads: Sequence[np.void], geometry: Geometry, shape: Sequence[int], is_3d: bool
) -> np.ndarray | None:
    """From voxels to millimetres in the patient, as NIfTI has it.

    Parameters
    ----------
    heads : of an acquisition of each slice of the file, with ``read_dir``, ``phase_dir``,
        ``slice_dir`` and ``position``, of the middle of the slice or slab
    geometry : sizes of a voxel of an image, whose axes are (readout, phase, slice), or in 3D
        (phase, second phase, readout)
    shape : voxels along these axes. The middle position is that of the voxel ``n // 2`` of a
        Fourier transform, and of 2D slices the middle of them
    is_3d : whether the readout was transformed

    Returns
    -------
    float ``(4, 4)``, or None where directions are not said or make no sense, or slices are not
    parallel or do not follow each other evenly
    """
    read, phase, through = (np.array(heads[0][name], float) for name in _DIRECTIONS)
    directions = np.stack([phase, through, read] if is_3d else [read, phase, through], 1)
    if not np.allclose(directions.T @ directions, np.eye(3), atol=1e-3):
        return None
    if any(
        not np.allclose(h[name], heads[0][name], atol=1e-3) for h in heads for name in _DIRECTIONS
    ):
        return None
    positions = np.array([head["position"] for head in heads], float)
    if not np.isfinite(positions).all() or (is_3d and len(heads) > 1):
        return None
    steps = directions * [*geometry.voxel_size, geometry.slice_thickness]
    if not is_3d and len(heads) > 1:
        steps[:, 2] = (positions[-1] - positions[0]) / (len(heads) - 1)
        even = positions[0] + np.arange(len(heads))[:, None] * steps[:, 2]
        if not np.linalg.norm(positions - even, axis=1).max() <= _UNEVEN_MM:
            return None
        if np.linalg.norm(steps[:, 2] - through * (through @ steps[:, 2])) > _UNEVEN_MM:
            return None
        if not abs(through @ steps[:, 2]) > _UNEVEN_MM:
            return None
    y, x, n = shape
    middle = [y // 2, x // 2, n // 2 if is_3d else (n - 1) / 2]
    affine = np.eye(4)
    affine[:3, :3] = _RAS[:, None] * steps
    affine[:3, 3] = _RAS * (positions.mean(0) - steps @ middle)
    return affine


def upright(affine: np.ndarray) -> int:
    """Quarter turns that put a picture of (axis 0 down, axis 1 right) upright.

    Down is then posterior in slices that lie more across the body than along it, else the feet.
    """
    down, right = affine[:3, 0], affine[:3, 1]
    across = np.abs(np.cross(down, right)).argmax() == 2
    wanted = np.array([0.0, -1.0, 0.0] if across else [0.0, 0.0, -1.0])
    turned = [picture_axes(affine, turns)[0] for turns in range(4)]
    return int(np.argmax([direction @ wanted / np.linalg.norm(direction) for direction in turned]))
