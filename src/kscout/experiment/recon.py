"""A file reconstructed slice by slice: by a method that calibrates itself, or by a finished run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from kscout.classical import METHODS
from kscout.classical.slicewise import Acs
from kscout.data.formats import FORMATS, Scan, format_of, open_scan
from kscout.errors import UserError
from kscout.evaluation import masks_of_slices
from kscout.experiment.config import options_of, parse_options
from kscout.experiment.fitted import FittedRun
from kscout.experiment.gridless import PLAIN, GridlessReconstruction
from kscout.experiment.inspect import describe_pattern, parse_reading
from kscout.experiment.masks import mask_from, parse_size
from kscout.experiment.progress import progress_bar
from kscout.physics.coils import root_sum_of_squares
from kscout.physics.fourier import centre_block, kspace_to_image
from kscout.physics.preparation import compression, mix_coils, noise_covariance, whitening
from kscout.sampling.pattern import find_acs, find_pattern

Fill = Callable[[Tensor], Tensor]
"""Of one slice, complex ``(coil, ky, kx)``: what was acquired to completed k-space."""


@dataclass(frozen=True)
class Request:
    """How a file is to be reconstructed.

    Attributes
    ----------
    method : a name in :data:`kscout.classical.METHODS` (``-`` may stand for ``_``), or the folder
        of a finished run
    options : ``option=value`` words, of the method or of the file's format
    acs : "auto", or ROWSxCOLUMNS of the centre to calibrate on
    mask : .npy file or run; points of the scan that it leaves out are not used
    n_coils : that the scan's are compressed to; not at all if None
    prewhiten : by the file's noise scan, where it has one
    trajectory : file of the places of samples off the grid, which the file then holds
    matrix : of their grid: "auto", or ROWSxCOLUMNS
    """

    method: str = "spirit"
    options: Sequence[str] = ()
    acs: str = "auto"
    mask: Path | None = None
    n_coils: int | None = None
    prewhiten: bool = True
    trajectory: Path | None = None
    matrix: str = "auto"


class Reconstruction(Scan):
    """A scan whose missing points are filled in when its slices are read.

    Parameters
    ----------
    scan : open; closed with this
    fill : of one slice
    note : about the method, in words
    full : whether the scan is fully sampled, so that the error can be told

    Attributes
    ----------
    n_done : slices that were read
    silent : coils that hold nothing but zeros in a slice that was read
    nmse : of the images that were read, against those of the full data; None without these
    """

    def __init__(self, scan: Scan, fill: Fill, note: str, full: bool) -> None:
        notes = (*scan.notes, note)
        super().__init__(scan.path, scan.shape, scan.geometry, notes, simulated=scan.simulated)
        self.affine = scan.affine
        self._scan, self._fill, self._full = scan, fill, full
        self._error, self._energy = 0.0, 0.0
        self.n_done = 0
        self.silent: set[int] = set()

    def read(self, index: int) -> Tensor:
        """One slice, complex64 ``(coil, ky, kx)``; ``UserError`` also where the method fails."""
        return self._read(index)

    def _read(self, index: int) -> Tensor:
        kspace = self._scan.read(index)
        alive = (kspace != 0).flatten(1).any(1)
        if not alive.any():
            return kspace
        self.silent |= set(torch.nonzero(~alive).flatten().tolist())
        try:
            completed = self._fill(kspace)
        except UserError as error:
            raise UserError(f"{self.path}: slice {index}: {error}") from error
        if not torch.isfinite(torch.view_as_real(completed)).all():
            raise UserError(f"{self.path}: slice {index}: the reconstruction is not finite")
        if self._full:
            image, true = (root_sum_of_squares(kspace_to_image(k)) for k in (completed, kspace))
            self._error += float((image - true).double().square().sum())
            self._energy += float(true.double().square().sum())
        self.n_done += 1
        return completed

    @property
    def nmse(self) -> float | None:
        return self._error / self._energy if self._full and self._energy else None

    def remarks(self) -> list[str]:
        """What can be said once slices were read."""
        said = []
        if self.silent:
            named = ", ".join(str(coil) for coil in sorted(self.silent))
            said.append(f"note: coil {named} holds nothing but zeros in some slices")
        if self.nmse is not None:
            said.append(f"image NMSE {self.nmse:.3g} (slices: {self.n_done})")
        return said

    def close(self) -> None:
        self._scan.close()


def open_reconstruction(
    file: Path, request: Request, console: Console
) -> Reconstruction | GridlessReconstruction:
    """Open a file to read reconstructed slices from it, and say what is done with it.

    Raises
    ------
    UserError
        if the file, the run, the mask or an option is not valid, or they do not fit each other
    """
    if request.trajectory is not None:
        _refuse_given(request, "--trajectory", ("method", "mask", "acs", "n_coils"))
        return GridlessReconstruction(
            file, request.trajectory, request.matrix, request.options, console
        )
    _refuse_given(request, "a file without --trajectory", ("matrix",))
    name = request.method.replace("-", "_")
    run = None if name in METHODS else _load_run(request)
    of_method, reading = _sort_options(file, request.options, name if run is None else None)
    scan = open_scan(file, reading)
    try:
        for remark in scan.notes:
            console.print(f"note: {remark}", **PLAIN)
        acquired = _acquired(scan, console)
        full = bool(acquired.all())
        if run is not None:
            fill = _fill_by_run(run, Path(request.method), scan, acquired)
            used = run.mask
            note = f"reconstructed by kscout with {Path(request.method).name}"
        else:
            used = acquired if request.mask is None else _mask(request.mask, scan, acquired)
            fill = _fill_by_method(name, of_method, request, scan, used, console)
            note = f"reconstructed by kscout, {name}"
        n, total = int(used.sum()), used.numel()
        said = "fully sampled, masked with" if full and n < total else "sampled:"
        console.print(f"{said} {n} of {total} points, R = {total / n:.2f}", **PLAIN)
        return Reconstruction(scan, fill, f"{note}, from {n} of {total} points", full and n < total)
    except BaseException:
        scan.close()
        raise


def _load_run(request: Request) -> FittedRun:
    folder = Path(request.method)
    if not folder.exists():
        valid = ", ".join(METHODS)
        raise UserError(f"'{folder}' is no method and no run folder: valid is {valid}, or a folder")
    _refuse_given(request, f"{folder}, which has a mask and coils", ("mask", "acs", "n_coils"))
    return FittedRun.load(folder)


def _refuse_given(request: Request, what: str, options: Sequence[str]) -> None:
    """``UserError`` where an option was given that does not go with something."""
    plain = Request()
    for option in options:
        if getattr(request, option) != getattr(plain, option):
            raise UserError(f"--{option.removeprefix('n_')} does not go with {what}")


def _sort_options(
    file: Path, words: Sequence[str], method: str | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of the method, with its defaults, and of the file's format."""
    entry = FORMATS[format_of(file)]
    of_format = set(entry.open.__kwdefaults__ or {})
    of_method = set(options_of(METHODS[method]).model_fields) if method else set()
    for word in words:
        key = word.partition("=")[0]
        if key not in of_format | of_method:
            method_has = f"valid of {method} is {', '.join(sorted(of_method))}; " if method else ""
            format_has = f"of {entry.title} {', '.join(sorted(of_format)) or 'none'}"
            raise UserError(f"unknown option {key}: {method_has}{format_has}")
    mine = [word for word in words if word.partition("=")[0] in of_method]
    others = [word for word in words if word.partition("=")[0] not in of_method]
    options = parse_options(METHODS, method, mine).options() if method else {}
    return options, parse_reading(others)


def _acquired(scan: Scan, console: Console) -> Tensor:
    with progress_bar(console, "look for samples") as show:
        acquired = scan.sampled(partial(show, "slices"))
    if not acquired.any():
        raise UserError(f"{scan.path}: holds nothing but zeros")
    y, x = scan.plane
    pattern = find_pattern(acquired)
    console.print(
        f"{scan.path.name} (slice, coil, ky, kx): {scan.n_slices} x {scan.n_coils} x {y} x {x}, "
        f"{describe_pattern(pattern, bool(acquired.all()))}",
        **PLAIN,
    )
    return acquired


def _mask(path: Path, scan: Scan, acquired: Tensor) -> Tensor:
    mask = mask_from(path)
    if tuple(mask.shape) != scan.plane:
        raise UserError(
            f"{path} is a mask of {mask.shape[0]}x{mask.shape[1]}: {scan.path} has a plane of "
            f"{scan.plane[0]}x{scan.plane[1]}"
        )
    absent = int((mask & ~acquired).sum())
    if absent:
        raise UserError(
            f"{scan.path} lacks {absent} of the {int(mask.sum())} points of {path}: valid is a "
            "mask of points that were acquired"
        )
    return mask


def _fill_by_method(
    name: str,
    options: dict[str, Any],
    request: Request,
    scan: Scan,
    mask: Tensor,
    console: Console,
) -> Fill:
    if mask.all():
        console.print("nothing is missing: the images are those of the file (see --mask)", **PLAIN)
        return lambda kspace: kspace
    acs = _acs(request.acs, mask, console)
    white = _whitening(scan, console) if request.prewhiten else None
    n_coils = request.n_coils
    if n_coils is not None and not 1 <= n_coils <= scan.n_coils:
        raise UserError(
            f"{scan.path}: {scan.n_coils} coils cannot become {n_coils}: valid is 1 to "
            f"{scan.n_coils}"
        )
    block = centre_block(scan.plane, acs)

    def fill(kspace: Tensor) -> Tensor:
        """In white and fewer coils, and back in the scan's own."""
        there = back = torch.eye(len(kspace), dtype=torch.complex128)
        if white is not None:
            there, back = white, torch.linalg.solve_triangular(white, back, upper=False)
        if n_coils is not None:
            fewer = compression(mix_coils(kspace, there)[:, block[0], block[1]], n_coils)
            there, back = fewer @ there, back @ fewer.mH
        return mix_coils(
            METHODS[name](mix_coils(kspace, there)[None], mask, acs, **options)[0], back
        )

    return fill


def _acs(asked: str, mask: Tensor, console: Console) -> Acs:
    found = find_acs(mask)
    if asked == "auto":
        if min(found) < 2:
            raise UserError(
                "no ACS: the centre of k-space is not fully sampled: valid is a scan with a fully "
                "sampled centre, or --method RUN, a run that was trained for this mask"
            )
        console.print(f"ACS: {found[0]} x {found[1]} (ky, kx), found", **PLAIN)
        return found
    rows, columns = parse_size(asked)
    inside = rows <= mask.shape[0] and columns <= mask.shape[1]
    if not inside or not mask[centre_block(mask.shape, (rows, columns))].all():
        raise UserError(
            f"--acs {asked} is not fully sampled: the largest centred block that is, is "
            f"{found[0]}x{found[1]}"
        )
    return rows, columns


def _whitening(scan: Scan, console: Console) -> Tensor | None:
    noise = scan.noise()
    if noise is None:
        return None
    console.print(f"noise scan: coils are prewhitened by {noise.shape[1]} samples", **PLAIN)
    try:
        return whitening(noise_covariance(noise))
    except UserError as error:
        raise UserError(f"{scan.path}: {error} (--no-prewhiten goes without)") from error


def _fill_by_run(run: FittedRun, folder: Path, scan: Scan, acquired: Tensor) -> Fill:
    if scan.n_coils != len(run.coil_scale):
        raise UserError(
            f"{scan.path} has {scan.n_coils} coils: {folder} was fitted to {len(run.coil_scale)} "
            "and can reconstruct no other number"
        )
    if scan.plane != tuple(run.mask.shape):
        raise UserError(
            f"{scan.path} has a plane of {scan.plane[0]}x{scan.plane[1]}: the mask of {folder} is "
            f"{run.mask.shape[0]}x{run.mask.shape[1]}"
        )
    if run.sampler.adaptive and not acquired.all():
        raise UserError(
            f"{scan.path} is not fully sampled: {folder} chooses points by what it sees of each "
            "slice, and valid with it is a fully sampled scan"
        )
    n_absent = int((run.mask & ~acquired).sum())
    if n_absent:
        raise UserError(
            f"{scan.path} lacks {n_absent} of the {int(run.mask.sum())} points that {folder} "
            "acquires: valid is a scan with that mask, or a fully sampled one"
        )
    scale = run.coil_scale[:, None, None]

    @torch.no_grad()
    def fill(kspace: Tensor) -> Tensor:
        scaled = (kspace * scale)[None]
        mask = masks_of_slices(run.sampler, scaled, run.reconstructor)
        completed: Tensor = run.reconstructor(scaled * mask, mask)[0] / scale
        return completed

    return fill
