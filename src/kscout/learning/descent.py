"""Training by Lightning as all trainings here want it: it goes on, can be stopped, and is quiet."""

import logging
import signal
import sys
import warnings
import zipfile
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint, RichProgressBar
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch.utils.data import DataLoader

from kscout.atomic import atomic_path, set_aside
from kscout.errors import Stopped, UserError
from kscout.learning.distribute import ShouldStop, environment, trainer_options


def descend(
    module: pl.LightningModule,
    history: Callback,
    train: DataLoader[Any],
    val: DataLoader[Any] | None,
    checkpoints: Path,
    should_stop: ShouldStop | None,
    *,
    epochs: int,
    patience: int | None = None,
    progress: bool = True,
    n_devices: int = 1,
    n_nodes: int = 1,
    accelerator: str | None = None,
) -> None:
    """Train in this process, together with the others of the training if there are any.

    Parameters
    ----------
    module : logs ``val_loss`` where ``val`` is given
    history : keeps what happens; part of the checkpoint
    checkpoints : folder of ``last.ckpt``, where this goes on if it exists, and ``best.ckpt``
    should_stop : asked after every epoch, in the process with rank 0
    accelerator : ``cpu`` or ``cuda``, where the module does not take its data to wherever it is

    Raises
    ------
    UserError
        if the checkpoint is of another shape
    Stopped
        if ``should_stop`` said so; the same call goes on
    """
    for tensor in chain(module.parameters(), module.buffers()):
        tensor.data = tensor.data.clone()  # processes started here were sent the same memory
    saving = _SaveThenAsk(checkpoints, "val_loss" if val else None, should_stop)
    last = saving.last
    callbacks: list[Callback] = [history, saving]
    if patience is not None:
        callbacks.append(_Patience("val_loss", patience=patience))
    if progress:
        callbacks.append(RichProgressBar(leave=False))
    _quieten()
    on_ctrl_c = signal.getsignal(signal.SIGINT)
    trainer = pl.Trainer(
        max_epochs=epochs,
        logger=False,
        callbacks=callbacks,
        plugins=[_AtomicCheckpoints(), environment(n_devices, n_nodes)],
        enable_progress_bar=progress,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        **trainer_options(n_devices, n_nodes, accelerator),
    )
    ckpt_path = last if _is_whole(last) else None
    try:
        trainer.fit(module, train, val, ckpt_path=ckpt_path, weights_only=True)
    except SystemExit:  # Lightning's answer to Ctrl-C, after which it would ignore a second one
        signal.signal(signal.SIGINT, on_ctrl_c)
        raise KeyboardInterrupt from None
    except RuntimeError as error:
        if "Error(s) in loading state_dict" in str(error):
            raise UserError(f"{last} is a checkpoint of another model: use a new folder") from error
        raise
    if saving.stopped:
        raise Stopped(f"told to stop after epoch {trainer.current_epoch}: the same call goes on")


def _is_whole(checkpoint: Path) -> bool:
    """Whether there is a checkpoint to go on from; a damaged one is set aside, and that is said."""
    if not checkpoint.exists():
        return False
    with suppress(zipfile.BadZipFile, OSError), zipfile.ZipFile(checkpoint) as file:
        if file.testzip() is None:
            return True
    name = set_aside(checkpoint).name
    print(f"{checkpoint} is damaged: kept as {name}, and trained from the start", file=sys.stderr)
    return False


class _SaveThenAsk(ModelCheckpoint):
    """Keeps the last epoch and the best one; then asks whether to stop."""

    def __init__(self, folder: Path, monitor: str | None, should_stop: ShouldStop | None) -> None:
        super().__init__(folder, "best", monitor=monitor, enable_version_counter=False)
        self.last = folder / "last.ckpt"
        self.should_stop, self.stopped = should_stop, False

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Of a folder that may have been moved, since which its paths are others."""
        super().load_state_dict(
            {
                **state_dict,
                "dirpath": self.dirpath,
                "best_model_path": self._here(state_dict["best_model_path"]),
                "kth_best_model_path": self._here(state_dict["kth_best_model_path"]),
                "best_k_models": {
                    self._here(path): score for path, score in state_dict["best_k_models"].items()
                },
            }
        )

    def _here(self, path: str) -> str:
        return str(self.last.with_name(Path(path).name)) if path else path

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        trainer.save_checkpoint(self.last)  # save_last does so only after epochs that are the best
        if self.should_stop is None:
            return
        told = trainer.is_global_zero and self.should_stop()
        self.stopped = trainer.strategy.reduce_boolean_decision(told, all=False)
        trainer.should_stop |= self.stopped


class _Patience(EarlyStopping):
    """Stays out of patience in a run that goes on, for instance because its test was stopped."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.should_stop |= self.wait_count >= self.patience


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
        "srun. command is available",
        "LeafSpec",  # Lightning's own use of a deprecated PyTorch class
        "recommended to use.*sync_dist",  # the processes log the same number
    ):
        warnings.filterwarnings("ignore", f".*{message}")
