"""What every learned policy has: a network, episodes to learn from, and a training that goes on."""

from pathlib import Path
from typing import Annotated, Any, Literal

import pytorch_lightning as pl
import torch
from pydantic import Field
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor
from torch.utils.data import DataLoader, DistributedSampler

from kscout.acquisition.network import NetworkPolicy, UnitNetwork
from kscout.acquisition.policies import choose
from kscout.acquisition.process import Process, State
from kscout.acquisition.rollout import roll_out_slices
from kscout.errors import UserError
from kscout.learning.batches import refuse_patience, step_generator
from kscout.learning.descent import descend
from kscout.learning.distribute import ShouldStop
from kscout.learning.history import History

Reward = Literal["gain", "area"]
Rate = Annotated[float, Field(gt=0, lt=10, description="of Adam")]
Discount = Annotated[float, Field(ge=0, le=1, description="worth of the next reward")]

SCALED_BY = 256
"""Slices whose mean score at the start is the unit of rewards."""


class Learner(pl.LightningModule):
    """Learns :attr:`network`, going over all training slices in each epoch.

    Subclasses say in :meth:`learn` what a batch of slices teaches, and how often it is acquired.

    Parameters
    ----------
    process : of the training slices
    network : what is learned
    seed : of what is drawn
    learning_rate : of Adam at the start; it falls to nothing, as the values settle then
    reward : that is made large: the sum of all gains, or the area under the curve of scores
    """

    automatic_optimization = False

    def __init__(
        self,
        process: Process,
        network: UnitNetwork,
        seed: int,
        *,
        learning_rate: float,
        reward: Reward,
    ) -> None:
        super().__init__()
        self.process, self.network, self.seed = process, network, seed
        self.learning_rate, self.reward = learning_rate, reward
        self.validation: Process | None = None
        some = torch.arange(min(SCALED_BY, len(process.data))).split(process.at_once)
        scores = torch.cat([process.start(part).score for part in some])
        self.unit = float(scores.abs().mean()) or 1.0

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.network.parameters(), self.learning_rate)

    def on_train_epoch_start(self) -> None:
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = self.learning_rate * (1 - self.fraction_done)

    @property
    def policy(self) -> NetworkPolicy:
        return NetworkPolicy(self.network)

    def learn(self, index: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Improve the network by the slices at ``index``.

        Returns
        -------
        the mean loss, and the mean return of an episode
        """
        raise NotImplementedError

    def training_step(self, index: Tensor, batch_idx: int) -> None:
        loss, gained = self.learn(index.cpu(), self._generator(batch_idx))
        if not torch.isfinite(loss):
            raise UserError(
                f"the training loss is not finite in epoch {self.current_epoch}: "
                "use a lower learning rate"
            )
        for name, value in (("train_loss", loss), ("return", gained)):
            self.log(name, value.float(), on_epoch=True, prog_bar=True, batch_size=len(index))

    def validation_step(self, index: Tensor, batch_idx: int) -> None:
        assert self.validation is not None
        episode = roll_out_slices(self.validation, self.policy, index.cpu())
        worse = -self.validation.sign * episode.area
        self.log("val_loss", worse.mean().float(), prog_bar=True, batch_size=len(index))

    def rewards(self, state: State, gain: Tensor) -> Tensor:
        """What a gain from ``state`` is worth, in units of the mean score at the start."""
        weight = self.process.area_weight(state) if self.reward == "area" else 1.0
        return (weight / self.unit * gain).float()

    def step(self, loss: Tensor) -> None:
        """One step of gradient descent."""
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()

    @property
    def fraction_done(self) -> float:
        """Of the training, at the beginning of an epoch."""
        return self.current_epoch / (self.trainer.max_epochs or 1)

    def _generator(self, batch_idx: int) -> torch.Generator:
        n_before = self.current_epoch * int(self.trainer.num_training_batches) + batch_idx
        return step_generator(self.seed, n_before)


def draw(weights: Tensor, generator: torch.Generator) -> Tensor:
    """One unit of every row by its weight, int64 ``(row,)``; drawn on the CPU, where it repeats.

    Raises
    ------
    UserError
        if a weight is not finite, because the training went astray
    """
    if not torch.isfinite(weights).all():
        raise UserError("the chances of units are not finite: use a lower learning rate")
    return torch.multinomial(weights.cpu(), 1, generator=generator)[:, 0].to(weights.device)


def explore(policy: Any, state: State, chance: float, generator: torch.Generator) -> Tensor:
    """The policy's action or, with a chance, any: int64 ``(batch,)``."""
    chosen, any_free = choose(policy, state), draw((~state.acquired).float(), generator)
    is_any = torch.rand(len(state), generator=generator).to(chosen.device) < chance
    return torch.where(is_any, any_free, chosen)


def fit(
    learner: Learner,
    validation: Process | None,
    folder: Path,
    *,
    epochs: int,
    batch_size: int = 64,
    patience: int | None = None,
    progress: bool = True,
    should_stop: ShouldStop | None = None,
) -> History:
    """Train; continue where ``folder`` says that an earlier training was stopped.

    It ends at the epoch with the best area under the curve of validation slices (the last one
    without any).

    Parameters
    ----------
    learner : changed in place
    folder : gets ``metrics.csv`` and, after every epoch, ``training/last.ckpt``
    epochs : episodes of every training slice
    batch_size : slices that are acquired at once
    patience : stop after so many epochs without a better one; ``None`` never does

    Raises
    ------
    UserError
        if the loss is not finite, or the checkpoint is of another policy
    Stopped
        if ``should_stop`` said so; the same call goes on
    """
    refuse_patience(patience, 0 if validation is None else len(validation.data), "learning")
    learner.validation = validation
    history = History(folder / "metrics.csv", ("train_loss", "return", "val_loss"))
    descend(
        learner,
        history,
        _indices(len(learner.process.data), batch_size, learner.seed, shuffle=True),
        None
        if validation is None
        else _indices(len(validation.data), batch_size, learner.seed, shuffle=False),
        folder / "training",
        should_stop,
        epochs=epochs,
        patience=patience,
        progress=progress,
        accelerator=learner.process.device.type,
    )
    best = torch.load(folder / "training" / "best.ckpt", map_location="cpu", weights_only=True)
    learner.load_state_dict(best["state_dict"])
    learner.to(learner.process.device)
    return history


def _indices(n: int, batch_size: int, seed: int, *, shuffle: bool) -> DataLoader[Any]:
    places: Any = torch.arange(n)
    order: DistributedSampler[Any] = DistributedSampler(
        places, num_replicas=1, rank=0, shuffle=shuffle, seed=seed
    )
    return DataLoader(
        places, batch_size, sampler=order, generator=torch.Generator().manual_seed(seed)
    )
