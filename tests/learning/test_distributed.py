"""One training shared by processes, or computed in parts, is the same training."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kscout.data.slices import KspaceSet
from kscout.errors import Stopped, UserError
from kscout.learning.history import MaskHistory
from kscout.learning.joint import fit_jointly
from kscout.recon import SpiritNet
from kscout.sampling import FIXED_MASKS, Budget, Sampler, build_sampler
from synthetic import blobs

SHAPE = (16, 13)


def double(data: KspaceSet) -> KspaceSet:
    """In double precision: Adam makes much of the rounding of gradients that are nearly zero."""
    kspace = data.kspace.to(torch.complex128)
    return replace(data, kspace=kspace, target=kspace, coil_scale=data.coil_scale.double())


TRAIN, VAL = double(blobs(9)), double(blobs(5, seed=1))
"""In batches of 4, the last of which leaves nothing to the second of two processes."""


def make(kind: str = "global") -> tuple[Sampler, SpiritNet]:
    budget = Budget.of(SHAPE, acceleration=3, acs="square", acs_size=2)
    net = SpiritNet(2, n_blocks=2, kernel_size=3)
    net.kernels.data = net.kernels.data.to(torch.complex128)
    # A start that so few steps can leave, as they could not a binary one.
    options = {} if kind in FIXED_MASKS else {"init": "flat"}
    return build_sampler(kind, budget, 0, **options).double(), net


def fit(folder: Path, sampler: Sampler, net: SpiritNet, **options: Any) -> MaskHistory:
    settings: dict[str, Any] = {
        "seed": 3,
        "epochs": 4,
        "batch_size": 4,
        "learning_rate": 0.02,
        "mask_learning_rate": 0.1,
        "progress": False,
    }
    return fit_jointly(sampler, net, TRAIN, VAL, folder=folder, **(settings | options))


def losses(history: MaskHistory) -> Tensor:
    return torch.tensor([[row["train_loss"], row["val_loss"]] for row in history.rows])


def assert_same(
    first: tuple[MaskHistory, Sampler, SpiritNet], second: tuple[MaskHistory, Sampler, SpiritNet]
) -> None:
    assert torch.equal(first[0].mask_history, second[0].mask_history)
    torch.testing.assert_close(
        losses(first[0]), losses(second[0]), rtol=1e-6, atol=0
    )  # float32 logs
    for one, other in zip(first[1:], second[1:], strict=True):
        torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=1e-7, atol=1e-8)


def trained(folder: Path, kind: str = "global", **options: Any) -> tuple[Any, ...]:
    sampler, net = make(kind)
    return fit(folder, sampler, net, **options), sampler, net


def stop_after(n: int) -> Callable[[], bool]:
    """Says so when it is asked for the ``n``-th time."""
    return (answer for answer in [False] * (n - 1) + [True]).__next__


def by_slurm(folder: Path) -> None:
    """Two tasks of a SLURM job step train together, and are told to stop after two epochs."""
    step = {
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_JOB_NAME": "test",
        "SLURM_NODELIST": "127.0.0.1",
        "SLURM_NODEID": "0",
        "SLURM_NNODES": "1",
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_STEP_NUM_TASKS": "2",
        "PYTHONPATH": str(Path(__file__).parent.parent),
    }
    tasks = [
        subprocess.Popen(
            [sys.executable, __file__, str(folder)],
            env=os.environ | step | {"SLURM_PROCID": rank, "SLURM_LOCALID": rank},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    for task in tasks:
        _, errors = task.communicate(timeout=60)
        assert "kscout.errors.Stopped: told to stop after epoch 2" in errors
        assert "Warning" not in errors


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    """A training by two processes, first started by SLURM, and continued by two started here."""
    folder = tmp_path_factory.mktemp("shared")
    by_slurm(folder)
    assert len((folder / "metrics.csv").read_text().splitlines()) == 3
    return trained(folder, n_devices=2, micro_batch=1)


def test_two_processes_are_one(shared: tuple[Any, ...], tmp_path: Path) -> None:
    whole = trained(tmp_path)
    masks = whole[0].mask_history
    assert not torch.equal(masks[0], masks[-1])
    assert_same(shared, whole)
    history = shared[0]
    assert [row["epoch"] for row in history.rows] == [0, 1, 2, 3]
    assert history.seconds_before == sum(row["seconds"] for row in history.rows[:2])


@pytest.mark.parametrize("loss", ["nmse_kspace", "nmse_image"])
@pytest.mark.parametrize("micro_batch", [1, 3])
def test_parts_of_a_batch_are_the_batch(loss: str, micro_batch: int, tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole", loss=loss)
    parts = trained(tmp_path / "parts", loss=loss, micro_batch=micro_batch)
    assert_same(parts, whole)


def test_a_process_never_holds_more_than_a_micro_batch(tmp_path: Path) -> None:
    sampler, net = make("caipirinha")
    seen: list[int] = []
    net.predict = lambda kspace, mask, predict=net.predict: (  # type: ignore[method-assign]
        seen.append(len(kspace)) or predict(kspace, mask)  # type: ignore[func-returns-value]
    )
    fit(tmp_path, sampler, net, epochs=1, micro_batch=3)
    assert sorted(seen) == sorted([3, 1, 3, 1, 1, 3, 1, 1])


def test_a_stopped_training_goes_on(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        trained(tmp_path / "stopped", should_stop=stop_after(1))
    again = trained(tmp_path / "stopped", should_stop=lambda: False)
    whole = trained(tmp_path / "whole")
    assert torch.equal(again[2].kernels, whole[2].kernels)
    assert torch.equal(losses(again[0]), losses(whole[0]))


def test_what_cannot_be_shared_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"batch_size 4 cannot be shared by 3 .* multiple of 3"):
        trained(tmp_path, n_devices=3)
    with pytest.raises(UserError, match="n_nodes 2 needs a SLURM job step with one task per"):
        trained(tmp_path, n_nodes=2)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    monkeypatch.setenv("SLURM_NNODES", "1")
    with pytest.raises(UserError, match="SLURM_NNODES is 1: the trainer needs srun --nodes=2"):
        trained(tmp_path, n_devices=2, n_nodes=2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match="n_devices 2 is more than the GPUs here: 1"):
        trained(tmp_path, n_devices=2)
    assert list(tmp_path.iterdir()) == []


def test_one_process_in_a_slurm_job_is_lightnings_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SLURM_NTASKS", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.setenv(name, "2")  # Lightning would ask for SLURM_NTASKS_PER_NODE
    before = signal.getsignal(signal.SIGUSR1)
    trained(tmp_path, kind="caipirinha", epochs=1)
    assert signal.getsignal(signal.SIGUSR1) is before


if __name__ == "__main__":
    trained(Path(sys.argv[1]), n_devices=2, should_stop=stop_after(2))
