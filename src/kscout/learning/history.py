"""What happened in every epoch: losses, and the mask as it changed."""

import csv
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from kscout.atomic import atomic_path
from kscout.sampling import LearnedSampler, Sampler


class History(Callback):
    """Keeps one row and one mask for each epoch, in the checkpoint and as ``metrics.csv``.

    Being part of the checkpoint, it is whole after a resumed run too.

    Parameters
    ----------
    path : of the CSV file
    sampler : whose mask is followed
    """

    def __init__(self, path: Path, sampler: Sampler) -> None:
        self.path, self.sampler = path, sampler
        self.rows: list[dict[str, float | None]] = []
        self.masks: list[Tensor] = [sampler.mask().cpu()]
        self.seconds_before = 0.0  # of the epochs of sessions that were stopped
        self._started = time.monotonic()

    @property
    def mask_history(self) -> Tensor:
        """Bool ``(epoch + 1, ky, kx)``: the mask before training and after every epoch."""
        return torch.stack(self.masks)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._started = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.masks.append(self.sampler.mask().cpu())
        metrics = trainer.callback_metrics
        row: dict[str, float | None] = {
            "epoch": float(trainer.current_epoch),
            "train_loss": float(metrics["train_loss"]),
            "val_loss": float(metrics["val_loss"]) if "val_loss" in metrics else None,
        }
        row["n_points_changed"] = float((self.masks[-1] & ~self.masks[-2]).sum())
        if isinstance(self.sampler, LearnedSampler):
            row["noise"] = float(self.sampler.noise_level)
        row["seconds"] = time.monotonic() - self._started
        self.rows.append(row)
        if not trainer.is_global_zero:
            return
        with atomic_path(self.path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(row))
            writer.writeheader()
            writer.writerows(self.rows)

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "masks": self.mask_history}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows, self.masks = list(state_dict["rows"]), list(state_dict["masks"])
        self.seconds_before = sum(row["seconds"] or 0.0 for row in self.rows)

    def load(self, checkpoint: Path) -> None:
        """Take over what a checkpoint says of the epochs before it."""
        callbacks = torch.load(checkpoint, map_location="cpu", weights_only=True)["callbacks"]
        self.load_state_dict(callbacks[self.state_key])

    def go_on(self, checkpoint: Path) -> None:
        """Add the epochs that other processes have trained since, in this session."""
        seconds_before = self.seconds_before
        self.load(checkpoint)
        self.seconds_before = seconds_before
