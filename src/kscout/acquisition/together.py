"""Policies and reconstructors trained for each other."""

from copy import deepcopy
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from kscout.acquisition.policies import Policy, choose
from kscout.acquisition.process import Process, State
from kscout.learning.joint import fit_jointly
from kscout.recon.base import Reconstructor
from kscout.sampling import Budget, Sampler, StagedSampler
from kscout.sampling.base import Reconstruct
from kscout.sampling.units import Units


class PolicySampler(Sampler):
    """The masks that a policy makes, for training a reconstructor with them.

    In training and validation every slice ends after a random number of actions, because the
    reconstructor will be looked at after each of them. Nothing of the policy is trained.

    Parameters
    ----------
    process : what is acquired
    policy : that chooses, by what the reconstructor in training shows it
    """

    adaptive: ClassVar[bool] = True
    any_number = True
    without_looking: Tensor

    def __init__(self, process: Process, policy: Policy) -> None:
        n_units = process.n_initial + process.budget
        mask = process.units.mask(process.units.nearest(n_units)[None])[0, 0].bool()
        super().__init__(Budget.of(process.data.shape, n_samples=int(mask.sum())))
        self.register_buffer("without_looking", mask, persistent=False)
        self.process, self.chooser = process, policy

    def forward(self, generator: torch.Generator | None = None) -> Tensor:
        return self.without_looking.float()

    @torch.no_grad()
    def for_slices(
        self,
        kspace: Tensor,
        reconstruct: Reconstruct,
        shared: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        n, budget = len(kspace), self.process.budget
        n_steps = torch.full((n,), budget)
        if generator is not None:
            n_steps = torch.randint(budget + 1, (n,), generator=generator)
        acquired = self.process.initial.to(kspace.device).repeat(n, 1)
        for step in range(budget):
            (rows,) = (n_steps > step).to(kspace.device).nonzero(as_tuple=True)
            if not len(rows):
                break
            mask = self.process.units.mask(acquired[rows])
            estimate = reconstruct(kspace[rows] * mask, mask)
            state = _unscored(acquired[rows], estimate, self.process.data.image(estimate))
            acquired[rows, choose(self.chooser, state)] = True
        return self.process.units.mask(acquired)


def _unscored(acquired: Tensor, kspace: Tensor, image: Tensor) -> State:
    """A state that no score is known of, as at the scanner."""
    nothing = torch.full((len(acquired),), torch.nan, dtype=torch.float64)
    return State(torch.arange(len(acquired)), acquired, kspace, image, nothing)


class StagedPolicy:
    """A staged sampler with a stage for every unit, as a policy.

    Parameters
    ----------
    sampler : trained
    units : that it acquires
    """

    def __init__(self, sampler: StagedSampler, units: Units) -> None:
        self.sampler, self.units = sampler, units

    @torch.no_grad()
    def preferences(self, state: State) -> Tensor:
        scores = self.sampler.scores.detach()
        own = scores.expand(len(state), *scores.shape)
        if state.n_acquired >= self.sampler.stages[0].n_samples:
            probability = self.sampler.expand(torch.sigmoid(scores))
            change = self.sampler.policy(state.kspace, self.units.mask(state.acquired), probability)
            own = own + self.sampler.reduce(change)
        return own.flatten(1)


def fit_together(
    sampler: Sampler, train: Process, val: Process | None, folder: Path, **training: Any
) -> Reconstructor:
    """Train a copy of the reconstructor, and what of the sampler learns, end to end.

    Parameters
    ----------
    sampler : changed in place
    train, val : of these splits
    folder, training : of :func:`kscout.learning.joint.fit_jointly`

    Returns
    -------
    the copy
    """
    net = deepcopy(train.reconstructor).train()
    held_out = train.data.select([]) if val is None else val.data
    fit_jointly(sampler, net, train.data, held_out, folder=folder, **training)
    sampler.to(train.device)
    return net.to(train.device).eval()
