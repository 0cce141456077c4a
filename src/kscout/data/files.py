"""k-space files (.npy, fastMRI-style HDF5): read, checked, and split by scan."""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import h5py
import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from kscout.data.arrays import existing_file, read_npy
from kscout.data.slices import Geometry, KspaceSet, Splits, check_splits
from kscout.errors import UserError

SUFFIXES = (".npy", ".h5", ".hdf5")

_Millimetres = Annotated[float, Field(gt=0, allow_inf_nan=False)]

_MAX_COMPRESSION = 100
"""Measured k-space hardly compresses; a file that claims more than this is not believed."""


def files(
    *,
    path: Annotated[
        Path | None, Field(description="folder of k-space files, split by scan at random")
    ] = None,
    train: Annotated[
        tuple[Path, ...], Field(description="files or folders to train on, instead of path")
    ] = (),
    val: Annotated[tuple[Path, ...], Field(description="files or folders for validation")] = (),
    test: Annotated[tuple[Path, ...], Field(description="files or folders to test on")] = (),
    val_fraction: Annotated[float, Field(ge=0, lt=1, description="of the scans in path")] = 0.1,
    test_fraction: Annotated[float, Field(gt=0, lt=1, description="of the scans in path")] = 0.2,
    split_seed: Annotated[int, Field(ge=0, description="of the split of path")] = 0,
    scale: Annotated[
        Literal["max", "none"], Field(description="divide each scan by its largest modulus, or not")
    ] = "max",
    voxel_size: Annotated[
        tuple[_Millimetres, _Millimetres] | None,
        Field(description="of a pixel along (ky, kx) in mm, for pictures; else as the files say"),
    ] = None,
    quarter_turns: Annotated[
        int | None, Field(description="that put a picture upright; else as the files say")
    ] = None,
) -> Splits:
    """Fully sampled k-space from files, one scan each.

    Give either ``path``, whose scans are split at random by ``split_seed``, or the scans of
    ``train`` and ``test`` (and ``val``) by name. All must have the same coils and plane.

    Raises
    ------
    UserError
        if a file cannot be used (see :func:`read_kspace`), is undersampled, differs in shape or is
        named twice; if there are too few scans
    """
    if path is not None:
        if train or val or test:
            raise UserError("files: give either path, or train and test, not both")
        names = _split_folder(path, val_fraction, test_fraction, split_seed)
    else:
        if not train or not test:
            raise UserError("files: give path (a folder), or both train and test (lists of files)")
        names = {"train": _expand(train), "val": _expand(val), "test": _expand(test)}
    _refuse_repeats(names)
    scans = {name: read_fully_sampled(name) for part in names.values() for name in part}
    _refuse_odd_shape(scans)
    if scale == "max":
        for scan in scans.values():
            scan /= scan.abs().max()
    geometry = _geometry(names["train"][0], voxel_size, quarter_turns)
    number = {name: volume for volume, name in enumerate(scans)}
    like = next(iter(scans.values()))
    return check_splits(
        {
            split: _gather([(number[name], scans[name]) for name in part], like, geometry)
            for split, part in names.items()
        }
    )


def kspace_files(folder: str | Path) -> list[Path]:
    """The k-space files in ``folder``, sorted; ``UserError`` if there are none."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    found = sorted(f for f in folder.iterdir() if f.suffix in SUFFIXES and f.name[0] != ".")
    if not found:
        raise UserError(f"{folder}: no k-space files in this folder ({', '.join(SUFFIXES)})")
    return found


def _expand(entries: Sequence[Path]) -> list[Path]:
    return [f for e in entries for f in (kspace_files(e) if e.is_dir() else [e])]


def _split_folder(
    folder: Path, val_fraction: float, test_fraction: float, seed: int
) -> dict[str, list[Path]]:
    found = kspace_files(folder)
    n_val = round(val_fraction * len(found))
    n_test = max(1, round(test_fraction * len(found)))
    if n_val + n_test >= len(found):
        raise UserError(
            f"{folder}: {len(found)} scans leave none to train on after {n_val} for validation and "
            f"{n_test} for the test: add scans, or lower val_fraction and test_fraction"
        )
    order = np.random.default_rng(seed).permutation(len(found))
    shuffled = [found[i] for i in order]
    return {
        "train": sorted(shuffled[n_val + n_test :]),
        "val": sorted(shuffled[:n_val]),
        "test": sorted(shuffled[n_val : n_val + n_test]),
    }


def _refuse_repeats(names: dict[str, list[Path]]) -> None:
    seen: dict[Path, str] = {}
    for split, part in names.items():
        for name in part:
            if name.resolve() in seen:
                raise UserError(
                    f"{name}: is named for '{seen[name.resolve()]}' and again for '{split}': "
                    "each scan belongs to one split"
                )
            seen[name.resolve()] = split


def _refuse_odd_shape(scans: dict[Path, Tensor]) -> None:
    shapes = {name: tuple(scan.shape[1:]) for name, scan in scans.items()}
    common, _ = Counter(shapes.values()).most_common(1)[0]
    for name, shape in shapes.items():
        if shape != common:
            raise UserError(
                f"{name}: its (coil, ky, kx) is {shape} while other scans have {common}: "
                "all scans must agree"
            )


def _gather(scans: Sequence[tuple[int, Tensor]], like: Tensor, geometry: Geometry) -> KspaceSet:
    kspace = torch.cat([scan for _, scan in scans]) if scans else like[:0]
    volume = [torch.full((len(scan),), number) for number, scan in scans]
    return KspaceSet(
        kspace=kspace,
        target=kspace,
        volume=torch.cat(volume) if volume else torch.zeros(0, dtype=torch.int64),
        coil_scale=torch.ones(like.shape[1]),
        **geometry._asdict(),
    )


def read_kspace(path: str | Path) -> Tensor:
    """k-space from a file, fully sampled or not (zeros where nothing was acquired).

    ``.npy``: ``(slice, coil, ky, kx)``, ``(coil, ky, kx)`` or ``(ky, kx)``. HDF5 as in fastMRI
    (Zbontar et al. 2018, arXiv:1811.08839): the dataset ``kspace``, multi-coil
    ``(slice, coil, ky, kx)`` or single-coil ``(slice, ky, kx)``.

    Returns
    -------
    complex64 ``(slice, coil, ky, kx)``

    Raises
    ------
    UserError
        if the file is missing, of another format, truncated, of the wrong rank or dtype, or holds
        NaN, infinity or nothing but zeros
    """
    path = existing_file(path)
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: unknown format: valid are {', '.join(SUFFIXES)}")
    if path.suffix == ".npy":
        array = read_npy(path, lambda shape, dtype: _complaint(shape, dtype, (2, 3, 4)))
        array = array.reshape((1,) * (4 - array.ndim) + array.shape)
    else:
        array = _read_hdf5(path)
        array = array[:, None] if array.ndim == 3 else array
    with np.errstate(over="ignore", invalid="ignore"):
        kspace = torch.from_numpy(np.ascontiguousarray(array, np.complex64))
    if not torch.isfinite(torch.view_as_real(kspace)).all():
        raise UserError(f"{path}: holds NaN or infinity")
    if not kspace.any():
        raise UserError(f"{path}: holds nothing but zeros")
    return kspace


def read_fully_sampled(path: str | Path) -> Tensor:
    """As :func:`read_kspace`; ``UserError`` where points or whole slices were not acquired."""
    kspace = read_kspace(path)
    missing = int((~sampled_points(kspace)).sum())
    if missing:
        raise UserError(
            f"{path}: {missing} of {kspace[0, 0].numel()} k-space points are zero in every coil: "
            "fully sampled k-space is needed (crop it if it was zero-padded)"
        )
    empty = torch.nonzero(~(kspace != 0).flatten(1).any(1)).flatten().tolist()
    if empty:
        raise UserError(f"{path}: slice {empty[0]} holds nothing but zeros")
    return kspace


def sampled_points(kspace: Tensor) -> Tensor:
    """Which points were acquired: those that are not zero in some coil of some slice.

    Parameters
    ----------
    kspace : complex ``(..., ky, kx)``

    Returns
    -------
    bool ``(ky, kx)``
    """
    return (kspace != 0).reshape(-1, *kspace.shape[-2:]).any(0)


def _complaint(shape: tuple[int, ...], dtype: np.dtype[Any], ranks: Sequence[int]) -> str:
    layouts = {2: "(ky, kx)", 3: "(coil, ky, kx)", 4: "(slice, coil, ky, kx)"}
    if dtype.kind != "c":
        return f"its dtype is {dtype}: k-space is complex"
    if len(shape) not in ranks:
        valid = " or ".join(layouts[r] for r in ranks)
        return f"its shape is {shape}: valid is {valid}"
    return ""


def _read_hdf5(path: Path) -> np.ndarray:
    try:
        with h5py.File(path, "r") as file:
            if not isinstance(file.get("kspace", getlink=True), h5py.HardLink):
                names = ", ".join(list(file)[:8]) or "nothing"
                raise UserError(f"{path}: holds {names}: a dataset 'kspace' is needed")
            dataset = file["kspace"]
            if not isinstance(dataset, h5py.Dataset):
                raise UserError(f"{path}: 'kspace' is not a dataset")
            _check_dataset(dataset, path)
            return np.asarray(dataset[()])
    except UserError:
        raise
    except Exception as error:  # h5py raises nearly anything on a damaged file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: is not a readable HDF5 file: {reason}") from error


def _check_dataset(dataset: h5py.Dataset, path: Path) -> None:
    shape: tuple[int, ...] = dataset.shape or ()
    if dataset.dtype.kind == "c" and len(shape) == 3:
        shape = (shape[0], 1, *shape[1:])
    if text := _complaint(shape, dataset.dtype, (4,)):
        raise UserError(f"{path}, dataset 'kspace': {text}")
    if min(shape) < 1:
        raise UserError(f"{path}, dataset 'kspace': is empty, its shape is {dataset.shape}")
    n_bytes = math.prod(shape) * dataset.dtype.itemsize
    stored = min(dataset.id.get_storage_size(), path.stat().st_size)
    factor = 1 if dataset.chunks is None else _MAX_COMPRESSION
    if n_bytes > factor * stored:
        raise UserError(
            f"{path}, dataset 'kspace': is truncated or damaged: its header announces {n_bytes} "
            f"bytes of data and {stored} are there"
        )


def _geometry(
    path: Path, voxel_size: tuple[float, float] | None, quarter_turns: int | None
) -> Geometry:
    """What the options say of the picture, else the file, else square pixels and no turn."""
    said = read_geometry(path)
    return Geometry(
        said.voxel_size if voxel_size is None else voxel_size,
        said.quarter_turns if quarter_turns is None else quarter_turns,
        said.slice_thickness,
    )


def read_geometry(path: str | Path) -> Geometry:
    """The geometry of slices as ``write_hdf5`` stored it.

    Whatever a file does not say, or says without sense, is as in ``Geometry()``: square pixels of
    1 mm, no turn, slices 1 mm apart.
    """
    unknown = Geometry()
    if Path(path).suffix == ".npy":
        return unknown
    try:
        with h5py.File(path, "r") as file:
            said = {
                name: np.asarray(file.attrs.get(name, value), dtype=np.float64)
                for name, value in unknown._asdict().items()
            }
    except Exception:  # h5py raises nearly anything; a picture's shape is no reason to stop
        return unknown
    size, turns, thickness = said.values()
    return Geometry(
        (float(size[0]), float(size[1])) if _is_length(size, (2,)) else unknown.voxel_size,
        int(turns) % 4 if turns.shape == () and np.isfinite(turns) else unknown.quarter_turns,
        float(thickness) if _is_length(thickness, ()) else unknown.slice_thickness,
    )


def _is_length(value: np.ndarray, shape: tuple[int, ...]) -> bool:
    return value.shape == shape and bool((np.isfinite(value) & (value > 0)).all())
