"""The formats that scans are read from: one entry per format."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError, validate_call

from kscout.data.arrays import existing_file
from kscout.data.formats import bart, fastmri, mrd, nifti, npy
from kscout.data.formats.nifti_volume import SUFFIXES as NIFTI
from kscout.data.formats.scan import Scan, sampled_points
from kscout.errors import UserError


@dataclass(frozen=True)
class Format:
    """How a format is told from others, and read.

    Attributes
    ----------
    title : of the format
    suffixes : of its files
    open : reads a file; its keyword-only arguments are options
    recognises : looks into a file, where other formats have the same suffix
    """

    title: str
    suffixes: tuple[str, ...]
    open: Callable[..., Scan]
    recognises: Callable[[Path], bool] = lambda path: True


HDF5 = (".h5", ".hdf5")

FORMATS: dict[str, Format] = {
    "ismrmrd": Format("ISMRMRD raw data", (".mrd", *HDF5), mrd.open_mrd, mrd.is_mrd),
    "fastmri": Format("HDF5 as in fastMRI", HDF5, fastmri.open_fastmri),
    "bart": Format("BART", (".cfl",), bart.open_cfl),
    "npy": Format("NumPy array", (".npy",), npy.open_npy),
    "nifti": Format("NIfTI magnitudes", NIFTI, nifti.open_nifti),
}
"""The first that has the suffix of a file and recognises it reads it."""

SUFFIXES = tuple(dict.fromkeys(s for entry in FORMATS.values() for s in entry.suffixes))


def format_of(path: str | Path) -> str:
    """The name of the format of a file.

    Raises
    ------
    UserError
        if the file is missing, or its name says no known format
    """
    data = Path(path).with_suffix(".cfl") if Path(path).name else Path(path)
    if Path(path).suffix in ("", ".hdr") and data.is_file():
        raise UserError(f"{path}: valid of BART's two files is {data}")
    path = existing_file(path)
    named = [name for name, entry in FORMATS.items() if path.name.endswith(entry.suffixes)]
    if not named:
        raise UserError(f"{path}: unknown format: valid are {', '.join(SUFFIXES)}")
    return next((name for name in named if FORMATS[name].recognises(path)), named[-1])


def open_scan(path: str | Path, options: Mapping[str, Any] | None = None) -> Scan:
    """Open a file of k-space in any known format.

    Parameters
    ----------
    path : of the file
    options : of its format, such as ``{"repetition": 2}`` of ISMRMRD

    Raises
    ------
    UserError
        if the file is missing, of an unknown format or damaged, or an option is not valid
    """
    path, name = Path(path), format_of(path)
    try:
        return validate_call(FORMATS[name].open)(path, **(options or {}))
    except ValidationError as error:
        first = error.errors()[0]
        option = ".".join(str(part) for part in first["loc"])
        if first["type"] == "unexpected_keyword_argument":
            valid = ", ".join(FORMATS[name].open.__kwdefaults__ or {}) or "none"
            raise UserError(
                f"{path}: {FORMATS[name].title} has no option {option}: valid is {valid}"
            ) from None
        said = first["msg"][0].lower() + first["msg"][1:]
        raise UserError(f"{path}: {option}={first['input']}: {said}") from None


__all__ = ["FORMATS", "SUFFIXES", "Format", "Scan", "format_of", "open_scan", "sampled_points"]
