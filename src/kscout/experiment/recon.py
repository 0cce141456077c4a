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
from kscout.data.formats import FORMATS, Scan, format_of, open_scan, sampled_points
from kscout.data.formats.scan import MOST_ACCIDENTAL, Advance, slice_told
from kscout.errors import UserError
from kscout.evaluation import masks_of_slices
from kscout.experiment.by_method import ByMethod, chosen_acs, covariance_of
from kscout.experiment.config import options_of, parse_options
from kscout.experiment.fitted import FittedRun
from kscout.experiment.inspect import describe_pattern, parse_reading
from kscout.experiment.masks import mask_from
from kscout.experiment.non_cartesian import NonCartesianReconstruction
from kscout.experiment.progress import PLAIN, progress_bar
from kscout.physics.coils import root_sum_of_squares
from kscout.sampling.pattern import LEAST_ACS, find_acs, find_pattern

MOST_ELONGATED = 64
"""Times that a plane may be longer than wide."""

Fill = Callable[[Tensor, Tensor | None], Tensor]
"""Of one slice, complex ``(coil, ky, kx)``: what was acquired to completed k-space.

The second is the slice of the scan's reference, if it has one.
"""


@dataclass(frozen=True)
class Request:
    """How a file is to be reconstructed.

    Attributes
    ----------
    method : a name in :data:`kscout.classical.METHODS` (``-`` may stand for ``_``), or the folder
        of a finished run
    options : ``option=value`` words, of the method or of the file's format
    acs : "auto", or ROWSxCOLUMNS of the centre to calibrate on
    mask : .npy or .cfl file, or run; points of the scan that it leaves out are not used
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
    reference : that it is calibrated on, or None
    full : whether the scan is fully sampled, so that the error can be told

    Attributes
    ----------
    silent : coils that hold nothing but zeros in a slice that was read, others of which do not
    empty : slices that were read and hold nothing but zeros
    n_left : most points of a slice that stayed zero
    errors : of the slices that were read and are fully sampled: squared error of the image against
        that of the full data, and what it is an error of
    """

    def __init__(
        self, scan: Scan, fill: Fill, note: str, full: bool, reference: Scan | None
    ) -> None:
        notes = (*scan.notes, note)
        super().__init__(scan.path, scan.shape, scan.geometry, notes, simulated=scan.simulated)
        self.affine, self.image_matrix = scan.affine, scan.image_matrix
        self._scan, self._fill, self._full, self._reference = scan, fill, full, reference
        self.errors: list[tuple[float, float]] = []
        self.silent: set[int] = set()
        self.empty: list[int] = []
        self.n_left = 0

    def read(self, index: int) -> Tensor:
        """One slice, complex64 ``(coil, ky, kx)``; ``UserError`` also where the method fails."""
        return self._read(index)

    def _read(self, index: int) -> Tensor:
        kspace = self._scan.read(index)
        alive = (kspace != 0).flatten(1).any(1)
        if not alive.any():
            self.empty.append(index)
            return kspace
        reference = None if self._reference is None else self._reference.read(index)
        self.silent |= set(torch.nonzero(~alive).flatten().tolist())
        with slice_told(self.path, index):
            try:
                completed = self._fill(kspace, reference)
            except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
                raise UserError(" ".join(str(error).split())[:200]) from error
        self.n_left = max(self.n_left, int((~sampled_points(completed)).sum()))
        if not torch.isfinite(torch.view_as_real(completed)).all():
            raise UserError(f"{self.path}: slice {index}: the reconstruction is not finite")
        if self._full and sampled_points(kspace).all():
            image, true = (root_sum_of_squares(self.coil_images(k)) for k in (completed, kspace))
            energy = float(true.double().square().sum())
            self.errors.append((float((image - true).double().square().sum()), energy))
        return completed

    def remarks(self) -> list[str]:
        """What can be said once slices were read."""
        said = []
        if self.silent:
            named = ", ".join(str(coil) for coil in sorted(self.silent))
            said.append(f"note: coil {named} holds nothing but zeros in some slices")
        if self.empty:
            named, more = ", ".join(map(str, self.empty[:8])), len(self.empty) > 8
            said.append(f"note: slice {named}{' and more' * more} holds nothing but zeros")
        if self.n_left:
            share = 100 * self.n_left / (self.plane[0] * self.plane[1])
            said.append(
                f"note: up to {self.n_left} points of a slice ({share:.0f} %) were neither "
                "acquired nor filled in"
            )
        if isinstance(self._fill, ByMethod):
            said += self._fill.remarks()
        if self.errors:
            mean = sum(error / energy for error, energy in self.errors) / len(self.errors)
            whole = sum(error for error, _ in self.errors) / sum(e for _, e in self.errors)
            over = f"mean over slices: {len(self.errors)}"
            said.append(f"image NMSE {mean:.3g} ({over}), {whole:.3g} of all at once")
        return said

    def _find_sampled(self, advance: Advance) -> Tensor:
        return torch.ones(self.plane, dtype=torch.bool)

    def close(self) -> None:
        self._scan.close()


def open_reconstruction(
    file: Path, request: Request, console: Console
) -> Reconstruction | NonCartesianReconstruction:
    """Open a file to read reconstructed slices from it, and say what is done with it.

    Raises
    ------
    UserError
        if the file, the run, the mask or an option is not valid, or they do not fit each other
    """
    if request.trajectory is not None:
        _refuse_given(request, "--trajectory", ("method", "mask", "acs", "n_coils", "prewhiten"))
        return NonCartesianReconstruction(
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
        full, reference = bool(acquired.all()), None
        if run is not None:
            fill = _fill_by_run(run, Path(request.method), scan, acquired)
            used = run.mask
            note = f"reconstructed by kscout with {Path(request.method).name}"
        else:
            used = acquired if request.mask is None else _mask(request.mask, scan, acquired)
            reference = _reference(scan, console)
            calibrating = used if reference is None else reference.sampled()
            fill = _by_method(name, of_method, request, scan, used, calibrating, console)
            note = f"reconstructed by kscout, {name}"
        n, total = int(used.sum()), used.numel()
        said = "fully sampled, masked with" if full and n < total else "sampled:"
        console.print(f"{said} {n} of {total} points, R = {total / n:.2f}", **PLAIN)
        note = f"{note}, from {n} of {total} points"
        return Reconstruction(scan, fill, note, full and n < total, reference)
    except BaseException:
        scan.close()
        raise


def _load_run(request: Request) -> FittedRun:
    folder = Path(request.method)
    if not folder.exists():
        valid = ", ".join(name.replace("_", "-") for name in METHODS)
        raise UserError(f"'{folder}' is no method and no run folder: valid is {valid}, or a folder")
    own = ("mask", "acs", "n_coils", "prewhiten")
    _refuse_given(request, f"{folder}, which has a mask and coils", own)
    return FittedRun.load(folder)


def _refuse_given(request: Request, what: str, options: Sequence[str]) -> None:
    """``UserError`` where an option was given that does not go with something."""
    plain = Request()
    for option in options:
        if getattr(request, option) != getattr(plain, option):
            word = {"n_coils": "coils", "prewhiten": "no-prewhiten"}.get(option, option)
            raise UserError(f"--{word} does not go with {what}")


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
    if max(y, x) > MOST_ELONGATED * min(y, x) and scan.path.suffix in (".npy", ".cfl"):
        raise UserError(
            f"{scan.path}: a plane of {y} x {x} is that of samples off the grid: these need "
            "--trajectory PLACES"
        )
    console.print(
        f"{scan.path.name} (slice, coil, ky, kx): {scan.n_slices} x {scan.n_coils} x {y} x {x}, "
        f"{describe_pattern(pattern, bool(acquired.all()))}",
        **PLAIN,
    )
    if uneven := scan.uneven():
        console.print(f"note: {uneven}", **PLAIN)
    return acquired


def _mask(path: Path, scan: Scan, acquired: Tensor) -> Tensor:
    """The mask of a file or a run, of points that the scan has; else ``UserError``."""
    mask = mask_from(path)
    _refuse_other_points(mask, path, scan, acquired)
    return mask


def _refuse_other_points(mask: Tensor, owner: Path, scan: Scan, acquired: Tensor) -> None:
    if tuple(mask.shape) != scan.plane:
        raise UserError(
            f"{owner} is a mask of {mask.shape[0]}x{mask.shape[1]}: {scan.path} has a plane of "
            f"{scan.plane[0]}x{scan.plane[1]}"
        )
    n_absent = int((mask & ~acquired).sum())
    if n_absent:
        raise UserError(
            f"{scan.path} lacks {n_absent} of the {int(mask.sum())} points of {owner}: valid is a "
            "mask of points that were acquired, or a fully sampled scan"
        )


def _reference(scan: Scan, console: Console) -> Scan | None:
    """The scan's reference, if it can calibrate anything."""
    if scan.reference is None or min(find_acs(scan.reference.sampled())) >= LEAST_ACS:
        return scan.reference
    console.print("note: the separate calibration has no centre: the scan's own is used", **PLAIN)
    return None


def _by_method(
    name: str,
    options: dict[str, Any],
    request: Request,
    scan: Scan,
    mask: Tensor,
    calibrating: Tensor,
    console: Console,
) -> ByMethod:
    n_coils = request.n_coils
    if n_coils is not None and not 1 <= n_coils <= scan.n_coils:
        raise UserError(
            f"{scan.path}: {scan.n_coils} coils cannot become {n_coils}: valid is 1 to "
            f"{scan.n_coils}"
        )
    acs = chosen_acs(request.acs, calibrating, console)
    covariance = covariance_of(scan, console) if request.prewhiten else None
    if mask.all():
        console.print("nothing is missing: such slices stay as they are (see --mask)", **PLAIN)
    return ByMethod(name, options, mask, acs, n_coils, covariance)


def _fill_by_run(run: FittedRun, folder: Path, scan: Scan, acquired: Tensor) -> Fill:
    if scan.n_coils != len(run.coil_scale):
        raise UserError(
            f"{scan.path} has {scan.n_coils} coils: {folder} was fitted to {len(run.coil_scale)} "
            "and can reconstruct no other number"
        )
    if run.sampler.adaptive and not acquired.all():
        raise UserError(
            f"{scan.path} is not fully sampled: {folder} chooses points by what it sees of each "
            "slice, and valid with it is a fully sampled scan"
        )
    _refuse_other_points(run.mask, folder, scan, acquired)
    scale = run.coil_scale[:, None, None]

    @torch.no_grad()
    def fill(kspace: Tensor, reference: Tensor | None) -> Tensor:
        n_lost = int((run.mask & ~sampled_points(kspace)).sum())
        if n_lost > MOST_ACCIDENTAL * run.mask.numel():
            raise UserError(f"lacks {n_lost} points of the mask, which other slices have")
        scaled = (kspace * scale)[None]
        mask = masks_of_slices(run.sampler, scaled, run.reconstructor) * sampled_points(kspace)
        completed: Tensor = run.reconstructor(scaled * mask, mask)[0] / scale
        return completed

    return fill
