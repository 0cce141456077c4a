"""A file of samples off the grid, reconstructed slice by slice by non-Cartesian SPIRiT."""

from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from kscout.classical import spirit_non_cartesian
from kscout.classical.non_cartesian import refuse_other_units
from kscout.data.formats import Scan
from kscout.data.formats.samples import open_samples, read_trajectory, samples_of
from kscout.data.formats.scan import Advance, slice_told
from kscout.errors import UserError
from kscout.experiment.config import parse_options
from kscout.experiment.masks import parse_size
from kscout.experiment.progress import PLAIN
from kscout.physics.nufft import density_compensation

MOST_WIDER = 3
"""Times that a grid may have the points that a trajectory reaches, along an axis."""


class NonCartesianReconstruction(Scan):
    """Samples and their trajectory, as completed k-space on a grid.

    Parameters
    ----------
    file : samples, see :func:`kscout.data.formats.samples.open_samples`
    trajectory : see :func:`kscout.data.formats.samples.read_trajectory`
    matrix : "auto", or ROWSxCOLUMNS of the grid
    options : ``option=value`` words of :func:`kscout.classical.spirit_non_cartesian`

    Raises
    ------
    UserError
        if a file or an option is not valid, or they do not fit each other
    """

    def __init__(
        self, file: Path, trajectory: Path, matrix: str, options: Sequence[str], console: Console
    ) -> None:
        entry = {"spirit_non_cartesian": spirit_non_cartesian}
        self._options = parse_options(entry, "spirit_non_cartesian", options).options()
        self._samples, self._trajectory = open_samples(file), read_trajectory(trajectory)
        n_slices, n_coils, n = self._samples.shape
        if len(self._trajectory) != n:
            raise UserError(
                f"{trajectory} has {len(self._trajectory)} places: {file} has {n} samples"
            )
        refuse_other_units(self._trajectory)
        self._grid = _grid(matrix, self._trajectory)
        note = "reconstructed by kscout, spirit_non_cartesian"
        super().__init__(file, (n_slices, n_coils, *self._grid), notes=[note])
        console.print(
            f"{file.name} (slice, coil, sample): {n_slices} x {n_coils} x {n}, "
            f"grid of {self._grid[0]} x {self._grid[1]} (ky, kx)",
            **PLAIN,
        )
        reach = self._trajectory.abs().amax(0).tolist()
        if any(n > MOST_WIDER * 2 * r for n, r in zip(self._grid, reach, strict=True)):
            raise UserError(
                f"--matrix {self._grid[0]}x{self._grid[1]} is much more than the trajectory "
                f"reaches, which is {2 * reach[0]:.0f} x {2 * reach[1]:.0f} points: valid is up to "
                f"{MOST_WIDER} times that"
            )
        self._weights = density_compensation(self._trajectory, self._grid)

    def remarks(self) -> list[str]:
        """Nothing more than is said at the start."""
        return []

    def _read(self, index: int) -> Tensor:
        samples = samples_of(self._samples, index, self.path)
        with slice_told(self.path, index):
            return spirit_non_cartesian(
                samples[None], self._trajectory, self._grid, weights=self._weights, **self._options
            )[0]

    def _find_sampled(self, advance: Advance) -> Tensor:
        return torch.ones(self.plane, dtype=torch.bool)


def _grid(matrix: str, trajectory: Tensor) -> tuple[int, int]:
    """As asked, or the smallest even one that the trajectory fits into."""
    if matrix == "auto":
        y, x = (max(8, 2 * int(reach.ceil())) for reach in trajectory.abs().amax(0))
        return y, x
    return parse_size(matrix)
