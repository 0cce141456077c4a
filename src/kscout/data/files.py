"""Files of k-space in any format, as a data source: read, checked, and split by scan."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from kscout.data.formats import FORMATS, SUFFIXES, open_scan, sampled_points
from kscout.data.formats.scan import MOST_ACCIDENTAL, Scan
from kscout.data.slices import Geometry, KspaceSet, Splits, check_splits
from kscout.errors import UserError

_Millimetres = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Scale = Annotated[
    Literal["max", "none"], Field(description="divide each scan by its largest modulus, or not")
]
Options = Annotated[
    dict[str, Any] | None,
    Field(description="options of the files' format, such as {repetition: 2} of ISMRMRD"),
]


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
    scale: Scale = "max",
    voxel_size: Annotated[
        tuple[_Millimetres, _Millimetres] | None,
        Field(description="of a pixel along (ky, kx) in mm, for pictures; else as the files say"),
    ] = None,
    quarter_turns: Annotated[
        int | None, Field(description="that put a picture upright; else as the files say")
    ] = None,
    reading: Options = None,
) -> Splits:
    """Fully sampled k-space from files of any format in :data:`kscout.data.formats.FORMATS`.

    Give either ``path``, whose scans are split at random by ``split_seed``, or the scans of
    ``train`` and ``test`` (and ``val``) by name, one file each. All must have the same coils
    and plane. In a folder, NIfTI images count only where there is no k-space.

    Raises
    ------
    UserError
        if a file cannot be used (see :func:`read_kspace`), is undersampled, differs in shape or is
        named twice; if there are too few scans
    """
    names = _named(path, train, val, test, val_fraction, test_fraction, split_seed)
    _refuse_repeats(names)
    scans = {name: read_fully_sampled(name, reading) for part in names.values() for name in part}
    _refuse_odd_shape(scans)
    if scale == "max":
        for scan in scans.values():
            scan /= scan.abs().max()
    geometry = _geometry(names["train"][0], reading, voxel_size, quarter_turns)
    number = {name: volume for volume, name in enumerate(scans)}
    like = next(iter(scans.values()))
    return check_splits(
        {
            split: _gather([(number[name], scans[name]) for name in part], like, geometry)
            for split, part in names.items()
        }
    )


def file_notes(
    *,
    path: Path | None = None,
    train: Sequence[Path] = (),
    reading: Mapping[str, Any] | None = None,
    **_: object,
) -> list[str]:
    """What is to be known of the first scan of a ``files`` source, called with its options."""
    first = kspace_files(path)[0] if path is not None else _expand(train)[0]
    with open_scan(first, reading) as scan:
        return [f"{first.name}: {note}" for note in scan.notes]


def _named(
    path: Path | None,
    train: Sequence[Path],
    val: Sequence[Path],
    test: Sequence[Path],
    val_fraction: float,
    test_fraction: float,
    seed: int,
) -> dict[str, list[Path]]:
    """The files of each split."""
    if path is not None:
        if train or val or test:
            raise UserError("files: give either path, or train and test, not both")
        return _split_folder(path, val_fraction, test_fraction, seed)
    if not train or not test:
        raise UserError("files: give path (a folder), or both train and test (lists of files)")
    return {"train": _expand(train), "val": _expand(val), "test": _expand(test)}


def kspace_files(folder: str | Path) -> list[Path]:
    """The scans in ``folder``, sorted; ``UserError`` if there are none.

    NIfTI images are scans only where no k-space is, because kscout writes them beside it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    scans = sorted(f for f in folder.iterdir() if f.name.endswith(SUFFIXES) and f.name[0] != ".")
    measured = [f for f in scans if not f.name.endswith(FORMATS["nifti"].suffixes)]
    if not scans:
        raise UserError(f"{folder}: no k-space files in this folder ({', '.join(SUFFIXES)})")
    return measured or scans


def _expand(entries: Sequence[Path]) -> list[Path]:
    return [f for e in entries for f in (kspace_files(e) if e.is_dir() else [e])]


def _split_folder(
    folder: Path, val_fraction: float, test_fraction: float, seed: int
) -> dict[str, list[Path]]:
    found = kspace_files(folder)
    n_val, n_test = held_out_counts(folder, len(found), "scans", val_fraction, test_fraction)
    order = np.random.default_rng(seed).permutation(len(found))
    shuffled = [found[i] for i in order]
    return {
        "train": sorted(shuffled[n_val + n_test :]),
        "val": sorted(shuffled[:n_val]),
        "test": sorted(shuffled[n_val : n_val + n_test]),
    }


def held_out_counts(
    path: Path, n: int, things: str, val_fraction: float, test_fraction: float
) -> tuple[int, int]:
    """How many of ``n`` things are for validation and for the test.

    Raises
    ------
    UserError
        naming ``path``, if none is left to train on
    """
    n_val, n_test = round(val_fraction * n), max(1, round(test_fraction * n))
    if n_val + n_test >= n:
        raise UserError(
            f"{path}: {n} {things} leave none to train on after {n_val} for validation and "
            f"{n_test} for the test: add {things}, or lower val_fraction and test_fraction"
        )
    return n_val, n_test


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


def read_kspace(path: str | Path, reading: Mapping[str, Any] | None = None) -> Tensor:
    """k-space from a file, fully sampled or not (zeros where nothing was acquired).

    Parameters
    ----------
    path : of a file of any format in :data:`kscout.data.formats.FORMATS`
    reading : options of its format

    Returns
    -------
    complex64 ``(slice, coil, ky, kx)``

    Raises
    ------
    UserError
        if the file is missing, of another format, damaged or truncated, or holds NaN, infinity or
        nothing but zeros
    """
    with open_scan(path, reading) as scan:
        return _read(scan)


def _read(scan: Scan) -> Tensor:
    kspace = scan.read_all()
    if not kspace.any():
        raise UserError(f"{scan.path}: holds nothing but zeros")
    return kspace


def read_fully_sampled(path: str | Path, reading: Mapping[str, Any] | None = None) -> Tensor:
    """As :func:`read_kspace`; ``UserError`` where points or whole slices were not acquired."""
    with open_scan(path, reading) as scan:
        kspace = _read(scan)
        missing = int((~scan.sampled()).sum())
    if missing:
        raise UserError(
            f"{path}: {missing} of {kspace[0, 0].numel()} k-space points are zero in every coil: "
            "fully sampled k-space is needed (crop it if it was zero-padded)"
        )
    lost = torch.stack([(~sampled_points(one)).sum() for one in kspace])
    if (lost == kspace[0, 0].numel()).any():
        raise UserError(f"{path}: slice {int(lost.argmax())} holds nothing but zeros")
    if (lost > MOST_ACCIDENTAL * kspace[0, 0].numel()).any():
        raise UserError(
            f"{path}: {int(lost.max())} of {kspace[0, 0].numel()} points of slice "
            f"{int(lost.argmax())} are zero in every coil: fully sampled k-space is needed"
        )
    return kspace


def read_geometry(path: str | Path, reading: Mapping[str, Any] | None = None) -> Geometry:
    """How the slices of a file lie in space, as far as it says; else as in ``Geometry()``."""
    with open_scan(path, reading) as scan:
        return scan.geometry


def _geometry(
    path: Path,
    reading: Mapping[str, Any] | None,
    voxel_size: tuple[float, float] | None,
    quarter_turns: int | None,
) -> Geometry:
    """What the options say of the picture, else the file, else square pixels and no turn."""
    said = read_geometry(path, reading)
    return Geometry(
        said.voxel_size if voxel_size is None else voxel_size,
        said.quarter_turns if quarter_turns is None else quarter_turns,
        said.slice_thickness,
    )
