"""Policies that learn: they learn what no order knows, alike every time, and go on when stopped."""

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch

from kscout.acquisition.ddqn import Ddqn
from kscout.acquisition.evaluator import Evaluator
from kscout.acquisition.gradient import PolicyGradient
from kscout.acquisition.learner import Learner, explore, fit
from kscout.acquisition.network import LARGEST, UnitNetwork, View
from kscout.acquisition.policies import OraclePolicy, OrderPolicy, choose, greedy_order
from kscout.acquisition.process import Process, State
from kscout.acquisition.registry import staged_sampler
from kscout.acquisition.replay import Replay, Transitions
from kscout.acquisition.rollout import roll_out
from kscout.acquisition.together import PolicySampler, StagedPolicy
from kscout.errors import Stopped, UserError
from kscout.sampling.units import Units
from laws import complex_normal
from scans import process

MAKE: dict[str, Callable[[Process], Learner]] = {
    "ddqn": lambda p: Ddqn(p, 0, replay_batch_size=32, epsilon_decay=0.6),
    "evaluator": lambda p: Evaluator(p, 0),
    "gradient": lambda p: PolicyGradient(p, 0, n_rollouts=4),
}
EPOCHS = {"ddqn": 25, "evaluator": 8, "gradient": 40}


@pytest.mark.parametrize("kind", MAKE)
def test_it_looks_at_the_slice_and_so_beats_every_order(kind: str, tmp_path: Path) -> None:
    train, test = process(), process(seed=9)
    learner = MAKE[kind](train)
    fit(learner, process(seed=5), tmp_path, epochs=EPOCHS[kind], batch_size=16, progress=False)
    own = roll_out(test, learner.policy).area.mean()
    order = roll_out(test, greedy_order(train, 48, 0)).area.mean()
    oracle = roll_out(test, OraclePolicy(test)).area.mean()
    assert oracle <= own < order - 0.6 * (order - oracle)


@pytest.mark.parametrize("kind", MAKE)
def test_a_seed_gives_one_curve_and_a_stop_changes_nothing(kind: str, tmp_path: Path) -> None:
    def curve(folder: Path, **options: object) -> tuple[list[object], dict[str, torch.Tensor]]:
        learner = MAKE[kind](process(20))
        history = fit(
            learner, process(7, seed=5), folder, epochs=4, batch_size=8, progress=False, **options
        )  # type: ignore[arg-type]
        rows = [[row[k] for k in ("train_loss", "return", "val_loss")] for row in history.rows]
        return rows, learner.network.state_dict()

    whole, weights = curve(tmp_path / "whole")
    again, _ = curve(tmp_path / "again")
    assert whole == again
    asked = count()
    with pytest.raises(Stopped):
        curve(tmp_path / "stopped", should_stop=lambda: next(asked) == 1)
    resumed, same = curve(tmp_path / "stopped")
    assert resumed == whole
    assert all(torch.equal(weights[name], same[name]) for name in weights)


def test_a_network_that_does_not_look_gives_one_order(tmp_path: Path) -> None:
    train = process()
    learner = Ddqn(train, 0, sees_slice=False, replay_batch_size=16)
    fit(learner, None, tmp_path, epochs=2, batch_size=16, progress=False)
    actions = roll_out(process(seed=3), learner.policy).actions
    assert (actions == actions[0]).all()


def transitions(n: int, n_units: int, size: int) -> Transitions:
    g = torch.Generator().manual_seed(n)

    def view() -> View:
        return View(
            torch.rand(n, n_units, generator=g) < 0.5,
            torch.rand(n, n_units, generator=g),
            torch.rand(n, 1, size, size, generator=g),
        )

    action = torch.randint(0, n_units, (n,), generator=g)
    reward, done = torch.rand(n, generator=g), torch.rand(n, generator=g) < 0.5
    return Transitions(torch.arange(n), view(), action, reward, view(), done)


def test_what_is_remembered_comes_back() -> None:
    kept, memory = transitions(13, 21, 5), Replay(40, 21, 0)
    memory.add(kept)
    drawn = memory.draw(200, torch.device("cpu"))
    assert set(drawn.slices.tolist()) == set(range(13))
    row = drawn.slices
    for before, after in ((drawn.before, kept.before), (drawn.after, kept.after)):
        assert torch.equal(before.acquired, after.acquired[row])
        torch.testing.assert_close(before.energy, after.energy[row], atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(before.image, after.image[row], atol=1e-3, rtol=1e-3)
    assert torch.equal(drawn.action, kept.action[row])
    assert torch.equal(drawn.reward, kept.reward[row])
    assert torch.equal(drawn.done, kept.done[row])


def test_the_oldest_are_forgotten_and_drawing_goes_on_where_it_was() -> None:
    memory = Replay(10, 21, 0)
    for first in range(0, 30, 6):
        new = transitions(6, 21, 4)
        memory.add(
            Transitions(new.slices + first, new.before, new.action, new.reward, new.after, new.done)
        )
    assert len(memory) == 10
    assert set(memory.draw(300, torch.device("cpu")).slices.tolist()) == set(range(20, 30))
    other = Replay(10, 21, 99)
    other.load_state_dict(memory.state_dict())
    for _ in range(4):  # goes on to be alike, where the oldest are overwritten too
        one, two = (m.draw(50, torch.device("cpu")).slices for m in (memory, other))
        assert torch.equal(one, two)
        for kept in (memory, other):
            kept.add(transitions(3, 21, 4))


def test_twenty_thousand_transitions_of_a_large_matrix_fit_into_a_gigabyte() -> None:
    memory = Replay(50, 320, 0)
    memory.add(transitions(50, 320, LARGEST))
    assert 20_000 * memory.n_bytes / 50 < 0.4e9


def test_a_view_is_on_a_scale_of_its_own_and_small() -> None:
    scan = process(budget=3)
    network = UnitNetwork(scan.units, 0)
    state = scan.start(torch.arange(5))
    seen = network.see(state)
    for factor in (1e-4, 3.0):
        scaled = replace(state, kspace=factor * state.kspace, image=factor * state.image)
        other = network.see(scaled)
        torch.testing.assert_close(other.energy, seen.energy, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(other.image, seen.image, atol=1e-3, rtol=1e-3)
    large = replace(state, image=torch.rand(5, 200, 90))
    assert network.see(large).image.shape == (5, 1, 64, 64)


@pytest.mark.parametrize("kind", ["lines", "points", "tile"])
def test_the_energy_of_units_is_the_mean_over_their_points(kind: str) -> None:
    units = Units.of((7, 10), kind, (3, 4))  # type: ignore[arg-type]
    network = UnitNetwork(units, 0)
    kspace = complex_normal((3, 2, 7, 10))
    found = network.mean_square(kspace)
    for unit in range(units.n):
        points = kspace[:, :, units.plane == unit].abs().square().sum(1)
        torch.testing.assert_close(found[:, unit], points.mean(1))


def test_area_rewards_add_up_to_the_area_won() -> None:
    scan = process(budget=5)
    learner = Evaluator(scan, 0)
    learner.reward = "area"
    state, total = scan.start(torch.arange(6)), torch.zeros(6)
    scores = [state.score]
    for action in (0, 1, 2, 5, 8):
        new, gain = scan.step(state, torch.full((6,), action))
        total += learner.rewards(state, gain)
        scores.append(new.score)
        state = new
    area = torch.trapezoid(torch.stack(scores), dim=0) / 5
    torch.testing.assert_close(total * learner.unit, (scores[0] - area).float())


def test_exploring_takes_free_units_only_and_as_often_as_told() -> None:
    scan = process(n=400)
    policy, state = MAKE["evaluator"](scan).policy, scan.start(torch.arange(400))
    own = choose(policy, state)
    for chance in (0.0, 0.4, 1.0):
        taken = explore(policy, state, chance, torch.Generator().manual_seed(1))
        assert not state.acquired.gather(1, taken[:, None]).any()
        differs = (taken != own).float().mean()
        assert abs(float(differs) - chance * 7 / 8) < 0.08


def test_an_action_is_credited_above_the_mean_of_the_other_tries_of_its_slice() -> None:
    learner = PolicyGradient(process(), 0, n_rollouts=4)
    index = torch.arange(6).repeat(4)  # as slices are laid out while they are acquired
    value = torch.rand(24)
    credit = learner._above_the_others(value)
    for i in range(24):
        others = [value[j] for j in range(24) if j != i and index[j] == index[i]]
        assert len(others) == 3
        torch.testing.assert_close(credit[i], value[i] - sum(others) / 3)


def test_the_target_of_double_q_learning_by_hand() -> None:
    """The network says which unit is next, its copy what that is worth; nothing after the last."""
    scan = process(n=6)
    learner = Ddqn(scan, 0, gamma=0.7)
    target = UnitNetwork(scan.units, 1)
    others = {f"module.0.module.{name}": w for name, w in target.state_dict().items()}
    for name, weights in learner.dqn.target_value_network_params.flatten_keys(".").items():
        if name in others:  # elsewhere are the units, which both know
            weights.data.copy_(others.pop(name))
    assert not others
    state = scan.start(torch.arange(6))
    action = torch.tensor([0, 1, 2, 5, 6, 7])
    new, _ = scan.step(state, action)
    before, after = learner.network.see(state), learner.network.see(new)
    done = torch.tensor([False, True] * 3)
    reward = torch.linspace(-1, 1, 6)
    with torch.no_grad():
        own = learner.network(*before).gather(1, action[:, None])[:, 0]
        best = learner.network(*after).masked_fill(new.acquired, -torch.inf).argmax(1)
        later = target(*after).gather(1, best[:, None])[:, 0]
    expected = torch.nn.functional.smooth_l1_loss(own, reward + 0.7 * later * ~done)
    kept = Transitions(torch.arange(6), before, action, reward, after, done)
    torch.testing.assert_close(learner.loss(kept).detach(), expected)


def test_credit_is_of_all_that_follows_or_of_the_next_reward_alone() -> None:
    rewards = torch.tensor([[1.0, 2.0], [4.0, 8.0], [16.0, 32.0]])  # of one slice, two tries
    for options, first in (({"gamma": 0.5}, 1 + 0.5 * (4 + 0.5 * 16)), ({"greedy": True}, 1.0)):
        learner = PolicyGradient(process(), 0, n_rollouts=2, **options)  # type: ignore[arg-type]
        credits = learner.credits(rewards)
        assert credits[:, 0].tolist() == [-first, -12.0 if "gamma" in options else -4.0, -16.0]
        assert torch.equal(credits[:, 1], -credits[:, 0])


def test_exploring_falls_and_the_target_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = Ddqn(process(), 0, epsilon_decay=0.5, epsilon_end=0.1, learning_rate=0.01, tau=0.1)
    assert [learner.epsilon(done) for done in (0.0, 0.25, 0.45, 0.5, 1.0)] == pytest.approx(
        [1, 0.5, 0.1, 0.1, 0.1]
    )
    chances: list[float] = []

    def spy(*given: Any) -> torch.Tensor:
        chances.append(given[2])
        return explore(*given)

    monkeypatch.setattr("kscout.acquisition.ddqn.explore", spy)
    before = learner.dqn.target_value_network_params.flatten_keys(".").clone()
    fit(learner, None, tmp_path, epochs=4, batch_size=48, progress=False)
    assert chances == pytest.approx([1, 1, 0.5, 0.5, 0.1, 0.1, 0.1, 0.1])
    assert learner.trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.01 / 4)
    after = learner.dqn.target_value_network_params.flatten_keys(".")
    own = learner.dqn.value_network_params.flatten_keys(".")
    name = "module.0.module.layers.0.weight"
    assert not torch.equal(after[name], before[name])
    assert not torch.equal(after[name], own[name])


@pytest.mark.parametrize("metric", ["mse", "psnr"])
def test_the_best_epoch_on_validation_is_kept(metric: str, tmp_path: Path) -> None:
    val, is_last = process(30, seed=5, metric=metric), []
    for seed in (0, 3, 5):
        train, options = process(metric=metric), {"learning_rate": 0.03, "epsilon_end": 1.0}
        learner = Ddqn(train, seed, replay_batch_size=32, **options)  # type: ignore[arg-type]
        folder = tmp_path / str(seed)
        history = fit(learner, val, folder, epochs=4, batch_size=16, progress=False)
        losses = [float(row["val_loss"] or 0) for row in history.rows]
        area = roll_out(val, learner.policy).area.mean()
        assert float(-val.sign * area) == pytest.approx(min(losses), rel=1e-5)
        is_last.append(losses[-1] == min(losses))
    assert not all(is_last)


def test_masks_of_a_policy_are_those_that_it_acquires() -> None:
    scan = process(budget=3)
    orders = [OrderPolicy(order) for order in ([0, 1, 2], [8, 7, 6])]
    for policy in (*orders, OraclePolicyOfEnergy()):
        sampler = PolicySampler(scan, policy)
        masks = sampler.for_slices(scan.data.kspace, scan.reconstructor)
        actions = roll_out(scan, policy).actions
        acquired = scan.initial.repeat(48, 1).scatter(1, actions, True)
        assert torch.equal(masks, scan.units.mask(acquired))
        some = sampler.for_slices(
            scan.data.kspace, scan.reconstructor, None, torch.Generator().manual_seed(0)
        )
        counts = some[:, 0, 0].sum(1)
        assert set(counts.tolist()) == {1, 2, 3, 4}  # each slice stops behind any step
        assert (some <= masks).all()


class OraclePolicyOfEnergy:
    """Looks at the slice, and takes the line that was the brightest before any was missing."""

    def preferences(self, state: State) -> torch.Tensor:
        bright = state.image.sum((-2, -1), keepdim=True)[:, :, 0]
        return torch.cos(torch.arange(9) * 7 * bright)


def test_a_staged_policy_acquires_what_its_sampler_does() -> None:
    scan = process(budget=3)
    sampler = staged_sampler(scan, 0, n_channels=4).eval()
    with torch.no_grad():
        for weights in sampler.policy.parameters():
            weights.copy_(torch.randn(weights.shape, generator=torch.Generator().manual_seed(1)))
    masks = sampler.for_slices(scan.data.kspace, scan.reconstructor).detach()
    actions = roll_out(scan, StagedPolicy(sampler, scan.units)).actions
    acquired = scan.initial.repeat(48, 1).scatter(1, actions, True)
    assert torch.equal(masks, scan.units.mask(acquired))
    assert len(actions.unique(dim=0)) > 1
    some = sampler.for_slices(
        scan.data.kspace, scan.reconstructor, None, torch.Generator().manual_seed(0)
    ).detach()
    assert set(some[:, 0, 0].sum(1).tolist()) == {2, 3, 4}
    assert (some <= masks).all()


def test_it_learns_on_the_device_of_the_scan(tmp_path: Path) -> None:
    learner = Evaluator(process(8), 0)
    fit(learner, None, tmp_path, epochs=1, progress=False)
    assert learner.trainer.strategy.root_device == learner.process.device


@pytest.mark.parametrize("kind", MAKE)
def test_a_loss_that_is_not_finite_is_told(kind: str, tmp_path: Path) -> None:
    learner = MAKE[kind](process())
    with torch.no_grad():
        next(learner.network.parameters()).fill_(torch.inf)
    with pytest.raises(UserError, match=r"not finite.*: use a lower learning rate"):
        fit(learner, None, tmp_path, epochs=1, progress=False)


def test_two_seeds_do_not_draw_the_same(tmp_path: Path) -> None:
    taken = []
    for seed in (0, 1):
        learner = Ddqn(process(), seed, replay_batch_size=8)
        fit(learner, None, tmp_path / str(seed), epochs=1, batch_size=48, progress=False)
        taken.append(learner.replay.buffer[:]["action"])
    assert not torch.equal(*taken)
