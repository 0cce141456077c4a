"""Gradient descent on a sampler and a reconstructor together, or on the reconstructor alone."""

import logging
import signal
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint, RichProgressBar
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from kscout.atomic import atomic_path
from kscout.data.slices import KspaceSet
from kscout.errors import UserError
from kscout.learning.history import History
from kscout.recon import Reconstructor
from kscout.sampling import LearnedSampler, Sampler

LossName = Literal["nmse_kspace", "nmse_image"]


def budgeted_nmse(predicted: Tensor, kspace: Tensor, target: Tensor, mask: Tensor) -> Tensor:
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
    mask : ``(ky, kx)``
    """
    missing = (predicted - target).abs().square()
    acquired = (kspace - target).abs().square()
    error = ((1 - mask) * missing + mask * acquired).sum()
    return error / target.abs().square().sum()


class JointModule(pl.LightningModule):
    """Mask the k-space, complete it, and compare with what was there.

    Parameters
    ----------
    sampler, reconstructor : both trained; a fixed sampler has nothing to train
    to_image : k-space to magnitude images for the ``nmse_image`` loss
    """

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
    ) -> None:
        super().__init__()
        self.sampler, self.reconstructor = sampler, reconstructor
        self.loss, self.seed, self.to_image = loss, seed, to_image
        self.mask_learning_rate, self.learning_rate = mask_learning_rate, learning_rate

    def configure_optimizers(self) -> torch.optim.Optimizer:
        groups = [
            {"params": list(self.sampler.parameters()), "lr": self.mask_learning_rate},
            {"params": list(self.reconstructor.parameters()), "lr": self.learning_rate},
        ]
        return torch.optim.Adam([group for group in groups if group["params"]])

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Let the mask settle: its noise and its learning rate fall to nothing."""
        done = self.global_step / self.trainer.estimated_stepping_batches
        if isinstance(self.sampler, LearnedSampler):
            self.sampler.anneal(done)
            mask_group = self.trainer.optimizers[0].param_groups[0]
            mask_group["lr"] = self.mask_learning_rate * (1 - done)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        # A generator per step, not one that runs on: a resumed run draws what it would have drawn.
        step_seed = (self.seed << 32) + self.global_step
        loss = self.step(batch, self.sampler(torch.Generator().manual_seed(step_seed)))
        self.log("train_loss", loss, on_step=False, on_epoch=True, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.log("val_loss", self.step(batch, self.sampler(None)), prog_bar=True)

    def step(self, batch: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        kspace, target = batch
        acquired = kspace * mask
        predicted = self.reconstructor.predict(acquired, mask)
        if self.loss == "nmse_image":
            estimate = self.to_image(acquired + (1 - mask) * predicted)
            image = self.to_image(target)
            return (estimate - image).square().sum() / image.square().sum()
        return budgeted_nmse(predicted, kspace, target, mask)


class _Slices(Dataset[tuple[Tensor, Tensor]]):
    """Whole batches by one index each: copying slice by slice would cost more than a step."""

    def __init__(self, data: KspaceSet) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitems__(self, index: Sequence[int]) -> tuple[Tensor, Tensor]:
        part = self.data.select(index)
        return part.kspace, part.target


def _loader(data: KspaceSet, batch_size: int, seed: int, *, shuffle: bool) -> DataLoader[Any]:
    # The order of an epoch depends on (seed, epoch) alone, so that a resumed run sees the same.
    order: DistributedSampler[Any] = DistributedSampler(
        _Slices(data), num_replicas=1, rank=0, shuffle=shuffle, seed=seed
    )
    return DataLoader(
        _Slices(data),
        batch_size,
        sampler=order,
        collate_fn=lambda batch: batch,
        generator=torch.Generator().manual_seed(seed),
    )


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
) -> History:
    """Train by gradient descent; continue where ``folder`` says that an earlier run was stopped.

    Both end at the epoch with the lowest validation loss (the last one without validation data).

    Parameters
    ----------
    sampler, reconstructor : changed in place
    train, val : slices; ``val`` may be empty
    folder : gets ``metrics.csv`` and, after every epoch, ``training/last.ckpt``
    seed : of the order of slices and of the sampler's noise
    epochs : passes over ``train``
    patience : stop after so many epochs without a better validation loss; ``None`` never does
    progress : show a progress bar

    Raises
    ------
    UserError
        if nothing can be trained, the loss is not finite, or the checkpoint is of another shape
    """
    module = JointModule(
        sampler,
        reconstructor,
        loss=loss,
        mask_learning_rate=mask_learning_rate,
        learning_rate=learning_rate,
        seed=seed,
        to_image=train.image,
    )
    if not any(p.requires_grad for p in module.parameters()):
        raise UserError("nothing to train by gradient descent: set training.epochs to 0")
    if patience is not None and not len(val):
        raise UserError("training.patience needs validation data: valid without it is null")
    history = History(folder / "metrics.csv", sampler)
    monitor = "val_loss" if len(val) else None
    checkpoint = ModelCheckpoint(
        folder / "training", "best", monitor=monitor, save_last=True, enable_version_counter=False
    )
    callbacks: list[Callback] = [history, _FiniteLoss(), checkpoint]
    if patience is not None:
        callbacks.append(EarlyStopping("val_loss", patience=patience))
    if progress:
        callbacks.append(RichProgressBar(leave=False))
    last = folder / "training" / "last.ckpt"
    _quieten()
    on_ctrl_c = signal.getsignal(signal.SIGINT)
    trainer = pl.Trainer(
        accelerator="auto",
        devices=1,
        max_epochs=epochs,
        logger=False,
        callbacks=callbacks,
        plugins=_AtomicCheckpoints(),
        enable_progress_bar=progress,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
    )
    try:
        trainer.fit(
            module,
            _loader(train, batch_size, seed, shuffle=True),
            _loader(val, batch_size, seed, shuffle=False) if len(val) else None,
            ckpt_path=last if last.exists() else None,
            weights_only=True,
        )
    except SystemExit:  # Lightning's answer to Ctrl-C, after which it would ignore a second one
        signal.signal(signal.SIGINT, on_ctrl_c)
        raise KeyboardInterrupt from None
    except RuntimeError as error:
        if "Error(s) in loading state_dict" in str(error):
            raise UserError(f"{last} is a checkpoint of another model: use a new folder") from error
        raise
    best = torch.load(folder / "training" / "best.ckpt", map_location="cpu", weights_only=True)
    module.cpu().load_state_dict(best["state_dict"])
    return history


class _FiniteLoss(Callback):
    """Stop at once when training has diverged, rather than go on with NaN."""

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *_: Any
    ) -> None:
        if not torch.isfinite(outputs["loss"]):
            raise UserError(
                f"the training loss is not finite in epoch {trainer.current_epoch}: "
                "use a lower learning rate"
            )


class _AtomicCheckpoints(TorchCheckpointIO):
    """A run killed while it saves keeps the checkpoint before."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        with atomic_path(Path(path)) as temporary:
            super().save_checkpoint(checkpoint, temporary, storage_options)


def _quieten() -> None:
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    for message in (
        "does not have many workers",
        "have no `val_dataloader`",
        "Checkpoint directory.*exists",
        "LeafSpec",  # Lightning's own use of a deprecated PyTorch class
    ):
        warnings.filterwarnings("ignore", f".*{message}")
