"""Samplers that learn: scores that training moves, and a binary mask of the exact budget."""

import math
from inspect import signature
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import torch
from pydantic import AfterValidator, Field, TypeAdapter
from torch import Tensor, nn

from kscout.errors import UserError
from kscout.sampling.base import Sampler
from kscout.sampling.budget import (
    Budget,
    fit_to_budget,
    line_budget,
    squared_radius,
    take_highest,
)
from kscout.sampling.fixed import FIXED_MASKS, from_file
from kscout.sampling.tiles import check_tile, repeat_tile

MaskOptions = dict[str, Any]

AMPLE_REACH = 6.0
"""Mask learning rate times steps that lets the points of a fixed mask change places freely."""


def known_mask(mask: MaskOptions) -> MaskOptions:
    """``{kind: ..., option: ...}`` of a fixed mask, or ``ValueError``."""
    names = [name for name in FIXED_MASKS if name != "file"]
    if mask.get("kind") not in names:
        raise ValueError(f"valid as its kind is {', '.join(names)}")
    make = FIXED_MASKS[mask["kind"]]
    hints = get_type_hints(make, include_extras=True)
    options = [p.name for p in signature(make).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for name, value in mask.items():
        if name not in ("kind", *options):
            raise ValueError(f"'{name}' is no option of {mask['kind']}: valid is {options}")
        if name != "kind":
            TypeAdapter(hints[name]).validate_python(value)
    return mask


def _known_init(init: str | MaskOptions) -> str | MaskOptions:
    if isinstance(init, dict):
        return known_mask(init)
    names = ["flat", "density", *(name for name in FIXED_MASKS if name != "file")]
    if init not in names and not init.endswith(".npy"):
        raise ValueError(f"valid is {', '.join(names)}, or the path of a .npy mask")
    return init


Init = Annotated[
    str | MaskOptions,
    AfterValidator(_known_init),
    Field(
        description="initial mask; a fixed one needs mask_learning_rate x steps "
        f">= {AMPLE_REACH:g} to move"
    ),
]
Noise = Annotated[float, Field(ge=0, description="noise on the probabilities at the first step")]


class LearnedSampler(Sampler):
    r"""Scores to a mask that is binary forwards and smooth backwards.

    Probabilities are :math:`p = \sigma(w)` of the scores :math:`w`; those ranked highest are
    acquired, to the exact budget; gradients pass as if the mask were :math:`p` (straight-through,
    Bengio et al. 2013; for k-space, LOUPE, Bahadir et al. 2020, and Zhang et al. 2020). While
    training, Gaussian noise on :math:`p`, which :meth:`anneal` takes to zero, lets points near the
    threshold change places. :meth:`mask` never has noise.

    Parameters
    ----------
    budget : what every mask spends
    seed : of the initial mask, and of the small differences between equal initial scores
    init : initial probabilities: ``flat``, ``density`` (falling from DC), the name of a fixed mask
        or ``{kind: name, option: value}`` of one, or a file with a mask (.npy). The scores of a
        mask lie 1.1 from the threshold, and Adam moves them by half of learning rate times steps
        at most, as the rate falls to zero: below 2.2 of these no point changes, and 6 or more give
        them room
    noise : standard deviation on :math:`p` at the first step

    Attributes
    ----------
    lines : whether a score is of a whole column; then a fixed mask to start from, of those that
        can be, is of whole columns too
    """

    lines: bool = False
    noise_level: Tensor

    def __init__(
        self,
        budget: Budget,
        seed: int,
        *,
        init: Init = "variable_density",
        noise: Noise = 0.1,
    ) -> None:
        super().__init__(budget)
        self.noise = noise
        probability = self.reduce(initial_probability(init, budget, seed, lines=self.lines))
        generator = torch.Generator().manual_seed(seed)
        jitter = 0.02 * torch.randn(probability.shape, generator=generator)
        self.scores = nn.Parameter((0.25 + 0.5 * probability).logit() + jitter)
        self.register_buffer("noise_level", torch.tensor(noise))

    def reduce(self, plane: Tensor) -> Tensor:
        """Values on the plane ``(ky, kx)`` to the scores' shape, averaging what they share."""
        raise NotImplementedError

    def expand(self, values: Tensor) -> Tensor:
        """Values of the scores' shape to the plane ``(ky, kx)``."""
        raise NotImplementedError

    @property
    def score_budget(self) -> Budget:
        """How many of the scores are chosen, and which must be."""
        raise NotImplementedError

    def first_gap(self) -> float:
        """Between the lowest score that is acquired and the highest that is not, in [0, inf].

        Training changes no point below this product of mask learning rate and steps. Infinite
        where no score is free.
        """
        budget = self.score_budget
        n_free = budget.n_samples - budget.n_acs
        ranked = self.scores.detach()[~budget.acs].sort(descending=True).values
        return float(ranked[n_free - 1] - ranked[n_free]) if 0 < n_free < len(ranked) else math.inf

    def choose(self, ranking: Tensor) -> Tensor:
        """The mask, bool ``(ky, kx)``, that takes the highest of ``ranking`` to the budget."""
        return fit_to_budget(self.expand(take_highest(ranking, self.score_budget)), self.budget)

    def anneal(self, fraction_done: float) -> None:
        """Set the noise for the point that training has reached: all at 0, none at 1."""
        self.noise_level.fill_(self.noise * max(0.0, 1.0 - fraction_done))

    def _less_the_price(self, gradient: Tensor) -> Tensor:
        """Gradient of the loss plus a price per point, the gain of the last point affordable.

        Acquiring more always helps; under a budget a point must gain more than the one that it
        displaces. The price is the multiplier of the budget (Boyd & Vandenberghe 2004, sec. 5.4).
        """
        acs, n_free = self.score_budget.acs, self.score_budget.n_samples - self.score_budget.n_acs
        if n_free == 0:
            return gradient
        free = gradient.masked_fill(acs.to(gradient.device), float("inf"))
        return gradient - free.flatten().kthvalue(n_free).values

    def forward(self, generator: torch.Generator | None = None) -> Tensor:
        probability = torch.sigmoid(self.scores)
        if probability.requires_grad:
            probability.register_hook(self._less_the_price)
        smooth = self.expand(probability)
        chosen = self.choose(self._ranking(probability.detach(), generator))
        return chosen.float() + (smooth - smooth.detach())

    def _ranking(self, probability: Tensor, generator: torch.Generator | None) -> Tensor:
        if generator is None:
            return probability
        normal = torch.randn(probability.shape, generator=generator, device=generator.device)
        return probability + self.noise_level * normal.to(self.scores)


class GlobalSampler(LearnedSampler):
    """One score for every point of the plane."""

    def reduce(self, plane: Tensor) -> Tensor:
        return plane

    def expand(self, values: Tensor) -> Tensor:
        return values

    @property
    def score_budget(self) -> Budget:
        return self.budget


class TileSampler(LearnedSampler):
    """A small tile of scores, repeated over the plane and cropped.

    The tile holds the whole number of points nearest to its share of the budget; what the plane's
    odd edges and the ACS leave over is settled at the outermost points (``fit_to_budget``).
    """

    def __init__(
        self,
        budget: Budget,
        seed: int,
        *,
        init: Init = "flat",
        tile: tuple[int, int] = (4, 4),
        noise: Noise = 0.1,
    ) -> None:
        check_tile(tile, budget.shape)
        self.tile, self.tile_budget = tile, tile_budget(tile, budget)
        super().__init__(budget, seed, init=init, noise=noise)

    def reduce(self, plane: Tensor) -> Tensor:
        h, w = self.tile
        sums, counts = plane.new_zeros(h, w), plane.new_zeros(h, w)
        rows = (torch.arange(plane.shape[0]) - plane.shape[0] // 2) % h
        columns = (torch.arange(plane.shape[1]) - plane.shape[1] // 2) % w
        index = (rows[:, None].expand(plane.shape), columns[None].expand(plane.shape))
        sums.index_put_(index, plane, accumulate=True)
        counts.index_put_(index, torch.ones_like(plane), accumulate=True)
        return sums / counts

    def expand(self, values: Tensor) -> Tensor:
        return repeat_tile(values, self.budget.shape)

    @property
    def score_budget(self) -> Budget:
        return self.tile_budget


class LineSampler(LearnedSampler):
    """One score for every column: whole phase-encode lines are acquired or left out."""

    lines = True

    def __init__(
        self,
        budget: Budget,
        seed: int,
        *,
        init: Init = "variable_density",
        noise: Noise = 0.1,
    ) -> None:
        self.line_budget = line_budget(budget)
        super().__init__(budget, seed, init=init, noise=noise)

    def reduce(self, plane: Tensor) -> Tensor:
        return plane.mean(0, keepdim=True)

    def expand(self, values: Tensor) -> Tensor:
        return values.expand(self.budget.shape)

    @property
    def score_budget(self) -> Budget:
        return self.line_budget


def tile_budget(tile: tuple[int, int], budget: Budget) -> Budget:
    """The tile's share of the budget, to the nearest whole number of points."""
    n_points = round(tile[0] * tile[1] / budget.acceleration)
    if n_points < 1:
        raise UserError(
            f"a tile of {tile[0]}x{tile[1]} has no point left at an acceleration of "
            f"{budget.acceleration:.3g}: take a larger tile"
        )
    return Budget(tile, n_points, torch.zeros(tile, dtype=torch.bool))


def can_be_lines(kind: str) -> bool:
    """Whether a fixed mask of that name is of whole columns, always or by its option ``lines``."""
    return kind == "uniform_lines" or "lines" in signature(FIXED_MASKS[kind]).parameters


def fixed_mask(
    mask: str | MaskOptions, budget: Budget, seed: int, *, lines: bool = False
) -> Tensor:
    """A fixed mask by name or with options, bool ``(ky, kx)``; ``lines`` where it has that."""
    options = {"kind": mask} if isinstance(mask, str) else dict(mask)
    make = FIXED_MASKS[options.pop("kind")]
    whole = {"lines": True} if lines and "lines" in signature(make).parameters else {}
    return make(budget, seed, **whole | options)


def initial_probability(
    init: str | MaskOptions, budget: Budget, seed: int, *, lines: bool = False
) -> Tensor:
    """What ``init`` names, float ``(ky, kx)`` in [0, 1]; of whole columns, where that can be."""
    if init == "flat":
        return torch.full(budget.shape, 0.5)
    if init == "density":
        radius = squared_radius(budget.shape).sqrt() / 2**0.5
        return (1 - radius).clamp_min(0).pow(3).float()
    if isinstance(init, dict) or (init in FIXED_MASKS and init != "file"):
        # The columns of a mask of points average to a density, whose highest are the central ones.
        return fixed_mask(init, budget, seed, lines=lines).float()
    return from_file(budget, seed, path=Path(init)).float()


LEARNED_SAMPLERS: dict[str, type[LearnedSampler]] = {
    "global": GlobalSampler,
    "tile": TileSampler,
    "lines": LineSampler,
}
