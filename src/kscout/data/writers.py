"""Volumes written as fastMRI-style HDF5, NIfTI, for BART and as NumPy arrays."""

import gzip
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import h5py
import numpy as np
import torch
from torch import Tensor

from kscout.atomic import atomic_path
from kscout.data.formats.bart import write_cfl
from kscout.data.formats.npy import write_npy
from kscout.data.formats.scan import UNKNOWN, Advance, Scan
from kscout.data.slices import Geometry, KspaceSet, Splits
from kscout.errors import UserError
from kscout.physics.coils import root_sum_of_squares
from kscout.physics.fourier import centre_block, kspace_to_image

_MOST_NIFTI = 2**15 - 1


def write_hdf5(path: str | Path, kspace: Tensor, geometry: Geometry = UNKNOWN) -> None:
    """One scan as fastMRI-style HDF5.

    Datasets ``kspace`` (complex64, slice, coil, ky, kx) and ``reconstruction_rss`` (float32, slice,
    y, x); attributes ``max`` and ``norm`` of the latter, as in fastMRI, and the fields of
    ``geometry`` by name.

    Parameters
    ----------
    kspace : complex ``(slice, coil, ky, kx)``
    geometry : of the slices

    Raises
    ------
    UserError
        if ``path`` cannot be written
    """
    with _hdf5(path) as file:
        _fill_hdf5(file, kspace, kspace.shape, kspace_to_image, kspace.shape[-2:])
        file.attrs.update(geometry._asdict())


@contextmanager
def _hdf5(path: str | Path) -> Iterator[h5py.File]:
    """A file to be filled, which appears whole or not at all."""
    with atomic_path(path) as temporary:
        file = h5py.File(temporary, "w")
        try:
            yield file
        except BaseException:
            with suppress(RuntimeError):
                file.close()
            raise
        try:
            file.close()
        except RuntimeError as error:  # HDF5, of a file that could not grow
            raise OSError(f"HDF5 could not write it ({error})") from error


def _fill_hdf5(
    file: h5py.File,
    slices: Iterable[Tensor],
    shape: Sequence[int],
    to_images: Callable[[Tensor], Tensor],
    image_matrix: Sequence[int],
) -> None:
    kspace = file.create_dataset("kspace", tuple(shape), "c8")
    image = file.create_dataset("reconstruction_rss", (shape[0], *image_matrix), "f4")
    largest, square = 0.0, 0.0
    for index, one in enumerate(slices):
        rss = root_sum_of_squares(to_images(one)).float()
        kspace[index], image[index] = one.to(torch.complex64).numpy(), rss.numpy()
        largest = max(largest, float(rss.max()))
        square += float(rss.double().square().sum())
    file.attrs["max"], file.attrs["norm"] = largest, square**0.5


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
    n_slices, *rest = image.shape
    shape = (*rest[-2:], n_slices, *rest[:-2])
    images = image.swapaxes(0, 1) if image.ndim == 4 else image
    _stream_nifti(
        path, images.reshape(-1, *rest[-2:]), shape, image.is_complex(), _affine(shape, geometry)
    )


def _stream_nifti(
    path: str | Path,
    pages: Iterable[Tensor],
    shape: Sequence[int],
    is_complex: bool,
    affine: np.ndarray,
    *,
    is_placed: bool = False,
    said: str = "kscout",
) -> None:
    """Pages ``(y, x)`` in the order of the file: only one of them need be in memory.

    Parameters
    ----------
    is_placed : whether the affine is the scanner's, and not made up
    said : of the image, up to 79 letters
    """
    import nibabel

    if not str(path).endswith((".nii", ".nii.gz")):
        raise UserError(f"{path}: a NIfTI file ends in .nii or .nii.gz")
    if max(shape) > _MOST_NIFTI:
        raise UserError(
            f"{path}: NIfTI has up to {_MOST_NIFTI} voxels along an axis, and {max(shape)} are "
            "needed: valid is .h5"
        )
    dtype = np.dtype("<c8" if is_complex else "<f4")
    header = nibabel.Nifti1Header(endianness="<")
    header.set_data_shape(tuple(shape))
    header.set_data_dtype(dtype)
    header.set_sform(affine, code="scanner" if is_placed else "aligned")
    header.set_qform(affine, code="scanner" if is_placed else "unknown")
    header.set_xyzt_units("mm")
    header["descrip"] = said.encode("ascii", "replace")[:79]
    header["magic"], header["vox_offset"] = b"n+1", header.single_vox_offset
    with atomic_path(path) as temporary, _opened(temporary) as stream:
        stream.write(header.binaryblock + bytes(header.single_vox_offset - header.sizeof_hdr))
        for page in pages:
            stream.write(page.numpy().astype(dtype).tobytes("F"))


def _opened(path: Path) -> "IO[bytes] | gzip.GzipFile":
    """To be written, compressed where the name says so."""
    return gzip.open(path, "wb", compresslevel=1) if path.suffix == ".gz" else path.open("wb")


def _affine_of(scan: Scan) -> np.ndarray:
    """Of a scan's images, which may show less than its plane."""
    if scan.affine is None:
        return _affine((*scan.image_matrix, scan.n_slices), scan.geometry)
    rows, columns = centre_block(scan.plane, scan.image_matrix)
    affine = scan.affine.copy()
    affine[:3, 3] += affine[:3, :2] @ [rows.start, columns.start]
    return affine


def _affine(shape: Sequence[int], geometry: Geometry) -> np.ndarray:
    """From voxels to millimetres; a picture shows axis 0 downwards and axis 1 to the right."""
    cos, sin = [(1, 0), (0, 1), (-1, 0), (0, -1)][geometry.quarter_turns % 4]
    affine = np.eye(4)
    affine[:2, 0] = geometry.voxel_size[0] * np.array([sin, -cos])
    affine[:2, 1] = geometry.voxel_size[1] * np.array([cos, sin])
    affine[2, 2] = geometry.slice_thickness
    affine[:3, 3] = -affine[:3, :3] @ [n // 2 for n in shape[:3]]
    return affine


OUTPUTS = (".nii", ".nii.gz", ".h5", ".npy", ".cfl")


def check_output(path: Path, also: tuple[str, ...] = ()) -> None:
    """Refuse, before any work is done, a name that says no known format."""
    valid = (*OUTPUTS, *also)
    if path.is_dir():
        raise UserError(f"{path} is a folder: valid is a file in it, {', '.join(valid)}")
    if not path.name.endswith(valid):
        raise UserError(f"{path}: the format is not known: valid is {', '.join(valid)}")


def refuse_input(path: Path, inputs: Iterable[Path | None]) -> None:
    """Refuse, before any work is done, to write over what is read, BART's headers included."""
    written = {path, path.with_suffix(".hdr")} if path.suffix == ".cfl" else {path}
    for one in inputs:
        read = {one, one.with_suffix(".hdr")} if one is not None and one.name else set()
        for there in read:
            if any(w.exists() and there.exists() and w.samefile(there) for w in written):
                raise UserError(f"{path} is read here: valid is another name for what is written")


def write_scan(path: Path, scan: Scan, advance: Advance, *, images: bool = False) -> None:
    """An open scan as a file, slice by slice.

    ``.h5``, ``.cfl`` and ``.npy`` (``(slice, coil, ky, kx)``): k-space; ``.nii`` and ``.nii.gz``:
    magnitude image, root sum of squares over coils. Images are of its image matrix. HDF5 keeps
    geometry, affine, image matrix, noise, notes, and that k-space was simulated.

    Parameters
    ----------
    images : magnitude images in ``.npy`` (float32 ``(slice, y, x)``) and in ``.cfl`` too, there
        with slices along BART's dimension 13

    Raises
    ------
    UserError
        if ``path`` says no known format or cannot be written, or a slice cannot be read
    """
    check_output(path)
    slices = _counted(scan, advance)
    magnitudes = (root_sum_of_squares(scan.coil_images(one)).float() for one in slices)
    if path.suffix == ".h5":
        with _hdf5(path) as file:
            _fill_hdf5(file, slices, scan.shape, scan.coil_images, scan.image_matrix)
            if (noise := scan.noise()) is not None:
                file["noise"] = noise.numpy()
            file.attrs.update(scan.geometry._asdict())
            file.attrs["simulated"] = scan.simulated
            if scan.image_matrix != scan.plane:
                file.attrs["image_matrix"] = scan.image_matrix
            if scan.affine is not None:
                file.attrs["affine"] = scan.affine
            # Of fixed length: readers that distrust files can look at it without danger.
            file.attrs["notes"] = np.bytes_("\n".join(scan.notes) or " ")
    elif path.name.endswith((".nii", ".nii.gz")):
        shape = (*scan.image_matrix, scan.n_slices)
        _stream_nifti(
            path,
            magnitudes,
            shape,
            False,
            _affine_of(scan),
            is_placed=scan.affine is not None,
            said="kscout" + "; simulated from magnitude images" * scan.simulated,
        )
    elif path.suffix == ".npy" and images:
        write_npy(path, magnitudes, (scan.n_slices, *scan.image_matrix))
    elif path.suffix == ".npy":
        write_npy(path, slices, scan.shape)
    elif images:
        write_cfl(path, (one[None] for one in magnitudes), (scan.n_slices, 1, *scan.image_matrix))
    else:
        write_cfl(path, slices, scan.shape)


def _counted(scan: Scan, advance: Advance) -> Iterator[Tensor]:
    for index, one in enumerate(scan):
        yield one
        advance(index + 1, scan.n_slices)


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
        if ``folder`` cannot be written, or holds volumes already, which would be mixed with these
    """
    there = next(Path(folder).glob("*/volume_*"), None)
    if there is not None:
        raise UserError(f"{folder} holds volumes already, such as {there}: valid is another folder")
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
