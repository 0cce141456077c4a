"""Slices of a file filled in by a method that calibrates itself, in white and fewer coils."""

from functools import cache
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from kscout.classical import METHODS
from kscout.classical.slicewise import Acs
from kscout.data.formats import Scan, sampled_points
from kscout.errors import UserError
from kscout.experiment.masks import parse_size
from kscout.experiment.progress import PLAIN
from kscout.physics.calibration import count_equations
from kscout.physics.fourier import centre_block
from kscout.physics.preparation import compression, mix_coils, noise_covariance, whitening
from kscout.sampling.pattern import LEAST_ACS, find_acs

MOST_ACS = 64
"""Rows and columns of an ACS that is found: more cost time and tell a kernel nothing."""


MOST_LOST = 0.02
"""Of a slice's energy: more shows."""

FEW = 2
"""Equations for each weight of a kernel; with less, noise gets into it."""


class ByMethod:
    """Fills slices in, each by its own points, ACS and coils that are not silent.

    Coils are made white by the covariance of the noise and compressed by the singular values of
    the slice's ACS; what was completed goes back to the scan's own coils. Images are therefore on
    the scan's own scale, and their root sum of squares is not that of white coils.

    Parameters
    ----------
    name : in :data:`kscout.classical.METHODS`
    options : of the method
    mask : bool ``(ky, kx)``, points that are used where a slice has them
    acs : rows and columns of the ACS, or None: each slice's largest
    n_coils : that coils are compressed to; None: they are not
    covariance : of the noise, complex ``(coil, coil)``, or None

    Attributes
    ----------
    n_other : slices that lack points of the mask
    most_lost : largest share of a slice's energy that compressed coils lost, in the scan's own
    scarce : equations and weights of a kernel's calibration, where there are few equations
    """

    def __init__(
        self,
        name: str,
        options: dict[str, Any],
        mask: Tensor,
        acs: Acs | None,
        n_coils: int | None,
        covariance: Tensor | None,
    ) -> None:
        self._method, self._options = METHODS[name], options
        self._mask, self._asked, self._n_coils = mask, acs, n_coils
        self._covariance = covariance
        self._whiteners = cache(self._whitener)
        self.n_other, self.most_lost = 0, 0.0
        self.scarce: tuple[int, int] | None = None

    def __call__(self, kspace: Tensor, reference: Tensor | None = None) -> Tensor:
        """Of one slice.

        Parameters
        ----------
        kspace : complex ``(coil, ky, kx)``, zero where nothing was acquired
        reference : likewise, of a separate scan to calibrate on; else ``kspace`` itself

        Returns
        -------
        completed k-space, complex ``(coil, ky, kx)``
        """
        mask = self._mask & sampled_points(kspace)
        self.n_other += int(not torch.equal(mask, self._mask))
        if mask.all():
            return kspace
        acquired = kspace * mask
        calibrating, points = acquired, mask
        if reference is not None:
            calibrating, points = reference, sampled_points(reference)
        acs = self._asked or calibration_size(points)
        alive = (acquired != 0).flatten(1).any(1)
        rows, columns = centre_block(mask.shape, acs)
        centre = calibrating[:, rows, columns]
        there, back = self._whiteners(tuple(alive.tolist()))
        if self._n_coils is not None:
            there, back = self._compressed(acquired[alive], centre[alive], there, back)
        self._count_equations(acs, len(there))
        calibration = None if reference is None else mix_coils(centre[alive], there)[None]
        completed = torch.zeros_like(kspace)
        completed[alive] = mix_coils(
            self._method(
                mix_coils(kspace[alive], there)[None],
                mask,
                acs,
                calibration=calibration,
                **self._options,
            )[0],
            back,
        )
        return completed

    def _count_equations(self, acs: Acs, n_coils: int) -> None:
        size = self._options.get("kernel_size")
        if size is not None:
            n_equations, n_weights = count_equations(acs, n_coils, size)
            if n_equations < FEW * n_weights:
                self.scarce = n_equations, n_weights

    def _whitener(self, alive: tuple[bool, ...]) -> tuple[Tensor, Tensor]:
        """To white coils, and back."""
        chosen = torch.tensor(alive)
        identity = torch.eye(int(chosen.sum()), dtype=torch.complex128)
        if self._covariance is None:
            return identity, identity
        there = whitening(self._covariance[chosen][:, chosen])
        return there, torch.linalg.solve_triangular(there, identity, upper=False)

    def _compressed(
        self, kspace: Tensor, centre: Tensor, there: Tensor, back: Tensor
    ) -> tuple[Tensor, Tensor]:
        white = mix_coils(kspace, there)
        n_coils = min(self._n_coils or len(white), len(white))
        fewer = compression(mix_coils(centre, there), n_coils)
        to_fewer, to_own = fewer @ there, back @ fewer.mH
        lost = (kspace - mix_coils(mix_coils(kspace, to_fewer), to_own)).norm() / kspace.norm()
        self.most_lost = max(self.most_lost, float(lost) ** 2)
        return to_fewer, to_own

    def remarks(self) -> list[str]:
        """What can be said once slices were filled in."""
        said = []
        if self.n_other:
            said.append(
                f"note: {self.n_other} slices lack points that others have: each is reconstructed "
                "from its own"
            )
        if self.scarce is not None:
            said.append(
                f"note: the ACS gives {self.scarce[0]} equations for {self.scarce[1]} weights of a "
                "kernel, which is few: fewer coils (--coils) or a smaller kernel_size may do better"
            )
        if self._n_coils is not None:
            much = ", which is much: more may do better" if self.most_lost > MOST_LOST else ""
            said.append(
                f"note: compressed coils lose up to {100 * self.most_lost:.2f} % of a slice's "
                f"energy{much}"
            )
        return said


def calibration_size(mask: Tensor) -> Acs:
    """The ACS of a mask, no more of it than is of use.

    Raises
    ------
    UserError
        if there is none
    """
    rows, columns = find_acs(mask)
    if min(rows, columns) < LEAST_ACS:
        raise UserError(
            f"no ACS: no centre of {LEAST_ACS}x{LEAST_ACS} points or more is fully sampled: valid "
            "is a scan with one, or --method RUN, a run that was trained for this mask"
        )
    return min(rows, MOST_ACS), min(columns, MOST_ACS)


def chosen_acs(asked: str, mask: Tensor, console: Console) -> Acs | None:
    """The ACS as it was asked for, checked; None for that of each slice.

    Raises
    ------
    UserError
        if there is no ACS, or the one asked for is not fully sampled
    """
    found = find_acs(mask)
    if asked == "auto":
        used = calibration_size(mask)
        of_it = "" if used == found else f", {used[0]} x {used[1]} of it used"
        console.print(f"ACS: {found[0]} x {found[1]} (ky, kx), found{of_it}", **PLAIN)
        return None
    rows, columns = parse_size(asked)
    inside = rows <= mask.shape[0] and columns <= mask.shape[1]
    if not inside or not mask[centre_block(mask.shape, (rows, columns))].all():
        raise UserError(
            f"--acs {asked} is not fully sampled: a centred block that is, is {found[0]}x{found[1]}"
        )
    return rows, columns


def covariance_of(scan: Scan, console: Console) -> Tensor | None:
    """Of the scan's noise; None where it has no noise scan.

    Raises
    ------
    UserError
        if its coils that are not silent cannot be made white
    """
    noise = scan.noise()
    if noise is None:
        return None
    console.print(f"noise scan: coils are prewhitened by {noise.shape[1]} samples", **PLAIN)
    try:
        covariance = noise_covariance(noise)
        heard = covariance.diagonal().real > 0
        whitening(covariance[heard][:, heard])
    except UserError as error:
        raise UserError(f"{scan.path}: {error} (--no-prewhiten goes without)") from error
    return covariance
