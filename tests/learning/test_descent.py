"""Training that goes on: what it remembers."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from kscout.learning.descent import descend
from kscout.learning.history import History


class Worsening(pl.LightningModule):
    """Its validation loss grows with every epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1.0)

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        return -self.weight.sum()  # one more after every step

    def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        self.log("val_loss", self.weight.sum())


def train(folder: Path, epochs: int) -> dict[str, Any]:
    module, data = Worsening(), DataLoader(torch.zeros(1))
    history = History(folder / "metrics.csv", ("val_loss",))
    descend(module, history, data, data, folder / "training", None, epochs=epochs, progress=False)
    best: dict[str, Any] = torch.load(folder / "training" / "best.ckpt", weights_only=True)
    return best


def test_a_moved_folder_remembers_its_best_epoch(tmp_path: Path) -> None:
    assert train(tmp_path / "before", 2)["epoch"] == 0
    (tmp_path / "before").rename(tmp_path / "after")
    best = train(tmp_path / "after", 4)
    assert best["epoch"] == 0
    assert best["state_dict"]["weight"].item() == 1.0
    assert [path.name for path in tmp_path.iterdir()] == ["after"]
