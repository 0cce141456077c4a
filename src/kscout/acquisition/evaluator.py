"""Where is the reconstruction worst? The evaluator network of Zhang et al. 2019 (CVPR)."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from kscout.acquisition.learner import Learner, Rate, explore
from kscout.acquisition.network import UnitNetwork
from kscout.acquisition.process import Process, State


class Evaluator(Learner):
    """Learns the error that the reconstruction has in every unit; the worst is acquired next.

    It learns from the fully sampled slices, not from rewards: the decades of the squared error of
    each unit's k-space, the mean over its points. Those of Zhang et al. are similarities of images
    that each hold one unit's k-space alone, which fall as that error rises.

    Parameters
    ----------
    process : of the training slices
    seed : of weights and exploration
    epsilon : chance of a random unit, throughout the training, so that all kinds of states are seen
    """

    def __init__(
        self,
        process: Process,
        seed: int,
        *,
        learning_rate: Rate = 1e-3,
        epsilon: Annotated[float, Field(ge=0, le=1)] = 0.5,
    ) -> None:
        network = UnitNetwork(process.units, seed)
        super().__init__(process, network, seed, learning_rate=learning_rate, reward="gain")
        self.epsilon = epsilon

    def learn(self, index: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        state, losses, gained = self.process.start(index), [], []
        while not self.process.is_done(state):
            predicted = self.network(*self.network.see(state))
            free = ~state.acquired
            loss = (predicted - self._error(state))[free].square().mean()
            self.step(loss)
            losses.append(loss.detach())
            action = explore(self.policy, state, self.epsilon, generator)
            new, gain = self.process.step(state, action)
            gained.append(self.rewards(state, gain))
            state = new
        return torch.stack(losses).mean(), torch.stack(gained).sum(0).mean()

    def _error(self, state: State) -> Tensor:
        """Decades of each unit's squared error, against the slice's energy: ``(batch, unit)``."""
        target = self.process.data.target[state.index].to(self.process.device)
        error = self.network.mean_square(state.kspace - target)
        energy = self.network.mean_square(target).mean(1, keepdim=True)
        return (error / energy + 1e-8).log10()
