"""Joint training on tiny scans: what it learns, and that a stopped run goes on as if it had not."""

import csv
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import laws
from kscout.data.slices import KspaceSet
from kscout.errors import UserError
from kscout.learning.batches import step_generator
from kscout.learning.closed_form import fit_closed_form
from kscout.learning.history import MaskHistory
from kscout.learning.joint import JointModule, budgeted_nmse, fit_jointly
from kscout.metrics import nmse
from kscout.recon import Reconstructor, SpiritNet, ZeroFilled
from kscout.sampling import (
    FIXED_MASKS,
    AnyNumberSampler,
    Budget,
    LearnedSampler,
    Sampler,
    build_sampler,
)
from kscout.sampling.budget import take_highest
from laws import complex_normal
from synthetic import blobs

SHAPE = (16, 13)
TRAIN, VAL = blobs(11), blobs(5, seed=1)
N_BATCHES = 3
EPOCHS = 4


def budget() -> Budget:
    return Budget.of(SHAPE, acceleration=3, acs="square", acs_size=2)


def make(kind: str = "global", kernel_size: int = 3) -> tuple[Sampler, SpiritNet]:
    # A start that so few steps can leave, as they could not a binary one.
    options = {} if kind in FIXED_MASKS else {"init": "flat"}
    net = SpiritNet(2, n_blocks=2, kernel_size=kernel_size)
    return build_sampler(kind, budget(), 0, **options), net


def fit(folder: Path, sampler: Sampler, net: Reconstructor, **options: Any) -> MaskHistory:
    settings: dict[str, Any] = {
        "seed": 3,
        "epochs": EPOCHS,
        "batch_size": 4,
        "learning_rate": 0.02,
        "mask_learning_rate": 0.1,
        "progress": False,
        "val": VAL,
    }
    settings |= options
    return fit_jointly(sampler, net, TRAIN, folder=folder, **settings)


def rows(folder: Path) -> list[dict[str, str]]:
    """The log without what the clock decides."""
    with (folder / "metrics.csv").open() as file:
        return [
            {key: value for key, value in row.items() if key != "seconds"}
            for row in csv.DictReader(file)
        ]


@torch.no_grad()
def validation_error(sampler: Sampler, net: Reconstructor, data: KspaceSet = VAL) -> float:
    mask = sampler.mask()
    error = net(data.kspace * mask, mask.float()) - data.target
    return float(error.norm() ** 2 / data.target.norm() ** 2)


@pytest.mark.parametrize("kind", ["global", "tile"])
@pytest.mark.parametrize("loss", ["nmse_kspace", "nmse_image"])
def test_the_loss_falls_and_the_mask_moves(kind: str, loss: str, tmp_path: Path) -> None:
    sampler, net = make(kind)
    first, kernels = sampler.mask(), net.kernels.detach().clone()
    history = fit(tmp_path, sampler, net, loss=loss, epochs=12)
    logged = rows(tmp_path)
    assert [float(row["epoch"]) for row in logged] == list(range(12))
    for name in ("train_loss", "val_loss"):
        assert float(logged[-1][name]) < 0.7 * float(logged[0][name])
    assert not torch.equal(net.kernels, kernels)
    masks = history.mask_history
    assert masks.shape == (13, *SHAPE)
    assert torch.equal(masks[0], first)
    for mask in masks:
        laws.exact_budget(mask, budget())
    moved = [int((new & ~old).sum()) for old, new in itertools.pairwise(masks)]
    assert [float(row["n_points_changed"]) for row in logged] == moved
    assert sum(moved) > 0
    assert moved[-1] <= max(moved) / 2  # noise and mask rate fall to nothing: the mask settles
    noise = [float(row["noise"]) for row in logged]
    assert noise == sorted(noise, reverse=True)
    assert noise[-1] < 0.01 < noise[0]


def test_both_end_at_the_best_epoch(tmp_path: Path) -> None:
    sampler, net = make()
    history = fit(tmp_path, sampler, net, learning_rate=0.3)
    losses = [row["val_loss"] for row in history.rows]
    best = losses.index(min(losses))
    assert best < len(losses) - 1  # the last epoch is another
    assert torch.equal(sampler.mask(), history.masks[best + 1])
    # The log averages over batches of 4 and 1; here so does the check.
    parts = [VAL.select(slice(0, 4)), VAL.select(slice(4, 5))]
    errors = [validation_error(sampler, net, part) for part in parts]
    assert (4 * errors[0] + errors[1]) / 5 == pytest.approx(losses[best], rel=1e-4)


def test_a_fixed_mask_stays_and_its_reconstructor_learns(tmp_path: Path) -> None:
    sampler, net = make("caipirinha")
    before = sampler.mask()
    history = fit(tmp_path, sampler, net)
    assert torch.equal(history.mask_history, before.expand(EPOCHS + 1, *SHAPE))
    assert torch.equal(sampler.mask(), before)
    assert "noise" not in rows(tmp_path)[0]
    assert history.rows[-1]["val_loss"] < history.rows[0]["val_loss"]


def test_scores_and_networks_learn_at_their_rates() -> None:
    sampler, net = make("staged")
    module = JointModule(
        sampler, net, loss="nmse_kspace", mask_learning_rate=0.3, learning_rate=0.2, seed=0,
        to_image=TRAIN.image,
    )  # fmt: skip
    groups = module.configure_optimizers().param_groups
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert len(rates) == len(list(module.parameters()))
    for name, parameter in module.named_parameters():
        assert rates[id(parameter)] == (0.3 if name == "sampler.scores" else 0.2)


def test_descent_improves_on_the_closed_form(tmp_path: Path) -> None:
    sampler, net = make("caipirinha")
    fit_closed_form(net, sampler.mask(), TRAIN, seed=0, regularisation=1e-2)
    before = validation_error(sampler, net)
    fit(tmp_path, sampler, net, learning_rate=1e-3)
    assert validation_error(sampler, net) < before


def test_without_a_reconstructor_the_most_energy_is_acquired(tmp_path: Path) -> None:
    """Zero filling: the loss is the energy left out, so the best mask is known."""
    sampler = build_sampler("global", budget(), 0)
    fit(tmp_path, sampler, ZeroFilled(2), epochs=40, mask_learning_rate=0.3, val=TRAIN)
    energy = TRAIN.target.abs().square().sum((0, 1))
    best = take_highest(energy, budget())
    left_out = float(energy[~sampler.mask()].sum() / energy[~best].sum())
    assert 1 <= left_out < 1.05


def random_binary(shape: tuple[int, ...]) -> Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(0)) < 0.4).float()


def test_the_loss_of_a_binary_mask_is_the_nmse_of_the_completed_kspace() -> None:
    predicted, kspace, target = (complex_normal((3, 2, 5, 4), seed) for seed in range(3))
    mask = random_binary((5, 4))
    completed = torch.where(mask.bool(), kspace, predicted)
    expected = nmse(completed[None], target[None])[0]
    loss = budgeted_nmse(predicted, kspace, target, mask)
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)


def test_the_slope_of_the_loss_is_what_toggling_a_point_changes() -> None:
    predicted, kspace, target = (
        complex_normal((3, 2, 5, 4), seed, torch.complex128) for seed in range(3)
    )
    mask = random_binary((5, 4)).double().requires_grad_()
    (slope,) = torch.autograd.grad(budgeted_nmse(predicted, kspace, target, mask), mask)
    for place in itertools.product(range(5), range(4)):
        losses = []
        for value in (0, 1):
            toggled = mask.detach().clone()
            toggled[place] = value
            losses.append(budgeted_nmse(predicted, kspace, target, toggled))
        assert float(slope[place]) == pytest.approx(float(losses[1] - losses[0]), rel=1e-9)


def test_the_seed_decides(tmp_path: Path) -> None:
    folders = itertools.count()

    def weights(seed: int) -> Tensor:
        sampler, net = make()
        fit(tmp_path / str(next(folders)), sampler, net, seed=seed, epochs=2)
        scores = next(sampler.parameters())
        return torch.cat([scores.flatten(), torch.view_as_real(net.kernels).flatten()]).detach()

    laws.deterministic(weights, differs=True)


def at_step(sampler: Sampler, n: int, strike: Callable[[], None]) -> None:
    """Let something happen in training step ``n``, counted from 0."""
    steps = itertools.count()

    def hook(_: Any, arguments: tuple[Any, ...]) -> None:
        in_training = arguments and arguments[0] is not None
        if in_training and next(steps) == n:
            strike()

    sampler.register_forward_pre_hook(hook)


def interrupt() -> None:
    raise KeyboardInterrupt


def killed(folder: Path) -> None:
    """Train in another process, which is killed in the third epoch."""
    tests = Path(__file__).parent.parent
    environment = os.environ | {"PYTHONPATH": str(tests)}
    child = subprocess.run([sys.executable, __file__, str(folder)], env=environment, check=False)
    assert child.returncode == -signal.SIGKILL


def interrupted(folder: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    sampler, net = make()
    at_step(sampler, 2 * N_BATCHES + 1, interrupt)
    with pytest.raises(KeyboardInterrupt):
        fit(folder, sampler, net)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("stop", [killed, interrupted])
def test_a_stopped_run_goes_on_as_if_it_had_not(
    stop: Callable[[Path], None], tmp_path: Path
) -> None:
    sampler, net = make()
    history = fit(tmp_path / "whole", sampler, net)
    stop(tmp_path / "resumed")
    assert len(rows(tmp_path / "resumed")) == 2
    again, net_again = make()
    resumed = fit(tmp_path / "resumed", again, net_again)
    assert rows(tmp_path / "resumed") == rows(tmp_path / "whole")
    assert torch.equal(resumed.mask_history, history.mask_history)
    assert torch.equal(net_again.kernels, net.kernels)
    for name, value in sampler.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)


def test_a_finished_run_is_only_read_again(tmp_path: Path) -> None:
    sampler, net = make()
    fit(tmp_path, sampler, net)
    logged = rows(tmp_path)
    again, net_again = make()
    history = fit(tmp_path, again, net_again)
    assert rows(tmp_path) == logged
    assert len(history.rows) == EPOCHS
    assert torch.equal(net_again.kernels, net.kernels)
    assert torch.equal(again.mask(), sampler.mask())


def test_without_validation_the_last_epoch_counts(tmp_path: Path) -> None:
    sampler, net = make()
    history = fit(tmp_path, sampler, net, val=VAL.select([]))
    assert rows(tmp_path)[0]["val_loss"] == ""
    assert len(history.rows) == EPOCHS
    assert torch.equal(sampler.mask(), history.masks[-1])


def test_patience_needs_validation_data(tmp_path: Path) -> None:
    sampler, net = make()
    with pytest.raises(UserError, match="patience needs validation data"):
        fit(tmp_path, sampler, net, val=VAL.select([]), patience=1)


def test_training_stops_early(tmp_path: Path) -> None:
    sampler, net = make("caipirinha")
    fit_closed_form(net, sampler.mask(), TRAIN, seed=0)
    history = fit(tmp_path, sampler, net, epochs=30, learning_rate=0.5, patience=2)
    losses = [row["val_loss"] for row in history.rows]
    assert len(losses) < 30
    assert losses.index(min(losses)) == len(losses) - 3
    again = fit(tmp_path, *make("caipirinha"), epochs=30, learning_rate=0.5, patience=2)
    assert again.rows == history.rows
    last = torch.load(tmp_path / "training" / "last.ckpt", weights_only=True)
    assert last["epoch"] == len(losses) - 1  # not the best epoch


def test_a_loss_that_is_not_finite_stops_at_once(tmp_path: Path) -> None:
    sampler, net = make()
    with torch.no_grad():
        net.kernels[0, 0, 0, 0, 0] = float("nan")
    with pytest.raises(UserError, match="loss is not finite in epoch 0: use a lower learning"):
        fit(tmp_path, sampler, net)
    assert not (tmp_path / "training").exists()


def test_nothing_to_train_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing to train"):
        fit(tmp_path, make("caipirinha")[0], ZeroFilled(2))


@pytest.mark.parametrize("other", [{"kernel_size": 5}, {"kind": "caipirinha"}, {"kind": "tile"}])
def test_a_checkpoint_of_another_model_is_refused(other: dict[str, Any], tmp_path: Path) -> None:
    fit(tmp_path, *make(), epochs=1)
    with pytest.raises(UserError, match=r"last\.ckpt is a checkpoint of another model"):
        fit(tmp_path, *make(**other))


def test_lightning_says_nothing(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    for n_val in (5, 5, 0):
        fit(tmp_path / str(n_val), *make(), epochs=2, val=VAL.select(range(n_val)))
    assert [str(warning.message) for warning in recwarn] == []


if __name__ == "__main__":
    doomed, reconstructor = make()
    assert isinstance(doomed, LearnedSampler)
    at_step(doomed, 2 * N_BATCHES + 1, lambda: os.kill(os.getpid(), signal.SIGKILL))
    fit(Path(sys.argv[1]), doomed, reconstructor)


def test_validation_of_any_number_of_lines_is_of_as_many_as_training(tmp_path: Path) -> None:
    """The same masks in every epoch, of another mean error than the full budget alone has."""
    sampler, net = AnyNumberSampler(Budget.of(SHAPE, n_lines=6), 0), make()[1]
    history = fit(tmp_path / "a", sampler, net, learning_rate=1e-9, batch_size=len(VAL))
    losses = [row["val_loss"] for row in history.rows]
    assert losses == pytest.approx([losses[0]] * EPOCHS, rel=1e-4)
    masks = sampler.for_slices(VAL.kspace, net, None, step_generator(3, 0))
    assert len(masks.sum((1, 2, 3)).unique()) > 1
    predicted = net.predict(VAL.kspace * masks, masks)
    norm = VAL.target.abs().square().sum()
    expected = budgeted_nmse(predicted, VAL.kspace, VAL.target, masks, norm)
    assert losses[0] == pytest.approx(float(expected.detach()), rel=1e-4)


@pytest.mark.parametrize("left", [0, 100, 5000])
def test_a_damaged_checkpoint_is_set_aside_and_training_begins_anew(
    left: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sampler, net = make()
    whole = fit(tmp_path / "whole", sampler, net).rows
    last = tmp_path / "whole" / "training" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:left])
    again = fit(tmp_path / "whole", *make()).rows
    assert [row["val_loss"] for row in again] == [row["val_loss"] for row in whole]
    assert "is damaged: kept as last.ckpt.damaged, and trained from the start" in (
        capsys.readouterr().err
    )
    assert last.with_name("last.ckpt.damaged").stat().st_size == left
