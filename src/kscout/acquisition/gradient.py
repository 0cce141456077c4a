"""Policy gradients, greedy and not (Bakker et al. 2020, NeurIPS)."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from kscout.acquisition.learner import Discount, Learner, Rate, Reward, draw
from kscout.acquisition.network import UnitNetwork
from kscout.acquisition.process import Process, State


class PolicyGradient(Learner):
    """Learns the chances of all units; what does better than other tries of a slice gets more.

    Every slice is acquired ``n_rollouts`` times at once. Each action is credited with the rewards
    that follow it, above the mean of the other tries at the same step (Kool et al. 2019). A greedy
    learner credits an action with its own reward alone. Once learned, the likeliest unit is taken.

    Parameters
    ----------
    process : of the training slices
    seed : of weights and of what is drawn
    greedy : whether later rewards count for nothing; Bakker et al. found it as good
    gamma : discount of later rewards
    n_rollouts : of every slice
    """

    def __init__(
        self,
        process: Process,
        seed: int,
        *,
        greedy: bool = False,
        sees_slice: bool = True,
        learning_rate: Rate = 1e-3,
        reward: Reward = "area",
        gamma: Discount = 1.0,
        n_rollouts: Annotated[int, Field(ge=2, le=64)] = 8,
    ) -> None:
        network = UnitNetwork(process.units, seed, sees_slice=sees_slice)
        super().__init__(process, network, seed, learning_rate=learning_rate, reward=reward)
        self.gamma, self.n_rollouts = 0.0 if greedy else gamma, n_rollouts

    def learn(self, index: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        state = self.process.start(index.repeat(self.n_rollouts))
        log_chances, rewards = [], []
        while not self.process.is_done(state):
            log_chance = self._log_chances(state)
            action = draw(log_chance.detach().exp(), generator)
            log_chances.append(log_chance.gather(1, action[:, None])[:, 0])
            new, gain = self.process.step(state, action)
            rewards.append(self.rewards(state, gain))
            state = new
        loss = -(self.credits(torch.stack(rewards)) * torch.stack(log_chances)).mean()
        self.step(loss)
        return loss.detach(), torch.stack(rewards).sum(0).mean()

    def credits(self, rewards: Tensor) -> Tensor:
        """What follows each action, above the mean of the other tries: float ``(step, batch)``."""
        after, credits = torch.zeros_like(rewards[0]), []
        for reward in reversed(rewards):
            after = reward + self.gamma * after
            credits.append(self._above_the_others(after))
        return torch.stack(credits[::-1])

    def _log_chances(self, state: State) -> Tensor:
        values = self.network(*self.network.see(state))
        log_chances: Tensor = values.masked_fill(state.acquired, -torch.inf).log_softmax(1)
        return log_chances

    def _above_the_others(self, value: Tensor) -> Tensor:
        of_slice = value.reshape(self.n_rollouts, -1)
        others = (of_slice.sum(0) - of_slice) / (self.n_rollouts - 1)
        return (of_slice - others).flatten()
