"""Double deep Q-learning of the next unit (van Hasselt et al. 2016; Pineda et al. 2020)."""

from typing import Annotated, Any

import torch
from pydantic import Field
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import Tensor
from torchrl.modules import QValueActor
from torchrl.objectives import DQNLoss, SoftUpdate

from kscout.acquisition.learner import Discount, Learner, Rate, Reward, explore
from kscout.acquisition.network import UnitNetwork, View
from kscout.acquisition.process import Process
from kscout.acquisition.replay import Replay, Transitions

Positive = Annotated[int, Field(ge=1)]


class Ddqn(Learner):
    """Learns what every unit is worth until the end, from what it did and remembers.

    The network chooses the best next unit, and a slower copy of it says what that is worth. Units
    are chosen at random at first, and by the network more and more until ``exploring`` of the
    training is done.

    Parameters
    ----------
    process : of the training slices
    seed : of weights, exploration and memory
    sees_slice : else one order for all slices is learned (dataset-specific)
    gamma : discount; 0.5 in Pineda et al. 2020
    buffer_size : transitions that are remembered
    replay_batch_size : of them, in a step of gradient descent
    n_updates : such steps after every action of a batch
    epsilon_decay : fraction of the training in which the chance of a random unit falls from 1
    epsilon_end : what it falls to
    tau : fraction of the network that its copy takes over at every step
    """

    def __init__(
        self,
        process: Process,
        seed: int,
        *,
        sees_slice: bool = True,
        learning_rate: Rate = 1e-3,
        reward: Reward = "area",
        gamma: Discount = 1.0,
        buffer_size: Positive = 20_000,
        replay_batch_size: Positive = 128,
        n_updates: Positive = 2,
        epsilon_decay: Annotated[float, Field(ge=0, le=1)] = 0.5,
        epsilon_end: Annotated[float, Field(ge=0, le=1)] = 0.05,
        tau: Annotated[float, Field(gt=0, le=1)] = 0.01,
    ) -> None:
        network = UnitNetwork(process.units, seed, sees_slice=sees_slice)
        super().__init__(process, network, seed, learning_rate=learning_rate, reward=reward)
        self.replay_batch_size, self.n_updates = replay_batch_size, n_updates
        self.epsilon_decay, self.epsilon_end = epsilon_decay, epsilon_end
        self.replay = Replay(buffer_size, process.units.n, seed)
        actor = QValueActor(
            TensorDictModule(network, in_keys=list(View._fields), out_keys=["action_value"]),
            in_keys=list(View._fields),
            action_space="categorical",
            action_mask_key="free",
        )
        self.dqn = DQNLoss(
            actor, action_space="categorical", double_dqn=True, loss_function="smooth_l1"
        )
        self.dqn.make_value_estimator(gamma=gamma)
        self.updater = SoftUpdate(self.dqn, tau=tau)

    def learn(self, index: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        state, losses, gained = self.process.start(index), [], []
        while not self.process.is_done(state):
            action = explore(self.policy, state, self.epsilon(self.fraction_done), generator)
            new, gain = self.process.step(state, action)
            reward = self.rewards(state, gain)
            done = torch.full((len(index),), self.process.is_done(new))
            before, after = self.network.see(state), self.network.see(new)
            self.replay.add(Transitions(index, before, action, reward, after, done))
            losses += [self._improve() for _ in range(self.n_updates)]
            gained.append(reward)
            state = new
        return torch.stack(losses).mean(), torch.stack(gained).sum(0).mean()

    def epsilon(self, fraction_done: float) -> float:
        """The chance of a random unit."""
        left = 1 - fraction_done / self.epsilon_decay if self.epsilon_decay else 0.0
        return max(self.epsilon_end, left)

    def _improve(self) -> Tensor:
        loss = self.loss(self.replay.draw(self.replay_batch_size, self.process.device))
        self.step(loss)
        self.updater.step()
        return loss.detach()

    def loss(self, batch: Transitions) -> Tensor:
        """Of what the network says an action is worth, against its reward and what follows."""
        ended = batch.done[:, None]
        after = {**_fields(batch.after), "reward": batch.reward[:, None]}
        after |= {"done": ended, "terminated": ended}
        drawn = TensorDict(
            {
                **_fields(batch.before),
                "action": batch.action,
                "next": TensorDict(after, batch_size=len(ended)),
            },
            batch_size=len(ended),
        )
        loss: Tensor = self.dqn(drawn)["loss"]
        return loss

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["replay"] = self.replay.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.replay.load_state_dict(checkpoint["replay"])


def _fields(view: View) -> dict[str, Tensor]:
    free = ~view.acquired
    # behind the last action nothing may be left, and of nothing there is no best
    return {**view._asdict(), "free": free | ~free.any(1, keepdim=True)}
