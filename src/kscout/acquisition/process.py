"""Acquiring slices step by step: what each has acquired so far, and what that is worth.

A :class:`State` is a value: acquiring gives a new one and leaves the old, so that trying an action
and taking it are the same call.
"""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from kscout.data.slices import KspaceSet
from kscout.errors import UserError
from kscout.metrics import maximum_of_volumes, nmse, psnr, ssim
from kscout.recon.base import Reconstructor
from kscout.sampling.units import Units

Metric = Literal["nmse", "mse", "psnr", "ssim"]
_Score = Callable[[Tensor, Tensor, Tensor], Tensor]

METRICS: dict[str, tuple[_Score, int]] = {
    "nmse": (lambda image, reference, peak: nmse(image, reference), -1),
    "mse": (
        lambda image, reference, peak: (image - reference).square().mean((-2, -1)).double(),
        -1,
    ),
    "psnr": (psnr, 1),
    "ssim": (ssim, 1),
}
"""Each with +1 where more is better, -1 where less is."""

MOST_AT_ONCE = 2**21
"""Points of k-space, over slices and coils, that are reconstructed at once: all may not fit."""


@dataclass(frozen=True)
class State:
    """A batch of slices in the middle of their scans.

    Attributes
    ----------
    index : int64 ``(batch,)``, places of the slices in their set
    acquired : bool ``(batch, unit)``
    kspace : complex64 ``(batch, coil, ky, kx)``, as reconstructed
    image : float32 ``(batch, y, x)``, its magnitude
    score : float64 ``(batch,)``, the metric of the image
    """

    index: Tensor
    acquired: Tensor
    kspace: Tensor
    image: Tensor
    score: Tensor

    def __len__(self) -> int:
        return len(self.index)

    @property
    def n_acquired(self) -> int:
        """Units of each slice: all of a batch have as many."""
        return int(self.acquired[0].sum())


class Process:
    """Scans of the slices of one set, at one budget, seen through one reconstructor.

    Parameters
    ----------
    data : fully sampled slices
    reconstructor : completes k-space at any number of acquired units
    units : what an action acquires
    n_initial : units that every scan begins with, those nearest to DC
    budget : actions of a scan after these
    metric : of magnitude images
    device : where to compute

    Raises
    ------
    UserError
        if the set is empty or has another shape than the units, a slice has no signal, or units are
        too few for the budget
    """

    def __init__(
        self,
        data: KspaceSet,
        reconstructor: Reconstructor,
        *,
        units: Units,
        n_initial: int,
        budget: int,
        metric: Metric = "nmse",
        device: torch.device | str = "cpu",
    ) -> None:
        if not len(data):
            raise UserError("a split without slices has nothing to acquire: valid is one or more")
        if tuple(units.plane.shape) != data.shape:
            raise UserError(
                f"units of a plane of {'x'.join(map(str, units.plane.shape))} do not fit slices of "
                f"{data.shape[0]}x{data.shape[1]}"
            )
        check_scan(units, n_initial, budget)
        self.data, self.units, self.budget = data, units, budget
        self.device = torch.device(device)
        self.reconstructor = reconstructor.to(self.device).eval()
        self.n_initial = n_initial
        self.initial = units.nearest(n_initial).to(self.device)
        if metric not in METRICS:
            raise UserError(f"metric '{metric}' is not known: valid is {', '.join(METRICS)}")
        self.metric = metric
        self._measure, self.sign = METRICS[metric]
        parts = data.target.split(self.at_once)
        self._reference = torch.cat([data.image(part) for part in parts])
        peaks = self._reference.amax((-2, -1))
        unfit = (~((peaks > 0) & torch.isfinite(peaks))).nonzero().flatten().tolist()
        if unfit:
            raise UserError(
                f"slice {unfit[0]} has no signal, or is not finite: valid is to leave such slices "
                "out, as there is nothing to acquire"
            )
        self._peak = maximum_of_volumes(peaks, data.volume)

    @property
    def at_once(self) -> int:
        """Slices that are reconstructed together."""
        per_slice = self.data.n_coils * self.units.plane.numel()
        return max(1, MOST_AT_ONCE // per_slice)

    def through(self, reconstructor: Reconstructor) -> "Process":
        """The same, seen through another reconstructor."""
        other = copy(self)
        other.reconstructor = reconstructor.to(self.device).eval()
        return other

    def start(self, index: Tensor) -> State:
        """The initial units of the slices at ``index``, int64 ``(batch,)``."""
        index = torch.as_tensor(index, dtype=torch.int64)
        return self.observe(index, self.initial.expand(len(index), -1).clone())

    def step(self, state: State, action: Tensor) -> tuple[State, Tensor]:
        """Acquire one more unit of every slice.

        Parameters
        ----------
        action : int64 ``(batch,)``

        Returns
        -------
        the new state, and by how much each score got better: float64 ``(batch,)``

        Raises
        ------
        UserError
            if a unit does not exist, has been acquired, or the budget is spent
        """
        action = self._checked(state, action)
        new = self.observe(state.index, state.acquired.scatter(1, action[:, None], True))
        return new, self.sign * (new.score - state.score)

    def is_done(self, state: State) -> bool:
        """Whether the budget is spent: so it is for all slices of a batch, or for none."""
        return state.n_acquired >= self.n_initial + self.budget

    def area_weight(self, state: State) -> float:
        """What a gain from here adds to the area that is won: it lasts until the end.

        Weighed so, the gains of a scan add up to the mean of its curve of scores, by trapezoids,
        above the score that it began with.
        """
        n_after = self.budget - (state.n_acquired - self.n_initial)
        return (n_after - 0.5) / self.budget

    def observe(self, index: Tensor, acquired: Tensor) -> State:
        """Reconstruct slices from what they have acquired, bool ``(batch, unit)``."""
        parts = [
            self._observe(*part)
            for part in zip(index.split(self.at_once), acquired.split(self.at_once), strict=True)
        ]
        if len(parts) == 1:
            return parts[0]
        kspace, image, score = (
            torch.cat([getattr(part, name) for part in parts])
            for name in ("kspace", "image", "score")
        )
        return State(index, acquired, kspace, image, score)

    @torch.no_grad()
    def _observe(self, index: Tensor, acquired: Tensor) -> State:
        kspace = self.data.kspace[index].to(self.device)
        mask = self.units.mask(acquired)
        estimate = self.reconstructor(kspace * mask, mask)
        image = self.data.image(estimate)
        reference = self._reference[index].to(self.device)
        score = self._measure(image, reference, self._peak[index].to(self.device))
        return State(index, acquired, estimate, image, score)

    def _checked(self, state: State, action: Tensor) -> Tensor:
        action = torch.as_tensor(action, device=self.device)
        if action.shape != (len(state),) or action.is_floating_point() or action.is_complex():
            raise UserError(
                f"actions of shape {tuple(action.shape)} and type {action.dtype}: valid is one "
                f"whole number for each of {len(state)} slices"
            )
        if self.is_done(state):
            raise UserError(f"the budget of {self.budget} is spent: valid is to start anew")
        action = action.long()
        outside = (action < 0) | (action >= self.units.n)
        if outside.any():
            raise UserError(
                f"action {int(action[outside][0])} does not exist: valid is 0 to {self.units.n - 1}"
            )
        again = state.acquired.gather(1, action[:, None])[:, 0]
        if again.any():
            row = int(again.nonzero()[0])
            free = (~state.acquired[row]).nonzero().flatten().tolist()
            raise UserError(
                f"action {int(action[row])} of slice {row} of the batch has been taken: valid is "
                f"one of {_some(free)}"
            )
        return action


def check_scan(units: Units, n_initial: int, budget: int) -> None:
    """Raise ``UserError`` unless there are units enough."""
    if not 0 <= n_initial < units.n:
        raise UserError(f"n_initial {n_initial} of {units.n} units: valid is 0 to {units.n - 1}")
    if not 1 <= budget <= units.n - n_initial:
        raise UserError(
            f"n_initial {n_initial} and budget {budget} do not fit {units.n} units: valid is a "
            f"budget of 1 to {units.n - n_initial} with this n_initial"
        )


def _some(values: list[int]) -> str:
    shown = ", ".join(map(str, values[:10]))
    return shown + (f" and {len(values) - 10} others" if len(values) > 10 else "")
