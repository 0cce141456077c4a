"""Gradient descent on a sampler and a reconstructor together, or on the reconstructor alone."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from pytorch_lightning.strategies import ParallelStrategy
from torch import Tensor

from kscout.data.slices import KspaceSet
from kscout.errors import UserError
from kscout.learning.batches import Batch, loader, refuse_patience, step_generator
from kscout.learning.descent import descend
from kscout.learning.distribute import (
    ShouldStop,
    check_processes,
    place,
    run_processes,
    started_by_slurm,
    sum_over_processes,
)
from kscout.learning.history import MaskHistory
from kscout.recon import Reconstructor
from kscout.sampling import LearnedSampler, Sampler

LossName = Literal["nmse_kspace", "nmse_image"]


def budgeted_nmse(
    predicted: Tensor, kspace: Tensor, target: Tensor, mask: Tensor, norm: Tensor | None = None
) -> Tensor:
    r"""Squared error of a batch over its squared norm, written so that its slope is a difference.

    .. math:: L = \frac{\sum_p (1 - m_p)\,|\hat x_p - t_p|^2 + m_p\,|y_p - t_p|^2}{\sum_p |t_p|^2}

    with prediction :math:`\hat x`, measurement :math:`y` and target :math:`t`. For a binary mask
    this is the NMSE of the completed k-space. The NMSE of :math:`m y + (1 - m)\hat x` has the same
    values, but its slope in :math:`m_p` is twice the gain at a missing point and nothing at an
    acquired one, whose worth would never be seen. Here the slope is what acquiring the point gains,
    wherever it stands.

    Parameters
    ----------
    predicted, kspace, target : complex ``(batch, coil, ky, kx)``
    mask : ``(ky, kx)`` or ``(batch, 1, ky, kx)``
    norm : the denominator, where these slices are part of a batch; their own if not given
    """
    missing = (predicted - target).abs().square()
    acquired = (kspace - target).abs().square()
    error = ((1 - mask) * missing + mask * acquired).sum()
    return error / (target.abs().square().sum() if norm is None else norm)


class JointModule(pl.LightningModule):
    """Mask the k-space, complete it, and compare with what was there.

    A step is taken on the whole batch, however many processes share it and in however many parts
    each of them computes its share: the loss is one ratio, over all slices of the batch.

    Parameters
    ----------
    sampler, reconstructor : both trained; a fixed sampler has nothing to train
    to_image : k-space to magnitude images for the ``nmse_image`` loss
    micro_batch : slices at a time, of which activations are held; ``None`` for all of the share
    """

    automatic_optimization = False  # Lightning's own accumulation would take a mean of ratios

    def __init__(
        self,
        sampler: Sampler,
        reconstructor: Reconstructor,
        *,
        loss: LossName,
        mask_learning_rate: float,
        learning_rate: float,
        seed: int,
        to_image: Callable[[Tensor], Tensor],
        micro_batch: int | None = None,
    ) -> None:
        super().__init__()
        self.sampler, self.reconstructor = sampler, reconstructor
        self.loss, self.seed, self.to_image = loss, seed, to_image
        self.micro_batch = micro_batch
        self.mask_learning_rate, self.learning_rate = mask_learning_rate, learning_rate

    def configure_optimizers(self) -> torch.optim.Optimizer:
        reconstructor = (list(self.reconstructor.parameters()), self.learning_rate)
        parts = [*self._of_sampler(), reconstructor]
        return torch.optim.Adam([{"params": p, "lr": rate} for p, rate in parts if p])

    def _of_sampler(self) -> list[tuple[list[torch.nn.Parameter], float]]:
        """What the sampler trains, with the learning rates at the start: scores and networks."""
        networks = self.sampler.networks
        of_networks = {id(p) for p in networks}
        scores = [p for p in self.sampler.parameters() if id(p) not in of_networks]
        parts = [(scores, self.mask_learning_rate), (networks, self.learning_rate)]
        return [part for part in parts if part[0]]

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Let the mask settle: its noise and its learning rates fall to nothing."""
        done = self.global_step / self.trainer.estimated_stepping_batches
        if isinstance(self.sampler, LearnedSampler):
            self.sampler.anneal(done)
            groups = self.trainer.optimizers[0].param_groups
            for group, (_, rate) in zip(groups, self._of_sampler(), strict=False):
                group["lr"] = rate * (1 - done)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        mask = self.sampler(self._generator())
        optimizer.zero_grad()
        loss = self._backward(batch, mask)
        self._log("train_loss", loss, batch)
        if not torch.isfinite(loss):
            raise UserError(
                f"the training loss is not finite in epoch {self.current_epoch}: "
                "use a lower learning rate"
            )
        optimizer.step()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        drawn = step_generator(self.seed, batch_idx) if self.sampler.any_number else None
        losses = [loss for loss, _ in self._losses(batch, self.sampler(None), lambda: drawn)]
        self._log("val_loss", sum_over_processes(torch.stack(losses).sum()), batch)

    def _generator(self) -> torch.Generator:
        return step_generator(self.seed, self.global_step)

    def _backward(self, batch: Batch, mask: Tensor) -> Tensor:
        """Gradients of the loss of the whole batch; returns the loss."""
        n_processes = place()[1]
        total = torch.zeros((), device=self.device)
        # What a sampler makes of its gradient need not be linear, so it gets that of the whole
        # batch, at once.
        leaf = mask.detach().requires_grad_(mask.requires_grad)
        for loss, is_last in self._losses(batch, leaf, self._generator):
            with nullcontext() if is_last else self._unshared():
                self.manual_backward(n_processes * loss)  # DDP takes the mean over processes
            total += loss.detach()
        if leaf.grad is not None:
            mask.backward(sum_over_processes(leaf.grad) / n_processes)
        return sum_over_processes(total)

    def _losses(
        self, batch: Batch, shared: Tensor, generator: Callable[[], torch.Generator | None]
    ) -> Iterator[tuple[Tensor, bool]]:
        """What each part of this process's slices adds to the loss, and whether it is the last."""
        norm = sum_over_processes(batch.weight * self._norm(batch.target))
        kspace, target = (x.split(self.micro_batch or len(x)) for x in (batch.kspace, batch.target))
        for i in range(len(kspace)):
            mask = self.sampler.for_slices(kspace[i], self.reconstructor, shared, generator())
            loss = batch.weight * self._loss(kspace[i], target[i], mask, norm)
            yield loss, i == len(kspace) - 1

    def _norm(self, target: Tensor) -> Tensor:
        reference = self.to_image(target) if self.loss == "nmse_image" else target.abs()
        return reference.square().sum()

    def _loss(self, kspace: Tensor, target: Tensor, mask: Tensor, norm: Tensor) -> Tensor:
        acquired = kspace * mask
        if self.loss == "nmse_image":
            estimate = self.to_image(self.reconstructor(acquired, mask))
            return (estimate - self.to_image(target)).square().sum() / norm
        predicted = self.reconstructor.predict(acquired, mask)
        if self.reconstructor.models_noise:
            return (predicted - target).abs().square().sum() / norm
        return budgeted_nmse(predicted, kspace, target, mask, norm)

    def _unshared(self) -> AbstractContextManager[None]:
        """Gradients within are added up in this process, until the next backward shares them."""
        strategy = self.trainer.strategy
        if isinstance(strategy, ParallelStrategy):
            return strategy.block_backward_sync()
        return nullcontext()

    def _log(self, name: str, loss: Tensor, batch: Batch) -> None:
        n = batch.n_slices
        self.log(name, loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=n)


def fit_jointly(
    sampler: Sampler,
    reconstructor: Reconstructor,
    train: KspaceSet,
    val: KspaceSet,
    *,
    folder: Path,
    seed: int,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    mask_learning_rate: float,
    loss: LossName = "nmse_kspace",
    patience: int | None = None,
    progress: bool = True,
    n_devices: int = 1,
    n_nodes: int = 1,
    micro_batch: int | None = None,
    should_stop: ShouldStop | None = None,
) -> MaskHistory:
    """Train by gradient descent; continue where ``folder`` says that an earlier run was stopped.

    Both end at the epoch with the lowest validation loss (the last one without validation data).

    Parameters
    ----------
    sampler, reconstructor : changed in place
    train, val : slices; ``val`` may be empty
    folder : gets ``metrics.csv`` and, after every epoch, ``training/last.ckpt``
    seed : of the order of slices and of the sampler's noise
    epochs : passes over ``train``
    batch_size : slices of a step, over all processes
    patience : stop after so many epochs without a better validation loss; ``None`` never does
    progress : show a progress bar
    n_devices, n_nodes : processes on each machine, and machines; with more than one process, SLURM
        has started them all, each of which calls this, or they are started here
    micro_batch : slices that a process computes at a time; ``None`` for its share of a batch
    should_stop : asked after every epoch, in the process with rank 0 or in the one that starts all

    Raises
    ------
    UserError
        if nothing can be trained, the loss is not finite, the checkpoint is of another shape, or
        the batch cannot be shared by the processes
    Stopped
        if ``should_stop`` said so; the same call goes on
    """
    module = JointModule(
        sampler,
        reconstructor,
        loss=loss,
        mask_learning_rate=mask_learning_rate,
        learning_rate=learning_rate,
        seed=seed,
        to_image=train.image,
        micro_batch=micro_batch,
    )
    if not any(p.requires_grad for p in module.parameters()):
        raise UserError("nothing to train by gradient descent: set training.epochs to 0")
    refuse_patience(patience, len(val), "training")
    check_processes(batch_size, n_devices, n_nodes)
    history = MaskHistory(folder / "metrics.csv", sampler)
    work = partial(
        descend,
        module,
        history,
        loader(train, batch_size, seed, shuffle=True),
        loader(val, batch_size, seed, shuffle=False) if len(val) else None,
        folder / "training",
        epochs=epochs,
        patience=patience,
        progress=progress,
        n_devices=n_devices,
        n_nodes=n_nodes,
    )
    if n_devices * n_nodes == 1 or started_by_slurm(n_devices, n_nodes):
        work(should_stop)
    else:
        last = folder / "training" / "last.ckpt"
        if last.exists():
            history.load(last)
        module.cpu()  # what is sent to the processes
        run_processes(work, n_devices, should_stop or _never)
        history.go_on(last)
    best = torch.load(folder / "training" / "best.ckpt", map_location="cpu", weights_only=True)
    module.cpu().load_state_dict(best["state_dict"])
    return history


def _never() -> bool:
    return False
