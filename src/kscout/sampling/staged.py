"""A sampler that acquires its budget in stages, and looks at the reconstruction before each."""

from functools import partial
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils import skip_init

from kscout.errors import UserError
from kscout.physics.fourier import image_to_kspace, kspace_to_image
from kscout.sampling.base import Reconstruct
from kscout.sampling.budget import Budget, line_budget, take_highest
from kscout.sampling.learned import Init, LearnedSampler, Noise

Unit = Annotated[Literal["points", "lines"], Field(description="acquired at once")]

TINY = 1e-4
"""Of the mean square, in the logarithm of energies: what lies below is nothing."""


class Policy(nn.Module):
    """How much more, or less, a slice wants each point than slices do on average.

    Convolutions over k-space: an energy at one point tells of the next. They see the energy that
    the reconstruction expects, the energy of the edges in its magnitude image (filtered, rectified
    and transformed), what was acquired, and the average probabilities. The last layer begins at
    zero: before training, no slice wants anything of its own.

    Parameters
    ----------
    n_channels : of the layers
    generator : of the initial weights
    """

    def __init__(self, n_channels: int, generator: torch.Generator) -> None:
        super().__init__()
        self.filters = _convolution(1, n_channels, generator)
        n_seen = n_channels + 3
        self.layers = nn.Sequential(
            nn.GroupNorm(n_seen, n_seen, affine=False),
            _convolution(n_seen, n_channels, generator),
            nn.GroupNorm(1, n_channels),
            nn.LeakyReLU(0.2),
            _convolution(n_channels, n_channels, generator),
            nn.GroupNorm(1, n_channels),
            nn.LeakyReLU(0.2),
        )
        self.last = skip_init(nn.Conv2d, n_channels, 1, 3, padding=1, bias=False)
        nn.init.zeros_(self.last.weight)  # type: ignore[arg-type]

    def forward(self, estimate: Tensor, mask: Tensor, probability: Tensor) -> Tensor:
        """Change of the scores, ``(batch, ky, kx)``.

        Parameters
        ----------
        estimate : complex ``(batch, coil, ky, kx)``, the completed k-space
        mask : {0, 1} ``(batch, 1, ky, kx)``, what was acquired
        probability : ``(ky, kx)``, of being acquired on average
        """
        energy = estimate.abs().square().sum(1, keepdim=True)
        image = kspace_to_image(estimate).abs().square().sum(1, keepdim=True).sqrt()
        image = image / (image.square().mean((-2, -1), keepdim=True).sqrt() + 1e-12)
        edges = image_to_kspace(self.filters(image).relu().to(estimate.dtype)).abs().square()
        seen = [_decades(energy), _decades(edges), mask, probability.expand_as(mask)]
        change: Tensor = self.last(self.layers(torch.cat(seen, 1))).squeeze(1)
        return change - change.mean((-2, -1), keepdim=True)  # wanting more of all buys nothing


def _decades(energy: Tensor) -> Tensor:
    mean = energy.mean((-2, -1), keepdim=True)
    return (energy / (mean + 1e-12) + TINY).log10()


def _convolution(n_in: int, n_out: int, generator: torch.Generator) -> nn.Conv2d:
    layer: nn.Conv2d = skip_init(nn.Conv2d, n_in, n_out, 3, padding=1)  # type: ignore[assignment]
    nn.init.normal_(layer.weight, std=(2 / (9 * n_in)) ** 0.5, generator=generator)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


class StagedSampler(LearnedSampler):
    r"""Every slice gets a mask of its own, in ``n_stages`` equal shares of the budget.

    The first share, with the ACS, goes to the highest scores, which all slices have in common.
    Before each further one the :class:`Policy` sees the reconstruction so far and changes the
    scores for the slice at hand; the highest of the points still missing are acquired. Policy and
    scores are trained with the reconstructor, end to end (as by Yin et al. 2021).

    Gradients are straight-through, as in :class:`LearnedSampler`. The scores get those of a mask
    that all slices share, so that they learn what is best on average; the policy's change at every
    stage gets those of the slice, less the price of the last point that the slice affords at that
    stage, at the points that were still to be had. None pass through the earlier reconstructions.

    Parameters
    ----------
    budget : what every slice's mask spends
    seed : of the scores' small differences and of the policy's weights
    n_stages : one more than there are looks
    unit : what is acquired at once, single points or whole columns
    n_channels : of the policy
    init, noise : of :class:`LearnedSampler`; every stage draws its noise

    Attributes
    ----------
    any_number : set it where the reconstruction after every stage counts: in training and
        validation every slice then ends behind a stage of its own
    """

    adaptive: ClassVar[bool] = True

    def __init__(
        self,
        budget: Budget,
        seed: int,
        *,
        n_stages: Annotated[int, Field(ge=2, description="in which the budget is spent")] = 3,
        unit: Unit = "points",
        n_channels: Annotated[int, Field(ge=1, description="of the policy")] = 16,
        init: Init = "variable_density",
        noise: Noise = 0.1,
    ) -> None:
        self.lines = unit == "lines"
        self.unit_budget = line_budget(budget) if self.lines else budget
        self.stages = stage_budgets(self.unit_budget, n_stages)
        super().__init__(budget, seed, init=init, noise=noise)
        self.policy = Policy(n_channels, torch.Generator().manual_seed(seed))
        self.any_number = False

    @property
    def networks(self) -> list[nn.Parameter]:
        return list(self.policy.parameters())

    @property
    def score_budget(self) -> Budget:
        return self.unit_budget

    def reduce(self, plane: Tensor) -> Tensor:
        return plane.mean(-2, keepdim=True) if self.lines else plane

    def expand(self, values: Tensor) -> Tensor:
        return values.expand(*values.shape[:-2], *self.budget.shape)

    def for_slices(
        self,
        kspace: Tensor,
        reconstruct: Reconstruct,
        shared: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        last_stage = self._last_stage(len(kspace), generator)
        generator = generator if self.training else None  # validation has no noise
        shared = self(generator) if shared is None else shared
        scores = self.scores.detach()
        probability = torch.sigmoid(scores)
        first = take_highest(self._ranking(probability, generator), self.stages[0])
        kept = acquired = first.expand(len(kspace), *first.shape)
        smooth = shared - shared.detach()
        for stage, budget in enumerate(self.stages[1:], 1):
            mask = self._mask(acquired)
            with torch.no_grad():
                estimate = reconstruct(kspace * mask, mask)
            change = self.policy(estimate, mask, self.expand(probability))
            own = scores + self.reduce(change)
            n_new = budget.n_samples - int(acquired[0].sum())
            free = own.detach().masked_fill(acquired, -float("inf")).flatten(1)
            last = free.topk(n_new, 1).values[:, -1, None, None]
            wanted = torch.sigmoid(own - last)
            if wanted.requires_grad:
                wanted.register_hook(partial(_less_the_prices, acquired, n_new))
            goes_on = (last_stage >= stage)[:, None, None].to(kspace.device)
            smooth = smooth + self.expand(goes_on * (wanted - wanted.detach()))[:, None]
            ranking = own + self._noise_of_scores(generator)
            ranking = ranking.masked_fill(acquired, float("inf"))
            acquired = torch.stack([take_highest(plane, budget) for plane in ranking])
            kept = torch.where(goes_on, acquired, kept)
        return self._mask(kept) + smooth

    def _last_stage(self, n_slices: int, generator: torch.Generator | None) -> Tensor:
        """Behind which each slice ends, int64 ``(batch,)``."""
        n_stages = len(self.stages)
        if not self.any_number or generator is None:
            return torch.full((n_slices,), n_stages - 1)
        return torch.randint(n_stages, (n_slices,), generator=generator)

    def _noise_of_scores(self, generator: torch.Generator | None) -> Tensor:
        """The noise of a ranking, on the log-odds, the same for all slices of a step."""
        # The sigmoid's derivative is 1/4 at 0.5.
        return 4 * self._ranking(torch.full_like(self.scores, 0.5), generator)

    def _mask(self, acquired: Tensor) -> Tensor:
        """Bool ``(batch, *scores)`` to float ``(batch, 1, ky, kx)``."""
        return self.expand(acquired).unsqueeze(1).float()


def _less_the_prices(acquired: Tensor, n_new: int, gradient: Tensor) -> Tensor:
    """Each slice's gradient less that of the last point it affords; nothing where it has them."""
    free = gradient.masked_fill(acquired, float("inf")).flatten(1)
    price = free.kthvalue(n_new, dim=1).values[:, None, None]
    return (gradient - price).masked_fill(acquired, 0)


def stage_budgets(budget: Budget, n_stages: int) -> list[Budget]:
    """What has been acquired after each stage: the ACS, and equal shares of all other points."""
    n_free = budget.n_samples - budget.n_acs
    if n_free < n_stages:
        raise UserError(
            f"n_stages {n_stages} needs as many points or lines beside the ACS, of which there "
            f"{'is' if n_free == 1 else 'are'} {n_free}: "
            + (f"valid is 2 to {n_free}" if n_free > 1 else "make the ACS smaller")
        )
    shares = [round(n_free * stage / n_stages) for stage in range(1, n_stages + 1)]
    return [Budget(budget.shape, budget.n_acs + share, budget.acs) for share in shares]
