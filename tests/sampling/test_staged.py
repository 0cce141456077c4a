"""A sampler in stages: every slice its own mask, each of the exact budget, and what it learns."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from rich.console import Console
from torch import Tensor

import laws
from commands import TINY
from kscout.errors import Stopped, UserError
from kscout.evaluation import evaluate
from kscout.experiment import RunFolder, load_experiment, run_experiment
from kscout.learning.joint import fit_jointly
from kscout.recon import SpiritNet, ZeroFilled
from kscout.sampling import Budget, StagedSampler
from kscout.sampling.staged import stage_budgets
from laws import complex_normal
from synthetic import blobs, slices

SHAPE = (17, 22)
UNITS: list[tuple[str, Budget]] = [
    ("points", Budget.of(SHAPE, n_samples=91, acs="square", acs_size=5)),
    ("points", Budget.of((13, 9), acceleration=4)),
    ("lines", Budget.of(SHAPE, n_lines=9, acs="lines", acs_size=3)),
]


def sampler_that_looks(budget: Budget, seed: int = 0, **options: Any) -> StagedSampler:
    """With a policy that is not silent, as it is before training."""
    sampler = StagedSampler(budget, seed, **options)
    generator = torch.Generator().manual_seed(seed)
    torch.nn.init.normal_(sampler.policy.last.weight, std=0.3, generator=generator)  # type: ignore[arg-type]
    return sampler


def masks(sampler: StagedSampler, n_slices: int = 4, seed: int = 0) -> Tensor:
    shape = sampler.budget.shape
    kspace = blobs(n_slices, shape=shape, seed=seed).kspace
    return sampler.for_slices(kspace, ZeroFilled(2)).detach()


@pytest.mark.parametrize("n_stages", [2, 3, 5])
@pytest.mark.parametrize(("unit", "budget"), UNITS)
def test_every_slice_spends_the_exact_budget(unit: Any, budget: Budget, n_stages: int) -> None:
    sampler = sampler_that_looks(budget, unit=unit, n_stages=n_stages, noise=0.3)
    kspace = complex_normal((4, 2, *budget.shape))
    generator = torch.Generator().manual_seed(1)
    drawn = sampler.for_slices(kspace, ZeroFilled(2), generator=generator).detach()
    assert drawn.shape == (4, 1, *budget.shape)
    assert drawn.dtype == torch.float32
    for mask in drawn[:, 0]:
        laws.exact_budget(mask, budget)
        assert unit == "points" or ((mask == mask[:1]).all())
    assert len({tuple(mask.flatten().tolist()) for mask in drawn}) > 1


def test_stages_share_what_the_acs_leaves() -> None:
    budget = Budget.of(SHAPE, n_samples=75, acs="square", acs_size=5)
    assert [stage.n_samples for stage in stage_budgets(budget, 3)] == [42, 58, 75]
    with pytest.raises(UserError, match="of which there are 6: valid is 2 to 6"):
        stage_budgets(Budget.of(SHAPE, n_samples=31, acs="square", acs_size=5), 7)
    with pytest.raises(UserError, match="there is 1: make the ACS smaller"):
        stage_budgets(Budget.of(SHAPE, n_samples=26, acs="square", acs_size=5), 2)


def test_a_slices_mask_depends_on_what_it_acquired_and_on_nothing_else() -> None:
    sampler, kspace = sampler_that_looks(UNITS[0][1]), blobs(5, shape=SHAPE).kspace
    together = sampler.for_slices(kspace, ZeroFilled(2)).detach()
    alone = torch.cat([sampler.for_slices(one[None], ZeroFilled(2)) for one in kspace]).detach()
    assert torch.equal(together, alone)
    elsewhere = complex_normal(kspace.shape, 3) * (1 - together)
    again = sampler.for_slices(kspace * together + elsewhere, ZeroFilled(2)).detach()
    assert torch.equal(together, again)


def test_a_scan_on_another_scale_gets_the_same_mask() -> None:
    sampler, kspace = sampler_that_looks(UNITS[0][1]), blobs(4, shape=SHAPE).kspace
    found = [sampler.for_slices(s * kspace, ZeroFilled(2)).detach() for s in (1, 1024)]
    assert torch.equal(*found)


def test_before_training_it_is_the_mask_without_looking() -> None:
    sampler = StagedSampler(UNITS[0][1], 0, init="density")
    assert all(torch.equal(mask.bool(), sampler.mask()) for mask in masks(sampler)[:, 0])


def test_the_seed_alone_decides() -> None:
    laws.deterministic(lambda seed: masks(sampler_that_looks(UNITS[0][1], seed)), differs=True)


def test_gradients_reach_scores_and_policy_and_leave_out_what_is_acquired() -> None:
    budget = UNITS[0][1]
    sampler = StagedSampler(budget, 0)
    torch.nn.init.ones_(sampler.policy.last.weight)  # type: ignore[arg-type]
    found = sampler.for_slices(blobs(3, shape=SHAPE).kspace, ZeroFilled(2))
    found.backward(torch.randn(found.shape, generator=torch.Generator().manual_seed(0)))
    assert sampler.scores.grad is not None
    assert sampler.scores.grad.abs().max() > 0
    for weights in sampler.policy.parameters():
        assert weights.grad is not None
        assert weights.grad.abs().max() > 0


def test_the_policys_gradient_is_that_of_points_still_to_be_had_less_their_price() -> None:
    budget = Budget.of((3, 4), n_samples=5, acs="square", acs_size=1)
    sampler = StagedSampler(budget, 0, n_stages=2)
    change = torch.zeros(2, 3, 4, requires_grad=True)
    sampler.policy.forward = lambda *seen: change  # type: ignore[method-assign]
    gradient = torch.randn(2, 1, 3, 4, generator=torch.Generator().manual_seed(0))
    sampler.for_slices(complex_normal((2, 1, 3, 4)), ZeroFilled(1)).backward(gradient)
    scores = sampler.scores.detach()
    ranked = scores.masked_fill(budget.acs, float("inf")).flatten().argsort(descending=True)
    free = ranked[3:]  # the ACS and half of the four others are acquired
    smooth = torch.sigmoid(scores.flatten() - scores.flatten()[ranked[4]])
    g = gradient.flatten(1)
    price = g[:, free].sort().values[:, 1:2]  # of the second of two
    expected = torch.zeros(2, 12)
    expected[:, free] = ((g - price) * smooth * (1 - smooth))[:, free]
    assert change.grad is not None
    torch.testing.assert_close(change.grad.flatten(1), expected)


def bright_on_one_side(n_slices: int, seed: int) -> Any:
    """k-space whose outer energy lies at the left or at the right, as a point near DC tells."""
    generator = torch.Generator().manual_seed(seed)
    is_left = torch.rand(n_slices, generator=generator) < 0.5
    kspace = 0.1 * complex_normal((n_slices, 1, 11, 16), seed)
    kspace[:, :, 4:7, 7:10] *= 30
    for left, one in zip(is_left, kspace[:, 0], strict=True):
        one[:, slice(0, 7) if left else slice(10, 16)] *= 10
    return slices(kspace)


def test_it_learns_to_look_where_one_mask_cannot(tmp_path: Path) -> None:
    """Which side holds the energy differs between slices; the first stage sees which."""
    train, test = bright_on_one_side(64, 0), bright_on_one_side(32, 1)
    budget = Budget.of((11, 16), n_samples=72, acs="square", acs_size=3)
    sampler, net = StagedSampler(budget, 0, n_channels=8), ZeroFilled(1)
    fit_jointly(
        sampler, net, train, test, folder=tmp_path, seed=0, epochs=10, batch_size=8,
        learning_rate=0.02, mask_learning_rate=0.02, progress=False,
    )  # fmt: skip

    def left_out(mask: Any) -> float:
        return sum(r["nmse_kspace"] for r in evaluate(mask, net, test, split="test")) / len(test)

    assert left_out(sampler) < 0.75 * left_out(sampler.mask())


def test_parts_of_a_batch_add_up_to_it(tmp_path: Path) -> None:
    """Eleven slices in batches of four: the last one is short, its last part has one slice."""
    states = []
    for micro_batch in (None, 2):
        sampler = StagedSampler(Budget.of((16, 13), acceleration=3), 0, n_channels=4)
        net = SpiritNet(2, n_blocks=2, kernel_size=3)
        fit_jointly(
            sampler, net, blobs(11), blobs(5, seed=1), folder=tmp_path / str(micro_batch),
            seed=0, epochs=1, batch_size=4, learning_rate=0.003, mask_learning_rate=0.02,
            progress=False, micro_batch=micro_batch,
        )  # fmt: skip
        states.append(sampler.state_dict() | net.state_dict())
    for name, values in states[0].items():
        torch.testing.assert_close(values, states[1][name], rtol=0.02, atol=2e-3)


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("staged")
    tree = TINY | {"sampler": {"kind": "staged", "n_channels": 4}}
    (folder / "staged.yaml").write_text(yaml.safe_dump(tree))
    run_experiment(load_experiment(folder / "staged.yaml"), folder / "run", Console(quiet=True))
    return folder / "staged.yaml", folder / "run"


def test_what_a_run_leaves(staged: tuple[Path, Path]) -> None:
    run = RunFolder(staged[1])
    assert run.results()["adaptive"]
    assert run.results()["learned"]
    assert int(run.mask().sum()) == run.results()["n_samples"] == 196


def test_a_stopped_run_goes_on_as_if_it_had_not(staged: tuple[Path, Path], tmp_path: Path) -> None:
    experiment, whole = load_experiment(staged[0]), RunFolder(staged[1])
    quiet, resumed = Console(quiet=True), RunFolder(tmp_path / "run")
    with pytest.raises(Stopped):
        run_experiment(experiment, resumed.path, quiet, should_stop=lambda: True)
    run_experiment(experiment, resumed.path, quiet)
    for name in ("mask.npy", "mask_history.npy", "records.csv"):
        assert (resumed.path / name).read_bytes() == (whole.path / name).read_bytes()


def test_kernels_cannot_be_fitted_to_masks_that_differ(staged: tuple[Path, Path]) -> None:
    experiment = load_experiment(staged[0], ["training.finish=closed_form"])
    with pytest.raises(UserError, match="'staged' has no one mask to fit kernels to"):
        run_experiment(experiment, staged[1].parent / "other", Console(quiet=True))
