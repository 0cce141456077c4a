"""Volumes written as fastMRI-style HDF5 and NIfTI."""

from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from kscout.atomic import atomic_path
from kscout.data.slices import Geometry, KspaceSet, Splits
from kscout.errors import UserError
from kscout.physics.coils import root_sum_of_squares
from kscout.physics.fourier import kspace_to_image

UNKNOWN = Geometry()
"""Square pixels of 1 mm that need no turn."""


def write_hdf5(path: str | Path, kspace: Tensor, geometry: Geometry = UNKNOWN) -> None:
    """One scan as fastMRI-style HDF5.

    Datasets ``kspace`` (complex64, slice, coil, ky, kx) and ``reconstruction_rss`` (float32, slice,
    y, x); attributes ``max`` and ``norm`` of the latter, as in fastMRI, and the fields of
    ``geometry`` by name (:func:`kscout.data.files.read_geometry`).

    Parameters
    ----------
    kspace : complex ``(slice, coil, ky, kx)``
    geometry : of the slices

    Raises
    ------
    UserError
        if ``path`` cannot be written
    """
    rss = root_sum_of_squares(kspace_to_image(kspace)).float()
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        file["kspace"] = kspace.to(torch.complex64).numpy()
        file["reconstruction_rss"] = rss.numpy()
        file.attrs["max"] = float(rss.max())
        file.attrs["norm"] = float(torch.linalg.vector_norm(rss))
        file.attrs.update(geometry._asdict())


def write_nifti(path: str | Path, image: Tensor, geometry: Geometry = UNKNOWN) -> None:
    """Images as NIfTI, axes (y, x, slice) or (y, x, slice, coil), values as they are.

    The affine turns the picture as ``geometry.quarter_turns`` does, so that a viewer shows it
    upright, and puts the middle voxel at the origin. What is left and right is not known and not
    claimed.

    Parameters
    ----------
    path : ends in .nii or .nii.gz
    image : real or complex, ``(slice, y, x)`` or ``(slice, coil, y, x)``
    geometry : of the slices

    Raises
    ------
    UserError
        if ``path`` cannot be written or does not end in .nii or .nii.gz
    """
    import nibabel

    if not str(path).endswith((".nii", ".nii.gz")):
        raise UserError(f"{path}: a NIfTI file ends in .nii or .nii.gz")
    axes = (1, 2, 0) if image.ndim == 3 else (2, 3, 0, 1)
    array = image.to(torch.complex64 if image.is_complex() else torch.float32)
    voxels = array.permute(axes).numpy()
    # A picture shows axis 0 downwards and axis 1 to the right; a turn of q quarters turns both.
    cos, sin = [(1, 0), (0, 1), (-1, 0), (0, -1)][geometry.quarter_turns % 4]
    affine = np.eye(4)
    affine[:2, 0] = geometry.voxel_size[0] * np.array([sin, -cos])
    affine[:2, 1] = geometry.voxel_size[1] * np.array([cos, sin])
    affine[2, 2] = geometry.slice_thickness
    affine[:3, 3] = -affine[:3, :3] @ [n // 2 for n in voxels.shape[:3]]
    with atomic_path(path) as temporary:
        nibabel.save(nibabel.Nifti1Image(voxels, affine), temporary)


OUTPUTS = (".nii", ".nii.gz", ".h5", ".npy")


def check_output(path: Path, also: tuple[str, ...] = ()) -> None:
    """Refuse, before any work is done, a name that says no known format."""
    valid = (*OUTPUTS, *also)
    if not path.name.endswith(valid):
        raise UserError(f"{path}: the format is not known: valid is {', '.join(valid)}")


def write_images(path: Path, scan: KspaceSet) -> None:
    """One scan in the format that the name says.

    ``.nii`` and ``.nii.gz``: magnitude image; ``.h5``: k-space and image (:func:`write_hdf5`);
    ``.npy``: magnitude image, float32 ``(slice, y, x)``.
    """
    check_output(path)
    image = scan.image(scan.kspace)
    if path.suffix == ".h5":
        write_hdf5(path, scan.kspace / scan.coil_scale[:, None, None], scan.geometry)
    elif path.suffix == ".npy":
        with atomic_path(path) as temporary:
            np.save(temporary, image.numpy(), allow_pickle=False)
    else:
        write_nifti(path, image, scan.geometry)


def write_splits(splits: Splits, folder: str | Path) -> list[Path]:
    """Every volume of a data source as files, ``folder/split/volume_000.*``.

    Per volume: ``.h5``, k-space as measured (:func:`write_hdf5`), and the NIfTI files
    ``_image.nii``, magnitude of the reference, without simulated noise; ``_rss.nii``, magnitude as
    measured; ``_coils.nii``, complex coil images as measured.

    Returns
    -------
    the HDF5 files

    Raises
    ------
    UserError
        if ``folder`` cannot be written
    """
    written = []
    for split, part in splits.items():
        for number in torch.unique(part.volume).tolist():
            volume = part.select(torch.nonzero(part.volume == number).flatten())
            path = Path(folder) / split / f"volume_{number:03d}.h5"
            _write_volume(volume, path)
            written.append(path)
    return written


def _write_volume(volume: KspaceSet, path: Path) -> None:
    kspace = volume.kspace / volume.coil_scale[:, None, None]
    images = {
        "image": volume.image(volume.target),
        "rss": volume.image(volume.kspace),
        "coils": kspace_to_image(kspace),
    }
    for name, image in images.items():
        write_nifti(path.with_name(f"{path.stem}_{name}.nii"), image, volume.geometry)
    write_hdf5(path, kspace, volume.geometry)
