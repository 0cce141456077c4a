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

Row = dict[str, float | None]


class History(Callback):
    """Keeps one row for each epoch, in the checkpoint and as a CSV file.

    Being part of the checkpoint, it is whole after a resumed run too.

    Parameters
    ----------
    path : of the CSV file
    logged : what the module logs, the columns
    """

    def __init__(self, path: Path, logged: tuple[str, ...] = ("train_loss", "val_loss")) -> None:
        self.path, self.logged = path, logged
        self.rows: list[Row] = []
        self.seconds_before = 0.0  # of the epochs of sessions that were stopped
        self._started = time.monotonic()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._started = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        metrics = trainer.callback_metrics
        logged = {name: float(metrics[name]) if name in metrics else None for name in self.logged}
        seconds = time.monotonic() - self._started
        row = {"epoch": float(trainer.current_epoch), **logged, **self.more(), "seconds": seconds}
        self.rows.append(row)
        if not trainer.is_global_zero:
            return
        with atomic_path(self.path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(row))
            writer.writeheader()
            writer.writerows(self.rows)

    def more(self) -> Row:
        """Further columns, at the end of every epoch."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = list(state_dict["rows"])
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


class MaskHistory(History):
    """The mask before training and after every epoch, besides.

    Parameters
    ----------
    sampler : whose mask is followed
    """

    def __init__(self, path: Path, sampler: Sampler) -> None:
        super().__init__(path)
        self.sampler = sampler
        self.masks: list[Tensor] = [sampler.mask().cpu()]

    @property
    def mask_history(self) -> Tensor:
        """Bool ``(epoch + 1, ky, kx)``."""
        return torch.stack(self.masks)

    def more(self) -> Row:
        self.masks.append(self.sampler.mask().cpu())
        row: Row = {"n_points_changed": float((self.masks[-1] & ~self.masks[-2]).sum())}
        if isinstance(self.sampler, LearnedSampler):
            row["noise"] = float(self.sampler.noise_level)
        return row

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "masks": self.mask_history}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.masks = list(state_dict["masks"])
