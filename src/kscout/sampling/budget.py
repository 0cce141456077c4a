"""The budget: exactly how many points of k-space may be acquired, calibration region included."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from kscout.errors import UserError
from kscout.physics.fourier import centre_slice

AcsKind = Literal["none", "square", "lines"]


def acs_region(shape: tuple[int, int], kind: AcsKind, size: int) -> Tensor:
    """Autocalibration region: a fully sampled block around DC.

    Parameters
    ----------
    shape : ``(ky, kx)`` of the plane
    kind : ``none``; ``square``, ``size x size`` points; ``lines``, ``size`` whole columns (the last
        axis holds the phase encodes)
    size : points along an axis; ignored for ``none``

    Returns
    -------
    bool ``(ky, kx)``

    Raises
    ------
    UserError
        if the region is empty or larger than the plane
    """
    region = torch.zeros(shape, dtype=torch.bool)
    if kind == "none":
        return region
    limit = min(shape) if kind == "square" else shape[1]
    if not 1 <= size <= limit:
        raise UserError(
            f"acs_size {size} does not fit: valid for acs '{kind}' on a plane of "
            f"{shape[0]}x{shape[1]} is 1 to {limit}"
        )
    columns = centre_slice(shape[1], size)
    rows = centre_slice(shape[0], size) if kind == "square" else slice(None)
    region[rows, columns] = True
    return region


@dataclass(frozen=True)
class Budget:
    """How many points of a k-space plane are acquired, exactly.

    Attributes
    ----------
    shape : ``(ky, kx)`` of the plane
    n_samples : number of acquired points, those of the ACS among them
    acs : bool ``(ky, kx)``, the points that every mask must acquire
    """

    shape: tuple[int, int]
    n_samples: int
    acs: Tensor

    def __post_init__(self) -> None:
        plane = self.shape[0] * self.shape[1]
        if not 1 <= self.n_samples <= plane:
            raise UserError(
                f"a budget of {self.n_samples} samples is impossible on a plane of "
                f"{self.shape[0]}x{self.shape[1]}: valid is 1 to {plane}"
            )
        if self.n_acs > self.n_samples:
            raise UserError(
                f"the ACS alone has {self.n_acs} points, more than the budget of "
                f"{self.n_samples}: make acs_size smaller or the acceleration lower"
            )

    @property
    def n_acs(self) -> int:
        """Number of points in the ACS."""
        return int(self.acs.sum())

    @property
    def acceleration(self) -> float:
        """Points of the plane over acquired points."""
        return self.shape[0] * self.shape[1] / self.n_samples

    @classmethod
    def of(
        cls,
        shape: tuple[int, int],
        *,
        acceleration: float | None = None,
        n_samples: int | None = None,
        n_lines: int | None = None,
        acs: AcsKind = "none",
        acs_size: int = 0,
    ) -> "Budget":
        """A budget from exactly one of acceleration, points, or whole lines (columns).

        Raises
        ------
        UserError
            if not exactly one is given, R < 1 or above the plane, more lines than columns, or an
            ACS that is larger than the budget
        """
        given = [v for v in (acceleration, n_samples, n_lines) if v is not None]
        if len(given) != 1:
            raise UserError(
                "a budget needs exactly one of acceleration, n_samples and n_lines: "
                f"{len(given)} given"
            )
        plane = shape[0] * shape[1]
        if acceleration is not None:
            if not 1 <= acceleration <= plane:
                raise UserError(
                    f"acceleration {acceleration:g} is impossible on a plane of "
                    f"{shape[0]}x{shape[1]}: valid is 1 to {plane}"
                )
            n_samples = max(1, round(plane / acceleration))
        elif n_lines is not None:
            if not 1 <= n_lines <= shape[1]:
                raise UserError(
                    f"n_lines {n_lines} is impossible on a plane of {shape[1]} columns: "
                    f"valid is 1 to {shape[1]}"
                )
            n_samples = n_lines * shape[0]
        assert n_samples is not None
        return cls(shape, n_samples, acs_region(shape, acs, acs_size))


def squared_radius(shape: tuple[int, int]) -> Tensor:
    """Squared distance of each point from DC, 1 at the middle of an edge: float64 ``(ky, kx)``."""
    axes = [(torch.arange(n, dtype=torch.float64) - n // 2) / max(n / 2, 1) for n in shape]
    return axes[0][:, None] ** 2 + axes[1][None, :] ** 2


def line_budget(budget: Budget) -> Budget:
    """The budget counted in whole columns, on a plane of ``(1, kx)``."""
    n_rows, n_columns = budget.shape
    n_lines, left_over = divmod(budget.n_samples, n_rows)
    if left_over:
        lower = max(1, n_lines)
        raise UserError(
            f"lines need a budget of whole columns: {budget.n_samples} is not a multiple of "
            f"{n_rows}; valid next to it: n_lines {lower} or {lower + 1}"
        )
    acs = budget.acs.all(0)
    if budget.n_acs != int(acs.sum()) * n_rows:
        raise UserError("lines need an ACS of whole columns: valid is acs 'none' or 'lines'")
    return Budget((1, n_columns), n_lines, acs[None])


def are_whole_columns(masks: Iterable[Tensor]) -> bool:
    """Whether each mask, ``(ky, kx)``, acquires a column as a whole or not at all."""
    return all(bool((mask == mask[:1]).all()) for mask in masks)


def take_highest(scores: Tensor, budget: Budget) -> Tensor:
    """The mask of the ACS and the highest scores outside it, to the exact budget.

    Ties go to the lower index, so equal scores never spend more than the budget.

    Parameters
    ----------
    scores : real ``(ky, kx)``

    Returns
    -------
    bool ``(ky, kx)`` with ``budget.n_samples`` points
    """
    ranked = scores.detach().masked_fill(budget.acs.to(scores.device), float("inf")).flatten()
    order = torch.argsort(ranked, descending=True, stable=True)
    mask = torch.zeros(ranked.numel(), dtype=torch.bool, device=scores.device)
    mask[order[: budget.n_samples]] = True
    return mask.reshape(budget.shape)


def fit_to_budget(pattern: Tensor, budget: Budget) -> Tensor:
    """A regular pattern with the ACS added, brought to the exact budget at the edge of k-space.

    A lattice on an odd plane rarely has exactly N / R points, and the ACS costs points that the
    lattice must give back. Points are dropped, or added, farthest from DC first, where the least
    energy is: inside, the pattern stays what it was.

    Parameters
    ----------
    pattern : bool or {0, 1} ``(ky, kx)``

    Returns
    -------
    bool ``(ky, kx)`` with ``budget.n_samples`` points
    """
    pattern = pattern.bool() | budget.acs.to(pattern.device)
    radius = squared_radius(budget.shape).to(pattern.device)
    n_missing = budget.n_samples - int(pattern.sum())
    if n_missing >= 0:  # acquired points first, then the outermost of the others
        return take_highest(radius + 1e3 * pattern, budget)
    return take_highest(1e3 * pattern - radius, budget)
