"""Whose head: tissue maps, and smooth deformations that make other heads of them."""

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kscout.data.arrays import existing_file, read_npz
from kscout.errors import UserError

SHAPE = (121, 145, 121)
"""Voxels along left-right, posterior-anterior and inferior-superior."""

SKULL_MM, SCALP_MM = 6.0, 6.0
"""Thickness of the gap around the brain, and of the ring around the gap."""

_CONTROL_SPACING_MM = 45.0
"""Of the deformation: heads differ in size and shape, not in detail."""

_N_TPM_CLASSES = 6


@dataclass(frozen=True)
class Anatomy:
    """Tissue probabilities.

    Attributes
    ----------
    classes : float32 ``(class, n0, n1, n2)``, from 0 to 1, axes as :data:`SHAPE`
    voxel_size : along the three axes, in mm
    """

    classes: Tensor
    voxel_size: tuple[float, float, float]


@lru_cache(maxsize=1)
def icbm152() -> Anatomy:
    """Grey matter, white matter, CSF and scalp of the ICBM152 2009 average brain.

    Fonov et al. 2011 (NeuroImage 54:313), the maps that nilearn ships. CSF is what the brain mask
    holds beyond grey and white matter. Outside the brain a gap stands for the skull, which gives
    no signal, and a ring for the scalp.

    Raises
    ------
    UserError
        if nilearn is not installed
    """
    try:
        from nilearn import datasets
    except ImportError as error:
        raise UserError(
            "the brain's ICBM152 maps come from nilearn, which is not installed: "
            "pip install 'kscout[brain]'"
        ) from error
    from scipy.ndimage import distance_transform_edt

    fine = [
        np.asarray(load(resolution=1).dataobj, dtype=np.float32)
        for load in (
            datasets.load_mni152_gm_template,
            datasets.load_mni152_wm_template,
            datasets.load_mni152_brain_mask,
        )
    ]
    voxel_size = tuple(n / m for n, m in zip(fine[0].shape, SHAPE, strict=True))
    stacked = torch.from_numpy(np.stack(fine))[None]
    grey, white, brain = nn.functional.interpolate(stacked, size=SHAPE, mode="trilinear")[0]
    csf = (brain - grey - white).clamp(0, 1)
    distance = distance_transform_edt(brain.numpy() < 0.5, sampling=voxel_size)
    outside = torch.from_numpy(distance).float()
    scalp = torch.sigmoid(2 * (outside - SKULL_MM)) * torch.sigmoid(
        2 * (SKULL_MM + SCALP_MM - outside)
    )
    x, y, z = voxel_size
    return Anatomy(torch.stack([grey, white, csf, scalp]), (x, y, z))


def spm_tpm(path: Path | None) -> Anatomy:
    """SPM's tissue probability map: GM, WM, CSF, bone, soft tissue, air, at 1.5 mm.

    Parameters
    ----------
    path : ``TPM.nii`` of SPM12, or an .npz file with an array ``tpm``, uint8, probability x 255

    Raises
    ------
    UserError
        if there is no such file, or it holds something else
    """
    if path is None:
        raise UserError(
            "brain: source 'spm_tpm' needs tpm, the path of SPM12's TPM.nii (GPL-2.0), which comes "
            "with SPM in spm12/tpm, or of an .npz of it"
        )
    if path.suffix == ".npz":
        bytes_ = read_npz(path, ("tpm",), _npz_complaint)
        probabilities = bytes_.astype(np.float32) / 255
    else:
        probabilities = _read_tpm_nifti(path)
    return Anatomy(torch.from_numpy(probabilities).movedim(-1, 0), (1.5, 1.5, 1.5))


def _npz_complaint(shape: tuple[int, ...], dtype: np.dtype[Any]) -> str:
    if dtype == np.uint8 and shape == (*SHAPE, _N_TPM_CLASSES):
        return ""
    return f"is {dtype} of shape {shape}: valid is uint8 of shape {(*SHAPE, _N_TPM_CLASSES)}"


def _read_tpm_nifti(path: Path) -> np.ndarray:
    import nibabel

    try:
        image = nibabel.nifti1.load(existing_file(path))
        shape = tuple(image.shape)
        if shape != (*SHAPE, _N_TPM_CLASSES):
            raise UserError(f"{path}: its shape is {shape}: TPM.nii has {(*SHAPE, _N_TPM_CLASSES)}")
        return np.array(image.dataobj, dtype=np.float32)
    except UserError:
        raise
    except Exception as error:  # nibabel raises nearly anything on a damaged file
        raise UserError(f"{path}: is not a readable NIfTI file: {error}") from error


def deform(
    image: Tensor,
    voxel_size: tuple[float, float, float],
    rms_mm: float,
    rng: np.random.Generator,
    slices: range,
) -> Tensor:
    r"""Slices of a volume under a random smooth deformation.

    Free-form deformation (Rueckert et al. 1999, IEEE TMI 18:712, eq. 1): the displacement is a
    cubic B-spline :math:`u(x) = \sum_j c_j \prod_a \beta_3(x_a/h - j_a)` with independent Gaussian
    coefficients on a coarse grid.

    Parameters
    ----------
    image : real ``(n0, n1, n2)``
    voxel_size : in mm
    rms_mm : expected root mean square of the displacement along each axis, in mm
    rng : draws the coefficients
    slices : of the third axis, that are wanted

    Returns
    -------
    ``(n0, n1, slice)``
    """
    waves = [
        _bspline_basis(n, size * n / _CONTROL_SPACING_MM)
        for n, size in zip(image.shape, voxel_size, strict=True)
    ]
    coefficients = torch.from_numpy(rng.standard_normal([3] + [w.shape[1] for w in waves])).float()
    # of unit variance on average over the volume, then as strong as asked
    scale = rms_mm / math.prod(float(w.square().sum(1).mean()) for w in waves) ** 0.5
    waves[2] = waves[2][slices.start : slices.stop]
    displacement = scale * torch.einsum("aijk,xi,yj,zk->xyza", coefficients, *waves)
    # grid_sample wants the axes in reverse, and positions from -1 to 1 between the end voxels
    half = [(n - 1) / 2 for n in image.shape]
    axes = [torch.linspace(-1, 1, n) for n in image.shape]
    axes[2] = axes[2][slices.start : slices.stop]
    positions = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)
    in_voxels = displacement / torch.tensor(voxel_size)
    grid = (positions + in_voxels / torch.tensor(half)).flip(-1)
    warped = nn.functional.grid_sample(image[None, None].float(), grid[None], align_corners=True)
    return warped[0, 0]


def _bspline_basis(n: int, n_intervals: float) -> Tensor:
    """Cubic B-splines on a coarse grid, at ``n`` voxels: ``(voxel, control)``."""
    n_intervals = max(1.0, n_intervals)
    position = torch.linspace(0, n_intervals, n)
    control = torch.arange(-1, int(np.ceil(n_intervals)) + 2)
    t = (position[:, None] - control[None, :]).abs()
    near = 2 / 3 - t**2 + t**3 / 2
    far = (2 - t).clamp_min(0) ** 3 / 6
    return torch.where(t < 1, near, far)
